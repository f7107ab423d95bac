"""`checkout` and `restore`: an artifact appears in the workspace; `checkout` moves HEAD as well.

Everything that can fail is looked at first: are all objects here and whole, would anything be lost, is there room. Then
HEAD moves, then each artifact is exchanged in one step. Killed in between, HEAD is new and an artifact is old, which
`ckpt status` says and the same command mends.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckptvcs.errors import NotFound, Refused, Unsaved, UsageError, WouldOverwrite
from ckptvcs.paths import printable
from ckptvcs.porcelain import account, given, obstacles
from ckptvcs.porcelain.checkpoints import checkpoint_at, locate, pointer_at, require_checkpoint, tracks_at
from ckptvcs.porcelain.describe import ref_of
from ckptvcs.porcelain.following import locked
from ckptvcs.porcelain.gone import left_out, refuse_gone, with_shared
from ckptvcs.porcelain.target import check_branch_name, refuse_clash
from ckptvcs.porcelain.tracked import tracked
from ckptvcs.progress import Progress, silent
from ckptvcs.storage import workspace
from ckptvcs.storage.directory import HERE, Directory
from ckptvcs.storage.history import commits, leftovers, worktree

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ckptvcs.domain.checkpoint import Checkpoint
    from ckptvcs.porcelain.repo import Repository
    from ckptvcs.storage.files import Lock
    from ckptvcs.storage.history.repository import BlobId, CommitId
    from ckptvcs.storage.names import ObjectRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """One directory to be put into a workspace."""

    where: Directory
    members: dict[str, ObjectRef]

    @property
    def nbytes(self) -> int:
        return sum(ref.nbytes for ref in self.members.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutPlan:
    """What a checkout or restore would do."""

    commit: CommitId
    move_head: bool
    branch: str | None
    """The branch that HEAD shall name; None detaches it."""
    new_branch: bool
    placements: tuple[Placement, ...]
    removals: tuple[Directory, ...]
    """Artifacts of tracks that are checked out now and that the commit does not have."""
    checkpoints: tuple[Checkpoint, ...]
    components: tuple[str, ...] = ()
    """Those that were asked for; all of them if there are none."""

    @property
    def nbytes(self) -> int:
        return sum(placement.nbytes for placement in self.placements)


# -------------------------------------------------------------------------------------------------------------- plan


def plan_checkout(repo: Repository, revision: str, *, new_branch: str | None = None) -> CheckoutPlan:
    """Look at everything, change nothing.

    Args:
        repo: the repository.
        revision: where to go; the name of a branch attaches HEAD to it, and one that only a git remote has is made here.
        new_branch: make a branch of that name there and attach HEAD to it.

    Raises:
        NotFound: no such revision.
        Unsaved: a workspace directory holds files that are saved nowhere.
        IntegrityError: an object is missing or damaged.
        WouldOverwrite: there is a branch `new_branch` already.
    """
    there = tracked(repo, revision) if new_branch is None and repo.history.resolve(revision) is None else None
    if there is not None:  # as git does, a branch that only a remote has begins here
        revision, new_branch = there.name, revision
    commit = locate(repo, revision, repo.basics.track)
    branch = revision if repo.history.tip(f"refs/heads/{revision}") is not None else None
    if new_branch is not None:
        check_branch_name(repo, new_branch)
        refuse_clash(repo, new_branch)
        if repo.history.tip(f"refs/heads/{new_branch}") is not None:
            raise WouldOverwrite(f"branch '{new_branch}' exists already", next_step=f"run 'ckpt checkout {new_branch}'")
    elif branch is not None and branch != repo.history.head_branch() and repo.history.is_checked_out(branch):
        raise Refused(
            f"cannot check out branch '{branch}'", why="it is checked out in another worktree", next_step="work there"
        )
    obstacles.refuse_planted(repo, commit)
    worktree.refuse_unless_plain(repo.history, commit)
    head, tracks = repo.history.head(), tracks_at(repo, commit)
    found = [checkpoint_at(repo, commit, track) for track in tracks]
    checkpoints = account.with_late(repo, *(checkpoint for checkpoint in found if checkpoint is not None))
    refuse_gone(repo, *checkpoints)
    gone = set(tracks_at(repo, head) if head else ()) - set(tracks)
    return _checked(
        repo,
        CheckoutPlan(
            commit=commit,
            move_head=True,
            branch=new_branch or branch,
            new_branch=new_branch is not None,
            placements=tuple(_placement(repo, checkpoint) for checkpoint in checkpoints),
            removals=tuple(repo.workspace(track) for track in sorted(gone)),
            checkpoints=checkpoints,
        ),
    )


def plan_restore(
    repo: Repository, revision: str, *, components: Sequence[str] = (), to: Path | None = None, track: str | None = None
) -> CheckoutPlan:
    """Look at everything, change nothing.

    Args:
        repo: the repository.
        revision: the checkpoint to restore.
        components: names or roles; empty for all of them.
        to: a folder that does not exist yet (or is empty); None for the place in the workspace.
        track: the track; None for the configured one.

    Raises:
        NotFound: no such revision or component.
        Unsaved, WouldOverwrite: something would be lost.
        IntegrityError: an object is missing or damaged.
    """
    (checkpoint,) = account.with_late(repo, require_checkpoint(repo, revision, track or repo.basics.track))
    names = [_component_name(checkpoint, name) for name in components]
    checkpoint = with_shared(repo, checkpoint, names)
    refuse_gone(repo, checkpoint, components=names)
    where = repo.workspace(checkpoint.manifest.track) if to is None else _outside(to)
    whole = _placement(repo, checkpoint, where)
    placements: tuple[Placement, ...] = (whole,)
    if names and to is None:
        placements = tuple(_part(whole, name) for name in names)
    elif names:
        members = {m: ref for m, ref in whole.members.items() if m.partition("/")[0] in names}
        placements = (Placement(where=where, members=members),)
    return _checked(
        repo,
        CheckoutPlan(
            commit=locate(repo, revision, checkpoint.manifest.track),
            move_head=False,
            branch=None,
            new_branch=False,
            placements=placements,
            removals=(),
            checkpoints=(checkpoint,),
            components=tuple(names),
        ),
    )


def plan_follow(repo: Repository, before: CommitId | None) -> CheckoutPlan | None:
    """Look what brings the workspace to HEAD, which git has moved; change nothing.

    Args:
        repo: the repository.
        before: where HEAD was; None if nobody knows.

    Returns:
        None if HEAD has the checkpoints that were there before, or no commit.

    Raises:
        Unsaved: a workspace directory holds files that are saved nowhere.
    """
    head = repo.history.head()
    if head is None:
        return None
    held = _manifests(repo, before) if before else {}
    now = _manifests(repo, head)
    found = [checkpoint_at(repo, head, track) for track, blob in now.items() if held.get(track) != blob]
    checkpoints = account.with_late(repo, *(checkpoint for checkpoint in found if checkpoint is not None))
    refuse_gone(repo, *checkpoints)
    removals = tuple(repo.workspace(track) for track in sorted(held.keys() - now.keys()))
    if not checkpoints and not removals:
        return None
    return _checked(
        repo,
        CheckoutPlan(
            commit=head,
            move_head=False,
            branch=None,
            new_branch=False,
            placements=tuple(_placement(repo, checkpoint) for checkpoint in checkpoints),
            removals=removals,
            checkpoints=checkpoints,
        ),
    )


def _manifests(repo: Repository, commit: CommitId) -> dict[str, BlobId | None]:
    return {track: repo.history.blob_id(commit, repo.manifest_path(track)) for track in tracks_at(repo, commit)}


def refuse_unsaved(repo: Repository, commit: CommitId) -> None:
    """Raise what would stand in the way of the checkpoints of a commit, in the workspace.

    Raises:
        Unsaved: a workspace directory holds files that are saved nowhere.
    """
    _refuse_unsaved(repo, [repo.workspace(track) for track in tracks_at(repo, commit)])


def _placement(repo: Repository, checkpoint: Checkpoint, where: Directory | None = None) -> Placement:
    pointer_at(repo, checkpoint.commit, checkpoint.manifest.track)  # type: ignore[arg-type]
    members = {file.path: ref_of(file) for file in checkpoint.remaining_files()}
    return Placement(where=where or repo.workspace(checkpoint.manifest.track), members=members)


def _part(whole: Placement, component: str) -> Placement:
    where = Directory(root=whole.where.root, path=f"{whole.where.path}/{component}")
    prefix = f"{component}/"
    return Placement(
        where=where, members={m.removeprefix(prefix): ref for m, ref in whole.members.items() if m.startswith(prefix)}
    )


def _component_name(checkpoint: Checkpoint, name: str) -> str:
    entry = checkpoint.manifest.component(name)
    if entry is None:
        raise NotFound(
            f"no component '{printable(name)}' in checkpoint {checkpoint.id[:10]}",
            why=f"it has {', '.join(c.name for c in checkpoint.manifest.components)}",
            next_step="name one of them",
        )
    return entry.name


def _outside(to: Path) -> Directory:
    to = to.absolute()
    if not to.parent.is_dir():
        raise UsageError(
            f"cannot restore to '{to}'", why=f"there is no folder '{to.parent}'", next_step="make it first"
        )
    if to.is_symlink() or (to.exists() and (not to.is_dir() or any(to.iterdir()))):
        raise WouldOverwrite(
            f"cannot restore to '{to}'", why="it exists already", next_step="name a folder that does not"
        )
    return Directory(root=to.parent.resolve(), path=to.name)


def _checked(repo: Repository, plan: CheckoutPlan) -> CheckoutPlan:
    _refuse_unsaved(repo, [*(placement.where for placement in plan.placements), *plan.removals])
    return plan


def _refuse_unsaved(repo: Repository, places: Sequence[Directory]) -> None:
    for where in places:
        lost = workspace.unsaved(where, repo.objects)
        if lost == [HERE]:
            raise Unsaved(
                f"cannot replace '{where.path}'",
                why="it is no folder but a file or a link",
                next_step="move it away",
                paths=lost,
            )
        if lost:
            shown = ", ".join(printable(m) for m in lost[:3]) + (f" and {len(lost) - 3} more" if len(lost) > 3 else "")
            raise Unsaved(
                f"cannot replace '{where.path}'",
                why=f"these files in it are saved nowhere: {shown}",
                next_step=f"keep them with 'ckpt commit {where.path}', or give them up with 'rm -r {where.path}' first",
                paths=lost,
            )


# --------------------------------------------------------------------------------------------------------------- act


def execute(repo: Repository, plan: CheckoutPlan, progress: Progress = silent) -> tuple[str, ...]:
    """Do what the plan says, once.

    Args:
        repo: the repository.
        plan: from `plan_checkout` or `plan_restore`.
        progress: told about bytes: once when they are verified, once when they are placed.

    Returns:
        What the user should know.

    Raises:
        IntegrityError: an object is missing or damaged; nothing was changed.
        Unsaved: uncommitted changes stand in the way; nothing was changed.
    """
    began = time.monotonic()
    repo.objects.check((ref for p in plan.placements for ref in p.members.values()), progress)
    with repo.dvc_lock(), locked(repo) as lock:
        if plan.move_head:
            _move_head(repo, plan, lock)
        by, told = "checkout" if plan.move_head else "restore", plan.checkpoints if plan.placements else ()
        notes = given.tell(repo, told, by=by, components=plan.components, lock=lock)
        notes += () if plan.components else tuple(text for checkpoint in told for text in left_out(checkpoint))
        for placement in plan.placements:
            workspace.materialise(
                placement.where, placement.members, source=repo.objects, placing=repo.placing, progress=progress
            )
        for where in plan.removals:
            workspace.remove(where)
        notes += given.took(repo, told, by=by, seconds=time.monotonic() - began, lock=lock)
    return notes


def bring_files(repo: Repository, commit: CommitId, lock: Lock) -> None:
    """Make index and worktree those of a commit; HEAD stays. What a checkout that died cut short is no change of the user.

    Raises:
        Unsaved: uncommitted changes would be overwritten; nothing was changed.
        LockHeld: another git process holds index or HEAD; nothing was changed.
    """
    with commits.announced(repo.history, lock):
        try:
            worktree.update_files(repo.history, commit, ours=repo.is_ours)
        except Unsaved as err:
            if not leftovers.put_back(repo.history, commit, err.facts["paths"], ours=repo.is_ours):
                raise
            worktree.update_files(repo.history, commit, ours=repo.is_ours)


def _move_head(repo: Repository, plan: CheckoutPlan, lock: Lock) -> None:
    """Files first, then the branch, then HEAD: whatever is refused is refused before a name is written."""
    bring_files(repo, plan.commit, lock)
    if plan.new_branch and plan.branch is not None:
        commits.create_branch(repo.history, plan.branch, plan.commit, lock=lock)
    with commits.announced(repo.history, lock):
        worktree.set_head(repo.history, plan.commit, branch=plan.branch)
