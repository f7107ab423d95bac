"""Writing to a git repository: commits and tags, moved into place by compare-and-swap.

Objects are durable before a ref names them. A ref moves only if it is still where it was when we looked; who loses that
race looks again. libgit2 leaves `REF.lock` behind when its process is killed in the middle of a move, and every later
move would fail: a note under our own lock says which files a dead process may have left, and the next one removes them.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pygit2
from pygit2.enums import FileMode, ObjectType

from ckptvcs.errors import LockHeld, RefMoved, StorageError, WouldOverwrite, from_os_error
from ckptvcs.storage.files import Lock
from ckptvcs.storage.history.repository import HEADS, TAGS, CommitId, History, Identity, git_errors, is_locked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

_REF_LOCK_WAIT_S: Final = 5.0
"""How long another git process may hold the lock of a ref; it needs milliseconds."""

_NOTE_WINDOW_S: Final = 60.0
"""A lock file that appeared within this time after a dead process announced it is that process's: git programs hold theirs
for milliseconds, so the chance to meet a living one's instead is one in many thousands, and only after a kill."""


def write_commit(
    history: History,
    *,
    base: CommitId | None,
    parents: tuple[CommitId, ...],
    changes: Mapping[str, bytes],
    message: str,
    identity: Identity,
    when: datetime,
    authored: datetime | None = None,
) -> CommitId:
    """Write a commit object that no ref names yet.

    Args:
        history: where to.
        base: the commit whose tree it begins with; None for an empty tree.
        parents: its parents, first one first.
        changes: path -> new content.
        message: the commit message.
        identity: author and committer.
        when: the time of both, aware; its offset is kept.
        authored: the time of the author, where that is another one.
    """
    repo, committer = history.repo, _signature(identity, when)
    author = _signature(identity, authored or when)
    with git_errors("write a commit"):
        blobs = {path: repo.create_blob(data) for path, data in changes.items()}
        tree = repo[base].peel(ObjectType.TREE) if base else None
        tree_id = _tree_with(repo, tree, blobs)
        # Not `create_commit`: libgit2 1.9 does not notice there that the object could not be written, and names it.
        data = str(repo.create_commit_string(author, committer, message, tree_id, list(parents)))
        return CommitId(str(repo.write(ObjectType.COMMIT, data.encode("utf-8", "surrogateescape"))))


def _signature(identity: Identity, when: datetime) -> pygit2.Signature:
    offset = when.utcoffset()
    minutes = int(offset.total_seconds() // 60) if offset else 0
    return pygit2.Signature(identity.name, identity.email, int(when.timestamp()), minutes)


def _tree_with(repo: pygit2.Repository, tree: Any, blobs: Mapping[str, Any]) -> Any:
    """The id of a tree like `tree` with some files replaced or added, at any depth."""
    builder = repo.TreeBuilder(tree) if tree is not None else repo.TreeBuilder()
    deeper: dict[str, dict[str, Any]] = {}
    for path, blob in blobs.items():
        name, _, rest = path.partition("/")
        if rest:
            deeper.setdefault(name, {})[rest] = blob
        else:
            builder.insert(name, blob, FileMode.BLOB)
    for name, inner in deeper.items():
        old = tree[name] if tree is not None and name in tree else None
        subtree = old if old is not None and old.type == ObjectType.TREE else None
        builder.insert(name, _tree_with(repo, subtree, inner), FileMode.TREE)
    return builder.write()


# ------------------------------------------------------------------------------------------------------------- refs


def move_ref(history: History, ref: str, *, old: CommitId | None, new: str | None, reason: str, lock: Lock) -> None:
    """Move a ref, if it is still at `old`; None means that it must not exist yet.

    Args:
        history: where.
        ref: full name, such as `refs/heads/main`.
        old: where it must be.
        new: the object it shall name; None removes the ref.
        reason: goes to the reflog.
        lock: our repository lock, held.

    Raises:
        RefMoved: it is somewhere else by now; look again.
        LockHeld: another git process holds it and does not let go.
    """
    with announced(history, lock, ref):
        _swap(history, ref, old, new, reason)


@contextlib.contextmanager
def announced(history: History, lock: Lock, *refs: str) -> Iterator[None]:
    """Say which lock files libgit2 may leave behind if this process is killed in the block, or the disk fails in it.

    Args:
        history: the repository.
        lock: our repository lock, held.
        refs: full names of the refs that will be moved; HEAD, index and packed refs are always meant.
    """
    note = lock.read_note()
    lock.write_note({**note, "locks": lock_files(history, *refs)})
    try:
        yield
    except StorageError:
        raise  # then libgit2 may not have been able to remove what it made: the next holder of our lock does
    except BaseException:
        lock.write_note(note)
        raise
    lock.write_note(note)


def _swap(history: History, ref: str, old: CommitId | None, new: str | None, reason: str) -> None:
    end = time.monotonic() + _REF_LOCK_WAIT_S  # how long we wait, not what time it is
    while True:
        try:
            _swap_once(history, ref, old, new, reason)
            return
        except (pygit2.GitError, OSError, ValueError) as err:
            if isinstance(err, pygit2.AlreadyExistsError) or "does not match" in str(err):
                raise _moved(ref) from err
            if not is_locked(err):
                with git_errors(f"move '{ref}'"):
                    raise
            if _remove_husk(history, ref):
                continue
            if time.monotonic() >= end:
                raise LockHeld(
                    f"cannot move '{ref}'",
                    why=f"another git process holds it: {err}",
                    next_step="if no git process is running, run 'ckpt doctor'",
                ) from err
            time.sleep(0.02)


def _swap_once(history: History, ref: str, old: CommitId | None, new: str | None, reason: str) -> None:
    """Move a ref: libgit2 locks it, and compares it with what we saw here before it writes."""
    now = history.repo.references.get(ref)
    if (None if now is None else str(now.peel(ObjectType.COMMIT).id)) != old:
        raise _moved(ref)
    if new is None:
        if now is not None:
            now.delete()
        _remove_reflog(history, ref)
    elif now is None:
        history.repo.create_reference_direct(ref, pygit2.Oid(hex=new), False, message=reason)  # noqa: FBT003 - no keyword
    else:
        now.set_target(pygit2.Oid(hex=new), reason)


def _remove_husk(history: History, ref: str) -> bool:
    """Remove a lock file that is the ref itself; says whether there was one.

    libgit2 gives a new ref its name by a second link to its lock file, and does not notice if it cannot remove the first.
    """
    path = history.common_dir / ref
    lock = path.with_name(f"{path.name}.lock")
    try:
        if os.lstat(lock).st_ino != os.lstat(path).st_ino:
            return False
        os.unlink(lock)
    except OSError:
        return False
    return True


def _moved(ref: str) -> RefMoved:
    return RefMoved(
        f"cannot move '{ref}'", why="another process moved it meanwhile", next_step="run the command again", ref=ref
    )


def _remove_reflog(history: History, ref: str) -> None:
    """Remove the log of a ref that is gone: that of `a/b` would be in the way of a branch `a` for ever."""
    logs = history.common_dir / "logs"
    if (history.common_dir / ref).exists():  # another process made it anew
        return
    with contextlib.suppress(OSError):  # there is none, or others lie in the same folder
        os.unlink(logs / ref)
        for folder in (logs / ref).parents:
            if folder.parent.parent == logs:  # `refs/heads` itself stays
                break
            os.rmdir(folder)


def lock_files(history: History, *refs: str) -> list[str]:
    """What `announced` announces: the lock files of these refs, and those of HEAD, index and packed refs.

    They are relative to git's common folder: a copy of the repository has the note too, and must not clean up elsewhere.
    """
    return [*(f"{ref}.lock" for ref in refs), "packed-refs.lock", *_own_lock_files(history.git_dir, history.common_dir)]


@functools.lru_cache(maxsize=8)
def _own_lock_files(git_dir: Path, common_dir: Path) -> tuple[str, ...]:
    return tuple(os.path.relpath(git_dir.resolve() / name, common_dir) for name in ("HEAD.lock", "index.lock"))


@contextlib.contextmanager
def repository_lock(history: History, *, now: float, timeout_s: float) -> Iterator[tuple[Lock, dict[str, Any]]]:
    """Hold our own lock on a repository, and clean up after a holder that died.

    Args:
        history: the repository.
        now: the time in seconds since the epoch.
        timeout_s: how long to wait for another holder.

    Yields:
        The lock, and the note of a dead holder (empty if there was none), which is taken back when the block ends well.
    """
    try:
        history.private.mkdir(exist_ok=True)
    except OSError as err:
        raise from_os_error(err, doing=f"write to '{history.common_dir}'") from err
    with Lock(history.private / "lock", timeout_s=timeout_s) as lock:
        note, age = lock.read_note(), lock.note_age_s(now)
        if note:
            _remove_left_locks(history, note, now - age)
        yield lock, note
        if note:
            lock.write_note({})


def _remove_left_locks(history: History, note: Mapping[str, Any], announced: float) -> None:
    locks = note.get("locks")
    for name in locks if isinstance(locks, list) else ():
        if not isinstance(name, str) or os.path.isabs(name) or ".." in name.split("/") or not name.endswith(".lock"):
            continue  # who hands us a folder with a note in it does not choose what is removed
        with contextlib.suppress(OSError):
            path = history.common_dir / name
            if -1.0 <= os.lstat(path).st_mtime - announced <= _NOTE_WINDOW_S:
                os.unlink(path)


# --------------------------------------------------------------------------------------------------- branches, tags


def create_branch(history: History, name: str, commit: CommitId, *, lock: Lock) -> None:
    """Make a branch.

    Raises:
        WouldOverwrite: there is one of that name.
    """
    try:
        move_ref(history, HEADS + name, old=None, new=commit, reason="ckpt branch", lock=lock)
    except RefMoved as err:
        raise _exists("branch", name) from err


def create_tag(
    history: History, name: str, commit: CommitId, *, annotation: Annotation | None = None, lock: Lock
) -> None:
    """Make a tag; with an annotation, an annotated one.

    Raises:
        WouldOverwrite: there is one of that name.
    """
    target: str = commit
    if annotation is not None:
        with git_errors(f"write tag '{name}'"):
            tagger = _signature(annotation.identity, annotation.when)
            target = str(_tag_object(history, name, commit, tagger, annotation.message))
    try:
        move_ref(history, TAGS + name, old=None, new=target, reason="ckpt tag", lock=lock)
    except RefMoved as err:
        raise _exists("tag", name) from err


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """What an annotated tag says, who says it and when."""

    message: str
    identity: Identity
    when: datetime


def _tag_object(history: History, name: str, commit: CommitId, tagger: pygit2.Signature, message: str) -> Any:
    """Write a tag object without a ref: `create_tag` of pygit2 would make both, and not by compare-and-swap."""
    zone = f"{'-' if tagger.offset < 0 else '+'}{abs(tagger.offset) // 60:02d}{abs(tagger.offset) % 60:02d}"
    text = (
        f"object {commit}\ntype commit\ntag {name}\n"
        f"tagger {tagger.name} <{tagger.email}> {tagger.time} {zone}\n\n{message.rstrip()}\n"
    )
    return history.repo.odb.write(ObjectType.TAG, text.encode("utf-8"))


def delete_ref(history: History, ref: str, *, old: CommitId, lock: Lock) -> None:
    """Remove a branch or tag, if it still is at `old`.

    Raises:
        RefMoved: it is not.
    """
    move_ref(history, ref, old=old, new=None, reason="", lock=lock)


def _exists(kind: str, name: str) -> WouldOverwrite:
    return WouldOverwrite(f"{kind} '{name}' exists already", next_step="choose another name", name=name)
