"""`ckpt doctor`."""

from __future__ import annotations

from pathlib import Path

import click

from ckptvcs.cli.options import json_option


@click.command()
@json_option
@click.pass_context
def command(ctx: click.Context, *, as_json: bool) -> int:
    """Say what is wrong here, and what mends it.

    Looks at git, DVC, the configuration, the cache, and every checkpoint that a branch or tag leads to; changes nothing.
    The exit status is 1 if something was found.

    \b
    Examples:
      ckpt doctor
      ckpt doctor --json
    """
    from ckptvcs.cli import render, waiting
    from ckptvcs.porcelain import doctor

    with waiting.busy("looking at every checkpoint"):
        found = doctor.examine(Path(ctx.find_root().obj or "."))
    if as_json:
        render.answer_json({"findings": found})
        return 1 if found else 0
    for finding in found:
        render.answer(f"{click.style('finding:', fg='red')} {render.text(finding.what)}")
        render.answer(f"  why:  {render.text(finding.why)}")
        render.answer(f"  next: {render.text(finding.next_step)}")
    if not found:
        render.answer("all is well")
    return 1 if found else 0
