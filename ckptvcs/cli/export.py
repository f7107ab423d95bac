"""`ckpt export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from ckptvcs.cli.options import dry_run_option, json_option, open_repo, pickle_option, revision_argument, track_option

if TYPE_CHECKING:
    from ckptvcs.porcelain.exchange import Format


@click.command()
@revision_argument(required=True)
@click.argument("destination", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "format_",
    type=click.Choice(["pt", "safetensors", "hf", "lightning"]),
    help="What to write; by the name of DESTINATION if it is not given.",
)
@click.option("--component", metavar="C", help="For safetensors: which component; the model if it is not given.")
@pickle_option
@track_option
@json_option
@dry_run_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    revision: str,
    destination: Path,
    format_: str | None,
    component: str | None,
    allow_pickle: bool,
    track: str | None,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Write a checkpoint for other programs.

    pt: one file for torch.load; safetensors: one file with the weights; hf: a folder for transformers and its Trainer;
    lightning: a .ckpt for Lightning's Trainer. DESTINATION must not exist.

    \b
    Examples:
      ckpt export HEAD model.pt
      ckpt export golden/base weights.safetensors
      ckpt export exp-a@best best-model --format hf
    """
    from ckptvcs.cli import render, waiting
    from ckptvcs.porcelain import exchange

    repo = open_repo(ctx)
    plan = exchange.plan_export(
        repo,
        revision,
        destination,
        format=cast("Format | None", format_),
        component=component,
        allow_pickle=allow_pickle,
        track=track,
    )
    if not dry_run:
        with waiting.busy(f"writing {destination.name}"):
            notes = exchange.execute(repo, plan)
        for text in notes:
            render.note(text)
    if as_json:
        document = render.checkpoint_json(plan.checkpoint)
        render.answer_json(
            {"checkpoint": document, "destination": plan.destination, "format": plan.format, "dry_run": dry_run}
        )
        return
    verb = "would export" if dry_run else "exported"
    where = render.text(plan.destination)
    render.answer(f"{verb} checkpoint {plan.checkpoint.id[:10]} to {where} ({plan.format})")
