"""Any manifest comes back as it was written, in the only form that there is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from ckptvcs.domain.manifest import (
    ComponentEntry,
    FileEntry,
    Manifest,
    RunEntry,
    SourceEntry,
    from_bytes,
    id_of,
    to_bytes,
)
from ckptvcs.domain.provenance import Code, DataEntry, Environment, Provenance
from ckptvcs.errors import BadManifest, NewerVersion

_text = st.text(max_size=12)
_hex = "0123456789abcdef"
_digests = st.text(_hex, min_size=64, max_size=64)
_names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(lambda n: n not in ("con", "aux", "nul", "prn"))
_finite = st.floats(allow_nan=False, allow_infinity=False)
_integers = st.integers(-(2**70), 2**70)
_json = st.recursive(
    st.one_of(st.none(), st.booleans(), _integers, _finite, _text),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_text, inner, max_size=3)),
    max_leaves=8,
)
_strings = st.lists(_text, max_size=3).map(tuple)


def _files(prefix: str) -> st.SearchStrategy[tuple[FileEntry, ...]]:
    entry = st.tuples(st.integers(0, 2**60 - 1), st.text(_hex, min_size=32, max_size=32), _digests)
    return st.dictionaries(_names, entry, max_size=3).map(
        lambda found: tuple(FileEntry(path=prefix + n, size=s, md5=m, blake3=b) for n, (s, m, b) in found.items())
    )


@st.composite
def _components(draw: st.DrawFn) -> tuple[ComponentEntry, ...]:
    names = draw(st.lists(_names.map(lambda n: f"c{n}"), max_size=3, unique=True))
    return tuple(
        ComponentEntry(
            name=n, role=draw(_text), encoding=draw(st.sampled_from(["tree", "pickle"])), files=draw(_files(f"{n}/"))
        )
        for n in names
    )


_provenance = st.builds(
    Provenance,
    code=st.builds(Code, commit=st.none() | _text, changed=_strings, patch=st.none() | _digests, untracked=_strings),
    data=st.lists(st.builds(DataEntry, name=_text, version=_text), max_size=3).map(tuple),
    environment=st.builds(
        Environment,
        python=_text,
        platform=_text,
        cpu=_text,
        cpus=_integers,
        memory=_integers,
        gpus=_strings,
        cuda=st.none() | _text,
        packages=st.dictionaries(_text, _text, max_size=3),
    ),
    seeds=st.dictionaries(_text, _integers, max_size=3),
    command=_strings,
)
manifests = st.builds(
    Manifest,
    track=_names.filter(lambda n: n not in ("y", "n", "on", "no", "off", "yes", "true", "false", "null")),
    created=_text,
    run=st.builds(RunEntry, id=_text, name=_text),
    reason=_text,
    grade=_text,
    components=_components(),
    files=_files("f"),
    source=st.builds(SourceEntry, format=_text, name=_text, metadata=st.dictionaries(_text, _text, max_size=3)),
    provenance=_provenance,
    parents=st.lists(_digests, max_size=3).map(tuple),
    step=st.none() | _integers,
    epoch=st.none() | _integers | _finite,
    metrics=st.dictionaries(_text, _integers | _finite | _text, max_size=3),
    params=st.dictionaries(_text, _json, max_size=3),
    format=st.just("ckptvcs/1"),
)


@given(manifests)
def test_a_manifest_is_read_as_it_was_written(manifest: Manifest):
    assert from_bytes(to_bytes(manifest), where="x") == manifest


@given(manifests)
def test_reading_and_writing_gives_the_same_bytes(manifest: Manifest):
    data = to_bytes(manifest)

    assert to_bytes(from_bytes(data, where="x")) == data
    assert id_of(data) == blake3(data).hexdigest()


@given(manifests)
def test_the_bytes_are_what_json_alone_would_write(manifest: Manifest):
    data = to_bytes(manifest)

    document = json.loads(data)

    assert (json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode() == data


@given(manifests, st.data())
def test_one_changed_byte_is_another_manifest_or_none(manifest: Manifest, data: st.DataObject):
    written = to_bytes(manifest)
    place = data.draw(st.integers(0, len(written) - 1))
    changed = bytearray(written)
    changed[place] ^= 1 << data.draw(st.integers(0, 7))

    try:
        found = from_bytes(bytes(changed), where="x")
    except (BadManifest, NewerVersion):
        return

    assert found != manifest
    assert to_bytes(found) == changed


@given(st.binary(max_size=64) | _json.map(lambda value: json.dumps(value).encode()))
def test_anything_else_is_no_manifest(data: Any):
    with pytest.raises((BadManifest, NewerVersion)):
        from_bytes(data, where="x")
