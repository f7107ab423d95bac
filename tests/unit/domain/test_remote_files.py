"""Files beside the objects of a remote: what is written is read again, and what a stranger wrote is looked at closely."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from ckptvcs.domain import remote_files
from ckptvcs.domain.remote_files import Lease, Marks, StoreRecord
from ckptvcs.errors import HostileInput, NewerVersion

NAMES = tuple(sorted(hashlib.md5(bytes([n])).hexdigest() for n in range(5)))
FILES: list[Any] = [
    Lease(
        writer="7f3c9a1e5b2d4860",
        actor="e2a6f01b9c3d5478",
        repository="7d6d8705c0af0d00acb8f1d53966f7f7a68fbdd9",
        refs=("refs/heads/m\u00fcller", "refs/tags/golden/base"),
        objects=(*NAMES, f"{NAMES[0]}.dir"),
        bytes=12_345,
    ),
    Marks(run="20260102-7f3c", writer="7f3c9a1e5b2d4860", actor="e2a6f01b9c3d5478", objects=NAMES),
    StoreRecord(id=NAMES[0], ranges=True, listing=True, exclusive=False, clock=True),
]
by_kind = pytest.mark.parametrize("file", FILES, ids=lambda file: type(file).__name__)


@by_kind
def test_what_is_written_is_read_again(file: Any):
    data = remote_files.to_bytes(file)

    assert remote_files.from_bytes(data, type(file), where="x") == file
    document = json.loads(data)
    assert data == (json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n").encode()


@by_kind
def test_a_later_version_is_told_from_another_file(file: Any):
    document = json.loads(remote_files.to_bytes(file))
    later = {**document, "format": document["format"].replace("/1", "/2"), "more": 1}

    with pytest.raises(NewerVersion, match="'x'"):
        remote_files.from_bytes(json.dumps(later).encode(), type(file), where="x")
    with pytest.raises(HostileInput, match="it is no ckptvcs-"):
        remote_files.from_bytes(json.dumps({**document, "format": "other/1"}).encode(), type(file), where="x")


@by_kind
@pytest.mark.parametrize(
    "change",
    [
        {"more": 1},
        {"format": 1},
        {"writer": "../up", "id": "../up"},
        {"actor": "a" * 65, "id": "A" * 32},
        {"objects": ["../../etc/passwd"], "clock": 1},
        {"objects": [NAMES[0] + "\n"], "clock": None},
        {"objects": NAMES[0], "ranges": "yes"},
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(file: Any, change: dict[str, Any]):
    document = {**json.loads(remote_files.to_bytes(file)), **change}
    if isinstance(file, StoreRecord) or "more" not in change:
        document = {k: v for k, v in document.items() if k in json.loads(remote_files.to_bytes(file)) or k == "more"}

    with pytest.raises(HostileInput):
        remote_files.from_bytes(json.dumps(document).encode(), type(file), where="x")


@pytest.mark.parametrize(
    "change",
    [
        {"repository": "HEAD"},
        {"refs": ["r"] * 101},
        {"refs": ["r" * 1025]},
        {"bytes": -1},
        {"bytes": 1 << 61},
        {"bytes": 0.5},
    ],
    ids=lambda change: str(change)[:30],
)
def test_a_lease_that_does_not_fit_is_refused(change: dict[str, Any]):
    document = {**json.loads(remote_files.to_bytes(FILES[0])), **change}

    with pytest.raises(HostileInput):
        remote_files.from_bytes(json.dumps(document).encode(), Lease, where="x")


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xfe", b"{", b"[" * 100_000, b"null", b'{"format":"ckptvcs-intent/1"}', bytes((8 << 20) + 1)],
    ids=lambda data: str(data[:20]),
)
def test_garbage_is_refused(data: bytes):
    with pytest.raises(HostileInput, match="cannot read 'x'"):
        remote_files.from_bytes(data, Lease, where="x")


def test_however_many_objects_there_are_a_file_stays_bounded():
    names = [f"{hashlib.md5(n.to_bytes(4, 'big')).hexdigest()}.dir" for n in range(remote_files.MAX_OBJECTS + 1)]

    parts = list(remote_files.parts(names))

    assert [len(part) for part in parts] == [remote_files.MAX_OBJECTS, 1]
    assert sorted(name for part in parts for name in part) == sorted(names)
    whole = Marks(run="r", writer="a" * 64, actor="b" * 64, objects=parts[0])
    data = remote_files.to_bytes(whole)
    assert len(data) <= remote_files.MAX_BYTES
    assert remote_files.from_bytes(data, Marks, where="x") == whole
    assert list(remote_files.parts([])) == [()]
