"""Going on from a checkpoint: which one it is, whether it fits, and putting every part back. Nothing is ever removed."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ckptvcs.errors import CkptvcsError, FormatError, IntegrityError
from ckptvcs.porcelain.checkpoints import line, require_checkpoint
from ckptvcs.porcelain.describe import ref_of
from ckptvcs.porcelain.load import load
from ckptvcs.train import capture, fit, ranks
from ckptvcs.train.parts import RNG, own_state

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from ckptvcs.domain.checkpoint import Checkpoint, CheckpointId
    from ckptvcs.train.saver import Saver

_log = logging.getLogger("ckptvcs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """Where training goes on."""

    id: CheckpointId
    commit: str
    step: int
    epoch: int | float | None
    samples: int | None
    """How many samples were seen, if the loop said so."""
    metrics: Mapping[str, int | float | str]
    skipped: tuple[str, ...]
    """Newer checkpoints that could not be used, and why."""
    branch: str
    """Where the next checkpoints go."""
    left: tuple[str, ...]
    """What was left as it is because it does not fit, with `strict=False` or `components`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A checkpoint that can be gone on from."""

    checkpoint: Checkpoint
    skipped: tuple[str, ...]


def find(
    saver: Saver,
    revision: str | None,
    needed: Collection[str] = (),
    *,
    refuse: Callable[[Checkpoint], None] = lambda _: None,
) -> Found | None:
    """Find the checkpoint to go on from.

    Args:
        saver: of the run.
        revision: any revision; None for the newest checkpoint of the run that is whole.
        needed: components without which an older checkpoint is taken, and it is said why.
        refuse: raises `FormatError` for a checkpoint that is whole and cannot be used all the same.

    Returns:
        None if the run has no checkpoint yet.

    Raises:
        IntegrityError, FormatError: there are checkpoints, and none can be used.
    """
    if revision is not None:
        checkpoint = require_checkpoint(saver.repo, revision, saver.track)
        saver.repo.objects.check(ref_of(file) for file in checkpoint.manifest.all_files())
        refuse(checkpoint)
        return Found(checkpoint=checkpoint, skipped=())
    skipped: list[str] = []
    problem: CkptvcsError | None = None
    for checkpoint in of_the_run(saver):
        try:
            saver.repo.objects.check(ref_of(file) for file in checkpoint.manifest.all_files())
            require_components(checkpoint, needed)
            refuse(checkpoint)
        except (IntegrityError, FormatError) as err:
            problem = problem or err
            skipped.append(f"step {checkpoint.manifest.step} ({checkpoint.id[:10]}): {err}")
            _log.warning("checkpoint %s cannot be used and is skipped: %s", checkpoint.id[:10], err)
            continue
        return Found(checkpoint=checkpoint, skipped=tuple(skipped))
    if problem is not None:
        kind = IntegrityError if isinstance(problem, IntegrityError) else FormatError
        raise kind(
            f"cannot resume run '{saver.run}'",
            why=f"not one of its checkpoints can be used: {skipped[0]}",
            next_step="fetch missing objects with 'dvc fetch', give the parts that the checkpoints have, "
            "or begin anew under another name",
            skipped=skipped,
        ) from problem
    return None


def fork_if_needed(saver: Saver, checkpoint: Checkpoint) -> None:
    """Leave the branch of the run to its newer checkpoints, if it has some: what follows goes to a new branch."""
    newest = newest_of(saver)
    if newest is not None and newest.id != checkpoint.id:
        before = saver.branch
        saver.fork()
        _log.warning(
            "branch '%s' has newer checkpoints, at step %s: what is saved from here goes to the new branch '%s'; "
            "give the run that name to go on with it later",
            before,
            newest.manifest.step,
            saver.branch,
        )


def newest_of(saver: Saver) -> Checkpoint | None:
    """The newest checkpoint of the run, whole or not; None if it has none."""
    return next(of_the_run(saver), None)


def of_the_run(saver: Saver) -> Iterator[Checkpoint]:
    """The checkpoints of this run, newest first."""
    tip = saver.repo.history.tip(f"refs/heads/{saver.branch}")
    if tip is None:
        return
    for checkpoint in line(saver.repo, tip, saver.track):
        yield checkpoint
        if not checkpoint.manifest.parents:
            return  # here this line of training began; what is older belongs to another one


def require_components(checkpoint: Checkpoint, needed: Collection[str]) -> None:
    """Raise `FormatError` if a checkpoint lacks a component."""
    missing = [name for name in needed if checkpoint.manifest.component(name) is None]
    if missing:
        there = [component.name for component in checkpoint.manifest.components]
        raise FormatError(
            f"cannot resume from checkpoint {checkpoint.id[:10]}",
            why=f"it has no component '{missing[0]}', only {', '.join(there)}",
            next_step="give Checkpointer the parts that the checkpoint has, or take some with components=[...]",
            missing=missing,
        )


def put_back(
    saver: Saver, checkpoint: Checkpoint, parts: Mapping[str, Any], wanted: Sequence[str], *, strict: bool
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Give parts their states, all or none of those that can be judged beforehand.

    Args:
        saver: of the run.
        checkpoint: verified.
        parts: the parts of the training, by name.
        wanted: names of components; those that are no parts are returned.
        strict: whether anything that does not fit is an error.

    Returns:
        The states of `wanted` that are no parts; and what was left as it is, a line each.

    Raises:
        FormatError: something does not fit; all of it is listed.
    """
    entries = {name: entry for name in wanted if (entry := checkpoint.manifest.component(name)) is not None}
    # Copied, because some optimizers keep the tensors they are given, and those must not be a map of a file.
    state = load(saver.repo, checkpoint.commit, [e.name for e in entries.values()], copy=True, track=saver.track)
    states = {name: own_state(state[entry.name], entry.role) for name, entry in entries.items()}
    left = [f"{name}: the checkpoint has no such component" for name in parts if name in wanted and name not in entries]
    mine = {name: states.pop(name) for name in entries if name in parts}
    left += [line for name, value in mine.items() for line in fit.differences(name, parts[name], value)]
    if left and strict:
        raise _misfit(checkpoint, left)
    for name, value in mine.items():
        left += _load_part(name, parts[name], value, strict=strict)
        if entries[name].role == "dataloader":
            # torchdata's loader makes its iterator when it is asked for its state, and draws a seed for it: now, before the
            # generators are put back, because the run that was stopped had drawn it long ago.
            parts[name].state_dict()
    if left and strict:
        raise _misfit(checkpoint, left)
    return states, tuple(left)


def _load_part(name: str, part: Any, state: Any, *, strict: bool) -> list[str]:
    """Give a part its state; returns what it says against it."""
    try:
        if strict or not fit.differences(name, part, state):
            part.load_state_dict(state)
        elif isinstance(part, torch.nn.Module):
            part.load_state_dict(fit.fitting(part, state), strict=False)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as err:
        return [f"{name}: {err}"]
    return []


def _misfit(checkpoint: Checkpoint, lines: Sequence[str]) -> FormatError:
    return FormatError(
        f"the training does not fit checkpoint {checkpoint.id[:10]}",
        why="; ".join(lines),
        next_step="make the same parts as when it was saved, or take what fits with strict=False or components=[...]",
        differences=list(lines),
    )


def restore_generators(states: Mapping[str, Any], left: tuple[str, ...]) -> tuple[str, ...]:
    """Put the random generators of this rank back: last of all, because loading may draw random numbers."""
    if RNG not in states:
        return left
    if states[RNG] is None:
        return (*left, f"{RNG}: the checkpoint has no generators of rank {ranks.rank()}")
    capture.set_rng_state(states[RNG])
    return left


def resumed(
    saver: Saver, checkpoint: Checkpoint, *, samples: int | None, skipped: tuple[str, ...], left: tuple[str, ...]
) -> Resumed:
    """Take down that training goes on from a checkpoint, and tell what was left."""
    for line_ in left:
        _log.warning("left as it is: %s", line_)
    saver.descend_from(checkpoint)
    manifest = checkpoint.manifest
    return Resumed(
        id=checkpoint.id,
        commit=checkpoint.commit,
        step=manifest.step or 0,
        epoch=manifest.epoch,
        samples=samples,
        metrics=manifest.metrics,
        skipped=skipped,
        branch=saver.branch,
        left=left,
    )
