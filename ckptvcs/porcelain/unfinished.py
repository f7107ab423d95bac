"""Pushes of this clone that are under way or died: where their leases are, and what they did not acknowledge.

Each has a note and a lock in `.git/ckptvcs/leases`. The kernel lets go of the lock when the process ends, however it does; a
note without a holder is what is left to be done. Looking for one costs no request.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from ckptvcs.errors import LockHeld, StorageError, from_os_error
from ckptvcs.storage import files
from ckptvcs.storage.files import Lock
from ckptvcs.storage.history.repository import CommitId

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from ckptvcs.porcelain.repo import Repository

_FRESH_S: Final = 60.0
"""A lock without a note that is younger may be of a process that has not written it yet."""


class _Note(msgspec.Struct, frozen=True):
    remote: str
    leases: tuple[str, ...]
    tips: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What a push left that died, or that could not be sure of its objects."""

    note: Path
    remote: str
    leases: tuple[str, ...]
    """Paths of its leases in the store."""
    tips: tuple[CommitId, ...]
    """Commits whose checkpoints have to be looked at again; none if no ref can have moved."""

    def forget(self) -> None:
        """It is done."""
        _forget(self.note)


def left_behind(repo: Repository, remotes: Collection[str | None]) -> tuple[Left, ...]:
    """What pushes of this clone to these remotes left, of which none is running any more; changes nothing."""
    found = []
    for note in sorted((repo.private / "leases").glob("*.json")):
        try:
            with Lock(note.with_suffix(".lock"), timeout_s=0):
                said = msgspec.json.decode(note.read_bytes(), type=_Note)
        except (LockHeld, StorageError, OSError, ValueError):  # it is running, or was done just now, or says nothing
            continue
        if said.remote in remotes:
            tips = tuple(map(CommitId, said.tips))
            found.append(Left(note=note, remote=said.remote, leases=said.leases, tips=tips))
    return tuple(found)


class Unfinished:
    """The record of one push to one remote, while it runs.

    Args:
        repo: the repository.
        remote: the name of the remote.

    Raises:
        StorageError: the disk is full, read-only or failing.
    """

    def __init__(self, repo: Repository, remote: str) -> None:
        self._remote = remote
        self._folder = repo.private / "leases"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise from_os_error(err, doing=f"write '{self._folder}'") from err
        self._note = self._folder / f"{secrets.token_hex(8)}.json"
        self._lock = Lock(self._note.with_suffix(".lock"), timeout_s=repo.lock_wait_s)
        self._lock.__enter__()

    def write(self, leases: Sequence[str], tips: Sequence[CommitId]) -> None:
        """Write down what there is to be done if this process dies, durably."""
        note = _Note(remote=self._remote, leases=tuple(leases), tips=tuple(tips))
        files.write_atomic(self._note, msgspec.json.encode(note))

    def forget(self, now: float) -> None:
        """All is done. What is left of others without a word is swept as well."""
        _forget(self._note)
        files.sweep_temporaries(self._folder, now)
        for lock in _silent(self._folder, now):
            lock.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go; what was not forgotten is left to the next push."""
        self._lock.__exit__()


def _forget(note: Path) -> None:
    note.unlink(missing_ok=True)  # first: a lock without a note means nothing
    note.with_suffix(".lock").unlink(missing_ok=True)


def _silent(folder: Path, now: float) -> Iterator[Path]:
    for lock in folder.glob("*.lock"):
        try:
            if not lock.with_suffix(".json").exists() and now - lock.stat().st_mtime > _FRESH_S:
                with Lock(lock, timeout_s=0):
                    yield lock
        except (LockHeld, StorageError, OSError):  # it is somebody's, or gone
            continue
