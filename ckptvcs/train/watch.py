"""When to save: what the triggers of a policy say of the steps they are told, and what a save costs the training."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.domain import triggers
from ckptvcs.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ckptvcs.domain.calibration import Recorded
    from ckptvcs.domain.policy import Save

_log = logging.getLogger("ckptvcs")

_SMOOTHING: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the loop was when it told of a step."""

    step: int
    epoch: float | None = None
    samples: int | None = None
    metrics: Mapping[str, int | float | str] = field(default_factory=dict)
    saved: bool = False


class Watch:
    """The triggers of a policy, with the clock of this process.

    Args:
        save: the policy.
        clock: gives seconds that only grow.
    """

    def __init__(self, save: Save, clock: Callable[[], float] = time.monotonic) -> None:
        self._triggers = triggers.triggers_of(save)
        self._awaited = save.on_event
        self._clock = clock
        self._began = clock()
        self._events: set[str] = set()
        self._memory = triggers.Memory()
        self._before: triggers.Memory | None = None
        self._moment: triggers.Moment | None = None
        self._cost = Cost(clock)

    def event(self, name: str) -> None:
        """Take down that something happened since the last step."""
        if name not in self._awaited:
            _log.debug("nothing is saved for event '%s': the policy has it not under 'on_event'", name)
        self._events.add(name)

    def look(
        self, step: int, *, epoch: float | None, metrics: Mapping[str, int | float | str], busy: bool
    ) -> tuple[str, ...]:
        """Say why the state should be saved now; empty if it should not.

        It may be asked more than once about one step, each time with what was measured since.

        Args:
            step: the optimizer step that was made.
            epoch: the epoch.
            metrics: as they are now.
            busy: whether a save is under way.
        """
        again = self._moment is not None and self._moment.step == step
        self._moment = triggers.Moment(
            step=step,
            time_s=self._clock() - self._began,
            epoch=epoch,
            metrics=metrics,
            events=frozenset(self._events),
            save_cost_s=None if again else self._cost.tick(busy=busy),
        )
        self._events.clear()
        self._memory, reasons = triggers.look(self._triggers, self._memory, self._moment)
        return reasons

    def saving(self) -> None:
        """Take down that the state of the last step is about to be saved."""
        self._before = self._memory
        if self._moment is not None:
            self._memory = triggers.saved(self._memory, self._moment, None)

    def failed(self) -> None:
        """Take down that the save has failed: what it was to keep is in no checkpoint."""
        if self._before is not None:
            self._memory, self._before = triggers.not_saved(self._memory, self._before), None

    def saved(self, blocked_s: float) -> None:
        """Take down how long the training stood still for it."""
        self._cost.began(blocked_s)

    def remembered(self) -> dict[str, Any]:
        """All that the triggers remember, as plain values for a checkpoint."""
        return self._memory.to_plain()

    def remembered_in_save(self) -> dict[str, Any]:
        """The same as it will be when the state of the last step is saved: for who writes it down before that is certain."""
        if self._moment is None:
            return self.remembered()
        return triggers.saved(self._memory, self._moment, None).to_plain()

    def go_on(self, remembered: Any, *, past: Recorded | None) -> None:
        """Go on with what the triggers remembered when a checkpoint was saved.

        Args:
            remembered: from `remembered`; if it cannot be read, best values and counts begin anew, and a note says so.
            past: what the ledger recorded of this run; None for a run that only begins where another one was.
        """
        try:
            memory = triggers.Memory.from_plain(remembered)
        except FormatError as err:
            _log.warning("%s: %s", err, err.next_step)
            return
        self._began, self._moment, self._before = self._clock(), None, None  # those were on another clock
        if past is None:
            self._memory = triggers.resumed(memory, failures=memory.failures)
        else:
            self._memory = triggers.resumed(memory, failures=past.failures, uptime_s=past.uptime_s)


class Cost:
    """What a save costs the training: how long it stands still, and how much slower its steps are meanwhile."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last: float | None = None
        self._idle_step_s: float | None = None
        self._running: float | None = None

    def began(self, blocked_s: float) -> None:
        """A save began, and training stood still for `blocked_s`."""
        self._running = blocked_s
        self._last = self._clock()  # the time until here is no step's

    def tick(self, *, busy: bool) -> float | None:
        """Take down that a step was made; returns the cost in seconds of a save that has ended by now."""
        now = self._clock()
        step_s, self._last = (None if self._last is None else now - self._last), now
        if self._running is not None:
            if step_s is not None and self._idle_step_s is not None:
                self._running += max(0.0, step_s - self._idle_step_s)
            if busy:
                return None
            cost_s, self._running = self._running, None
            return cost_s
        if step_s is not None:
            idle_s = self._idle_step_s
            self._idle_step_s = step_s if idle_s is None else idle_s + _SMOOTHING * (step_s - idle_s)
        return None
