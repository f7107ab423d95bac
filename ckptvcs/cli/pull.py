"""`ckpt pull`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ckptvcs.cli.options import dry_run_option, json_option, open_repo, remote_options, revision_argument, track_option

if TYPE_CHECKING:
    from ckptvcs.porcelain.fetch import ObjectsPlan


@click.command()
@revision_argument()
@click.option("--component", "components", multiple=True, metavar="C", help="With REV, only this one. Repeatable.")
@remote_options
@track_option
@json_option
@dry_run_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    revision: str | None,
    components: tuple[str, ...],
    to: str,
    remote: str | None,
    track: str | None,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Fetch, and bring objects: of the branch that is checked out, or of REV.

    Without REV the branch goes on to where the others have it, and its checkpoint appears in the workspace. With REV nothing
    here moves; 'ckpt checkout', 'restore' and 'load' find what came. Every byte is verified. With --dry-run nothing is
    fetched, and what is not known here is not counted.

    \b
    Examples:
      ckpt pull
      ckpt pull golden/base --component model
    """
    from ckptvcs.cli import render, waiting
    from ckptvcs.errors import UsageError
    from ckptvcs.porcelain import fetch

    repo = open_repo(ctx)
    if revision is None and components:
        raise UsageError(
            "a part of what?",
            why="--component is for a revision that is named",
            next_step="ckpt pull REV --component C",
        )
    with waiting.busy(f"fetching from '{to}'"):
        found = fetch.plan_fetch(repo, to) if dry_run else fetch.fetch(repo, to)
        ahead = fetch.upstream(repo, to) if revision is None else None
        wanted = revision or ahead or repo.history.head()
        plan = None if wanted is None else fetch.plan_objects(repo, wanted, components=components, track=track)
    notes = list(found.notes)
    if plan is not None and not dry_run:
        with waiting.progress("fetching", plan.nbytes) as advance:
            notes += fetch.fetch_objects(repo, plan, remote=remote, progress=advance)
    if revision is None and not dry_run:
        fetch.advance(repo, ahead)
    for text in notes:
        render.note(text)
    if as_json:
        told = {"to": to, "refs": found.moved, "commit": ahead, **_objects(plan), "dry_run": dry_run}
        render.answer_json(told)
    else:
        render.answer(_worded(plan, ahead, dry_run=dry_run))


def _worded(plan: ObjectsPlan | None, ahead: str | None, *, dry_run: bool) -> str:
    from ckptvcs.cli import render

    objects = _objects(plan)
    count = f"{objects['objects']} objects ({render.size(objects['bytes'])})"
    if dry_run:  # of what was not fetched yet, nobody here knows which objects it needs
        return f"would bring {count} of what is known here{f', and go on to {ahead[:10]}' if ahead else ''}"
    return f"{count} came{f'; the branch is at {ahead[:10]} now' if ahead else ''}"


def _objects(plan: ObjectsPlan | None) -> dict[str, int]:
    return {"objects": len(plan.missing) if plan else 0, "bytes": plan.nbytes if plan else 0}
