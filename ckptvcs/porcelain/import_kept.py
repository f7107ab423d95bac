"""What the policy would keep of a history that is not there yet."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from ckptvcs.domain import provenance, retention
from ckptvcs.domain.checkpoint import CheckpointId
from ckptvcs.domain.reasons import Line, Member, View

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


def as_it_is(checkpoint: Checkpoint) -> Would:
    """A checkpoint of the history."""
    manifest = checkpoint.manifest
    return Would(
        key=checkpoint.id,
        date=datetime.fromisoformat(manifest.created),
        step=manifest.step,
        metrics=checkpoint.metrics,
        roles={component.name: component.role for component in manifest.components},
    )


def would_keep(
    lines: Mapping[str, Sequence[Would]], retain: Retain | None, *, track: str, now: datetime
) -> dict[str, tuple[str, ...]] | None:
    """Why each checkpoint would be kept, by its key; one without a reason would not. None: there is no policy.

    Args:
        lines: the checkpoints of each branch, oldest first.
        retain: the policy.
        track: the track.
        now: the time.
    """
    if retain is None:
        return None
    members = {
        CheckpointId(one.key): Member(
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
    view = View(
        members=members,
        lines=[
            Line(branch=branch, track=track, members=tuple(CheckpointId(one.key) for one in reversed(line)))
            for branch, line in lines.items()
        ],
        objects=lambda *_: (),  # how many bytes they share is known when they are there
    )
    decided = retention.decide(view, retain, now=now.timestamp())
    return {key: tuple(reason.text for reason in one.reasons) for key, one in decided.items()}
