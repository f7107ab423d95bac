"""`note`: metrics that come late, as entries of the ledger. The checkpoint itself does not change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ckptvcs.domain.events import NOTE
from ckptvcs.errors import UsageError
from ckptvcs.porcelain import account, ledger
from ckptvcs.porcelain.checkpoints import require_checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ckptvcs.domain.checkpoint import Checkpoint
    from ckptvcs.domain.events import Event
    from ckptvcs.porcelain.repo import Repository

_MAX_MESSAGE: Final = 4096
"""Characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotePlan:
    """What is about to be noted, and of which checkpoint; `checkpoint.metrics` is what counts until then."""

    checkpoint: Checkpoint
    metrics: Mapping[str, int | float | str]
    message: str
    notes: tuple[str, ...] = ()
    """What the user should know."""


def plan_note(
    repo: Repository,
    revision: str,
    metrics: Mapping[str, int | float | str],
    *,
    message: str | None = None,
    track: str | None = None,
) -> NotePlan:
    """Find the checkpoint, change nothing.

    Args:
        repo: the repository.
        revision: which checkpoint.
        metrics: numbers by name, checked; words such as `nan` are kept, and never rank.
        message: where they come from, for people.
        track: the track; None for the configured one.

    Raises:
        UsageError: there is no metric, or the message is too long.
        NotFound: there is no such checkpoint.
        BadEntry: the chain of this clone is damaged.
    """
    if not metrics:
        raise UsageError(
            "nothing to note", why="no metric is given", next_step="write --metric NAME=NUMBER, as often as needed"
        )
    if message is not None and len(message) > _MAX_MESSAGE:
        raise UsageError(
            "cannot note such a message",
            why=f"it has {len(message)} characters, at most {_MAX_MESSAGE} are kept",
            next_step="keep the report in a file, and name it in the message",
        )
    late = account.read(repo)
    ledger.refuse_damage(repo, late.flaws)
    checkpoint = late.on(require_checkpoint(repo, revision, track or repo.basics.track))
    return NotePlan(checkpoint=checkpoint, metrics=dict(metrics), message=message or "", notes=late.notes)


def execute(repo: Repository, plan: NotePlan) -> Event:
    """Write the note; it is durable when this returns, and counts from now on wherever metrics are compared.

    Raises:
        StorageError: the disk is full, read-only or failing; nothing was noted.
        Conflict: another process holds a lock; nothing was noted.
    """
    facts = {"checkpoint": plan.checkpoint.id, "metrics": plan.metrics, "message": plan.message}
    return ledger.append(repo, NOTE, **facts)
