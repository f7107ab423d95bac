"""How often a machine fails, from what was observed of it."""

from __future__ import annotations

import math
import statistics
from typing import Final

PRIOR_MTBF_S: Final = 24 * 3600.0
"""What is believed before anything was observed: one failure a day."""

PRIOR_FAILURES: Final = 0.5
"""How many failures that belief weighs. Little: after a handful of real ones it hardly counts."""


def believed_mtbf_s(uptime_s: float, failures: int) -> float:
    """Mean seconds between failures, from a weak belief and what was observed.

    With a gamma prior for the rate of failures, it is one over the posterior mean: time over failures, where one failure a
    day is believed in with the weight of half a failure. What the observation alone rules out is not believed.

    Args:
        uptime_s: seconds that were observed; not negative.
        failures: how many there were in them.
    """
    believed_s = (PRIOR_FAILURES * PRIOR_MTBF_S + uptime_s) / (PRIOR_FAILURES + failures)
    _, high_s = mtbf_bounds_s(uptime_s, failures)  # the belief is long, so the lower bound is never in its way
    return believed_s if high_s is None else min(believed_s, max(high_s, 1.0))


def mtbf_bounds_s(uptime_s: float, failures: int) -> tuple[float, float | None]:
    """Between which bounds the mean time between failures is, each with 95 % confidence; there is no upper one without a failure.

    Failures at random make twice the observed time over the mean a chi-squared variable: B. Epstein, "Estimation from life
    test data", Technometrics 2(4), 1960.

    Args:
        uptime_s: seconds that were observed; not negative.
        failures: how many there were in them.
    """
    low_s = 2 * uptime_s / _chi_squared(0.95, 2 * failures + 2)
    return low_s, 2 * uptime_s / _chi_squared(0.05, 2 * failures) if failures else None


def _chi_squared(probability: float, degrees: int) -> float:
    """A quantile of the chi-squared distribution, exact for two degrees of freedom, else within about 1 %.

    E. B. Wilson, M. M. Hilferty, "The distribution of chi-square", PNAS 17, 1931.
    """
    if degrees == 2:
        return -2 * math.log(1 - probability)
    part = 2 / (9 * degrees)
    return float(degrees * (1 - part + statistics.NormalDist().inv_cdf(probability) * math.sqrt(part)) ** 3)
