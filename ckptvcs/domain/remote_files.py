"""What lies beside the objects of a remote, as values and bytes: leases of pushes, marks of a collector, what a store can do.

All of it was written by others, and is read as such: bounded, with known fields alone, names and numbers in their limits.
See `docs/reference/format/remote-1.md`.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from ckptvcs.domain.events import is_writer
from ckptvcs.errors import HostileInput, NewerVersion
from ckptvcs.paths import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_PUSH_S: Final = 6 * 3600.0
"""A lease counts for so long, by the clock of the store; a push that takes longer starts again, with what is left to do."""
GRACE_S: Final = 24 * 3600.0
"""So long after an object was condemned it is swept at the earliest. Longer than a push and everything that can delay it."""
MAX_BYTES: Final = 8 << 20
"""A file that is larger is not read."""
MAX_OBJECTS: Final = 200_000
"""Names in one file; who has more writes several files."""
MAX_REFS: Final = 100
"""Refs that a lease names; further ones are left out."""

_NAME: Final = re.compile(r"[0-9a-f]{32}(\.dir)?\Z")
_ID: Final = re.compile(r"[0-9a-f]{32}\Z")
_COMMIT: Final = re.compile(r"([0-9a-f]{40}|[0-9a-f]{64})?\Z")
_RUN: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}\Z")
_MAX_BYTES_SENT: Final = 1 << 60


class Lease(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The claim of a push on objects that it needs: no collector takes them away meanwhile."""

    writer: str
    """Who pushes: a clone, by its name in the ledger."""
    actor: str
    """Who started it, by the pseudonym of the ledger."""
    repository: str
    """The first commit of the history that is pushed; empty if it has none."""
    refs: tuple[str, ...]
    """What is pushed, at most `MAX_REFS` of it."""
    objects: tuple[str, ...]
    """Names of the objects, sorted."""
    bytes: int
    """Bytes that the store lacked when the push began."""
    format: str = "ckptvcs-intent/1"


class Marks(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Objects that a collector has condemned: nobody may begin to need them until it is done."""

    run: str
    """The run of the collector."""
    writer: str
    """Whose run it is: a clone, by its name in the ledger."""
    actor: str
    """Who started it, by the pseudonym of the ledger."""
    objects: tuple[str, ...]
    """Names of the objects, sorted."""
    format: str = "ckptvcs-marks/1"


class Neighbour(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A repository that uses a store: a collector has to ask it what it needs."""

    repository: str
    """The first commit of its history; empty if it has none."""
    url: str
    """Where git finds it."""
    format: str = "ckptvcs-repository/1"


class StoreRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a store was seen to do, so that not every clone has to try."""

    id: str
    """Of the store, made at random when it was first used."""
    ranges: bool
    """Parts of an object can be read."""
    listing: bool
    """It tells what it holds."""
    exclusive: bool
    """Of two who make one name, the second is told."""
    clock: bool
    """It tells when an object was written."""
    format: str = "ckptvcs-store/1"


_File = TypeVar("_File", Lease, Marks, Neighbour, StoreRecord)
_FORMATS: Final = {
    Lease: "ckptvcs-intent/1",
    Marks: "ckptvcs-marks/1",
    Neighbour: "ckptvcs-repository/1",
    StoreRecord: "ckptvcs-store/1",
}


def to_bytes(file: Lease | Marks | Neighbour | StoreRecord) -> bytes:
    """Canonical bytes: JSON on one line, keys sorted, without blanks, UTF-8, a newline at the end."""
    document = json.dumps(msgspec.to_builtins(file), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return document.encode("utf-8", "surrogateescape") + b"\n"


def parts(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Names of objects, sorted, in as many parts as it takes files for them; at least one."""
    ordered = sorted(set(names))
    for start in range(0, max(len(ordered), 1), MAX_OBJECTS):
        yield tuple(ordered[start : start + MAX_OBJECTS])


def from_bytes(data: bytes, cls: type[_File], *, where: str) -> _File:
    """Read a file that nobody vouches for.

    Args:
        data: its bytes.
        cls: what it should be.
        where: which one it is, for the error.

    Raises:
        NewerVersion: a later version of ckptvcs wrote it.
        HostileInput: it is damaged, or was made to harm.
    """
    try:
        if len(data) > MAX_BYTES:
            raise ValueError(f"it has more than the {MAX_BYTES} bytes that are read")
        _check_format(data, cls, where)
        file = msgspec.json.decode(data, type=cls, strict=True)
        _check(file)
    except (ValueError, RecursionError) as err:  # msgspec's errors are ValueErrors
        raise HostileInput(
            f"cannot read '{printable(where)}'",
            why=printable(str(err))[:200],
            next_step="see who wrote it, and move it away",
        ) from err
    return file


class _Versioned(msgspec.Struct):
    """As much of a file as every version has."""

    format: str = ""


def _check_format(data: bytes, cls: type[_File], where: str) -> None:
    expected, found = _FORMATS[cls], msgspec.json.decode(data, type=_Versioned).format
    if found != expected and found.startswith(expected.partition("/")[0] + "/"):
        raise NewerVersion(
            f"cannot read '{printable(where)}'",
            why=f"its format is '{printable(found)[:40]}', this version reads '{expected}'",
            next_step="install a newer ckptvcs",
        )
    if found != expected:
        raise ValueError(f"it is no {expected}")


def _check(file: Lease | Marks | Neighbour | StoreRecord) -> None:
    if isinstance(file, StoreRecord):
        _require(_ID.match(file.id) is not None, "its id is none")
        return
    if isinstance(file, Neighbour):
        _require(_COMMIT.match(file.repository) is not None, "its repository is no commit")
        _require(0 < len(file.url) <= 4096 and not file.url.startswith("-"), "its address is none")
        return
    _require(is_writer(file.writer), "its writer cannot be one")
    _require(len(file.actor) <= 64, "its actor is too long")
    _require(len(file.objects) <= MAX_OBJECTS, f"it names more than {MAX_OBJECTS} objects")
    _require(all(_NAME.match(name) for name in file.objects), "it names what is no object")
    if isinstance(file, Marks):
        _require(_RUN.match(file.run) is not None, "its run is none")
        return
    _require(_COMMIT.match(file.repository) is not None, "its repository is no commit")
    _require(len(file.refs) <= MAX_REFS and all(len(ref) <= 1024 for ref in file.refs), "it names too many refs")
    _require(0 <= file.bytes < _MAX_BYTES_SENT, "its bytes are no size")


def _require(holds: bool, why: str) -> None:  # noqa: FBT001 - a condition, not a switch
    if not holds:
        raise ValueError(why)
