"""The best interval between saves, against intervals tried one by one in an expectation that is computed another way."""

from __future__ import annotations

import math

import numpy
import pytest

from ckptvcs.domain.cost import (
    best_interval_s,
    daly_interval_s,
    fraction_lost,
    interval_within_budget_s,
    young_interval_s,
)
from ckptvcs.errors import UsageError
from tests.support.failures import best_fixed_interval_s, expected_lost, lost_in_simulation

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("cost_s", "mtbf_s", "expected"), [(10, 3600, 268.328), (30, 86400, 2276.840), (0, 3600, 0.0), (2, 1, 2.0)]
)
def test_the_interval_of_young_is_a_square_root(cost_s: float, mtbf_s: float, expected: float):
    assert young_interval_s(cost_s, mtbf_s) == pytest.approx(expected, abs=1e-3)


def test_the_interval_of_daly_is_that_of_his_equation_by_hand():
    # sqrt(2 * 10 * 3600) = 268.328; sqrt(10 / 7200) = 0.0372678; 268.328 * (1 + 0.0124226 + 0.0001543) - 10
    assert daly_interval_s(10, 3600) == pytest.approx(261.7029, abs=1e-3)
    assert daly_interval_s(2000, 1000) == daly_interval_s(9999, 1000) == 1000


@pytest.mark.parametrize("mtbf_s", [900.0, 3600.0, 86400.0])
@pytest.mark.parametrize("part", [0.0001, 0.001, 0.01, 0.1, 0.25, 0.5])
@pytest.mark.parametrize("restart_s", [0.0, 120.0])
def test_the_interval_of_daly_is_the_best_of_all_that_were_tried(mtbf_s: float, part: float, restart_s: float):
    cost_s = part * mtbf_s

    best_s = best_fixed_interval_s(cost_s, mtbf_s, restart_s)

    assert daly_interval_s(cost_s, mtbf_s) == pytest.approx(best_s, rel=0.01)


@pytest.mark.parametrize(("cost_s", "mtbf_s"), [(10, 36000), (60, 7200)])
def test_the_interval_of_young_is_near_it_where_saves_are_cheap(cost_s: float, mtbf_s: float):
    assert young_interval_s(cost_s, mtbf_s) == pytest.approx(best_fixed_interval_s(cost_s, mtbf_s, 0), rel=0.1)


@pytest.mark.parametrize("interval_s", [60.0, 600.0, 3000.0])
@pytest.mark.parametrize("cost_s", [0.0, 5.0, 300.0])
def test_what_is_lost_is_what_another_way_to_compute_it_gives(interval_s: float, cost_s: float):
    assert fraction_lost(interval_s, cost_s, 3600) == pytest.approx(
        expected_lost(interval_s, cost_s, 3600, 0), rel=1e-4
    )


def test_what_is_lost_is_what_a_simulation_loses():
    expected = fraction_lost(500, 20, 7200, restart_s=0)

    assert lost_in_simulation(500, 20, 7200, work_s=3e7, seed=3) == pytest.approx(expected, rel=0.02)


def test_a_restart_takes_the_longer_for_the_failures_in_it():
    # e^(1/10) by hand: a restart of a tenth of the time between failures multiplies the whole time by 1.10517
    without, with_restart = 1 - fraction_lost(500, 20, 1000), 1 - fraction_lost(500, 20, 1000, restart_s=100)

    assert without / with_restart == pytest.approx(1.10517, abs=1e-5)


@pytest.mark.parametrize(("interval_s", "restart_s"), [(1e9, 0.0), (10.0, 1e9)])
def test_where_nothing_ever_gets_done_all_is_lost(interval_s: float, restart_s: float):
    assert fraction_lost(interval_s, 1, 100, restart_s) == 1.0


def test_a_budget_is_kept():
    assert interval_within_budget_s(7, 0.035) == pytest.approx(200)
    assert best_interval_s(7, 100, 0.035) == pytest.approx(200)
    assert best_interval_s(7, 86400, 0.035) == daly_interval_s(7, 86400) > 200


@pytest.mark.parametrize(
    ("function", "numbers"),
    [
        (young_interval_s, (-1, 1)),
        (young_interval_s, (1, 0)),
        (young_interval_s, (NAN, 1)),
        (daly_interval_s, (1, NAN)),
        (daly_interval_s, (INF, 1)),
        (daly_interval_s, (1, INF)),
        (interval_within_budget_s, (1, 0)),
        (interval_within_budget_s, (1, NAN)),
        (interval_within_budget_s, (-1, 0.1)),
        (best_interval_s, (1, 1, -0.1)),
        (fraction_lost, (0, 1, 1)),
        (fraction_lost, (1, 1, 1, -1)),
        (fraction_lost, (NAN, 1, 1)),
    ],
)
def test_numbers_that_mean_nothing_are_refused(function, numbers):
    with pytest.raises(UsageError):
        function(*numbers)


def test_the_oracle_is_right_where_it_can_be_done_by_hand():
    # One failure in two attempts (p = e^-1 / ...): an interval of M without cost takes M * (e - 1), so 1 - 1 / (e - 1) is lost.
    assert expected_lost(1000, 0, 1000, 0) == pytest.approx(1 - 1 / (math.e - 1), rel=1e-5)
    assert numpy.isfinite(best_fixed_interval_s(1, 100, 0))
