"""`log`, `show`, `status`: looking. Nothing here changes anything."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ckptvcs.formats import tree_file
from ckptvcs.porcelain.checkpoints import checkpoint_at, made_by, require_checkpoint, tracks_at
from ckptvcs.porcelain.describe import ref_of
from ckptvcs.storage import workspace
from ckptvcs.storage.history import worktree
from ckptvcs.storage.verified import verified_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ckptvcs.domain.checkpoint import Checkpoint
    from ckptvcs.domain.manifest import Manifest
    from ckptvcs.porcelain.repo import Repository
    from ckptvcs.storage.history.repository import CommitId
    from ckptvcs.storage.objects import ObjectRef


# --------------------------------------------------------------------------------------------------------------- log


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One line of a log."""

    checkpoint: Checkpoint
    names: tuple[str, ...]
    """Branches and tags that stand here; the branch that is checked out first, as `HEAD -> NAME`."""
    above: tuple[str, ...]
    """Commits of the checkpoints that this one was made on top of, along every git parent."""


@dataclass(frozen=True, slots=True)
class Log:
    """A part of a history, newest first; `more` says whether there is more."""

    entries: tuple[LogEntry, ...]
    more: bool


def log(repo: Repository, revisions: list[CommitId], *, track: str | None = None, limit: int | None = None) -> Log:
    """The checkpoints that can be reached from some commits.

    Args:
        repo: the repository.
        revisions: where to begin.
        track: the track; None for the configured one.
        limit: how many at most; None for all.
    """
    track = track or repo.config.track
    found: list[Checkpoint] = []
    for checkpoint in made_by(repo, repo.history.walk(revisions), track):
        if limit is not None and len(found) == limit:
            return Log(_entries(repo, found), more=True)
        found.append(checkpoint)
    return Log(_entries(repo, found), more=False)


def _entries(repo: Repository, found: list[Checkpoint]) -> tuple[LogEntry, ...]:
    names = names_by_commit(repo)
    here = {checkpoint.commit for checkpoint in found}
    return tuple(
        LogEntry(checkpoint=c, names=names.get(c.commit, ()), above=_above(repo, c.commit, here)) for c in found
    )


def _above(repo: Repository, commit: str, here: set[str]) -> tuple[str, ...]:
    """The nearest checkpoint commits among the ancestors, past ordinary commits."""
    nearest: list[str] = []
    stack, seen = list(reversed(repo.history.commit(commit).parents)), set[str]()  # type: ignore[arg-type]
    while stack:
        parent = stack.pop()
        if parent in seen:
            continue
        seen.add(parent)
        if parent in here:
            nearest.append(parent)
        elif len(seen) < 1000:  # beyond that the line is drawn to nowhere rather than all of a long history read
            stack.extend(reversed(repo.history.commit(parent).parents))
    return tuple(nearest)


def names_by_commit(repo: Repository) -> dict[str, tuple[str, ...]]:
    """The names that stand at each commit."""
    here = repo.history.head_branch()
    found: dict[str, list[str]] = {}
    for name, tip in repo.history.branches().items():
        names = found.setdefault(tip, [])
        names.insert(0, f"HEAD -> {name}") if name == here else names.append(name)
    if here is None and (head := repo.history.head()):
        found.setdefault(head, []).insert(0, "HEAD")
    for tag in repo.history.tags():
        found.setdefault(tag.commit, []).append(f"tag: {tag.name}")
    return {commit: tuple(names) for commit, names in found.items()}


# -------------------------------------------------------------------------------------------------------------- show


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One checkpoint with everything there is to say about it."""

    checkpoint: Checkpoint
    names: tuple[str, ...]
    here: tuple[str, ...]
    """Paths of the files whose objects are in the hot tier."""
    tables: Mapping[str, tree_file.TreeFile]
    """The tensors of each component, where they were asked for."""


def show(repo: Repository, revision: str, *, track: str | None = None, tensors: bool = False) -> Shown:
    """Look at one checkpoint.

    Raises:
        NotFound: there is none.
        IntegrityError: its tensors were asked for, and a tree file is missing or damaged.
    """
    checkpoint = require_checkpoint(repo, revision, track or repo.config.track)
    store = repo.objects.store
    return Shown(
        checkpoint=checkpoint,
        names=names_by_commit(repo).get(checkpoint.commit, ()),
        here=tuple(f.path for f in checkpoint.manifest.all_files() if store.nbytes(ref_of(f).name) == f.size),
        tables=tables(repo, checkpoint.manifest) if tensors else {},
    )


def tables(repo: Repository, manifest: Manifest) -> dict[str, tree_file.TreeFile]:
    """The tree files of a checkpoint, from the hot tier.

    Raises:
        IntegrityError: one is missing or damaged.
    """
    found = {}
    for component in manifest.components:
        for file in component.files:
            if file.path == f"{component.name}/{tree_file.NAME}":
                data = verified_bytes(repo.objects.store, ref_of(file), limit=tree_file.MAX_BYTES)
                found[component.name] = tree_file.from_bytes(data, file=file.path)
    return found


# ------------------------------------------------------------------------------------------------------------- status


Presence = Literal["clean", "changed", "missing", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackStatus:
    """How the artifact of a track in the workspace stands to the checkpoint that is checked out."""

    track: str
    checkpoint: Checkpoint
    presence: Presence
    changed: tuple[str, ...]
    """Files that differ, are missing, or should not be there."""


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
    return Status(
        branch=repo.history.head_branch(),
        head=head,
        tracks=tuple(_track_status(repo, track, checkpoint) for track, checkpoint in tracks if checkpoint),
        code=worktree.changes(repo.history, ours=repo.is_ours),
    )


def _track_status(repo: Repository, track: str, checkpoint: Checkpoint) -> TrackStatus:
    where = repo.workspace(track)
    expected = {file.path: ref_of(file) for file in checkpoint.manifest.all_files()}
    changed: list[str] = []
    found = set()
    for member, info in workspace.walk(where):
        found.add(member)
        if member not in expected or not _is(repo, where.absolute(member), info, expected[member]):
            changed.append(member)
    if not found:
        return TrackStatus(track=track, checkpoint=checkpoint, presence="missing", changed=())
    changed.extend(set(expected) - found)
    presence: Presence = "changed" if changed else "clean"
    return TrackStatus(track=track, checkpoint=checkpoint, presence=presence, changed=tuple(sorted(changed)))


def _is(repo: Repository, path: str, info: os.stat_result, ref: ObjectRef) -> bool:
    if not stat.S_ISREG(info.st_mode) or info.st_size != ref.nbytes:
        return False
    known = repo.index.ref_of(path, info)
    if known is None:
        try:
            known = workspace.identify(path)
        except OSError:
            return False
        repo.index.saw([(path, info, known)])  # so that the next look is cheap
    return known.digest == ref.digest
