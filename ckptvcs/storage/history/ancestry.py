"""Where lines of history come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckptvcs.storage.history.repository import CommitId, History, git_errors

if TYPE_CHECKING:
    from collections.abc import Sequence


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
