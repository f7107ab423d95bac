"""`ckpt branch`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ckptvcs.cli.options import complete_revision, dry_run_option, json_option, open_repo

if TYPE_CHECKING:
    from ckptvcs.porcelain.refs import Ref


@click.command()
@click.argument("name", required=False)
@click.argument("revision", metavar="[REV]", default="HEAD", shell_complete=complete_revision)
@click.option("-d", "--delete", is_flag=True, help="Delete it, if nothing would be lost.")
@json_option
@dry_run_option
@click.pass_context
def command(ctx: click.Context, *, name: str | None, revision: str, delete: bool, as_json: bool, dry_run: bool) -> None:
    """List, make or delete branches.

    A branch is an experiment: 'ckpt branch NAME REV' forks it from a checkpoint. HEAD stays.

    \b
    Examples:
      ckpt branch
      ckpt branch exp-b main@step:1200
      ckpt branch -d exp-b
    """
    from ckptvcs.cli import render
    from ckptvcs.porcelain import refs

    repo = open_repo(ctx)
    if name is None:
        if delete:
            raise click.UsageError("name the branch to delete")
        _say(refs.branches(repo), as_json=as_json)
        return
    if delete:
        commit = refs.delete_branch(repo, name, dry_run=dry_run)
    else:
        commit = refs.create_branch(repo, name, revision, dry_run=dry_run)
    done = "deleted" if delete else "made"
    if as_json:
        render.answer_json({"branch": name, "commit": commit, "done": done, "dry_run": dry_run})
    else:
        would = "would have " if dry_run else ""
        render.answer(
            f"{would}{done} branch '{render.text(name)}' {'(was ' if delete else 'at '}{commit[:10]}{')' if delete else ''}"
        )


def _say(found: list[Ref], *, as_json: bool) -> None:
    from ckptvcs.cli import render

    if as_json:
        render.answer_json(
            [
                {
                    "name": ref.name,
                    "commit": ref.commit,
                    "current": ref.current,
                    "checkpoint": render.checkpoint_json(ref.checkpoint) if ref.checkpoint else None,
                }
                for ref in found
            ]
        )
        return
    width = max((len(ref.name) for ref in found), default=0)
    for ref in found:
        mark = click.style("*", fg="green") if ref.current else " "
        render.answer(f"{mark} {render.text(ref.name):<{width}}  {_checkpoint(ref)}")


def _checkpoint(ref: Ref) -> str:
    from ckptvcs.cli import render

    if ref.checkpoint is None:
        return f"{ref.commit[:10]}  no checkpoint"
    manifest = ref.checkpoint.manifest
    step = f"step {manifest.step}" if manifest.step is not None else ""
    parts = [ref.checkpoint.id[:10], step, render.listed(dict(list(ref.checkpoint.metrics.items())[:2]))]
    return "  ".join(part for part in parts if part)
