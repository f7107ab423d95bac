"""Replicas: the remotes that hold the objects of checkpoints, and how a push brings them there before any ref moves."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ckptvcs.digest import short
from ckptvcs.errors import CkptvcsError, Conflict, StorageError, UsageError
from ckptvcs.paths import printable
from ckptvcs.porcelain import ledger
from ckptvcs.porcelain.leases import INTENTS, Lease
from ckptvcs.porcelain.remotes import default_name, is_folder, known, open_remote, require_warm
from ckptvcs.porcelain.stores import recorded
from ckptvcs.storage import downloads

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from ckptvcs.domain import remote_files
    from ckptvcs.porcelain.repo import Repository
    from ckptvcs.porcelain.unfinished import Left
    from ckptvcs.progress import Progress
    from ckptvcs.storage.history.repository import CommitId
    from ckptvcs.storage.names import ObjectName, ObjectRef
    from ckptvcs.storage.remotes import Remote

_ROUNDS: Final = 5
"""A push whose leases grow too old starts again so often, each time with what is left to do."""
PATIENCE_S: Final = 60.0
"""How long a push that was late waits for a collector that is at work."""
_PAUSE_S: Final = 2.0


# --------------------------------------------------------------------------------------------------------------- which


def chosen(repo: Repository, first: str | None, count: int | None) -> list[str | None]:
    """The remotes that objects go to: the one that is named or the default, then the others by name.

    Args:
        repo: the repository.
        first: the remote to begin with, if one is named.
        count: how many; None for what the configuration says, or for the named one alone if it says nothing.

    Raises:
        UsageError: there are fewer, the count is none, or a cold one is named.
    """
    wanted = repo.config.replicas if count is None else count
    if wanted < 1:
        raise UsageError(
            f"cannot keep {wanted} replicas", why="objects have to be somewhere", next_step="name at least 1"
        )
    if first is not None:
        require_warm(repo, first)
    there = [one for one in known(repo) if one.tier == "warm"]
    if first is None and repo.config.remote is not None and all(one.name != repo.config.remote for one in there):
        return [repo.config.remote]  # there is no such remote, which is told when it is opened
    default = next((one.name for one in there if one.default), None)
    if wanted == 1:
        return [first or default]  # where there is none, it is told when one is needed
    ordered = list(dict.fromkeys(filter(None, [first, default, *(one.name for one in there)])))
    if len(ordered) < wanted:
        raise UsageError(
            f"cannot keep {wanted} replicas",
            why=f"there are {len(ordered)} warm remotes: {', '.join(map(str, ordered)) or 'none'}",
            next_step="add another one with 'ckpt remote add NAME URL', or ask for fewer with --replicas",
        )
    return list(ordered[:wanted])


# ---------------------------------------------------------------------------------------------------------------- look


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """What a push brings to one remote."""

    remote: Remote
    missing: tuple[ObjectRef, ...]
    """Objects that it does not have, or not in full."""

    @property
    def nbytes(self) -> int:
        """Bytes to be uploaded."""
        return sum(ref.nbytes for ref in self.missing)

    def only(self, needed: Collection[ObjectRef]) -> Copy:
        """As much of it as is about these objects."""
        names = {ref.name for ref in needed}
        return Copy(remote=self.remote, missing=tuple(ref for ref in self.missing if ref.name in names))


def look(repo: Repository, names: Sequence[str | None], needed: Sequence[ObjectRef]) -> tuple[Copy, ...]:
    """Ask each remote what it has of the objects that are needed; change nothing. Where none are, only folders are looked at.

    Raises:
        StorageError: one does not answer, or is empty and should not be, as a folder that is not mounted.
    """
    if not needed:
        _refuse_unmounted(repo, names)
        return ()
    opened = [open_remote(repo, name) for name in names]
    copies = tuple(Copy(remote=remote, missing=_absent(remote, needed)) for remote in opened)
    for copy in copies:
        if len(copy.missing) == len(needed):
            refuse_emptied(repo, copy.remote, doing=f"push to '{printable(copy.remote.name)}'")
    return copies


def refuse_emptied(repo: Repository, remote: Remote, *, doing: str) -> None:
    """Refuse a store that is empty and should not be: refs would move, and what was pushed before would be missed too late.

    Raises:
        StorageError: the ledger tells of pushes to it, and nothing is there.
    """
    if not remote.is_empty() or not ledger.knows_remote(repo, remote.name):
        return
    side = remote.side_files()
    if recorded(side) is None and not side.list(INTENTS):  # else it was added, or pushed to before
        name = printable(remote.name)
        raise StorageError(
            f"cannot {doing}",
            why="the ledger tells of pushes to it, and it is empty: it may not be mounted, or be another store",
            next_step=f"mount it; if it was emptied on purpose, 'ckpt remote add {name} URL' begins it anew, "
            "and 'ckpt push --full' fills it",
            remote=remote.name,
        )


def _refuse_unmounted(repo: Repository, names: Sequence[str | None]) -> None:
    for name in names:
        used = name or default_name(repo)
        if used is not None and is_folder(repo, used):
            refuse_emptied(repo, open_remote(repo, used), doing=f"push to '{printable(used)}'")


def _absent(remote: Remote, refs: Collection[ObjectRef]) -> tuple[ObjectRef, ...]:
    there = remote.sizes([ref.name for ref in refs])
    return tuple(ref for ref in refs if there.get(ref.name) != ref.nbytes)


def nowhere(repo: Repository, copies: Sequence[Copy]) -> set[ObjectName]:
    """Objects that a remote should have, and that are neither here nor in another of these remotes."""
    missing = {ref.name: ref for copy in copies for ref in copy.missing}
    everywhere = [{ref.name for ref in copy.missing} for copy in copies]
    return {
        name
        for name, ref in missing.items()
        if not _is_here(repo, ref) and all(name in absent for absent in everywhere)
    }


def _is_here(repo: Repository, ref: ObjectRef) -> bool:
    return repo.objects.store.nbytes(ref.name) == ref.nbytes


# ----------------------------------------------------------------------------------------------------------------- act


@contextlib.contextmanager
def held(
    repo: Repository,
    copies: Sequence[Copy],
    claims: Mapping[str, remote_files.Lease],
    *,
    tips: Sequence[CommitId],
    left: Sequence[Left],
) -> Iterator[list[Lease]]:
    """Hold a lease in each remote while the block runs; they are withdrawn when it is known how it ended."""
    taken: list[Lease] = []
    try:
        for copy in copies:
            name = copy.remote.name
            taken.append(Lease(repo, name, copy.remote.side_files(), tips=tips, claim=claims[name]))
            taken[-1].take()  # P1
        yield taken
    except StorageError:  # refs may have moved, who knows: the next push looks again
        raise
    except CkptvcsError:
        if not any(lease.moved for lease in taken):
            for lease in taken:
                lease.withdraw()
        raise
    else:
        for lease in taken:
            lease.withdraw(left)  # P7
    finally:
        for lease in taken:
            lease.close()


def bring(
    repo: Repository,
    copies: Sequence[Copy],
    needed: Sequence[ObjectRef],
    taken: Sequence[Lease],
    *,
    verify: bool,
    progress: Progress,
) -> tuple[str, ...]:
    """Bring every object to every remote, in time.

    Returns:
        What was healed.

    Raises:
        Conflict: a collector has condemned what is needed, or it takes longer than any lease counts.
        MissingObject, WrongDigest, IntegrityError, StorageError: see `push.execute`.
    """
    todo, healed = list(zip(copies, taken, strict=True)), list[str]()
    for _ in range(_ROUNDS):
        for copy, lease in todo:
            lease.obey()  # P2
            _send(repo, copy, copies, needed, progress)  # P3
            if verify:
                healed += _heal(repo, copy, copies, needed, progress)
        late = [lease for lease in taken if not lease.is_young()]  # P4
        if not late:
            return tuple(healed)
        for lease in late:
            lease.take()
        # What was there already may have been swept while the lease did not count: all of it is looked at.
        todo = [
            (Copy(remote=c.remote, missing=()), lease) for c, lease in zip(copies, taken, strict=True) if lease in late
        ]
    raise Conflict(
        "cannot push in time",
        why=f"{_ROUNDS} times it took longer than a lease counts",
        next_step="run the command again: what arrived stays",
    )


def _send(
    repo: Repository, copy: Copy, copies: Sequence[Copy], needed: Sequence[ObjectRef], progress: Progress
) -> None:
    """Upload what the plan says is missing, and what was there then and is not any more."""
    planned = {ref.name for ref in copy.missing}
    gone = _absent(copy.remote, [ref for ref in needed if ref.name not in planned])
    missing = [*copy.missing, *gone]
    _fetch_from_others(repo, copy, copies, missing)
    copy.remote.upload(missing, repo.objects, progress)


def _heal(
    repo: Repository, copy: Copy, copies: Sequence[Copy], needed: Sequence[ObjectRef], progress: Progress
) -> Iterator[str]:
    """Read everything back, and put what is right in the place of what is not.

    Raises:
        WrongDigest: an object is something else there, and not whole here or in another of these remotes.
    """
    wrong = list(downloads.unsound(copy.remote, needed, progress))
    _fetch_from_others(repo, copy, copies, [ref for ref, _ in wrong])
    for ref, problem in wrong:
        if not repo.objects.is_healthy(ref):
            raise problem
        copy.remote.replace(ref, repo.objects)
        downloads.verify(copy.remote, [ref], lambda _: None)
        yield f"object {short(ref.name)} was something else at remote '{printable(copy.remote.name)}', and was healed"


def _fetch_from_others(repo: Repository, copy: Copy, copies: Sequence[Copy], refs: Sequence[ObjectRef]) -> None:
    """Get what one remote has and another has not, and is not here."""
    for other in copies:
        absent = [ref for ref in refs if not _is_here(repo, ref)]
        lacks = {ref.name for ref in other.missing}
        there = [ref for ref in absent if ref.name not in lacks]
        if other is not copy and there:
            downloads.download(other.remote, there, repo.objects.store, lambda _: None)


def settle(repo: Repository, copies: Sequence[Copy], needed: Sequence[ObjectRef], taken: Sequence[Lease]) -> None:
    """P6: after the refs have moved, be sure that no collector took anything away while they did.

    A lease that still counts says so. Of a push that was late, every object is looked at, and healed from the cache; but
    not while a collector is about to remove it.

    Raises:
        Conflict: a collector has condemned some of it, and is not done. The next push looks again.
        StorageError, IntegrityError: it cannot be looked at or healed; likewise.
    """
    for lease in taken:
        lease.moved = True
    for copy, lease in zip(copies, taken, strict=True):
        if not lease.is_young():
            _wait_for_collectors(lease)
            missing = _absent(copy.remote, needed)
            copy.remote.upload(missing, repo.objects, lambda _: None)


def _wait_for_collectors(lease: Lease) -> None:
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            lease.obey(late=True)
        except Conflict as err:
            if time.monotonic() > end:
                raise Conflict(
                    "the refs were pushed, but the push was too slow for its lease",
                    why=err.why,
                    next_step="run 'ckpt push' again when that collection is over: it heals what was removed",
                    **err.facts,
                ) from err
            time.sleep(_PAUSE_S)
        else:
            return
