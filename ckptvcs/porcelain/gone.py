"""Checkpoints that were dropped: what is said of one that somebody asks for, and what is near it."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Final

from ckptvcs.errors import MissingObject
from ckptvcs.porcelain import account
from ckptvcs.porcelain.checkpoints import line
from ckptvcs.porcelain.describe import ref_of
from ckptvcs.storage.history.repository import CommitId

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from ckptvcs.domain.checkpoint import Checkpoint
    from ckptvcs.porcelain.account import Account
    from ckptvcs.porcelain.repo import Repository

_LOOK: Final = 5000
"""Checkpoints of a branch that are looked at for one that is near."""


def refuse_gone(repo: Repository, *checkpoints: Checkpoint, components: Collection[str] = ()) -> None:
    """Say so where a checkpoint is asked for of which nothing is there any more, or none of what is wanted.

    Args:
        repo: the repository.
        checkpoints: known to the ledger.
        components: those that are wanted; all that are left if there are none.

    Raises:
        MissingObject: one was dropped, and is gone; the error names what is near.
    """
    for checkpoint in checkpoints:
        if checkpoint.is_gone or (checkpoint.dropped is not None and checkpoint.dropped.gone.intersection(components)):
            raise error(repo, checkpoint)


def with_shared(repo: Repository, checkpoint: Checkpoint, components: Collection[str]) -> Checkpoint:
    """The same as if those components had not been dropped whose objects are all here, because others need them too."""
    if checkpoint.dropped is None:
        return checkpoint
    entries = {one.name: one for one in checkpoint.manifest.components}
    here = {
        name
        for name in checkpoint.dropped.gone.intersection(components)
        if all(repo.objects.is_sound(ref_of(file)) for file in entries[name].files)
    }
    left = checkpoint.dropped.without(here)
    return replace(checkpoint, dropped=left if left.components else None)


def explained(repo: Repository, checkpoint: Checkpoint, problem: MissingObject) -> MissingObject:
    """The error of an object that is not there: that of a dropped checkpoint, if it is one."""
    known = account.read(repo).on(checkpoint)
    return problem if known.dropped is None or not known.dropped.gone else error(repo, known)


def error(repo: Repository, checkpoint: Checkpoint) -> MissingObject:
    """The error of a checkpoint of which something is gone."""
    dropped = checkpoint.dropped
    assert dropped is not None
    step = f" step {checkpoint.manifest.step}" if checkpoint.manifest.step is not None else ""
    what = "was dropped" if checkpoint.is_gone else f"has no {' and no '.join(sorted(dropped.gone))} any more"
    near = near_by(repo, checkpoint)
    offer = f"near it there is {' and '.join(map(_named, near))}; " if near else ""
    return MissingObject(
        f"checkpoint {checkpoint.id[:10]}{step} {what}",
        why=f"collected on {dropped.time[:10]}: {dropped.why}",
        next_step=f"{offer}'ckpt gc --rescue {checkpoint.id[:10]}' brings it back while it is in a trash",
        checkpoint=checkpoint.id,
        dropped=dropped.time,
        near=[one.id for one in near],
    )


def _named(checkpoint: Checkpoint) -> str:
    step = f"step {checkpoint.manifest.step} " if checkpoint.manifest.step is not None else ""
    return f"{step}({checkpoint.id[:10]})"


def near_by(repo: Repository, checkpoint: Checkpoint) -> list[Checkpoint]:
    """The nearest checkpoints before and after one that are not gone."""
    said, track = account.read(repo), checkpoint.manifest.track
    found = []
    older = line(repo, CommitId(checkpoint.commit), track)
    if (before := next((c for c in map(said.on, older) if c.dropped is None), None)) is not None:
        found.append(before)
    if (after := _after(repo, checkpoint, said)) is not None:
        found.append(after)
    return found


def _after(repo: Repository, checkpoint: Checkpoint, said: Account) -> Checkpoint | None:
    for tip in _branches(repo):
        last: Checkpoint | None = None
        for one in islice(line(repo, tip, checkpoint.manifest.track), _LOOK):
            if one.id == checkpoint.id:
                return last
            last = said.on(one) if said.on(one).dropped is None else last
    return None


def _branches(repo: Repository) -> Iterator[CommitId]:
    yield from repo.history.branches().values()
    yield from repo.history.remote_tips().values()


def what_went(checkpoint: Checkpoint) -> tuple[str, ...]:
    """What of a checkpoint is gone, and since when, if anything is."""
    if checkpoint.dropped is None or not checkpoint.dropped.gone:
        return ()
    gone, time = checkpoint.dropped.gone, checkpoint.dropped.time[:10]
    was = "was" if len(gone) == 1 else "were"
    return (f"{', '.join(sorted(gone))} of checkpoint {checkpoint.id[:10]} {was} dropped on {time}",)


def left_out(checkpoint: Checkpoint) -> tuple[str, ...]:
    """What the user should know of a checkpoint of which something is gone."""
    left = "it is" if checkpoint.dropped is not None and len(checkpoint.dropped.gone) == 1 else "they are"
    return tuple(f"{said}: {left} left out" for said in what_went(checkpoint))
