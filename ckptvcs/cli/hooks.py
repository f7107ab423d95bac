"""`ckpt hooks`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from ckptvcs.cli.options import dry_run_option, json_option

if TYPE_CHECKING:
    from ckptvcs.porcelain.hooks import Deed, HooksPlan


@click.group()
def command() -> None:
    """Install and remove git hooks."""


@command.command()
@click.option("--server", is_flag=True, help="The hook of a repository that is pushed to; it needs git alone.")
@json_option
@dry_run_option
@click.pass_context
def install(ctx: click.Context, *, server: bool, as_json: bool, dry_run: bool) -> int:
    """Install the git hooks of a clone, or of a server.

    In a clone: pre-commit keeps raw checkpoints out of git, pre-push stops what would go without its objects, post-checkout
    and post-merge bring the checkpoint of HEAD. With --server: update keeps golden marks and the ledger as they are.

    Shell scripts of others are added to, and do what they did. What is no shell script is left and told; the exit status is
    1 then. Safe to repeat.

    \b
    Examples:
      ckpt hooks install
      ckpt hooks install --server
    """
    from ckptvcs.porcelain import hooks

    plan = hooks.plan_install(_start(ctx), server=server)
    return _do(plan, as_json=as_json, dry_run=dry_run)


@command.command()
@json_option
@dry_run_option
@click.pass_context
def uninstall(ctx: click.Context, *, as_json: bool, dry_run: bool) -> int:
    """Remove the git hooks again; those of others stay as they were.

    \b
    Examples:
      ckpt hooks uninstall
      ckpt hooks uninstall --dry-run
    """
    from ckptvcs.porcelain import hooks

    plan = hooks.plan_uninstall(_start(ctx))
    return _do(plan, as_json=as_json, dry_run=dry_run)


def _start(ctx: click.Context) -> Path:
    return Path(ctx.find_root().obj or ".").absolute()


_DONE: Final[dict[Deed, tuple[str, str]]] = {
    "make": ("made", "would make"),
    "add": ("added to", "would add to"),
    "renew": ("renewed in", "would renew in"),
    "take out": ("taken out of", "would take out of"),
    "remove": ("removed", "would remove"),
}


def _do(plan: HooksPlan, *, as_json: bool, dry_run: bool) -> int:
    from ckptvcs.cli import render
    from ckptvcs.porcelain import hooks

    if not dry_run:
        hooks.execute(plan)
    for text in plan.notes:
        render.note(text)
    if as_json:
        told = [{"name": c.name, "did": c.deed, "why": c.why, "next": c.next_step} for c in plan.changes]
        render.answer_json({"folder": plan.folder, "hooks": told, "dry_run": dry_run})
    else:
        _tell(plan, dry_run=dry_run)
    return 1 if plan.left else 0


def _tell(plan: HooksPlan, *, dry_run: bool) -> None:
    from ckptvcs.cli import render

    for change in plan.done:
        verb = _DONE[change.deed][dry_run]
        render.answer(f"{verb} {change.name}")
    for change in plan.left:
        render.note(f"'{plan.folder / change.name}' is left as it is: {change.why}")
        render.talk(f"  next: {render.text(change.next_step)}")
    if not plan.done and not plan.left:
        render.answer("nothing to do")
