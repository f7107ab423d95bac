"""`ckpt why`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ckptvcs.cli.options import json_option, open_repo, revision_argument, track_option

if TYPE_CHECKING:
    from ckptvcs.domain.reasons import Reason
    from ckptvcs.porcelain.why import Standing, Why


@click.command()
@revision_argument(required=True)
@click.option("--ask", is_flag=True, help="Ask the remotes for pushes under way that need it, too.")
@track_option
@json_option
@click.pass_context
def command(ctx: click.Context, *, revision: str, ask: bool, track: str | None, as_json: bool) -> None:
    """Say what keeps a checkpoint, or why it is dropped.

    Every rule, mark, fork and hold is listed, and what would follow if it were gone.

    \b
    Examples:
      ckpt why exp-a@best
      ckpt why exp-a@step:1000
      ckpt why golden/base --json
    """
    from ckptvcs.cli import render, waiting
    from ckptvcs.porcelain import why

    repo = open_repo(ctx)
    with waiting.busy("reading the history"):
        found = why.why(repo, revision, track=track, ask=ask)
    for text in found.notes:
        render.note(text)
    if as_json:
        render.answer_json(_json(found))
    else:
        _say(found)


def _json(found: Why) -> dict[str, object]:
    checkpoint = found.checkpoint
    return {
        "id": checkpoint.id,
        "commit": checkpoint.commit,
        "kept": list(found.kept),
        "dropped": list(found.dropped),
        "reasons": list(found.decision.reasons),
        "overruled": list(found.decision.overruled),
        "removals": list(found.removals),
        "standings": list(found.standings),
        "leases": list(found.leases),
        "fate": checkpoint.dropped,
    }


def _say(found: Why) -> None:
    from ckptvcs.cli import render

    checkpoint = found.checkpoint
    step = f" step {checkpoint.manifest.step}" if checkpoint.manifest.step is not None else ""
    render.answer(f"checkpoint {checkpoint.id[:10]}{step}: {_verdict(found)}")
    for reason in found.decision.reasons:
        render.answer(f"  kept: {_reason(reason)}")
    for one in found.decision.overruled:
        render.answer(f"  not kept, because of {one.by}: {_reason(one.reason)}")
    _say_leases(found)
    if checkpoint.dropped is not None:
        fate = checkpoint.dropped
        done = "gone" if fate.gone >= fate.components else "condemned"
        render.answer(f"  {', '.join(sorted(fate.components))}: {done} since {render.stamp(fate.time)}: {fate.why}")
    for standing in found.standings:
        render.answer(f"  {_place(standing)}")
    if found.removals:
        render.answer("if this were gone:")
        for removal in found.removals:
            what = "it would be dropped" if removal.dropped else f"it would be kept: {', '.join(removal.left)}"
            render.answer(f"  {render.text(removal.source)}: {what}")


def _say_leases(found: Why) -> None:
    from ckptvcs.cli import render

    for text in found.leases:
        render.answer(f"  for now: {render.text(text)}")


def _verdict(found: Why) -> str:
    if found.checkpoint.is_gone:
        return "it is gone"
    if not found.kept:
        return "nothing keeps it"
    return f"kept, but for {', '.join(found.dropped)}" if found.dropped else "kept"


def _reason(reason: Reason) -> str:
    from ckptvcs.cli import render

    only = f" ({', '.join(reason.components)} alone)" if reason.components else ""
    always = ", whatever the policy says" if reason.floor else ""
    return f"{reason.kind}: {render.text(reason.text)}{only}{always}"


def _place(standing: Standing) -> str:
    from ckptvcs.cli import render

    ranks = "".join(f", number {rank} by {render.text(name)}" for name, rank in standing.ranks.items())
    return f"on '{render.text(standing.branch)}': number {standing.place} of {standing.count} from the newest{ranks}"
