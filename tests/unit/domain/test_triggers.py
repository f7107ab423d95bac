"""Every trigger over simulated time and metrics: when it fires, when it does not, and what it remembers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from fractions import Fraction

import numpy
import pytest

from ckptvcs.domain.policy import Improvement, Interval, Plateau, Preemption, Save
from ckptvcs.domain.triggers import Memory, Moment, look, resumed, saved, triggers_of

NAN, INF = math.nan, math.inf


def run(save: Save, moments: Iterable[Moment], memory: Memory | None = None) -> dict[int, tuple[str, ...]]:
    """Go through moments, save whenever it is asked for, and return the reasons by step."""
    triggers, memory, found = triggers_of(save), memory or Memory(), {}
    for moment in moments:
        memory, reasons = look(triggers, memory, moment)
        if reasons:
            found[moment.step] = reasons
            memory = saved(memory, moment, None)
    return found


def steps(*numbers: int) -> list[Moment]:
    return [Moment(step=n, time_s=float(i)) for i, n in enumerate(numbers)]


def losses(*values: float | str | None, name: str = "val_loss") -> list[Moment]:
    """One moment a value; None is a step at which nothing was measured."""
    return [
        Moment(step=i, time_s=float(i), metrics={} if value is None else {name: value})
        for i, value in enumerate(values)
    ]


def through_json(memory: Memory) -> Memory:
    return Memory.from_plain(json.loads(json.dumps(memory.to_plain(), allow_nan=False)))


# -------------------------------------------------------------------------------------------------------------- no rule


def test_without_a_rule_nothing_is_saved():
    assert triggers_of(Save()) == ()
    assert run(Save(), [*steps(0, 100, 200), *losses(NAN, 0.1)]) == {}


def test_the_end_of_the_loop_is_not_decided_here():
    assert triggers_of(Save(on_exception=True, on_exit=True, on_preemption=Preemption())) == ()


# ---------------------------------------------------------------------------------------------------------- every_n_steps


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (range(31), [10, 20, 30]),
        (range(1, 31), [10, 20, 30]),
        ([0, 7, 14, 21, 28, 35], [14, 21, 35]),
        ([0, 25, 50, 75], [25, 50, 75]),
        ([0, 95, 96, 99, 100], [95, 100]),
        ([0, 10, 10, 10, 11], [10]),
        ([25, 26, 29, 30], [30]),
        ([20, 21], [20]),
        ([0], []),
        ([0, 9, 18, 12, 19, 20, 21], [18, 20]),
        ([0, 15, 10, 11], [15, 10]),
        ([-5, -1, 0, 3, 9, 11], [11]),
    ],
    ids=str,
)
def test_every_n_steps_fires_once_for_each_multiple_that_is_reached_or_passed(told, expected: list[int]):
    assert list(run(Save(every_n_steps=10), steps(*told))) == expected


def test_every_n_steps_says_so():
    assert run(Save(every_n_steps=3), steps(0, 1, 2, 3)) == {3: ("every_n_steps: 3",)}


def test_every_step_is_every_one_but_0():
    assert list(run(Save(every_n_steps=1), steps(*range(5)))) == [1, 2, 3, 4]


def test_a_save_by_hand_does_not_move_the_multiples():
    triggers, memory = triggers_of(Save(every_n_steps=10)), Memory()
    memory, _ = look(triggers, memory, Moment(step=8, time_s=0))
    memory = saved(memory, Moment(step=8, time_s=0), None)

    _, reasons = look(triggers, memory, Moment(step=10, time_s=1))

    assert reasons


def test_a_resumed_run_goes_on_to_the_next_multiple():
    save, memory = Save(every_n_steps=100), Memory()
    for moment in steps(*range(0, 1201, 50)):
        memory, _ = look(triggers_of(save), memory, moment)

    found = run(save, steps(*range(1201, 1401)), resumed(through_json(memory)))

    assert list(found) == [1300, 1400]


# --------------------------------------------------------------------------------------------------------- every_n_epochs


def epochs(*values: float | None) -> list[Moment]:
    return [Moment(step=i, time_s=float(i), epoch=value) for i, value in enumerate(values)]


@pytest.mark.parametrize(
    ("n", "told", "expected"),
    [
        (1, [0, 0, 1, 1, 2, 2], [2, 4]),
        (2, [0, 1, 2, 3, 4], [2, 4]),
        (1, [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0], [3, 6]),
        (1, [0.4, 0.8, 1.2, 1.6, 2.0, 2.4], [2, 4]),
        (1, [sum([0.1] * n) for n in range(21)], [10, 20]),
        (1, [1, 2, 3], [0, 1, 2]),
        (3, [0, 5, 6], [1, 2]),
        (1, [None, 0, None, 1, None], [3]),
        (1, [0, None, 1.5], [2]),
        (1, [None, None], []),
        (1, [NAN, INF, 0, 1], [3]),
        (1, [3.5, 3.9, 4.1], [2]),
        (1, [1, 1, 1], [0]),
    ],
    ids=str,
)
def test_every_n_epochs_fires_when_epochs_are_completed(n: int, told, expected: list[int]):
    assert list(run(Save(every_n_epochs=n), epochs(*told))) == expected


def test_a_run_that_is_resumed_in_the_middle_of_an_epoch_saves_at_its_end():
    save, memory = Save(every_n_epochs=1), Memory()
    for moment in epochs(0, 1, 2, 2):
        memory, _ = look(triggers_of(save), memory, moment)

    assert list(run(save, epochs(2, 2, 3), resumed(through_json(memory)))) == [2]


# -------------------------------------------------------------------------------------------------------- every_n_seconds


def at(*times_s: float) -> list[Moment]:
    return [Moment(step=i, time_s=time) for i, time in enumerate(times_s)]


def test_every_n_seconds_counts_from_the_last_save():
    found = run(Save(every_n_seconds=60), at(0, 59.9, 60, 61, 119.9, 130, 189, 190, 1000))

    assert list(found) == [2, 5, 7, 8]
    assert found[2] == ("every_n_seconds: 60",)


def test_every_n_seconds_counts_from_a_save_for_any_reason():
    moments = [*at(0, 50), Moment(step=2, time_s=55, events=frozenset({"drift"})), Moment(step=3, time_s=70)]

    assert run(Save(every_n_seconds=60, on_event=("drift",)), moments) == {2: ("on_event: drift",)}


def test_every_n_seconds_asks_until_a_save_is_taken():
    triggers, memory = triggers_of(Save(every_n_seconds=60)), Memory()

    memory, first = look(triggers, memory, Moment(step=0, time_s=61))
    memory, second = look(triggers, memory, Moment(step=1, time_s=62))

    assert first == second == ("every_n_seconds: 60",)


def test_a_clock_that_goes_back_is_a_new_one():
    assert list(run(Save(every_n_seconds=60), at(0, 60, 100, 0, 19, 20, 79, 80))) == [1, 5, 7]


def test_a_resumed_run_has_a_clock_of_its_own():
    save, memory = Save(every_n_seconds=60), Memory()
    triggers = triggers_of(save)
    for moment in at(0, 60, 100):
        memory, reasons = look(triggers, memory, moment)
        memory = saved(memory, moment, None) if reasons else memory

    memory = resumed(through_json(memory))

    assert look(triggers, memory, Moment(step=3, time_s=19.9))[1] == ()
    assert look(triggers, memory, Moment(step=3, time_s=20.0))[1] != ()


# --------------------------------------------------------------------------------------------------------- on_improvement


@pytest.mark.parametrize(
    ("rule", "values", "expected"),
    [
        ({}, [0.5, 0.4, 0.4, 0.45, 0.3], [0, 1, 4]),
        ({"mode": "max"}, [0.5, 0.4, 0.5, 0.6], [0, 3]),
        ({"min_delta": 0.1}, [0.5, 0.45, 0.375, 0.3, 0.25], [0, 2, 4]),
        ({"min_interval": 3}, [0.9, 0.8, 0.7, 0.6, 0.5, 0.65], [0, 3]),
        ({"min_interval": 3}, [0.9, 0.5, 0.95, 0.7, 0.4], [0, 3]),
        ({}, [NAN, INF, -INF, "nan", "inf", "-inf", None], []),
        ({}, [NAN, 0.5, NAN, None, 0.4, -INF, 0.3], [1, 4, 6]),
        ({}, ["0.1", True, False], []),
        ({}, [10**400, 0.5], [1]),
        ({}, [numpy.float32(0.5), numpy.float64(0.25), Fraction(1, 8), 0], [0, 1, 2, 3]),
        ({}, [0.0, -0.0, -1.0], [0, 2]),
    ],
    ids=str,
)
def test_on_improvement_fires_when_a_metric_is_better_than_what_is_saved(rule, values, expected: list[int]):
    save = Save(on_improvement=Improvement(monitor="val_loss", **rule))

    assert list(run(save, losses(*values))) == expected


def test_on_improvement_says_from_what_to_what():
    found = run(Save(on_improvement=Improvement(monitor="val_loss")), losses(0.31, 0.29))

    assert found == {
        0: ("on_improvement: val_loss first value -> 0.31",),
        1: ("on_improvement: val_loss 0.31 -> 0.29",),
    }


def test_other_metrics_are_no_improvement():
    assert run(Save(on_improvement=Improvement(monitor="val_loss")), losses(0.3, 0.2, name="loss")) == {}


def test_an_improvement_that_was_not_saved_is_not_the_best():
    triggers, memory = triggers_of(Save(on_improvement=Improvement(monitor="loss"))), Memory()
    first, skipped, again = losses(0.5, 0.3, 0.4, name="loss")

    memory, _ = look(triggers, memory, first)
    memory = saved(memory, first, None)
    memory, _ = look(triggers, memory, skipped)
    memory, reasons = look(triggers, memory, again)

    assert reasons == ("on_improvement: loss 0.5 -> 0.4",)


def test_a_better_value_that_was_saved_for_another_reason_is_the_best():
    save = Save(every_n_steps=2, on_improvement=Improvement(monitor="loss", min_interval=5))

    found = run(save, losses(0.9, 0.8, 0.5, 0.6, 0.7, 0.6, 0.55, 0.6, 0.45, name="loss"))

    assert found == {
        0: ("on_improvement: loss first value -> 0.9",),
        2: ("every_n_steps: 2",),
        4: ("every_n_steps: 2",),
        6: ("every_n_steps: 2",),
        8: ("every_n_steps: 2", "on_improvement: loss 0.5 -> 0.45"),
    }


def test_a_value_that_was_skipped_is_not_saved_with_a_later_step():
    triggers, memory = triggers_of(Save(on_improvement=Improvement(monitor="loss"))), Memory()
    memory, _ = look(triggers, memory, Moment(step=1, time_s=1, metrics={"loss": 0.3}))
    memory, _ = look(triggers, memory, Moment(step=2, time_s=2))

    memory = saved(memory, Moment(step=2, time_s=2), None)

    assert look(triggers, memory, Moment(step=3, time_s=3, metrics={"loss": 0.4}))[1]


def test_a_run_that_begins_anew_at_an_earlier_step_need_not_wait():
    save = Save(on_improvement=Improvement(monitor="loss", min_interval=10))
    moments = [Moment(step=n, time_s=0, metrics={"loss": value}) for n, value in ((500, 0.5), (3, 0.4), (4, 0.3))]

    assert list(run(save, moments)) == [500, 3]


def test_a_save_of_another_step_takes_no_value_over():
    triggers, memory = triggers_of(Save(on_improvement=Improvement(monitor="loss"))), Memory()
    memory, _ = look(triggers, memory, *losses(0.5, name="loss"))

    memory = saved(memory, Moment(step=7, time_s=7.0), None)

    assert look(triggers, memory, Moment(step=8, time_s=8.0, metrics={"loss": 0.6}))[1]


def test_a_resumed_run_compares_with_the_best_of_before():
    save, memory = Save(on_improvement=Improvement(monitor="acc")), Memory()
    for moment in losses(0.7, 0.8, 0.75, name="acc"):
        memory, reasons = look(triggers_of(save), memory, moment)
        memory = saved(memory, moment, None) if reasons else memory

    assert list(run(save, losses(0.78, 0.8, 0.81, name="acc"), resumed(through_json(memory)))) == [2]


# ------------------------------------------------------------------------------------------------------------- on_plateau


@pytest.mark.parametrize(
    ("rule", "values", "expected"),
    [
        ({"patience": 2}, [0.5, 0.5, 0.5, 0.5, 0.5, 0.5], [2]),
        ({"patience": 2}, [0.5, 0.6, 0.7, 0.4, 0.4, 0.4, 0.4], [2, 5]),
        ({"patience": 1}, [0.5, 0.5, 0.4, 0.3, 0.3, 0.3], [1, 4]),
        ({"patience": 3}, [0.5, 0.6, 0.6, 0.4, 0.6, 0.6], []),
        ({"patience": 2, "min_delta": 0.1}, [0.5, 0.45, 0.42, 0.41], [2]),
        ({"patience": 2, "mode": "max"}, [0.5, 0.6, 0.6, 0.55], [3]),
        ({"patience": 2}, [0.5, NAN, None, INF, "nan", 0.5, None, 0.5], [7]),
        ({"patience": 1}, [NAN, NAN, None], []),
    ],
    ids=str,
)
def test_on_plateau_fires_once_when_a_metric_got_no_better(rule, values, expected: list[int]):
    save = Save(on_plateau=Plateau(monitor="val_loss", **rule))

    assert list(run(save, losses(*values))) == expected


def test_on_plateau_says_for_how_long():
    found = run(Save(on_plateau=Plateau(monitor="loss", patience=2)), losses(0.5, 0.6, 0.7, name="loss"))

    assert found == {2: ("on_plateau: loss no better than 0.5 for 2 observations",)}


def test_a_resumed_run_goes_on_counting_a_plateau_and_does_not_tell_it_twice():
    save, memory = Save(on_plateau=Plateau(monitor="loss", patience=3)), Memory()
    for moment in losses(0.5, 0.5, 0.5, name="loss"):
        memory, _ = look(triggers_of(save), memory, moment)

    assert list(run(save, losses(0.5, 0.5, 0.5, 0.5, name="loss"), resumed(through_json(memory)))) == [0]


# --------------------------------------------------------------------------------------------------------------- on_event


def test_on_event_fires_for_the_named_ones_alone():
    told = [set(), {"drift"}, {"lunch"}, {"pre_deploy", "drift", "lunch"}, set()]
    moments = [Moment(step=i, time_s=i, events=frozenset(names)) for i, names in enumerate(told)]

    assert run(Save(on_event=("pre_deploy", "drift")), moments) == {
        1: ("on_event: drift",),
        3: ("on_event: drift", "on_event: pre_deploy"),
    }


def test_what_comes_once_is_a_reason_until_a_save_is_taken():
    save = Save(on_event=("drift",), on_plateau=Plateau(monitor="loss", patience=1), every_n_steps=1)
    triggers, memory = triggers_of(save), Memory()
    told = Moment(step=1, time_s=1, events=frozenset({"drift"}), metrics={"loss": 1.0})

    memory, first = look(triggers, memory, told)
    memory, second = look(triggers, memory, Moment(step=2, time_s=2, metrics={"loss": 1.0}))
    memory = through_json(memory)
    memory, third = look(triggers, memory, Moment(step=3, time_s=3))
    memory = saved(memory, Moment(step=3, time_s=3), None)
    memory, fourth = look(triggers, memory, Moment(step=4, time_s=4))

    plateau = "on_plateau: loss no better than 1 for 1 observations"
    assert first == ("on_event: drift", "every_n_steps: 1")
    assert second == third == ("on_event: drift", plateau, "every_n_steps: 1")
    assert fourth == ("every_n_steps: 1",)


# ------------------------------------------------------------------------------------------------------------------ union


EVERYTHING = Save(
    every_n_steps=7,
    every_n_epochs=2,
    every_n_seconds=30,
    on_improvement=Improvement(monitor="loss", min_delta=0.01, min_interval=3),
    on_plateau=Plateau(monitor="acc", patience=2),
    on_event=("drift",),
    interval=Interval(mtbf_s=500),
)


def test_a_save_carries_all_its_reasons():
    before = Moment(step=0, time_s=0, epoch=1, metrics={"acc": 0.5})
    now = Moment(step=7, time_s=90, epoch=2, metrics={"loss": 0.5, "acc": 0.5}, events=frozenset({"drift"}))

    found = run(
        Save(
            every_n_steps=7,
            every_n_epochs=2,
            every_n_seconds=30,
            on_improvement=Improvement(monitor="loss"),
            on_plateau=Plateau(monitor="acc", patience=1),
            on_event=("drift",),
            interval=Interval(),
        ),
        [before, now],
    )

    assert [reason.split(":")[0] for reason in found[7]] == [
        "on_plateau",
        "on_event",
        "every_n_steps",
        "every_n_epochs",
        "every_n_seconds",
        "on_improvement",
        "interval",
    ]


def test_looking_does_not_change_a_memory():
    memory = Memory()
    told = Moment(step=7, time_s=31, epoch=2, metrics={"loss": 0.5, "acc": 1}, events=frozenset({"drift"}))

    after, _ = look(triggers_of(EVERYTHING), memory, told)
    saved(after, told, 1.0)

    assert memory == Memory()
    assert look(triggers_of(EVERYTHING), memory, told) == (after, look(triggers_of(EVERYTHING), memory, told)[1])
