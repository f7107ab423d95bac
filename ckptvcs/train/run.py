"""`Run`: one training under way; what each way to train needs of it, whoever makes the steps.

Where several processes train together, all of them get here at the same calls.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, NoReturn

from ckptvcs.domain import provenance
from ckptvcs.errors import CkptvcsError, UsageError
from ckptvcs.train import ranks
from ckptvcs.train.preemption import Preempted, Preemption
from ckptvcs.train.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ckptvcs.domain.policy import Save
    from ckptvcs.porcelain.commit import Receipt
    from ckptvcs.train.saver import Saver

_log = logging.getLogger("ckptvcs")


class Run:
    """A training, the policy that says when it is saved, and what announces its end.

    Args:
        saver: commits its states.
        policy: when to save.
        preempted: asked at every step whether the process is to end soon.
    """

    def __init__(self, saver: Saver, policy: Save, *, preempted: Callable[[], bool] | None) -> None:
        self.saver = saver
        self._preempted = preempted
        self.follow(policy)

    def follow(self, policy: Save) -> None:
        """Save by this policy from here on."""
        self.policy = policy
        self.watch = Watch(policy)
        self.preemption = Preemption.of(policy, probe=self._preempted)

    # ---- whether to save

    def skips(self, step: int) -> bool:
        """Whether a step is not to be saved because of the save that is under way, as the policy has it; says so."""
        if self.policy.when_busy != "skip" or not self.saver.is_busy:
            return False
        _log.warning("step %s is not saved: the save before it is still under way", step)
        return True

    def agreed(self, reasons: tuple[str, ...]) -> tuple[tuple[str, int] | None, tuple[str, ...]]:
        """What all ranks do, from what each of them says: clocks and signals differ between processes.

        Args:
            reasons: why this one would save.

        Returns:
            What announced the end of any of them, with the exit status that it asks for; and why rank 0 saves.

        Raises:
            CkptvcsError: a save in the background has failed, on whichever rank. At the end it is only logged, because there
                is no other chance to save what came after it.
        """
        failure = self._failure()
        told = ranks.told_by_each((self.preemption.announced(), reasons, None if failure is None else str(failure)))
        ends, whys, failures = zip(*told, strict=True)
        end = next((end for end in ends if end is not None), None)
        if end is None:
            ranks.raise_first(failure, failures)
        elif failure is not None:
            _log.error("an earlier save had failed: %s", failure)
        return end, tuple(whys[0])

    def announced(self) -> tuple[str, int] | None:
        """What announced the end of any rank, with the exit status that it asks for; see `agreed`."""
        return self.agreed(())[0]

    def demand(self, grade: str, *, why: str, next_step: str) -> None:
        """Refuse a state from which training could not go on as well as the policy demands.

        Args:
            grade: that of the state.
            why: what makes it so.
            next_step: what would make it better.

        Raises:
            UsageError: it could not.
        """
        demanded = self.policy.grade
        if demanded is not None and provenance.lower_grade(demanded, grade) != demanded:
            raise UsageError(
                f"what is to be saved is resumable {grade}, and the policy demands {demanded}",
                why=why,
                next_step=f"{next_step}, or change 'save.grade' in ckpt.yaml",
            )

    # ---- what was saved

    @contextlib.contextmanager
    def failing(self) -> Iterator[None]:
        """Around what tells that a save has failed: what it was to keep is in no checkpoint, and the triggers know."""
        try:
            yield
        except BaseException:
            self.watch.failed()
            raise

    def wait(self) -> Receipt | None:
        """Wait for the save under way; see `Saver.wait`."""
        with self.failing():
            return self.saver.wait()

    def _failure(self) -> Exception | None:
        """What went wrong in the background, without waiting for what is still under way."""
        try:
            with self.failing():
                self.saver.raise_failure()
        except Exception as err:  # noqa: BLE001 - it is raised later
            return err
        return None

    def collect_failure(self) -> CkptvcsError | None:
        """What went wrong in the background, so that it is in the way of nothing that is still to be saved."""
        try:
            self.wait()
        except CkptvcsError as err:
            _log.error("an earlier save had failed: %s", err)
            return err
        return None

    # ---- the end

    def leave(self, why: str, status: int, note: str = "") -> NoReturn:
        """End the process, whose last state is durable.

        Args:
            why: what announced the end.
            status: the exit status.
            note: what that state lacks.

        Raises:
            Preempted: always.
        """
        self.preemption.remove()
        self.preemption.answered()
        receipt, late_s = self.saver.receipt, -self.preemption.left_s()
        _log.warning(
            "%s announced the end%s: step %s is saved%s, the process ends",
            why,
            note,
            None if receipt is None else receipt.manifest.step,
            f", {late_s:.0f} s after the grace period" if late_s > 0 else "",
        )
        raise Preempted(why, receipt, status)
