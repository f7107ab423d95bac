"""Branches as git remotes have them, as they were last fetched; and going on here with one that is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckptvcs.porcelain.following import locked
from ckptvcs.storage.history import commits
from ckptvcs.storage.history.repository import HEADS, CommitId

if TYPE_CHECKING:
    from ckptvcs.porcelain.repo import Repository

_REMOTES = "refs/remotes/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracked:
    """A branch of a git remote."""

    name: str
    """Such as `origin/main`."""
    commit: CommitId


def tracked(repo: Repository, branch: str) -> Tracked | None:
    """The branch of that name at the git remotes, as it was last fetched; None if none of them has it, or they differ."""
    names = [remote.name for remote in repo.history.repo.remotes if remote.name]
    found = [
        Tracked(name=f"{name}/{branch}", commit=tip)
        for name in names
        if (tip := repo.history.tip(f"{_REMOTES}{name}/{branch}")) is not None
    ]
    return found[0] if len({one.commit for one in found}) == 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """What became of a branch that a git remote has, too."""

    at: Tracked
    moved: bool
    """Whether it begins here, or goes on, where it is there; else it has commits of its own, or is checked out."""


def adopt(repo: Repository, branch: str) -> Adoption | None:
    """Let a branch begin here, or go on, where a git remote has it; nothing is fetched. A branch that is checked out stays.

    Args:
        repo: the repository.
        branch: its name, here and there.

    Returns:
        None if there is nothing there that is not here.

    Raises:
        RefMoved, LockHeld: another process is at it.
    """
    there, here = tracked(repo, branch), repo.history.tip(HEADS + branch)
    if there is None or (here is not None and _holds(repo, here, there.commit)):
        return None
    if here is None:
        stays = repo.history.head_branch() == branch
    else:
        stays = repo.history.is_checked_out(branch) or not repo.history.is_ancestor(here, there.commit)
    if not stays:
        with locked(repo) as lock:
            reason = f"branch: from {there.name}"
            commits.move_ref(repo.history, HEADS + branch, old=here, new=there.commit, reason=reason, lock=lock)
    return Adoption(at=there, moved=not stays)


def _holds(repo: Repository, here: CommitId, there: CommitId) -> bool:
    return here == there or repo.history.is_ancestor(there, here)
