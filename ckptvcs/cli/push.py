"""`ckpt push`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ckptvcs.cli.options import complete_revision, dry_run_option, json_option, open_repo, remote_options

if TYPE_CHECKING:
    from ckptvcs.porcelain.push import PushPlan


@click.command()
@click.argument("names", nargs=-1, metavar="[BRANCH|TAG]...", shell_complete=complete_revision)
@click.option("--all", "everything", is_flag=True, help="All branches and tags.")
@click.option("--full", is_flag=True, help="Look at every checkpoint, not only at those that the git remote lacks.")
@click.option("--verify", is_flag=True, help="Read back from the remote all that was needed, and heal what is wrong.")
@click.option("--replicas", type=int, metavar="N", help="How many remotes have to have the objects, for this push.")
@remote_options
@json_option
@dry_run_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    names: tuple[str, ...],
    everything: bool,
    full: bool,
    verify: bool,
    replicas: int | None,
    to: str,
    remote: str | None,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Push branches, tags, the ledger, and the objects of their checkpoints.

    Objects go first, each checked on arrival, to as many remotes as 'replicas' in ckpt.yaml says; then all refs move at
    once. What was interrupted goes on where it was.

    \b
    Examples:
      ckpt push
      ckpt push exp-a golden/base
      ckpt push --all --verify
      ckpt push --replicas 2
    """
    from ckptvcs.cli import render, waiting
    from ckptvcs.porcelain import push

    repo = open_repo(ctx)
    with waiting.busy(f"asking '{to}'"):
        plan = push.plan_push(repo, names, to=to, remote=remote, everything=everything, full=full, copies=replicas)
    for text in plan.notes:
        render.note(text)
    if not dry_run:
        with waiting.progress(
            "pushing", plan.nbytes + (sum(r.nbytes for r in plan.needed) * len(plan.copies) if verify else 0)
        ) as advance:
            healed = push.execute(repo, plan, verify=verify, progress=advance)
        for text in healed:
            render.note(text)
    if as_json:
        render.answer_json(
            {
                "to": plan.to,
                "remotes": [
                    {"name": copy.remote.name, "objects": len(copy.missing), "bytes": copy.nbytes}
                    for copy in plan.copies
                ],
                "refs": [update.ref for update in plan.updates],
                "checkpoints": [checkpoint.id for checkpoint in plan.checkpoints],
                "objects": plan.uploads,
                "bytes": plan.nbytes,
                "dry_run": dry_run,
            }
        )
        return
    render.answer(_worded(plan, dry_run=dry_run))
    if verify and plan.copies and plan.checkpoints and not dry_run:
        read = f"{render.counted(len(plan.needed), 'object')} of {render.counted(len(plan.checkpoints), 'checkpoint')}"
        render.answer(f"read back {read}: all of it is whole")


def _worded(plan: PushPlan, *, dry_run: bool) -> str:
    from ckptvcs.cli import render

    if plan.is_empty:
        return "everything is up to date"
    refs = [update.ref.removeprefix("refs/heads/").removeprefix("refs/tags/") for update in plan.updates]
    named = [render.text(ref) for ref in refs if not ref.startswith("refs/")]
    parts = [f"{', '.join(named) or 'the ledger'} to '{render.text(plan.to)}'"] if plan.updates else []
    for copy in plan.copies:
        objects = f"{len(copy.missing)} of {len(plan.needed)} objects ({render.size(copy.nbytes)})"
        parts.append(f"{objects} of {len(plan.checkpoints)} checkpoints to '{render.text(copy.remote.name)}'")
    return f"{'would push' if dry_run else 'pushed'} {'; '.join(parts)}"
