"""`interval: auto`: saves as often as their measured cost and the time between failures make best.

It estimates two numbers and leaves the rest to `cost`: what a save takes from training, and how long the machine runs
between failures. Both follow what is observed, so a run that moves to other hardware finds its interval again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ckptvcs.domain.cost import best_interval_s
from ckptvcs.domain.failures import believed_mtbf_s
from ckptvcs.domain.moments import Memory, Moment, finite, replaced

FIRST_S: Final = 60.0
"""When the first save is taken, to learn its cost; also, a loop that cannot save should say so within a minute."""

UNKNOWN_S: Final = 600.0
"""The interval for as long as nobody says what saves cost."""

_LEAST_COST_S: Final = 1e-3
"""Nothing is free; without this a save that costs nothing would be taken at every step."""

_WEIGHT: Final = 0.25
"""Of the newest measurement in the smoothed cost: one slow save moves the interval by an eighth of its excess at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoInterval:
    """Fires when the best interval has passed since the last save, whatever that was for."""

    overhead: float
    mtbf_s: float | None = None
    """Mean seconds between failures, where it is stated."""

    def look(self, memory: Memory, moment: Moment) -> tuple[Memory, tuple[str, ...]]:
        if moment.save_cost_s != memory.newest_cost_s:  # else it is the same measurement, which every step tells again
            memory = with_cost(memory, moment.save_cost_s)
        waited_s = moment.time_s - memory.saved_s
        if memory.cost_s is None:
            due, why = (
                (UNKNOWN_S, "what it costs is not known yet") if memory.saves else (FIRST_S, "to see what it costs")
            )
        else:
            due = self.interval_s(memory, moment) + memory.cost_s  # from begin to begin, as `waited_s` counts
            why = f"{due:.0f} s, because a save costs {memory.cost_s:.3g} s"
        return memory, (f"interval: {why}",) if waited_s >= due else ()

    def interval_s(self, memory: Memory, moment: Moment) -> float:
        """Seconds of work between the end of a save and the begin of the next, as far as is known now."""
        cost_s = max(memory.cost_s or 0.0, _LEAST_COST_S)
        return best_interval_s(cost_s, self.mtbf_s or observed_mtbf_s(memory, moment.time_s), self.overhead)


def observed_mtbf_s(memory: Memory, now_s: float) -> float:
    """Mean seconds between failures, as far as this run observed them."""
    return believed_mtbf_s(memory.uptime_s + max(0.0, now_s - memory.started_s), memory.failures)


def with_cost(memory: Memory, cost_s: float | None) -> Memory:
    """The memory with one more measurement of what a save takes from training; what cannot be one is passed over."""
    measured = finite(cost_s)
    if measured is None or measured < 0:
        return memory
    known = memory.cost_s
    smoothed = measured if known is None else known + _WEIGHT * (measured - known)
    return replaced(memory, cost_s=smoothed, newest_cost_s=measured)
