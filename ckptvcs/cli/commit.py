"""`ckpt commit`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ckptvcs.cli.options import (
    dry_run_option,
    json_option,
    metrics_of,
    number,
    open_repo,
    pairs,
    pickle_option,
    track_option,
)

if TYPE_CHECKING:
    from ckptvcs.porcelain.commit import CommitPlan, Receipt
    from ckptvcs.porcelain.describe import Options


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("-m", "--message", metavar="MSG", help="The commit message.")
@track_option
@click.option("--branch", metavar="B", help="The branch; that of the run, else the one that is checked out.")
@click.option("--run", metavar="NAME", help="The training job; its checkpoints go to the branch of that name.")
@click.option(
    "--step", type=click.IntRange(min=0), metavar="N", help="Optimizer step; read from the state if it says it."
)
@click.option("--epoch", type=click.FloatRange(min=0), metavar="N", help="Epoch; read from the state if it says it.")
@click.option(
    "--metric", "metrics", multiple=True, metavar="K=V", help="A number that says how good it is. Repeatable."
)
@click.option("--param", "params", multiple=True, metavar="K=V", help="A hyperparameter. Repeatable.")
@click.option("--params-file", type=click.Path(path_type=Path), metavar="F", help="Hyperparameters from JSON or YAML.")
@click.option("--data", multiple=True, metavar="PATH", help="Data that was used; it is hashed. Repeatable.")
@click.option("--reason", default="manual", metavar="R", help="Why it was saved.")
@click.option("--no-workspace", is_flag=True, help="Do not put the artifact into the workspace.")
@click.option("--follow-links", is_flag=True, help="Also read links that lead out of SOURCE.")
@pickle_option
@json_option
@dry_run_option
@click.pass_context
def command(ctx: click.Context, /, *, source: Path, as_json: bool, dry_run: bool, **options: Any) -> None:
    """Make a checkpoint from a file or folder.

    SOURCE is a .pt, .pth, .ckpt or .safetensors file, a folder of Hugging Face's libraries, or an artifact. It is read,
    never moved or changed, and no code in it runs.

    \b
    Examples:
      ckpt commit model.pt -m "before the learning rate drops"
      ckpt commit outputs/checkpoint-500 --run bert-lr3e-4 --metric val_loss=0.31
      ckpt commit last.ckpt --branch exp-a --data data/train.txt
    """
    from ckptvcs.cli import render, waiting
    from ckptvcs.porcelain import commit, incoming

    repo = open_repo(ctx)
    chosen = _options(options)
    with waiting.busy(f"reading {source.name}"):
        what = incoming.from_path(source, allow_pickle=options["allow_pickle"], follow_links=options["follow_links"])
        plan = commit.plan(repo, what, chosen)
    if dry_run:
        _say_plan(plan, as_json=as_json)
        return
    with waiting.progress("writing", plan.new_bytes) as advance:
        receipt = commit.execute(repo, plan, advance)
    for text in receipt.notes:
        render.note(text)
    for path in receipt.manifest.provenance.code.untracked[:1]:
        render.note(f"'{path}' is not tracked by git: the checkpoint does not record what it holds")
    _say_receipt(plan, receipt, as_json=as_json)


def _options(options: dict[str, Any]) -> Options:
    import secrets

    from ckptvcs.porcelain.describe import Options
    from ckptvcs.porcelain.user_values import check_params

    params = _params_file(options["params_file"]) if options["params_file"] else {}
    params |= {key: _value(value) for key, value in pairs(options["params"], "--param").items()}
    epoch = options["epoch"]
    if epoch is not None and not math.isfinite(epoch):
        raise click.BadParameter(f"'{epoch}' is no epoch", param_hint="--epoch")
    return Options(
        message=options["message"],
        track=options["track"],
        branch=options["branch"],
        run=options["run"],
        run_id=secrets.token_hex(8),
        step=options["step"],
        epoch=int(epoch) if epoch is not None and epoch == int(epoch) else epoch,
        metrics=metrics_of(options["metrics"]),
        params=check_params(params),
        data=options["data"],
        reason=options["reason"],
        workspace=not options["no_workspace"],
    )


def _value(text: str) -> Any:
    """A hyperparameter as JSON says it, else as text: `3e-4` is a number, `adamw` a string."""
    try:
        return json.loads(text)
    except ValueError:
        return number(text)
    except RecursionError as err:
        raise click.BadParameter("it is nested too deeply", param_hint="--param") from err


def _params_file(path: Path) -> dict[str, Any]:
    import yaml

    from ckptvcs.errors import UsageError
    from ckptvcs.porcelain.user_values import check_params

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))  # which reads JSON too
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as err:
        raise UsageError(f"cannot read '{path}'", why=str(err), next_step="give a JSON or YAML file") from err
    if not isinstance(document, dict):
        raise UsageError(f"cannot use '{path}'", why="it holds no mapping", next_step="write KEY: VALUE lines")
    try:
        return check_params(document)
    except UsageError as err:
        raise UsageError(f"cannot use '{path}'", why=err.why, next_step=err.next_step) from err


def _say_plan(plan: CommitPlan, *, as_json: bool) -> None:
    from ckptvcs.cli import render

    new = [file.path for file in plan.files if file.path not in plan.known]
    if as_json:
        render.answer_json(
            {
                "dry_run": True,
                "branch": plan.target.branch,
                "track": plan.track,
                "bytes": plan.nbytes,
                "new_bytes": plan.new_bytes,
                "files": [file.path for file in plan.files],
                "new_files": new,
            }
        )
        return
    render.answer(f"would commit to branch '{plan.target.branch}', track '{plan.track}':")
    for file in plan.files:
        render.answer(f"  {'new ' if file.path in new else 'same'}  {render.size(file.nbytes):>9}  {file.path}")
    render.answer(f"{render.size(plan.new_bytes)} of {render.size(plan.nbytes)} would be written")


def _say_receipt(plan: CommitPlan, receipt: Receipt, *, as_json: bool) -> None:
    from ckptvcs.cli import render

    manifest = receipt.manifest
    if as_json:
        render.answer_json(
            {
                "id": receipt.id,
                "commit": receipt.commit,
                "branch": receipt.branch,
                "track": manifest.track,
                "step": manifest.step,
                "epoch": manifest.epoch,
                "metrics": manifest.metrics,
                "grade": manifest.grade,
                "bytes": plan.nbytes,
                "new_bytes": receipt.new_bytes,
                "notes": receipt.notes,
            }
        )
        return
    step = f" step {manifest.step}" if manifest.step is not None else ""
    render.answer(f"[{receipt.branch} {receipt.commit[:10]}] checkpoint {receipt.id[:10]}{step}")
    parts = ", ".join(component.name for component in manifest.components)
    sizes = f"{render.size(receipt.new_bytes)} new of {render.size(plan.nbytes)}"
    render.answer(f" {parts}; {sizes}; resumable: {manifest.grade}")
