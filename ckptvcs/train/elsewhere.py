"""What a run has elsewhere: its branch as it was last fetched, and objects that only a remote has.

A machine that died is replaced by a new clone, and training goes on there; what is not here yet is no damage.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ckptvcs.errors import RefMoved
from ckptvcs.porcelain import bringing, tracked

if TYPE_CHECKING:
    from ckptvcs.domain.checkpoint import Checkpoint
    from ckptvcs.porcelain.repo import Repository

_log = logging.getLogger("ckptvcs")


def follow(repo: Repository, branch: str) -> None:
    """Let the branch of a run begin, or go on, where a git remote has it."""
    try:
        found = tracked.adopt(repo, branch)
    except RefMoved:  # another rank was first
        return
    if found is None:
        return
    if found.moved:
        _log.info("branch '%s' goes on where '%s' is", branch, found.at.name)
    else:
        _log.warning(
            "branch '%s' has checkpoints at '%s' that are not here: what is saved from now on goes beside them, and cannot be "
            "pushed under that name; to go on from there instead, stop and rename yours: git branch -m %s %s-mine",
            branch,
            found.at.name,
            branch,
            branch,
        )


def bring(repo: Repository, checkpoint: Checkpoint) -> None:
    """Make sure that a checkpoint is here and whole; see `bringing.bring`."""

    def tell(count: int, nbytes: int) -> None:
        _log.info("fetching %d objects of checkpoint %s, %d bytes", count, checkpoint.id[:10], nbytes)

    bringing.bring(repo, checkpoint, tell)
