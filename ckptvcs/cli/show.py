"""`ckpt show`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ckptvcs.cli.options import json_option, open_repo, revision_argument, track_option

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ckptvcs.domain.checkpoint import Checkpoint
    from ckptvcs.domain.events import Noted
    from ckptvcs.domain.holds import Hold
    from ckptvcs.domain.manifest import Manifest
    from ckptvcs.formats.tree_file import TreeFile
    from ckptvcs.porcelain.show import Shown


@click.command()
@revision_argument(default="HEAD")
@click.option("--tensors", is_flag=True, help="List every tensor: name, type, shape, shard.")
@track_option
@json_option
@click.pass_context
def command(ctx: click.Context, *, revision: str, tensors: bool, track: str | None, as_json: bool) -> None:
    """Show one checkpoint.

    \b
    Examples:
      ckpt show
      ckpt show exp-a@best:val_loss
      ckpt show golden/base --tensors
    """
    from ckptvcs.cli import render, waiting
    from ckptvcs.porcelain import show

    with waiting.busy(f"looking for {revision}"):
        shown = show.show(open_repo(ctx), revision, track=track, tensors=tensors)
    for text in shown.notes:
        render.note(text)
    if as_json:
        render.answer_json(_json(shown))
    else:
        _say(shown)


def _json(shown: Shown) -> dict[str, Any]:
    from ckptvcs.cli import render

    document = render.checkpoint_json(shown.checkpoint, shown.names)
    manifest = shown.checkpoint.manifest
    document["holds"] = [{**render.plain(hold), "hold": hold.id} for hold in shown.holds]
    document |= {"manifest": manifest, "here": len(shown.here) == len(manifest.all_files())}
    if shown.tables:
        document["tensors"] = {name: file.table for name, file in shown.tables.items()}
    return document


def _say(shown: Shown) -> None:
    from ckptvcs.cli import render

    checkpoint, manifest = shown.checkpoint, shown.checkpoint.manifest
    render.answer(
        f"{click.style('checkpoint', fg='yellow')} {checkpoint.id}  {render.names_text(shown.names)}".rstrip()
    )
    epoch = f", epoch {render.number(manifest.epoch)}" if manifest.epoch is not None else ""
    here = (
        ""
        if len(shown.here) == len(manifest.all_files())
        else f" ({len(shown.here)} of {len(manifest.all_files())} files are here)"
    )
    facts = {
        "commit": checkpoint.commit,
        "author": render.text(checkpoint.author),
        "date": render.when(checkpoint.time),
        "track": manifest.track,
        "run": f"{render.text(manifest.run.name)} ({manifest.run.id})",
        "step": f"{manifest.step}{epoch}" if manifest.step is not None else epoch.removeprefix(", "),
        "metrics": render.listed(manifest.metrics),
        "late": "; ".join(_late(checkpoint.late)),
        "held": "; ".join(_held(hold) for hold in shown.holds),
        "params": render.listed(manifest.params),
        "reason": render.text(manifest.reason),
        "resumable": checkpoint.grade,
        "dropped": _dropped(checkpoint),
        "size": render.size(manifest.nbytes) + here,
        "parents": ", ".join(parent[:10] for parent in manifest.parents),
        **_provenance(manifest),
    }
    for key, value in facts.items():
        if value:
            render.answer(f"{key + ':':<13}{value}")
    render.answer(f"\n    {render.text(checkpoint.subject)}\n")
    for component in manifest.components:
        count = f"{len(component.files)} file{'s' if len(component.files) != 1 else ''}"
        render.answer(f"  {component.name:<14} {component.role:<10} {render.size(component.nbytes):>9}  {count}")
    for name, file in shown.tables.items():
        _say_tensors(name, file)


def _dropped(checkpoint: Checkpoint) -> str:
    from ckptvcs.cli import render

    dropped = checkpoint.dropped
    if dropped is None:
        return ""
    what = "gone" if dropped.gone >= dropped.components else "condemned"
    return f"{', '.join(sorted(dropped.components))}: {what} since {render.stamp(dropped.time)} ({render.text(dropped.why)})"


def _held(hold: Hold) -> str:
    """`until 2026-12-31 00:00 (paper under review)`."""
    from ckptvcs.cli import render

    return f"{f'until {render.stamp(hold.until)}' if hold.until else 'without an end'} ({render.text(hold.why)})"


def _late(late: Mapping[str, Noted]) -> Iterator[str]:
    """`val_loss 0.31, bleu 27 (noted 2026-11-21 13:38 UTC, the full test set)`, for each note that counts, oldest first."""
    from ckptvcs.cli import render

    for age in sorted({noted.age for noted in late.values()}):
        said = {name: noted for name, noted in sorted(late.items()) if noted.age == age}
        first = next(iter(said.values()))
        when = f"noted {first.time[:16].replace('T', ' ')} UTC"
        about = ", ".join(filter(None, [when, render.text(first.message)]))
        yield f"{render.listed({name: noted.value for name, noted in said.items()})} ({about})"


def _provenance(manifest: Manifest) -> dict[str, str]:
    from ckptvcs.cli import render

    code, environment = manifest.provenance.code, manifest.provenance.environment
    changed = f" and uncommitted changes to {len(code.changed)} files" if code.changed else ""
    packages = environment.packages
    known = [f"{name} {packages[name]}" for name in ("torch", "transformers", "lightning") if name in packages]
    return {
        "code": f"{(code.commit or 'none')[:10]}{changed}",
        "data": ", ".join(f"{render.text(d.name)} {d.version[:16]}" for d in manifest.provenance.data[:5]),
        "environment": ", ".join([f"Python {environment.python or '(not known)'}", *known, *environment.gpus]),
        "source": f"{manifest.source.format} {render.text(manifest.source.name)}".strip(),
    }


def _say_tensors(component: str, file: TreeFile) -> None:
    from ckptvcs.cli import render
    from ckptvcs.formats.tree_file import Stored

    render.answer(f"\n{component}:")
    width = max((len(name) for name in file.table), default=0)
    for name, entry in file.table.items():
        where = entry.shard if isinstance(entry, Stored) else f"shares {entry.of}"
        render.answer(f"  {render.text(name):<{width}}  {entry.dtype:<8} {list(entry.shape)!s:<16} {where}")
