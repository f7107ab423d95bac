"""`ckpt status`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ckptvcs.cli.options import json_option, open_repo

if TYPE_CHECKING:
    from ckptvcs.porcelain.status import Status, TrackStatus


@click.command()
@json_option
@click.pass_context
def command(ctx: click.Context, *, as_json: bool) -> None:
    """Show how workspace and code stand to HEAD.

    \b
    Examples:
      ckpt status
      ckpt status --json
    """
    from ckptvcs.cli import render
    from ckptvcs.porcelain import status as porcelain

    status = porcelain.status(open_repo(ctx))
    if as_json:
        render.answer_json(_json(status))
    else:
        _say(status)


def _json(status: Status) -> dict[str, Any]:
    from ckptvcs.cli import render

    tracks = {
        track.track: {
            "checkpoint": render.checkpoint_json(track.checkpoint),
            "workspace": track.presence,
            "changed": track.changed,
            "holds": track.holds.id if track.holds else None,
        }
        for track in status.tracks
    }
    return {"branch": status.branch, "head": status.head, "tracks": tracks, "code": status.code}


def _say(status: Status) -> None:
    from ckptvcs.cli import render

    render.answer(f"On branch {status.branch}" if status.branch else f"HEAD detached at {(status.head or '')[:10]}")
    for track in status.tracks:
        manifest = track.checkpoint.manifest
        step = f" step {manifest.step}" if manifest.step is not None else ""
        render.answer(f"Track {track.track}: checkpoint {track.checkpoint.id[:10]}{step}, {track.checkpoint.grade}")
        render.answer(f"  {_workspace(track)}")
        for path in track.changed[:10] if track.presence == "changed" else ():
            render.answer(f"    {render.text(path)}")
    if not status.tracks:
        render.answer("No checkpoint here yet ('ckpt commit FILE' makes one)")
    if status.code.changed:
        render.answer(
            f"Code: {render.counted(len(status.code.changed), 'uncommitted change')}; the next checkpoint records a patch"
        )
    sources = [path for path in status.code.untracked if path.endswith(".py")]
    if sources:
        render.answer(f"Code: not tracked by git, and so not recorded: {', '.join(map(render.text, sources[:5]))}")


def _workspace(track: TrackStatus) -> str:
    from ckptvcs.cli import render

    if track.checkpoint.is_gone:
        return _beside_gone(track)
    if track.presence == "clean":
        return "workspace is up to date"
    if track.presence == "missing":
        return "not in the workspace ('ckpt restore HEAD' puts it there)"
    if track.holds is not None:
        step = f" step {track.holds.manifest.step}" if track.holds.manifest.step is not None else ""
        return (
            f"workspace holds the earlier checkpoint {track.holds.id[:10]}{step} ('ckpt restore HEAD' brings this one)"
        )
    return (
        f"{render.counted(len(track.changed), 'file')} in the workspace changed or missing "
        "('ckpt commit' on the folder keeps them; remove the folder and 'ckpt restore HEAD' to give them up)"
    )


def _beside_gone(track: TrackStatus) -> str:
    """What is said where nothing is left of the checkpoint: no command but a rescue brings it here."""
    from ckptvcs.cli import render

    rescue = f"'ckpt gc --rescue {track.checkpoint.id[:10]}' brings it back while it is in a trash"
    if track.holds is not None:
        there = f"; workspace holds the earlier checkpoint {track.holds.id[:10]}"
    elif track.changed:
        there = (
            f"; {render.counted(len(track.changed), 'file')} in the workspace ('ckpt commit' on the folder keeps them)"
        )
    else:
        there = ""
    return f"{render.fate(track.checkpoint)}: {rescue}{there}"
