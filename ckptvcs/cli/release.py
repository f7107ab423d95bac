"""`ckpt release`."""

from __future__ import annotations

import click

from ckptvcs.cli.options import dry_run_option, json_option, open_repo, revision_argument, track_option


@click.command()
@revision_argument(required=True)
@click.option("--why", metavar="TEXT", default="", help="The reason, for people.")
@track_option
@json_option
@dry_run_option
@click.pass_context
def command(ctx: click.Context, *, revision: str, why: str, track: str | None, as_json: bool, dry_run: bool) -> None:
    """Release a checkpoint: end the holds that it has.

    Those that somebody made elsewhere, and that this clone has not fetched, stand.

    \b
    Examples:
      ckpt release exp-a@best --why "the paper is out"
      ckpt release 3f9a1c77 -n
    """
    from ckptvcs.cli import render
    from ckptvcs.porcelain import hold

    repo = open_repo(ctx)
    plan = hold.plan_release(repo, revision, why=why, track=track)
    for text in plan.notes:
        render.note(text)
    if not dry_run:
        hold.release(repo, plan)
    if as_json:
        render.answer_json({"id": plan.checkpoint.id, "holds": [one.id for one in plan.holds], "dry_run": dry_run})
        return
    count = render.counted(len(plan.holds), "hold")
    render.answer(f"{'would release' if dry_run else 'released'} checkpoint {plan.checkpoint.id[:10]} from {count}")
