"""The protocol of pushes and collectors is safe in every interleaving, and each of its steps is needed.

What is searched is the model of `tests/support/protocol.py`; that the code survives what the worse protocols do not is for
`tests/fault/test_gc_replay.py`. Objects have no minimum age before they are condemned: no search finds that one is needed.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.protocol import MUTANTS, ONE_STEP, Rules, count, search

REAL = Rules()
WITH_TRASH = Rules(has_trash=True, dies_before_settling=True, stalls_end=True)


def test_nothing_is_lost_whoever_stalls_or_dies_wherever():
    found = search(REAL, pushes=2)

    assert found.is_safe, found
    assert found.states > 15_000


@pytest.mark.long
@pytest.mark.parametrize(("pushes", "objects"), [(3, 1), (2, 2)])
def test_nothing_is_lost_among_more(pushes: int, objects: int):
    found = count(REAL, pushes=pushes, objects=objects)

    assert found.is_safe, found
    assert found.states > 40_000


@pytest.mark.parametrize("pushes", [1, pytest.param(2, marks=pytest.mark.long)])
def test_nothing_is_lost_beside_two_collectors(pushes: int):
    """Each sweeps what it has condemned itself: the marks of the other keep pushes away until it is done."""
    found = count(REAL, pushes=pushes, objects=1, collectors=2)

    assert found.is_safe, found


@pytest.mark.parametrize("name", MUTANTS)
def test_every_step_is_needed(name: str):
    mutant = MUTANTS[name]

    found = search(mutant.rules, pushes=2 if mutant.collectors == 1 else 1, collectors=mutant.collectors)

    assert len(found.trace) == mutant.steps, found


def test_leases_or_the_grace_but_not_neither():
    """Either is enough where ages are looked at before anybody is asked; that they are is what `ages first` is about.

    The grace is what pushes past marks of a short time ago rest on, too.
    """
    assert search(replace(REAL, reads_leases=False), pushes=2).is_safe
    assert search(replace(REAL, waits_for_grace=False, passes_young_marks=False), pushes=2).is_safe
    assert not search(replace(REAL, waits_for_grace=False), pushes=2).is_safe


def test_who_moves_in_one_step_with_a_look_at_the_clock_need_not_settle():
    """The protocol of those who cannot be stopped between P4 and P5, which nobody is on a real machine."""
    assert search(ONE_STEP, pushes=2).is_safe


def test_without_settling_a_limit_of_time_is_not_enough_and_with_it_none_is_needed():
    assert search(replace(REAL, limits_time=False), pushes=2).is_safe
    assert not search(replace(REAL, settles=False), pushes=1).is_safe


# --------------------------------------------------------------------------------------------------------------- trash


@pytest.mark.parametrize("pushes", [1, pytest.param(2, marks=pytest.mark.long)])
def test_of_who_dies_late_before_settling_all_comes_back_from_the_trash(pushes: int):
    """Only who then slept for longer than grace and trash together, awoke, moved the refs and died, could lose something."""
    found = count(WITH_TRASH, pushes=pushes, objects=1)

    assert found.is_safe, found


@pytest.mark.parametrize("change", ["has_trash", "looks_before_purge", "ages_first", "stalls_end"])
def test_of_who_dies_late_nothing_comes_back_without(change: str):
    assert not search(replace(WITH_TRASH, **{change: False}), pushes=1).is_safe


def test_marks_are_removed_by_hand_only_where_the_collector_is_dead():
    assert not search(replace(REAL, marks_are_removed=True), pushes=1).is_safe
