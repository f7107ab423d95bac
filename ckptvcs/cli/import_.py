"""`ckpt import`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from ckptvcs.cli.options import dry_run_option, json_option, open_repo, pickle_option, track_option
from ckptvcs.paths import printable

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ckptvcs.porcelain.import_line import BranchPlan, Item
    from ckptvcs.porcelain.importing import ImportPlan, Outcome, Wanted, Watcher
    from ckptvcs.progress import Progress


@click.command()
@click.argument("patterns", nargs=-1, required=True, metavar="PATTERN...")
@click.option("--branch", metavar="B", help="One branch for all of them; else one for each folder, by its name.")
@click.option("--run", metavar="NAME", help="One training job for all of them; they go to the branch of that name.")
@track_option
@click.option(
    "--names",
    multiple=True,
    metavar="TEMPLATE",
    help="How names are made: 'epoch={epoch}-step={step}-{val_loss}.ckpt'; a word in braces is a number that is read, "
    "* is any text. It counts before what the file says. Repeatable: the first that fits.",
)
@click.option("--follow-links", is_flag=True, help="Also read links that lead out of a folder.")
@pickle_option
@json_option
@dry_run_option
@click.pass_context
def command(ctx: click.Context, /, *, patterns: tuple[str, ...], as_json: bool, dry_run: bool, **options: Any) -> int:
    """Make checkpoints from files and folders that lie around.

    PATTERN is a file, a folder, or a pattern in quotes in which ** stands for any folders: .pt, .pth, .ckpt and .safetensors
    files, checkpoint folders of Hugging Face's libraries, and folders of torch.distributed.checkpoint. They are committed
    in the order in which they became, with their own dates; step, epoch and metrics are read from the files and their
    names. Nothing is moved, changed or deleted, and no code in them runs. It can be interrupted and run again: what is
    there already is left out. With -n it only says what lies there, and what the policy would keep of it.

    The exit status is 1 if something could not be imported.

    \b
    Examples:
      ckpt import 'runs/**/*.pt' -n
      ckpt import 'runs/**/*.pt' 'runs/**/*.ckpt' 'runs/**/checkpoint-*'
      ckpt import old/*.pt --run exp-a --names 'model_{step}_loss{val_loss}.pt'
    """
    from ckptvcs.cli import render, waiting
    from ckptvcs.porcelain import importing

    repo = open_repo(ctx)
    wanted = _wanted(options)
    with waiting.busy("looking at what is there"):
        plan = importing.plan(repo, patterns, wanted)
    for text in plan.notes:
        render.note(text)
    outcomes: tuple[Outcome, ...] = ()
    if not dry_run:
        outcomes = importing.execute(repo, plan, _watcher(as_json=as_json))
    _tell(plan, outcomes, as_json=as_json, dry_run=dry_run)
    failed = [item for item in plan.items if item.status == "failed"] + [o for o in outcomes if o.failure]
    return 1 if failed else 0


def _wanted(options: dict[str, Any]) -> Wanted:
    from ckptvcs.domain.import_names import template
    from ckptvcs.porcelain.importing import Wanted

    return Wanted(
        branch=options["branch"],
        run=options["run"],
        track=options["track"],
        templates=tuple(map(template, options["names"])),
        allow_pickle=options["allow_pickle"],
        follow_links=options["follow_links"],
    )


# ------------------------------------------------------------------------------------------------------------- for people


def _watcher(*, as_json: bool) -> Watcher:
    from ckptvcs.cli import waiting
    from ckptvcs.porcelain.importing import Watcher

    class OnStderr(Watcher):
        def reading(self, item: Item) -> AbstractContextManager[object]:
            return waiting.busy(f"reading {item.looked.found.path.name}")

        def writing(self, item: Item, nbytes: int) -> AbstractContextManager[Progress]:
            return waiting.progress(f"writing {printable(item.looked.found.path.name)}", nbytes)

        def told(self, outcome: Outcome) -> None:
            if not as_json:
                _say_outcome(outcome)

    return OnStderr()


def _tell(plan: ImportPlan, outcomes: tuple[Outcome, ...], *, as_json: bool, dry_run: bool) -> None:
    from ckptvcs.cli import render

    if as_json:
        render.answer_json(_document(plan, outcomes, dry_run=dry_run))
        return
    if dry_run:
        for branch in plan.branches:
            _say_branch(branch)
    _say_failures(plan, outcomes)
    _say_total(plan, outcomes, dry_run=dry_run)


def _say_branch(branch: BranchPlan) -> None:
    from ckptvcs.cli import render

    render.answer(f"branch '{render.text(branch.branch)}': {render.counted(len(branch.new), 'checkpoint')} to import")
    rows = [_columns(item) for item in branch.items]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for item, row in zip(branch.items, rows, strict=True):
        cells = [text.ljust(width) for text, width in zip(row, widths, strict=True) if width]
        render.answer("  " + "  ".join([*cells, _remarks(item)]).rstrip())
        for text in (*item.facts.notes, *item.looked.notes):
            render.answer(f"    note: {render.text(text)}")


def _columns(item: Item) -> list[str]:
    from ckptvcs.cli import render

    facts = item.facts
    return [
        item.status,
        f"step {facts.step}" if facts.step is not None else "",
        f"epoch {render.number(facts.epoch)}" if facts.epoch is not None else "",
        render.when(item.looked.date),
        f"{render.size(item.nbytes):>9}",
        item.looked.format,
        render.text(item.shown),
    ]


def _remarks(item: Item) -> str:
    """What else there is to say: metrics, why it is no checkpoint of its own, what the policy would do."""
    from ckptvcs.cli import render

    kept = "" if item.status != "new" or item.kept is None else "kept" if item.kept else "not kept"
    parts = [
        render.listed(dict(item.facts.metrics)),
        "best" if item.best else "",
        f"same bytes as {render.text(item.same_as)}" if item.same_as else "",
        f"checkpoint {item.before.id[:10]}" if item.before else "",
        render.fate(item.before) if item.before else "",
        kept,
    ]
    return "; ".join(filter(None, parts))


def _say_outcome(outcome: Outcome) -> None:
    from ckptvcs.cli import render

    receipt = outcome.receipt
    if receipt is None:
        return
    manifest = receipt.manifest
    step = f" step {manifest.step}" if manifest.step is not None else ""
    render.answer(
        f"[{receipt.branch} {receipt.commit[:10]}] checkpoint {receipt.id[:10]}{step}  {render.text(outcome.item.shown)}"
    )
    for text in (*outcome.item.facts.notes, *receipt.notes):
        render.note(f"{outcome.item.shown}: {text}")


def _say_failures(plan: ImportPlan, outcomes: tuple[Outcome, ...]) -> None:
    from ckptvcs.cli import render

    failures = [item.failure for item in plan.items] + [outcome.failure for outcome in outcomes]
    for failure in filter(None, failures):
        render.error(failure, as_json=False)


def _say_total(plan: ImportPlan, outcomes: tuple[Outcome, ...], *, dry_run: bool) -> None:
    from ckptvcs.cli import render

    total = sum(item.nbytes for item in plan.items)
    counts = Counter(item.status for item in plan.items)
    if dry_run:
        new = sum(item.nbytes for item in plan.new)
        said = [f"{render.counted(counts['new'], 'checkpoint')} to import, {render.size(new)} of {render.size(total)}"]
    else:
        done = [outcome.receipt for outcome in outcomes if outcome.receipt]
        written = sum(receipt.new_bytes for receipt in done)
        said = [
            f"{render.counted(len(done), 'checkpoint')} imported, {render.size(written)} new of {render.size(total)}"
        ]
    said += [f"{counts['there']} there already"] if counts["there"] else []
    said += [_said_of_dropped(plan)] if counts["dropped"] else []
    said += [f"{counts['same']} with the bytes of another"] if counts["same"] else []
    failed = counts["failed"] + sum(outcome.failure is not None for outcome in outcomes)
    said += [f"{failed} cannot be imported"] if failed else []
    said += [f"{render.counted(len(plan.others), 'other file')} left out"] if plan.others else []
    render.answer("; ".join(said))
    if dry_run and plan.new:
        kept = sum(bool(item.kept) for item in plan.new)
        policy = f"'retain' of ckpt.yaml would keep {kept} of them" if plan.has_policy else ""
        render.answer(policy or "all of them would be kept: ckpt.yaml has no section 'retain'")


def _said_of_dropped(plan: ImportPlan) -> str:
    """What is said of files whose checkpoints a policy dropped: they may be all that is left."""
    found = [item.before for item in plan.items if item.status == "dropped" and item.before]
    some = sum(not before.is_gone for before in found)
    was, them = ("was", "it") if len(found) == 1 else ("were", "them")
    part = "" if not some else " in part" if some == len(found) else f", {some} of them in part"
    return (
        f"{len(found)} {was} imported before and dropped since{part}: no rule keeps {them}; "
        f"--branch with a new name imports {them} again"
    )


# ------------------------------------------------------------------------------------------------------------ for scripts


def _document(plan: ImportPlan, outcomes: tuple[Outcome, ...], *, dry_run: bool) -> dict[str, Any]:
    by_item = {outcome.item.shown: outcome for outcome in outcomes}
    receipts = [outcome.receipt for outcome in outcomes if outcome.receipt]
    new = sum(item.nbytes for item in plan.new) if dry_run else sum(receipt.new_bytes for receipt in receipts)
    return {
        "dry_run": dry_run,
        "track": plan.track,
        "files": [_file(item, by_item.get(item.shown)) for item in plan.items],
        "others": list(plan.others),
        "bytes": sum(item.nbytes for item in plan.items),
        "new_bytes": new,
        "notes": list(plan.notes),
    }


def _file(item: Item, outcome: Outcome | None) -> dict[str, Any]:
    facts, looked = item.facts, item.looked
    receipt = outcome.receipt if outcome else None
    failure = item.failure or (outcome.failure if outcome else None)
    return {
        "path": item.shown,
        "format": looked.format or None,
        "bytes": item.nbytes,
        "date": looked.date,
        "step": facts.step,
        "epoch": facts.epoch,
        "metrics": dict(facts.metrics),
        "best": item.best,
        "branch": item.branch,
        "status": "failed" if failure else "imported" if receipt else item.status,
        "error": {"error": failure.kind, "what": failure.what, "why": failure.why, "next": failure.next_step}
        if failure
        else None,
        "same_as": item.same_as or None,
        "id": receipt.id if receipt else item.checkpoint,
        "dropped": item.before.dropped if item.before else None,
        "commit": receipt.commit if receipt else None,
        "new_bytes": receipt.new_bytes if receipt else None,
        "kept": None if item.kept is None else list(item.kept),
        "notes": [*facts.notes, *looked.notes, *(receipt.notes if receipt else ())],
    }
