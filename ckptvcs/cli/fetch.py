"""`ckpt fetch`."""

from __future__ import annotations

import click

from ckptvcs.cli.options import dry_run_option, json_option, open_repo, to_option


@click.command()
@to_option
@json_option
@dry_run_option
@click.pass_context
def command(ctx: click.Context, *, to: str, as_json: bool, dry_run: bool) -> None:
    """Fetch branches, tags and the ledger; no objects.

    \b
    Examples:
      ckpt fetch
      ckpt fetch --to upstream
    """
    from ckptvcs.cli import render, waiting
    from ckptvcs.porcelain import fetch

    repo = open_repo(ctx)
    with waiting.busy(f"fetching from '{to}'"):
        found = fetch.plan_fetch(repo, to) if dry_run else fetch.fetch(repo, to)
    for text in found.notes:
        render.note(text)
    if as_json:
        render.answer_json({"to": to, "refs": found.moved, "dry_run": dry_run})
    elif found.moved:
        render.answer(f"{'would fetch' if dry_run else 'fetched'} {', '.join(render.text(ref) for ref in found.moved)}")
    else:
        render.answer("everything is up to date")
