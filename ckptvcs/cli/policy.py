"""`ckpt policy`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ckptvcs.cli import policy_check, policy_plan
from ckptvcs.cli.options import json_option, open_repo, track_option

if TYPE_CHECKING:
    from ckptvcs.domain.calibration import Proposal
    from ckptvcs.porcelain.calibrate import Calibration


@click.group()
def command() -> None:
    """Show and check the policy, plan by it, carry it out, and calibrate it by past training."""


command.add_command(policy_check.check)
command.add_command(policy_plan.plan)
command.add_command(policy_plan.apply)
command.add_command(policy_plan.simulate)


@command.command()
@json_option
@click.pass_context
def show(ctx: click.Context, *, as_json: bool) -> None:
    """Show what ckpt.yaml means, with the defaults of all that it does not say.

    Where it has no section "save", "save: null" stands for the default policy: as often as costs 3.5 % of the time, when
    the process is told to end, and at the end.

    \b
    Examples:
      ckpt policy show
      ckpt policy show --json
    """
    from ckptvcs.cli import render

    config = open_repo(ctx).config
    if as_json:
        render.answer_json(config)
    else:
        render.answer(_as_yaml(render.plain(config)).rstrip("\n"))


@command.command()
@click.option("--run", metavar="NAME", help="Only what is known of this run; all of them if it is not given.")
@track_option
@json_option
@click.pass_context
def calibrate(ctx: click.Context, *, run: str | None, track: str | None, as_json: bool) -> None:
    """Propose how often to save, from past training.

    It reads the ledger; where that tells nothing, the times of checkpoints. Nothing is changed: what is below the empty
    line can be pasted into ckpt.yaml.

    \b
    Examples:
      ckpt policy calibrate
      ckpt policy calibrate --run bert-lr3e-4
    """
    from ckptvcs.cli import render
    from ckptvcs.porcelain import calibrate as porcelain

    found = porcelain.calibrate(open_repo(ctx), run=run, track=track)
    if as_json:
        numbers = render.plain(found.proposal)
        render.answer_json({**numbers, "source": found.source, "save": {"interval": found.interval}})
    else:
        _say(found)


def _say(found: Calibration) -> None:
    from ckptvcs.cli import render

    numbers = found.proposal
    if found.source != "ledger":
        render.note(
            "the ledger tells of no run: pauses between checkpoints are taken for failures, and costs are not known"
        )
    for title, text in _lines(numbers):
        render.answer(f"{title + ':':<11} {text}")
    render.answer()
    render.answer(found.yaml.rstrip("\n"))


def _lines(numbers: Proposal) -> list[tuple[str, str]]:
    """The numbers behind the proposal, in words."""
    from ckptvcs.cli.render import counted, duration

    lines = [
        (
            "recorded",
            f"{counted(numbers.saves, 'save')} of {counted(numbers.runs, 'run')} with {counted(numbers.starts, 'start')},"
            f" up for {duration(numbers.uptime_s)}",
        ),
        (
            "failures",
            f"{numbers.failures}, and {counted(numbers.preemptions, 'preemption')}; one in {duration(numbers.mtbf_s)}, "
            f"at least {duration(numbers.mtbf_low_s)}"
            + (f", at most {duration(numbers.mtbf_high_s)}" if numbers.mtbf_high_s is not None else ""),
        ),
    ]
    if numbers.cost_median_s is not None and numbers.cost_p90_s is not None:
        lines.append(
            ("cost", f"{duration(numbers.cost_median_s)} of training (nine of ten: {duration(numbers.cost_p90_s)})")
        )
    if numbers.duration_median_s is not None and numbers.duration_p90_s is not None:
        durable = f"{duration(numbers.duration_median_s)} (nine of ten: {duration(numbers.duration_p90_s)})"
        lines.append(("durable", f"after {durable}"))
    if numbers.young_s is not None and numbers.daly_s is not None and numbers.budget_s is not None:
        lines += [
            ("Young", f"every {duration(numbers.young_s)}"),
            ("Daly", f"every {duration(numbers.daly_s)}"),
            ("budget", f"every {duration(numbers.budget_s)} or more, for saves to take {numbers.overhead:.1%} at most"),
        ]
    if numbers.now_s is not None:
        lines.append(("until now", f"every {duration(numbers.now_s)}{_lost(numbers.lost_now)}"))
    if numbers.interval_s is not None:
        lines.append(("proposed", f"every {duration(numbers.interval_s)}{_lost(numbers.lost)}"))
    return lines


def _lost(part: float | None) -> str:
    return "" if part is None else f", which loses {part:.1%} of the time"


def _as_yaml(document: Any) -> str:
    import yaml

    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)
    assert isinstance(text, str)
    return text
