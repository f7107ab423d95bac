"""`ckpt pull`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ckptvcs.cli.options import dry_run_option, json_option, open_repo, remote_options, revision_argument, track_option

if TYPE_CHECKING:
    from ckptvcs.porcelain.pull import PullPlan


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
    from ckptvcs.porcelain import pull

    repo = open_repo(ctx)
    begin = pull.plan_pull if dry_run else pull.begin
    with waiting.busy(f"fetching from '{to}'"):
        plan = begin(repo, revision, components=components, to=to, track=track)
    notes = plan.fetched.notes
    if not dry_run:
        with waiting.progress("fetching", plan.nbytes) as advance:
            notes = pull.execute(repo, plan, remote=remote, progress=advance)
    for text in notes:
        render.note(text)
    if as_json:
        told = {"to": to, "refs": plan.fetched.moved, "commit": plan.ahead, "dry_run": dry_run}
        render.answer_json({**told, "objects": plan.count, "bytes": plan.nbytes})
    else:
        render.answer(_worded(plan, dry_run=dry_run))


def _worded(plan: PullPlan, *, dry_run: bool) -> str:
    from ckptvcs.cli import render

    count, ahead = f"{plan.count} objects ({render.size(plan.nbytes)})", plan.ahead
    if dry_run:  # of what was not fetched yet, nobody here knows which objects it needs
        return f"would bring {count} of what is known here{f', and go on to {ahead[:10]}' if ahead else ''}"
    return f"{count} came{f'; the branch is at {ahead[:10]} now' if ahead else ''}"
