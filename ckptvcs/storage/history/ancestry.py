"""Where lines of history come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pygit2.enums import ObjectType, SortMode

from ckptvcs.storage.history.repository import Commit, CommitId, History, as_commit, git_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def common_ancestor(history: History, commits: Sequence[CommitId]) -> CommitId | None:
    """The best common ancestor of all these commits, as `git merge-base --octopus` finds it; None if there is none.

    It may be one of them.
    """
    with git_errors("look for a common ancestor"):
        try:
            found: object | None = history.repo.merge_base_octopus([str(commit) for commit in commits])
        except KeyError:
            return None
        return CommitId(str(found)) if found else None


def between(history: History, tips: Sequence[CommitId], known: Sequence[CommitId]) -> Iterator[Commit]:
    """Commits that can be reached from `tips` and not from `known`, children before their parents, newest first.

    Args:
        history: the repository.
        tips: where to begin.
        known: where to stop; what is no commit here says nothing of commits that are.
    """
    with git_errors("walk the history"):
        walker = history.repo.walk(None, SortMode.TOPOLOGICAL | SortMode.TIME)
        for tip in tips:
            walker.push(tip)
        for oid in set(known):
            if (found := commit_behind(history, oid)) is not None:
                walker.hide(found)
        for each in walker:
            yield as_commit(each)


def commit_behind(history: History, oid: str) -> CommitId | None:
    """The commit that a git object is, or, of an annotated tag, stands for; None if it is not here, or is something else."""
    try:
        return CommitId(str(history.repo[oid].peel(ObjectType.COMMIT).id))
    except (ValueError, KeyError):
        return None


def target(history: History, ref: str) -> str:
    """The git object that a ref names itself: of an annotated tag, the tag."""
    with git_errors(f"read '{ref}'"):
        return str(history.repo.references[ref].resolve().target)


def first(history: History, tip: CommitId) -> CommitId:
    """The commit that a history began with: along the first parents."""
    with git_errors("look for the first commit"):
        walker = history.repo.walk(tip)
        walker.simplify_first_parent()
        last = tip
        for each in walker:
            last = CommitId(str(each.id))
        return last
