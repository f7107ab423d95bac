"""`policy apply`: everything that a policy asks for, in one go: collect, move, tell. It is what cron, CI and the like run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ckptvcs.domain.alerts import Alert
from ckptvcs.errors import CkptvcsError, NeedsPerson
from ckptvcs.porcelain import alerts, gc, plans

if TYPE_CHECKING:
    from ckptvcs.porcelain.alerts import Found
    from ckptvcs.porcelain.gc import Options, Report
    from ckptvcs.porcelain.plans import SavedPlan
    from ckptvcs.porcelain.repo import Repository


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What was done, and what somebody has to know."""

    report: Report
    alerts: tuple[Alert, ...]
    notes: tuple[str, ...]


def apply(repo: Repository, options: Options, *, saved: SavedPlan | None = None, dry_run: bool = False) -> Applied:
    """Carry the policy out, then look whether there is anything to tell, and tell it.

    Whoever is told by `alerts.command` is told as well that a person has to look first: nobody may be watching.

    Args:
        repo: the repository.
        options: what the user said.
        saved: a plan that is carried out as it is, or not at all.
        dry_run: change nothing, and tell nobody.

    Raises:
        NeedsPerson: something is out of the ordinary; nothing was collected.
        As `gc.collect` and `plans.carry_out`.
    """
    try:
        report = plans.carry_out(repo, saved, dry_run=dry_run) if saved else gc.collect(repo, options, dry_run=dry_run)
    except NeedsPerson as err:
        if not dry_run:
            _tell(repo, _stopped(err))
        raise
    found, notes = _found(repo)
    if found is None:
        return Applied(report=report, alerts=(), notes=notes)
    told = () if dry_run else alerts.send(repo, found)
    return Applied(report=report, alerts=found.alerts, notes=(*notes, *found.notes, *told))


def _found(repo: Repository) -> tuple[Found | None, tuple[str, ...]]:
    """What there is to tell. What was collected is told in any case."""
    if repo.config.alerts is None:
        return None, ()
    try:
        return alerts.look(repo), ()
    except CkptvcsError as err:
        return None, (f"alerts could not be looked for: {err}",)


def _tell(repo: Repository, alert: Alert) -> None:
    found, _ = _found(repo)
    if found is not None:
        alerts.send(repo, replace(found, alerts=(alert, *found.alerts)))


def _stopped(err: NeedsPerson) -> Alert:
    return Alert(
        kind="collection",
        severity="critical",
        what=f"{err.what}: {err.why}",
        next_step=err.next_step,
        value=float(len(err.facts.get("stops", ()))),
        limit=0.0,
        facts=err.facts,
    )
