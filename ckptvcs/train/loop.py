"""`Loop`: saves the state of a training loop that tells of its steps, whoever writes that state."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from ckptvcs.domain import provenance
from ckptvcs.errors import UsageError
from ckptvcs.train import ranks
from ckptvcs.train.facts import Facts
from ckptvcs.train.preemption import Preempted
from ckptvcs.train.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ckptvcs.domain.policy import Save
    from ckptvcs.porcelain.commit import Receipt
    from ckptvcs.train.saver import Saver
    from ckptvcs.train.watch import Place

_log = logging.getLogger("ckptvcs")


class Loop(Run, ABC):
    """Saves what `write` writes, as a policy says.

    Args:
        saver: commits what is saved.
        policy: when to save.
        preempted: asked at every step whether the process is to end soon.
    """

    def __init__(self, saver: Saver, policy: Save, *, preempted: Callable[[], bool] | None) -> None:
        super().__init__(saver, policy, preempted=preempted)
        self._place: Place | None = None
        self._closed = False

    @abstractmethod
    def write(self, facts: Facts, place: Place | None, parts: Mapping[str, Any] | None) -> Receipt | None:
        """Commit the state as it is now.

        Args:
            facts: what is said of it.
            place: the last step that was told.
            parts: from `within_grace`; None for all of it.

        Returns:
            What was done; None if it is done in the background, or by another rank.
        """

    def within_grace(self) -> tuple[Mapping[str, Any] | None, str]:
        """What can be saved in the time that is left, None for all of it; and what to say about it."""
        return None, ""

    # ---- saving

    def tell(self, place: Place) -> tuple[str, ...]:
        """Take down that a step was made, and save its state if there is a reason; returns the reasons."""
        self.refuse_if_closed("step")
        self.preemption.install()
        self._place = place
        said = self.watch.look(place.step, epoch=place.epoch, metrics=place.metrics, busy=self.saver.is_busy)
        end, reasons = self.agreed(() if said and self.skips(place.step) else said)
        if end is not None:
            self._save_and_leave(reasons, *end)
        if reasons:
            self._save_place("; ".join(reasons))
        return reasons

    def save(self, facts: Facts, parts: Mapping[str, Any] | None = None) -> Receipt | None:
        """Commit the state as it is now; see `write`."""
        self.refuse_if_closed("save")
        began = time.perf_counter()
        ranks.together(self.wait)
        self.watch.saving()
        with self.failing():
            receipt = ranks.together(lambda: self.write(facts, self._place, parts))
        self.watch.saved(time.perf_counter() - began)  # the wait for the save before is a cost, too
        if self._place is not None and self._place.step == facts.step:
            self._place = replace(self._place, saved=True)
        return receipt

    def _save_place(
        self, reason: str, parts: Mapping[str, Any] | None = None, *, grade_at_most: str | None = None
    ) -> None:
        """Save the state of the last step, unless that was done."""
        place = self._place
        if place is not None and not place.saved:
            facts = Facts(
                step=place.step, metrics=place.metrics, epoch=place.epoch, reason=reason, grade_at_most=grade_at_most
            )
            self.save(facts, parts)

    def _save_and_leave(self, reasons: tuple[str, ...], why: str, status: int) -> NoReturn:
        """Save within the grace period, and end the process; no rank ends before the state is durable."""
        parts, shortage = self.within_grace()
        self.collect_failure()

        def save() -> None:
            self._save_place("; ".join((*reasons, f"on_preemption: {why}{shortage}")), parts)
            self.saver.wait()

        ranks.together(save)
        self.leave(why, status, shortage)

    def refuse_if_closed(self, doing: str) -> None:
        """Raise `UsageError` if the training was closed."""
        if self._closed:
            raise UsageError(f"cannot {doing}", why="this run is closed", next_step=f"{doing} before 'close'")

    # ---- the end

    def exit(self, kind: type[BaseException] | None, error: BaseException | None) -> None:
        """End the loop at the end of its `with` block."""
        if kind is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
            self.close()
        else:
            self._fail(kind)

    def close(self) -> None:
        """End the loop as it was meant to end.

        Raises:
            CkptvcsError: a save failed.
        """
        if self._closed:
            return
        try:
            failure = self.collect_failure()
            may_be_told = self.policy.on_preemption is not None or self._preempted is not None
            end = self.announced() if may_be_told else None  # after the last step, which has not answered it
            if end is not None or self.policy.on_exit:
                self._save_place(f"on_preemption: {end[0]}" if end is not None else "on_exit")
            if failure is not None:
                raise failure
        finally:
            self._close("closed")
        self.preemption.pass_on()

    def _fail(self, kind: type[BaseException]) -> None:
        """End the loop because of an exception; what else goes wrong is logged, because that one is to be raised."""
        preempted = issubclass(kind, Preempted)
        try:
            if self.policy.on_exception and not preempted:
                self._save_in_the_middle(kind)
        except Exception:  # noqa: BLE001 - it is logged
            _log.exception("the state could not be saved after %s", kind.__name__)
        try:
            self._close("preempted" if preempted else "exception")
        except Exception:  # noqa: BLE001 - it is logged
            _log.exception("a save in the background failed")

    def _save_in_the_middle(self, kind: type[BaseException]) -> None:
        if ranks.size() > 1:
            _log.warning("nothing is saved after %s: the other ranks know nothing of it", kind.__name__)
            return
        self.collect_failure()
        self._save_place(f"on_exception: {kind.__name__}", grade_at_most=provenance.APPROXIMATE)
        if self._place is not None:
            _log.warning("step %s is saved as it was at the %s, to be looked at", self._place.step, kind.__name__)

    def _close(self, how: str) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            self.preemption.remove()
            self.saver.end(how, None if self._place is None else self._place.step)
        finally:
            self.let_go()

    def let_go(self) -> None:
        """Wait for what is under way, and let go of everything.

        Raises:
            CkptvcsError: it failed.
        """
        self.saver.close()

    # ---- going on

    def forget_step(self) -> None:
        """Take down that the state is not that of the last step any more."""
        self._place = None
