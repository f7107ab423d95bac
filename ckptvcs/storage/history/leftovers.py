"""Files that an interrupted checkout left half written: libgit2 writes them in place, and a full disk or a kill cuts them.

What is a beginning of the file that the checkout was to write holds nothing of the user's, and may go.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from pygit2.enums import CheckoutStrategy

from ckptvcs.storage import files
from ckptvcs.storage.history import staging, worktree
from ckptvcs.storage.history.repository import git_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ckptvcs.storage.history.repository import CommitId, History

_MAX_BYTES: Final = 64 << 20
"""Larger files are not compared; git is a bad place for them anyway."""


def put_back(history: History, target: CommitId, paths: Iterable[str], *, ours: Callable[[str], bool]) -> bool:
    """Put files that stand in the way of a checkout back to where they were, if a checkout cut them short.

    Args:
        history: the repository.
        target: the commit that is to be checked out.
        paths: what stands in the way, relative to the worktree.
        ours: whether a path is that of a file of ours, which is written without following a link.

    Returns:
        Whether all of them were put back; nothing is touched if one of them holds work of the user.
    """
    cut = list(paths)
    if not all(_is_beginning(history, target, path) for path in cut) or worktree.staged_alone(history, target):
        return False
    with git_errors("put back files of an interrupted checkout"):
        index = history.repo.index
        tracked = [path for path in cut if path in index]
        others = [path for path in tracked if not ours(path)]
        if others:
            with staging.keeping_time(history):
                history.repo.checkout_index(strategy=CheckoutStrategy.FORCE, paths=others)  # type: ignore[no-untyped-call]
        for path in set(tracked) - set(others):
            worktree.write(history, path, history.repo[index[path].id].data)  # type: ignore[attr-defined]
    with files.open_folder(history.root) as root:
        for path in set(cut) - set(tracked):
            folder, _, name = path.rpartition("/")
            with files.open_beneath(root, folder) as inner:
                os.unlink(name, dir_fd=inner)
    return bool(cut)


def _is_beginning(history: History, target: CommitId, path: str) -> bool:
    blob = history.blob_id(target, path)
    if blob is None:
        return False
    try:
        with files.open_folder(history.root) as root, files.open_beneath(root, path.rpartition("/")[0]) as folder:
            fd = os.open(path.rpartition("/")[2], os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        with open(fd, "rb") as file:
            there = file.read(_MAX_BYTES + 1)
    except OSError:
        return False
    return len(there) <= _MAX_BYTES and history.blob(blob, limit=_MAX_BYTES).startswith(there)
