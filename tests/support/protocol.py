"""The protocol of pushes and collectors, as a small model: every interleaving, with stalls and crashes, by breadth first.

The model is of what the pages `remote-1` and `garbage-collection` say, not of our code. Ages are by the clock of the store, and
end at a cap. A state loses if a ref leads to an object that is not there, not in the trash, and that no push which has not
acknowledged is about to look at. Each switch takes one step of the protocol out, or puts a mishap in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

MAX_PUSH, GRACE, TRASH = 1, 2, 2
"""In ticks of the clock."""

IDLE, LEASED, LOOKED, SENT, IN_TIME, MOVED = range(6)
"""Steps of a push: before P1, after P1, P2, P3, P4 and P5."""
REST, KNOWS_LEASES, KNOWS_REFS, SURVEYED, SWEEPS, SWEPT = range(6)
"""Steps of a run of a collector."""
GONE, OLD, NEW = range(3)
"""An object: not there; there since before the last marks; or written after them."""

Objects = frozenset[int]


class Push(NamedTuple):
    step: int = IDLE
    object: int = 0
    age: int = 0


class Collector(NamedTuple):
    """One collector: its marks, which stand between its runs, and what it knows in the run that is under way."""

    step: int = REST
    marks: Objects = frozenset()
    age: int = 0
    """Of the marks."""
    leased: Objects = frozenset()
    needed: Objects = frozenset()
    due: bool = False
    """Whether the marks were old enough when the run began."""
    others: Objects = frozenset()
    """What others had condemned then."""
    old: Objects = frozenset()
    """What was in the trash for long enough then."""
    kill: Objects = frozenset()
    fresh: Objects = frozenset()


class State(NamedTuple):
    objects: tuple[int, ...]
    refs: Objects
    pushes: tuple[Push, ...]
    collectors: tuple[Collector, ...]
    orphans: frozenset[tuple[int, int]] = frozenset()
    """Leases of pushes that died: object and age."""
    trash: frozenset[tuple[int, int]] = frozenset()
    """What is in it, and for how long."""


To = Callable[..., State]


class Step(NamedTuple):
    """What happened: to whom, what, and with which object."""

    who: str
    act: str
    object: int = -1

    def __str__(self) -> str:
        return f"{self.who} {self.act}" + (f" o{self.object}" if self.object >= 0 else "")


@dataclass(frozen=True)
class Rules:
    """The protocol, as the code has it; each switch changes one thing."""

    obeys_marks: bool = True
    passes_young_marks: bool = True
    """Whether a push may need what was condemned so short a time ago that nobody sweeps it before the push is over."""
    limits_time: bool = True
    stalls: bool = True
    """Whether time may pass between the look at the age of a lease and the push of the refs."""
    settles: bool = True
    waits_for_collectors: bool = True
    reads_refs_again: bool = True
    reads_leases: bool = True
    leases_first: bool = True
    waits_for_grace: bool = True
    sweeps_own_marks_alone: bool = True
    spares_what_is_new: bool = True
    has_trash: bool = False
    looks_before_purge: bool = True
    ages_first: bool = True
    """Whether it is looked at how old marks and trash are before anybody is asked what is needed."""
    dies_before_settling: bool = False
    stalls_end: bool = False
    """Whether who stalls for longer than grace and trash together is dead."""
    marks_are_removed: bool = False
    """By somebody who takes the collector for dead."""

    # ------------------------------------------------------------------------------------------------------------ all

    def following(self, s: State) -> Iterator[tuple[Step, State]]:
        if not (self.stalls_end and any(p.step == IN_TIME and p.age > GRACE for p in s.pushes)):
            yield Step("clock", "tick"), self._tick(s)
        if s.refs:
            yield Step("hub", "drop"), s._replace(refs=frozenset())
        for i, push in enumerate(s.pushes):
            yield from self._push(s, i, push)
        for i, collector in enumerate(s.collectors):
            yield from self._collect(s, i, collector)
            yield from self._mishaps(s, i, collector)

    def _tick(self, s: State) -> State:
        most = GRACE + 1 if self.stalls_end else MAX_PUSH
        return s._replace(
            pushes=tuple(p._replace(age=min(p.age + 1, most)) if p.step else p for p in s.pushes),
            orphans=frozenset((o, age + 1) for o, age in s.orphans if age + 1 < MAX_PUSH),
            collectors=tuple(c._replace(age=min(c.age + 1, GRACE)) if c.marks else c for c in s.collectors),
            trash=frozenset((o, min(age + 1, TRASH)) for o, age in s.trash),
        )

    # --------------------------------------------------------------------------------------------------------- pushes

    def _push(self, s: State, i: int, p: Push) -> Iterator[tuple[Step, State]]:
        who = f"p{i}"

        def to(new: Push, **changes: Any) -> State:
            return s._replace(pushes=(*s.pushes[:i], new, *s.pushes[i + 1 :]), **changes)

        if p.step == IDLE:
            yield from ((Step(who, "lease", n), to(Push(LEASED, n))) for n in range(len(s.objects)))  # P1
        elif p.step == LEASED:
            yield (
                Step(who, "look"),
                to(Push() if self.obeys_marks and self._stops(s, p) else p._replace(step=LOOKED)),
            )  # P2
        elif p.step == LOOKED:
            yield Step(who, "send"), to(p._replace(step=SENT), objects=_whole(s, p))  # P3
        else:
            yield from self._end(s, who, p, to)
        if p.step and (p.step != MOVED or self.dies_before_settling):
            left = {(p.object, p.age)} if p.age < MAX_PUSH else set()
            yield Step(who, "die"), to(Push(), orphans=s.orphans | left)

    def _stops(self, s: State, p: Push) -> bool:
        """Whether marks are in the way of a push: those of which the grace may end while it is under way."""
        ages = [c.age for c in s.collectors if p.object in c.marks]
        return any(not self.passes_young_marks or age + MAX_PUSH >= GRACE for age in ages)

    def _end(self, s: State, who: str, p: Push, to: To) -> Iterator[tuple[Step, State]]:
        if p.step == SENT and self.limits_time and p.age >= MAX_PUSH:
            yield Step(who, "begin anew"), to(Push(LEASED, p.object))  # P4, late
        elif p.step == SENT and self.stalls:
            yield Step(who, "in time"), to(p._replace(step=IN_TIME))  # P4
        elif p.step in (SENT, IN_TIME):
            yield Step(who, "move"), to(p._replace(step=MOVED) if self.settles else Push(), refs=s.refs | {p.object})
        elif p.age < MAX_PUSH:
            yield Step(who, "settle"), to(Push())  # P6, in time, and P7
        elif not (self.waits_for_collectors and _is_marked(s, p)):
            yield Step(who, "settle"), to(Push(), objects=_whole(s, p))  # P6, late, and P7

    # ------------------------------------------------------------------------------------------------------ collectors

    def _collect(self, s: State, i: int, c: Collector) -> Iterator[tuple[Step, State]]:
        who = f"gc{i}"

        def to(new: Collector, **changes: Any) -> State:
            if new.step == REST:
                new = Collector(marks=new.marks, age=new.age if new.marks else 0)
            return s._replace(collectors=(*s.collectors[:i], new, *s.collectors[i + 1 :]), **changes)

        if c.step == REST:
            if any(s.objects) or s.trash:
                yield self._ask(s, who, self._begun(s, i, c), KNOWS_LEASES, to, leases=self.leases_first)
        elif c.step == KNOWS_LEASES:
            yield self._ask(s, who, c, KNOWS_REFS, to, leases=not self.leases_first)
        elif c.step == KNOWS_REFS:
            yield Step(who, "survey"), to(self._surveyed(s, i, c))
        elif c.step == SURVEYED:
            yield from self._empty(s, who, c, to)
        elif c.step == SWEEPS:
            yield from self._sweep(s, who, c, to)
        else:
            marks = c.marks | c.fresh
            objects = tuple(OLD if n in c.fresh and one == NEW else one for n, one in enumerate(s.objects))
            changes = {"objects": objects} if c.fresh else {}
            yield (
                Step(who, "mark" if c.fresh else "end"),
                to(c._replace(step=REST, marks=marks, age=0 if c.fresh else c.age), **changes),
            )

    def _mishaps(self, s: State, i: int, c: Collector) -> Iterator[tuple[Step, State]]:
        def to(new: Collector) -> State:
            return s._replace(collectors=(*s.collectors[:i], new, *s.collectors[i + 1 :]))

        if c.step != REST:
            yield Step(f"gc{i}", "die"), to(Collector(marks=c.marks, age=c.age))
        if self.marks_are_removed and c.marks:
            yield Step("person", f"removes the marks of gc{i}"), to(c._replace(marks=frozenset()))

    def _begun(self, s: State, i: int, c: Collector) -> Collector:
        others = [one for n, one in enumerate(s.collectors) if n != i]
        old = c.age >= GRACE or not self.waits_for_grace
        return c._replace(
            due=(bool(c.marks) and old)
            or (not self.sweeps_own_marks_alone and any(one.age >= GRACE for one in others)),
            others=frozenset[int]().union(*(one.marks for one in others)),
            old=frozenset(o for o, age in s.trash if age >= TRASH),
        )

    def _ask(self, s: State, who: str, c: Collector, step: int, to: To, *, leases: bool) -> tuple[Step, State]:
        known = {"leased": self._leased(s)} if leases else {"needed": self._needed(s, c)}
        return Step(who, "leases" if leases else "refs"), to(c._replace(step=step, **known))

    def _leased(self, s: State) -> Objects:
        if not self.reads_leases:
            return frozenset()
        counting = {p.object for p in s.pushes if p.step and p.age < MAX_PUSH}
        return frozenset(counting | {o for o, age in s.orphans if age < MAX_PUSH})

    def _needed(self, s: State, c: Collector) -> Objects:
        """What refs lead to; who does not read them again believes of what is marked that it is not needed."""
        return s.refs if self.reads_refs_again else s.refs - c.marks

    def _surveyed(self, s: State, i: int, c: Collector) -> Collector:
        """What the survey of a place finds: it looks at marks and objects after leases and refs are known."""
        c = c if self.ages_first else self._begun(s, i, c)
        marks = c.marks if self.sweeps_own_marks_alone else c.marks | c.others
        due = marks if c.due else frozenset()
        there = {n for n, one in enumerate(s.objects) if one != GONE}
        new = {n for n in there if s.objects[n] == NEW} if self.spares_what_is_new else set()
        return c._replace(
            step=SURVEYED if self.has_trash else SWEEPS,
            leased=frozenset(),
            needed=c.needed if self.has_trash else frozenset(),
            others=frozenset(),
            kill=frozenset((due & there) - c.needed - c.leased - new),
            fresh=frozenset(there - c.needed - c.leased - c.marks - c.others),
        )

    def _empty(self, s: State, who: str, c: Collector, to: To) -> Iterator[tuple[Step, State]]:
        needed = c.needed if self.looks_before_purge else frozenset()
        back = {o for o, _ in s.trash if o in needed and s.objects[o] == GONE}
        done = {(o, age) for o, age in s.trash if o in c.old or o in back}
        objects = tuple(NEW if n in back else one for n, one in enumerate(s.objects))
        swept = c._replace(step=SWEEPS, needed=frozenset(), old=frozenset())
        yield Step(who, "empty"), to(swept, objects=objects, trash=s.trash - done)

    def _sweep(self, s: State, who: str, c: Collector, to: To) -> Iterator[tuple[Step, State]]:
        if c.kill:
            victim = min(c.kill)
            objects = tuple(GONE if n == victim else one for n, one in enumerate(s.objects))
            there = s.objects[victim] != GONE
            trash = s.trash | {(victim, 0)} if self.has_trash and there else s.trash
            yield Step(who, "sweep", victim), to(c._replace(kill=c.kill - {victim}), objects=objects, trash=trash)
        else:  # the marks that were due go
            yield Step(who, "forget"), to(c._replace(step=SWEPT, due=False, marks=frozenset() if c.due else c.marks))


def _is_marked(s: State, p: Push) -> bool:
    return any(p.object in c.marks for c in s.collectors)


def _whole(s: State, p: Push) -> tuple[int, ...]:
    """The objects, with that of a push."""
    return tuple(NEW if n == p.object and one == GONE else one for n, one in enumerate(s.objects))


def lost(s: State) -> bool:
    """Whether something is lost for good."""
    about_to_look = {p.object for p in s.pushes if p.step == MOVED}
    in_trash = {o for o, _ in s.trash}
    return any(s.objects[n] == GONE and n not in about_to_look and n not in in_trash for n in s.refs)


@dataclass(frozen=True)
class Found:
    """What a search found."""

    states: int
    trace: tuple[Step, ...] = ()
    """The shortest way to a loss; empty if there is none."""

    @property
    def is_safe(self) -> bool:
        return not self.trace

    def __str__(self) -> str:
        return f"{self.states} states" + "".join(f" > {step}" for step in self.trace)


def search(rules: Rules, *, pushes: int, objects: int = 1, collectors: int = 1) -> Found:
    """Look at every state that can be reached, in the order of the steps that it takes. Pushes are alike, which saves states."""
    start = State((GONE,) * objects, frozenset(), (Push(),) * pushes, (Collector(),) * collectors)
    seen: dict[State, tuple[State, Step] | None] = {start: None}
    left = deque([start])
    while left:
        state = left.popleft()
        for step, after in rules.following(state):
            if after not in seen:
                seen[after] = (state, step)
                if lost(after):
                    return Found(len(seen), tuple(reversed(list(_back(seen, after)))))
                left.append(after)
    return Found(len(seen))


def count(rules: Rules, *, pushes: int, objects: int, collectors: int = 1) -> Found:
    """The same, without a trace: states that differ in nothing but who pushes, or in which object it is, count once."""
    start = State((GONE,) * objects, frozenset(), (Push(),) * pushes, (Collector(),) * collectors)
    seen = {start}
    left = deque([start])
    while left:
        for step, state in rules.following(left.popleft()):
            after = _alike(state, objects)
            if after not in seen:
                if lost(after):
                    return Found(len(seen), (step,))
                seen.add(after)
                left.append(after)
    return Found(len(seen))


def _alike(s: State, objects: int) -> State:
    """One for all states that are the same but for the names of pushes and of objects."""
    s = s._replace(pushes=tuple(sorted(s.pushes)))
    if objects == 1:
        return s
    return min(s, _swapped(s), key=hash)


def _swapped(s: State) -> State:
    def of(some: Objects) -> Objects:
        return frozenset(1 - o for o in some)

    return State(
        objects=s.objects[::-1],
        refs=of(s.refs),
        pushes=tuple(sorted(p._replace(object=1 - p.object) if p.step else p for p in s.pushes)),
        collectors=tuple(
            Collector(
                c.step,
                of(c.marks),
                c.age,
                of(c.leased),
                of(c.needed),
                c.due,
                *map(of, (c.others, c.old, c.kill, c.fresh)),
            )
            for c in s.collectors
        ),
        orphans=frozenset((1 - o, age) for o, age in s.orphans),
        trash=frozenset((1 - o, age) for o, age in s.trash),
    )


def _back(seen: dict[State, tuple[State, Step] | None], state: State) -> Iterator[Step]:
    at = seen[state]
    while at is not None:
        state, step = at
        yield step
        at = seen[state]


# --------------------------------------------------------------------------------------------------------------- mutants


@dataclass(frozen=True)
class Mutant:
    """A protocol that is worse by one thing, and in how few steps it loses something."""

    rules: Rules
    steps: int
    collectors: int = 1


ONE_STEP = Rules(stalls=False, settles=False)
"""The protocol without P6, for who cannot stall between P4 and P5."""
MUTANTS = {
    "pushes ignore marks": Mutant(Rules(obeys_marks=False), 21),
    "pushes ignore marks, in one step": Mutant(Rules(obeys_marks=False, stalls=False, settles=False), 19),
    "refs are not read again": Mutant(Rules(reads_refs_again=False), 18),
    "refs are not read again, in one step": Mutant(Rules(reads_refs_again=False, stalls=False, settles=False), 19),
    "no limit of time, in one step": Mutant(Rules(limits_time=False, stalls=False, settles=False), 16),
    "neither leases nor grace": Mutant(Rules(reads_leases=False, waits_for_grace=False), 15),
    "neither leases nor grace, in one step": Mutant(
        Rules(reads_leases=False, waits_for_grace=False, stalls=False, settles=False), 13
    ),
    "stalls without settling": Mutant(Rules(settles=False), 17),
    "settles beside collectors": Mutant(Rules(waits_for_collectors=False), 18),
    "dies before settling, without trash": Mutant(Rules(dies_before_settling=True), 18),
    "refs before leases, without grace": Mutant(Rules(leases_first=False, waits_for_grace=False), 19),
    "refs before leases, and ages last": Mutant(Rules(leases_first=False, ages_first=False), 21),
    "no leases, and ages last": Mutant(Rules(reads_leases=False, ages_first=False), 17),
    "sweeps what others condemned": Mutant(Rules(sweeps_own_marks_alone=False), 22, collectors=2),
}
