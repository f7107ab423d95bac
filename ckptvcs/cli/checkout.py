"""`ckpt checkout`."""

from __future__ import annotations

import click

from ckptvcs.cli.options import dry_run_option, json_option, open_repo, revision_argument


@click.command()
@revision_argument()
@click.option("-b", "new_branch", metavar="BRANCH", help="Make a branch there and check it out.")
@json_option
@dry_run_option
@click.pass_context
def command(ctx: click.Context, *, revision: str | None, new_branch: str | None, as_json: bool, dry_run: bool) -> None:
    """Move HEAD and make the artifact of a revision appear.

    Moves code and artifact together, like 'git checkout' with 'dvc checkout' behind it. Refuses to overwrite changes
    that are saved nowhere. Every byte is verified. With -b, REV is HEAD if it is not given.

    \b
    Examples:
      ckpt checkout main@step:1200 -b exp-b
      ckpt checkout exp-a
      ckpt checkout golden/base
    """
    from ckptvcs.cli import render, waiting
    from ckptvcs.porcelain import checkout

    if revision is None and new_branch is None:
        raise click.UsageError("name a revision to go to, or a new branch with -b", ctx)
    repo = open_repo(ctx)
    with waiting.busy("looking at the workspace"):
        plan = checkout.plan_checkout(repo, revision or "HEAD", new_branch=new_branch)
    if not dry_run:
        with waiting.progress("checking out", 2 * plan.nbytes) as advance:
            notes = checkout.execute(repo, plan, advance)
        for text in notes:
            render.note(text)
    if as_json:
        found = [render.checkpoint_json(checkpoint) for checkpoint in plan.checkpoints]
        render.answer_json({"commit": plan.commit, "branch": plan.branch, "checkpoints": found, "dry_run": dry_run})
        return
    where = (
        f"{'new ' if plan.new_branch else ''}branch '{plan.branch}'"
        if plan.branch
        else f"{plan.commit[:10]} (detached)"
    )
    render.answer(f"{'would switch' if dry_run else 'switched'} to {where}")
    for where_from in plan.removals:
        render.answer(
            f" {where_from.name}: {'would be ' if dry_run else ''}removed from the workspace: no checkpoint there"
        )
    for checkpoint, placement in zip(plan.checkpoints, plan.placements, strict=True):
        manifest = checkpoint.manifest
        step = f" step {manifest.step}" if manifest.step is not None else ""
        render.answer(f" {manifest.track}: checkpoint {checkpoint.id[:10]}{step}, {render.size(placement.nbytes)}")
