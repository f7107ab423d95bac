"""Laws of triggers: none is silenced, none is forgotten, and a resumed run decides as one that ran through."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from ckptvcs.domain.cost import best_interval_s, daly_interval_s, fraction_lost, interval_within_budget_s
from ckptvcs.domain.policy import Improvement, Interval, Plateau, Save
from ckptvcs.domain.triggers import Memory, Moment, Trigger, look, resumed, saved, triggers_of
from ckptvcs.errors import FormatError

_values = st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5, 1, 0, -1]) | st.floats(width=16)
_odd = st.sampled_from([math.nan, math.inf, -math.inf, "nan", "inf", "-inf"])
_metrics = st.dictionaries(st.sampled_from(["loss", "acc", "other"]), _values | _odd, max_size=3)
_events = st.frozensets(st.sampled_from(["drift", "stage_change", "lunch"]), max_size=2)


@st.composite
def histories(draw: st.DrawFn, *, max_size: int = 30) -> list[Moment]:
    """Moments with jumping steps, whole seconds, parts of epochs, metrics that are missing or no numbers, and events."""
    step, time_s, epoch, found = draw(st.integers(0, 50)), 0, 0.0, []
    for _ in range(draw(st.integers(0, max_size))):
        step += draw(st.integers(0, 9))
        time_s += draw(st.integers(0, 100))
        epoch += draw(st.sampled_from([0, 0.25, 0.5, 1]))
        found.append(
            Moment(
                step=step,
                time_s=float(time_s),
                epoch=draw(st.sampled_from([epoch, None])),
                metrics=draw(_metrics),
                events=draw(_events),
                save_cost_s=draw(st.sampled_from([None, 1.0, 2.0])),
            )
        )
    return found


_policies = st.builds(
    Save,
    every_n_steps=st.none() | st.integers(1, 20),
    every_n_epochs=st.none() | st.integers(1, 3),
    every_n_seconds=st.none() | st.integers(1, 300).map(float),
    on_improvement=st.none()
    | st.builds(
        Improvement,
        monitor=st.sampled_from(["loss", "acc"]),
        min_delta=st.sampled_from([0.0, 0.1]),
        min_interval=st.integers(0, 10),
    ),
    on_plateau=st.none() | st.builds(Plateau, monitor=st.sampled_from(["loss", "acc"]), patience=st.integers(1, 4)),
    on_event=st.sampled_from([(), ("drift",), ("drift", "stage_change")]),
    interval=st.none() | st.builds(Interval, mtbf_s=st.sampled_from([None, 100.0, 3600.0])),
)


def decisions(
    triggers: tuple[Trigger, ...], history: list[Moment], memory: Memory, skipped: list[bool]
) -> tuple[list[tuple[str, ...]], Memory]:
    """The reasons at each moment, and the memory at the end, where every save is taken that is not skipped."""
    found = []
    for moment, skip in zip(history, skipped, strict=True):
        memory, reasons = look(triggers, memory, moment)
        if reasons and not skip:
            memory = saved(memory, moment, None)
        found.append(reasons)
    return found, memory


@given(st.integers(1, 40), st.integers(0, 200), st.integers(1, 200))
def test_never_more_than_n_steps_pass_without_a_save(n: int, first: int, count: int):
    last, memory = first, Memory()

    for step in range(first, first + count):
        memory, reasons = look(triggers_of(Save(every_n_steps=n)), memory, Moment(step=step, time_s=0.0))
        last = step if reasons else last
        assert step - last < n or not step


@given(st.integers(1, 20), histories())
def test_each_multiple_of_n_is_saved_once_at_most_however_steps_jump(n: int, history: list[Moment]):
    memory, multiples = Memory(), []
    for moment in history:
        memory, reasons = look(triggers_of(Save(every_n_steps=n)), memory, moment)
        if reasons:
            multiples.append(moment.step // n)

    assert multiples == sorted(set(multiples))
    assert 0 not in multiples
    passed = {m.step // n for m in history[1:]} - {history[0].step // n} if history else set()
    assert passed <= set(multiples)


@given(_policies, histories(), st.data())
def test_a_union_of_rules_asks_when_one_of_them_asks(policy: Save, history: list[Moment], data: st.DataObject):
    rules = triggers_of(policy)
    union, alone = Memory(), [Memory() for _ in rules]

    for moment in history:
        union, reasons = look(rules, union, moment)
        each = []
        for i, rule in enumerate(rules):
            alone[i], own = look([rule], alone[i], moment)
            each.append(own)
        assert set(reasons) == {reason for own in each for reason in own}
        assert len(set(reasons)) == len(reasons)
        if reasons and data.draw(st.booleans()):
            union = saved(union, moment, None)
            alone = [saved(memory, moment, None) for memory in alone]


@given(_policies, histories(), st.data())
def test_a_memory_that_went_through_a_checkpoint_decides_the_same(
    policy: Save, history: list[Moment], data: st.DataObject
):
    rules = triggers_of(policy)
    skipped = [data.draw(st.booleans()) for _ in history]
    cut = data.draw(st.integers(0, len(history)))
    through, end = decisions(rules, history, Memory(), skipped)

    before, memory = decisions(rules, history[:cut], Memory(), skipped[:cut])
    memory = Memory.from_plain(json.loads(json.dumps(memory.to_plain(), allow_nan=False)))
    after, end_too = decisions(rules, history[cut:], memory, skipped[cut:])

    assert before + after == through
    assert end_too == end


@given(_policies, histories(), st.data())
def test_a_run_that_is_resumed_with_a_new_clock_decides_the_same(
    policy: Save, history: list[Moment], data: st.DataObject
):
    rules = triggers_of(policy)
    skipped = [data.draw(st.booleans()) for _ in history]
    cut = data.draw(st.integers(0, len(history)))
    through, _ = decisions(rules, history, Memory(), skipped)

    before, memory = decisions(rules, history[:cut], Memory(), skipped[:cut])
    began_s = memory.time_s
    later = [_moved(moment, began_s) for moment in history[cut:]]
    memory = resumed(memory, failures=memory.failures)
    after, _ = decisions(rules, later, memory, skipped[cut:])

    assert before + after == through


def _moved(moment: Moment, by_s: float) -> Moment:
    return Moment(
        step=moment.step,
        time_s=moment.time_s - by_s,
        epoch=moment.epoch,
        metrics=moment.metrics,
        events=moment.events,
        save_cost_s=moment.save_cost_s,
    )


@given(_policies, histories(), st.data())
def test_a_metric_that_is_no_number_is_as_if_it_were_missing(policy: Save, history: list[Moment], data: st.DataObject):
    def cleaned(moment: Moment) -> Moment:
        return Moment(
            step=moment.step,
            time_s=moment.time_s,
            epoch=moment.epoch,
            metrics={k: v for k, v in moment.metrics.items() if not isinstance(v, str) and math.isfinite(v)},
            events=moment.events,
            save_cost_s=moment.save_cost_s,
        )

    skipped = [data.draw(st.booleans()) for _ in history]

    with_odd = decisions(triggers_of(policy), history, Memory(), skipped)

    assert with_odd == decisions(triggers_of(policy), list(map(cleaned, history)), Memory(), skipped)


@given(histories(), st.sampled_from([0.0, 0.1]), st.integers(0, 10))
def test_improvements_that_are_saved_are_better_each_time(history: list[Moment], min_delta: float, min_interval: int):
    rules = triggers_of(
        Save(on_improvement=Improvement(monitor="loss", min_delta=min_delta, min_interval=min_interval))
    )
    memory, values, at = Memory(), [], []
    for moment in history:
        memory, reasons = look(rules, memory, moment)
        if reasons:
            memory = saved(memory, moment, None)
            values.append(moment.metrics["loss"])
            at.append(moment.step)

    assert all(
        after < before - min_delta or math.isclose(after, before - min_delta) for before, after in _pairs(values)
    )
    assert all(after - before >= min_interval for before, after in _pairs(at))
    seen = [v for m in history if isinstance(v := m.metrics.get("loss"), (int, float)) and math.isfinite(v)]
    assert bool(values) == bool(seen)


def _pairs(values: list) -> list[tuple]:
    return list(itertools.pairwise(values))


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
_fields = st.sampled_from(list(Memory().to_plain()))


@given(_json | st.dictionaries(_fields, _json, max_size=4))
@example({"step": 10**400})
@example({"time_s": 10**400})
def test_anything_is_a_memory_or_refused_as_none(plain: Any):
    try:
        memory = Memory.from_plain(plain)
    except FormatError:
        return
    assert Memory.from_plain(memory.to_plain()) == memory
    look(
        triggers_of(Save(every_n_steps=3, every_n_seconds=5.0, interval=Interval())), memory, Moment(step=1, time_s=1.0)
    )


_costs = st.floats(1e-3, 1e4)
_mtbfs = st.floats(1.0, 1e8)


@given(_costs, _mtbfs, st.floats(1e-4, 1.0))
def test_the_budget_is_kept_and_the_best_interval_is_none_but_these_two(cost_s: float, mtbf_s: float, overhead: float):
    interval_s = best_interval_s(cost_s, mtbf_s, overhead)

    assert interval_s in (daly_interval_s(cost_s, mtbf_s), interval_within_budget_s(cost_s, overhead))
    assert cost_s / interval_s <= overhead * (1 + 1e-9)


@given(_costs, st.floats(2.0, 1e6), st.floats(0.02, 50.0))
def test_no_other_interval_loses_much_less_than_that_of_daly(cost_s: float, times: float, factor: float):
    mtbf_s = cost_s * times
    best_s = daly_interval_s(cost_s, mtbf_s)

    other = fraction_lost(best_s * factor, cost_s, mtbf_s)

    assert 0 <= fraction_lost(best_s, cost_s, mtbf_s) <= other + 1e-4 <= 1 + 1e-4
