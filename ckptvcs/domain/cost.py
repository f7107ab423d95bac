"""What saving costs and what it saves: how often to save, from the cost of a save and the time between failures.

The model is that of Young and Daly. Training does `interval_s` seconds of work, then a save takes `cost_s` seconds from it,
and so on. Failures come at random, `mtbf_s` seconds apart on average; each takes training back to the last save, and
`restart_s` seconds until it goes on. Work is what advances training: neither saves, nor restarts, nor work done again.

Sources: J. W. Young, "A first order approximation to the optimum checkpoint interval", CACM 17(9), 1974, p. 530-531.
J. T. Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps", Future Generation Computer
Systems 22(3), 2006, p. 303-312. J. Mohan, A. Phanishayee, V. Chidambaram, "CheckFreq: frequent, fine-grained DNN
checkpointing", FAST'21, for the budget: saves may cost 3.5 % of the training time.
"""

from __future__ import annotations

import math

from ckptvcs.errors import UsageError


def young_interval_s(cost_s: float, mtbf_s: float) -> float:
    """The best interval to first order: the square root of `2 * cost_s * mtbf_s` (Young 1974).

    Args:
        cost_s: seconds that a save takes from training; not negative.
        mtbf_s: mean seconds between failures; more than 0.

    Returns:
        Seconds of work between the end of a save and the begin of the next. It is good where a save costs much less than
        the time between failures, and too long elsewhere.

    Raises:
        UsageError: a number is out of its range.
    """
    _check(cost_s, mtbf_s)
    return math.sqrt(2 * cost_s * mtbf_s)


def daly_interval_s(cost_s: float, mtbf_s: float) -> float:
    """The best interval to higher order (Daly 2006, equation 37), within 1 % of the best for costs up to half of `mtbf_s`.

    Args:
        cost_s: seconds that a save takes from training; not negative.
        mtbf_s: mean seconds between failures; more than 0.

    Returns:
        Seconds of work between the end of a save and the begin of the next; `mtbf_s` where a save costs twice that or more.

    Raises:
        UsageError: a number is out of its range.
    """
    _check(cost_s, mtbf_s)
    if cost_s >= 2 * mtbf_s:
        return mtbf_s
    part = cost_s / (2 * mtbf_s)
    return math.sqrt(2 * cost_s * mtbf_s) * (1 + math.sqrt(part) / 3 + part / 9) - cost_s


def interval_within_budget_s(cost_s: float, overhead: float) -> float:
    """The shortest interval at which saves cost no more than a part of the work (the budget of CheckFreq).

    Args:
        cost_s: seconds that a save takes from training; not negative.
        overhead: that part, such as 0.035; more than 0.

    Returns:
        Seconds of work between the end of a save and the begin of the next.

    Raises:
        UsageError: a number is out of its range.
    """
    if not (overhead > 0 and math.isfinite(overhead)):
        raise UsageError("cannot keep an overhead budget", why=f"it has to be more than 0, not {overhead}")
    _check(cost_s, 1.0)
    return cost_s / overhead


def best_interval_s(cost_s: float, mtbf_s: float, overhead: float) -> float:
    """The interval to save at: Daly's, but never so short that saves cost more than the budget.

    Args:
        cost_s: seconds that a save takes from training; not negative.
        mtbf_s: mean seconds between failures; more than 0.
        overhead: the part of the work that saves may cost; more than 0.

    Returns:
        Seconds of work between the end of a save and the begin of the next.

    Raises:
        UsageError: a number is out of its range.
    """
    return max(daly_interval_s(cost_s, mtbf_s), interval_within_budget_s(cost_s, overhead))


def fraction_lost(interval_s: float, cost_s: float, mtbf_s: float, restart_s: float = 0.0) -> float:
    """The part of the time that is no work, in the long run: saves, restarts, and work done again (Daly 2006, equation 20).

    Args:
        interval_s: seconds of work between two saves; more than 0.
        cost_s: seconds that a save takes from training; not negative.
        mtbf_s: mean seconds between failures; more than 0. They come at random: the times between them are exponential.
        restart_s: seconds from a failure until training goes on; not negative. Failures may come in it too.

    Returns:
        Between 0 and 1.

    Raises:
        UsageError: a number is out of its range.
    """
    _check(cost_s, mtbf_s)
    if not (interval_s > 0 and restart_s >= 0):
        raise UsageError("no time is lost", why=f"the interval is {interval_s} s and a restart takes {restart_s} s")
    exponent = (interval_s + cost_s) / mtbf_s
    if exponent + restart_s / mtbf_s > 700:  # e to that is more than a float can be: nothing ever gets done
        return 1.0
    return 1 - interval_s / (mtbf_s * math.exp(restart_s / mtbf_s) * math.expm1(exponent))


def _check(cost_s: float, mtbf_s: float) -> None:
    if not (cost_s >= 0 and mtbf_s > 0 and math.isfinite(cost_s) and math.isfinite(mtbf_s)):
        raise UsageError(
            "no interval is best",
            why=f"a save costs {cost_s} s and failures are {mtbf_s} s apart",
            next_step="give a cost that is not negative and a time between failures that is more than 0, both finite",
        )
