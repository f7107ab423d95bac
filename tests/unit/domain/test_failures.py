"""How often a machine fails: the bounds are those of the tables, and a belief gives way to what is observed."""

from __future__ import annotations

import math
import random

import pytest

from ckptvcs.domain.failures import believed_mtbf_s, mtbf_bounds_s

HOUR = 3600.0


@pytest.mark.parametrize(("uptime_h", "failures", "expected_h"), [(0, 0, 24), (12, 0, 48), (24, 1, 24), (100, 2, 44.8)])
def test_a_belief_of_one_failure_a_day_weighs_half_a_failure(uptime_h: float, failures: int, expected_h: float):
    assert believed_mtbf_s(uptime_h * HOUR, failures) == expected_h * HOUR


@pytest.mark.parametrize("mtbf_h", [0.01, 0.5, 24, 1000])
@pytest.mark.parametrize(("failures", "within"), [(3, 4.0), (10, 1.9), (100, 1.2), (1000, 1.06)])
def test_a_belief_gives_way_to_what_is_observed(mtbf_h: float, failures: int, within: float):
    believed = believed_mtbf_s(failures * mtbf_h * HOUR, failures) / (mtbf_h * HOUR)

    assert 1 / within < believed < within


def test_failures_without_any_time_are_no_reason_to_crash():
    assert believed_mtbf_s(0.0, 5) == 1.0


# Quantiles of chi-squared from tables: 5.991 (0.95, 2), 9.488 (0.95, 4), 31.410 (0.95, 20), 0.103 (0.05, 2), 3.940 (0.05, 10).
@pytest.mark.parametrize(
    ("failures", "low", "high"), [(0, 2 / 5.991, None), (1, 2 / 9.488, 2 / 0.1026), (5, 2 / 21.026, 2 / 3.940)]
)
def test_the_bounds_of_the_time_between_failures_are_those_of_the_tables(failures: int, low: float, high: float | None):
    found_low, found_high = mtbf_bounds_s(1.0, failures)

    assert found_low == pytest.approx(low, rel=0.01)
    assert found_high == (pytest.approx(high, rel=0.01) if high else None)


def test_the_bounds_hold_the_truth_as_often_as_they_say():
    chance, inside = random.Random(1), 0
    for _ in range(2000):
        left_s, failures = 10.0, -1
        while left_s > 0:
            left_s, failures = left_s - chance.expovariate(1.0), failures + 1
        low, high = mtbf_bounds_s(10.0, failures)
        inside += low <= 1.0 <= (high or math.inf)

    assert inside / 2000 > 0.89
