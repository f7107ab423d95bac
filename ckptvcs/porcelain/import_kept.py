"""What the policy would keep of a history that is not there yet.

Limits of bytes are held against the sizes of the files: what several of them share is known when they are stored, not before.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from ckptvcs.domain import provenance, reasons, retention
from ckptvcs.domain.checkpoint import CheckpointId

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ckptvcs.domain.checkpoint import Checkpoint
    from ckptvcs.domain.keeping import Retain


@dataclass(frozen=True, slots=True, kw_only=True)
class Would:
    """A checkpoint as it is or would be."""

    key: str
    """Its id, or whatever stands for one that it has not got yet."""
    date: datetime
    step: int | None
    metrics: Mapping[str, int | float | str]
    roles: Mapping[str, str]
    nbytes: int


def as_it_is(checkpoint: Checkpoint) -> Would:
    """A checkpoint of the history."""
    manifest = checkpoint.manifest
    return Would(
        key=checkpoint.id,
        date=datetime.fromisoformat(manifest.created),
        step=manifest.step,
        metrics=checkpoint.metrics,
        roles={component.name: component.role for component in manifest.components},
        nbytes=manifest.nbytes,
    )


def would_keep(
    lines: Mapping[str, Sequence[Would]], retain: Retain | None, *, track: str, has_warm: bool, now: datetime
) -> dict[str, tuple[str, ...]] | None:
    """Why each checkpoint would be kept, by its key; one without a reason would not. None: there is no policy.

    Args:
        lines: the checkpoints of each branch, oldest first.
        retain: the policy.
        track: the track.
        has_warm: whether there is a warm remote.
        now: the time.
    """
    if retain is None:
        return None
    members = {
        CheckpointId(one.key): reasons.Member(
            id=CheckpointId(one.key),
            time=one.date.timestamp(),
            step=one.step,
            metrics={name: float(value) for name, value in one.metrics.items() if isinstance(value, (int, float))},
            components=dict(one.roles),
            complete=provenance.grade(set(one.roles.values())) != provenance.WEIGHTS_ONLY,
        )
        for line in lines.values()
        for one in line
    }
    sizes = {CheckpointId(one.key): one.nbytes for line in lines.values() for one in line}
    view = reasons.View(
        members=members,
        lines=[
            reasons.Line(branch=branch, track=track, members=tuple(CheckpointId(one.key) for one in reversed(line)))
            for branch, line in lines.items()
        ],
        pins={},
        objects=lambda identifier, components: [(identifier, sizes[identifier])] if components else [],
        has_warm=has_warm,
    )
    decided = retention.decide(view, retain, now=now.timestamp())
    return {key: tuple(reason.text for reason in decision.reasons) for key, decision in decided.items()}
