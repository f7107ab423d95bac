"""What is given out: the ledger is told of a restore before the first byte of it leaves the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ckptvcs.domain import recorded
from ckptvcs.errors import CkptvcsError
from ckptvcs.porcelain import ledger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ckptvcs.domain.checkpoint import Checkpoint
    from ckptvcs.porcelain.repo import Repository
    from ckptvcs.storage.files import Lock

LOAD: Final = "load"


def tell(
    repo: Repository,
    checkpoints: Sequence[Checkpoint],
    *,
    by: str,
    components: Sequence[str] = (),
    lock: Lock | None = None,
) -> tuple[str, ...]:
    """Tell the ledger that checkpoints are about to be given out, as the section `audit` of ckpt.yaml asks for.

    Args:
        repo: the repository.
        checkpoints: which.
        by: the verb: `checkout`, `restore`, `export`, `load`.
        components: those that are given; all of them if there are none.
        lock: the lock of the repository, if it is held.

    Returns:
        What the user should know: that it could not be told. Who may only read a repository can still restore from it.

    Raises:
        CkptvcsError: it could not be told, and ckpt.yaml requires it.
    """
    audit = repo.config.audit
    if not checkpoints or audit.restores == "off" or (by == LOAD and not audit.loads):
        return ()
    facts = [{"checkpoint": c.id, "by": by, "components": list(components)} for c in checkpoints]
    try:
        ledger.append_all(repo, [(ledger.RESTORE, fact) for fact in facts], lock=lock)
    except CkptvcsError as err:
        if audit.restores == "require":
            raise
        return (f"the ledger does not know of this {by}: {err.what}: {err.why}",)
    return ()


def took(
    repo: Repository, checkpoints: Sequence[Checkpoint], *, by: str, seconds: float, lock: Lock | None = None
) -> tuple[str, ...]:
    """Tell the ledger how long it took until checkpoints were given out, where ckpt.yaml wants to be told if it is too long.

    Args:
        repo: the repository.
        checkpoints: which.
        by: the verb.
        seconds: from when it began to read until all of it was there.
        lock: the lock of the repository, if it is held.

    Returns:
        What the user should know: that it could not be told.
    """
    wanted = repo.config.alerts
    if not checkpoints or repo.config.audit.restores == "off" or wanted is None or wanted.restore_within is None:
        return ()
    facts = [
        {"checkpoint": c.id, "by": by, "seconds": round(seconds, 3), "bytes": c.manifest.nbytes} for c in checkpoints
    ]
    try:
        ledger.append_all(repo, [(recorded.RESTORED, fact) for fact in facts], lock=lock)
    except CkptvcsError as err:
        return (f"the ledger does not know how long this {by} took: {err.what}: {err.why}",)
    return ()
