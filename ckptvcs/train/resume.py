"""Going on from a checkpoint: which one it is, whether it fits, and putting every part back. Nothing is ever removed."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from ckptvcs.errors import CkptvcsError, FormatError, IntegrityError
from ckptvcs.porcelain.checkpoints import line, require_checkpoint
from ckptvcs.porcelain.load import load
from ckptvcs.train import capture, elsewhere, fit, ranks
from ckptvcs.train.parts import LOOP, RNG, own_state
from ckptvcs.train.preemption import ALONE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from ckptvcs.domain.checkpoint import Checkpoint, CheckpointId
    from ckptvcs.domain.manifest import ComponentEntry
    from ckptvcs.train.saver import Saver

_log = logging.getLogger("ckptvcs")


WARM_START: Final = "warm_start"
IN_THE_MIDDLE: Final = "on_exception"
"""Reasons of saves that no run goes on from by itself."""


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
    *,
    refuse: Callable[[Checkpoint], None] = lambda _: None,
) -> Found | None:
    """Find the checkpoint to go on from.

    Args:
        saver: of the run.
        revision: any revision; None for the newest checkpoint of the run that is whole.
        refuse: raises `FormatError` for a checkpoint that is whole and cannot be used all the same: an older one is taken
            instead, and it is said why.

    Returns:
        None if the run has no checkpoint yet.

    Raises:
        IntegrityError, FormatError: there are checkpoints, and none can be used.
        StorageError: the newest one is elsewhere, and no remote answers.
    """
    saver.looked = True
    if revision is not None:
        checkpoint = require_checkpoint(saver.repo, revision, saver.track)
        elsewhere.bring(saver.repo, checkpoint)
        refuse(checkpoint)
        return Found(checkpoint=checkpoint, skipped=())
    skipped: list[str] = []
    problem: CkptvcsError | None = None
    for checkpoint in of_the_run(saver):
        try:
            elsewhere.bring(saver.repo, checkpoint)
            refuse(checkpoint)
        except (IntegrityError, FormatError) as err:
            problem = problem or err
            skipped.append(f"step {checkpoint.manifest.step} ({checkpoint.id[:10]}): {err}")
            _log.warning("checkpoint %s of step %s is skipped: %s", checkpoint.id[:10], checkpoint.manifest.step, err)
            continue
        return Found(checkpoint=checkpoint, skipped=tuple(skipped))
    if problem is not None:
        kind = IntegrityError if isinstance(problem, IntegrityError) else FormatError
        raise kind(
            f"cannot resume run '{saver.run}'",
            why=f"not one of its checkpoints can be used: {skipped[0]}",
            next_step=f"{problem.next_step}; or begin anew under another name",
            skipped=skipped,
        ) from problem
    return None


def find_whole(
    saver: Saver,
    revision: str | None,
    *,
    refuse: Callable[[Checkpoint], None] = lambda _: None,
) -> Found | None:
    """Find a checkpoint from which training goes on exactly; see `find`.

    Where none is named, one that an exception saved in the middle of a step, and a start with a foreign file, are passed
    over: where there is nothing else, the run has yet to begin.
    """
    if revision is not None:
        return find(saver, revision, refuse=refuse)
    saver.looked = True
    if not has_begun(saver):
        for checkpoint in of_the_run(saver):
            _log.warning(
                "run '%s' is begun anew: its checkpoint was saved for '%s'", saver.run, checkpoint.manifest.reason
            )
        return None

    def refuse_the_middle(checkpoint: Checkpoint) -> None:
        reason = checkpoint.manifest.reason
        if reason.startswith(IN_THE_MIDDLE):
            raise FormatError("it was saved in the middle of a step", why=reason, next_step="name it to go on from it")
        refuse(checkpoint)

    return find(saver, None, refuse=refuse_the_middle)


def refuse_partial(checkpoint: Checkpoint) -> None:
    """Refuse what a short grace period left incomplete.

    Raises:
        FormatError: it is such a one.
    """
    reason = checkpoint.manifest.reason
    if ALONE in reason:
        raise FormatError(
            "it was saved without all parts", why=reason, next_step="take what there is with resume(strict=False)"
        )


def has_begun(saver: Saver) -> bool:
    """Whether there is a checkpoint that the run would go on from by itself, if it is whole."""
    reasons = (checkpoint.manifest.reason for checkpoint in of_the_run(saver))
    return any(not reason.startswith((IN_THE_MIDDLE, WARM_START)) for reason in reasons)


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
    descended: tuple[str, ...] | None = None
    for checkpoint in line(saver.repo, tip, saver.track):
        if descended is None or checkpoint.id in descended:  # else it was left for an older one, by `restore`
            yield checkpoint
            descended = checkpoint.manifest.parents
            if not descended:
                return  # here this line of training began; what is older belongs to another one


def require_components(checkpoint: Checkpoint, needed: Collection[str]) -> None:
    """Raise `FormatError` if a checkpoint lacks a component."""
    missing = [name for name in needed if checkpoint.manifest.component(name) is None]
    if missing:
        there = [component.name for component in checkpoint.manifest.components]
        raise FormatError(
            f"cannot resume from checkpoint {checkpoint.id[:10]}",
            why=f"it has no component '{missing[0]}', only {', '.join(there)}",
            next_step="give Checkpointer the parts that the checkpoint has, or take what fits with strict=False",
            missing=missing,
        )


def put_back(
    saver: Saver,
    checkpoint: Checkpoint,
    parts: Mapping[str, Any],
    wanted: Sequence[str],
    *,
    strict: bool,
    same_run: bool,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Give parts their states, all or none of those that can be judged beforehand.

    Args:
        saver: of the run.
        checkpoint: verified.
        parts: the parts of the training, by name.
        wanted: names of components; those that are no parts are returned.
        strict: whether anything that does not fit is an error.
        same_run: whether the training goes on that was saved, so that nothing of it may be missing.

    Returns:
        The states of `wanted` that are no parts; and what was left as it is, a line each.

    Raises:
        FormatError: something does not fit; all of it is listed.
    """
    entries = {name: entry for name in wanted if (entry := checkpoint.manifest.component(name)) is not None}
    # Copied, because some optimizers keep the tensors they are given, and those must not be a map of a file.
    state = load(saver.repo, checkpoint.commit, [e.name for e in entries.values()], copy=True, track=saver.track)
    left = [f"{name}: the checkpoint has no such component" for name in parts if name in wanted and name not in entries]
    if LOOP in wanted and same_run:  # a fork may leave behind what it has no use for
        left += [f"{name}: is in the checkpoint only" for name in _others(checkpoint, entries)]
    states: dict[str, Any] = {}
    for name, entry in entries.items():
        try:
            states[name] = own_state(state[entry.name], entry.role)
        except FormatError as err:
            left.append(f"{name}: {err.why}")
    mine = {name: states.pop(name) for name in entries if name in parts and name in states}
    left += [line for name, value in mine.items() for line in fit.differences(name, parts[name], value)]
    _refuse(checkpoint, left, strict=strict)
    _refuse_if_nothing_fits(checkpoint, {n: p for n, p in parts.items() if n in wanted}, mine, left)
    for name, value in mine.items():
        left += _load_part(name, parts[name], value, strict=strict)
        if entries[name].role == "dataloader":
            # torchdata's loader makes its iterator when it is asked for its state, and draws a seed for it: now, before the
            # generators are put back, because the run that was stopped had drawn it long ago.
            parts[name].state_dict()
    _refuse(checkpoint, left, strict=strict)
    return states, tuple(left)


def _others(checkpoint: Checkpoint, entries: Mapping[str, ComponentEntry]) -> list[str]:
    """Components that training would go on without."""
    taken = {entry.name for entry in entries.values()}
    return [
        c.name for c in checkpoint.manifest.components if c.name not in taken and c.role not in ("extra", RNG, LOOP)
    ]


def _refuse(checkpoint: Checkpoint, left: Sequence[str], *, strict: bool) -> None:
    """Raise what does not fit, on every rank if it is so on one."""
    lines = list(dict.fromkeys(line for said in ranks.told_by_each(list(left)) for line in said))
    if lines and strict:
        raise FormatError(
            f"the training does not fit checkpoint {checkpoint.id[:10]}",
            why="; ".join(lines),
            next_step="make the same parts as when it was saved, or take what fits with strict=False or components=[...]",
            differences=lines,
        )


def _refuse_if_nothing_fits(
    checkpoint: Checkpoint, parts: Mapping[str, Any], states: Mapping[str, Any], left: Sequence[str]
) -> None:
    """Refuse to train on weights that are all random still, which nobody means by a start from a checkpoint."""
    modules = {name: part for name, part in parts.items() if isinstance(part, torch.nn.Module) and part.state_dict()}
    if not modules or any(name in states and fit.fitting(part, states[name]) for name, part in modules.items()):
        return
    prefixes = (fit.prefix(part, states[name]) for name, part in modules.items() if name in states)
    prefix = next((found for found in prefixes if found), None)
    raise FormatError(
        f"nothing of checkpoint {checkpoint.id[:10]} fits {' or '.join(modules)}",
        why="; ".join(left[:3]),
        next_step=f"its names begin with '{prefix}': save it again without that, {{k.removeprefix('{prefix}'): v ...}}"
        if prefix
        else "make the model that was saved, or begin without it",
        differences=list(left),
    )


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


def restore_generators(states: Mapping[str, Any], left: tuple[str, ...]) -> tuple[str, ...]:
    """Put the random generators of this rank back: last of all, because loading may draw random numbers."""
    if RNG in states:
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
