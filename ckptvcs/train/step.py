"""The step that somebody else's training loop is at, which tells of it piece by piece."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.errors import UsageError
from ckptvcs.train.facts import metric

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


_NO_METRIC: Final = re.compile(r"(epoch|step|total_flos|learning_rate|.*_(runtime|per_second|preparation_time))\Z")


class Step:
    """What was measured of a step, and why it is to be saved.

    Args:
        step: the one that the loop begins at.
    """

    def __init__(self, step: int = 0) -> None:
        self.step = step
        self.saved: int | None = step or None
        """The newest step that is saved."""
        self.metrics: dict[str, int | float | str] = {}
        self.reasons: tuple[str, ...] = ()
        self.ours = False
        """Whether it is saved because of these reasons alone."""
        self.awaits_log = False
        """Whether the log of the step is still to come."""
        self.since = time.perf_counter()
        """When the loop told something last."""
        self._fresh: dict[str, int | float | str] = {}

    def begin(self, step: int) -> None:
        """Another step was made. Reasons that were not answered stay."""
        self.step, self.metrics, self.ours = step, {}, False

    def measured(self, values: Mapping[str, Any]) -> None:
        """Take down metrics; what is no number is none, and neither is what says nothing of how good the model is."""
        for name, value in values.items():
            if _NO_METRIC.match(name):
                continue
            try:
                self._fresh[name] = metric(name, value)
            except UsageError:
                continue

    def take_measured(self) -> dict[str, int | float | str]:
        """The metrics that were measured since the last call."""
        fresh, self._fresh = self._fresh, {}
        self.metrics.update(fresh)
        return fresh

    def want(self, reasons: Sequence[str]) -> None:
        """Take down reasons to save, each kind once."""
        kinds = {reason.partition(":")[0] for reason in reasons}
        self.reasons = (*(r for r in self.reasons if r.partition(":")[0] not in kinds), *reasons)

    def done(self, step: int) -> None:
        """The step was saved."""
        self.saved, self.reasons, self.ours = step, (), False
