"""`ckpt remote`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ckptvcs.cli.options import dry_run_option, json_option, open_repo

if TYPE_CHECKING:
    from ckptvcs.storage.remotes import Probe


@click.group()
def command() -> None:
    """List and add the remotes that objects go to."""


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
        render.answer_json([{"name": one.name, "url": one.url, "default": one.default} for one in found])
        return
    for one in found:
        render.answer(f"{'*' if one.default else ' '} {render.text(one.name)}  {render.text(one.url)}")


@command.command()
@click.argument("name")
@click.argument("url")
@click.option("--default", is_flag=True, help="Checkpoints go there from now on, and what plain DVC pushes.")
@json_option
@dry_run_option
@click.pass_context
def add(ctx: click.Context, *, name: str, url: str, default: bool, as_json: bool, dry_run: bool) -> None:
    """Add a remote to DVC's configuration, and try what it can do with a throw-away object.

    Credentials and options are DVC's: see 'dvc remote modify --help'. The first remote is the default.

    \b
    Examples:
      ckpt remote add share /mnt/share/checkpoints
      ckpt remote add team s3://bucket/checkpoints --default
    """
    from ckptvcs.cli import render, waiting
    from ckptvcs.porcelain import remotes

    repo = open_repo(ctx)
    plan = remotes.plan_add(repo, name, url, default=default)
    probe = None
    if not dry_run:
        with waiting.busy("trying what it can do"):
            probe = remotes.add(repo, plan)
    if as_json:
        can = (
            None if probe is None else {"ranges": probe.ranges, "listing": probe.listing, "exclusive": probe.exclusive}
        )
        render.answer_json({"name": name, "url": url, "default": plan.default, "can": can, "dry_run": dry_run})
        return
    added = f"{'would add' if dry_run else 'added'} remote '{render.text(name)}'{' (default)' if plan.default else ''}"
    render.answer(f"{added}{'' if probe is None else f': {_worded(probe)}'}")


def _worded(probe: Probe) -> str:
    can = {"reads ranges": probe.ranges, "lists": probe.listing, "makes a name only once": probe.exclusive}
    said = ", ".join(what for what, does in can.items() if does) or "reads and writes whole objects alone"
    skewed = probe.clock_s is not None and abs(probe.clock_s) > _SKEW_S
    return f"{said}; its clock is {probe.clock_s:+.0f} s off" if skewed else said


_SKEW_S = 60.0
