"""What a collection tells the ledger before anything is marked, and what the ledger tells of collections before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ckptvcs.domain import fates
from ckptvcs.porcelain.doomed import names_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ckptvcs.domain.checkpoint import CheckpointId
    from ckptvcs.porcelain.ledger import Told
    from ckptvcs.porcelain.places import Place
    from ckptvcs.porcelain.retention import Verdict
    from ckptvcs.porcelain.survey import Survey

Parts = dict["CheckpointId", tuple[str, ...]]
"""Components of checkpoints."""


def new_drops(verdict: Verdict) -> Parts:
    """What is dropped and was not condemned before."""
    known = verdict.looked.account.dropped
    return {
        identifier: components
        for identifier, components in verdict.dropped().items()
        if set(components) - (known[identifier].components if identifier in known else frozenset())
    }


def with_objects(verdict: Verdict, parts: Parts, surveys: Iterable[Survey]) -> Parts:
    """Those of which something can go: the objects of the others are needed by somebody else, or are in no place here."""
    stored = {name for one in surveys for name in one.stored}
    found = {}
    for identifier, components in parts.items():
        names = names_of(verdict.looked.inventory.slim(identifier), components, whole=not verdict.kept[identifier])
        if not names.isdisjoint(stored):
            found[identifier] = components
    return found


def needed_again(verdict: Verdict, places: Iterable[Place]) -> Parts:
    """What is condemned or gone, as the ledger says, and neither any more.

    Condemned is not what something needs by now. Gone is not what somebody named since, and what is there: a sweep that was
    told of did not come to it, or it is back from the trash.
    """
    known = verdict.looked.account.dropped
    found = {}
    for identifier in sorted(known.keys() & verdict.kept.keys()):
        if again := (known[identifier].components - known[identifier].gone) & verdict.kept[identifier]:
            found[identifier] = tuple(sorted(again))
    places = list(places)
    for identifier in sorted(verdict.looked.again):
        gone = known[identifier].gone
        slim = verdict.looked.inventory.slim(identifier)
        left = names_of(slim, gone, whole=gone >= slim.parts.keys())
        for place in places:
            left -= {stored.name for stored in place.removal.stored(left)}
        if not left:
            found[identifier] = tuple(sorted({*found.get(identifier, ()), *gone}))
    return found


def told(
    verdict: Verdict,
    surveys: Sequence[Survey],
    dropped: Mapping[CheckpointId, tuple[str, ...]],
    again: Mapping[CheckpointId, tuple[str, ...]],
    *,
    run: str,
    policy: str,
    agreed: bool,
) -> list[Told]:
    """What the ledger is told before anything is marked; nothing where there is nothing to tell.

    Args:
        verdict: what was decided.
        surveys: what was found in each place.
        dropped: what is condemned now.
        again: what is neither condemned nor gone any more.
        run: the name of the collection.
        policy: what tells the policy from another.
        agreed: whether a person accepted a policy that is another one than before.
    """
    said: list[Told] = []
    for identifier, components in again.items():
        decided = verdict.decided.get(identifier)
        why = decided.reasons[0].text if decided is not None and decided.reasons else "it is needed again"
        said += [(fates.RESCUE, one) for one in fates.facts(run=run, of={identifier: components}, why=why)]
    why = f"no rule of policy {policy[:10]} keeps it"
    said += [(fates.CONDEMN, one) for one in fates.facts(run=run, of=dropped, why=why)]
    fresh = {one.place.name: {"objects": len(one.fresh), "bytes": one.fresh_bytes} for one in surveys if one.fresh}
    if said or fresh or agreed:
        said.insert(0, (fates.COLLECT, {"run": run, **_collected(verdict, policy), "condemned": fresh}))
    return said


def _collected(verdict: Verdict, policy: str) -> dict[str, Any]:
    refs = verdict.looked.refs
    elsewhere = sum(":" in ref for ref in refs)  # no name of a ref has one of its own
    return {"refs": len(refs), "remote_refs": elsewhere, "policy": policy}


def accepted(verdict: Verdict) -> str | None:
    """The policy that was obeyed last, by anybody; None if there was no collection."""
    said = verdict.looked.account.collected.values()
    return max(((one.time, one.policy) for one in said), default=(None, None))[1]
