"""What every way to train tells its user of the run: the same words, whoever makes the steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from ckptvcs.porcelain.user_values import unwrapped
from ckptvcs.train.facts import Facts, metrics_of, whole
from ckptvcs.train.watch import Place

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ckptvcs.porcelain.commit import Receipt
    from ckptvcs.train.loop import Loop
    from ckptvcs.train.run import Run

Self = TypeVar("Self", bound="LoopFace")  # of `typing` from Python 3.11


class Face:
    """The run, as its user sees it."""

    _run: Run

    def event(self, name: str) -> None:
        """Say that something happened that the policy may save for: `on_event: [NAME]`."""
        self._run.watch.event(name)

    def note(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Attach metrics to a checkpoint of this run that are known only now; `@best`, log and show use them.

        Written in the background, after the save under way; if it fails, the next call says so.

        Args:
            step: of the checkpoint.
            metrics: numbers by name.
        """
        self._run.saver.note(step, metrics_of(metrics))

    def latest_step(self) -> int | None:
        """The step of the newest checkpoint of the run; None if there is none."""
        return self._run.saver.step_at("latest")

    def best_step(self, metric: str | None = None) -> int | None:
        """The step of the best checkpoint of the run; by the metric that ckpt.yaml names, if none is given."""
        return self._run.saver.step_at(f"best:{metric}" if metric else "best")

    @property
    def last_saved(self) -> Receipt | None:
        """What the newest save that is known to be durable did."""
        return self._run.saver.receipt

    @property
    def last_durable_step(self) -> int | None:
        """The recovery point: the step that a crash right now would not lose; None if there is none yet."""
        return self._run.saver.durable_step

    def wait_until_finished(self) -> Receipt | None:
        """Wait for the save under way.

        Returns:
            What the last save did, or None if there was none.

        Raises:
            CkptvcsError: it failed; nothing of it was committed.
        """
        return self._run.wait()


class LoopFace(Face):
    """The run of a loop that tells of its steps."""

    _run: Loop

    def __enter__(self: Self) -> Self:
        self._run.preemption.install()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._run.exit(kind, error)

    def step(
        self,
        step: int,
        *,
        metrics: Mapping[str, Any] | None = None,
        epoch: float | None = None,
        samples: int | None = None,
    ) -> tuple[str, ...]:
        """Say that a step was made; saves if the policy says so. To be called when the state is whole: at the end of a step.

        Where several processes train together, every one has to call it, and `save` and `close` as well.

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
        place = Place(
            step=whole("step", step),
            epoch=None if epoch is None else unwrapped(epoch),
            samples=None if samples is None else whole("samples", samples),
            metrics=metrics_of(metrics),
        )
        return self._run.tell(place)

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
            step=whole("step", step),
            metrics=metrics or {},
            epoch=None if epoch is None else unwrapped(epoch),
            message=message,
            reason=reason,
        )
        return self._run.save(facts)

    def close(self) -> None:
        """Save the last step if the policy says so, wait for the save under way, and let go of everything.

        Raises:
            CkptvcsError: a save failed.
        """
        self._run.close()
