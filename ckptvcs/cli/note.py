"""`ckpt note`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ckptvcs.cli.options import dry_run_option, json_option, metrics_of, open_repo, revision_argument, track_option

if TYPE_CHECKING:
    from ckptvcs.domain.events import Event
    from ckptvcs.porcelain.note import NotePlan


@click.command()
@revision_argument(required=True)
@click.option("--metric", "metrics", multiple=True, metavar="K=V", help="What an evaluation found. Repeatable.")
@click.option("-m", "--message", metavar="MSG", help="Where it comes from, for people.")
@track_option
@json_option
@dry_run_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    revision: str,
    metrics: tuple[str, ...],
    message: str | None,
    track: str | None,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Note metrics of a checkpoint that come late.

    They count wherever metrics are compared, as in BRANCH@best, and go before those that the checkpoint was made with. The
    checkpoint itself does not change: the note is an entry of the ledger.

    \b
    Examples:
      ckpt note main@latest --metric val_loss=0.31
      ckpt note 3f9a1c77 --metric bleu=27.4 --metric chrf=55.1 -m "newstest, beam 5"
    """
    from ckptvcs.cli import render
    from ckptvcs.porcelain import note

    repo = open_repo(ctx)
    plan = note.plan_note(repo, revision, metrics_of(metrics), message=message, track=track)
    for text in plan.notes:
        render.note(text)
    event = None if dry_run else note.execute(repo, plan)
    if as_json:
        _say_json(plan, event)
    else:
        _say(plan, dry_run=dry_run)


def _say(plan: NotePlan, *, dry_run: bool) -> None:
    from ckptvcs.cli import render

    before = plan.checkpoint.metrics
    changed = {name: before[name] for name, value in plan.metrics.items() if before.get(name, value) != value}
    was = f" (before: {render.listed(changed)})" if changed else ""
    step = plan.checkpoint.manifest.step
    of = f"{plan.checkpoint.id[:10]}{f' step {step}' if step is not None else ''}"
    would = "would have " if dry_run else ""
    render.answer(f"{would}noted of checkpoint {of}: {render.listed(dict(plan.metrics))}{was}")


def _say_json(plan: NotePlan, event: Event | None) -> None:
    from ckptvcs.cli import render

    render.answer_json(
        {
            "id": plan.checkpoint.id,
            "commit": plan.checkpoint.commit,
            "metrics": plan.metrics,
            "before": plan.checkpoint.metrics,
            "message": plan.message,
            "writer": event.writer if event else None,
            "n": event.n if event else None,
            "dry_run": event is None,
        }
    )
