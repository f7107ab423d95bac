"""`tree.json` has one form, is read as it was written, and is believed in nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ckptvcs.digest import Digest
from ckptvcs.errors import FormatError, NewerVersion
from ckptvcs.formats import tree_file
from ckptvcs.formats.tree_file import Stored, TreeFile, Viewed, from_bytes, to_bytes

FILE = TreeFile(
    component="model",
    role="model",
    table={
        "w": Stored(dtype="F32", shape=(2, 3), shard="w.safetensors", digest=Digest("a" * 64)),
        "n": Stored(
            dtype="np:<U5",
            shape=(),
            shard="w.safetensors",
            digest=Digest("b" * 64),
            kind="ndarray",
            attrs={"order": "F"},
        ),
        "v": Viewed(dtype="U8", shape=(2,), of="w", component=None, offset=4, strides=(1,)),
        "e": Viewed(
            dtype="F32", shape=(), of="x", component="ema", offset=0, strides=(), attrs={"requires_grad": True}
        ),
    },
    tree={"w": {"$tensor": "w"}, "é": [1, None, -0.0]},
)


def document(**changes: Any) -> dict[str, Any]:
    return {**json.loads(to_bytes(FILE)), **changes}


def reading(doc: Any) -> TreeFile:
    return from_bytes(json.dumps(doc).encode(), file="model/tree.json")


def test_a_file_is_read_as_it_was_written():
    assert from_bytes(to_bytes(FILE), file="x") == FILE


def test_the_file_is_json_with_a_tensor_a_line():
    data = to_bytes(FILE)

    assert json.loads(data) == {
        "format": "ckptvcs-tree/1",
        "component": "model",
        "role": "model",
        "tensors": [
            {"name": "w", "dtype": "F32", "shape": [2, 3], "shard": "w.safetensors", "blake3": "a" * 64},
            {
                "name": "n",
                "dtype": "np:<U5",
                "shape": [],
                "shard": "w.safetensors",
                "blake3": "b" * 64,
                "kind": "ndarray",
                "attrs": {"order": "F"},
            },
            {"name": "v", "dtype": "U8", "shape": [2], "view": {"of": "w", "offset": 4, "strides": [1]}},
            {
                "name": "e",
                "dtype": "F32",
                "shape": [],
                "view": {"of": "x", "offset": 0, "strides": [], "in": "ema"},
                "attrs": {"requires_grad": True},
            },
        ],
        "tree": {"w": {"$tensor": "w"}, "é": [1, None, -0.0]},
    }
    assert [line[:9] for line in data.splitlines()[2:6]] == [b'{"name":"'] * 4
    assert data.isascii()


def test_only_what_has_bytes_of_its_own_is_stored():
    assert list(FILE.stored) == ["w", "n"]


@pytest.mark.parametrize("version", ["ckptvcs-tree/2", "", 5, None, {"a": 1}])
def test_another_version_is_told_apart_from_damage(version: Any):
    with pytest.raises(NewerVersion) as caught:
        reading(document(format=version))

    assert "'model/tree.json'" in caught.value.what
    assert "ckptvcs-tree/1" in caught.value.why


ENTRY = {"name": "w", "dtype": "F32", "shape": [2], "shard": "w.safetensors", "blake3": "a" * 64}
VIEW = {"of": "w", "offset": 0, "strides": [1]}


@pytest.mark.parametrize(
    "entry",
    [
        *({**ENTRY, "shape": shape} for shape in (None, 5, "2", [-1], [1.0], [True], [1 << 62], [[1]])),
        *({**ENTRY, "dtype": dtype} for dtype in (None, 5, [], "F4", "np:O", "os.system")),
        *({**ENTRY, "shard": shard} for shard in (None, "", "..", "../x", "/x", "a/b", "a\\b", ".git", "nul", "a\x00", 5)),
        *({**ENTRY, "blake3": digest} for digest in (None, "", "A" * 64, "a" * 63, "a" * 64 + "\n", 5)),
        *({**ENTRY, "kind": kind} for kind in ("pickle", None, [])),
        *({**ENTRY, "attrs": attrs} for attrs in (None, [], "x")),
        *({**ENTRY, "name": name} for name in (None, 5, ["w"])),
        *({**ENTRY, "view": {**VIEW, **view}} for view in ({"offset": -1}, {"offset": 1.5}, {"strides": []})),
        *({**ENTRY, "view": {**VIEW, **view}} for view in ({"of": 5}, {"in": 5})),
        {**ENTRY, "view": None},
        {"name": "w"},
        [],
        None,
    ],
    ids=str,
)  # fmt: skip
def test_an_entry_that_says_nonsense_is_refused(entry: Any):
    with pytest.raises(FormatError) as caught:
        reading(document(tensors=[entry]))

    assert caught.value.why


@pytest.mark.parametrize(
    "changes",
    [
        {"tensors": [ENTRY, ENTRY]},
        {"tensors": None},
        {"tensors": {"w": ENTRY}},
        {"component": ".."},
        {"component": "a/b"},
        {"component": 5},
        {"role": None},
    ],
    ids=str,
)
def test_a_file_that_says_nonsense_is_refused(changes: dict[str, Any]):
    with pytest.raises(FormatError):
        reading(document(**changes))


@pytest.mark.parametrize("key", ["format", "component", "role", "tensors", "tree"])
def test_nothing_may_be_left_out(key: str):
    doc = document()
    del doc[key]

    with pytest.raises(FormatError):
        reading(doc)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"[" * 200_000,
        to_bytes(FILE)[:-10],
        to_bytes(FILE).replace(b'"role":"model"', b'"role":"model","role":"ema"'),
        b'{"format":"ckptvcs-tree/1","x":' + b"9" * 5000 + b"}",
    ],
    ids=["empty", "null", "list", "binary", "deep", "torn", "twice", "long number"],
)
def test_what_is_no_tree_file_is_refused(data: bytes):
    with pytest.raises(FormatError) as caught:
        from_bytes(data, file="model/\x1b.json")

    assert "\x1b" not in str(caught.value)


def test_a_file_that_is_too_large_is_not_parsed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tree_file, "MAX_BYTES", 100)

    with pytest.raises(FormatError, match="at most 100 are read"):
        from_bytes(to_bytes(FILE), file="x")
