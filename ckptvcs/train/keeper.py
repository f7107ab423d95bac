"""What keeps the state of a training loop: when a step is told, at the end of the loop, and when it goes on.

`Checkpointer` is its face. Where several processes train together, all of them get here at the same calls, and none waits
for another one that has failed: what goes wrong on one rank is raised on all.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ckptvcs.domain import provenance
from ckptvcs.errors import CkptvcsError, UsageError
from ckptvcs.train import ranks, resume
from ckptvcs.train.parts import LOOP
from ckptvcs.train.preemption import Preempted, Preemption, within_grace
from ckptvcs.train.saver import Facts
from ckptvcs.train.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ckptvcs.domain.calibration import Recorded
    from ckptvcs.domain.checkpoint import Checkpoint
    from ckptvcs.domain.policy import Save
    from ckptvcs.porcelain.commit import Receipt
    from ckptvcs.train.parts import Parts
    from ckptvcs.train.resume import Resumed
    from ckptvcs.train.saver import Saver
    from ckptvcs.train.watch import Place

_log = logging.getLogger("ckptvcs")


@contextlib.contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Keep Python's garbage collector from running while training waits.

    Describing a state makes many small objects, which sets it off; over all objects of a program with torch it takes longer
    than the copy of the state does.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class Keeper:
    """Saves parts as a policy says.

    Args:
        parts: the parts of the training.
        saver: commits what is saved.
        policy: when to save.
        preempted: asked at every step whether the process is to end soon.
    """

    def __init__(self, parts: Parts, saver: Saver, policy: Save, *, preempted: Callable[[], bool] | None) -> None:
        parts.check_grade(policy.grade)
        self.parts, self.saver, self.policy = parts, saver, policy
        self.watch = Watch(policy)
        self.preemption = Preemption.of(policy, probe=preempted)
        self.closed = False
        self._place: Place | None = None

    # ---- saving

    def tell(self, place: Place) -> tuple[str, ...]:
        """Take down that a step was made, and save its state if there is a reason; returns the reasons."""
        self.preemption.install()
        self.parts.update_averages("step")
        self._place = place
        busy = self.saver.is_busy
        reasons = self.watch.look(place.step, epoch=place.epoch, metrics=place.metrics, busy=busy)
        told = ranks.told_by_each((self.preemption.announced(), reasons if not reasons or not self._skips() else ()))
        if (end := next((end for end, _ in told if end is not None), None)) is not None:
            self._save_and_leave(*end)  # before failures of the background are raised: there may be no other chance
        self._raise_failure(self.saver.raise_failure)
        reasons = tuple(told[0][1])
        if reasons:
            self._save_place("; ".join(reasons))
        return reasons

    def _skips(self) -> bool:
        if self.policy.when_busy != "skip" or not self.saver.is_busy or self._place is None:
            return False
        _log.warning("step %s is not saved: the save before it is still under way", self._place.step)
        return True

    def save(self, facts: Facts, parts: Mapping[str, Any] | None = None) -> Receipt | None:
        """Commit the states of some parts, of all if they are not named."""
        self.refuse_if_closed("save")
        began = time.perf_counter()
        self.wait()
        self.watch.saving()
        self.parts.update_averages("save")
        with _collector_at_rest():
            states = self.parts.states(self.parts.by_name if parts is None else parts)
            if self._place is not None:
                states[LOOP] = {"samples": self._place.samples, "triggers": self.watch.remembered()}
            if ranks.rank() != 0:
                return None
            receipt = self._raise_failure(lambda: self.saver.save(self.parts.incoming(states), facts))
        self.watch.saved(time.perf_counter() - began)  # the wait for the save before is a cost, too
        return receipt

    def wait(self) -> Receipt | None:
        """Wait for the save under way."""
        return self._raise_failure(self.saver.wait)

    def _raise_failure(self, action: Callable[[], Receipt | None]) -> Receipt | None:
        """Do something that tells of saves that failed: what they were to keep is in no checkpoint."""
        try:
            return action()
        except CkptvcsError:
            self.watch.failed()
            raise

    def _save_place(
        self, reason: str, parts: Mapping[str, Any] | None = None, *, grade_at_most: str | None = None
    ) -> None:
        """Save the state of the last step, unless that was done."""
        place = self._place
        if place is None or place.saved:
            return
        facts = Facts(
            step=place.step, metrics=place.metrics, epoch=place.epoch, reason=reason, grade_at_most=grade_at_most
        )
        self.save(facts, parts)
        self._place = replace(place, saved=True)

    def _save_and_leave(self, why: str, status: int) -> None:
        """Save within the grace period, and end the process; no rank ends before the state is durable."""
        left_s = self.preemption.left_s() - self.saver.remaining_s()
        parts, shortage = within_grace(self.parts, self.saver.last, left_s)
        if shortage:
            _log.warning("%s announced the end%s", why, shortage)
        earlier = self._collect_failure()

        def save() -> Receipt | None:
            self._save_place(f"on_preemption: {why}{shortage}", parts)
            return self.saver.wait()

        receipt = ranks.together(save)
        self.preemption.remove()
        if earlier is not None:
            _log.error("an earlier save had failed: %s", earlier)
        _log.warning("%s announced the end: the last step is saved, the process ends", why)
        raise Preempted(why, receipt, status)

    def _collect_failure(self) -> CkptvcsError | None:
        """What went wrong in the background, so that it is in the way of nothing that is still to be saved."""
        try:
            self.wait()
        except CkptvcsError as err:
            return err
        return None

    def refuse_if_closed(self, doing: str) -> None:
        """Raise `UsageError` if the training was closed."""
        if self.closed:
            raise UsageError(f"cannot {doing}", why="this Checkpointer is closed", next_step=f"{doing} before 'close'")

    # ---- the end

    def close(self) -> None:
        """End the loop as it was meant to end.

        Raises:
            CkptvcsError: a save failed.
        """
        if self.closed:
            return
        try:
            failure = self._collect_failure()
            if self.policy.on_exit:
                self._save_place("on_exit")
            if failure is not None:
                raise failure
        finally:
            self._close("closed")
        self.preemption.pass_on()

    def fail(self, kind: type[BaseException]) -> None:
        """End the loop because of an exception; what else goes wrong is logged, because that one is to be raised."""
        try:
            if self.policy.on_exception and not issubclass(kind, Preempted):
                self._save_in_the_middle(kind)
        except Exception:  # noqa: BLE001 - it is logged
            _log.exception("the state could not be saved after %s", kind.__name__)
        finally:
            try:
                self._close("preempted" if issubclass(kind, Preempted) else "exception")
            except Exception:  # noqa: BLE001 - it is logged
                _log.exception("a save in the background failed")

    def _save_in_the_middle(self, kind: type[BaseException]) -> None:
        if ranks.size() > 1:
            _log.warning("nothing is saved after %s: the other ranks know nothing of it", kind.__name__)
            return
        failure = self._collect_failure()
        if failure is not None:
            _log.error("a save in the background failed: %s", failure)
        self._save_place(f"on_exception: {kind.__name__}", grade_at_most=provenance.APPROXIMATE)

    def _close(self, how: str) -> None:
        if self.closed:
            return
        self.closed = True
        try:
            self.preemption.remove()
            self.saver.end(how, None if self._place is None else self._place.step)
        finally:
            self.saver.close()

    # ---- going on

    def resume(self, revision: str | None, *, strict: bool, components: Sequence[str] | None) -> Resumed | None:
        """Go on from a checkpoint; see `Checkpointer.resume`."""
        self.wait()
        needed = list(self.parts.by_name if components is None else components) if strict else []
        find = resume.find_whole if strict else resume.find
        found = ranks.together(lambda: find(self.saver, revision, needed))
        chosen = ranks.agreed(found.checkpoint.id if found is not None else None)
        if (found.checkpoint.id if found is not None else None) != chosen:  # of this rank, objects may be missing
            found = ranks.together(lambda: resume.find(self.saver, chosen, needed) if chosen else None)
        if found is None:
            return None
        past = self.saver.past() if revision is None else None
        if revision is not None:
            resume.fork_if_needed(self.saver, found.checkpoint)
        same_run = revision is None
        return self.put_back(
            found.checkpoint, found.skipped, strict=strict, components=components, past=past, same_run=same_run
        )

    def put_back(
        self,
        checkpoint: Checkpoint,
        skipped: tuple[str, ...] = (),
        *,
        strict: bool,
        components: Sequence[str] | None,
        past: Recorded | None = None,
        same_run: bool = False,
    ) -> Resumed:
        """Give every part its state from a checkpoint."""
        mine, wanted = self.parts.by_name, self.parts.wanted(components)
        states, left = resume.put_back(self.saver, checkpoint, mine, wanted, strict=strict, same_run=same_run)
        loop = states.get(LOOP) or {}
        if "triggers" in loop:
            self.watch.go_on(loop["triggers"], past=past)
        left = resume.restore_generators(states, left)
        self._place = None  # what was told before is no longer the state
        return resume.resumed(self.saver, checkpoint, samples=loop.get("samples"), skipped=skipped, left=left)
