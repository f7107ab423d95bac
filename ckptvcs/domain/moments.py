"""What a training loop tells at one step, and what is remembered of it from one step to the next."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from ckptvcs.domain.provenance import Entry
from ckptvcs.errors import FormatError
from ckptvcs.paths import printable

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One step of a training loop."""

    step: int
    time_s: float
    """Seconds since this process began the run, of a clock that never goes back."""
    epoch: int | float | None = None
    metrics: Mapping[str, float | str] = field(default_factory=dict)
    """What was measured at this step; what is no finite number never ranks."""
    events: frozenset[str] = frozenset()
    """What the loop told of since the last moment."""
    save_cost_s: float | None = None
    """Seconds that the newest finished save took from training, where it is known."""

    def value(self, metric: str) -> float | None:
        """The value of a metric, if it is a finite number."""
        return finite(self.metrics.get(metric))

    @property
    def whole_epochs(self) -> int | None:
        """The epochs that are completed, where an epoch was told."""
        epoch = finite(self.epoch)
        return None if epoch is None else math.floor(epoch + 1e-9)  # 1e-9: for those who add up parts of epochs


def finite(value: object) -> float | None:
    """A number as a float; None for everything else: NaN, infinities, words."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


class SavedBest(Entry, frozen=True):
    """The best value of a metric that is in a checkpoint, and the step of that checkpoint."""

    value: float
    step: int


class Stretch(Entry, frozen=True):
    """How long a metric has not been better: the best value, observations since then, whether that was told already."""

    best: float
    count: int = 0
    told: bool = False


class Memory(Entry, frozen=True):
    """All that triggers remember. A value: whoever has the same memory decides the same. It is saved in checkpoints.

    Times are on the clock of the moments. `triggers.resumed` moves them to the clock of the next process.
    """

    version: int = 1
    time_s: float = 0.0
    """Of the newest moment."""
    step: int | None = None
    """Of the newest moment."""
    epochs: int | None = None
    """Completed epochs at the newest moment that told one."""
    saved_s: float = 0.0
    """When the last save was; before the first one, the beginning."""
    saves: int = 0
    owed: tuple[str, ...] = ()
    """Reasons that come once, and stay until a save has been taken for them."""
    bests: dict[str, SavedBest] = msgspec.field(default_factory=dict)
    """By mode and metric: what `on_improvement` compares with."""
    offers: dict[str, float] = msgspec.field(default_factory=dict)
    """Values of the newest moment that would become `bests` by a save."""
    stretches: dict[str, Stretch] = msgspec.field(default_factory=dict)
    """By mode and metric: what `on_plateau` counts."""
    cost_s: float | None = None
    """Smoothed estimate of the seconds that a save takes from training."""
    newest_cost_s: float | None = None
    """The newest measurement in it."""
    failures: int = 0
    """How often the run was broken off by a failure."""
    uptime_s: float = 0.0
    """Seconds that the run was up in earlier processes."""
    started_s: float = 0.0
    """When this process began."""

    def __post_init__(self) -> None:
        if self.version != 1:
            raise ValueError(f"its version is {self.version}")
        numbers_ = [self.time_s, self.saved_s, self.uptime_s, self.started_s, self.cost_s or 0.0]
        numbers_ += [self.newest_cost_s or 0.0, *self.offers.values()]
        numbers_ += [best.value for best in self.bests.values()] + [s.best for s in self.stretches.values()]
        if not all(map(math.isfinite, numbers_)):
            raise ValueError("a number in it is not finite")
        counts = (self.cost_s or 0.0, self.newest_cost_s or 0.0, self.uptime_s, self.failures, self.saves)
        if min(counts) < 0:
            raise ValueError("a count, a cost or a duration in it is negative")

    def to_plain(self) -> dict[str, Any]:
        """The memory as values that JSON has; `from_plain` gives it back."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return {**plain, "owed": list(self.owed)}

    @classmethod
    def from_plain(cls, plain: Any) -> Memory:
        """Read what `to_plain` wrote.

        Args:
            plain: what it wrote; None, of a checkpoint that has no such thing, is an empty memory.

        Raises:
            FormatError: it is something else.
        """
        if plain is None:
            return cls()
        try:
            return msgspec.convert(plain, cls, strict=True)
        except (ValueError, TypeError, OverflowError, RecursionError) as err:  # msgspec's errors are ValueErrors
            raise FormatError(
                "cannot read what the triggers of a checkpoint remember",
                why=printable(str(err))[:200],
                next_step="begin with an empty memory; best values and counts start anew then",
            ) from err


def replaced(memory: Memory, **changes: Any) -> Memory:
    """A memory with some fields changed."""
    return msgspec.structs.replace(memory, **changes)


def at_clock(memory: Memory, now_s: float) -> Memory:
    """The memory on another clock, on which the newest moment was at `now_s`."""
    shift = now_s - memory.time_s
    return replaced(memory, time_s=now_s, saved_s=memory.saved_s + shift, started_s=memory.started_s + shift)
