"""`Checkpointer`: saves the state of a training loop as commits, off the training thread, and goes on where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckptvcs.errors import UsageError
from ckptvcs.porcelain import incoming
from ckptvcs.porcelain.checkpoints import require_checkpoint
from ckptvcs.porcelain.config import save_policy
from ckptvcs.train import ranks, resume
from ckptvcs.train.averages import WeightAverage
from ckptvcs.train.face import LoopFace
from ckptvcs.train.facts import Facts
from ckptvcs.train.keeper import Keeper
from ckptvcs.train.parts import Parts
from ckptvcs.train.saver import Saver

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ckptvcs.domain.policy import Save
    from ckptvcs.train.parts import Every
    from ckptvcs.train.resume import Resumed


class Checkpointer(LoopFace):
    """Commits the state of a training loop to the branch of its run.

    Args:
        model: the model; anything with `state_dict` and `load_state_dict`, as all the parts.
        optimizer: the optimizer.
        scheduler: the learning rate scheduler.
        run: name of the training job; its checkpoints go to the branch of that name.
        repo: a folder in the repository.
        branch: another branch than that of the run.
        track: the track; the one of ckpt.yaml if it is not given.
        policy: when `step` saves, as in the section `save` of ckpt.yaml, which is used if this is None. Where there is
            neither: as often as costs 3.5 % of the time, when the process is told to end, and at the end.
        asynchronous: save in the background. `save` then returns as soon as a copy of the state is taken.
        params: hyperparameters, for the record.
        data: names and versions of data sets, for the record.
        aux: files that belong to each checkpoint, such as a tokenizer; they are kept under `auxiliary/`.
        preempted: asked at every step whether the process is to end soon, where no signal says so.
        parts: more parts by name: `dataloader=...`, `scaler=...`, `ema=...`, a second model.

    The state of Python's, NumPy's and torch's random generators (of every rank) is always saved and restored. At most one
    save is under way; the next one waits for it, or is skipped where the policy says so. What goes wrong in the background
    is raised by the next call.

    Example:
        >>> with Checkpointer(model=model, optimizer=optimizer, run="bert-lr3e-4") as ck:
        ...     start = ck.resume()
        ...     for step in range(start.step + 1 if start else 0, total):
        ...         loss = train_step()
        ...         ck.step(step, metrics={"loss": loss})
    """

    def __init__(  # noqa: PLR0913 - all by keyword, and most of them seldom
        self,
        *,
        run: str,
        model: Any = None,
        optimizer: Any = None,
        scheduler: Any = None,
        repo: str | Path = ".",
        branch: str | None = None,
        track: str | None = None,
        policy: Save | Mapping[str, Any] | None = None,
        asynchronous: bool = True,
        params: Mapping[str, Any] | None = None,
        data: Mapping[str, str] | None = None,
        aux: Sequence[str | Path] = (),
        preempted: Callable[[], bool] | None = None,
        **parts: Any,
    ) -> None:
        self._parts = Parts({"model": model, "optimizer": optimizer, "scheduler": scheduler, **parts}, aux)
        saver = Saver(repo, run=run, branch=branch, track=track, asynchronous=asynchronous, params=params, data=data)
        self._run: Keeper = Keeper(self._parts, saver, save_policy(saver.repo.config, policy), preempted=preempted)

    def ema(
        self, *, decay: float | None = None, last: int | None = None, every: Every = "step", **options: Any
    ) -> WeightAverage:
        """Keep a running average of the weights of `model`, as the part `ema`. To be called before `resume`.

        Args:
            decay: the share of the average that stays at each update.
            last: instead, over how many updates the equal mean goes.
            every: when it is updated: `"step"`, at each step, or `"save"`, at each save, for an average of recent
                checkpoints.
            options: `start` and `buffers` of `WeightAverage`.

        Returns:
            The average: `with average.applied_to(model): evaluate(model)`.

        Raises:
            UsageError: not exactly one of `decay` and `last` is given, or there is no model.
        """
        average = WeightAverage(self._parts.model, decay=decay, last=last, **options)
        self._parts.add_average("ema", average, every)
        return average

    # ---- going on

    def resume(
        self, revision: str | None = None, *, strict: bool = True, components: Sequence[str] | None = None
    ) -> Resumed | None:
        """Put every part back to a checkpoint: the newest one of the run that is whole, or the one that is named.

        A revision that is named is forked: the branch of the run begins there, or, if it exists and has newer checkpoints,
        a new branch, whose name `Resumed.branch` tells. `restore` goes back within the run.

        Args:
            revision: any revision; None for the newest checkpoint of the run.
            strict: whether anything that does not fit is an error; else it is left as it is, and `Resumed.left` says so.
            components: the parts to put back, for a partial start; None for all of them and the random generators.

        Returns:
            Where training goes on; None if the run has no checkpoint yet.

        Raises:
            IntegrityError: there are checkpoints, and not one of them is whole.
            FormatError: parts are missing or do not fit; every difference is listed.
        """
        return self._run.resume(revision, strict=strict, components=components)

    def restore(self, step: int) -> Resumed:
        """Go back to a step of this run, after it diverged, say. The branch keeps what was saved since.

        Raises:
            NotFound: no checkpoint of the run has that step.
            IntegrityError, FormatError: as for `resume`.
        """
        saver = self._run.saver
        self._run.wait()
        checkpoint = require_checkpoint(saver.repo, f"{saver.branch}@step:{step}", saver.track)
        return self._run.put_back(checkpoint, strict=True, components=None)

    def warm_start(
        self, source: str | Path, *, strict: bool = False, components: Sequence[str] | None = None
    ) -> Resumed:
        """Begin the run with what a file or folder holds: it becomes the first checkpoint of the run, and so its lineage.

        Args:
            source: in any format that `ckpt commit` reads.
            strict: as for `resume`; here what does not fit is left as it is.
            components: as for `resume`.

        Raises:
            UsageError: the run has checkpoints already; `resume` goes on from them.
            FormatError: the file cannot be read, or with `strict` does not fit.
        """
        saver = self._run.saver
        self._run.wait()
        newest = resume.newest_of(saver)
        if newest is not None and newest.manifest.reason != resume.WARM_START:
            raise UsageError(
                f"cannot begin run '{saver.run}' with '{source}'",
                why="it has checkpoints already",
                next_step="go on with resume(), or give the run another name",
            )
        if ranks.rank() == 0:
            saver.save_now(incoming.from_path(Path(source)), Facts(step=None, reason=resume.WARM_START))
        tip = ranks.agreed(saver.receipt.id if saver.receipt else None)
        wanted = list(components) if components is not None else list(self._parts.by_name)
        started = require_checkpoint(saver.repo, tip, saver.track)
        return self._run.put_back(started, strict=strict, components=wanted)
