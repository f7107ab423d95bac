"""`Checkpointer`: saves the state of a training loop as commits, off the training thread, and goes on where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckptvcs.errors import UsageError
from ckptvcs.porcelain import incoming
from ckptvcs.porcelain.api import unwrapped
from ckptvcs.porcelain.checkpoints import require_checkpoint
from ckptvcs.porcelain.config import save_policy
from ckptvcs.train import ranks, resume
from ckptvcs.train.averages import WeightAverage
from ckptvcs.train.keeper import Keeper
from ckptvcs.train.parts import Parts
from ckptvcs.train.saver import Facts, Saver, metric
from ckptvcs.train.watch import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ckptvcs.domain.policy import Save
    from ckptvcs.porcelain.commit import Receipt
    from ckptvcs.train.parts import Every
    from ckptvcs.train.resume import Resumed


class Checkpointer:
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
        self._saver = Saver(
            repo, run=run, branch=branch, track=track, asynchronous=asynchronous, params=params, data=data
        )
        policy = save_policy(self._saver.repo.config, policy)
        self._keeper = Keeper(self._parts, self._saver, policy, preempted=preempted)

    def __enter__(self) -> Checkpointer:
        self._keeper.preemption.install()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if kind is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
            self.close()
        else:
            self._keeper.fail(kind)

    # ---- saving

    def step(
        self,
        step: int,
        *,
        metrics: Mapping[str, Any] | None = None,
        epoch: float | None = None,
        samples: int | None = None,
    ) -> tuple[str, ...]:
        """Say that a step was made; saves if the policy says so. To be called when the state is whole: at the end of a step.

        Args:
            step: the optimizer step.
            metrics: numbers that say how good it is. One may be missing at most steps; NaN never counts as better.
            epoch: the epoch.
            samples: how many samples were seen.

        Returns:
            Why it was saved; empty if it was not.

        Raises:
            Preempted: the process is to end, and the state is durable.
            CkptvcsError: this save failed, or one before it did in the background.
        """
        self._keeper.refuse_if_closed("step")
        place = Place(
            step=_whole("step", step),
            epoch=None if epoch is None else unwrapped(epoch),
            samples=None if samples is None else _whole("samples", samples),
            metrics={name: metric(name, value) for name, value in (metrics or {}).items()},
        )
        return self._keeper.tell(place)

    def event(self, name: str) -> None:
        """Say that something happened that the policy may save for: `on_event: [NAME]`."""
        self._keeper.watch.event(name)

    def save(
        self,
        step: int,
        *,
        metrics: Mapping[str, Any] | None = None,
        epoch: float | None = None,
        message: str | None = None,
        reason: str = "manual",
    ) -> Receipt | None:
        """Commit the state as it is now, whatever the policy says.

        Args:
            step: the optimizer step.
            metrics: numbers that say how good it is; NaN is kept as a word and never ranks.
            epoch: the epoch.
            message: the commit message.
            reason: why it is saved.

        Returns:
            What was done; None if it is done in the background, where `wait_until_finished` tells.

        Raises:
            CkptvcsError: this save failed, or the one before it did in the background.
        """
        facts = Facts(
            step=_whole("step", step),
            metrics=metrics or {},
            epoch=None if epoch is None else unwrapped(epoch),
            message=message,
            reason=reason,
        )
        return self._keeper.save(facts)

    def ema(
        self, *, decay: float | None = None, last: int | None = None, every: Every = "step", **options: Any
    ) -> WeightAverage:
        """Keep a running average of the weights of `model`, as the part `ema`. To be called before `resume`.

        Args:
            decay: the share of the average that stays at each update.
            last: instead, over how many updates the equal mean goes.
            every: whether it is updated at each step, or, for an average of recent checkpoints, at each save.
            options: `start` and `buffers` of `WeightAverage`.

        Returns:
            The average: `with average.applied_to(model): evaluate(model)`.

        Raises:
            UsageError: not exactly one of `decay` and `last` is given, or there is no model.
        """
        average = WeightAverage(self._parts.model, decay=decay, last=last, **options)
        self._parts.add_average("ema", average, every)
        return average

    def note(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Attach metrics to a checkpoint of this run that are known only now; `@best` and retention use them.

        Written in the background, after the save under way; if it fails, the next call says so.

        Args:
            step: of the checkpoint.
            metrics: numbers by name.
        """
        self._saver.note(step, {name: metric(name, value) for name, value in metrics.items()})

    @property
    def last_saved(self) -> Receipt | None:
        """What the newest save that is known to be durable did."""
        return self._saver.receipt

    @property
    def last_durable_step(self) -> int | None:
        """The recovery point: the step that a crash right now would not lose; None if nothing was saved yet."""
        return None if self.last_saved is None else self.last_saved.manifest.step

    def wait_until_finished(self) -> Receipt | None:
        """Wait for the save under way.

        Returns:
            What the last save did, or None if there was none.

        Raises:
            CkptvcsError: it failed; nothing of it was committed.
        """
        return self._keeper.wait()

    def close(self) -> None:
        """Save the last step if the policy says so, wait for the save under way, and let go of everything.

        Raises:
            CkptvcsError: a save failed.
        """
        self._keeper.close()

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
        return self._keeper.resume(revision, strict=strict, components=components)

    def restore(self, step: int) -> Resumed:
        """Go back to a step of this run, after it diverged, say. The branch keeps what was saved since.

        Raises:
            NotFound: no checkpoint of the run has that step.
            IntegrityError, FormatError: as for `resume`.
        """
        self._saver.wait()
        checkpoint = require_checkpoint(self._saver.repo, f"{self._saver.branch}@step:{step}", self._saver.track)
        return self._keeper.put_back(checkpoint, strict=True, components=None)

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
        self._saver.wait()
        newest = resume.newest_of(self._saver)
        if newest is not None and newest.manifest.reason != resume.WARM_START:
            raise UsageError(
                f"cannot begin run '{self._saver.run}' with '{source}'",
                why="it has checkpoints already",
                next_step="go on with resume(), or give the run another name",
            )
        if ranks.rank() == 0:
            self._saver.save_now(incoming.from_path(Path(source)), Facts(step=None, reason=resume.WARM_START))
        tip = ranks.agreed(self._saver.receipt.id if self._saver.receipt else None)
        wanted = list(components) if components is not None else list(self._parts.by_name)
        started = require_checkpoint(self._saver.repo, tip, self._saver.track)
        return self._keeper.put_back(started, strict=strict, components=wanted)

    # ---- looking

    def latest_step(self) -> int | None:
        """The step of the newest checkpoint of the run; None if there is none."""
        return self._saver.step_at("latest")

    def best_step(self, metric: str | None = None) -> int | None:
        """The step of the best checkpoint of the run; by the metric that ckpt.yaml names, if none is given."""
        return self._saver.step_at(f"best:{metric}" if metric else "best")


def _whole(what: str, value: Any) -> int:
    """A whole number of any library as Python's.

    Raises:
        UsageError: it is none.
    """
    number = unwrapped(value)
    if isinstance(number, bool) or not isinstance(number, int):
        raise UsageError(f"{what} cannot be {value!r}", why="it is a whole number", next_step="pass an int")
    return number
