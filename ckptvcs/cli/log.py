"""`ckpt log`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ckptvcs.cli.options import json_option, limit_of, open_repo, revision_argument, track_option

if TYPE_CHECKING:
    from ckptvcs.porcelain.log import Log, LogEntry


@click.command()
@revision_argument()
@click.option("--graph", is_flag=True, help="Draw how checkpoints descend from each other.")
@click.option("-n", "limit", default="50", metavar="N", help="How many at most, or 'all'. [default: 50]")
@click.option("--all", "everything", is_flag=True, help="Begin at every branch and tag.")
@track_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    revision: str | None,
    graph: bool,
    limit: str,
    everything: bool,
    track: str | None,
    as_json: bool,
) -> None:
    """List checkpoints, newest first.

    \b
    Examples:
      ckpt log
      ckpt log exp-a -n 5
      ckpt log --graph --all
    """
    from ckptvcs.cli import render, waiting
    from ckptvcs.porcelain import checkpoints, log

    repo = open_repo(ctx)
    track = track or repo.basics.track
    if everything:
        tips = checkpoints.all_tips(repo)
    elif revision is None and repo.history.head() is None:
        tips = []
    else:
        tips = [checkpoints.locate(repo, revision or "HEAD", track)]
    with waiting.busy("reading the history"):
        found = log.log(repo, tips, track=track, limit=limit_of(limit), graph=graph)
    for text in found.notes:
        render.note(text)
    if as_json:
        entries = [render.checkpoint_json(entry.checkpoint, entry.names) for entry in found.entries]
        render.answer_json({"checkpoints": entries, "more": found.more})
        return
    _say(found, graph=graph)
    if found.more and ctx.get_parameter_source("limit") is click.core.ParameterSource.DEFAULT:
        render.note(f"only the newest {len(found.entries)} are shown; 'ckpt log -n all' shows every one")
    elif not found.entries and not found.more:
        render.note("no checkpoints here yet: 'ckpt commit FILE' makes one")


def _say(found: Log, *, graph: bool) -> None:
    from ckptvcs.cli import render
    from ckptvcs.cli.graph import draw

    by_commit = {entry.checkpoint.commit: entry for entry in found.entries}
    if not graph:
        for entry in found.entries:
            render.answer(_line(entry))
        return
    for commit, drawing in draw([(commit, entry.above) for commit, entry in by_commit.items()]):
        render.answer(f"{drawing}{_line(by_commit[commit])}" if commit else drawing.rstrip())


def _line(entry: LogEntry) -> str:
    from ckptvcs.cli import render

    checkpoint = entry.checkpoint
    manifest = checkpoint.manifest
    parts = [
        click.style(checkpoint.id[:10], fg="yellow"),
        f"step {manifest.step}" if manifest.step is not None else "",
        render.when(checkpoint.time),
        render.listed(dict(list(checkpoint.metrics.items())[:3])),
        "" if checkpoint.is_gone else checkpoint.grade,
        render.fate(checkpoint),
        "held" if entry.held else "",
        render.names_text(entry.names),
        render.text(checkpoint.subject),
    ]
    return "  ".join(part for part in parts if part)
