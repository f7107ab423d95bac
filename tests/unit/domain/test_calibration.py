"""What is recorded of saves and failures becomes the numbers that it says, and an interval."""

from __future__ import annotations

import math
import random
from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from ckptvcs.domain.calibration import Life, Recorded, of_checkpoints, of_events, proposal
from ckptvcs.domain.cost import fraction_lost
from ckptvcs.domain.events import Event
from tests.support.failures import best_fixed_interval_s

HOUR = 3600.0
BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)


def event(at_s: float, op: str, **facts: Any) -> Event:
    time = (BEGIN + timedelta(seconds=at_s)).isoformat(timespec="microseconds")
    return Event(writer="w" * 8, n=1, prev="", time=time, op=op, actor="", facts=facts, seen={})


def start(at_s: float, run: str = "a", **facts: Any) -> Event:
    return event(at_s, "run.start", **{"run": run, "run_id": f"id-{run}", "branch": run, "step": 0, **facts})


def save(at_s: float, run: str = "a", **facts: Any) -> Event:
    return event(at_s, "save", **{"run_id": f"id-{run}", "step": 0, "seconds": 4.0, "blocked_s": 1.0, **facts})


def end(at_s: float, how: str, run: str = "a", **facts: Any) -> Event:
    return event(at_s, "run.end", run_id=f"id-{run}", step=0, how=how, **facts)


# ------------------------------------------------------------------------------------------------------ from the ledger


def test_costs_durations_gaps_and_the_end_of_a_run_are_read():
    found = of_events([start(0), save(10), save(30, blocked_s=2, seconds=5), end(40, "closed", seconds=41.0)])

    assert found == Recorded(
        costs_s=[1.0, 2.0], durations_s=[4.0, 5.0], gaps_s=[20.0], lives=[Life(run="a", uptime_s=41.0, how="closed")]
    )


def test_a_run_that_is_started_again_without_an_end_was_broken_off():
    found = of_events([start(0), save(10), save(20), start(100), save(110), start(300), end(350, "preempted")])

    assert [(life.uptime_s, life.how) for life in found.lives] == [
        (20.0, "broken-off"),
        (10.0, "broken-off"),
        (50.0, "preempted"),
    ]
    assert (found.runs, found.failures) == (1, 2)
    assert (
        found.uptime_s == 20 + 5 + 10 + 5 + 50
    )  # each that was broken off went on for half a gap, as far as one knows


def test_a_run_is_the_same_under_a_new_id_if_its_name_and_branch_are():
    found = of_events([start(0), save(50), start(100, run_id="another"), save(150, run_id="another")])

    assert [life.how for life in found.lives] == ["broken-off", "unknown"]
    assert found.gaps_s == []


def test_a_process_that_goes_on_from_something_else_was_not_broken_off():
    told = [start(0, parents=["p"]), save(10), start(15, parents=["p", "q"]), save(30), end(40, "closed", seconds=40.0)]

    found = of_events(told)

    assert found.lives == [Life(run="a", uptime_s=40.0, how="closed")]
    assert found.gaps_s == [20.0]


def test_a_process_that_goes_to_another_branch_before_it_saves_anything_is_one_life():
    moved = {"run": "a-2", "run_id": "id-a", "branch": "a-2", "parents": ["p", "q"]}

    found = of_events([start(0, parents=["p"]), start(5, **moved), save(10), end(20, "closed", seconds=20.0)])

    assert found.lives == [Life(run="a-2", uptime_s=20.0, how="closed")]


def test_what_was_saved_and_left_for_another_branch_was_broken_off():
    moved = {"run": "a-2", "run_id": "id-a", "branch": "a-2", "parents": ["p", "q"]}

    found = of_events([start(0, parents=["p"]), save(5), start(10, **moved), end(20, "closed", seconds=10.0)])

    assert [(life.run, life.how) for life in found.lives] == [("a", "broken-off"), ("a-2", "closed")]


def test_a_run_that_ended_and_is_started_again_was_not_broken_off():
    found = of_events([start(0), end(50, "closed"), start(60), end(90, "preempted")])

    assert [(life.uptime_s, life.how) for life in found.lives] == [(50, "closed"), (30, "preempted")]
    assert found.failures == 0


def test_runs_at_the_same_time_are_kept_apart():
    found = of_events([start(0), start(5, "b"), save(10), save(12, "b"), save(20), end(25, "exception", "b"), save(30)])

    assert [(life.run, life.uptime_s, life.how) for life in found.lives] == [
        ("a", 30, "unknown"),
        ("b", 20, "exception"),
    ]
    assert found.gaps_s == [10, 10]
    assert (found.runs, found.failures) == (2, 1)


def test_one_run_can_be_looked_at_alone():
    told = [start(0), start(5, "b"), save(10), save(12, "b", blocked_s=9), end(25, "exception", "b")]

    assert of_events(told, run="b").costs_s == [9]
    assert [life.run for life in of_events(told, run="b").lives] == ["b"]
    assert of_events(told, run="none") == Recorded()


def test_a_save_without_a_known_run_tells_its_cost():
    assert of_events([save(10)]) == Recorded(costs_s=[1.0], durations_s=[4.0])


def test_a_save_that_does_not_say_what_it_took_from_training_took_all_its_time():
    assert of_events([save(10, blocked_s=None)]).costs_s == [4.0]


@pytest.mark.parametrize("odd", [None, "x", -1, math.inf, "nan", True, [1], {}], ids=str)
def test_facts_that_make_no_sense_are_passed_over(odd: Any):
    found = of_events(
        [
            event(0, "run.start", run=odd, run_id=odd, branch=odd),
            event(1, "save", run_id=odd, seconds=odd, blocked_s=odd),
            event(2, "run.end", run_id=odd, seconds=odd, how=odd),
            event(3, "save"),
            event(4, "run.end"),
            event(5, "run.start"),
        ]
    )

    assert found.costs_s == found.durations_s == []
    proposal(found, overhead=0.035)


def test_a_clock_that_went_back_gives_no_negative_times():
    found = of_events([start(100), save(50), save(20), end(0, "closed")])

    assert (found.gaps_s, found.uptime_s) == ([0.0], 0.0)


def test_an_entry_of_a_day_that_never_was_is_passed_over():
    wrong = msgspec.structs.replace(save(10), time="2026-99-99T00:00:00.000000+00:00")

    assert of_events([start(0), wrong, save(20)]).costs_s == [1.0]


# -------------------------------------------------------------------------------------------------- from checkpoints


def test_checkpoints_tell_of_gaps_and_long_pauses():
    found = of_checkpoints({"a": [0, 10, 20, 30, 500, 510], "b": [7]})

    assert found.gaps_s == [10, 10, 10, 10]
    assert [(life.run, life.uptime_s, life.how) for life in found.lives] == [
        ("a", 30, "broken-off"),
        ("a", 10, "unknown"),
        ("b", 0, "unknown"),
    ]
    assert (found.runs, found.failures, found.costs_s) == (2, 1, [])


def test_of_no_checkpoints_nothing_is_known():
    assert of_checkpoints({}) == Recorded()


# ------------------------------------------------------------------------------------------------------------- proposal


def lives(*hours: float, how: Any = "exception") -> list[Life]:
    return [Life(run="a", uptime_s=h * HOUR, how=how) for h in hours]


def test_the_numbers_behind_a_proposal_are_those_of_the_record():
    recorded = Recorded(
        costs_s=[1.0, 2.0, 3.0, 4.0, 50.0] * 2,
        durations_s=[5.0] * 10,
        gaps_s=[60.0] * 9,
        lives=[*lives(4, 6), *lives(2, how="preempted"), *lives(8, how="closed")],
    )

    found = proposal(recorded, overhead=0.035)

    assert (found.saves, found.runs, found.starts, found.failures, found.preemptions) == (10, 1, 4, 2, 1)
    assert (found.cost_median_s, found.cost_p90_s) == (3.0, 50.0)
    assert (found.duration_median_s, found.duration_p90_s) == (5.0, 5.0)
    assert found.uptime_s == 20 * HOUR
    assert found.mtbf_s == (20 + 12) * HOUR / 2.5  # two failures, and half of one in half a day that is believed in
    assert found.budget_s == pytest.approx(85.714, abs=1e-3)
    assert found.young_s == pytest.approx(math.sqrt(2 * 3 * 12.8 * HOUR))
    assert found.interval_s == found.daly_s == pytest.approx(best_fixed_interval_s(3, 12.8 * HOUR, 0), rel=0.01)
    assert found.now_s == 60.0
    assert 0 < found.lost < found.lost_now == pytest.approx(3 / 60, rel=0.1)


def test_the_interval_is_not_shorter_than_the_budget_allows_or_than_a_save_takes():
    record = Recorded(costs_s=[10.0], durations_s=[10.0], lives=lives(*[0.05] * 200))

    assert proposal(record, overhead=0.035).interval_s == pytest.approx(10 / 0.035)
    slow = Recorded(costs_s=[0.1], durations_s=[900.0], lives=record.lives)
    assert proposal(slow, overhead=0.035).interval_s == 900.0


def test_nine_of_ten_and_what_is_lost_until_now_are_exact():
    found = proposal(
        Recorded(costs_s=[float(n) for n in range(1, 11)], gaps_s=[60.0], lives=lives(4, 5, 6)), overhead=0.035
    )

    assert (found.cost_median_s, found.cost_p90_s) == (5.5, 9.0)
    assert found.mtbf_s == 5 * HOUR
    assert found.lost_now == fraction_lost(60 - 5.5, 5.5, 5 * HOUR)


def test_where_no_cost_is_known_no_interval_is_proposed():
    found = proposal(Recorded(lives=lives(1, 2, 3), gaps_s=[60.0]), overhead=0.035)

    assert (found.cost_median_s, found.young_s, found.daly_s, found.interval_s, found.lost, found.lost_now) == (
        None,
    ) * 6
    assert (found.now_s, found.failures, found.states_mtbf) == (60.0, 3, True)


def test_a_proposal_finds_the_best_interval_of_a_machine_that_fails_at_random():
    chance = random.Random(4)
    recorded = Recorded(
        costs_s=[chance.uniform(15, 25) for _ in range(200)],
        durations_s=[30.0] * 200,
        lives=lives(*(chance.expovariate(1 / 3) for _ in range(400))),
    )

    found = proposal(recorded, overhead=1.0)

    assert found.interval_s == pytest.approx(best_fixed_interval_s(20, 3 * HOUR, 0), rel=0.1)
