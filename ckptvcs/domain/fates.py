"""What became of checkpoints that no policy keeps any more: condemned, swept, or rescued, as entries of the ledger say.

Each entry is about some components of some checkpoints. Of what several say about one component, the newest counts. That a
component is gone is said only when its last copy went.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ckptvcs.digest import is_digest
from ckptvcs.domain.checkpoint import CheckpointId
from ckptvcs.domain.provenance import Entry

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from ckptvcs.domain.events import Event

CONDEMN: Final = "condemn"
SWEEP: Final = "sweep"
RESCUE: Final = "rescue"
COLLECT: Final = "collect"
"""The operation of an entry that tells what a collection found before it did anything."""

_IDS_PER_ENTRY: Final = 500


class Fate(Entry, frozen=True):
    """What one entry says of one checkpoint."""

    op: str
    components: tuple[str, ...]
    time: str
    writer: str
    n: int
    run: str
    """Of the collection."""
    why: str

    @property
    def age(self) -> tuple[str, str, int]:
        """By which the newest is found."""
        return self.time, self.writer, self.n


Fates = dict[CheckpointId, tuple[Fate, ...]]
"""By checkpoint, those that say something no newer one says, oldest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """What of a checkpoint is condemned or gone."""

    components: frozenset[str]
    """All of it."""
    gone: frozenset[str]
    """Those of which the last copy went."""
    time: str
    """When the last of it was condemned or swept, as in an entry."""
    why: str
    run: str

    def without(self, components: Collection[str]) -> Dropped:
        """The same, as if these components had not been dropped."""
        return replace(self, components=self.components.difference(components), gone=self.gone.difference(components))


class Collected(Entry, frozen=True):
    """The last collection of one writer."""

    time: str
    refs: int
    """Branches and tags that it saw, here and at git remotes."""
    remote_refs: int
    """Those at git remotes, which are the same for whoever looks; 0 if none was asked."""
    policy: str
    """The policy that it obeyed."""


class _CollectFacts(msgspec.Struct, frozen=True):
    refs: int
    policy: str
    remote_refs: int = 0


def last_collected(events: Iterable[Event], *, onto: Collected | None = None) -> Collected | None:
    """The last collection that the entries of one chain tell of; None if there was none."""
    for event in events:
        if event.op == COLLECT:
            try:
                said = msgspec.convert(event.facts, _CollectFacts)
            except msgspec.ValidationError:
                continue
            onto = Collected(time=event.time, refs=said.refs, remote_refs=said.remote_refs, policy=said.policy)
    return onto


class _Facts(msgspec.Struct, frozen=True):
    run: str
    components: tuple[str, ...]
    checkpoints: tuple[str, ...]
    why: str = ""
    gone: bool = True


def facts(
    *, run: str, of: Mapping[CheckpointId, Sequence[str]], why: str = "", more: Mapping[str, Any] | None = None
) -> Iterator[dict[str, Any]]:
    """The facts of the entries that tell of the components of some checkpoints; each entry has its limits."""
    groups: dict[tuple[str, ...], list[CheckpointId]] = {}
    for identifier, components in of.items():
        groups.setdefault(tuple(sorted(components)), []).append(identifier)
    for group, ids in sorted(groups.items()):
        for start in range(0, len(ids), _IDS_PER_ENTRY):
            some = sorted(ids)[start : start + _IDS_PER_ENTRY]
            yield {"run": run, "components": list(group), "checkpoints": some, "why": why, **(more or {})}


def said_of_fates(events: Iterable[Event], *, onto: Fates | None = None) -> Fates:
    """What the entries of one chain say; what we do not understand counts for nothing.

    Args:
        events: entries of one chain, in order.
        onto: what its entries before these say; it is not changed.
    """
    found: Fates = dict(onto or {})
    for event in events:
        said = _said(event)
        for identifier in said.checkpoints if said is not None else ():
            assert said is not None
            fate = Fate(
                op=event.op,
                components=said.components,
                time=event.time,
                writer=event.writer,
                n=event.n,
                run=said.run,
                why=said.why,
            )
            found[CheckpointId(identifier)] = _newest((*found.get(CheckpointId(identifier), ()), fate))
    return found


def _said(event: Event) -> _Facts | None:
    if event.op not in (CONDEMN, SWEEP, RESCUE):
        return None
    try:
        said = msgspec.convert(event.facts, _Facts)
    except msgspec.ValidationError:
        return None
    if event.op == SWEEP and not said.gone:
        return None
    return said if all(map(is_digest, said.checkpoints)) else None


def _newest(fates: Iterable[Fate]) -> tuple[Fate, ...]:
    """Those that say something of a component of which no newer one says anything, oldest first."""
    seen: set[str] = set()
    found: list[Fate] = []
    for fate in sorted(fates, key=lambda one: one.age, reverse=True):
        if not seen.issuperset(fate.components):
            found.insert(0, fate)
            seen.update(fate.components)
    return tuple(found)


def together(chains: Iterable[Fates]) -> Fates:
    """What several chains say, in whatever order they are given."""
    found: Fates = {}
    for chain in chains:
        for identifier, fates in chain.items():
            known = found.get(identifier)
            found[identifier] = fates if known is None else _newest((*known, *fates))
    return found


def dropped(fates: Fates) -> dict[CheckpointId, Dropped]:
    """What of each checkpoint is condemned or gone."""
    found = ((identifier, _resolved(some)) for identifier, some in fates.items())
    return {identifier: one for identifier, one in found if one is not None}


def rescued(fates: Fates) -> dict[CheckpointId, str]:
    """When checkpoints were rescued of which the newest word is that, as in an entry."""
    newest = ((identifier, some[-1]) for identifier, some in fates.items() if some)
    return {identifier: fate.time for identifier, fate in newest if fate.op == RESCUE}


def _resolved(fates: Sequence[Fate]) -> Dropped | None:
    latest = {component: fate for fate in fates for component in fate.components}
    down = {component: fate for component, fate in latest.items() if fate.op != RESCUE}
    if not down:
        return None
    last = max(down.values(), key=lambda one: one.age)
    whys = [fate.why for fate in sorted(down.values(), key=lambda one: one.age) if fate.why]
    return Dropped(
        components=frozenset(down),
        gone=frozenset(component for component, fate in down.items() if fate.op == SWEEP),
        time=last.time,
        why=whys[-1] if whys else "",
        run=last.run,
    )
