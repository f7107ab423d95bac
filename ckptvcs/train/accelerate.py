"""`CkptAccelerate`: what `Accelerator.save_state` writes becomes commits, when a policy says so, and training goes on from them.

Accelerate itself writes and reads the folder, so whatever it knows to save comes back: models, optimizers, schedulers, the
scaler, random generators of every rank, registered objects. Beside them lies where the loop was: `batches` goes on in the
middle of an epoch with the batches, and the random numbers, that would have come next.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from accelerate import skip_first_batches

from ckptvcs.domain import provenance
from ckptvcs.errors import FormatError
from ckptvcs.porcelain.config import save_policy
from ckptvcs.train import capture, ranks
from ckptvcs.train.face import LoopFace
from ckptvcs.train.folders import Folders, discard
from ckptvcs.train.loop import Loop
from ckptvcs.train.preemption import Preempted
from ckptvcs.train.saver import Saver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from accelerate import Accelerator

    from ckptvcs.domain.checkpoint import Checkpoint
    from ckptvcs.domain.policy import Save
    from ckptvcs.porcelain.commit import Receipt
    from ckptvcs.train.facts import Facts
    from ckptvcs.train.resume import Resumed
    from ckptvcs.train.watch import Place

_log = logging.getLogger("ckptvcs")

_SAVE: Final = ".ckptvcs-save"
_LOOP: Final = "ckptvcs_loop.json"
"""Where the loop was, and what the triggers remember."""

_GENERATORS: Final = "ckptvcs_generators_{rank}.pt"
"""The random generators at the beginning of the epoch, which decided on the order of its batches, and at the save."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _InEpoch:
    """How far the loop is in an epoch, and the generators as they were when it began."""

    epoch: int
    batches: int
    generators: dict[str, Any]


class _AccelerateLoop(Loop):
    """Saves what Accelerate writes.

    Args:
        accelerator: it writes.
        home: where, for a moment.
        saver: commits what is saved.
        policy: when to save.
        preempted: asked at every step whether the process is to end soon.
        aux: files that belong to each checkpoint.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        home: Path,
        saver: Saver,
        policy: Save,
        *,
        preempted: Callable[[], bool] | None,
        aux: Sequence[str | Path],
    ) -> None:
        super().__init__(saver, policy, preempted=preempted)
        self.folders = Folders(self, aux)
        self.home = home
        self.in_epoch: _InEpoch | None = None
        self._accelerator = accelerator

    def write(self, facts: Facts, place: Place | None, parts: Mapping[str, Any] | None) -> Receipt | None:  # noqa: ARG002 - Accelerate writes all of it
        ours, main = self.home / _SAVE, self._accelerator.is_main_process
        if self.in_epoch is None and not self._places_are_saved():
            facts = replace(facts, grade_at_most=provenance.APPROXIMATE)
        if main and ours.exists():
            discard(ours)  # of a process that was killed
        self._accelerator.wait_for_everyone()
        written = Path(self._accelerator.save_state(str(ours)))
        self._write_place(written, facts, place)
        self._accelerator.wait_for_everyone()
        receipt = self.folders.commit(written, facts) if main else None
        if written == ours and main:
            discard(ours)
        return receipt

    def _places_are_saved(self) -> bool:
        """Whether Accelerate itself writes down where its data loaders are."""
        loaders = self._accelerator._dataloaders
        return all(getattr(loader, "use_stateful_dataloader", False) for loader in loaders)

    def _write_place(self, folder: Path, facts: Facts, place: Place | None) -> None:
        """Write down where the loop is."""
        here = self.in_epoch
        generators = {} if here is None else {"began": here.generators, "saved": capture.rng_state()}
        torch.save(generators, folder / _GENERATORS.format(rank=ranks.rank()))
        if self._accelerator.is_main_process:
            loop = {
                "version": 1,
                "step": facts.step,
                "samples": None if place is None else place.samples,
                "epoch": None if here is None else here.epoch,
                "batches": None if here is None else here.batches,
                "triggers": self.watch.remembered(),
            }
            (folder / _LOOP).write_text(json.dumps(loop, allow_nan=False, sort_keys=True), encoding="utf-8")

    def let_go(self) -> None:
        self.folders.discard_resumed()
        super().let_go()


class CkptAccelerate(LoopFace):
    """Commits the state of a loop that uses Accelerate to the branch of its run.

    Args:
        accelerator: it has prepared, or been told of, all that is to be saved.
        run: name of the training job; its checkpoints go to the branch of that name.
        policy: when `step` saves, as in the section `save` of ckpt.yaml, which is used if this is None. Where there is
            neither: the default of `Checkpointer`.
        repo: a folder in the repository.
        branch: another branch than that of the run.
        track: the track; the one of ckpt.yaml if it is not given.
        params: hyperparameters, for the record.
        data: names and versions of data sets, for the record.
        aux: files that belong to each checkpoint; they are kept under `auxiliary/`.
        preempted: asked at every step whether the process is to end soon, where no signal says so.
        folder: where Accelerate writes, for a moment; every process must see it. None: its `project_dir`, or else `repo`.
        asynchronous: commit in the background, from a copy of what was written in memory.

    Example:
        >>> with CkptAccelerate(accelerator, run="mlp", policy={"every_n_steps": 100}) as ck:
        ...     start = ck.resume()
        ...     step = start.step if start else 0
        ...     for epoch in range(ck.first_epoch, epochs):
        ...         for batch in ck.batches(loader, epoch):
        ...             loss = train_step(batch)
        ...             step += 1
        ...             ck.step(step, metrics={"loss": loss})
    """

    def __init__(  # noqa: PLR0913 - all but the first by keyword, and most of them seldom
        self,
        accelerator: Accelerator,
        *,
        run: str,
        policy: Save | Mapping[str, Any] | None = None,
        repo: str | Path = ".",
        branch: str | None = None,
        track: str | None = None,
        params: Mapping[str, Any] | None = None,
        data: Mapping[str, str] | None = None,
        aux: Sequence[str | Path] = (),
        preempted: Callable[[], bool] | None = None,
        folder: str | Path | None = None,
        asynchronous: bool = True,
    ) -> None:
        saver = Saver(repo, run=run, branch=branch, track=track, asynchronous=asynchronous, params=params, data=data)
        home = Path(folder or accelerator.project_dir or repo).absolute()
        policy = save_policy(saver.repo.config, policy)
        self._run: _AccelerateLoop = _AccelerateLoop(accelerator, home, saver, policy, preempted=preempted, aux=aux)
        self._accelerator = accelerator
        self._left: _Left | None = None

    def step(
        self,
        step: int,
        *,
        metrics: Mapping[str, Any] | None = None,
        epoch: float | None = None,
        samples: int | None = None,
    ) -> tuple[str, ...]:
        """Say that a step was made; as `Checkpointer.step`. The epoch is that of `batches`, if it is not given."""
        if epoch is None and self._run.in_epoch is not None:
            epoch = self._run.in_epoch.epoch
        return super().step(step, metrics=metrics, epoch=epoch, samples=samples)

    # ---- going on

    def resume(self, revision: str | None = None) -> Resumed | None:
        """Put everything back to a checkpoint: the newest one of the run that is whole, or the one that is named.

        A revision that is named is forked, as `Checkpointer.resume` does. Every process has to call it, after `prepare`
        and `register_for_checkpointing`.

        Args:
            revision: any revision; None for the newest checkpoint of the run.

        Returns:
            Where training goes on; None if the run has no checkpoint yet.

        Raises:
            IntegrityError, FormatError: there are checkpoints, and none can be used.
        """
        main, folders = self._accelerator.is_main_process, self._run.folders
        folder = folders.resume(revision, self._run.home, writes=main, refuse=_refuse)
        if folder is None or folders.resumed is None:
            return None
        try:
            self._accelerator.load_state(str(folder))
            loop = _loop(folder)
            self._left = _left(folder, loop)
            folders.go_on(loop.get("triggers"), named=revision is not None)
            self._accelerator.wait_for_everyone()
        finally:
            if main:
                folders.discard_resumed()
        self._run.forget_step()
        return replace(folders.resumed, samples=loop.get("samples"))

    @property
    def resumed(self) -> Resumed | None:
        """Where `resume` said that training goes on; None before it, and where the run had no checkpoint."""
        return self._run.folders.resumed

    @property
    def first_epoch(self) -> int:
        """The epoch at which the loop begins: 0, or the one that `resume` went back to."""
        return 0 if self._left is None else self._left.epoch

    def batches(self, loader: Any, epoch: int) -> Iterator[Any]:
        """The batches of an epoch; of the one in which the checkpoint was saved, those that were left.

        They are the same, in the same order, as without the interruption, and so are the random numbers drawn after the
        first of them was fetched, whichever sampler the loader has. A `StatefulDataLoader` finds its place itself; for that
        it needs `use_seedable_sampler=True`, as it does not save the random numbers that a plain sampler draws.

        Args:
            loader: a data loader that Accelerate has prepared.
            epoch: from 0.
        """
        left, self._left = self._left, None
        if left is not None and left.epoch != epoch:
            left = None
        began = {"rng": capture.rng_state(), "own": _own_states(loader)} if left is None else left.began
        _set_states(loader, began)
        if hasattr(loader, "set_epoch"):
            loader.set_epoch(epoch)
        done = 0 if left is None else left.batches
        finds_its_place = getattr(loader, "use_stateful_dataloader", False)
        rest = skip_first_batches(loader, done) if done and not finds_its_place else loader
        for number, batch in enumerate(rest, start=done + 1):
            _caught_up(left)
            left = None
            self._run.in_epoch = _InEpoch(epoch=epoch, batches=number, generators=began)
            yield batch
        _caught_up(left)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Left:
    """Where a loop is to go on in the middle of an epoch."""

    epoch: int
    batches: int
    began: dict[str, Any]
    saved: dict[str, Any]


def _caught_up(left: _Left | None) -> None:
    """Put the generators to where they were at the save: the order of the batches has been drawn once more."""
    if left is not None:
        capture.set_rng_state(left.saved)


def _loop(folder: Path) -> dict[str, Any]:
    """Where the loop was; empty for a folder that was committed without `CkptAccelerate`."""
    try:
        loop = json.loads((folder / _LOOP).read_bytes())
    except FileNotFoundError:
        return {}
    if not isinstance(loop, dict) or loop.get("version") != 1:
        raise FormatError(f"cannot read '{_LOOP}'", why="its version is not 1", next_step="update ckptvcs")
    return loop


def _left(folder: Path, loop: Mapping[str, Any]) -> _Left | None:
    if loop.get("epoch") is None:
        return None
    try:
        generators = torch.load(folder / _GENERATORS.format(rank=ranks.rank()), weights_only=True)
    except FileNotFoundError:
        _log.warning("the checkpoint has no generators of rank %s: it does not go on exactly", ranks.rank())
        generators = {"began": {"rng": capture.rng_state(), "own": []}, "saved": capture.rng_state()}
    return _Left(epoch=loop["epoch"], batches=loop["batches"], **generators)


def _own(loader: Any) -> list[torch.Generator]:
    """The generators that a loader has of its own, and that decide on the order of its batches."""
    holders = [loader, getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)]
    holders += [getattr(holder, name, None) for holder in holders for name in ("sampler", "batch_sampler")]
    names = ("generator", "synchronized_generator")
    found = [getattr(holder, name, None) for holder in holders if holder is not None for name in names]
    return list({id(one): one for one in found if isinstance(one, torch.Generator)}.values())


def _own_states(loader: Any) -> list[torch.Tensor]:
    return [generator.get_state() for generator in _own(loader)]


def _set_states(loader: Any, states: Mapping[str, Any]) -> None:
    capture.set_rng_state(states["rng"])
    for generator, state in zip(_own(loader), states["own"], strict=False):
        generator.set_state(state)


def _refuse(checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint that Accelerate did not write."""
    names = [component.name for component in checkpoint.manifest.components]
    if not any(name.startswith("random_states") for name in names):
        raise FormatError(
            f"cannot resume from checkpoint {checkpoint.id[:10]}",
            why=f"Accelerate did not write it: it has {', '.join(names)}, and no random_states",
            next_step="resume from one that it wrote, or load the weights with 'ckptvcs.load'",
        )


__all__ = ["CkptAccelerate", "Preempted"]
