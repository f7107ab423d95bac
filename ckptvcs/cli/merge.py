"""`ckpt merge`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ckptvcs.cli.options import complete_revision, dry_run_option, json_option, metrics_of, open_repo, track_option
from ckptvcs.domain.recipe import METHODS, RESTS

if TYPE_CHECKING:
    from ckptvcs.domain.recipe import Recipe
    from ckptvcs.porcelain.commit import Receipt
    from ckptvcs.porcelain.describe import Options
    from ckptvcs.porcelain.merge import MergePlan


@click.command()
@click.argument("revisions", metavar="REV...", nargs=-1, required=True, shell_complete=complete_revision)
@click.option("--method", type=click.Choice(METHODS), help="How; mean if it is not given, weighted with --weights.")
@click.option("--weights", metavar="W,W...", help="Of weighted: how much each counts; they are divided by their sum.")
@click.option("--decay", type=float, metavar="D", help="Of ema: the share of the average that stays at each next REV.")
@click.option(
    "--t", "t", type=float, metavar="T", help="Of slerp: 0 is the first REV, 1 the second; 0.5 if it is not given."
)
@click.option(
    "--base",
    metavar="REV",
    shell_complete=complete_revision,
    help="Of ties: what all were tuned from; their nearest common ancestor if it is not given.",
)
@click.option(
    "--density",
    type=float,
    metavar="D",
    help="Of ties: the share of each task vector that stays; 0.2 if it is not given.",
)
@click.option(
    "--lambda", "scale", type=float, metavar="L", help="Of ties: what the outcome is scaled by; 1 if it is not given."
)
@click.option(
    "--component", "components", multiple=True, metavar="C", help="Merge this one, by name or role. Repeatable."
)
@click.option(
    "--rest",
    type=click.Choice(RESTS),
    default="none",
    show_default=True,
    help="Optimizer, scheduler and all else: left out, or that of the first REV.",
)
@click.option("-m", "--message", metavar="MSG", help="The commit message.")
@track_option
@click.option("--branch", metavar="B", help="The branch; the one that is checked out if it is not given.")
@click.option("--step", type=click.IntRange(min=0), metavar="N", help="The step of the outcome.")
@click.option(
    "--metric", "metrics", multiple=True, metavar="K=V", help="A number that says how good it is. Repeatable."
)
@click.option("--no-workspace", is_flag=True, help="Do not put the artifact into the workspace.")
@json_option
@dry_run_option
@click.pass_context
def command(ctx: click.Context, /, *, revisions: tuple[str, ...], as_json: bool, dry_run: bool, **options: Any) -> None:
    """Make one checkpoint of several: average or merge their weights.

    Floating point tensors of models (and of averages of weights) are merged, everything else of them must be equal or is
    that of the first REV. All REVs become git parents. An optimizer that never saw the merged weights is left out unless
    --rest first asks for that of the first REV; then the checkpoint is at most approximately resumable.

    mean and weighted average all; ema goes from the oldest REV to the newest; slerp goes from one to another along an
    arc; ties takes the largest changes since --base, elects for each number the sign with the larger total, and adds the
    mean of those that have it. --base is the nearest common ancestor in git if it is not named.

    \b
    Examples:
      ckpt merge exp-a exp-b exp-c -m "soup"
      ckpt merge exp-a exp-b --weights 3,1 --branch soup
      ckpt merge run@step:800 run@step:900 run@step:1000 --method ema --decay 0.5
      ckpt merge math code chat --method ties --density 0.2 --lambda 1
    """
    from ckptvcs.cli import render, waiting
    from ckptvcs.porcelain import merge

    repo = open_repo(ctx)
    recipe = _recipe(options)
    with waiting.busy(f"merging {len(revisions)} checkpoints"):
        plan = merge.plan(repo, revisions, recipe, _options(options))
    if dry_run:
        _say_plan(plan, as_json=as_json)
        return
    with waiting.progress("writing", plan.commit.new_bytes) as advance:
        receipt = merge.execute(repo, plan, advance)
    for text in receipt.notes:
        render.note(text)
    _say_receipt(plan, receipt, as_json=as_json)


def _recipe(options: dict[str, Any]) -> Recipe:
    from ckptvcs.domain.recipe import Recipe

    names = ("method", "decay", "t", "base", "density", "scale", "components", "rest")
    return Recipe(weights=_weights(options["weights"]), **{name: options[name] for name in names})


def _weights(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(weight) for weight in text.split(","))
    except ValueError as err:
        raise click.BadParameter(f"'{text}' are no numbers with commas between them", param_hint="--weights") from err


def _options(options: dict[str, Any]) -> Options:
    import secrets

    from ckptvcs.porcelain.describe import Options

    return Options(
        message=options["message"],
        track=options["track"],
        branch=options["branch"],
        run_id=secrets.token_hex(8),
        step=options["step"],
        metrics=metrics_of(options["metrics"]),
        reason="merge",
        workspace=not options["no_workspace"],
    )


def _facts(plan: MergePlan) -> dict[str, Any]:
    """What scripts want to know of a merge."""
    return {
        **plan.recipe.plain(),
        "of": [source.id for source in plan.sources],
        "base": plan.base.id if plan.base else None,
        "merged": plan.merged,
        "taken": plan.taken,
        "left_out": plan.left_out,
        "track": plan.commit.track,
        "bytes": plan.commit.nbytes,
        "new_bytes": plan.commit.new_bytes,
    }


def _say_plan(plan: MergePlan, *, as_json: bool) -> None:
    from ckptvcs.cli import render

    branch, notes = plan.commit.target.branch, plan.commit.incoming.notes
    if as_json:
        render.answer_json({"dry_run": True, "branch": branch, "notes": notes, **_facts(plan)})
        return
    for text in notes:
        render.note(text)
    render.answer(f"would merge into branch '{branch}', track '{plan.commit.track}' ({plan.recipe.method}):")
    for source in plan.sources:
        render.answer(f"  {source.id[:10]}  {render.text(source.subject)}")
    _say_parts(plan)
    render.answer(f"{render.size(plan.commit.new_bytes)} of {render.size(plan.commit.nbytes)} would be written")


def _say_parts(plan: MergePlan) -> None:
    from ckptvcs.cli import render

    base = f"; base {plan.base.id[:10]}" if plan.base else ""
    taken = f"; from the first: {', '.join(plan.taken)}" if plan.taken else ""
    left_out = f"; left out: {', '.join(plan.left_out)}" if plan.left_out else ""
    render.answer(f" merged: {', '.join(plan.merged)}{taken}{left_out}{base}")


def _say_receipt(plan: MergePlan, receipt: Receipt, *, as_json: bool) -> None:
    from ckptvcs.cli import render

    manifest = receipt.manifest
    if as_json:
        facts = {"id": receipt.id, "commit": receipt.commit, "branch": receipt.branch, "step": manifest.step}
        render.answer_json({**facts, "grade": manifest.grade, "notes": receipt.notes, **_facts(plan)})
        return
    step = f" step {manifest.step}" if manifest.step is not None else ""
    render.answer(f"[{receipt.branch} {receipt.commit[:10]}] checkpoint {receipt.id[:10]}{step}")
    _say_parts(plan)
    sizes = f"{render.size(receipt.new_bytes)} new of {render.size(plan.commit.nbytes)}"
    render.answer(f" {plan.recipe.method} of {len(plan.sources)}; {sizes}; resumable: {manifest.grade}")
