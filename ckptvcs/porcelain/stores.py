"""What a store is known to do, recorded beside its objects for every clone; and which pushes are under way to it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from ckptvcs.domain import remote_files
from ckptvcs.domain.remote_files import MAX_BYTES, StoreRecord
from ckptvcs.errors import FormatError, HostileInput, NewerVersion, NotFound, StorageError
from ckptvcs.paths import printable
from ckptvcs.porcelain import leases
from ckptvcs.porcelain.remotes import Known, known, open_any

if TYPE_CHECKING:
    from ckptvcs.porcelain.repo import Repository
    from ckptvcs.storage.remotes import Probe, Remote
    from ckptvcs.storage.sidefiles import SideFiles

RECORD: Final = "store.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What a store was seen to do."""

    record: StoreRecord
    clock_s: float | None
    """How many seconds its clock is ahead of ours; None if it was not tried now, or does not say."""
    notes: tuple[str, ...] = ()


def recorded(side: SideFiles) -> StoreRecord | None:
    """What is recorded of a store; None if nothing is.

    Raises:
        FormatError: it cannot be read.
        StorageError: the store does not answer.
    """
    data = side.read(RECORD, limit=MAX_BYTES)
    return None if data is None else remote_files.from_bytes(data, StoreRecord, where=RECORD)


def try_out(repo: Repository, remote: Remote) -> Tried:
    """Try what a store can do with a throw-away object, and record it there.

    Where it may only be read, what others have recorded has to do.

    Raises:
        StorageError: it does not let itself be written to, read or listed, and nothing is recorded.
    """
    side = remote.side_files()
    try:
        probe = remote.probe(repo.now().timestamp())
        record, notes = _record(side, probe)
        return Tried(record=record, clock_s=probe.clock_s, notes=notes)
    except StorageError as err:
        there = _recorded_or_none(side)
        if there is None:
            raise
        return Tried(record=there, clock_s=None, notes=(f"it may only be read, it seems: {err}",))


def _recorded_or_none(side: SideFiles) -> StoreRecord | None:
    try:
        return recorded(side)
    except (StorageError, FormatError):  # the first error is the one to report
        return None


def _record(side: SideFiles, probe: Probe) -> tuple[StoreRecord, tuple[str, ...]]:
    """Write down what was seen. Of several who come at once one makes the id, and the others take it over."""
    seen = StoreRecord(
        id=secrets.token_hex(16),
        ranges=probe.ranges,
        listing=probe.listing,
        exclusive=probe.exclusive,
        clock=probe.clock_s is not None,
    )
    if side.write(RECORD, remote_files.to_bytes(seen), exclusive=True):
        return seen, ()
    there: StoreRecord | None
    try:
        there = recorded(side)
    except NewerVersion as err:  # theirs to change
        return seen, (str(err),)
    except HostileInput:  # it says nothing that cannot be seen again
        there = None
    if there is not None:
        seen = msgspec.structs.replace(seen, id=there.id)
    if seen != there:
        side.write(RECORD, remote_files.to_bytes(seen))
    return seen, ()


# ---------------------------------------------------------------------------------------------------------------- show


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What is known of one remote."""

    known: Known
    record: StoreRecord | None
    pushes: tuple[leases.InFlight, ...]
    notes: tuple[str, ...]


def show(repo: Repository, name: str, *, probe: bool = False) -> Shown:
    """Look at a remote, and at the pushes that are under way to it.

    Args:
        repo: the repository.
        name: of the remote.
        probe: try anew what it can do, and record it.

    Raises:
        NotFound: no remote has that name.
        StorageError: it does not answer.
    """
    found = next((one for one in known(repo) if one.name == name), None)
    if found is None:
        raise NotFound(f"no remote '{printable(name)}'", next_step="run 'ckpt remote list' to see which there are")
    remote = open_any(repo, name)
    side, notes = remote.side_files(), list[str]()
    record: StoreRecord | None
    if probe:
        tried = try_out(repo, remote)
        record, notes = tried.record, list(tried.notes)
    else:
        try:
            record = recorded(side)
        except FormatError as err:
            record, notes = None, [str(err)]
    pushes, unread = leases.in_flight(side, repo.now().timestamp())
    return Shown(known=found, record=record, pushes=tuple(pushes), notes=(*notes, *unread))
