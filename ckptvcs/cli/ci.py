"""`ckpt ci`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ckptvcs.cli.options import dry_run_option, json_option, open_repo

if TYPE_CHECKING:
    from ckptvcs.porcelain.ci import CiPlan

_KINDS = ("github", "gitlab", "cron", "systemd", "kubernetes")


@click.group()
def command() -> None:
    """Carry the policy out by itself: every night, and a check on pull requests."""


@command.command()
@click.option("--kind", "kinds", type=click.Choice(_KINDS), multiple=True, help="For what. Repeat it.")
@click.option("--list", "only_list", is_flag=True, help="List what there are templates for.")
@click.option("--force", is_flag=True, help="Replace files that say something else.")
@json_option
@dry_run_option
@click.pass_context
def init(
    ctx: click.Context, *, kinds: tuple[Any, ...], only_list: bool, force: bool, as_json: bool, dry_run: bool
) -> None:
    """Write the files by which cron, systemd, Kubernetes, GitHub or GitLab runs 'ckpt policy apply'.

    On GitHub and GitLab, pull requests that change ckpt.yaml get 'ckpt policy check', too. Nothing is installed: it says what
    to do next. A file that says something else is not replaced without --force.

    \b
    Examples:
      ckpt ci init --list
      ckpt ci init --kind github
      ckpt ci init --kind systemd --dry-run
    """
    from ckptvcs.cli import render
    from ckptvcs.porcelain import ci

    if only_list:
        if as_json:
            render.answer_json([{"kind": kind, "what": what} for kind, what in ci.KINDS.items()])
        for kind, what in ci.KINDS.items() if not as_json else ():
            render.answer(f"{kind:<11} {what}")
        return
    repo = open_repo(ctx)
    plan = ci.plan(repo, kinds, force=force)
    if not dry_run:
        ci.execute(repo, plan)
    if as_json:
        files = [{"path": file.path, "did": file.deed} for file in plan.files]
        render.answer_json({"files": files, "next": list(plan.next_steps), "dry_run": dry_run})
    else:
        _say(plan, dry_run=dry_run)


def _say(plan: CiPlan, *, dry_run: bool) -> None:
    from ckptvcs.cli import render

    words = {"make": ("made", "would make"), "replace": ("replaced", "would replace")}
    for file in plan.done:
        render.answer(f"{words[file.deed][dry_run]} {file.path}")
    if not plan.done:
        render.answer("nothing to do")
    for step in plan.next_steps:
        render.talk(f"  next: {render.text(step)}")
