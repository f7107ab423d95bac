"""`interval: auto` finds the best interval on machines that fail at random, and keeps its budget."""

from __future__ import annotations

import json
import math
import statistics

import pytest

from ckptvcs.domain.auto_interval import FIRST_S, UNKNOWN_S, AutoInterval, observed_mtbf_s
from ckptvcs.domain.policy import Interval, Save
from ckptvcs.domain.triggers import Memory, Moment, look, resumed, saved, triggers_of
from tests.support.failures import best_fixed_interval_s, expected_lost, play

HOUR = 3600.0


def moment(time_s: float, *, cost_s: float | None = None) -> Moment:
    return Moment(step=int(time_s), time_s=time_s, save_cost_s=cost_s)


def fires_at(
    trigger: AutoInterval, memory: Memory, *, cost_s: float | None = None, until_s: float = 1e5
) -> float | None:
    """The first whole second after the newest moment at which it fires."""
    for time_s in range(int(memory.time_s) + 1, int(until_s)):
        memory, reasons = look([trigger], memory, moment(float(time_s), cost_s=cost_s))
        if reasons:
            return float(time_s)
    return None


def test_the_policy_makes_it():
    assert triggers_of(Save(interval=Interval(overhead=0.1, mtbf_s=60.0))) == (AutoInterval(overhead=0.1, mtbf_s=60.0),)


# ------------------------------------------------------------------------------------------------- before much is known


def test_before_any_cost_is_known_it_saves_early_once():
    auto, memory = AutoInterval(overhead=0.035), Memory()

    assert fires_at(auto, memory) == FIRST_S
    memory = saved(memory, moment(FIRST_S), None)
    assert fires_at(auto, memory) == FIRST_S + UNKNOWN_S


def test_a_save_for_another_reason_is_measured_too():
    auto = AutoInterval(overhead=1.0, mtbf_s=7200.0)
    memory = saved(Memory(), moment(1), 10.0)

    # sqrt(2 * 10 * 7200) = 379.47, times 1.0089, less 10: 372.9 s of work, after a save of 10 s
    assert fires_at(auto, memory) == 1 + 383


def test_the_cost_may_be_told_later():
    auto, memory = AutoInterval(overhead=1.0, mtbf_s=7200.0), saved(Memory(), moment(1), None)

    assert fires_at(auto, memory, cost_s=10.0) == 1 + 383


def test_it_says_why():
    memory = saved(Memory(), moment(1), 10.0)

    assert look([AutoInterval(overhead=1.0, mtbf_s=7200.0)], memory, moment(500))[1] == (
        "interval: 383 s, because a save costs 10 s",
    )


@pytest.mark.parametrize("cost_s", [math.nan, math.inf, -1.0, None])
def test_a_cost_that_means_nothing_is_not_taken(cost_s: float | None):
    memory = saved(Memory(), moment(1), cost_s)

    memory, _ = look([AutoInterval(overhead=1.0)], memory, moment(2, cost_s=cost_s))

    assert memory.cost_s is None


def test_saves_that_cost_nothing_are_not_taken_at_every_step():
    memory = saved(Memory(), moment(1), 0.0)

    assert fires_at(AutoInterval(overhead=0.035, mtbf_s=HOUR), memory) > 2


def test_a_measurement_counts_once_however_often_it_is_told():
    memory = saved(Memory(), moment(1), 10.0)
    for time_s in range(2, 50):
        memory, _ = look([AutoInterval(overhead=1.0)], memory, moment(float(time_s), cost_s=20.0))

    assert memory.cost_s == 12.5


def test_one_slow_save_moves_the_interval_a_little():
    memory = Memory()
    for cost_s in (10.0, 10.5, 9.5, 10.2, 9.8, 30.0):
        memory = saved(memory, moment(1), cost_s)

    assert 10 < memory.cost_s < 15.1


# --------------------------------------------------------------------------------------------- the time between failures


def test_before_anything_was_observed_one_failure_a_day_is_believed():
    assert observed_mtbf_s(Memory(), 0.0) == 24 * HOUR


def test_the_longer_nothing_fails_the_longer_the_time_between_failures_is():
    assert observed_mtbf_s(Memory(), 12 * HOUR) == 48 * HOUR


@pytest.mark.parametrize(("failures", "expected_h"), [(1, 9.33), (10, 3.05), (100, 2.11), (1000, 2.01)])
def test_what_is_observed_soon_outweighs_what_is_believed(failures: int, expected_h: float):
    memory = resumed(Memory(), failures=failures, uptime_s=failures * 2 * HOUR)

    assert observed_mtbf_s(memory, 0.0) == pytest.approx(expected_h * HOUR, rel=0.01)


def test_a_resumed_run_counts_one_failure_more_unless_it_is_told_how_many():
    memory = saved(Memory(), moment(100), 1.0)
    memory, _ = look([], memory, moment(500))

    once = resumed(memory)
    memory, _ = look([], once, moment(50))
    twice = resumed(memory)

    assert (once.failures, once.uptime_s, once.time_s) == (1, 500, 0)
    assert (twice.failures, twice.uptime_s, twice.saved_s) == (2, 550, -450)
    assert resumed(memory, failures=0).failures == 0
    assert resumed(memory, failures=7, uptime_s=9000).uptime_s == 9000


def test_time_before_a_clock_went_back_counts_as_uptime():
    memory = Memory()
    for time_s in (0.0, HOUR, 0.0, 2 * HOUR):
        memory, _ = look([], memory, moment(time_s))

    assert observed_mtbf_s(memory, 2 * HOUR) == (12 + 3) * HOUR / 0.5


# --------------------------------------------------------------------------------------------------------- convergence


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("cost_s", "mtbf_s", "step_s"), [(20.0, 2 * HOUR, 5.0), (5.0, HOUR, 2.0), (120.0, 1800.0, 5.0)]
)
def test_it_comes_within_a_tenth_of_the_best_interval_where_the_time_between_failures_is_stated(
    cost_s: float, mtbf_s: float, step_s: float, seed: int
):
    best_s = best_fixed_interval_s(cost_s, mtbf_s, 60.0)

    played = play(
        AutoInterval(overhead=1.0, mtbf_s=mtbf_s),
        cost_s=lambda _: cost_s,
        mtbf_s=mtbf_s,
        failures=20,
        seed=seed,
        step_s=step_s,
    )

    assert statistics.median(played.intervals_s[5:]) == pytest.approx(best_s, rel=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_it_comes_within_a_tenth_of_the_best_interval_where_the_time_between_failures_is_observed(seed: int):
    cost_s, mtbf_s = 20.0, HOUR
    best_s = best_fixed_interval_s(cost_s, mtbf_s, 60.0)

    played = play(
        AutoInterval(overhead=1.0), cost_s=lambda _: cost_s, mtbf_s=mtbf_s, failures=300, seed=seed, step_s=10.0
    )

    late = played.intervals_s[len(played.intervals_s) // 2 :]
    assert statistics.median(late) == pytest.approx(best_s, rel=0.1)
    assert AutoInterval(overhead=1.0).interval_s(played.memory, moment(0)) == pytest.approx(best_s, rel=0.1)


def test_it_comes_within_a_tenth_where_the_cost_of_saves_varies():
    mtbf_s = 2 * HOUR
    best_s = best_fixed_interval_s(20.0, mtbf_s, 60.0)

    played = play(
        AutoInterval(overhead=1.0, mtbf_s=mtbf_s),
        cost_s=lambda chance: chance.uniform(14.0, 26.0),
        mtbf_s=mtbf_s,
        failures=60,
        seed=1,
    )

    assert statistics.mean(played.intervals_s[5:]) == pytest.approx(best_s, rel=0.1)


def test_training_loses_hardly_more_than_at_the_best_interval():
    cost_s, mtbf_s = 20.0, HOUR
    best = expected_lost(best_fixed_interval_s(cost_s, mtbf_s, 60.0), cost_s, mtbf_s, 60.0)

    played = play(AutoInterval(overhead=1.0), cost_s=lambda _: cost_s, mtbf_s=mtbf_s, failures=300, seed=5, step_s=10.0)

    assert 1 - played.work_s / played.time_s == pytest.approx(best, rel=0.1)


def test_the_budget_bounds_the_interval_from_below():
    played = play(
        AutoInterval(overhead=0.035, mtbf_s=600.0), cost_s=lambda _: 7.0, mtbf_s=3600.0, failures=20, seed=1, step_s=1.0
    )

    assert min(played.intervals_s[1:]) >= 7 / 0.035
    assert max(played.intervals_s[1:]) <= 7 / 0.035 + 1.0


def test_it_follows_when_saves_become_cheaper():
    auto, memory, now_s = AutoInterval(overhead=1.0, mtbf_s=2 * HOUR), Memory(), 0.0
    intervals = []
    for cost_s in [40.0] * 10 + [10.0] * 30:
        memory = saved(memory, moment(now_s), cost_s)
        now_s += auto.interval_s(memory, moment(now_s)) + cost_s
        intervals.append(auto.interval_s(memory, moment(now_s)))

    assert intervals[9] == pytest.approx(best_fixed_interval_s(40.0, 2 * HOUR, 0), rel=0.02)
    assert intervals[-1] == pytest.approx(best_fixed_interval_s(10.0, 2 * HOUR, 0), rel=0.1)


def test_what_it_learned_goes_through_a_checkpoint():
    auto = AutoInterval(overhead=1.0)
    memory = saved(resumed(Memory(), failures=5, uptime_s=10 * HOUR), moment(60), 12.0)

    again = Memory.from_plain(json.loads(json.dumps(memory.to_plain())))

    assert auto.interval_s(again, moment(61)) == auto.interval_s(memory, moment(61))
