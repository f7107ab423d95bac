"""`ckpt restore`."""

from __future__ import annotations

from pathlib import Path

import click

from ckptvcs.cli.options import dry_run_option, json_option, open_repo, revision_argument, track_option


@click.command()
@revision_argument(required=True)
@click.option(
    "--component", "components", multiple=True, metavar="C", help="Only this one, by name or role. Repeatable."
)
@click.option("--to", type=click.Path(path_type=Path), metavar="DIR", help="A folder that does not exist yet.")
@track_option
@json_option
@dry_run_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    revision: str,
    components: tuple[str, ...],
    to: Path | None,
    track: str | None,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Make the artifact of a revision appear; HEAD stays.

    It goes to its place in the workspace, or to --to DIR. Every byte is verified.

    \b
    Examples:
      ckpt restore HEAD
      ckpt restore exp-a@best --component model --to /tmp/best
    """
    from ckptvcs.cli import render, waiting
    from ckptvcs.porcelain import checkout

    repo = open_repo(ctx)
    with waiting.busy("looking at the workspace"):
        plan = checkout.plan_restore(repo, revision, components=components, to=to, track=track)
    if not dry_run:
        with waiting.progress("restoring", 2 * plan.nbytes) as advance:
            notes = checkout.execute(repo, plan, advance)
        for text in notes:
            render.note(text)
    (checkpoint,) = plan.checkpoints
    places = [str(placement.where.root / placement.where.path) for placement in plan.placements]
    if as_json:
        document = render.checkpoint_json(checkpoint)
        render.answer_json({"checkpoint": document, "places": places, "bytes": plan.nbytes, "dry_run": dry_run})
        return
    verb = "would restore" if dry_run else "restored"
    shown = ", ".join(map(render.text, places))
    render.answer(f"{verb} checkpoint {checkpoint.id[:10]} ({render.size(plan.nbytes)}) to {shown}")
