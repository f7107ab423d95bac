"""Git's index, changed as git itself does it: under its lock from the look until the new one is in its place."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pygit2

from ckptvcs.errors import LockHeld
from ckptvcs.storage.history.repository import git_errors, is_locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ckptvcs.storage.history.repository import History

T = TypeVar("T")

_WAIT_S: Final = 5.0
"""How long another git process may hold index or HEAD once we have begun to write; it needs milliseconds."""


def update(history: History, change: Callable[[Any], None]) -> None:
    """Change the index, without losing what another git process stages at the same time.

    libgit2 takes the lock only when it writes: what was staged since it looked would be gone.

    Args:
        history: the repository.
        change: gets the index, not written yet.

    Raises:
        LockHeld: another git process holds the index, and does not let go.
        StorageError: the disk is full, read-only or failing; the index is as it was.
    """
    path = history.git_dir / "index"
    with git_errors("update git's index"):
        patiently("update git's index", lambda: _replace(path, change))
        history.repo.index.read(force=True)


def _replace(path: Path, change: Callable[[Any], None]) -> None:
    lock = path.with_name("index.lock")
    try:
        os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666))
    except FileExistsError as err:
        raise pygit2.GitError(f"the index is locked: there is '{lock}'") from err
    new = path.with_name("index.ckptvcs")  # nobody else's, as long as we hold the lock
    try:
        _discard(new)
        with suppress(FileNotFoundError):  # nothing was ever staged
            shutil.copyfile(path, new)
        index = pygit2.Index(str(new))
        change(index)
        index.write()
        _keep_time(new, of=path)
        with new.open("rb") as file:
            os.fsync(file.fileno())
        os.rename(new, path)
    finally:
        _discard(new)
        os.unlink(lock)


def _discard(new: Path) -> None:
    """Remove what we, or a process that was killed, left of an index that did not become one."""
    for leftover in (new, new.with_name(f"{new.name}.lock")):
        with suppress(FileNotFoundError):
            os.unlink(leftover)


@contextmanager
def keeping_time(history: History) -> Iterator[None]:
    """Let libgit2 write the index, and leave it no younger than it was; see `_keep_time`."""
    path = history.git_dir / "index"
    try:
        before: int | None = path.stat().st_mtime_ns
    except FileNotFoundError:
        before = None
    yield
    if before is not None:
        _set_time(path, before)


def _keep_time(new: Path, *, of: Path) -> None:
    """Make an index no younger than the one that it follows.

    git takes a file for unchanged if it has the size and the time of its entry and is older than the index, all in whole
    seconds. libgit2 counts nanoseconds: of a file that was edited within the second in which it was staged, it keeps the
    entry as it is, and an index written in a later second would hide the edit from git.
    https://git-scm.com/docs/racy-git
    """
    with suppress(FileNotFoundError):
        _set_time(new, of.stat().st_mtime_ns)


def _set_time(path: Path, before_ns: int) -> None:
    # Not the very same time: whoever has the old index in memory must see that this is another.
    os.utime(path, ns=(before_ns - 1, before_ns - 1))


def patiently(doing: str, action: Callable[[], T]) -> T:
    """Do something that needs a lock of git, again until no other git process holds it.

    Raises:
        LockHeld: it does not let go.
    """
    end = time.monotonic() + _WAIT_S  # how long we wait, not what time it is
    while True:
        try:
            return action()
        except (pygit2.GitError, OSError) as err:
            if not is_locked(err):
                raise
            if time.monotonic() >= end:
                raise held(doing, str(err)) from err
        time.sleep(0.02)


def held(doing: str, sign: str) -> LockHeld:
    """The error of a lock of git that another process does not let go of."""
    return LockHeld(
        f"cannot {doing}",
        why=f"another git process holds it: {sign}",
        next_step="if no git process is running, run 'ckpt doctor'",
    )
