"""Objects that were read and found to be what their manifest says.

Presence is not health: DVC's own check looks at a file's mode, this one at its bytes. A file that did not change since it
was last read is not read again.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from ckptvcs.digest import Digest, digest, hasher
from ckptvcs.errors import IntegrityError, from_os_error
from ckptvcs.progress import Progress, silent
from ckptvcs.storage.names import ObjectName, ObjectRef
from ckptvcs.storage.objects import LocalStore, check_digest, missing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ckptvcs.storage.index import LocalIndex

_PIECE = 1 << 20


class VerifiedStore:
    """A local store whose objects are read with the index at hand.

    Args:
        store: the hot tier.
        index: what is known of its files.
    """

    def __init__(self, store: LocalStore, index: LocalIndex) -> None:
        self.store = store
        self.index = index

    def note(self, refs: Iterable[ObjectRef]) -> None:
        """Remember that these objects are whole: they were just written or read.

        Raises:
            MissingObject: one is gone: somebody else removed it right now.
        """
        self.index.saw([(str(self.store.path(ref.name)), self._lstat(ref), ref) for ref in refs])

    def _lstat(self, ref: ObjectRef) -> os.stat_result:
        try:
            return os.lstat(self.store.path(ref.name))
        except FileNotFoundError as err:
            raise missing(ref.name, str(self.store.root)) from err
        except OSError as err:
            raise from_os_error(err, doing=f"look at object {ref.name[:10]}") from err

    def is_known(self, ref: ObjectRef) -> bool:
        """Whether an object is here and known to be whole without reading it.

        Raises:
            MissingObject: it is not here.
            WrongDigest: it is known to be something else.
        """
        path, info = self.store.path(ref.name), self._lstat(ref)
        known = self.index.ref_of(str(path), info)
        if known is None or info.st_size != ref.nbytes:
            return False
        check_digest(known.digest, ref, where=str(path))
        return True

    def is_sound(self, ref: ObjectRef) -> bool:
        """Whether an object is here, and whole as far as can be told cheaply: it is read if it changed since it last was."""
        path = self.store.path(ref.name)
        try:
            info = os.lstat(path)
        except OSError:
            return False
        if info.st_size != ref.nbytes:
            return False
        return not self.index.is_stale(str(path), info) or self.is_healthy(ref)

    def is_healthy(self, ref: ObjectRef) -> bool:
        """Whether an object is here and its bytes are right."""
        try:
            self.check([ref])
        except IntegrityError:
            return False
        return True

    def check(self, refs: Iterable[ObjectRef], progress: Progress = silent) -> None:
        """Make sure that objects are here and whole, reading those of which that is not known.

        Args:
            refs: the objects.
            progress: told about bytes that are done with.

        Raises:
            MissingObject: one is not here.
            WrongDigest: one is damaged; it is left as it is.
        """
        distinct = {ref.name: ref for ref in refs}.values()
        unknown = [ref for ref in distinct if not self.is_known(ref)]
        progress(sum(ref.nbytes for ref in distinct) - sum(ref.nbytes for ref in unknown))
        if unknown:
            self._read(unknown, progress)

    def _read(self, refs: list[ObjectRef], progress: Progress) -> None:
        whole: list[ObjectRef] = []

        def look(ref: ObjectRef) -> ObjectRef:
            check_digest(self.store.digest(ref.name), ref, where=str(self.store.path(ref.name)))
            progress(ref.nbytes)
            return ref

        try:
            with ThreadPoolExecutor(os.cpu_count() or 1, "ckptvcs-verify") as pool:
                whole.extend(pool.map(look, refs))
        finally:
            self.note(ref for ref in whole if self.store.nbytes(ref.name) is not None)


def identify(path: str, *, dir_fd: int | None = None) -> ObjectRef:
    """Hash a file that may be anything: the object that it would be. Links are not followed.

    Raises:
        OSError: it cannot be read.
    """
    md5, blake3, nbytes = hashlib.md5(usedforsecurity=False), hasher(), 0
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    with open(fd, "rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            md5.update(piece)
            blake3.update(piece)
            nbytes += len(piece)
    return ObjectRef(name=ObjectName(md5.hexdigest()), nbytes=nbytes, digest=Digest(blake3.hexdigest()))


def verified_bytes(store: LocalStore, ref: ObjectRef, *, limit: int) -> bytes:
    """The bytes of a small object, read once and checked.

    Raises:
        StorageError, IntegrityError: it is not here, damaged, or larger than `limit`.
    """
    with store.open(ref.name) as file:
        data = file.read(min(ref.nbytes, limit) + 1)
    found = digest(data)
    if found != ref.digest:
        check_digest(found, ref, where=str(store.path(ref.name)))
    return data
