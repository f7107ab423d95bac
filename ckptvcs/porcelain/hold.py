"""`hold` and `release`: who needs a checkpoint whatever the policy says, as entries of the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ckptvcs.domain.holds import HOLD, RELEASE
from ckptvcs.domain.when import moment
from ckptvcs.errors import NotFound, UsageError
from ckptvcs.paths import printable
from ckptvcs.porcelain import account, ledger
from ckptvcs.porcelain.checkpoints import require_checkpoint
from ckptvcs.porcelain.gone import refuse_gone

if TYPE_CHECKING:
    from ckptvcs.domain.checkpoint import Checkpoint
    from ckptvcs.domain.events import Event
    from ckptvcs.domain.holds import Hold
    from ckptvcs.porcelain.repo import Repository

_MAX_WHY: Final = 4096
"""Characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldPlan:
    """A checkpoint that is to be held."""

    checkpoint: Checkpoint
    until: str
    """As in an entry; empty for no end."""
    why: str
    standing: tuple[Hold, ...]
    """Holds that it has already."""
    notes: tuple[str, ...] = ()


def plan_hold(
    repo: Repository, revision: str, *, why: str, until: str | None = None, track: str | None = None
) -> HoldPlan:
    """Find the checkpoint, change nothing.

    Args:
        repo: the repository.
        revision: which checkpoint.
        why: for people.
        until: when it runs out, as `moment` reads it; None for no end.
        track: the track; None for the configured one.

    Raises:
        UsageError: no reason is given, or the end is past.
        NotFound: there is no such checkpoint.
        MissingObject: it was dropped, and nothing of it is there.
        BadEntry: the chain of this clone is damaged.
    """
    if not why.strip() or len(why) > _MAX_WHY:
        raise UsageError(
            "cannot hold without saying why",
            why="who finds the hold later has to judge it",
            next_step="write --why TEXT",
        )
    end = ledger.iso(moment(until, repo.now(), ahead=True)) if until is not None else ""
    if end and end <= ledger.iso(repo.now()):
        raise UsageError(
            f"cannot hold until '{printable(until or '')}'", why="that is past", next_step="name a later day"
        )
    said = account.read(repo)
    ledger.refuse_damage(repo, said.flaws)
    checkpoint = require_checkpoint(repo, revision, track or repo.basics.track)
    refuse_gone(repo, said.on(checkpoint))
    standing = said.holds.get(checkpoint.id, ())
    return HoldPlan(checkpoint=checkpoint, until=end, why=why, standing=standing, notes=said.notes)


def hold(repo: Repository, plan: HoldPlan) -> Event:
    """Write the hold down; it stands from then on, and elsewhere as soon as it is pushed.

    Raises:
        StorageError: the disk is full, read-only or failing; nothing is held.
    """
    facts = {"checkpoint": plan.checkpoint.id, "commit": plan.checkpoint.commit, "until": plan.until, "why": plan.why}
    return ledger.append(repo, HOLD, **facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasePlan:
    """Holds that are to end."""

    checkpoint: Checkpoint
    holds: tuple[Hold, ...]
    why: str
    notes: tuple[str, ...] = ()


def plan_release(repo: Repository, revision: str, *, why: str = "", track: str | None = None) -> ReleasePlan:
    """Find the holds of a checkpoint that stand, as far as this clone knows; change nothing.

    Raises:
        NotFound: there is no such checkpoint, or nobody holds it.
        BadEntry: the chain of this clone is damaged.
    """
    said = account.read(repo)
    ledger.refuse_damage(repo, said.flaws)
    checkpoint = require_checkpoint(repo, revision, track or repo.basics.track)
    holds = said.holds.get(checkpoint.id, ())
    if not holds:
        raise NotFound(
            f"nobody holds checkpoint {checkpoint.id[:10]}",
            why="the ledger, as far as it is here, has no hold of it that stands",
            next_step="run 'ckpt fetch' if somebody else may have held it",
        )
    return ReleasePlan(checkpoint=checkpoint, holds=holds, why=why, notes=said.notes)


def release(repo: Repository, plan: ReleasePlan) -> Event:
    """End these holds. One that somebody made elsewhere meanwhile stands.

    Raises:
        StorageError: the disk is full, read-only or failing; all holds stand.
    """
    holds = [one.id for one in plan.holds]
    return ledger.append(repo, RELEASE, checkpoint=plan.checkpoint.id, holds=holds, why=plan.why)


def standing(repo: Repository) -> tuple[tuple[Hold, ...], tuple[str, ...]]:
    """Every hold that stands, those that end first, first; and what could not be read."""
    said = account.read(repo)
    holds = [one for held in said.holds.values() for one in held]
    return tuple(sorted(holds, key=lambda one: (one.until or "~", one.time, one.id))), said.notes
