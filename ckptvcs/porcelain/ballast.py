"""A file that is there to be removed: a sweep tells the ledger first, and on a full disk that would need room."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar

from ckptvcs.errors import TierFull

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ckptvcs.porcelain.repo import Repository

T = TypeVar("T")

_NBYTES: Final = 1 << 20


def _path(repo: Repository) -> Path:
    return repo.private / "ballast"


def fill(repo: Repository) -> None:
    """Make it, where there is room."""
    path = _path(repo)
    with suppress(OSError):
        if not path.exists() or path.stat().st_size != _NBYTES:
            path.write_bytes(os.urandom(_NBYTES))  # what a file system cannot make smaller


def despite_full(repo: Repository, action: Callable[[], T]) -> T:
    """Do something that needs a little room, and make room for it where there is none.

    Raises:
        TierFull: that was not enough.
    """
    try:
        return action()
    except TierFull:
        _drop(repo)
        return action()


def _drop(repo: Repository) -> None:
    """Make room; and, should it not be there, by what is nothing but a hint."""
    for path in (_path(repo), repo.private / "ledger.json", repo.private / "config.json"):
        with suppress(OSError):
            path.unlink()
    repo.index.discard()
