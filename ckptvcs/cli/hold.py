"""`ckpt hold`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ckptvcs.cli.options import dry_run_option, json_option, open_repo, revision_argument, track_option

if TYPE_CHECKING:
    from ckptvcs.porcelain.repo import Repository


@click.command()
@revision_argument()
@click.option(
    "--until", metavar="WHEN", help="When it runs out: 2026-12-31, or 30d from now. Never, if it is not given."
)
@click.option("--why", metavar="TEXT", help="The reason, for people.")
@track_option
@json_option
@dry_run_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    revision: str | None,
    until: str | None,
    why: str | None,
    track: str | None,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Hold a checkpoint: it is kept whatever the policy says; without REV, list what is held.

    A hold ends when it runs out, or by 'ckpt release'. It is an entry of the ledger, and goes with 'ckpt push'.

    \b
    Examples:
      ckpt hold exp-a@best --until 2026-12-31 --why "paper under review"
      ckpt hold golden/base --why "case 4711"
      ckpt hold
    """
    from ckptvcs.cli import render
    from ckptvcs.porcelain import hold

    repo = open_repo(ctx)
    if revision is None:
        _list(repo, as_json=as_json)
        return
    plan = hold.plan_hold(repo, revision, why=why or "", until=until, track=track)
    for text in plan.notes:
        render.note(text)
    event = None if dry_run else hold.hold(repo, plan)
    if as_json:
        found = {"id": plan.checkpoint.id, "commit": plan.checkpoint.commit, "until": plan.until, "why": plan.why}
        render.answer_json({**found, "hold": f"{event.writer}#{event.n}" if event else None, "dry_run": dry_run})
        return
    step = f" step {plan.checkpoint.manifest.step}" if plan.checkpoint.manifest.step is not None else ""
    end = f" until {render.stamp(plan.until)}" if plan.until else ", without an end"
    render.answer(f"{'would hold' if dry_run else 'held'} checkpoint {plan.checkpoint.id[:10]}{step}{end}")


def _list(repo: Repository, *, as_json: bool) -> None:
    from ckptvcs.cli import render
    from ckptvcs.porcelain import hold

    holds, notes = hold.standing(repo)
    for text in notes:
        render.note(text)
    if as_json:
        render.answer_json([{**render.plain(one), "hold": one.id} for one in holds])
        return
    for one in holds:
        end = f"until {render.stamp(one.until)}" if one.until else "without an end"
        render.answer(
            f"{one.checkpoint[:10]}  {end}  {render.text(one.why)}  (since {render.stamp(one.time)}, {one.id})"
        )
