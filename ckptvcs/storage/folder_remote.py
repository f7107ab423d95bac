"""A remote on a local path, which may be a network share."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from ckptvcs.progress import silent
from ckptvcs.storage import copies
from ckptvcs.storage.filesystems import STALE_S
from ckptvcs.storage.ingest import NewObject
from ckptvcs.storage.remotes import THROWAWAY, Probe, missing_there
from ckptvcs.storage.removal import FolderRemoval
from ckptvcs.storage.sidefiles import FolderSide

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ckptvcs.progress import Progress
    from ckptvcs.storage.names import ObjectName, ObjectRef
    from ckptvcs.storage.objects import LocalStore
    from ckptvcs.storage.removal import Removal
    from ckptvcs.storage.sidefiles import SideFiles
    from ckptvcs.storage.verified import VerifiedStore


class FolderRemote:
    """A remote on a local path.

    Args:
        name: of the remote.
        store: its objects.
    """

    def __init__(self, name: str, store: LocalStore) -> None:
        self.name = name
        self._store = store

    def sizes(self, names: Collection[ObjectName]) -> dict[ObjectName, int]:
        return {name: size for name in names if (size := self._store.nbytes(name)) is not None}

    def upload(self, refs: Sequence[ObjectRef], source: VerifiedStore, progress: Progress) -> None:
        copies.copy(refs, source, self._store, progress)
        for ref in refs[-1:]:  # by the clock of the store: it was written a moment ago
            self._store.sweep(self._store.path(ref.name).stat().st_mtime - STALE_S)

    def replace(self, ref: ObjectRef, source: VerifiedStore) -> None:
        self.upload([ref], source, silent)  # a local store reads what it meets, and puts it aside

    def read(self, name: ObjectName, start: int, end: int) -> bytes:
        if self._store.nbytes(name) is None:
            raise missing_there(name, self.name)
        with self._store.open(name) as file:
            file.seek(start)
            return file.read(end - start)

    def is_empty(self) -> bool:
        return next(iter(self._store.names()), None) is None

    def probe(self, now: float) -> Probe:
        data = THROWAWAY + secrets.token_bytes(16)  # somebody else may be trying it right now
        ref = self._store.put([NewObject(lambda: [data], len(data))])[0]
        path = self._store.path(ref.name)
        clock_s = path.stat().st_mtime - now
        ranges = self.read(ref.name, 1, 3) == THROWAWAY[1:3]
        self._store.delete(ref.name)
        return Probe(ranges=ranges, listing=True, exclusive=True, clock_s=clock_s)

    def side_files(self) -> SideFiles:
        return FolderSide(self.name, self._store.root.parents[1])

    def removal(self) -> Removal:
        return FolderRemoval(self._store)
