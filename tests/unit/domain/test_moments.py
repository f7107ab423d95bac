"""What triggers remember goes through plain values and back, and what is something else is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ckptvcs.domain.moments import Memory, SavedBest, Stretch
from ckptvcs.errors import FormatError

FULL = Memory(
    time_s=12.5,
    step=100,
    epochs=3,
    saved_s=-4.25,
    saves=2,
    owed=("on_event: drift",),
    bests={"min loss": SavedBest(value=0.1, step=90)},
    offers={"min loss": 0.05},
    stretches={"max acc": Stretch(best=0.5, count=3, told=True)},
    cost_s=1.5,
    newest_cost_s=1.25,
    failures=2,
    uptime_s=1e6,
    started_s=0.5,
)


@pytest.mark.parametrize("memory", [Memory(), FULL], ids=["empty", "full"])
def test_a_memory_goes_through_json_and_back(memory: Memory):
    plain = memory.to_plain()

    assert Memory.from_plain(plain) == memory
    assert Memory.from_plain(json.loads(json.dumps(plain, allow_nan=False))) == memory


def test_plain_values_are_those_that_json_has():
    assert json.loads(json.dumps(FULL.to_plain())) == FULL.to_plain()


def test_no_memory_is_an_empty_one():
    assert Memory.from_plain(None) == Memory()
    assert Memory.from_plain({}) == Memory()


@pytest.mark.parametrize(
    "plain",
    [
        [],
        "text",
        7,
        pytest.param(object(), id="object"),
        {"version": 2},
        {"colour": "red"},
        {"step": "7"},
        {"step": 1.5},
        {"time_s": float("nan")},
        {"saved_s": float("-inf")},
        {"cost_s": -1.0},
        {"failures": -1},
        {"uptime_s": -0.5},
        {"owed": "drift"},
        {"owed": [1]},
        {"bests": {"min loss": 0.5}},
        {"bests": {"min loss": {"value": float("inf"), "step": 1}}},
        {"stretches": {"min loss": {"best": float("nan")}}},
        {"offers": {"min loss": None}},
        {1: 2},
    ],
    ids=str,
)
def test_what_is_no_memory_is_refused(plain: Any):
    with pytest.raises(FormatError, match="triggers") as caught:
        Memory.from_plain(plain)

    assert caught.value.why
    assert caught.value.next_step
