"""A manifest has one form in bytes, and nothing that is not of that form is believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from blake3 import blake3

from ckptvcs.domain.manifest import MAX_BYTES, expressible, from_bytes, id_of, to_bytes
from ckptvcs.domain.provenance import Code, Provenance
from ckptvcs.errors import BadManifest, NewerVersion
from tests.unit.domain.manifests import canonical, component, file, manifest


def document() -> dict[str, Any]:
    return json.loads(to_bytes(manifest()))


def test_a_manifest_is_read_as_it_was_written():
    written = manifest()

    assert from_bytes(to_bytes(written), where="main") == written


def test_the_bytes_are_sorted_indented_json_with_a_final_newline():
    data = to_bytes(manifest(params={"ü": "é\u2028", "a": [1.0, -0.0, 1e22, True, None]}))

    assert data == canonical(json.loads(data))
    assert data.endswith(b"}\n")


def test_the_id_is_the_blake3_digest_of_the_bytes():
    data = to_bytes(manifest())

    assert id_of(data) == blake3(data).hexdigest()


@pytest.mark.parametrize("value", [2**64, -(2**70), 5e-324, 1.7976931348623157e308, 1e16, "\x00\x7f", {"": {}}])
def test_any_value_of_json_comes_back(value: Any):
    written = manifest(params={"x": value})

    assert from_bytes(to_bytes(written), where="main") == written


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"provenance": Provenance(command=("\udcff.py",))}, b"\\\\udcff.py"),
        ({"params": {"\udcff": [(1, "\ud800")]}}, b"\\\\udcff"),
        ({"metrics": {"loss": float("nan")}}, b'"loss": "nan"'),
        ({"params": {"clip": {"by": [float("-inf")]}}}, b'"-inf"'),
        ({"epoch": 1.0}, b'"epoch": 1.0'),
    ],
    ids=["command", "parameter", "metric", "infinity", "nothing to do"],
)
def test_what_json_or_utf_8_cannot_say_is_put_into_words(changes: dict[str, Any], said: bytes):
    data = to_bytes(expressible(manifest(**changes)))

    assert said in data
    assert to_bytes(from_bytes(data, where="main")) == data


def test_what_can_be_said_is_left_as_it_is():
    assert expressible(manifest()) == manifest()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\udcff"])
def test_what_could_not_be_read_back_is_never_written(value: Any):
    with pytest.raises(ValueError, match=r"JSON|surrogates"):
        to_bytes(manifest(params={"x": value}))


@pytest.mark.parametrize("version", ["ckptvcs/2", "ckptvcs/1.1", "ckptvcs/", "ckptvcs/\x1b[31m"])
def test_a_newer_version_is_told_apart_from_damage(version: str):
    newer = canonical({**document(), "format": version, "unheard": "of"})

    with pytest.raises(NewerVersion) as caught:
        from_bytes(newer, where="exp-a")

    assert "ckptvcs/1" in caught.value.why
    assert "\x1b" not in str(caught.value)
    assert "upgrade" in caught.value.next_step


def test_another_format_is_no_manifest():
    with pytest.raises(BadManifest):
        from_bytes(canonical({**document(), "format": "other/1"}), where="main")


@pytest.mark.parametrize(
    "place",
    [
        (),
        ("run",),
        ("source",),
        ("components", 0),
        ("components", 0, "files", 0),
        ("files", 0),
        ("provenance",),
        ("provenance", "code"),
        ("provenance", "data", 0),
        ("provenance", "environment"),
    ],
    ids=str,
)
def test_an_unknown_field_is_refused_everywhere(place: tuple[Any, ...]):
    changed = document()
    target: Any = changed
    for key in place:
        target = target[key]
    target["unknown"] = 1

    with pytest.raises(BadManifest, match="unknown"):
        from_bytes(canonical(changed), where="main")


@pytest.mark.parametrize("name", sorted(document()))
def test_no_field_may_be_left_out(name: str):
    changed = document()
    del changed[name]

    with pytest.raises(BadManifest):
        from_bytes(canonical(changed), where="main")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-1],
        lambda data: data + b"\n",
        lambda data: b" " + data,
        lambda data: json.dumps(json.loads(data)).encode(),
        lambda data: (json.dumps(dict(reversed(json.loads(data).items())), indent=1) + "\n").encode(),
        lambda data: data.replace(b'"step": 1200', b'"step": 1200.0'),
        lambda data: data.replace(b'"epoch": 1.5', b'"epoch": 1.50'),
        lambda data: data.replace(b' "step": 1200', b' "step": 7,\n "step": 1200'),
        lambda data: data.replace(b"bert", b"\\u0062ert"),
        lambda data: data.replace(b"\n", b"\r\n"),
    ],
    ids=[
        "no newline",
        "newlines",
        "blank",
        "one line",
        "unsorted",
        "float",
        "digits",
        "twice",
        "escape",
        "line ends",
    ],
)
def test_another_spelling_of_the_same_manifest_is_refused(spoil: Callable[[bytes], bytes]):
    data = to_bytes(manifest())
    spoiled = spoil(data)

    with pytest.raises(BadManifest):
        from_bytes(spoiled, where="main")

    assert spoiled != data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe\x00",
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b" " * (MAX_BYTES + 1),
        b'{"size": ' + b"9" * 5000 + b"}",
    ],
    ids=["empty", "null", "list", "binary", "deep list", "deep dict", "huge", "long number"],
)
def test_what_is_no_manifest_at_all_is_refused(data: bytes):
    with pytest.raises(BadManifest) as caught:
        from_bytes(data, where="exp-a")

    assert "'exp-a'" in caught.value.what
    assert "git fsck" in caught.value.next_step


@pytest.mark.parametrize("part", range(16))
def test_a_torn_manifest_is_refused(part: int):
    data = to_bytes(manifest())

    with pytest.raises(BadManifest):
        from_bytes(data[: len(data) * part // 16], where="main")


@pytest.mark.parametrize(
    "changes",
    [
        *(
            {"files": (file(path),)}
            for path in (
                "../x",
                "/etc/passwd",
                "a/./b",
                "a//b",
                "",
                "a\\b",
                "C:x",
                ".git/hooks/post-commit",
                "NUL.json",
            )
        ),
        {"files": (file("a.patch"), file("A.patch"))},
        {"files": (file("a"), file("a/b"))},
        {"files": (file("model/tree.json"),)},
        {"files": (file("x", digest="A"),)},
        {"files": (file("x", digest="g"),)},
        {"files": (file("x", digest="ab"),)},
        {"files": (file("x", size=-1),)},
        {"files": (file("x", size=1 << 60),)},
        {"components": (component("model"), component("model"))},
        {"components": (component("model", file("optimizer/tree.json")),)},
        {"components": (component("model", file("tree.json")),)},
        {"components": (component("..", file("../tree.json")),)},
        {"parents": ("HEAD",)},
        {"parents": ("A" * 64,)},
        {"track": "../model"},
        {"track": "no"},
    ],
    ids=str,
)
def test_a_manifest_that_would_do_harm_is_refused(changes: dict[str, Any]):
    with pytest.raises(BadManifest):
        from_bytes(to_bytes(manifest(**changes)), where="main")


def test_control_characters_do_not_reach_the_terminal():
    with pytest.raises(BadManifest) as caught:
        from_bytes(to_bytes(manifest(files=(file("\x1b[31m/x"),))), where="\x1b[2J")

    assert "\x1b" not in str(caught.value)


def test_the_size_is_that_of_all_files():
    assert manifest().nbytes == 10 + 200 + 10 + 3
    assert [f.path for f in manifest().all_files()] == [
        "model/tree.json",
        "model/encoder.safetensors",
        "optimizer/tree.json",
        "code.patch",
    ]


@pytest.mark.parametrize(
    ("wanted", "found"), [("net", "net"), ("model", "net"), ("optimizer", None), ("ema", None), ("opt_a", "opt_a")]
)
def test_a_component_is_found_by_name_and_else_by_a_role_that_only_one_has(wanted: str, found: str | None):
    components = (
        component("net", role="model"),
        component("opt_a", role="optimizer"),
        component("opt_b", role="optimizer"),
    )

    chosen = manifest(components=components).component(wanted)

    assert (chosen and chosen.name) == found


def test_a_manifest_says_what_it_does_not_know():
    data = json.loads(to_bytes(manifest(provenance=Provenance(code=Code()), step=None, epoch=None)))

    assert data["provenance"]["code"] == {"changed": [], "commit": None, "patch": None, "untracked": []}
    assert (data["step"], data["epoch"]) == (None, None)
