"""Options that several verbs share, and what they complete to in a shell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from ckptvcs.errors import CkptvcsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ckptvcs.porcelain.repo import Repository

F = TypeVar("F", bound="Callable[..., Any]")


def complete_revision(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Branches, tags and selectors that begin with what was typed."""
    try:
        history = open_repo(ctx.find_root()).history
        branches = list(history.branches())
        names = ["HEAD", *branches, *(tag.name for tag in history.tags())]
        names += [f"{branch}@{selector}" for branch in branches for selector in ("latest", "best")]
    except CkptvcsError:
        return []
    return [name for name in names if name.startswith(incomplete)]


def open_repo(ctx: click.Context) -> Repository:
    """Open the repository that `-C` names."""
    from ckptvcs.porcelain.repo import Repository

    return Repository.open(ctx.find_root().obj or ".")


json_option = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
dry_run_option = click.option("-n", "--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
track_option = click.option("--track", metavar="T", help="The track; the one of ckpt.yaml if it is not given.")
pickle_option = click.option(
    "--allow-pickle", is_flag=True, help="Let pickles in it run, and keep as pickle what has no exact form."
)


to_option = click.option(
    "--to", default="origin", show_default=True, metavar="REMOTE", help="The git remote: where refs and ledger are."
)


def remote_options(command: F) -> F:
    """Where refs are, and where objects are."""
    remote = click.option(
        "--remote", metavar="NAME", help="The DVC remote; the one of ckpt.yaml or DVC's default if it is not given."
    )
    return to_option(remote(command))


def revision_argument(
    name: str = "revision", *, default: str | None = None, required: bool = False
) -> Callable[[F], F]:
    """An argument that is a revision."""
    if required:  # an explicit default of None would count as given
        return click.argument(name, metavar="REV", required=True, shell_complete=complete_revision)
    return click.argument(name, metavar="[REV]", default=default, required=False, shell_complete=complete_revision)


def limit_of(text: str) -> int | None:
    """How many are shown at most, as `-n` says it; None for all.

    Raises:
        click.BadParameter: it is neither a number nor `all`.
    """
    if text == "all":
        return None
    if not (text.isascii() and text.isdigit()):
        raise click.BadParameter(f"'{text}' is neither a number nor 'all'", param_hint="-n")
    return int(text)


def pairs(values: tuple[str, ...], option: str) -> dict[str, str]:
    """`K=V` options as a dict.

    Raises:
        click.BadParameter: there is no `=`, or no key before it.
    """
    found = {}
    for text in values:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise click.BadParameter(f"'{text}' is not of the form K=V", param_hint=option)
        found[key] = value
    return found


def metrics_of(values: tuple[str, ...]) -> dict[str, int | float | str]:
    """`--metric K=V` options as metrics.

    Raises:
        UsageError: one is no finite number.
    """
    from ckptvcs.porcelain.user_values import check_metrics

    return check_metrics({key: number(value) for key, value in pairs(values, "--metric").items()})


def number(text: str) -> int | float | str:
    """A number as Python writes it, else the text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
