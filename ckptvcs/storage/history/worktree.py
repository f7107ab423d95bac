"""The files of a worktree and git's index: what is not committed, how our pointers follow a commit, how HEAD moves.

The user's work is never touched: the index changes in our own paths alone, and a checkout that would overwrite a change
is refused as a whole.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pygit2
from pygit2.enums import CheckoutNotify, CheckoutStrategy, DiffOption, FileMode, FileStatus, ObjectType

from ckptvcs.errors import Refused, Unsaved
from ckptvcs.paths import printable
from ckptvcs.storage import files
from ckptvcs.storage.history import staging
from ckptvcs.storage.history.repository import HEADS, CommitId, History, git_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

T = TypeVar("T")

_FREE_WAIT_S: Final = 1.0
"""How long another git process may hold index or HEAD before we begin: whoever holds it may be waiting for a person."""

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


def unmerged(history: History) -> list[str]:
    """Paths that git could not merge, and waits for somebody to decide about."""
    with git_errors("read git's index"):
        history.repo.index.read(force=False)
        conflicts = history.repo.index.conflicts
        entries = [side for sides in conflicts for side in sides if side is not None] if conflicts is not None else []
    return sorted({entry.path for entry in entries})


def patch(history: History, paths: Iterable[str]) -> bytes:
    """The difference between HEAD and the worktree in these paths, as `git apply` takes it."""
    wanted = set(paths)
    if not wanted or history.head() is None:
        return b""
    with git_errors("compare the worktree with HEAD"):
        parts, seen = [], set()
        for found in history.repo.diff("HEAD", flags=DiffOption.SHOW_BINARY):
            touched = set() if found is None else {found.delta.old_file.path, found.delta.new_file.path} & wanted
            if found is not None and touched:
                parts.append(found.data)
                seen |= touched
        # libgit2 compares without the index, so that a file which is new in it is an untracked one.
        parts.extend(_addition(history, path) for path in sorted(wanted - seen))
    return b"".join(parts)


def _addition(history: History, path: str) -> bytes:
    """The patch that adds a file or link of the worktree; empty for what HEAD has too, or what is neither."""
    there, head = history.root / path, history.head()
    if head is None or history.blob_id(head, path) is not None:
        return b""
    try:
        mode = os.lstat(there).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return b""
    if stat.S_ISLNK(mode):
        kind, data = FileMode.LINK, os.fsencode(os.readlink(there))
    elif stat.S_ISREG(mode):
        kind, data = FileMode.BLOB_EXECUTABLE if mode & stat.S_IXUSR else FileMode.BLOB, there.read_bytes()
    else:
        return b""
    found = pygit2.Patch.create_from(None, data, old_as_path=path, new_as_path=path, flag=DiffOption.SHOW_BINARY)
    # libgit2 takes bytes for an ordinary file; the header ends before any content, and a path in it is quoted.
    return re.sub(rb"\A(diff --git [^\n]*\nnew file mode )\d+", rb"\g<1>%o" % kind, found.data or b"", count=1)


# -------------------------------------------------------------------------------------------- following our own commit


def follow(history: History, paths: Mapping[str, bytes], *, ignore_file: str, entry: Callable[[str], str]) -> None:
    """Make index and worktree show files of ours as they were just committed.

    Safe to repeat: a process that died in between is finished by the next one. Only for who holds our repository lock.

    Args:
        history: a repository whose HEAD is the commit.
        paths: path -> content of our files.
        ignore_file: path of the `.gitignore` beside them, which belongs to the user too.
        entry: adds our line to the content of a `.gitignore`.
    """
    repo = history.repo

    def change(index: Any) -> None:
        for path, data in paths.items():
            _stage(index, path, repo.create_blob(data))
        _stage(index, ignore_file, repo.create_blob(entry(_staged_text(repo, index, ignore_file)).encode("utf-8")))

    staging.update(history, change)
    for path, data in paths.items():
        write(history, path, data)
    there = history.root / ignore_file
    text = there.read_text(encoding="utf-8", errors="surrogateescape") if there.is_file() else ""
    if entry(text) != text:
        write(history, ignore_file, entry(text).encode("utf-8", "surrogateescape"))


def stage(history: History, paths: Mapping[str, bytes]) -> None:
    """Put files into the index as they were committed; the worktree has them already."""

    def change(index: Any) -> None:
        for path, data in paths.items():
            _stage(index, path, history.repo.create_blob(data))

    staging.update(history, change)


def wait_until_free(history: History, doing: str) -> None:
    """Wait until nobody holds index or HEAD: libgit2 notices that only when it has written files already.

    Args:
        history: the repository.
        doing: what is to be done then, in the infinitive, for the error.

    Raises:
        LockHeld: another git process does, and does not let go.
    """
    end = time.monotonic() + _FREE_WAIT_S
    for path in (history.git_dir / "index.lock", history.git_dir / "HEAD.lock"):
        while os.path.lexists(path):
            if time.monotonic() >= end:
                raise staging.held(doing, f"there is '{path}'")
            time.sleep(0.02)


def _stage(index: Any, path: str, blob: Any) -> None:
    index.add(pygit2.IndexEntry(path, blob, FileMode.BLOB))


def _staged_text(repo: pygit2.Repository, index: Any, path: str) -> str:
    try:
        return repo[index[path].id].data.decode("utf-8", "surrogateescape")  # type: ignore[attr-defined, no-any-return]
    except KeyError:
        return ""


def write(history: History, path: str, data: bytes) -> None:
    """Write a file of ours as a whole, without following a link."""
    folder, _, name = path.rpartition("/")
    with files.open_folder(history.root) as root, files.open_beneath(root, folder, make=True) as inner:
        files.remove_temporaries(inner)
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


def update_files(history: History, commit: CommitId, *, ours: Callable[[str], bool]) -> None:
    """Make index and worktree those of a commit, as `git checkout` does; HEAD stays.

    libgit2 writes by path, and would follow a folder that is exchanged with a link meanwhile. So it looks at all files, and
    writes those of others; ours are written below folders that were entered without following a link.

    Args:
        history: the repository.
        commit: the commit.
        ours: whether a path, from the root of the worktree, is that of a file of ours.

    Raises:
        Unsaved: uncommitted changes would be overwritten; nothing was changed.
        LockHeld: another git process holds index or HEAD; nothing was changed.
    """
    doing = f"check out {commit[:10]}"
    wait_until_free(history, doing)
    lost = staged_alone(history, commit)
    if lost:
        raise _in_the_way(commit, lost)
    mine, others = _changed(history, commit, ours)
    conflicts = _Conflicts()

    def attempt() -> None:
        tree = history.repo[commit]
        with staging.keeping_time(history):
            _checkout(history, tree, CheckoutStrategy.DRY_RUN, callbacks=conflicts)
            if others:
                _checkout(history, tree, CheckoutStrategy.DISABLE_PATHSPEC_MATCH, paths=others, callbacks=conflicts)

    try:
        staging.patiently(doing, attempt)
    except pygit2.GitError as err:
        if not conflicts.paths:
            with git_errors(doing):
                raise
        raise _in_the_way(commit, conflicts.paths) from err
    if mine:
        _update_ours(history, mine)


def _checkout(history: History, tree: Any, strategy: CheckoutStrategy, **options: Any) -> None:
    history.repo.checkout_tree(tree, strategy=CheckoutStrategy.SAFE | strategy, **options)  # type: ignore[no-untyped-call]


def _changed(
    history: History, commit: CommitId, ours: Callable[[str], bool]
) -> tuple[dict[str, pygit2.Oid | None], list[str]]:
    """What differs between HEAD and a commit: plain files of ours, and what each becomes; and the paths of all others."""
    mine: dict[str, pygit2.Oid | None] = {}
    others: list[str] = []
    with git_errors(f"compare HEAD with {commit[:10]}"):
        head, tree = history.head(), history.repo[commit].peel(ObjectType.TREE)
        diff = history.repo[head].peel(ObjectType.TREE).diff_to_tree(tree) if head else tree.diff_to_tree(swap=True)
        for delta in diff.deltas:
            new, old = delta.new_file, delta.old_file
            if ours(new.path) and {new.mode, old.mode} <= {FileMode.BLOB, FileMode.UNREADABLE}:
                mine[new.path] = new.id if new.mode == FileMode.BLOB else None
            else:
                others.append(new.path)
    return mine, others


def _update_ours(history: History, paths: Mapping[str, pygit2.Oid | None]) -> None:
    """Make plain files of ours, and their entries in the index, what they are in a commit; None is no file."""
    for path, blob in paths.items():
        if blob is not None:
            write(history, path, history.repo[blob].data)  # type: ignore[attr-defined]
        else:
            _remove(history, path)

    def change(index: Any) -> None:
        for path, blob in paths.items():
            if blob is not None:
                _stage(index, path, blob)
            elif path in index:
                index.remove(path)

    staging.update(history, change)


def _remove(history: History, path: str) -> None:
    """Remove a file, and the folders that are empty without it, without following a link."""
    folder, _, name = path.rpartition("/")
    with contextlib.suppress(FileNotFoundError, OSError), files.open_folder(history.root) as root:
        with files.open_beneath(root, folder) as inner:
            os.unlink(name, dir_fd=inner)
        while folder:
            above, _, last = folder.rpartition("/")
            with files.open_beneath(root, above) as outer:
                os.rmdir(last, dir_fd=outer)
            folder = above


def staged_alone(history: History, commit: CommitId) -> list[str]:
    """Files whose version in the index would be lost by a checkout, which libgit2 does not look at.

    As git has it: where HEAD and the commit differ, the index must be like one of them; and no merge may be under way.
    """
    repo, head = history.repo, history.head()
    with git_errors("compare the index with HEAD"):
        index = repo.index
        index.read(force=False)
        if index.conflicts is not None:
            return sorted({side.path for sides in index.conflicts for side in sides if side is not None})
        new = repo[commit].peel(ObjectType.TREE)
        old = repo[head].peel(ObjectType.TREE) if head else None
        flags = DiffOption.INCLUDE_TYPECHANGE  # else a file that becomes a link is two deltas
        diff = new.diff_to_tree(swap=True, flags=flags) if old is None else old.diff_to_tree(new, flags=flags)
        return sorted(delta.new_file.path for delta in diff.deltas if not _is_like_either(index, delta))


def _is_like_either(index: Any, delta: pygit2.DiffDelta) -> bool:
    path = delta.new_file.path
    entry = index[path] if path in index else None  # noqa: SIM401 - no `get`
    staged = None if entry is None else (entry.id, entry.mode)
    return staged in [(file.id, file.mode) if file.mode else None for file in (delta.old_file, delta.new_file)]


def _in_the_way(commit: CommitId, paths: Iterable[str]) -> Unsaved:
    found = sorted(paths)
    shown = ", ".join(printable(path) for path in found[:5])
    return Unsaved(
        f"cannot check out {commit[:10]}",
        why=f"your changes to these files would be overwritten: {shown}",
        next_step="commit them, or put them aside with 'git stash'",
        paths=found,
    )


def set_head(history: History, commit: CommitId, *, branch: str | None) -> None:
    """Make HEAD name a branch, or, where that is None, a commit."""
    doing = f"set HEAD to {branch or commit[:10]}"
    with git_errors(doing):
        staging.patiently(doing, lambda: history.repo.set_head(HEADS + branch if branch else pygit2.Oid(hex=commit)))
