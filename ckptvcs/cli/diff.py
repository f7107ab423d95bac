"""`ckpt diff`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ckptvcs.cli.options import complete_revision, json_option, open_repo, track_option

if TYPE_CHECKING:
    from ckptvcs.domain.compare import Change, ComponentDifference
    from ckptvcs.porcelain.compare import Compared


@click.command()
@click.argument("before", metavar="A", shell_complete=complete_revision)
@click.argument("after", metavar="[B]", default="HEAD", shell_complete=complete_revision)
@click.option("--tensors", is_flag=True, help="List every tensor that changed.")
@click.option("--values", is_flag=True, help="Measure how far changed tensors are apart; reads them.")
@track_option
@json_option
@click.pass_context
def command(
    ctx: click.Context, *, before: str, after: str, tensors: bool, values: bool, track: str | None, as_json: bool
) -> None:
    """Show what changed between two checkpoints.

    Components, files and tensors; metrics and hyperparameters; code, data and environment. B is HEAD if it is not given.

    \b
    Examples:
      ckpt diff main@step:100 main@step:200
      ckpt diff golden/base exp-a@best --tensors
      ckpt diff HEAD~3 --values
    """
    from ckptvcs.cli import render, waiting
    from ckptvcs.porcelain import compare

    with waiting.busy("comparing"):
        compared = compare.diff(open_repo(ctx), before, after, track=track, tensors=tensors or None, values=values)
    for text in compared.notes:
        render.note(text)
    if as_json:
        render.answer_json(_json(compared))
    else:
        _say(compared, tensors=tensors)


def _json(compared: Compared) -> dict[str, Any]:
    from ckptvcs.cli import render

    return {
        "before": render.checkpoint_json(compared.before),
        "after": render.checkpoint_json(compared.after),
        "difference": compared.difference,
        "values": compared.distances,
    }


def _say(compared: Compared, *, tensors: bool) -> None:
    from ckptvcs.cli import render

    difference = compared.difference
    steps = " -> ".join("-" if step is None else str(step) for step in difference.step)
    render.answer(f"{compared.before.id[:10]} -> {compared.after.id[:10]}   step {steps}")
    for component in difference.components:
        _say_component(component, tensors=tensors)
    for title in ("metrics", "params", "code", "data", "environment"):
        found: tuple[Change, ...] = getattr(difference, title)
        if found:
            render.answer(f"{title}:")
        for change in found:
            render.answer(f"  {_sign(change.kind)} {render.text(change.key)}  {_values(change)}")
    if compared.distances:
        render.answer("values:")
    for distance in compared.distances:
        same = f"{distance.equal} of {distance.count} equal"
        measured = f"largest {distance.largest:.3g}, relative {distance.relative:.3g}, {same}"
        render.answer(f"  {render.text(f'{distance.component}/{distance.name}')}  {measured}")


def _say_component(component: ComponentDifference, *, tensors: bool) -> None:
    from ckptvcs.cli import render

    sizes = f"{render.size(component.changed_bytes)} changed, {render.size(component.same_bytes)} the same"
    known = component.tensors
    count = "tensors not compared" if known is None else render.counted(len(known), "tensor")
    count = f"{count}, {render.counted(len(component.files), 'file')}"
    render.answer(f"{_sign(component.kind)} {component.name} ({component.role}): {count}; {sizes}")
    if tensors:
        for change in known or ():
            render.answer(f"    {_sign(change.kind)} {render.text(change.key)}  {_values(change)}")


def _sign(kind: str) -> str:
    sign, colour = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}[kind]
    return click.style(sign, fg=colour)


def _values(change: Change) -> str:
    from ckptvcs.cli import render

    texts = ["" if value is None else render.number(value) for value in (change.before, change.after)]
    if change.kind != "changed":
        return texts[0] or texts[1]
    return texts[0] if texts[0] == texts[1] else f"{texts[0]} -> {texts[1]}"
