"""Leases: a push that has objects to send says so in the store, so that no collector takes away what it needs meanwhile.

The protocol is that of `docs/decisions/0016-leases-and-replicas.md`; its steps are cited as P1 to P7. Ages are by the clock
of the store. What a process that died left is the business of `unfinished`.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import islice
from typing import TYPE_CHECKING, Final

import msgspec

from ckptvcs.domain import remote_files
from ckptvcs.domain.events import is_writer
from ckptvcs.domain.remote_files import MAX_BYTES, Marks
from ckptvcs.errors import Conflict, FormatError, StorageError
from ckptvcs.paths import printable
from ckptvcs.porcelain import ledger
from ckptvcs.porcelain.unfinished import Unfinished

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from ckptvcs.porcelain.repo import Repository
    from ckptvcs.porcelain.unfinished import Left
    from ckptvcs.storage.history.repository import CommitId
    from ckptvcs.storage.names import ObjectName
    from ckptvcs.storage.sidefiles import SideFile, SideFiles

INTENTS: Final = "intents"
MARKS: Final = "gc/marks"
MARGIN_S: Final = 300.0
"""A lease is renewed that much earlier than others stop to respect it: a store may have several clocks."""

_SHOWN: Final = 1000


# ---------------------------------------------------------------------------------------------------------------- ours


class Lease:
    """The claim of this push on all objects that it needs of one remote.

    Args:
        repo: the repository.
        remote: its name.
        side: the files beside its objects.
        tips: the commits that are pushed.
        claim: what the lease says, with all objects, however many they are.
    """

    def __init__(
        self,
        repo: Repository,
        remote: str,
        side: SideFiles,
        *,
        tips: Sequence[CommitId],
        claim: remote_files.Lease,
    ) -> None:
        self.remote = remote
        """The name of the remote."""
        self.side = side
        """The files beside its objects."""
        self._repo = repo
        self._claim = claim
        self._tips = tips
        self._moving = False
        self.moved = False
        """Whether the refs moved, so that what was claimed has to stay."""
        self._paths: list[str] = []
        self._since = repo.now()
        self._record = Unfinished(repo, remote)

    @property
    def _folder(self) -> str:
        return f"{INTENTS}/{self._claim.writer}"

    def take(self) -> None:
        """P1, and again when it got too old: the new lease is there before the old one goes.

        Raises:
            StorageError: the store does not take it.
        """
        parts = list(remote_files.parts(self._claim.objects))
        paths = [f"{self._folder}/{secrets.token_hex(16)}.json" for _ in parts]
        old = self._paths
        self._paths = [*old, *paths]
        self._note()
        for path, objects in zip(paths, parts, strict=True):
            self.side.write(path, remote_files.to_bytes(msgspec.structs.replace(self._claim, objects=objects)))
        _remove(self.side, old)
        self._paths, self._since = paths, self._repo.now()
        self._note()

    def _note(self) -> None:
        self._record.write(self._paths, self._tips if self._moving else [])

    def obey(self, *, late: bool = False) -> None:
        """P2: stop if a collector has condemned what is needed, and may sweep it while this push is under way.

        What was condemned a short time ago is swept by nobody before the refs have moved, and then everybody sees that it is
        needed. Who was late waits for all of them.

        Raises:
            Conflict: it has.
            FormatError: what a collector wrote cannot be read.
        """
        marks = list(condemned(self.side, self._claim.objects))
        now = self.side.now(self._folder) if marks and not late else None
        for marked in marks:
            age = now - marked.time_s if now is not None and marked.time_s is not None else None
            if age is None or not -MARGIN_S < age < remote_files.GRACE_S - remote_files.MAX_PUSH_S - MARGIN_S:
                raise marked.as_error(self.remote)

    def is_young(self) -> bool:
        """P4: whether everybody has respected the lease until now, and does for some time. It may be gone as well."""
        now = self.side.now(self._folder)
        if now is None:  # a store without a clock: ours has to do
            return (self._repo.now() - self._since).total_seconds() < remote_files.MAX_PUSH_S - MARGIN_S
        written = {f"{self._folder}/{entry.name}": entry.time_s for entry in self.side.list(self._folder)}
        ages = [now - time for path in self._paths if (time := written.get(path)) is not None]
        return len(ages) == len(self._paths) and all(
            -MARGIN_S < age < remote_files.MAX_PUSH_S - MARGIN_S for age in ages
        )

    def about_to_move(self) -> None:
        """From now on the refs may have moved: if this process dies, the next push looks at the objects again."""
        self._moving = True
        self._note()

    def withdraw(self, left: Sequence[Left] = ()) -> None:
        """P7: everybody may do as they like again, also with what pushes before this one left at this remote."""
        done = [one for one in left if one.remote == self.remote]
        _remove(self.side, [*self._paths, *(path for one in done for path in one.leases)])
        for one in done:
            one.forget()
        self._record.forget(self._repo.now().timestamp())

    def close(self) -> None:
        """Let go of the record; what was not withdrawn is looked after by the next push."""
        self._record.close()


def _remove(side: SideFiles, paths: Sequence[str]) -> None:
    try:
        for path in paths:
            if path.startswith(f"{INTENTS}/") and ".." not in path:  # a record may be damaged
                side.remove(path)
    except (StorageError, FormatError):  # it does not let us, or does not answer: a lease ends by itself
        return


def claim_of(
    repo: Repository, *, refs: Sequence[str], repository: str, objects: Collection[ObjectName], nbytes: int
) -> remote_files.Lease:
    """What the leases of a push say."""
    writer, actor = ledger.this_writer(repo)
    return remote_files.Lease(
        writer=writer,
        actor=actor,
        repository=repository,
        refs=tuple(printable(ref) for ref in refs if len(ref) <= 1024)[: remote_files.MAX_REFS],
        objects=tuple(objects),
        bytes=nbytes,
    )


# --------------------------------------------------------------------------------------------------------------- marks


@dataclass(frozen=True, slots=True, kw_only=True)
class Condemned:
    """Objects that are needed here, and that a collector has condemned."""

    marks: Marks
    names: tuple[str, ...]
    time_s: float | None

    def as_error(self, remote: str) -> Conflict:
        """The error of a push that needs them."""
        grace = f"{remote_files.GRACE_S / 3600:.0f} h"
        until = _utc(self.time_s + remote_files.GRACE_S) if self.time_s is not None else f"{grace} later"
        several = f"{len(self.names)} objects that it needs, such as" if len(self.names) > 1 else "it needs object"
        return Conflict(
            f"cannot push to '{remote}'",
            why=f"{several} {self.names[0][:10]}, which garbage collection '{self.marks.run}' of writer "
            f"'{self.marks.writer}' condemned{f' at {_utc(self.time_s)}' if self.time_s is not None else ''}",
            next_step=f"nothing was moved; run the command again when that collection is over, at {until} or later",
            remote=remote,
            run=self.marks.run,
            writer=self.marks.writer,
            objects=list(self.names),
        )


def condemned(side: SideFiles, needed: Collection[str]) -> Iterator[Condemned]:
    """What collectors have condemned of some objects.

    Raises:
        FormatError: what a collector wrote cannot be read; so nobody knows what it is about to remove.
    """
    wanted = set(needed)
    for entry in side.list(MARKS):
        path = f"{MARKS}/{entry.name}"
        if entry.is_folder or not entry.name.endswith(".json"):
            continue
        data = side.read(path, limit=MAX_BYTES)
        if data is None:  # the collector was done just now
            continue
        marks = remote_files.from_bytes(data, Marks, where=path)
        if names := sorted(wanted.intersection(marks.objects)):
            yield Condemned(marks=marks, names=tuple(names), time_s=entry.time_s)


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


# ---------------------------------------------------------------------------------------------------- pushes in flight


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """A push that is under way, as the store knows it."""

    lease: remote_files.Lease
    time_s: float | None
    age_s: float | None
    """By the clock of the store; by ours where that can only be read."""

    @property
    def counts(self) -> bool:
        """Whether it is respected; one that is too old is of a push that died, or will start again."""
        return self.age_s is None or self.age_s < remote_files.MAX_PUSH_S


def written(side: SideFiles) -> Iterator[tuple[str, SideFile]]:
    """Every lease that is there, whether or not it counts, by its path."""
    for folder in side.list(INTENTS):
        for entry in side.list(f"{INTENTS}/{folder.name}") if folder.is_folder and is_writer(folder.name) else ():
            if not entry.is_folder and entry.name.endswith(".json"):
                yield f"{INTENTS}/{folder.name}/{entry.name}", entry


def in_flight(side: SideFiles, here_s: float) -> tuple[list[InFlight], list[str]]:
    """The pushes that are under way to a remote, and notes on what cannot be read.

    Args:
        side: the files beside the objects of the remote.
        here_s: what time it is here, in seconds since the epoch: for a store that does not say, or may only be read.
    """
    found, notes = [], []
    now: float | None = None
    for path, entry in islice(written(side), _SHOWN):
        now = now if now is not None else _time(side, here_s)
        try:
            data = side.read(path, limit=MAX_BYTES)
            if data is not None:
                lease = remote_files.from_bytes(data, remote_files.Lease, where=path)
                age_s = None if entry.time_s is None else max(now - entry.time_s, 0.0)
                found.append(InFlight(lease=lease, time_s=entry.time_s, age_s=age_s))
        except FormatError as err:
            notes.append(str(err))
    return found, notes


def _time(side: SideFiles, here_s: float) -> float:
    try:
        return side.now(INTENTS) or here_s
    except StorageError:  # it may only be read
        return here_s
