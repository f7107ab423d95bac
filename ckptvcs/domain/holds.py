"""Holds: checkpoints that somebody needs whatever the policy says, until a day, or until they are released.

A release names the holds that its writer saw. So one that somebody else made meanwhile, without knowing, stands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from ckptvcs.digest import is_digest
from ckptvcs.domain.checkpoint import CheckpointId
from ckptvcs.domain.events import is_time
from ckptvcs.domain.provenance import Entry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ckptvcs.domain.events import Event

HOLD: Final = "hold"
RELEASE: Final = "release"


class Hold(Entry, frozen=True):
    """One hold: who made it is known by its entry."""

    checkpoint: CheckpointId
    commit: str
    """Where the checkpoint was found, as a git id."""
    until: str
    """UTC, as in an entry; empty if it has no end."""
    why: str
    time: str
    writer: str
    n: int
    """Its place in the chain of its writer."""
    actor: str

    @property
    def id(self) -> str:
        """What a release calls it."""
        return f"{self.writer}#{self.n}"

    def stands(self, now: str) -> bool:
        """Whether it has not run out at a time, as in an entry."""
        return not self.until or now < self.until


class Holds(Entry, frozen=True):
    """What one chain says of holds: those that it made, and those that it released, its own or others'."""

    made: dict[str, Hold] = msgspec.field(default_factory=dict)
    released: tuple[str, ...] = ()


class _HoldFacts(msgspec.Struct, frozen=True):
    checkpoint: str
    commit: str
    why: str
    until: str = ""


class _ReleaseFacts(msgspec.Struct, frozen=True):
    holds: list[str]


def said_of_holds(events: Iterable[Event], *, onto: Holds | None = None) -> Holds:
    """What the entries of one chain say of holds; what is no hold that we know counts for nothing.

    Args:
        events: entries of one chain, in order.
        onto: what its entries before these say; it is not changed.
    """
    made, released = dict(onto.made) if onto else {}, list(onto.released) if onto else []
    for event in events:
        if event.op == HOLD and (hold := _hold(event)) is not None:
            made[hold.id] = hold
        elif event.op == RELEASE:
            released += _released(event)
    return Holds(made=made, released=tuple(released))


def _hold(event: Event) -> Hold | None:
    try:
        facts = msgspec.convert(event.facts, _HoldFacts)
    except msgspec.ValidationError:
        return None
    if not is_digest(facts.checkpoint) or (facts.until and not is_time(facts.until)):
        return None
    return Hold(
        checkpoint=CheckpointId(facts.checkpoint),
        commit=facts.commit,
        until=facts.until,
        why=facts.why,
        time=event.time,
        writer=event.writer,
        n=event.n,
        actor=event.actor,
    )


def _released(event: Event) -> list[str]:
    try:
        return msgspec.convert(event.facts, _ReleaseFacts).holds
    except msgspec.ValidationError:
        return []


def standing(chains: Iterable[Holds], now: str) -> dict[CheckpointId, tuple[Hold, ...]]:
    """The holds that stand at a time, by checkpoint, oldest first; in whatever order chains are given.

    Args:
        chains: from `said_of_holds`.
        now: as in an entry.
    """
    chains = list(chains)
    released = {one for chain in chains for one in chain.released}
    holds = [hold for chain in chains for hold in chain.made.values() if hold.id not in released and hold.stands(now)]
    found: dict[CheckpointId, tuple[Hold, ...]] = {}
    for hold in sorted(holds, key=lambda hold: (hold.time, hold.writer, hold.n)):
        found[hold.checkpoint] = (*found.get(hold.checkpoint, ()), hold)
    return found
