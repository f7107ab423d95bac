"""Where a commit goes: the branch, its parents and the tree it begins with.

A checkpoint commit has its parent's tree and our files, so that its ancestry is the lineage and `git show REV:train.py` is
the code that made it. Where the code moved on since the last checkpoint of the branch (a run that was resumed after a fix),
that would show the old code; then the commit takes the tree of the code and has it as second parent, like a merge. See
docs/decisions/0003.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.errors import Refused, UsageError
from ckptvcs.paths import printable
from ckptvcs.storage.history.repository import HEADS, CommitId

if TYPE_CHECKING:
    from ckptvcs.porcelain.repo import Repository

_MAX_POINTER = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The branch that a checkpoint is committed to."""

    branch: str
    checked_out: bool
    """Whether it is the branch that HEAD names here: then index and worktree follow."""

    @property
    def ref(self) -> str:
        return HEADS + self.branch


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where in history a commit goes, as things stand now."""

    tip: CommitId | None
    base: CommitId | None
    parents: tuple[CommitId, ...]
    """The first is the commit before, of this branch or of the one that it leaves."""
    carried: dict[str, bytes]
    """Our files of the branch that `base` lacks."""


def find_target(repo: Repository, branch: str | None, run: str | None) -> Target:
    """Decide which branch is meant: the one that is named, else that of the run, else the one that is checked out.

    Raises:
        UsageError: HEAD is detached and no branch was named, or the name is not possible.
        Refused: the branch is checked out in another worktree, which would be left behind.
    """
    here = repo.history.head_branch()
    name = next((given for given in (branch, run, here) if given is not None), None)
    if name is None:
        raise UsageError(
            "no branch to commit to",
            why="HEAD is detached: it names a commit, not a branch",
            next_step="name a branch with --branch, or run 'ckpt checkout HEAD -b NAME'",
        )
    check_branch_name(repo, name)
    refuse_clash(repo, name)
    if name != here and repo.history.is_checked_out(name):
        raise Refused(
            f"cannot commit to branch '{name}'",
            why="it is checked out in another worktree, whose files would no longer fit",
            next_step="run the command there, or name another branch",
        )
    return Target(branch=name, checked_out=name == here)


def refuse_clash(repo: Repository, name: str) -> None:
    """Refuse a new branch `a/b` where there is a branch `a`, and the other way round: git keeps them as files in folders."""
    for other in repo.history.branches():
        if other.startswith(f"{name}/") or name.startswith(f"{other}/"):
            raise Refused(
                f"cannot make branch '{name}'",
                why=f"there is a branch '{other}', and git cannot have both",
                next_step="choose another name",
            )


_MAX_NAME: Final = 200
"""Bytes of a part of a branch name: it is the name of a file, and git puts something behind it."""


def check_branch_name(repo: Repository, name: Any) -> None:
    """Raise `UsageError` if git would not have a branch of that name, or if it would be mistaken for something else."""
    if (
        not isinstance(name, str)
        or not repo.history.is_branch_name(name)
        or name in ("HEAD", "latest", "best")
        or "@" in name
        or "#" in name
        or max(len(part.encode()) for part in name.split("/")) > _MAX_NAME
    ):
        raise UsageError(
            f"'{printable(str(name))}' cannot be the name of a branch",
            why="git, the revisions of ckptvcs (BRANCH@latest, TRACK#STAGE) or a file system would not understand it",
            next_step="use letters, digits, '-', '_', '.' and '/'",
        )


def find_place(
    repo: Repository,
    target: Target,
    *,
    code: CommitId | None,
    start: CommitId | None,
    merged: tuple[CommitId, ...] = (),
) -> Place:
    """Decide parents and tree of a commit to a branch.

    Args:
        repo: the repository.
        target: the branch.
        code: the commit of the code that made the state.
        start: where the branch begins if it does not exist yet.
        merged: the commits that a merge is of: its first parents. Its tree is still that of the branch, as git has it.
    """
    place = _place(repo, target, code, start)
    if not merged:
        return place
    others = dict.fromkeys(parent for parent in place.parents if parent not in merged)
    behind = [p for p in others if not any(repo.history.is_ancestor(p, commit) for commit in merged)]
    unborn = target.checked_out and place.tip is None  # the index is empty, and would miss whatever the tree had
    return replace(place, parents=(*merged, *behind), base=None if unborn else place.base)


def _place(repo: Repository, target: Target, code: CommitId | None, start: CommitId | None) -> Place:
    history = repo.history
    tip = history.tip(target.ref)
    before = tip or start
    if before is None:
        return Place(tip=None, base=None, parents=(), carried={})
    if code is None or history.same_outside(before, code, repo.git_path(repo.basics.directory)):
        return Place(tip=tip, base=before, parents=(before,), carried={})
    parents = (before,) if history.is_ancestor(code, before) else (before, code)
    carried = {
        path: history.blob(blob, limit=_MAX_POINTER)
        for path, blob in history.files(before, (".dvc", ".json", ".gitignore"))
        if repo.is_ours(path)
    }
    return Place(tip=tip, base=code, parents=parents, carried=carried)
