"""`ckpt tag`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ckptvcs.cli.options import complete_revision, dry_run_option, json_option, open_repo

if TYPE_CHECKING:
    from ckptvcs.porcelain.refs import Ref


@click.command()
@click.argument("name", required=False)
@click.argument("revision", metavar="[REV]", default="HEAD", shell_complete=complete_revision)
@click.option("--golden", is_flag=True, help="Keep it for ever, immutable: the tag is golden/NAME.")
@click.option("--milestone", is_flag=True, help="Keep it: the tag is milestone/NAME.")
@click.option("-m", "--message", metavar="MSG", help="Makes an annotated tag; marks are always annotated.")
@click.option("-d", "--delete", is_flag=True, help="Delete it, if nothing would be lost. Golden marks stay.")
@json_option
@dry_run_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    name: str | None,
    revision: str,
    golden: bool,
    milestone: bool,
    message: str | None,
    delete: bool,
    as_json: bool,
    dry_run: bool,
) -> None:
    """List, make or delete tags and marks.

    \b
    Examples:
      ckpt tag
      ckpt tag --golden base main@best
      ckpt tag --milestone epoch-10
    """
    from ckptvcs.cli import render
    from ckptvcs.porcelain import refs

    repo = open_repo(ctx)
    if name is None:
        if delete or golden or milestone:
            raise click.UsageError("name the tag")
        _say(refs.tags(repo), as_json=as_json)
        return
    name = refs.marked_name(name, golden=golden, milestone=milestone)
    if delete:
        commit = refs.delete_tag(repo, name, dry_run=dry_run)
    else:
        commit = refs.create_tag(repo, name, revision, message=message, dry_run=dry_run).commit
    done = "deleted" if delete else "made"
    if as_json:
        render.answer_json({"tag": name, "commit": commit, "done": done, "dry_run": dry_run})
    else:
        would = "would have " if dry_run else ""
        render.answer(f"{would}{done} tag '{render.text(name)}' at {commit[:10]}")


def _say(found: list[Ref], *, as_json: bool) -> None:
    from ckptvcs.cli import render

    if as_json:
        render.answer_json(
            [
                {
                    "name": ref.name,
                    "commit": ref.commit,
                    "mark": ref.mark,
                    "message": ref.message,
                    "checkpoint": render.checkpoint_json(ref.checkpoint) if ref.checkpoint else None,
                }
                for ref in found
            ]
        )
        return
    width = max((len(ref.name) for ref in found), default=0)
    for ref in found:
        step = ""
        if ref.checkpoint is not None:
            manifest = ref.checkpoint.manifest
            step = f"  {ref.checkpoint.id[:10]}" + (f"  step {manifest.step}" if manifest.step is not None else "")
        render.answer(f"{render.text(ref.name):<{width}}{step or f'  {ref.commit[:10]}  no checkpoint'}")
