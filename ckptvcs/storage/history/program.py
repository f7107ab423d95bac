"""The git program: for what libgit2 does not know, such as hooks, transports, and the index that a hook is to look at."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ckptvcs.errors import NoRepository, StorageError
from ckptvcs.paths import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

PROGRAM: Final = "ckptvcs.program"
"""The key of git's configuration that says where `ckpt` is, for a hook that does not find it."""


def run(
    folder: Path, variables: Mapping[str, str], *args: str, data: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run git in a folder, where it can ask nobody, and wait for it. How it ended is for the caller to judge.

    Args:
        folder: where.
        variables: its environment.
        args: its arguments.
        data: what it reads.

    Raises:
        StorageError: there is no git.
    """
    pipe = subprocess.PIPE
    try:
        # Without a terminal: ssh would ask on it for passwords and passphrases, past all that git is told.
        process = subprocess.Popen(
            ["git", *args],
            cwd=folder,
            env=dict(variables),
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            start_new_session=True,
        )
    except FileNotFoundError as err:
        raise no_git() from err
    with process:
        try:
            out, err_out = process.communicate(data)
        except BaseException:
            process.terminate()  # an interrupt does not reach it; and then it removes its lock files
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err_out)


def output(folder: Path, variables: Mapping[str, str], *args: str, data: bytes = b"") -> bytes:
    """What git prints.

    Raises:
        StorageError: there is no git, or it fails.
    """
    done = run(folder, variables, *args, data=data)
    if done.returncode:
        raise StorageError(f"'git {args[0]}' failed", why=_said(done), next_step="run 'git fsck' and 'ckpt doctor'")
    return done.stdout


def beginning(folder: Path, variables: Mapping[str, str], blob: str, nbytes: int) -> bytes:
    """The first bytes of a file that git has, and no more of it is read than that.

    Raises:
        StorageError: there is no git.
    """
    command = ["git", "cat-file", "blob", blob]
    try:
        process = subprocess.Popen(
            command, cwd=folder, env=dict(variables), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except FileNotFoundError as err:
        raise no_git() from err
    with process:
        assert process.stdout is not None
        head = process.stdout.read(nbytes)
        process.kill()
    return head


def no_git() -> StorageError:
    """The error of a machine without git."""
    return StorageError("cannot run git", why="there is no such program", next_step="install git")


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    return printable(" ".join(done.stderr.decode("utf-8", "replace").split()))[:300]


# -------------------------------------------------------------------------------------------------------------- hooks


@dataclass(frozen=True, slots=True, kw_only=True)
class HookFolder:
    """Where git looks for the hooks of a repository."""

    path: Path
    """With links in it followed; it need not exist."""
    git_dir: Path
    worktree: Path | None
    """None of a bare repository."""
    shared: bool
    """Whether it lies outside of the repository: others may have the same."""


def hook_folder(start: Path, variables: Mapping[str, str]) -> HookFolder:
    """Ask git where it looks for hooks: `core.hooksPath` and linked worktrees have their say.

    Raises:
        NoRepository: `start` is in none.
        StorageError: there is no git.
    """
    where = ("rev-parse", "--path-format=absolute", "--git-dir", "--git-common-dir", "--is-bare-repository")
    done = run(start, variables, *where)
    if done.returncode:
        raise NoRepository(f"no git repository at '{start}'", why=_said(done), next_step="name one with -C")
    git_dir, common, bare = done.stdout.decode("utf-8", "surrogateescape").splitlines()
    worktree = None if bare == "true" else _path(output(start, variables, "rev-parse", "--show-toplevel"))
    here = worktree or Path(git_dir)  # a path in `core.hooksPath` counts from where hooks run
    path = (here / _path(output(here, variables, "rev-parse", "--git-path", "hooks"))).resolve()
    inside = [Path(common).resolve(), *([worktree.resolve()] if worktree else [])]
    return HookFolder(
        path=path,
        git_dir=Path(git_dir),
        worktree=worktree,
        shared=not any(path.is_relative_to(folder) for folder in inside),
    )


def _path(said: bytes) -> Path:
    return Path(said.decode("utf-8", "surrogateescape").removesuffix("\n"))
