"""`ckpt policy plan`, `apply` and `simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ckptvcs.cli import gc as gc_command
from ckptvcs.cli.options import dry_run_option, json_option, limit_of, open_repo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ckptvcs.domain.keeping import Retain
    from ckptvcs.domain.simulation import Cadence
    from ckptvcs.porcelain.gc import Report
    from ckptvcs.porcelain.repo import Repository
    from ckptvcs.porcelain.retention import Judged, RetentionPlan
    from ckptvcs.porcelain.simulate import Outcome


@click.command()
@click.option(
    "--place", "places", metavar="NAME", multiple=True, help="Look only there: 'hot', or a remote. Repeat it."
)
@click.option(
    "--output", metavar="FILE", type=click.Path(path_type=Path), help="Save the plan for 'ckpt policy apply'."
)
@click.option("-n", "limit", default="50", metavar="N", help="How many checkpoints are shown, or 'all'. [default: 50]")
@click.option("--dropped", is_flag=True, help="Show only what is dropped.")
@json_option
@click.pass_context
def plan(
    ctx: click.Context,
    *,
    places: tuple[str, ...],
    output: Path | None,
    limit: str,
    dropped: bool,
    as_json: bool,
) -> None:
    """Show what the policy keeps and drops, why, and what that frees.

    Nothing is changed, and nobody else is asked what he needs: 'ckpt gc' does that before anything goes.

    \b
    Examples:
      ckpt policy plan
      ckpt policy plan --dropped -n all
      ckpt policy plan --output plan.json && ckpt policy apply plan.json
    """
    from ckptvcs.cli import render, waiting
    from ckptvcs.porcelain import places as where
    from ckptvcs.porcelain import plans, retention

    repo, count = open_repo(ctx), limit_of(limit)
    with waiting.busy("looking what is needed"):
        found = retention.plan(repo, where.opened(repo, places))
    for text in found.notes:
        render.note(text)
    if output is not None:
        plans.save(found, output)
    if as_json:
        render.answer_json(_plan_json(found))
        return
    shown = [one for one in found.judged if one.dropped or not dropped]
    for one in shown[:count]:
        _say_judged(one)
    if count is not None and len(shown) > count:
        render.note(f"only the newest {count} of {len(shown)} are shown; '-n all' shows every one")
    _say_sums(found)
    if output is not None:
        render.answer(
            f"saved to '{render.text(output)}': 'ckpt policy apply {render.text(output)}' carries out exactly that"
        )


def _plan_json(found: RetentionPlan) -> dict[str, Any]:
    from ckptvcs.porcelain import gc_ledger

    return {
        "checkpoints": [
            {
                "id": one.slim.id,
                "commit": one.slim.commit,
                "track": one.slim.track,
                "step": one.slim.step,
                "time": one.slim.time,
                "branches": list(one.branches),
                "kept": one.is_kept,
                "dropped": list(one.dropped),
                "reasons": list(one.decision.reasons),
                "overruled": list(one.decision.overruled),
            }
            for one in found.judged
        ],
        "evicted": list(found.verdict.evicted),
        "freed": list(found.freed),
        "new": len(gc_ledger.new_drops(found.verdict)),
        "at": found.at,
    }


def _say_judged(one: Judged) -> None:
    from datetime import datetime

    from ckptvcs.cli import render

    word = "keep" if one.is_kept and not one.dropped else "part" if one.is_kept else "drop"
    step = f"step {one.slim.step}" if one.slim.step is not None else ""
    because = "; ".join(dict.fromkeys(f"{r.kind}" for r in one.decision.reasons)) or "nothing keeps it"
    if one.is_kept and one.dropped:
        because = f"without {', '.join(one.dropped)}; {because}"
    if one.decision.overruled and not one.is_kept:
        because = f"{one.decision.overruled[0].by} has no room for it"
    colour = {"keep": "green", "part": "yellow", "drop": "red"}[word]
    parts = [
        click.style(word, fg=colour),
        click.style(one.slim.id[:10], fg="yellow"),
        step,
        render.when(datetime.fromtimestamp(one.slim.time).astimezone()),
        render.text(", ".join(one.branches[:3])),
        because,
    ]
    render.answer("  ".join(part for part in parts if part))


def _say_sums(found: RetentionPlan) -> None:
    from ckptvcs.cli import render
    from ckptvcs.porcelain import gc_ledger

    dropped = sum(1 for one in found.judged if not one.is_kept)
    part = sum(1 for one in found.judged if one.is_kept and one.dropped)
    some = f" ({part} of them in part)" if part else ""
    render.answer(f"{render.counted(len(found.judged) - dropped, 'checkpoint')} kept{some}, {dropped} dropped")
    new = len(gc_ledger.new_drops(found.verdict))
    if dropped + part > new:
        render.answer(f"{dropped + part - new} of those that lose something are condemned already, {new} are not")
    if found.verdict.evicted:
        count = len(found.verdict.evicted)
        several = "1 local copy of a kept one goes" if count == 1 else f"{count} local copies of kept ones go"
        render.answer(f"{several}, as far as they are here: a remote has all of it")
    for one in found.freed:
        what = f"{render.size(one.nbytes)} in '{render.text(one.place)}' ({render.counted(one.objects, 'object')})"
        render.answer(f"frees {what}" if one.objects else f"frees nothing in '{render.text(one.place)}'")


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option(
    "--yes-delete",
    metavar="N",
    type=int,
    help="Agree that N checkpoints lose something, however much it is.",
)
@click.option("--accept-policy", is_flag=True, help="Agree to a policy that has changed since the last collection.")
@click.option("--exit-code", is_flag=True, help="Exit with 3 if something was done, and 0 if there was nothing to do.")
@json_option
@dry_run_option
@click.pass_context
def apply(
    ctx: click.Context,
    *,
    file: Path | None,
    yes_delete: int | None,
    accept_policy: bool,
    exit_code: bool,
    as_json: bool,
    dry_run: bool,
) -> int:
    """Carry the policy out: condemn what it drops, sweep what has waited, move what has no room, tell alerts; for cron.

    With FILE, a plan that was saved by 'ckpt policy plan --output FILE', exactly that plan is carried out, or nothing if refs,
    policy or ledger have moved since. It exits with 50 if a person has to look first, and with 11 if another one is at work.

    \b
    Examples:
      ckpt policy apply
      ckpt policy apply --exit-code --json
      ckpt policy apply plan.json
    """
    from ckptvcs.cli import render, waiting
    from ckptvcs.porcelain import applying, gc, plans

    if file is not None and (yes_delete is not None or accept_policy):
        raise click.UsageError("a plan is what was agreed to: leave out --yes-delete and --accept-policy")
    repo = open_repo(ctx)
    options = gc.Options(yes_delete=yes_delete, accept_policy=accept_policy)
    with waiting.busy("looking what is needed"):
        saved = plans.read(file) if file is not None else None
        done = applying.apply(repo, options, saved=saved, dry_run=dry_run)
    for text in done.notes:
        render.note(text)
    gc_command.tell(done.report, as_json=as_json, dry_run=dry_run, alerts=done.alerts)
    return _status(done.report) if exit_code else 0


def _status(report: Report) -> int:
    return 0 if report.is_empty else 3


@click.command()
@click.option(
    "--policy", "file", metavar="FILE", type=click.Path(path_type=Path), help="Another policy, written as ckpt.yaml is."
)
@click.option(
    "--history", metavar="SPAN", help="Only the past of that span, such as 90d; all of it if it is not given."
)
@click.option("--every", metavar="SPAN", help="Instead of the past: a training that saves so often, such as 30min.")
@click.option("--for", "length", metavar="SPAN", help="How long that training lasts, such as 30d.")
@click.option("--size", "nbytes", metavar="SIZE", help="What a checkpoint of it has, such as 4GB.")
@click.option("--weights", metavar="SIZE", help="What of that is the model; a third of it if it is not given.")
@click.option("--shared", metavar="PART", type=float, default=0.0, help="The part of it that never changes, 0 to 1.")
@click.option("--branch", metavar="B", default="main", show_default=True, help="Where that training commits to.")
@click.option(
    "--price",
    metavar="P",
    type=click.FloatRange(min=0),
    help="What a GB costs for a month of 30 days, in any currency.",
)
@json_option
@click.pass_context
def simulate(ctx: click.Context, /, **options: Any) -> None:
    """Show what a policy would have done to the past, or would do to a training to come: bytes, cost, and what would be lost.

    The policy of ckpt.yaml and keeping everything are shown beside it. Lost is what was restored, marked, held, evaluated or
    trained on from after the policy would have let it go.

    \b
    Examples:
      ckpt policy simulate --policy other.yaml
      ckpt policy simulate --policy other.yaml --history 90d --price 0.023
      ckpt policy simulate --every 30min --for 30d --size 4GB
    """
    from ckptvcs.cli import render, waiting
    from ckptvcs.porcelain import simulate as porcelain

    repo = open_repo(ctx)
    policies = _policies(repo, options["file"])
    with waiting.busy("running the policies"):
        if options["every"] is None:
            since_s = _span(options["history"], "--history")
            found = porcelain.over_the_past(repo, policies, since_s=since_s, price=options["price"])
        else:
            found = porcelain.ahead(repo, policies, _cadence(options), branch=options["branch"], price=options["price"])
    if options["as_json"]:
        render.answer_json([_outcome_json(one) for one in found])
        return
    for one in found:
        _say_outcome(one)


def _policies(repo: Repository, file: Path | None) -> Mapping[str, Retain | None]:
    from ckptvcs.porcelain import simulate as porcelain

    found: dict[str, Retain | None] = {"keep everything": None}
    if repo.config.retain is not None:
        found["ckpt.yaml"] = repo.config.retain
    if file is not None:
        found[str(file)] = porcelain.policy_of(file)
    return found


def _span(text: str | None, option: str) -> float | None:
    from ckptvcs.domain.when import SPANS, span

    found = span(text) if text is not None else None
    if text is not None and found is None:
        raise click.BadParameter(f"'{text}' is no span of time: write {SPANS}", param_hint=option)
    return found.total_seconds() if found is not None else None


def _bytes_of(text: str | None, option: str) -> int:
    from ckptvcs.domain.keeping import size

    found = size(text) if text is not None else None
    if found is None:
        raise click.BadParameter(f"'{text}' is no size: write 500MB, 4GB or 1.5TiB", param_hint=option)
    return found


def _cadence(options: Mapping[str, Any]) -> Cadence:
    from ckptvcs.domain.simulation import Cadence

    every, length = _span(options["every"], "--every"), _span(options["length"], "--for")
    if not every or not length or options["nbytes"] is None:
        raise click.UsageError("a training to come needs --every, --for and --size")
    if length < every:
        raise click.UsageError("--for is shorter than --every: there would be no checkpoint")
    whole = _bytes_of(options["nbytes"], "--size")
    weights = _bytes_of(options["weights"], "--weights") if options["weights"] else whole // 3
    if not 0 <= options["shared"] <= 1 or weights > whole:
        raise click.UsageError("--shared is between 0 and 1, and --weights at most --size")
    components = {"model": weights, "optimizer": whole - weights}
    return Cadence(every_s=every, span_s=length, components=components, shared=options["shared"])


def _outcome_json(one: Outcome) -> dict[str, Any]:
    simulated = one.simulated
    return {
        "policy": one.name,
        "bytes": simulated.nbytes[-1] if simulated.nbytes else 0,
        "peak": simulated.peak,
        "gb_months": simulated.gb_months,
        "cost": one.cost,
        "kept": simulated.kept,
        "dropped": simulated.dropped,
        "lost": list(simulated.lost),
        "over_time": _over_time(simulated.times, simulated.nbytes),
    }


def _over_time(times: Sequence[float], nbytes: Sequence[int]) -> list[dict[str, Any]]:
    return [{"time": time, "bytes": size} for time, size in zip(times, nbytes, strict=True)]


def _amount(number: float) -> str:
    """A number in as many digits as anybody reads."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}" if number >= 0.01 else "under 0.01"


def _say_outcome(one: Outcome) -> None:
    from datetime import datetime

    from ckptvcs.cli import render

    simulated = one.simulated
    now = simulated.nbytes[-1] if simulated.nbytes else 0
    cost = f", cost {one.cost:.2f}" if one.cost is not None else ""
    render.answer(
        f"{render.text(one.name)}: {render.size(now)} at the end, {render.size(simulated.peak)} at most, "
        f"{_amount(simulated.gb_months)} GB-months{cost}; {render.counted(simulated.kept, 'checkpoint')} left, "
        f"{simulated.dropped} dropped, {render.counted(len(simulated.lost), 'use')} lost"
    )
    for lost in simulated.lost[:5]:
        used, gone = (datetime.fromtimestamp(time).astimezone() for time in (lost.use.time, lost.gone_at))
        render.answer(
            f"  {lost.use.checkpoint[:10]} was {render.text(lost.use.what)} at {render.when(used)}, and would have been gone "
            f"since {render.when(gone)}"
        )
    if len(simulated.lost) > 5:
        render.answer(f"  and {len(simulated.lost) - 5} more")
