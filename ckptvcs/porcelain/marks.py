"""What a collector writes beside the objects of a place: marks of what it condemned, and lists of what is in its trash."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from ckptvcs.domain import remote_files
from ckptvcs.domain.remote_files import MAX_BYTES, Lease
from ckptvcs.errors import CkptvcsError, Conflict, LockHeld, StorageError
from ckptvcs.porcelain.leases import INTENTS, MARKS, written
from ckptvcs.storage.names import ObjectName

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ckptvcs.porcelain.places import Place

TRASH: Final = "gc/trash"
LOCK: Final = "gc/collector.json"
LOCK_S: Final = 3600.0
"""A collector that is at work for longer no longer keeps others away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """One file of names."""

    path: str
    run: str
    writer: str
    names: frozenset[ObjectName]
    time_s: float
    """When it was written, by the clock of the place."""
    age_s: float


def write(place: Place, folder: str, marks: remote_files.Marks) -> None:
    """Write down names of objects, in as many files as it takes; one that is there already is left.

    Args:
        place: where.
        folder: `MARKS` or `TRASH`.
        marks: with all names, however many.
    """
    for number, names in enumerate(remote_files.parts(marks.objects)):
        run = f"{marks.run}-{number}" if number else marks.run
        part = msgspec.structs.replace(marks, run=run, objects=names)
        place.side.write(f"{folder}/{run}.json", remote_files.to_bytes(part))


def read(place: Place, folder: str) -> list[Marked]:
    """Every file of names, of whoever wrote it, oldest first.

    Raises:
        FormatError: one cannot be read.
        StorageError: the store does not answer, or does not say when it was written.
    """
    entries = [e for e in place.side.list(folder) if not e.is_folder and e.name.endswith(".json")]
    found = []
    now = place.side.now(folder) if entries else None
    for entry in entries:
        path = f"{folder}/{entry.name}"
        data = place.side.read(path, limit=MAX_BYTES)
        if data is None:
            continue
        if entry.time_s is None or now is None:
            raise StorageError(
                f"cannot collect garbage in '{place.name}'",
                why="the store does not say when its files were written",
                next_step="collect where it is a folder, or keep everything there",
            )
        said = remote_files.from_bytes(data, remote_files.Marks, where=path)
        found.append(
            Marked(
                path=path,
                run=said.run,
                writer=said.writer,
                names=frozenset(map(ObjectName, said.objects)),
                time_s=entry.time_s,
                age_s=now - entry.time_s,
            )
        )
    return sorted(found, key=lambda one: (one.time_s, one.run))


def refuse_inherited(place: Place, some: Sequence[Marked]) -> None:
    """Stop if another collector has taken marks over: this one stood still for very long.

    Raises:
        Conflict: one of them is there no more.
    """
    folder = {entry.name for entry in place.side.list(MARKS)}
    if any(marked.path.rpartition("/")[2] not in folder for marked in some):
        raise Conflict(
            f"'{place.name}' was not swept any further",
            why="another collection has taken over what this one had condemned",
            next_step="run 'ckpt gc' again",
        )


def forget(place: Place, some: Iterable[Marked]) -> None:
    """Remove files of names: what they are about is done."""
    for one in some:
        place.side.remove(one.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was found beside the objects of a place, before anybody was asked what is needed."""

    marks: tuple[Marked, ...]
    """What is condemned, by whomever."""
    trash: tuple[Marked, ...]
    """Lists of what is in the trash."""
    leased: frozenset[ObjectName]
    """What pushes under way need."""


def look(place: Place) -> Seen:
    """What is beside the objects of a place now.

    Ages come first: however long it takes then to ask what is needed, what was too young at the beginning is not touched.

    Raises:
        FormatError: something cannot be read, whoever wrote it.
        StorageError: the store does not answer.
    """
    marks, trash = tuple(read(place, MARKS)), tuple(read(place, TRASH))
    return Seen(marks=marks, trash=trash, leased=frozenset(leased(place)))


def leased(place: Place) -> set[ObjectName]:
    """The objects that pushes under way need, as far as they count.

    Raises:
        FormatError: a lease cannot be read: nobody knows what it needs.
        StorageError: the store does not answer.
    """
    found: set[ObjectName] = set()
    now: float | None = None
    for path, entry in written(place.side):
        now = now if now is not None else place.side.now(INTENTS)
        data = place.side.read(path, limit=MAX_BYTES)
        if data is None:  # it was withdrawn meanwhile
            continue
        said = remote_files.from_bytes(data, Lease, where=path)
        if entry.time_s is None or now is None or now - entry.time_s < remote_files.MAX_PUSH_S:
            found.update(map(ObjectName, said.objects))
    return found


@contextlib.contextmanager
def alone(place: Place, marks: remote_files.Marks) -> Iterator[None]:
    """Keep other collectors away from a place while the block runs. It saves work: that nothing is lost does not rest on it.

    Raises:
        LockHeld: another one is at work there.
        StorageError: the store does not answer.
    """
    data = remote_files.to_bytes(marks)
    if not place.side.write(LOCK, data, exclusive=True):
        _take_over(place, data, marks.writer)
    try:
        yield
    finally:
        with contextlib.suppress(StorageError):  # it runs out by itself
            if place.side.read(LOCK, limit=MAX_BYTES) == data:
                place.side.remove(LOCK)


def _take_over(place: Place, data: bytes, writer: str) -> None:
    """Take the lock of a collector that died: one of this clone did, as no other one of it is at work."""
    folder, _, name = LOCK.rpartition("/")
    there = next((entry for entry in place.side.list(folder) if entry.name == name), None)
    now = place.side.now(folder)
    age_s = now - there.time_s if there is not None and there.time_s is not None and now is not None else LOCK_S
    if age_s < LOCK_S and _holder(place) != writer:
        minutes = max(1, round((LOCK_S - age_s) / 60))
        raise LockHeld(
            f"cannot collect garbage in '{place.name}'",
            why="another collection is at work there, or died a short time ago",
            next_step=f"run it again when that one is over, in {minutes} minutes at the latest",
        )
    place.side.remove(LOCK)
    place.side.write(LOCK, data, exclusive=True)


def _holder(place: Place) -> str | None:
    """Who wrote the lock, if it can be read."""
    data = place.side.read(LOCK, limit=MAX_BYTES)
    with contextlib.suppress(CkptvcsError):
        return None if data is None else remote_files.from_bytes(data, remote_files.Marks, where=LOCK).writer
    return None
