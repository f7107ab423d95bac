"""A checkpoint that is to be used is brought here: what of it is missing or damaged is fetched from wherever it is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ckptvcs.errors import CkptvcsError, IntegrityError, MissingObject, NotFound, StorageError, UsageError, WrongDigest
from ckptvcs.porcelain import account, fetch, gone
from ckptvcs.porcelain.describe import ref_of
from ckptvcs.storage.files import Lock

if TYPE_CHECKING:
    from collections.abc import Callable

    from ckptvcs.domain.checkpoint import Checkpoint
    from ckptvcs.porcelain.repo import Repository

_OTHERS_S: Final = 3600.0
"""How long to wait for another process of this machine that is fetching, perhaps the same."""


def bring(repo: Repository, checkpoint: Checkpoint, tell: Callable[[int, int], None]) -> None:
    """Make sure that a checkpoint is here and whole; what is not is fetched.

    Args:
        repo: the repository.
        checkpoint: the checkpoint.
        tell: told how many objects are fetched, and how many bytes, before they are.

    Raises:
        MissingObject, WrongDigest: it is nowhere, or damaged everywhere.
        StorageError: it may be elsewhere, and no remote answers.
    """
    (checkpoint,) = account.with_late(repo, checkpoint)
    gone.refuse_gone(repo, checkpoint)
    refs = [ref_of(file) for file in checkpoint.remaining_files()]
    try:
        repo.objects.check(refs)
    except IntegrityError as problem:
        repo.private.mkdir(exist_ok=True)
        with Lock(repo.private / "bring.lock", timeout_s=_OTHERS_S):
            _fetch(repo, checkpoint, problem, tell)
        repo.objects.check(refs)


def _fetch(repo: Repository, checkpoint: Checkpoint, problem: IntegrityError, tell: Callable[[int, int], None]) -> None:
    plan = fetch.plan_objects(repo, checkpoint.commit, track=checkpoint.manifest.track)
    if plan.missing:
        tell(len(plan.missing), plan.nbytes)
    try:
        fetch.fetch_objects(repo, plan)
    except WrongDigest:  # that is what is to be known
        raise
    except (IntegrityError, UsageError, NotFound):  # no remote has it, or there is none
        raise problem from None
    except StorageError as err:
        if not isinstance(problem, MissingObject):
            raise problem from err  # it is damaged, here; an older one may do
        raise _unreachable(checkpoint, err) from err


def _unreachable(checkpoint: Checkpoint, err: CkptvcsError) -> StorageError:
    return StorageError(
        f"cannot go on from step {checkpoint.manifest.step} ({checkpoint.id[:10]})",
        why=f"not all of it is here, and it cannot be fetched: {err}",
        next_step=f"run 'ckpt pull {checkpoint.id[:10]}' when the remote answers; or name an older checkpoint to go on from",
    )
