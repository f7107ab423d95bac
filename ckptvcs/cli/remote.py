"""`ckpt remote`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ckptvcs.cli.options import dry_run_option, json_option, open_repo

if TYPE_CHECKING:
    from typing import Literal

    from ckptvcs.domain.remote_files import StoreRecord
    from ckptvcs.porcelain.leases import InFlight
    from ckptvcs.porcelain.remotes import Known
    from ckptvcs.porcelain.stores import Shown, Tried


@click.group()
def command() -> None:
    """List, show and add the remotes that objects go to."""


@command.command("list")
@json_option
@click.pass_context
def list_(ctx: click.Context, *, as_json: bool) -> None:
    """List the remotes of DVC's configuration.

    \b
    Examples:
      ckpt remote list
      ckpt remote list --json
    """
    from ckptvcs.cli import render
    from ckptvcs.porcelain import remotes

    found = remotes.known(open_repo(ctx))
    if as_json:
        render.answer_json([_named(one) for one in found])
        return
    for one in found:
        cold = "  (cold)" if one.tier == "cold" else ""
        render.answer(f"{'*' if one.default else ' '} {render.text(one.name)}  {render.text(one.url)}{cold}")


def _named(one: Known) -> dict[str, object]:
    return {"name": one.name, "url": one.url, "default": one.default, "tier": one.tier}


@command.command()
@click.argument("name")
@click.argument("url")
@click.option("--default", is_flag=True, help="Checkpoints go there from now on, and what plain DVC pushes.")
@click.option(
    "--tier", type=click.Choice(["warm", "cold"]), help="Cold: for the archive alone. Warm, if nothing is said."
)
@json_option
@dry_run_option
@click.pass_context
def add(
    ctx: click.Context,
    *,
    name: str,
    url: str,
    default: bool,
    tier: Literal["warm", "cold"] | None,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Add a remote to DVC's configuration, and try what it can do with a throw-away object.

    Credentials and options are DVC's: see 'dvc remote modify --help'. The first remote is the default. What it can do
    is recorded there, for every clone.

    \b
    Examples:
      ckpt remote add share /mnt/share/checkpoints
      ckpt remote add team s3://bucket/checkpoints --default
      ckpt remote add archive s3://cheap/checkpoints --tier cold
    """
    from ckptvcs.cli import render, waiting
    from ckptvcs.porcelain import remotes, stores

    repo = open_repo(ctx)
    plan = remotes.plan_add(repo, name, url, default=default, tier=tier)
    tried = None
    if not dry_run:
        with waiting.busy("trying what it can do"):
            tried = stores.try_out(repo, remotes.add(repo, plan))
        for text in tried.notes:
            render.note(text)
    if as_json:
        can = None if tried is None else _can(tried.record)
        about = {"name": name, "url": url, "default": plan.default, "tier": plan.tier}
        render.answer_json({**about, "can": can, "dry_run": dry_run})
        return
    kind = " (default)" if plan.default else " (cold)" if plan.tier == "cold" else ""
    added = f"{'would add' if dry_run else 'added'} remote '{render.text(name)}'{kind}"
    render.answer(f"{added}{'' if tried is None else f': {_tried(tried)}'}")


@command.command()
@click.argument("name")
@click.option("--probe", is_flag=True, help="Try anew what it can do, and record it.")
@json_option
@click.pass_context
def show(ctx: click.Context, *, name: str, probe: bool, as_json: bool) -> None:
    """Show what a remote is for and can do, and the pushes that are under way to it.

    Who pushes is a clone by its name in the ledger. A push is shown for as long as its lease counts; one that died is
    gone with it, or with the next push of that clone.

    \b
    Examples:
      ckpt remote show team
      ckpt remote show team --probe --json
    """
    from ckptvcs.cli import render, waiting
    from ckptvcs.porcelain import stores

    with waiting.busy(f"asking '{name}'"):
        found = stores.show(open_repo(ctx), name, probe=probe)
    for text in found.notes:
        render.note(text)
    if as_json:
        can = None if found.record is None else _can(found.record)
        store = None if found.record is None else found.record.id
        pushes = [_push(one) for one in found.pushes]
        render.answer_json({**_named(found.known), "store": store, "can": can, "pushes": pushes})
        return
    render.answer(_shown(found))


def _can(record: StoreRecord) -> dict[str, bool]:
    return {
        "ranges": record.ranges,
        "listing": record.listing,
        "exclusive": record.exclusive,
        "clock": record.clock,
    }


def _push(one: InFlight) -> dict[str, object]:
    lease = one.lease
    return {
        "writer": lease.writer,
        "actor": lease.actor,
        "repository": lease.repository,
        "refs": list(lease.refs),
        "objects": len(lease.objects),
        "bytes": lease.bytes,
        "age_s": one.age_s,
        "counts": one.counts,
    }


def _shown(found: Shown) -> str:
    from ckptvcs.cli import render

    known = found.known
    what = f"{render.text(known.name)}  {render.text(known.url)}  {known.tier}{', default' if known.default else ''}"
    lines = [what, f"  {'nobody tried what it can do' if found.record is None else _words(found.record)}"]
    for one in found.pushes:
        lease = one.lease
        age = "" if one.age_s is None else f", {render.duration(one.age_s)} old"
        refs = ", ".join(render.text(ref.removeprefix("refs/heads/").removeprefix("refs/tags/")) for ref in lease.refs)
        counts = "" if one.counts else ", does not count any more"
        lines.append(
            f"  push of {render.text(lease.writer)}{age}{counts}: {len(lease.objects)} objects, "
            f"{render.size(lease.bytes)} to send, for {refs or 'no ref'}"
        )
    return "\n".join(lines)


def _tried(tried: Tried) -> str:
    said = _words(tried.record)
    skewed = tried.clock_s is not None and abs(tried.clock_s) > _SKEW_S
    return f"{said}; its clock is {tried.clock_s:+.0f} s off" if skewed else said


def _words(record: StoreRecord) -> str:
    can = {"reads ranges": record.ranges, "lists": record.listing, "makes a name only once": record.exclusive}
    return ", ".join(what for what, does in can.items() if does) or "reads and writes whole objects alone"


_SKEW_S = 60.0
