"""`ckpt init`."""

from __future__ import annotations

from pathlib import Path

import click

from ckptvcs.cli.options import dry_run_option, json_option


@click.command()
@click.option("--remote", metavar="URL", help="A DVC remote for checkpoints: a path, or s3://, ssh://, gs://...")
@json_option
@dry_run_option
@click.pass_context
def command(ctx: click.Context, *, remote: str | None, as_json: bool, dry_run: bool) -> None:
    """Make a ckptvcs repository out of this folder.

    Completes what is missing of git, DVC and ckpt.yaml, and commits just that. Safe to repeat.

    \b
    Examples:
      ckpt init
      ckpt init --remote s3://bucket/checkpoints
    """
    from ckptvcs.cli import render
    from ckptvcs.porcelain import init

    plan = init.plan_init(Path(ctx.find_root().obj or "."), remote=remote)
    if dry_run:
        made = [*([".git"] if plan.make_git else []), *plan.make_files, *(["a remote"] if plan.remote else [])]
        commit = None
    else:
        receipt = init.execute(plan)
        made, commit = list(receipt.made), receipt.commit
    if as_json:
        render.answer_json({"root": plan.root, "made": made, "commit": commit, "dry_run": dry_run})
    elif made:
        render.answer(f"{'would make' if dry_run else 'made'} {', '.join(made)} in {render.text(plan.root)}")
    else:
        render.answer(f"nothing to do in {render.text(plan.root)}")
