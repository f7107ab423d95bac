"""What is kept: the floor holds, rules only add, order changes nothing, and the reasons are all there are."""

from __future__ import annotations

import dataclasses
import math
import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ckptvcs.domain.checkpoint import CheckpointId
from ckptvcs.domain.keeping import Keep, KeepBest, Retain
from ckptvcs.domain.retention import Line, Member, Pin, View, decide, kept_components

NOW = 10_000_000.0
SPANS = ["30min", "1h", "1d", "1w"]


@st.composite
def members(draw: Any, count: int) -> list[Member]:
    found: list[Member] = []
    for number in range(count):
        before = [member.id for member in found]
        parents = draw(st.lists(st.sampled_from(before), max_size=2, unique=True)) if before else []
        found.append(
            Member(
                id=CheckpointId(f"{draw(st.integers(0, 15)):x}{number:03d}"),
                time=NOW - draw(st.floats(0, 3e6)),
                step=draw(st.none() | st.integers(0, 50)),
                metrics=draw(
                    st.dictionaries(
                        st.sampled_from(["loss", "accuracy"]), st.floats() | st.integers(-3, 3).map(float), max_size=2
                    )
                ),
                components={"model": "model", "optimizer": "optimizer"} if draw(st.booleans()) else {"model": "model"},
                parents=tuple(parents),
                complete=draw(st.booleans()),
            )
        )
    return found


@st.composite
def views(draw: Any) -> View:
    found = draw(members(draw(st.integers(1, 12))))
    ids = [member.id for member in found]
    lines = [
        Line(branch=branch, track=track, members=tuple(reversed(draw(st.lists(st.sampled_from(ids), unique=True)))))
        for branch, track in draw(
            st.lists(
                st.tuples(st.sampled_from(["main", "exp/a", "exp/b"]), st.sampled_from(["model", "ema"])),
                unique=True,
                max_size=4,
            )
        )
    ]
    pins = draw(st.dictionaries(st.sampled_from(ids), st.just([Pin(kind="mark", text="golden/base")]), max_size=2))
    return View(members={member.id: member for member in found}, lines=lines, pins=pins)


best = st.builds(KeepBest, monitor=st.sampled_from(["loss", "accuracy"]), n=st.integers(1, 3))
keeps = st.builds(
    dict,
    branches=st.sampled_from([("*",), ("main",), ("exp/*",)]),
    tracks=st.sampled_from([("*",), ("model",)]),
    keep_last=st.none() | st.integers(1, 4),
    keep_best=st.none() | best,
    keep_every_n_steps=st.none() | st.integers(1, 7),
    keep_every=st.none() | st.sampled_from(SPANS),
    keep_within=st.just("1d") | st.sampled_from(SPANS),
    components=st.sampled_from([(), ("model",), ("optimizer",)]),
    ttl=st.none() | st.sampled_from(SPANS),
).map(lambda values: Keep(**values))
policies = st.builds(
    Retain,
    keep=st.lists(keeps, min_size=1, max_size=3).map(tuple),
    eval_deadline=st.none() | st.sampled_from(SPANS),
)


def kept(view: View, retain: Retain) -> dict[CheckpointId, frozenset[str]]:
    """The components of each checkpoint that are kept."""
    return {i: kept_components(view.members[i], reasons) for i, reasons in decide(view, retain, now=NOW).items()}


@given(views(), policies)
def test_the_floor_holds(view: View, retain: Retain):
    found = kept(view, retain)

    def whole(identifier: CheckpointId) -> bool:
        return found[identifier] == set(view.members[identifier].components)

    for line in view.lines:
        assert all(whole(i) for i in line.members[:1]), "the newest"
        assert all(whole(i) for i in [i for i in line.members if view.members[i].complete][:1]), "the newest complete"
        for rules in retain.keep:
            if rules.keep_best is not None and line.branch.startswith(rules.branches[0].rstrip("*")):
                values = [(view.members[i].metrics.get(rules.keep_best.monitor, math.nan), i) for i in line.members]
                values = [(value, i) for value, i in values if math.isfinite(value)]
                if values and ("*" in rules.tracks or line.track in rules.tracks):
                    top = (min if rules.keep_best.direction == "min" else max)(value for value, _ in values)
                    assert any(whole(i) for value, i in values if value == top), "the best"
    for identifier in view.pins:
        assert whole(identifier), "what somebody needs"
    for member in view.members.values():
        children = {m.id for m in view.members.values() if member.id in m.parents}
        if len(children) > 1:
            assert whole(member.id), "where others were trained on from"


@given(views(), policies, keeps)
def test_a_rule_more_never_drops_anything(view: View, retain: Retain, more: Keep):
    before = kept(view, retain)
    after = kept(view, dataclasses.replace(retain, keep=(*retain.keep, more)))

    assert all(before[identifier] <= after[identifier] for identifier in before)


@given(views(), policies, st.randoms(use_true_random=False))
def test_no_order_changes_anything(view: View, retain: Retain, rng: random.Random):
    def shuffled(values: Any) -> list[Any]:
        values = list(values)
        rng.shuffle(values)
        return values

    other = View(
        members=dict(shuffled(view.members.items())),
        lines=shuffled(view.lines),
        pins=dict(shuffled(view.pins.items())),
    )

    assert decide(view, retain, now=NOW) == decide(
        other, dataclasses.replace(retain, keep=tuple(shuffled(retain.keep))), now=NOW
    )


@given(views(), policies)
def test_every_reason_is_one_and_there_are_no_others(view: View, retain: Retain):
    """Without the rules of a policy, the floor alone is left; and what has a rule as its only reason goes with that rule."""
    for identifier, reasons in decide(view, retain, now=NOW).items():
        by_floor = any(reason.floor for reason in reasons)
        without = [
            dataclasses.replace(retain, keep=tuple(k for k in retain.keep if k is not rules) or (_nothing(),))
            for rules in retain.keep
        ]
        for other in without:
            still = decide(view, other, now=NOW)[identifier]
            assert set(still) <= set(reasons), "a reason that was not listed"
        bare = decide(view, dataclasses.replace(retain, keep=(_nothing(),), eval_deadline=None), now=NOW)[identifier]
        assert all(reason.floor for reason in bare)
        assert bare == () or by_floor


def _nothing() -> Keep:
    """Rules that fit no branch."""
    return Keep(branches=("no such branch",), keep_last=1)


@given(views())
def test_without_a_policy_everything_stays(view: View):
    assert all(decide(view, None, now=NOW).values())


@given(views(), policies)
def test_time_that_passes_only_lets_go(view: View, retain: Retain):
    """What an age alone keeps goes; nothing that was let go comes back."""
    now, later = decide(view, retain, now=NOW), decide(view, retain, now=NOW + 1e6)

    assert all(set(later[identifier]) <= set(now[identifier]) for identifier in now)
