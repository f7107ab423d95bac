"""Object stores: immutable bytes under the name that DVC computes from them (MD5), vouched for by their BLAKE3.

`LocalStore` is DVC's cache layout (`xx/yyyy`, mode 0444) written with the care that DVC leaves out: every object is
fsynced before it has a name, a name is never overwritten, and an object that is already there is read before it is
believed. `MemoryStore` is the same contract in a dict; the tests hold every store against it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from typing import TYPE_CHECKING, Final, Protocol

from ckptvcs.digest import Digest, digest_of_parts, short
from ckptvcs.errors import IntegrityError, MissingObject, WrongDigest, from_os_error
from ckptvcs.progress import Progress, silent
from ckptvcs.storage import files
from ckptvcs.storage.ingest import NewObject, Written, ingest, other_size
from ckptvcs.storage.names import ObjectName, ObjectRef, is_object_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from io import FileIO
    from pathlib import Path

OBJECT_MODE: Final = 0o444
"""DVC believes an object of exactly this mode without reading it, so nothing may have it before it is complete."""

_PIECE: Final = 1 << 20


class ObjectStore(Protocol):
    """Objects by name.

    Guarantees: when `put` returns, the objects are durable and complete, and each hashes to its name and its digest. An
    object never changes; putting it again is cheap and heals a damaged one. A crash leaves no partial object under a
    name. `read` and `nbytes` never change anything.
    """

    def put(self, objects: Sequence[NewObject], progress: Progress = silent) -> list[ObjectRef]:
        """Store objects, in parallel; all of them or an error. `progress` is told about bytes as they are written."""

    def read(self, name: ObjectName) -> Iterator[bytes]:
        """The bytes of an object, in pieces; raises `MissingObject`."""

    def nbytes(self, name: ObjectName) -> int | None:
        """The size of an object, or None if it is not here."""

    def names(self) -> Iterator[ObjectName]:
        """Every object that is here, in no order."""

    def delete(self, name: ObjectName) -> None:
        """Remove an object; no error if it is not here."""


class MemoryStore:
    """An object store in a dict: the oracle of the tests."""

    def __init__(self) -> None:
        self.objects: dict[ObjectName, bytes] = {}

    def put(self, objects: Sequence[NewObject], progress: Progress = silent) -> list[ObjectRef]:
        refs = [self._put(b"".join(bytes(c) for c in new.chunks()), new) for new in objects]
        progress(sum(new.nbytes for new in objects))
        return refs

    def _put(self, data: bytes, new: NewObject) -> ObjectRef:
        if len(data) != new.nbytes:
            raise other_size(len(data), new)
        name = ObjectName(hashlib.md5(data, usedforsecurity=False).hexdigest() + new.suffix)
        self.objects[name] = data
        return ObjectRef(name=name, nbytes=len(data), digest=digest_of_parts([data]))

    def read(self, name: ObjectName) -> Iterator[bytes]:
        if name not in self.objects:
            raise missing(name, "memory")
        yield self.objects[name]

    def nbytes(self, name: ObjectName) -> int | None:
        return len(self.objects[name]) if name in self.objects else None

    def names(self) -> Iterator[ObjectName]:
        return iter(list(self.objects))

    def delete(self, name: ObjectName) -> None:
        self.objects.pop(name, None)


class LocalStore:
    """Objects in DVC's layout in a local folder: `files/md5` of a cache or of a local remote.

    Args:
        root: the `files/md5` folder; made when the first object is put.
        group: DVC's `cache.shared = group`: folders are writable for the group.
    """

    def __init__(self, root: Path, *, group: bool = False) -> None:
        self.root = root
        self._folder_mode = 0o2775 if group else 0o777

    # ---- reading

    def path(self, name: ObjectName) -> Path:
        """Where an object lies, or would lie."""
        return self.root / name[:2] / name[2:]

    def _place(self, name: ObjectName) -> str:
        return f"{self.root}/{name[:2]}/{name[2:]}"  # a Path takes longer than to look at the file

    def nbytes(self, name: ObjectName) -> int | None:
        try:
            info = os.lstat(self._place(name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as err:
            raise from_os_error(err, doing=f"look at object {short(name)}") from err
        return info.st_size if stat.S_ISREG(info.st_mode) else None

    def read(self, name: ObjectName) -> Iterator[bytes]:
        with self.open(name) as file:
            while piece := file.read(_PIECE):
                yield piece

    @contextlib.contextmanager
    def open(self, name: ObjectName) -> Iterator[FileIO]:
        """An object as an open file, unbuffered.

        Raises:
            MissingObject: it is not here.
        """
        try:
            with open(self._place(name), "rb", buffering=0) as file:
                yield file
        except FileNotFoundError as err:
            raise missing(name, "the cache") from err
        except OSError as err:
            raise from_os_error(err, doing=f"read object {short(name)}") from err

    def names(self) -> Iterator[ObjectName]:
        for folder in sorted(self.root.glob("[0-9a-f][0-9a-f]")):
            for entry in os.scandir(folder):
                if is_object_name(folder.name + entry.name):
                    yield ObjectName(folder.name + entry.name)

    def digest(self, name: ObjectName) -> Digest:
        """Read an object and hash it."""
        return digest_of_parts(self.read(name))

    # ---- writing

    def put(self, objects: Sequence[NewObject], progress: Progress = silent) -> list[ObjectRef]:
        """Store objects: hashed once, while they are written.

        Raises:
            StorageError: the disk is full, read-only or failing. Objects that were already stored stay.
            IntegrityError: another object has the same MD5; both are kept from harm, nothing is overwritten.
        """
        if not objects:
            return []
        try:
            self._make_folder(self.root)
            refs: list[ObjectRef] = ingest(
                objects, folder=self.root, mode=OBJECT_MODE, publish=self._publish, progress=progress
            )
            self.sync_names(refs)
        except OSError as err:
            raise from_os_error(err, doing=f"write objects to '{self.root}'") from err
        return refs

    def sweep(self, now: float) -> None:
        """Remove what processes that died while they put left behind; `now` in seconds since the epoch."""
        files.sweep_temporaries(self.root, now)

    def _publish(self, tmp: str, new: NewObject, written: Written) -> ObjectRef:
        """Give a complete file its name, without ever overwriting one."""
        ref = ObjectRef(name=ObjectName(written.md5 + new.suffix), nbytes=written.nbytes, digest=written.digest)
        if new.ref is not None and new.ref != ref:
            raise wrong_bytes(new.ref, ref)
        self._make_folder(self.path(ref.name).parent)
        with self.enter(ref.name[:2]) as folder:
            self._give_name(tmp, folder, ref)
        return ref

    def adopt(self, refs: Sequence[ObjectRef], folder: int) -> None:
        """Give files their names, which are complete, durable and known to be these objects.

        Args:
            refs: the objects. The names are durable when the caller has synced the folders.
            folder: where they lie under their full names; open, in `root`.
        """
        for prefix, some in _by_folder(refs).items():
            with contextlib.suppress(FileExistsError):
                self._make(self.root / prefix)
            with self.enter(prefix) as to:
                for ref in some:
                    self._give_name(ref.name, to, ref, tmp_folder=folder)

    def sync_names(self, refs: Sequence[ObjectRef]) -> None:
        """Make the names of objects durable."""
        for prefix in _by_folder(refs):
            with self.enter(prefix) as fd:
                os.fsync(fd)
        files.fsync_dir(self.root)

    def _give_name(self, tmp: str, folder: int, ref: ObjectRef, tmp_folder: int | None = None) -> None:
        try:
            os.link(tmp, ref.name[2:], src_dir_fd=tmp_folder, dst_dir_fd=folder)
        except FileExistsError:
            self._meet(tmp, folder, ref, tmp_folder)
        except OSError as err:
            if err.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
                raise
            # No hard links on this file system. Renaming onto a name that appeared meanwhile is harmless: same bytes.
            if os.access(ref.name[2:], os.F_OK, dir_fd=folder, follow_symlinks=False):
                self._meet(tmp, folder, ref, tmp_folder)
            else:
                os.rename(tmp, ref.name[2:], src_dir_fd=tmp_folder, dst_dir_fd=folder)

    @contextlib.contextmanager
    def enter(self, folder: str = "") -> Iterator[int]:
        """A folder of names, or the root. That may be reached through a link, as who shares a cache has it; these are ours."""
        with contextlib.ExitStack() as stack:
            root = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, root)
            yield stack.enter_context(files.open_beneath(root, folder))

    def _meet(self, tmp: str, folder: int, ref: ObjectRef, tmp_folder: int | None) -> None:
        """An object of that name is there already: believe it only after reading it, replace it if it is damaged."""
        final = ref.name[2:]
        there = self.digest(ref.name)
        if there == ref.digest:
            mode = os.stat(final, dir_fd=folder, follow_symlinks=False).st_mode
            if stat.S_ISREG(mode) and stat.S_IMODE(mode) != OBJECT_MODE:
                os.chmod(final, OBJECT_MODE, dir_fd=folder)  # DVC would hash it again at every look
            return
        if self._md5(ref.name) == ref.name[:32]:
            raise IntegrityError(
                f"cannot store object {short(ref.name)}",
                why="another object has the same MD5: these bytes were made to collide",
                next_step="find out where they come from; do not trust them",
                digest=ref.digest,
                other=there,
            )
        # Never deleted: it may be evidence, and a person may know a use for it. DVC ignores names in this folder.
        with contextlib.suppress(FileExistsError):
            aside = self.root / f"{files.PREFIX}damaged-{ref.name}-{there[:8]}"
            os.link(final, aside, src_dir_fd=folder, follow_symlinks=False)
        os.rename(tmp, final, src_dir_fd=tmp_folder, dst_dir_fd=folder)

    def _md5(self, name: ObjectName) -> str:
        md5 = hashlib.md5(usedforsecurity=False)
        for piece in self.read(name):
            md5.update(piece)
        return md5.hexdigest()

    def _make_folder(self, folder: Path) -> None:
        if folder.is_dir():
            return
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            self._make(folder)
        files.fsync_dir(folder.parent)

    def _make(self, folder: Path) -> None:
        folder.mkdir(self._folder_mode)
        if self._folder_mode & stat.S_ISGID:
            folder.chmod(self._folder_mode)  # the umask took the group's right away

    def delete(self, name: ObjectName) -> None:
        try:
            with self.enter(name[:2]) as folder:
                os.unlink(name[2:], dir_fd=folder)
                os.fsync(folder)
        except FileNotFoundError:
            return
        except OSError as err:
            raise from_os_error(err, doing=f"remove object {short(name)}") from err


def open_cache(cache_dir: Path, *, group: bool) -> LocalStore:
    """The hot tier: DVC's local cache."""
    return LocalStore(cache_dir / "files" / "md5", group=group)


def _by_folder(refs: Iterable[ObjectRef]) -> dict[str, list[ObjectRef]]:
    found: dict[str, list[ObjectRef]] = {}
    for ref in refs:
        found.setdefault(ref.name[:2], []).append(ref)
    return found


def missing(
    name: ObjectName,
    where: str,
    next_step: str = "fetch it from a remote with 'ckpt pull REV' or 'dvc fetch', then run the command again",
) -> MissingObject:
    """The error of an object that is not there."""
    return MissingObject(
        f"cannot read object {short(name)}",
        why=f"it is not in {where}",
        next_step=next_step,
        object=name,
    )


def wrong_bytes(wanted: ObjectRef, found: ObjectRef) -> WrongDigest:
    """The error of bytes that are not those of the object that was asked for."""
    return WrongDigest(
        f"what came for object {short(wanted.name)} is something else",
        why=f"its BLAKE3 is {short(found.digest)}, it should be {short(wanted.digest)}",
        next_step="nothing of it was kept; see where it comes from",
        object=wanted.name,
        found=found.digest,
        expected=wanted.digest,
    )


def check_digest(found: Digest, ref: ObjectRef, *, where: str) -> None:
    """Raise `WrongDigest` unless `found` is the digest of `ref`."""
    if found != ref.digest:
        raise WrongDigest(
            f"object {short(ref.name)} is damaged",
            why=f"its BLAKE3 in {where} is {short(found)}, it should be {short(ref.digest)}",
            next_step=f"move it away ({where}) and fetch it again with 'ckpt pull REV' or 'dvc fetch'",
            object=ref.name,
            found=found,
            expected=ref.digest,
        )
