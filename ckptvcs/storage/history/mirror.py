"""Copies of other repositories, as far as it takes to see what they need: every ref, and the commits behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pygit2

from ckptvcs.digest import digest
from ckptvcs.errors import StorageError, from_os_error
from ckptvcs.storage.history import program
from ckptvcs.storage.history.repository import History, git_errors
from ckptvcs.storage.history.transport import without_password

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def update(folder: Path, url: str, variables: Mapping[str, str]) -> History:
    """A copy of all refs of a repository as they are now.

    Args:
        folder: where copies are kept.
        url: where git finds it.
        variables: the environment of git.

    Raises:
        StorageError: it does not answer.
    """
    path = folder / digest(url.encode("utf-8", "surrogateescape"))[:16]
    quiet = {**variables, "GIT_TERMINAL_PROMPT": "0", "SSH_ASKPASS_REQUIRE": "never", "LC_ALL": "C"}
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):  # those of whoever called us, as a hook
        quiet.pop(name, None)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise from_os_error(err, doing=f"make '{folder}'") from err
    program.output(folder, quiet, "init", "--quiet", "--", path.name)
    spec = "+refs/*:refs/*"
    fetch = ("fetch", "--quiet", "--prune", "--no-tags", "--no-write-fetch-head", "--update-head-ok")
    done = program.run(path, quiet, *fetch, "--", url, spec)
    if done.returncode:
        why = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise StorageError(
            f"cannot look at '{without_password(url)}'", why=why[-1] if why else "git failed", next_step="run it again"
        )
    with git_errors(f"open '{path}'"):
        return History(pygit2.Repository(str(path)))


def tips(history: History) -> set[str]:
    """The commits that all refs of a copy lead to."""
    tags = (tag.commit for tag in history.tags())
    return {*map(str, history.branches().values()), *map(str, tags), *map(str, history.remote_tips().values())}
