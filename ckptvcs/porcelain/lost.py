"""Commits that no ref and no reflog leads to any more, as those of a branch that was deleted: nobody needs what they alone hold.

A commit that is being made, or fetched, is such a one for a moment. So one counts when it was seen to be one a day ago already.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from ckptvcs.domain import remote_files
from ckptvcs.errors import StorageError
from ckptvcs.porcelain import inventory
from ckptvcs.storage.history import blobs, recovery

if TYPE_CHECKING:
    from pathlib import Path

    from ckptvcs.porcelain.inventory import Inventory
    from ckptvcs.porcelain.repo import Repository


def add(repo: Repository, found: Inventory) -> set[str]:
    """Let an inventory know what lost commits hold, those that are so for a day.

    Args:
        repo: the repository.
        found: everything that can be reached.

    Returns:
        Every commit that is lost now.
    """
    commits = blobs.all_commits(repo.history.root, repo.around.variables)
    lost = {commit for commit in commits - recovery.own(repo.history) if commit not in found.parents}
    since, now = _noted(_file(repo)), repo.now().timestamp()
    old = sorted(commit for commit in lost if now - since.get(commit, now) >= remote_files.GRACE_S)
    try:
        inventory.take(repo.history, repo.around.variables, old, onto=found)
    except StorageError:  # git has pruned some of what is behind one of them: the others are looked at one by one
        for commit in old:
            with suppress(StorageError):
                inventory.take(repo.history, repo.around.variables, [commit], onto=found)
    return lost


def note(repo: Repository, lost: set[str]) -> None:
    """Remember since when commits are lost. That it cannot be only makes them wait longer."""
    known, now = _noted(_file(repo)), repo.now().timestamp()
    if lost != known.keys():
        with suppress(OSError):
            _file(repo).write_bytes(msgspec.json.encode({commit: known.get(commit, now) for commit in sorted(lost)}))


def _file(repo: Repository) -> Path:
    return repo.private / "lost.json"


def _noted(path: Path) -> dict[str, float]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, float])
    except (OSError, ValueError):
        return {}
