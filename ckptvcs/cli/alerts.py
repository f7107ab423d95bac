"""`ckpt alerts`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ckptvcs.cli.options import json_option, open_repo
from ckptvcs.errors import UsageError

if TYPE_CHECKING:
    from ckptvcs.domain.alerts import Alert


@click.command()
@click.option("--prometheus", is_flag=True, help="Answer in the text format of Prometheus, with numbers besides.")
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --prometheus: write it to this file, as a whole or not at all.",
)
@click.option("--send", is_flag=True, help="Hand the alerts to the program of 'alerts.command'.")
@click.option("--offline", is_flag=True, help="Look at the local cache alone, and at no remote.")
@click.option("--no-exit-code", is_flag=True, help="Exit with 0 also where there are alerts.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    prometheus: bool,
    output: Path | None,
    send: bool,
    offline: bool,
    no_exit_code: bool,
    as_json: bool,
) -> int:
    """Tell what somebody has to know: growth, a place that fills, work that could be lost, proofs that are too old.

    The section 'alerts' of ckpt.yaml says what. Nothing is changed. A remote that does not answer is an alert, too. It exits
    with 1 where there are alerts.

    \b
    Examples:
      ckpt alerts
      ckpt alerts --send
      ckpt alerts --prometheus --output /var/lib/node_exporter/ckpt.prom --no-exit-code
    """
    from ckptvcs.cli import render, waiting
    from ckptvcs.porcelain import alerts

    if output is not None and not prometheus:
        raise UsageError("--output needs --prometheus", next_step="redirect everything else: ckpt alerts --json > FILE")
    repo = open_repo(ctx)
    with waiting.busy("looking at every place"):
        found = alerts.look(repo, offline=offline)
        notes = (*found.notes, *(alerts.send(repo, found) if send else ()))
    for text in notes:
        render.note(text)
    if prometheus and output is not None:
        alerts.write_prometheus(found, output)
    if as_json:
        render.answer_json(alerts.document(found))
    elif prometheus and output is None:
        render.answer(alerts.prometheus(found).rstrip("\n"))
    else:
        _say(found.alerts, wanted=alerts.limits(repo))
    return 1 if found.alerts and not no_exit_code else 0


def _say(found: tuple[Alert, ...], *, wanted: bool) -> None:
    from ckptvcs.cli import render

    for one in found:
        colour = "red" if one.severity == "critical" else "yellow"
        render.answer(f"{click.style(f'{one.severity}:', fg=colour, bold=True)} {render.text(one.what)}")
        render.answer(f"  next: {render.text(one.next_step)}")
    if not found:
        render.answer("nothing to tell" if wanted else "nothing to tell: ckpt.yaml has no limits in 'alerts'")
