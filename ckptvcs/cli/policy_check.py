"""`ckpt policy check`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from ckptvcs.cli.options import json_option, open_repo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ckptvcs.porcelain.policy_check import Checked, Effect

_SHOWN: Final = 5


@click.command()
@click.option(
    "--against", metavar="REV", default="HEAD", show_default=True, help="Compare with ckpt.yaml of this git revision."
)
@click.option("--exit-code", is_flag=True, help="Exit with 1 if something is dropped that was kept.")
@json_option
@click.pass_context
def check(ctx: click.Context, *, against: str, exit_code: bool, as_json: bool) -> int:
    """Say whether ckpt.yaml can be used, and what it means differently than before.

    Both policies are decided on the checkpoints that are here: what is dropped now that was kept, and kept that was dropped.
    What is valid and odd is told too, such as a rule that fits no branch. Nothing is changed.

    \b
    Examples:
      ckpt policy check
      ckpt policy check --against origin/main --exit-code
    """
    from ckptvcs.cli import render, waiting
    from ckptvcs.porcelain import policy_check

    repo = open_repo(ctx)
    with waiting.busy("deciding both policies"):
        found = policy_check.check(repo, against)
    for text in found.notes:
        render.note(text)
    if as_json:
        render.answer_json(_json(found))
    else:
        _say(found, against)
    return 1 if exit_code and found.dropped else 0


def _json(found: Checked) -> dict[str, Any]:
    return {
        "against": found.against,
        "changes": list(found.changes),
        "dropped": [_effect_json(one) for one in found.dropped],
        "dropped_bytes": found.dropped_bytes,
        "kept": [_effect_json(one) for one in found.kept],
        "kept_bytes": found.kept_bytes,
        "odd": list(found.odd),
    }


def _effect_json(one: Effect) -> dict[str, Any]:
    return {
        "id": one.slim.id,
        "commit": one.slim.commit,
        "step": one.slim.step,
        "time": one.slim.time,
        "branches": list(one.branches),
        "components": list(one.components),
        "because": list(one.because),
    }


def _say(found: Checked, against: str) -> None:
    from ckptvcs.cli import render

    render.answer("ckpt.yaml: OK")
    for text in found.odd:
        render.note(text)
    if found.against is not None:
        since = f"{render.text(against)} ({found.against[:10]})"
        render.answer(f"since {since}:" if found.changes else f"since {since} nothing means anything else")
    for change in found.changes:
        was = f" (was: {render.text(change.before)})" if change.before else ""
        render.answer(f"  {change.section}: {change.how}: {render.text(change.what)}{was}")
    if found.changes:
        _say_effects("drops", "kept", found.dropped, found.dropped_bytes)
        _say_effects("keeps", "dropped", found.kept, found.kept_bytes)


def _say_effects(verb: str, before: str, effects: Sequence[Effect], nbytes: int) -> None:
    from ckptvcs.cli import render

    if not effects:
        render.answer(f"{verb} nothing that was {before}")
        return
    whole = render.counted(len(effects), "checkpoint")
    render.answer(f"{verb} {whole} that {'was' if len(effects) == 1 else 'were'} {before}, {render.size(nbytes)}:")
    for one in effects[:_SHOWN]:
        render.answer(f"  {_line(one)}")
    if len(effects) > _SHOWN:
        render.answer(f"  and {len(effects) - _SHOWN} more")


def _line(one: Effect) -> str:
    from datetime import datetime

    from ckptvcs.cli import render

    part = f"only {', '.join(one.components)}" if set(one.components) != set(one.slim.parts) else ""
    words = [
        click.style(one.slim.id[:10], fg="yellow"),
        f"step {one.slim.step}" if one.slim.step is not None else "",
        render.when(datetime.fromtimestamp(one.slim.time).astimezone()),
        render.text(part),
        render.text("; ".join(one.because[:2])),
    ]
    return "  ".join(word for word in words if word)
