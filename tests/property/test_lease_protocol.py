"""The protocol of pushes and a collector, as a small model: every interleaving, with stalls and crashes, by breadth first.

The model is of what the page `remote-1` says, not of our code: that the code follows it is for `test_leases.py`. Ages are by the
clock of the store, and end at a cap. A state loses if a ref leads to an object that is not there, and no push that has not
acknowledged is about to look at it. Variants with a step left out must lose: a model in which nothing can be lost shows nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest

MAX_PUSH, GRACE = 2, 3
CAP = GRACE + 2
GONE = -1

IDLE, LEASED, LOOKED, SENT, IN_TIME, MOVED = range(6)
"""Steps of a push: before P1, after P1, P2, P3, P4 and P5."""
REST, MARKED, READ_LEASES, SWEEPING = range(4)
"""Steps of a collector."""


class Push(NamedTuple):
    step: int = IDLE
    object: int = 0
    age: int = 0


class Collector(NamedTuple):
    step: int = REST
    marks: frozenset[int] = frozenset()
    age: int = 0
    kill: frozenset[int] = frozenset()


class State(NamedTuple):
    objects: tuple[int, ...]
    """Age of each, or GONE."""
    refs: frozenset[int]
    pushes: tuple[Push, ...]
    orphans: frozenset[tuple[int, int]] = frozenset()
    """Leases of pushes that died: object and age."""
    collector: Collector = Collector()


@dataclass(frozen=True)
class Rules:
    """The protocol; each switch takes one step of it out."""

    obeys_marks: bool = True
    limits_time: bool = True
    settles: bool = True
    waits_for_collectors: bool = True
    reads_refs_again: bool = True
    reads_leases: bool = True
    waits_for_grace: bool = True
    dies_before_settling: bool = field(default=False)

    def following(self, s: State) -> Iterator[State]:
        yield self.tick(s)
        if s.refs:
            yield s._replace(refs=frozenset())  # a branch is deleted
        for i, push in enumerate(s.pushes):
            yield from self.push(s, i, push)
        yield from self.collect(s, s.collector)

    @staticmethod
    def tick(s: State) -> State:
        def older(age: int) -> int:
            return min(age + 1, CAP)

        return State(
            objects=tuple(age if age == GONE else older(age) for age in s.objects),
            refs=s.refs,
            pushes=tuple(p._replace(age=older(p.age)) if p.step else p for p in s.pushes),
            orphans=frozenset((o, older(age)) for o, age in s.orphans if age < MAX_PUSH),
            collector=s.collector._replace(age=older(s.collector.age)) if s.collector.step else s.collector,
        )

    def push(self, s: State, i: int, p: Push) -> Iterator[State]:
        def to(new: Push, **changes: object) -> State:
            return s._replace(pushes=(*s.pushes[:i], new, *s.pushes[i + 1 :]), **changes)

        marked = s.collector.step != REST and p.object in s.collector.marks
        whole = tuple(0 if n == p.object and age == GONE else age for n, age in enumerate(s.objects))
        if p.step == IDLE:
            yield from (to(Push(LEASED, n, 0)) for n in range(len(s.objects)))  # P1
        elif p.step == LEASED:
            yield to(Push() if self.obeys_marks and marked else p._replace(step=LOOKED))  # P2
        elif p.step == LOOKED:
            yield to(p._replace(step=SENT), objects=whole)  # P3
        elif p.step == SENT:
            late = self.limits_time and p.age >= MAX_PUSH
            yield to(Push(LEASED, p.object, 0) if late else p._replace(step=IN_TIME))  # P4
        elif p.step == IN_TIME:
            yield to(p._replace(step=MOVED) if self.settles else Push(), refs=s.refs | {p.object})  # P5
        elif p.age < MAX_PUSH:
            yield to(Push())  # P6, in time
        elif not (self.waits_for_collectors and marked):
            yield to(Push(), objects=whole)  # P6, late
        if p.step and (p.step != MOVED or self.dies_before_settling):
            yield to(Push(), orphans=s.orphans | ({(p.object, p.age)} if p.age < MAX_PUSH else set()))

    def collect(self, s: State, c: Collector) -> Iterator[State]:
        if c.step == REST:
            dead = frozenset(n for n, age in enumerate(s.objects) if age > GRACE and n not in s.refs)
            if dead:
                yield s._replace(collector=Collector(MARKED, dead))
        elif c.step == MARKED and (c.age > GRACE or not self.waits_for_grace):
            leases = {p.object for p in s.pushes if p.step and p.age < MAX_PUSH} | {o for o, _ in s.orphans}
            kill = c.marks - leases if self.reads_leases else c.marks
            yield s._replace(collector=c._replace(step=READ_LEASES, kill=kill))
        elif c.step == READ_LEASES:
            kill = c.kill - s.refs if self.reads_refs_again else c.kill
            yield s._replace(collector=c._replace(step=SWEEPING, kill=kill))
        elif c.step == SWEEPING and c.kill:
            victim = min(c.kill)
            objects = tuple(GONE if n == victim else age for n, age in enumerate(s.objects))
            yield s._replace(objects=objects, collector=c._replace(kill=c.kill - {victim}))
        elif c.step == SWEEPING:
            yield s._replace(collector=Collector())


def lost(s: State) -> bool:
    about_to_look = {p.object for p in s.pushes if p.step == MOVED}
    return any(s.objects[n] == GONE and n not in about_to_look for n in s.refs)


def loses(rules: Rules, *, pushes: int, objects: int) -> tuple[bool, int]:
    """Whether any state that can be reached loses, and how many states were looked at."""
    start = State((GONE,) * objects, frozenset(), (Push(),) * pushes)
    seen, left = {start}, deque([start])
    while left:
        for state in rules.following(left.popleft()):
            if state not in seen:
                if lost(state):
                    return True, len(seen)
                seen.add(state)
                left.append(state)
    return False, len(seen)


def test_nothing_is_lost_whoever_stalls_wherever():
    found, states = loses(Rules(), pushes=2, objects=1)

    assert not found
    assert states > 10_000


@pytest.mark.long
def test_nothing_is_lost_among_three():
    assert not loses(Rules(), pushes=3, objects=1)[0]


@pytest.mark.parametrize(
    "left_out",
    ["obeys_marks", "settles", "waits_for_collectors", "reads_refs_again"],
)
def test_every_step_is_needed(left_out: str):
    assert loses(Rules(**{left_out: False}), pushes=2, objects=1)[0]


def test_leases_or_the_grace_but_not_neither():
    assert not loses(Rules(reads_leases=False), pushes=2, objects=1)[0]
    assert loses(Rules(reads_leases=False, waits_for_grace=False), pushes=2, objects=1)[0]


def test_without_settling_a_limit_of_time_is_not_enough_and_with_it_none_is_needed():
    assert loses(Rules(settles=False), pushes=1, objects=1)[0]
    assert not loses(Rules(limits_time=False), pushes=2, objects=1)[0]


def test_who_dies_late_before_settling_is_what_is_left():
    """The next push of that clone looks at it again, which the model does not have."""
    assert loses(Rules(dies_before_settling=True), pushes=1, objects=1)[0]
