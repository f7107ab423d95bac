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
        variables: the environment of git, guarded.

    Raises:
        StorageError: it does not answer.
    """
    path = folder / digest(url.encode("utf-8", "surrogateescape"))[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise from_os_error(err, doing=f"make '{folder}'") from err
    program.output(folder, variables, "init", "--quiet", "--", path.name)
    spec = "+refs/*:refs/*"
    fetch = ("fetch", "--quiet", "--prune", "--no-tags", "--no-write-fetch-head", "--update-head-ok")
    done = program.run(path, variables, *fetch, "--", url, spec)
    if done.returncode:
        why = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise StorageError(
            f"cannot look at '{without_password(url)}'", why=why[-1] if why else "git failed", next_step="run it again"
        )
    with git_errors(f"open '{path}'"):
        return History(pygit2.Repository(str(path)))


def guarded(variables: Mapping[str, str]) -> dict[str, str]:
    """The environment of git for a repository that somebody else named, who may not mean well.

    Its own configuration could allow transports that run programs, and have what it lacks fetched by them.
    """
    callers = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # those of whoever called us, as a hook
    safe = {name: value for name, value in variables.items() if name not in callers}
    quiet = {"GIT_TERMINAL_PROMPT": "0", "SSH_ASKPASS_REQUIRE": "never", "LC_ALL": "C"}
    return {**safe, **quiet, "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh", "GIT_NO_LAZY_FETCH": "1"}


def refs(history: History) -> dict[str, str]:
    """Every ref of a copy, and the git object that it names, as `git ls-remote` lists them."""
    with git_errors("read the refs of a copy"):
        return {name: str(history.repo.references[name].target) for name in history.repo.references}


def tips(history: History) -> set[str]:
    """The commits that all refs of a copy lead to."""
    tags = (tag.commit for tag in history.tags())
    return {*map(str, history.branches().values()), *map(str, tags), *map(str, history.remote_tips().values())}
