"""What became of checkpoints: of what several entries say of one component the newest counts, in whatever order they come."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ckptvcs.domain import fates
from ckptvcs.domain.checkpoint import CheckpointId
from ckptvcs.domain.events import Event

ID, OTHER = CheckpointId("a" * 64), CheckpointId("b" * 64)


def event(op: str, n: int, *components: str, writer: str = "writer00", of: str = ID, **facts: Any) -> Event:
    said = {"run": "r", "components": list(components), "checkpoints": [of], "why": "no rule", **facts}
    time = f"2026-01-01T00:00:{n:02d}.000000+00:00"
    return Event(writer=writer, n=n, prev="", time=time, op=op, actor="", facts=said, seen={})


def dropped(*chains: list[Event]) -> dict[CheckpointId, fates.Dropped]:
    return fates.dropped(fates.together(fates.said_of_fates(chain) for chain in chains))


def test_condemned_then_swept_then_rescued():
    chain = [event("condemn", 1, "model", "optimizer"), event("sweep", 2, "optimizer"), event("rescue", 3, "model")]

    assert dropped(chain[:1])[ID].components == {"model", "optimizer"}
    assert dropped(chain[:1])[ID].gone == set()
    assert dropped(chain[:2])[ID].gone == {"optimizer"}
    assert dropped(chain)[ID].components == {"optimizer"}
    assert dropped([*chain, event("rescue", 4, "optimizer")]) == {}
    assert fates.rescued(fates.said_of_fates([*chain, event("rescue", 4, "optimizer")])) == {
        ID: "2026-01-01T00:00:04.000000+00:00"
    }


def test_a_sweep_that_left_copies_says_nothing_of_the_checkpoint():
    chain = [event("condemn", 1, "model"), event("sweep", 2, "model", gone=False)]

    assert dropped(chain)[ID].gone == set()


def test_what_is_not_understood_counts_for_nothing():
    strange = [event("condemn", 1, "model", of="no id"), event("condemn", 2, run=7), event("note", 3, "model")]

    assert dropped(strange) == {}


@given(
    st.lists(st.tuples(st.sampled_from(["condemn", "sweep", "rescue"]), st.sampled_from("abc"), st.integers(0, 2))),
    st.randoms(use_true_random=False),
)
def test_no_order_of_chains_changes_anything(said: list[tuple[str, str, int]], rng: random.Random):
    chains: list[list[Event]] = [[], [], []]
    for n, (op, component, chain) in enumerate(said, start=1):
        chains[chain].append(event(op, n, component, writer=f"writer{chain:02d}"))
    latest = {component: op for op, component, _ in said}
    expected = {component for component, op in latest.items() if op != "rescue"}
    shuffled = list(chains)
    rng.shuffle(shuffled)

    found = dropped(*shuffled)

    assert (found[ID].components if ID in found else set()) == expected
    assert (found[ID].gone if ID in found else set()) == {c for c in expected if latest[c] == "sweep"}


@given(st.integers(0, 1300), st.integers(1, 3))
def test_facts_have_their_limits(count: int, kinds: int):
    of = {CheckpointId(f"{n:064x}"): tuple(f"c{k}" for k in range(n % kinds + 1)) for n in range(count)}

    entries = list(fates.facts(run="r", of=of))

    assert all(len(entry["checkpoints"]) <= 500 for entry in entries)
    told = {i: tuple(entry["components"]) for entry in entries for i in entry["checkpoints"]}
    assert told == {i: tuple(sorted(components)) for i, components in of.items()}
