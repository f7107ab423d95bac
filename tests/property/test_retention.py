"""What is kept: the floor holds, rules only add, order changes nothing, and the reasons are all there are."""

from __future__ import annotations

import dataclasses
import math
import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ckptvcs.domain.checkpoint import CheckpointId
from ckptvcs.domain.keeping import Keep, KeepBest, Retain, TierLimits
from ckptvcs.domain.reasons import Line, Member, Pin, View
from ckptvcs.domain.retention import decide, kept_components
from ckptvcs.domain.rules import RULES

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


pin = st.sampled_from(["golden/base", "milestone/a"]).map(lambda n: Pin(kind="mark", text=n, source=f"tag {n}"))


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
    left = [i for i in reversed(ids) if all(i not in line.members for line in lines)]
    lines += [Line(branch="rest", track="model", members=tuple(left))] if left else []
    pins = draw(st.dictionaries(st.sampled_from(ids), st.lists(pin, min_size=1, max_size=2), max_size=2))
    compared = draw(st.sampled_from([(), (("loss", "min"),)]))
    return View(
        members={member.id: member for member in found},
        lines=lines,
        pins=pins,
        compared=compared,
        objects=lambda identifier, components: [(f"{identifier}/{c}", 10) for c in components] + [("frozen", 100)],
    )


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
    return {i: kept_components(view.members[i], one.reasons) for i, one in decide(view, retain, now=NOW).items()}


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
        compared=view.compared,
        objects=view.objects,
    )

    assert decide(view, retain, now=NOW) == decide(other, retain, now=NOW)
    assert kept(view, retain) == kept(other, dataclasses.replace(retain, keep=tuple(shuffled(retain.keep))))


@given(views(), policies, st.data())
def test_why_is_complete(view: View, retain: Retain, data: Any):
    """Whatever is removed, what is left of the reasons is what they said of their ends: no more, and no less."""
    decided = decide(view, retain, now=NOW)
    everything = sorted({source for one in decided.values() for reason in one.reasons for source in reason.sources})
    gone = data.draw(st.sets(st.sampled_from(everything))) if everything else set()

    after = decide(view, retain, now=NOW, without=gone)

    def shown(reasons: Any) -> set[Any]:  # a fork that lost one of three followers is told in other words
        return {(reason.floor, reason.kind, reason.components) for reason in reasons}

    for identifier, one in decided.items():
        assert shown(after[identifier].reasons) == shown(r for r in one.reasons if r.without(gone))
        listed = {source for reason in one.reasons for source in reason.sources}
        assert not one.reasons or not decide(view, retain, now=NOW, without=listed)[identifier].reasons


@given(views(), policies)
def test_what_is_taken_for_gone_is_what_really_goes(view: View, retain: Retain):
    """The oracle of `without`: a policy that never had the rule decides the same."""
    for place, keep in enumerate(retain.keep):
        for kind in RULES:
            if getattr(keep, kind) is None or sum(getattr(keep, other) is not None for other in RULES) < 2:
                continue
            other = dataclasses.replace(keep, **{kind: None})
            edited = dataclasses.replace(
                retain, keep=tuple(other if at == place else k for at, k in enumerate(retain.keep))
            )
            without = decide(view, retain, now=NOW, without=[f"retain.keep.{place}.{kind}"])
            assert without == decide(view, edited, now=NOW)


@given(views(), policies, st.integers(0, 400))
def test_a_limit_takes_the_oldest_of_what_the_floor_does_not_need(view: View, retain: Retain, limit: int):
    free = decide(view, retain, now=NOW)
    bound = decide(view, dataclasses.replace(retain, max_bytes=TierLimits(warm=f"{limit}B")), now=NOW)

    def size(decided: Any) -> int:
        kept = {i: kept_components(view.members[i], one.reasons) for i, one in decided.items()}
        return sum(10 * len(c) for c in kept.values()) + (100 if any(kept.values()) else 0)

    thinned = [i for i in free if bound[i].reasons != free[i].reasons]
    for identifier, one in free.items():
        floored = [r for r in one.reasons if r.floor]
        assert set(floored) <= set(bound[identifier].reasons) <= set(one.reasons)
        assert {o.reason for o in bound[identifier].overruled} == set(one.reasons) - set(bound[identifier].reasons)
    assert size(bound) <= max(
        limit, size({i: type(free[i])(tuple(r for r in free[i].reasons if r.floor)) for i in free})
    )
    if thinned:  # no more than had to go: with the last of them it was too much
        newest = max(thinned, key=lambda i: (view.members[i].time, i))
        assert size({**bound, newest: free[newest]}) > limit
        left = [i for i in free if free[i].reasons and i not in thinned and not all(r.floor for r in free[i].reasons)]
        older = [i for i in left if (view.members[i].time, i) < (view.members[newest].time, newest)]
        for identifier in older:  # it stayed because all that rules keep of it is needed anyway
            floored = [r for r in free[identifier].reasons if r.floor]
            assert kept_components(view.members[identifier], floored) == kept_components(
                view.members[identifier], free[identifier].reasons
            )


def _nothing() -> Keep:
    """Rules that fit no branch."""
    return Keep(branches=("no such branch",), keep_last=1)


@given(views())
def test_without_a_policy_everything_stays(view: View):
    assert all(one.reasons for one in decide(view, None, now=NOW).values())


@given(views(), policies)
def test_time_that_passes_only_lets_go(view: View, retain: Retain):
    """What an age alone keeps goes; nothing that was let go comes back."""
    now, later = decide(view, retain, now=NOW), decide(view, retain, now=NOW + 1e6)

    assert all(set(later[i].reasons) <= set(now[i].reasons) for i in now)
