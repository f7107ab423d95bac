"""What a policy would have done: never more than keeping everything takes, never without the newest, and no use lost in time."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ckptvcs.domain.checkpoint import CheckpointId
from ckptvcs.domain.keeping import Keep, KeepBest, Retain
from ckptvcs.domain.reasons import Line, Member, Pin, View
from ckptvcs.domain.simulation import Cadence, Past, Use, ahead, simulate

DAY = 86400.0
START = 1_700_000_000.0


@st.composite
def pasts(draw: Any) -> Past:
    count = draw(st.integers(1, 15))
    ids = [CheckpointId(f"{n:03d}") for n in range(count)]
    members = {
        i: Member(
            id=i,
            time=START + n * draw(st.sampled_from([0.5, 1.0])) * DAY,
            step=n,
            metrics={"val_loss": draw(st.floats(0, 9))},
            components={"model": "model", "optimizer": "optimizer"},
        )
        for n, i in enumerate(ids)
    }
    pinned = draw(st.dictionaries(st.sampled_from(ids), st.floats(0, 30), max_size=2))
    uses = draw(st.lists(st.tuples(st.sampled_from(ids), st.floats(0, 40)), max_size=5))
    return Past(
        view=View(
            members=members,
            lines=(Line(branch="main", track="model", members=tuple(reversed(ids))),),
            pins={i: (Pin(kind="tag", text="t", source=f"tag {i}"),) for i in pinned},
            objects=lambda i, components: [(f"{i}/{c}", 10) for c in components] + [("frozen", 100)],
        ),
        pinned_at={(i, f"tag {i}"): START + days * DAY for i, days in pinned.items()},
        known_at={},
        uses=tuple(Use(time=START + days * DAY, checkpoint=i, what="restored") for i, days in uses),
    )


policies = st.builds(
    Retain,
    keep=st.builds(
        Keep,
        keep_last=st.integers(1, 4),
        keep_best=st.none() | st.builds(KeepBest, monitor=st.just("val_loss"), n=st.integers(1, 2)),
        components=st.sampled_from([(), ("model",)]),
    ).map(lambda keep: (keep,)),
    grace=st.sampled_from(["1h", "1d", "7d"]),
)


@given(pasts(), policies)
def test_it_is_never_more_than_everything_and_ends_with_the_newest(past: Past, retain: Retain):
    everything = simulate(past, None, start=START, end=START + 40 * DAY)
    found = simulate(past, retain, start=START, end=START + 40 * DAY)

    assert found.times == everything.times
    assert all(some <= every for some, every in zip(found.nbytes, everything.nbytes, strict=True))
    assert everything.nbytes[-1] == 100 + 20 * len(past.view.members)
    assert (everything.dropped, everything.lost) == (0, ())
    assert found.kept >= 1
    assert found.kept + found.dropped == len(past.view.members)
    assert found.gb_months <= everything.gb_months


@given(pasts(), policies)
def test_what_is_lost_was_used_after_it_went_and_a_longer_grace_loses_no_more(past: Past, retain: Retain):
    found = simulate(past, retain, start=START, end=START + 40 * DAY)
    patient = simulate(past, dataclasses.replace(retain, grace="52w"), start=START, end=START + 40 * DAY)

    for lost in found.lost:
        assert lost.gone_at < lost.use.time
        assert past.view.members[lost.use.checkpoint].time < lost.gone_at
    assert patient.lost == ()


def test_a_training_to_come_is_that_of_its_cadence():
    cadence = Cadence(every_s=3600, span_s=10 * DAY, components={"model": 1000, "optimizer": 2000}, shared=0.5)
    past = ahead(cadence, start=START, branch="main")
    everything = simulate(past, None, start=START, end=START + 10 * DAY)
    last = simulate(past, Retain(keep=(Keep(keep_last=3),), grace="1h"), start=START, end=START + 10 * DAY)

    assert len(past.view.members) == 240
    assert everything.nbytes[-1] == 1500 + 240 * 1500
    assert everything.gb_months < 240 * 3000 * 10 / 30 / 1e9
    assert 3 * 1500 < last.nbytes[-1] < 60 * 1500
