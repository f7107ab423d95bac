"""`status`: how workspace and code stand to HEAD."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal

from ckptvcs.porcelain import account
from ckptvcs.porcelain.checkpoints import checkpoint_at, line, tracks_at
from ckptvcs.porcelain.describe import ref_of
from ckptvcs.storage.directory import walk
from ckptvcs.storage.history import worktree
from ckptvcs.storage.history.repository import CommitId

if TYPE_CHECKING:
    import os

    from ckptvcs.domain.checkpoint import Checkpoint
    from ckptvcs.porcelain.repo import Repository
    from ckptvcs.storage.names import ObjectRef

Presence = Literal["clean", "earlier", "changed", "missing"]

_LOOK_BACK: Final = 100
"""Checkpoints before the one that is checked out that the workspace is compared with, if it does not hold that one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackStatus:
    """How the artifact of a track in the workspace stands to the checkpoint that is checked out."""

    track: str
    checkpoint: Checkpoint
    presence: Presence
    changed: tuple[str, ...]
    """Files that differ, are missing, or should not be there."""
    holds: Checkpoint | None = None
    """The earlier checkpoint that the workspace holds, exactly: nothing in it is work of the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Where a repository stands."""

    branch: str | None
    head: CommitId | None
    tracks: tuple[TrackStatus, ...]
    code: worktree.Changes


def status(repo: Repository) -> Status:
    """Look at HEAD, the workspace and the code."""
    head = repo.history.head()
    tracks = [(track, checkpoint_at(repo, head, track)) for track in tracks_at(repo, head)] if head else []
    late = account.read(repo)
    return Status(
        branch=repo.history.head_branch(),
        head=head,
        tracks=tuple(_track_status(repo, track, late.on(checkpoint)) for track, checkpoint in tracks if checkpoint),
        code=worktree.changes(repo.history, ours=repo.is_ours),
    )


def _track_status(repo: Repository, track: str, checkpoint: Checkpoint) -> TrackStatus:
    where = repo.workspace(track)
    expected = {file.path: ref_of(file) for file in checkpoint.remaining_files()}
    changed: list[str] = []
    found = set()
    for member, info in walk(where):
        found.add(member)
        if member not in expected or not _is(repo, where.absolute(member), info, expected[member]):
            changed.append(member)
    if not found:
        return TrackStatus(track=track, checkpoint=checkpoint, presence="missing", changed=())
    changed.extend(set(expected) - found)
    if not changed:
        return TrackStatus(track=track, checkpoint=checkpoint, presence="clean", changed=())
    holds = _earlier(repo, checkpoint)
    return TrackStatus(
        track=track,
        checkpoint=checkpoint,
        presence="changed" if holds is None else "earlier",
        changed=tuple(sorted(changed)),
        holds=holds,
    )


def _earlier(repo: Repository, checkpoint: Checkpoint) -> Checkpoint | None:
    """The checkpoint before this one that the workspace holds, as it does while a training commits to this branch."""
    where = repo.workspace(checkpoint.manifest.track)
    there = {}
    for member, info in walk(where):
        known = _known(repo, where.absolute(member), info)
        if known is None:
            return None
        there[member] = known.digest
    before = islice(line(repo, CommitId(checkpoint.commit), checkpoint.manifest.track), _LOOK_BACK)
    return next((c for c in before if {file.path: file.blake3 for file in c.manifest.all_files()} == there), None)


def _is(repo: Repository, path: str, info: os.stat_result, ref: ObjectRef) -> bool:
    if info.st_size != ref.nbytes:
        return False
    known = _known(repo, path, info)
    return known is not None and known.digest == ref.digest


def _known(repo: Repository, path: str, info: os.stat_result) -> ObjectRef | None:
    """What a file holds; None for what is no file, or cannot be read."""
    if not stat.S_ISREG(info.st_mode):
        return None
    known = repo.index.ref_of(path, info)
    if known is None:
        from ckptvcs.storage.verified import identify  # hardly ever needed, and it brings much with it

        try:
            known = identify(path)
        except OSError:
            return None
        repo.index.saw([(path, info, known)])  # so that the next look is cheap
    return known
