"""`ckpt gc`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ckptvcs.cli.options import complete_revision, dry_run_option, json_option, open_repo, track_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ckptvcs.domain.alerts import Alert
    from ckptvcs.porcelain.gc import Condemned, Report
    from ckptvcs.porcelain.repo import Repository
    from ckptvcs.porcelain.sweeping import Swept


@click.command()
@click.option(
    "--place", "places", metavar="NAME", multiple=True, help="Only this place: 'hot', or a remote. Repeat it."
)
@click.option(
    "--yes-delete",
    metavar="N",
    type=int,
    help="Agree that N checkpoints lose something, however much it is.",
)
@click.option("--accept-policy", is_flag=True, help="Agree to a policy that has changed since the last collection.")
@click.option("--grace", metavar="SPAN", help="How long the local cache waits, such as 12h; remotes wait as they must.")
@click.option("--offline", is_flag=True, help="Ask nobody, and collect in the local cache alone.")
@click.option(
    "--rescue",
    metavar="REV",
    shell_complete=complete_revision,
    help="Take the condemnation of a checkpoint back, and bring it back from the trash.",
)
@track_option
@json_option
@dry_run_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    places: tuple[str, ...],
    yes_delete: int | None,
    accept_policy: bool,
    grace: str | None,
    offline: bool,
    rescue: str | None,
    track: str | None,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Collect garbage: condemn what no policy keeps, and sweep what was condemned before and is still unneeded.

    It takes two runs, with the grace between them, for anything to go. What is in a remote then lies in a trash for some
    time, from which it can be brought back. 'ckpt policy plan' shows what is dropped, and 'ckpt why REV' why.

    \b
    Examples:
      ckpt gc --dry-run
      ckpt gc
      ckpt gc --place hot --grace 12h
      ckpt gc --rescue exp-a@step:1000
    """
    from ckptvcs.cli import waiting
    from ckptvcs.porcelain import gc

    repo = open_repo(ctx)
    if rescue is not None:
        _rescue(repo, rescue, track, as_json=as_json, dry_run=dry_run)
        return
    options = gc.Options(
        places=places,
        yes_delete=yes_delete,
        accept_policy=accept_policy,
        grace_s=grace_s(grace),
        offline=offline,
    )
    with waiting.busy("looking what is needed"):
        report = gc.collect(repo, options, dry_run=dry_run)
    tell(report, as_json=as_json, dry_run=dry_run)


def grace_s(text: str | None) -> float | None:
    """Seconds of a span that was typed.

    Raises:
        click.BadParameter: it is none.
    """
    from ckptvcs.domain.when import SPANS, span

    if text is None:
        return None
    found = span(text)
    if found is None:
        raise click.BadParameter(f"'{text}' is no span of time: write {SPANS}", param_hint="--grace")
    return found.total_seconds()


def tell(report: Report, *, as_json: bool, dry_run: bool, alerts: Sequence[Alert] | None = None) -> None:
    """Print what a collection did, or would do, and what somebody has to know."""
    from ckptvcs.cli import render

    for text in report.notes:
        render.note(text)
    for stop in report.stops:
        render.note(f"a person would have to look first: {stop.what}; {stop.next_step}")
    if as_json:
        told = {} if alerts is None else {"alerts": list(alerts)}
        render.answer_json({**report_json(report, dry_run=dry_run), **told})
        return
    for alert in alerts or ():
        render.note(f"{alert.severity}: {alert.what}; {alert.next_step}")
    _say(report, dry_run=dry_run)


def _say(report: Report, *, dry_run: bool) -> None:
    from ckptvcs.cli import render

    for swept in report.swept:
        _say_swept(swept, "would " if dry_run else "")
    if report.dropped:
        verb = "would drop" if dry_run else "dropped"
        render.answer(f"{verb} {render.counted(len(report.dropped), 'checkpoint')}, or components of them")
    for identifier in report.kept_again:
        verb = "would keep" if dry_run else "kept"
        render.answer(f"{verb} {identifier[:10]}, which was condemned and is needed again")
    for one in report.condemned:
        verb = "would condemn" if dry_run else "condemned"
        render.answer(f"{verb} {_what(one)}: swept in {render.duration(one.grace_s)} at the earliest")
    for one in report.waiting:
        later = f"in {render.duration(one.grace_s)} at the earliest" if one.grace_s else "by the next run"
        render.answer(f"condemned before: {_what(one)}: swept {later}")
    if report.is_empty and not report.waiting:
        render.answer("nothing to collect")


def report_json(report: Report, *, dry_run: bool) -> dict[str, Any]:
    """What scripts want to know of a collection."""
    from ckptvcs.porcelain import gc

    return {
        "run": report.run,
        "dropped": {identifier: list(components) for identifier, components in report.dropped.items()},
        "kept_again": list(report.kept_again),
        "condemned": list(report.condemned),
        "swept": list(report.swept),
        "waiting": list(report.waiting),
        "stops": gc.stops_as_facts(report.stops),
        "dry_run": dry_run,
    }


def _what(one: Condemned) -> str:
    from ckptvcs.cli import render

    return f"{render.counted(one.objects, 'object')} in '{render.text(one.place)}', {render.size(one.nbytes)}"


def _say_swept(swept: Swept, would: str) -> None:
    from ckptvcs.cli import render

    place = render.text(swept.place)
    if swept.objects:
        where = "into the trash" if swept.into_trash else "for good"
        what = f"{render.counted(swept.objects, 'object')} from '{place}' {where}, {render.size(swept.nbytes)}"
        render.answer(f"{would}sweep {what}" if would else f"swept {what}")
    if swept.emptied:
        what = (
            f"{render.counted(swept.emptied, 'object')} in the trash of '{place}', {render.size(swept.emptied_bytes)}"
        )
        render.answer(f"removed {what}")
    if swept.healed:
        render.answer(
            f"brought back {render.counted(len(swept.healed), 'object')} in '{place}' that are needed after all"
        )


def _rescue(repo: Repository, revision: str, track: str | None, *, as_json: bool, dry_run: bool) -> None:
    from ckptvcs.cli import render
    from ckptvcs.porcelain import rescue

    plan = rescue.plan(repo, revision, track=track)
    done = rescue.execute(repo, plan) if not dry_run else None
    if as_json:
        found = {"id": plan.checkpoint.id, "components": list(plan.components), "dry_run": dry_run}
        render.answer_json({**found, "brought_back": done.brought_back if done else 0})
        return
    verb = "would rescue" if dry_run else "rescued"
    render.answer(f"{verb} {', '.join(plan.components)} of checkpoint {plan.checkpoint.id[:10]}")
    if done is not None and done.brought_back:
        render.answer(f"{render.counted(done.brought_back, 'object')} came back from the trash")
    render.note("it waits its grace once more; 'ckpt hold' or a mark keeps it for longer")
