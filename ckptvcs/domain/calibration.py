"""What was recorded of saves and failures, and the interval that follows from it. Pure: events and times in, a proposal out.

Runs that were preempted saved in time and lost nothing, so a preemption is no failure here. A run that was started again
without having ended was broken off, which is one.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Literal

from ckptvcs.domain.cost import (
    best_interval_s,
    daly_interval_s,
    fraction_lost,
    interval_within_budget_s,
    young_interval_s,
)
from ckptvcs.domain.failures import believed_mtbf_s, mtbf_bounds_s
from ckptvcs.domain.moments import finite

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ckptvcs.domain.events import Event

OPS: Final = ("run.start", "save", "run.end")
"""The kinds of events that say something about saves and failures."""

Ending = Literal["closed", "exception", "preempted", "broken-off", "unknown"]
_ENDINGS: Final[dict[str, Ending]] = {"closed": "closed", "exception": "exception", "preempted": "preempted"}

_FAILURES: Final = ("exception", "broken-off")

_BREAK: Final = 4.0
"""Where only checkpoints tell of a run, a pause of so many times the usual one is a failure and a new start."""

_TRUSTED: Final = 3
"""With fewer failures the time between them is better observed further than stated."""


@dataclass(slots=True, kw_only=True)
class Life:
    """One process of a run, from its start to its end."""

    run: str
    uptime_s: float = 0.0
    """Until its end, else until the last that was heard of it."""
    how: Ending = "unknown"


@dataclass(slots=True, kw_only=True)
class Recorded:
    """What is known of past training. All lists are in the order of time."""

    costs_s: list[float] = field(default_factory=list)
    """Seconds that each save took from training."""
    durations_s: list[float] = field(default_factory=list)
    """Seconds until each save was durable."""
    gaps_s: list[float] = field(default_factory=list)
    """Seconds between two saves of one process."""
    lives: list[Life] = field(default_factory=list)

    @property
    def runs(self) -> int:
        """How many runs there were, however often each was started."""
        return len({life.run for life in self.lives})

    @property
    def failures(self) -> int:
        """How often training was broken off and had to go back to a save."""
        return sum(life.how in _FAILURES for life in self.lives)

    @property
    def uptime_s(self) -> float:
        """Seconds of training. A run that was broken off went on after its last save, by half a gap on average."""
        half_s = statistics.median(self.gaps_s) / 2 if self.gaps_s else 0.0
        return sum(life.uptime_s + (half_s if life.how == "broken-off" else 0.0) for life in self.lives)


# ------------------------------------------------------------------------------------------------------- from the ledger


@dataclass(slots=True, kw_only=True)
class _Open:
    """A life whose end was not seen yet."""

    life: Life
    run_id: str
    branch: str
    began: datetime
    parents: frozenset[str] = frozenset()
    saved: datetime | None = None


def of_events(events: Iterable[Event], *, run: str | None = None) -> Recorded:
    """What the ledger recorded.

    Args:
        events: entries, oldest first; what they say is not trusted to make sense.
        run: only the runs of this name; None for all.
    """
    found, opened = Recorded(), list[_Open]()
    for event in events:
        facts, at = event.facts, _time_of(event)
        if at is None:
            continue
        if event.op == "run.start":
            opened = _started(found, opened, facts, at, only=run)
            continue
        mine = next((o for o in reversed(opened) if o.run_id == facts.get("run_id")), None)
        if event.op == "save" and (mine is not None or run is None):
            _saved(found, mine, facts, at)
        elif event.op == "run.end" and mine is not None:
            mine.life.uptime_s = _seconds(facts, "seconds", default=_since(mine.began, at))
            mine.life.how = _ENDINGS.get(str(facts.get("how")), "unknown")
            opened.remove(mine)
    return found


def _time_of(event: Event) -> datetime | None:
    try:
        return datetime.fromisoformat(event.time)
    except ValueError:  # it is of the right form, and there is no such day
        return None


def _started(
    found: Recorded, opened: list[_Open], facts: Mapping[str, Any], at: datetime, *, only: str | None
) -> list[_Open]:
    """The lives that are open after a start: one of the same run that was still open was broken off.

    One that tells of more that it went on from than before is the same process, which goes on.
    """
    name, run_id, branch = (str(facts.get(key, "")) for key in ("run", "run_id", "branch"))
    if only is not None and name != only:
        return opened
    parents = _parents(facts)
    same = next((o for o in opened if o.run_id == run_id and o.parents < parents), None)
    if same is not None and (same.saved is None or (same.life.run, same.branch) == (name, branch)):
        same.life.run, same.branch, same.parents = name, branch, parents
        return opened
    still = []
    for other in opened:
        if other.run_id == run_id or (other.life.run, other.branch) == (name, branch):
            other.life.how = "broken-off"
        else:
            still.append(other)
    life = Life(run=name)
    found.lives.append(life)
    return [*still, _Open(life=life, run_id=run_id, branch=branch, began=at, parents=parents)]


def _parents(facts: Mapping[str, Any]) -> frozenset[str]:
    value = facts.get("parents")
    return frozenset(map(str, value)) if isinstance(value, list) else frozenset()


def _saved(found: Recorded, mine: _Open | None, facts: Mapping[str, Any], at: datetime) -> None:
    duration_s = _seconds(facts, "seconds")
    cost_s = _seconds(facts, "blocked_s", default=duration_s)
    if not math.isnan(duration_s):
        found.durations_s.append(duration_s)
    if not math.isnan(cost_s):
        found.costs_s.append(cost_s)
    if mine is not None:
        mine.life.uptime_s = _since(mine.began, at)
        if mine.saved is not None:
            found.gaps_s.append(_since(mine.saved, at))
        mine.saved = at


def _seconds(facts: Mapping[str, Any], key: str, *, default: float = math.nan) -> float:
    value = finite(facts.get(key))
    return default if value is None or value < 0 else value


def _since(before: datetime, now: datetime) -> float:
    return max(0.0, (now - before).total_seconds())


# --------------------------------------------------------------------------------------------------- from checkpoints


def of_checkpoints(times: Mapping[str, Sequence[float]]) -> Recorded:
    """What the times of checkpoints tell, where no ledger recorded more: no costs, and failures only as long pauses.

    Args:
        times: run -> when its checkpoints were made, in seconds since any moment.
    """
    found = Recorded()
    for run, made in times.items():
        gaps = [after - before for before, after in pairwise(sorted(made))]
        longest = _BREAK * statistics.median(gaps) if gaps else 0.0
        life = Life(run=run)
        found.lives.append(life)
        for gap in gaps:
            if gap > longest:
                life.how = "broken-off"
                life = Life(run=run)
                found.lives.append(life)
            else:
                life.uptime_s += gap
                found.gaps_s.append(gap)
    return found


# ------------------------------------------------------------------------------------------------------------- proposal


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """The interval that follows from what was recorded, and the numbers behind it. None is what nothing was recorded of."""

    saves: int
    """Saves with a known cost."""
    runs: int
    starts: int
    failures: int
    preemptions: int
    uptime_s: float
    cost_median_s: float | None
    """Seconds that a save takes from training."""
    cost_p90_s: float | None
    duration_median_s: float | None
    """Seconds until a save is durable."""
    duration_p90_s: float | None
    mtbf_s: float
    """Mean seconds between failures that is reckoned with."""
    mtbf_low_s: float
    """It is at least that, with 95 % confidence."""
    mtbf_high_s: float | None
    """It is at most that, with 95 % confidence."""
    overhead: float
    """The part of the work that saves may cost."""
    young_s: float | None
    daly_s: float | None
    budget_s: float | None
    """The shortest interval within the overhead."""
    interval_s: float | None
    """The proposal: seconds of work between two saves."""
    lost: float | None
    """The part of the time that is then lost to saves and to work done again."""
    now_s: float | None
    """The median seconds between two saves until now."""
    lost_now: float | None

    @property
    def states_mtbf(self) -> bool:
        """Whether failures were frequent enough to state the time between them."""
        return self.failures >= _TRUSTED


def proposal(recorded: Recorded, *, overhead: float) -> Proposal:
    """Reckon the interval.

    Args:
        recorded: what is known of past training.
        overhead: the part of the work that saves may cost; more than 0.
    """
    cost_s, costs_p90 = _median_and_p90(recorded.costs_s)
    duration_s, durations_p90 = _median_and_p90(recorded.durations_s)
    mtbf_s = _mtbf_s(recorded)
    low_s, high_s = mtbf_bounds_s(recorded.uptime_s, recorded.failures)
    now_s = statistics.median(recorded.gaps_s) if recorded.gaps_s else None
    # One save at a time: the next cannot begin before the last is durable.
    best_s = None if cost_s is None else max(best_interval_s(cost_s, mtbf_s, overhead), durations_p90 or 0.0)
    return Proposal(
        saves=len(recorded.costs_s),
        runs=recorded.runs,
        starts=len(recorded.lives),
        failures=recorded.failures,
        preemptions=sum(life.how == "preempted" for life in recorded.lives),
        uptime_s=recorded.uptime_s,
        cost_median_s=cost_s,
        cost_p90_s=costs_p90,
        duration_median_s=duration_s,
        duration_p90_s=durations_p90,
        mtbf_s=mtbf_s,
        mtbf_low_s=low_s,
        mtbf_high_s=high_s,
        overhead=overhead,
        young_s=None if cost_s is None else young_interval_s(cost_s, mtbf_s),
        daly_s=None if cost_s is None else daly_interval_s(cost_s, mtbf_s),
        budget_s=None if cost_s is None else interval_within_budget_s(cost_s, overhead),
        interval_s=best_s,
        lost=_lost(best_s, cost_s, mtbf_s),
        now_s=now_s,
        lost_now=_lost(None if now_s is None or cost_s is None else now_s - cost_s, cost_s, mtbf_s),
    )


def _mtbf_s(recorded: Recorded) -> float:
    """The observed mean where there is one to trust."""
    if recorded.failures >= _TRUSTED and recorded.uptime_s > 0:
        return recorded.uptime_s / recorded.failures
    return believed_mtbf_s(recorded.uptime_s, recorded.failures)


def _lost(interval_s: float | None, cost_s: float | None, mtbf_s: float) -> float | None:
    return None if cost_s is None or not interval_s or interval_s <= 0 else fraction_lost(interval_s, cost_s, mtbf_s)


def _median_and_p90(values: Sequence[float]) -> tuple[float | None, float | None]:
    """The median, and what nine of ten are not above (the nearest rank)."""
    if not values:
        return None, None
    return statistics.median(values), sorted(values)[math.ceil(0.9 * len(values)) - 1]
