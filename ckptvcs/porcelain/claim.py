"""A branch that a training commits to belongs to one process of this machine: two trainings would become one line."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from ckptvcs.errors import LockHeld
from ckptvcs.storage import claims

if TYPE_CHECKING:
    from pathlib import Path

    from ckptvcs.porcelain.repo import Repository


def claim_branch(repo: Repository, branch: str, *, run: str, wait_s: float) -> None:
    """Keep the trainings of other processes from committing to a branch.

    Args:
        repo: the repository.
        branch: the branch.
        run: the training, for the error.
        wait_s: how long another one may take to end.

    Raises:
        LockHeld: another process trains there.
    """
    path = _path(repo, branch)
    path.parent.mkdir(parents=True, exist_ok=True)
    other = claims.claim(path, wait_s=wait_s)
    if other is not None:
        raise LockHeld(
            f"cannot save run '{run}'",
            why=f"process {other or '(unknown)'} trains it right now, on branch '{branch}'",
            next_step="give this training another run name, or wait until that one has ended",
        )


def release_branch(repo: Repository, branch: str) -> None:
    """Give a branch up that was claimed."""
    claims.release(_path(repo, branch))


def _path(repo: Repository, branch: str) -> Path:
    return repo.private / "runs" / quote(branch, safe="")
