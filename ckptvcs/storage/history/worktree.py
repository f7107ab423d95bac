"""The files of a worktree and git's index: what is not committed, how our pointers follow a commit, how HEAD moves.

The user's work is never touched: the index changes in our own paths alone, and a checkout that would overwrite a change
is refused as a whole.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pygit2
from pygit2.enums import CheckoutNotify, CheckoutStrategy, DiffOption, FileMode, FileStatus

from ckptvcs.errors import LockHeld, Refused, Unsaved
from ckptvcs.paths import printable
from ckptvcs.storage import files
from ckptvcs.storage.history.repository import HEADS, CommitId, History, git_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

_INDEX_WAIT_S: Final = 5.0
_UNTRACKED: Final = FileStatus.WT_NEW
_CHANGED: Final = ~(FileStatus.WT_NEW | FileStatus.IGNORED | FileStatus.CURRENT)


@dataclass(frozen=True, slots=True)
class Changes:
    """What in a worktree is not committed: paths of changed tracked files, and of files git does not know."""

    changed: tuple[str, ...]
    untracked: tuple[str, ...]


def changes(history: History, *, ours: Callable[[str], bool]) -> Changes:
    """Look for uncommitted work, leaving out paths that are ours. Untracked folders are named, not entered."""
    with git_errors("look at the worktree"):
        status = history.repo.status(untracked_files="normal", ignored=False)
    status = {path: flags for path, flags in status.items() if not ours(path)}
    return Changes(
        changed=tuple(sorted(path for path, flags in status.items() if flags & _CHANGED)),
        untracked=tuple(sorted(path for path, flags in status.items() if flags & _UNTRACKED)),
    )


def patch(history: History, paths: Iterable[str]) -> bytes:
    """The difference between HEAD and the worktree in these paths, as `git apply` takes it."""
    wanted = set(paths)
    if not wanted or history.head() is None:
        return b""
    with git_errors("compare the worktree with HEAD"):
        diff = history.repo.diff("HEAD", flags=DiffOption.SHOW_BINARY | DiffOption.INCLUDE_TYPECHANGE)
        parts = [p.data for p in diff if p is not None and {p.delta.old_file.path, p.delta.new_file.path} & wanted]
    return b"".join(parts)


# -------------------------------------------------------------------------------------------- following our own commit


def follow(history: History, paths: Mapping[str, bytes], *, ignore_file: str, entry: Callable[[str], str]) -> None:
    """Make index and worktree show files of ours as they were just committed.

    Safe to repeat: a process that died in between is finished by the next one.

    Args:
        history: a repository whose HEAD is the commit.
        paths: path -> content of our files.
        ignore_file: path of the `.gitignore` beside them, which belongs to the user too.
        entry: adds our line to the content of a `.gitignore`.
    """
    repo = history.repo
    with _index(history) as index:
        for path, data in paths.items():
            _stage(index, path, repo.create_blob(data))
        _stage(index, ignore_file, repo.create_blob(entry(_staged_text(repo, index, ignore_file)).encode("utf-8")))
    for path, data in paths.items():
        _write(history, path, data)
    there = history.root / ignore_file
    text = there.read_text(encoding="utf-8", errors="surrogateescape") if there.is_file() else ""
    if entry(text) != text:
        _write(history, ignore_file, entry(text).encode("utf-8", "surrogateescape"))


def stage(history: History, paths: Mapping[str, bytes]) -> None:
    """Put files into the index as they were committed; the worktree has them already."""
    with _index(history) as index:
        for path, data in paths.items():
            _stage(index, path, history.repo.create_blob(data))


@contextlib.contextmanager
def _index(history: History) -> Iterator[Any]:
    """The index, written when the block ends. Another git process may hold it for a moment."""
    end = time.monotonic() + _INDEX_WAIT_S  # how long we wait, not what time it is
    with git_errors("update git's index"):
        index = history.repo.index
        index.read(force=True)
        yield index
        while True:
            try:
                index.write()
                return
            except (pygit2.GitError, OSError) as err:
                if "failed to lock file" not in str(err):
                    raise
                if time.monotonic() >= end:
                    raise LockHeld(
                        "cannot update git's index",
                        why=f"another git process holds it: {err}",
                        next_step="if no git process is running, run 'ckpt doctor'",
                    ) from err
                time.sleep(0.02)


def _stage(index: Any, path: str, blob: Any) -> None:
    index.add(pygit2.IndexEntry(path, blob, FileMode.BLOB))


def _staged_text(repo: pygit2.Repository, index: Any, path: str) -> str:
    try:
        return repo[index[path].id].data.decode("utf-8", "surrogateescape")  # type: ignore[attr-defined, no-any-return]
    except KeyError:
        return ""


def _write(history: History, path: str, data: bytes) -> None:
    folder, _, name = path.rpartition("/")
    with files.open_folder(history.root) as root, files.open_beneath(root, folder, make=True) as inner:
        files.replace_in(inner, name, data)


# ----------------------------------------------------------------------------------------------------------- checkout


class _Conflicts(pygit2.CheckoutCallbacks):
    """Collects the paths that stand in the way of a checkout."""

    def __init__(self) -> None:
        super().__init__()
        self.paths: list[str] = []

    def checkout_notify_flags(self) -> CheckoutNotify:
        return CheckoutNotify.CONFLICT

    def checkout_notify(self, why: Any, path: str, *_: Any) -> None:  # noqa: ARG002 - pygit2's signature
        self.paths.append(path)


def refuse_unless_plain(history: History, commit: CommitId) -> None:
    """Refuse a repository whose worktree libgit2 cannot write as git would: with filters (LFS) or a sparse checkout.

    Raises:
        Refused: it is one; git itself can do it.
    """
    repo = history.repo
    with git_errors("read the git configuration"):
        config = repo.config
        sparse = "core.sparseCheckout" in config and config.get_bool("core.sparseCheckout")
    attributes = [blob for _, blob in history.files(commit, (".gitattributes",))]
    filtered = any(b"filter=" in history.blob(blob, limit=1 << 20) for blob in attributes)
    if sparse or filtered:
        raise Refused(
            f"cannot check out {commit[:10]}",
            why="this repository uses "
            + ("a sparse checkout" if sparse else "filters in .gitattributes (such as LFS)"),
            next_step=f"run 'git checkout {commit[:10]}' and then 'ckpt restore HEAD'",
        )


def update_files(history: History, commit: CommitId) -> None:
    """Make index and worktree those of a commit, as `git checkout` does; HEAD stays.

    Raises:
        Unsaved: uncommitted changes would be overwritten; nothing was changed.
    """
    conflicts = _Conflicts()
    try:
        tree = history.repo[commit]
        history.repo.checkout_tree(tree, strategy=CheckoutStrategy.SAFE, callbacks=conflicts)  # type: ignore[no-untyped-call]
    except pygit2.GitError as err:
        if not conflicts.paths:
            with git_errors(f"check out {commit[:10]}"):
                raise
        shown = ", ".join(printable(path) for path in sorted(conflicts.paths)[:5])
        raise Unsaved(
            f"cannot check out {commit[:10]}",
            why=f"your changes to these files would be overwritten: {shown}",
            next_step="commit them, or put them aside with 'git stash'",
            paths=sorted(conflicts.paths),
        ) from err


def set_head(history: History, commit: CommitId, *, branch: str | None) -> None:
    """Make HEAD name a branch, or, where that is None, a commit."""
    with git_errors(f"set HEAD to {branch or commit[:10]}"):
        history.repo.set_head(HEADS + branch if branch else pygit2.Oid(hex=commit))
