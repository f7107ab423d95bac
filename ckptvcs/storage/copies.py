"""Objects from one local folder to another: read once, held against their BLAKE3 on the way, durable before they have a name.

Small objects go in batches: all of a batch are written to a folder that nobody else looks at, made durable together, and
then given their names. What a kill leaves is that folder, which a later sweep removes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from ckptvcs.errors import from_os_error
from ckptvcs.storage import durability, files
from ckptvcs.storage.ingest import NewObject
from ckptvcs.storage.names import DIR_SUFFIX
from ckptvcs.storage.objects import OBJECT_MODE
from ckptvcs.storage.verified import verified_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ckptvcs.progress import Progress
    from ckptvcs.storage.names import ObjectRef
    from ckptvcs.storage.objects import LocalStore
    from ckptvcs.storage.verified import VerifiedStore

_SMALL: Final = 1 << 20
"""Bytes; bigger objects are hashed while they are written, and one more sync is nothing to them."""
_BATCH_BYTES: Final = 128 << 20
"""What a batch holds at most: what a kill undoes, and what waits to be written to disk at once."""
_SLICE: Final = 64
"""Objects that a thread takes at once."""
_FEW: Final = 16
"""So many objects and fewer are made durable one by one: others may have much to write to the same disk."""


def copy(refs: Sequence[ObjectRef], source: VerifiedStore, to: LocalStore, progress: Progress) -> None:
    """Store objects that another store has; all of them or an error. Lists of files go last: they say that the rest is there.

    Args:
        refs: the objects.
        source: has them.
        to: gets them.
        progress: told about bytes as they are written.

    Raises:
        MissingObject, WrongDigest: the source has not all of them, or one of them damaged.
        StorageError: the disk is full, read-only or failing. Objects that were already stored stay.
    """
    for last in (False, True):
        some = [ref for ref in refs if ref.name.endswith(DIR_SUFFIX) is last]
        big = [ref for ref in some if ref.nbytes > _SMALL]
        source.check(big)
        to.put([_new(ref, source.store) for ref in big], progress)
        for batch in _batches([ref for ref in some if ref.nbytes <= _SMALL]):
            try:
                _copy_batch(batch, source.store, to, progress)
            except OSError as err:
                raise from_os_error(err, doing=f"write objects to '{to.root}'") from err


def _new(ref: ObjectRef, source: LocalStore) -> NewObject:
    suffix = DIR_SUFFIX if ref.name.endswith(DIR_SUFFIX) else ""
    return NewObject(lambda: source.read(ref.name), ref.nbytes, suffix, ref)


def _batches(refs: Sequence[ObjectRef]) -> Iterator[list[ObjectRef]]:
    batch: list[ObjectRef] = []
    nbytes = 0
    for ref in refs:
        if batch and nbytes + ref.nbytes > _BATCH_BYTES:
            yield batch
            batch, nbytes = [], 0
        batch.append(ref)
        nbytes += ref.nbytes
    if batch:
        yield batch


def _copy_batch(refs: list[ObjectRef], source: LocalStore, to: LocalStore, progress: Progress) -> None:
    to.root.mkdir(parents=True, exist_ok=True)
    with to.enter() as root, _own_folder(root) as folder:
        at_once = len(refs) > _FEW and durability.syncs_at_once(root)

        def write(some: list[ObjectRef]) -> None:
            for ref in some:
                _write(folder, ref.name, verified_bytes(source, ref, limit=_SMALL), durable=not at_once)
            progress(sum(ref.nbytes for ref in some))

        slices = [refs[at : at + _SLICE] for at in range(0, len(refs), _SLICE)]
        with ThreadPoolExecutor(os.cpu_count() or 1, "ckptvcs-copy") as pool:
            list(pool.map(write, slices))
        if at_once:
            durability.sync_all(root)
        to.adopt(refs, folder)
        if at_once:
            durability.sync_all(root)
        else:
            to.sync_names(refs)


@contextlib.contextmanager
def _own_folder(root: int) -> Iterator[int]:
    """A new folder in an open one, locked, which says to `files.sweep_temporaries` that someone is at it."""
    name = files.tmp_name()
    os.mkdir(name, 0o700, dir_fd=root)
    try:
        with files.open_folder(name, root) as folder:
            with contextlib.suppress(OSError):  # a network share may lock no folders; there it has a day
                fcntl.flock(folder, fcntl.LOCK_EX)
            yield folder
    finally:
        with contextlib.suppress(OSError):  # the first error is on its way already
            files.remove_tree(root, name)


def _write(folder: int, name: str, data: bytes, *, durable: bool) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        files.write_all(fd, data)
        os.fchmod(fd, OBJECT_MODE)
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)
