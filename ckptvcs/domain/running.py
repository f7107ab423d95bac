"""Training that is under way, as entries of the ledger say, and the checkpoints that it went on from."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from ckptvcs.digest import is_digest
from ckptvcs.domain.checkpoint import CheckpointId
from ckptvcs.domain.provenance import Entry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ckptvcs.domain.events import Event

START: Final = "run.start"
SAVE: Final = "save"
END: Final = "run.end"
LONGEST: Final = timedelta(days=30)
"""What began longer ago, and has not told of its end, is taken for dead."""


class Started(Entry, frozen=True):
    """A training that began."""

    run: str
    branch: str
    time: str
    parents: tuple[CheckpointId, ...]
    """What it went on from."""
    saved: bool = False
    """Whether it has saved since: from then on it has its branch for itself, in its clone, until it ends."""


Running = dict[str, Started]
"""What one chain says is under way, by the id of the run; what went on from nothing is not in it."""


class _Facts(msgspec.Struct, frozen=True):
    run: str
    run_id: str
    branch: str
    parents: tuple[str, ...] = ()


def said_of_runs(events: Iterable[Event], *, onto: Running | None = None) -> Running:
    """What the entries of one chain say; what we do not understand counts for nothing.

    Args:
        events: entries of one chain, in order.
        onto: what its entries before these say; it is not changed.
    """
    found = dict(onto or {})
    for event in events:
        if event.op not in (START, SAVE, END):
            continue
        try:
            facts = msgspec.convert(event.facts, _Facts)
        except msgspec.ValidationError:
            continue
        if event.op == SAVE:
            _saved(found, facts)
            continue
        found.pop(facts.run_id, None)
        if event.op == START and facts.parents and all(map(is_digest, facts.parents)):
            parents = tuple(map(CheckpointId, facts.parents))
            found[facts.run_id] = Started(run=facts.run, branch=facts.branch, time=event.time, parents=parents)
    return found


def _saved(found: Running, facts: _Facts) -> None:
    """Take down a save. Others that had saved to its branch have given it up: they are dead, or have gone to another one.

    Those that have not saved yet may be alive, and are kept.
    """
    for run_id in [i for i, other in found.items() if other.branch == facts.branch and other.saved]:
        if run_id != facts.run_id:
            del found[run_id]
    mine = found.get(facts.run_id)
    if mine is not None and mine.branch == facts.branch:
        found[facts.run_id] = msgspec.structs.replace(mine, saved=True)


def under_way(chains: Iterable[Running], now: datetime) -> Iterator[Started]:
    """Those that may still be under way."""
    since = (now - LONGEST).isoformat(timespec="microseconds")
    for chain in chains:
        yield from (started for started in chain.values() if started.time > since)
