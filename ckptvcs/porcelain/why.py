"""`why`: everything that keeps a checkpoint or condemns it, and what would follow if that were gone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ckptvcs.domain import retention
from ckptvcs.domain.retention import Decision, kept_components
from ckptvcs.porcelain import view
from ckptvcs.porcelain.checkpoints import require_checkpoint

if TYPE_CHECKING:
    from ckptvcs.domain.checkpoint import Checkpoint, CheckpointId
    from ckptvcs.domain.keeping import Retain
    from ckptvcs.domain.reasons import Line, Member, Reason, View
    from ckptvcs.porcelain.repo import Repository
    from ckptvcs.porcelain.view import Looked


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What would follow if something were gone."""

    source: str
    """A key of `ckpt.yaml`, or `branch NAME`, `tag NAME`, `hold ID`..."""
    left: tuple[str, ...]
    """The kinds of reasons that would be left."""
    dropped: bool
    """Whether the checkpoint would be dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a checkpoint stands on a line."""

    branch: str
    place: int
    """1 for the newest."""
    count: int
    ranks: dict[str, int]
    """By metrics that are compared: 1 for the best."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """Everything that keeps a checkpoint, or condemns it."""

    checkpoint: Checkpoint
    decision: Decision
    kept: tuple[str, ...]
    """Its components that are kept."""
    dropped: tuple[str, ...]
    """Those that nothing keeps."""
    removals: tuple[Removal, ...]
    standings: tuple[Standing, ...]
    leases: tuple[str, ...]
    """Pushes under way that need objects of it, in words."""
    notes: tuple[str, ...]


def why(repo: Repository, revision: str, *, track: str | None = None, ask: bool = False) -> Why:
    """Look at one checkpoint; change nothing.

    Args:
        repo: the repository.
        revision: which checkpoint.
        track: the track; None for the configured one.
        ask: ask the remotes for pushes that are under way, too.

    Raises:
        NotFound: there is no such checkpoint.
        BadConfig: ckpt.yaml cannot be used.
    """
    checkpoint, retain = require_checkpoint(repo, revision, track or repo.basics.track), repo.config.retain
    limited = retain is not None and _has_limits(retain)
    looked = view.look(repo, briefly=not (ask or limited))
    checkpoint = looked.account.on(checkpoint)
    seen = looked.view if limited else _about(looked.view, checkpoint.id)
    member = seen.members.get(checkpoint.id)
    decision = Decision()
    if member is not None:
        decision = retention.decide(seen, retain, now=repo.now().timestamp())[checkpoint.id]
    kept = kept_components(member, decision.reasons) if member is not None else frozenset[str]()
    return Why(
        checkpoint=checkpoint,
        decision=decision,
        kept=tuple(sorted(kept)),
        dropped=tuple(c.name for c in checkpoint.manifest.components if c.name not in kept),
        removals=_removals(member, decision),
        standings=tuple(_standing(seen, line, member) for line in seen.lines if member and member.id in line.members),
        leases=tuple(_leases(repo, looked, checkpoint)) if ask else (),
        notes=looked.account.notes,
    )


def _has_limits(retain: Retain) -> bool:
    """Whether what is kept depends on the bytes of others."""
    limits = (retain.max_bytes.hot, retain.max_bytes.warm, *(keep.max_bytes for keep in retain.keep))
    return any(limit is not None for limit in limits)


def _about(seen: View, identifier: CheckpointId) -> View:
    """As much of what was found as one checkpoint depends on: the lines that it is on, and those that went on from it."""
    followers = {member.id for member in seen.members.values() if identifier in member.parents}
    lines = [line for line in seen.lines if identifier in line.members or not followers.isdisjoint(line.members)]
    return replace(seen, lines=lines)


def _removals(member: Member | None, decision: Decision) -> tuple[Removal, ...]:
    """What each of the sources of its reasons does if it alone is gone."""
    if member is None:
        return ()
    sources = sorted({source for reason in decision.reasons for source in reason.sources})
    return tuple(_removal(source, decision.reasons) for source in sources)


def _removal(source: str, reasons: tuple[Reason, ...]) -> Removal:
    left = [reason for reason in reasons if reason.without([source])]
    return Removal(source=source, left=tuple(dict.fromkeys(reason.kind for reason in left)), dropped=not left)


def _standing(seen: View, line: Line, member: Member) -> Standing:
    ranks = {}
    for monitor, mode in seen.compared:
        value = member.metrics.get(monitor)
        if value is not None:
            values = [seen.members[i].metrics.get(monitor) for i in line.members]
            better = [v for v in values if v is not None and (v < value if mode == "min" else v > value)]
            ranks[monitor] = len(better) + 1
    return Standing(branch=line.branch, place=line.members.index(member.id) + 1, count=len(line.members), ranks=ranks)


def _leases(repo: Repository, looked: Looked, checkpoint: Checkpoint) -> list[str]:
    from ckptvcs.porcelain import leases, places  # who does not ask need not wait for it
    from ckptvcs.porcelain.doomed import names_of

    slim = looked.inventory.slim(checkpoint.id)
    names = names_of(slim, slim.parts, whole=True)
    found = []
    for place in places.opened(repo):
        pushes, _ = leases.in_flight(place.side, repo.now().timestamp())
        found += [
            f"a push to '{place.name}' by writer '{push.lease.writer}' needs objects of it"
            for push in pushes
            if push.counts and not names.isdisjoint(push.lease.objects)
        ]
    return found
