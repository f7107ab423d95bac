"""What follows a commit to the branch that is checked out: git's index, the pointer files, the artifact in the workspace.

The branch has moved by then, and nothing that goes wrong here undoes that; the next command finishes what a process was
killed at.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ckptvcs.domain import manifest as manifests
from ckptvcs.domain.checkpoint import check_track
from ckptvcs.errors import LockHeld, StorageError
from ckptvcs.paths import printable
from ckptvcs.storage import workspace
from ckptvcs.storage.dvc import pointer
from ckptvcs.storage.history import commits, worktree

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from ckptvcs.porcelain.repo import Repository
    from ckptvcs.porcelain.target import Target
    from ckptvcs.storage.files import Lock
    from ckptvcs.storage.history.repository import CommitId
    from ckptvcs.storage.linking import Chunks
    from ckptvcs.storage.names import ObjectRef


class Following:
    """If the branch is checked out: leave a note, let the block move the branch, then make index and worktree follow.

    Args:
        repo: the repository.
        target: the branch.
        track: the track.
        commit: where the block moves the branch.
        ours: path -> content of our files in that commit.
        lock: our repository lock, held.
    """

    def __init__(
        self,
        repo: Repository,
        target: Target,
        *,
        track: str,
        commit: CommitId,
        ours: Mapping[str, bytes],
        lock: Lock,
    ) -> None:
        self._repo, self._target, self._track = repo, target, track
        self._commit, self._ours, self._lock = commit, ours, lock

    def __enter__(self) -> None:
        if self._target.checked_out:
            worktree.wait_until_free(self._repo.history, "update git's index")
            note = {"ref": self._target.ref, "commit": self._commit, "track": self._track}
            # The locks as well: libgit2 leaves that of the index behind if we are killed while it writes the index.
            self._lock.write_note({"follow": note, "locks": commits.lock_files(self._repo.history)})

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, StorageError):
            return  # what libgit2 could not finish or take back is for the next command, which reads the note
        if kind is None and self._target.checked_out:
            _follow(self._repo, self._track, self._ours)
        self._lock.write_note({})


def _follow(repo: Repository, track: str, ours: Mapping[str, bytes]) -> None:
    ignored = repo.ignore_path()
    worktree.follow(repo.history, ours, ignore_file=ignored, entry=lambda text: pointer.with_ignored(text, track))


@contextmanager
def locked(repo: Repository) -> Iterator[Lock]:
    """Hold our repository lock, once what its last holder was killed at is finished: nothing else may take it.

    Raises:
        LockHeld: another process holds it and does not let go.
    """
    with repo.lock() as (lock, note):
        finish_interrupted(repo, note, lock)
        yield lock


def finish_interrupted(repo: Repository, note: Mapping[str, Any], lock: Lock) -> None:
    """Finish what a process was killed at: its branch has moved, but index and worktree have not followed.

    Args:
        repo: the repository.
        note: what that process left in our repository lock.
        lock: the lock, held.
    """
    follow = note.get("follow")
    if not isinstance(follow, dict):
        return
    head, branch = repo.history.head(), repo.history.head_branch()
    if head is None or branch is None:
        return
    if (follow.get("ref"), follow.get("commit")) != (f"refs/heads/{branch}", head):
        return  # it died before the branch moved, or somebody moved on since
    track = check_track(str(follow.get("track")))
    paths = (repo.pointer_path(track), repo.manifest_path(track))
    blobs = {path: repo.history.blob_id(head, path) for path in paths}
    ours = {path: repo.history.blob(blob, limit=manifests.MAX_BYTES) for path, blob in blobs.items() if blob}
    with commits.announced(repo.history, lock):
        _follow(repo, track, ours)


def into_workspace(
    repo: Repository,
    track: str,
    commit: CommitId,
    refs: Mapping[str, ObjectRef],
    *,
    committed: Iterable[Path],
    at_hand: Mapping[str, Chunks],
) -> list[str]:
    """Put the artifact where its pointer says it is.

    Args:
        repo: the repository.
        track: the track.
        commit: the checkpoint; if HEAD is elsewhere by now, the workspace is left to whoever moved it.
        refs: the files of the artifact.
        committed: files whose bytes are saved by this very commit.
        at_hand: what gives the bytes of the files of the artifact, as far as we still have them.

    Returns:
        What the user should know; the commit stands in any case.
    """
    where = repo.workspace(track)
    saved = {str(path) for path in committed}
    try:
        with locked(repo):
            if repo.history.head() != commit:
                return []
            lost = [member for member in workspace.unsaved(where, repo.objects) if where.absolute(member) not in saved]
            if lost:
                shown = ", ".join(printable(member) for member in lost[:3])
                return [f"'{where.path}' was left as it is: it holds files that are saved nowhere ({shown})"]
            workspace.materialise(where, refs, source=repo.objects, placing=repo.placing, at_hand=at_hand)
    except (StorageError, LockHeld) as err:
        return [f"'{where.path}' could not be updated ({err}); run 'ckpt restore HEAD' later"]
    return []
