"""`ckpt hook`: what the scripts call that `ckpt hooks install` brings. git may be listening to stdout, so nothing goes there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from ckptvcs.cli.options import open_repo
from ckptvcs.errors import CkptvcsError, NoRepository

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ckptvcs.porcelain.checkout import CheckoutPlan
    from ckptvcs.porcelain.repo import Repository

_MAX_LINES: Final = 64 << 20


@click.command(hidden=True, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("name", type=click.Choice(["pre-commit", "pre-push", "post-checkout", "post-merge"]))
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def command(ctx: click.Context, *, name: str, args: tuple[str, ...]) -> None:
    """Do what a git hook of that name has to do.

    ARGS and stdin are what git gives the hook; pre-commit takes names of files too, as the pre-commit framework passes them.
    In a repository that is none of ckptvcs nothing is done.
    """
    try:
        repo = open_repo(ctx)
    except NoRepository:
        return
    if repo.around.no_hooks:
        return
    if name == "pre-commit":
        _pre_commit(repo, Path(ctx.find_root().obj or ".").absolute(), args)
    elif name == "pre-push":
        _pre_push(repo, args)
    else:
        _after(repo, name, args)


def _pre_commit(repo: Repository, start: Path, names: Sequence[str]) -> None:
    from ckptvcs.porcelain import hook

    hook.refuse_raw(repo, start, names)


def _pre_push(repo: Repository, args: Sequence[str]) -> None:
    from ckptvcs.porcelain import hook

    if len(args) != 2:
        raise click.UsageError("pre-push takes the name and the address of a remote")
    lines = sys.stdin.buffer.read(_MAX_LINES).decode("utf-8", "surrogateescape")
    hook.refuse_incomplete(repo, args[0], args[1], lines)


def _after(repo: Repository, name: str, args: Sequence[str]) -> None:
    """HEAD has moved, whatever we say: what goes wrong is told, and no failure of git's."""
    from ckptvcs.cli import render, waiting
    from ckptvcs.porcelain import checkout, hook

    try:
        with waiting.busy("looking at the workspace"):
            plan = hook.plan_after(repo, name, args)
        if plan is None:
            return
        tell, notes = repo.config.hooks.materialise == "tell", tuple[str, ...]()
        if not tell:
            with waiting.progress("checking out", 2 * plan.nbytes) as advance:
                notes = checkout.execute(repo, plan, advance)
    except CkptvcsError as err:
        render.note(f"HEAD has moved, and the workspace keeps what it has: {err}")
        if err.next_step:
            render.talk(f"  next: {render.text(err.next_step)}")
        return
    for text in notes:
        render.note(text)
    _told(plan, tell=tell)


def _told(plan: CheckoutPlan, *, tell: bool) -> None:
    from ckptvcs.cli import render

    for where in plan.removals:
        render.talk(
            f" {where.name}: {'no checkpoint there' if tell else 'removed from the workspace: no checkpoint there'}"
        )
    for checkpoint, placement in zip(plan.checkpoints, plan.placements, strict=True):
        manifest = checkpoint.manifest
        step = f" step {manifest.step}" if manifest.step is not None else ""
        render.talk(f" {manifest.track}: checkpoint {checkpoint.id[:10]}{step}, {render.size(placement.nbytes)}")
    if tell:
        render.talk("the workspace keeps what it has; run 'ckpt checkout HEAD' to bring it there")
