"""Remotes: objects in DVC's layout, on any file system that DVC opens; `folder_remote` is the one on a local path.

An upload counts when the store has shown what it can prove of it. What is downloaded has its name only when its BLAKE3 is
right; that is the business of the store that it goes to.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from ckptvcs.digest import digest_of_parts, short
from ckptvcs.errors import IntegrityError, MissingObject, StorageError
from ckptvcs.storage import files, store_errors
from ckptvcs.storage.filesystems import Kind, timestamp
from ckptvcs.storage.names import DIR_SUFFIX, ObjectName
from ckptvcs.storage.objects import LocalStore, missing
from ckptvcs.storage.patience import Patience
from ckptvcs.storage.removal import FilesystemRemoval
from ckptvcs.storage.sidefiles import FilesystemSide

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from ckptvcs.progress import Progress
    from ckptvcs.storage.names import ObjectRef
    from ckptvcs.storage.removal import Removal
    from ckptvcs.storage.sidefiles import SideFiles
    from ckptvcs.storage.verified import VerifiedStore

T = TypeVar("T")

THROWAWAY: Final = b"ckptvcs tries what this store can do"
PARALLEL: Final = 16
PIECE: Final = 8 << 20
_FEW: Final = 128
"""Objects that are asked for one by one; of more, the folders are listed that they lie in."""
_FEW_IN_A_FOLDER: Final = 64
"""Where the 256 folders hold about so many objects, all of them come in fewer answers than the folders one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What a store was seen to do."""

    ranges: bool
    """Parts of an object can be read."""
    listing: bool
    """It tells what it holds."""
    exclusive: bool
    """Of two who make one name, the second is told."""
    clock_s: float | None
    """How many seconds its clock is ahead of ours, if it says what time it is."""


def missing_there(name: ObjectName, remote: str) -> MissingObject:
    """The error of an object that a remote has not."""
    return missing(
        name, f"remote '{remote}'", "whoever has it brings it there with 'ckpt push --full'; then run it again"
    )


class Remote(Protocol):
    """Objects somewhere else.

    Guarantees: when `upload` returns, the store has every object in full, as far as it can prove. What is under a name in a
    remote is believed by nobody who reads it.
    """

    name: str

    def sizes(self, names: Collection[ObjectName]) -> dict[ObjectName, int]:
        """Which of these objects are there, and how many bytes each has."""

    def upload(self, refs: Sequence[ObjectRef], source: VerifiedStore, progress: Progress) -> None:
        """Store objects that the local store has.

        Raises:
            MissingObject, WrongDigest: it has not all of them, or one of them damaged.
            IntegrityError: one did not arrive as it is.
            StorageError: the remote does not answer, or is full. What arrived stays.
        """

    def replace(self, ref: ObjectRef, source: VerifiedStore) -> None:
        """Store an object in the place of one that was read and is another; that one is kept aside, if the store lets us.

        Raises:
            As `upload`.
        """

    def read(self, name: ObjectName, start: int, end: int) -> bytes:
        """A range of an object.

        Raises:
            MissingObject: it is not there.
        """

    def is_empty(self) -> bool:
        """Whether there is not one object, as where a share is not mounted; False where that cannot be told."""

    def probe(self, now: float) -> Probe:
        """Try what the store can do, with a throw-away object; `now` in seconds since the epoch.

        Raises:
            StorageError: it cannot be written to or read.
        """

    def side_files(self) -> SideFiles:
        """The small files of our own that lie beside the objects."""

    def removal(self) -> Removal:
        """What takes objects away from it."""


class FilesystemRemote:
    """A remote on a file system of fsspec.

    Args:
        name: of the remote.
        fs: the file system, as DVC opened it.
        root: where DVC's objects are in it.
    """

    def __init__(self, name: str, fs: Any, root: str) -> None:
        self.name = name
        self._fs = fs
        self._root = root.rstrip("/")
        self._kind = Kind(fs)
        self._tags_are_md5 = self._kind.is_s3
        self._patiently = Patience(name, fs)
        self._made: set[str] = set()

    def _path(self, name: ObjectName) -> str:
        return f"{self._root}/{name[:2]}/{name[2:]}"

    # ---- looking

    def sizes(self, names: Collection[ObjectName]) -> dict[ObjectName, int]:
        wanted = set(names)
        self._fs.invalidate_cache()
        if len(wanted) <= _FEW or not self._kind.lists:
            found = dict(zip(wanted, self._each(self._size, wanted), strict=True))
            return {name: size for name, size in found.items() if size is not None}
        if self._kind.appears_whole and len(self._list("00")) <= _FEW_IN_A_FOLDER:
            listed = self._list_all()
        else:
            listed = {}
            for entries in self._each(self._list, {name[:2] for name in wanted}):
                listed.update(entries)
        return {name: size for name, size in listed.items() if name in wanted}

    def _list_all(self) -> dict[ObjectName, int]:
        """Every object, in answers of 1,000, as object stores give them that know no folders."""

        def look() -> Any:
            try:
                return self._fs.find(self._root, detail=True)
            except FileNotFoundError as err:
                if store_errors.says_no_bucket(err):
                    raise
                return {}

        found = self._patiently("list its objects", look)
        return {ObjectName("".join(path.split("/")[-2:])): int(e["size"] or 0) for path, e in found.items()}

    def _size(self, name: ObjectName) -> int | None:
        try:
            info = self._info(name)
        except StorageError as err:
            if not store_errors.says_no_why(err.__cause__):
                raise
            # S3 forbids it too where nothing is, to whoever may list below a prefix alone; and of a HEAD it never says why.
            return self._list(name[:2]).get(name)
        return None if info is None else int(info["size"])

    def _info(self, name: ObjectName) -> Any:
        def look() -> Any:
            try:
                return self._fs.info(self._path(name))
            except FileNotFoundError as err:
                if store_errors.says_no_bucket(err):
                    raise
                return None

        return self._patiently(f"look at object {short(name)}", look)

    def _list(self, folder: str) -> dict[ObjectName, int]:
        def look() -> Any:
            try:
                return self._fs.ls(f"{self._root}/{folder}", detail=True)
            except FileNotFoundError as err:
                if store_errors.says_no_bucket(err):
                    raise
                return []

        entries = self._patiently("list its objects", look)
        return {ObjectName(folder + e["name"].rstrip("/").rpartition("/")[2]): int(e["size"] or 0) for e in entries}

    # ---- upload

    def upload(self, refs: Sequence[ObjectRef], source: VerifiedStore, progress: Progress) -> None:
        source.check(refs)

        def one(ref: ObjectRef) -> None:
            self._upload(ref, source.store)
            progress(ref.nbytes)

        # What others take for complete when they see it goes last: a directory names its files.
        for last in (False, True):
            list(self._each(one, [ref for ref in refs if ref.name.endswith(DIR_SUFFIX) is last]))
        if refs and self._kind.lists and not self._kind.appears_whole:
            with contextlib.suppress(Exception):  # all that was to be pushed is there; the next push sweeps again
                self._kind.sweep(self._root, self._path(refs[-1].name))

    def _upload(self, ref: ObjectRef, source: LocalStore) -> None:
        local, final = str(source.path(ref.name)), self._path(ref.name)
        doing = f"upload object {short(ref.name)}"
        if self._kind.appears_whole:

            def is_there() -> bool:
                return self._is_whole(ref, self._now(ref.name))

            if self._patiently(doing, lambda: self._kind.put(local, final, ref.name[:32], is_there)):
                return
        else:
            self._make_folder(final.rpartition("/")[0])
            tmp = f"{self._root}/{files.tmp_name()}"  # DVC ignores what lies beside its folders
            try:
                self._patiently(doing, lambda: self._fs.put_file(local, tmp))
                self._patiently(doing, lambda: self._rename(tmp, final, ref))
            except BaseException:
                with contextlib.suppress(Exception):  # the first error is on its way already
                    self._fs.rm_file(tmp)
                raise
        self._check_arrival(ref)

    def replace(self, ref: ObjectRef, source: VerifiedStore) -> None:
        source.check([ref])
        local, final = str(source.store.path(ref.name)), self._path(ref.name)
        aside = f"{self._root}/{files.PREFIX}damaged-{ref.name}-{secrets.token_hex(4)}"
        with contextlib.suppress(Exception):  # whoever may only add cannot; it is written over then, if that is allowed
            (self._fs.cp_file if self._kind.appears_whole else self._kind.move)(final, aside)
        if not self._kind.appears_whole:
            self._upload(ref, source.store)
        else:
            self._patiently(
                f"replace object {short(ref.name)}", lambda: self._kind.replace(local, final, ref.name[:32])
            )
            self._check_arrival(ref)

    def _rename(self, tmp: str, final: str, ref: ObjectRef) -> None:
        try:
            self._kind.move(tmp, final)
        except Exception:
            size = self._size(ref.name)
            if size is None:
                raise
            if size == ref.nbytes:  # the answer to a rename was lost, or somebody else uploaded it meanwhile
                with contextlib.suppress(FileNotFoundError):
                    self._fs.rm_file(tmp)
                return
            self._fs.rm_file(final)  # SFTP renames onto nothing that is there, and this one is cut short
            self._kind.move(tmp, final)

    def _make_folder(self, folder: str) -> None:
        if folder not in self._made:
            self._patiently("make a folder", lambda: self._fs.makedirs(folder, exist_ok=True))
            self._made.add(folder)

    def _check_arrival(self, ref: ObjectRef) -> None:
        """Believe an upload only for what the store shows: its size, and the MD5 where it computes one."""
        info = self._now(ref.name)
        if not self._is_whole(ref, info):
            raise IntegrityError(
                f"object {short(ref.name)} did not arrive at remote '{self.name}'",
                why=f"there it has {info.get('size', 'no')} bytes, here {ref.nbytes}",
                next_step="run the command again; if it says the same, look at the store",
                object=ref.name,
                remote=self.name,
            )

    def _now(self, name: ObjectName) -> Mapping[str, Any]:
        self._fs.invalidate_cache(self._path(name))
        return self._info(name) or {}

    def _is_whole(self, ref: ObjectRef, info: Mapping[str, Any]) -> bool:
        return info.get("size") == ref.nbytes and self._is_tagged(ref, info)

    def _is_tagged(self, ref: ObjectRef, info: Mapping[str, Any]) -> bool:
        """Whether the store's own digest is right, as far as it has one.

        On S3 the ETag of what was uploaded in one piece is its MD5, unless the bucket encrypts with keys of its own: then it
        looks like one, and only reading the object back tells.
        """
        tag = str(info.get("ETag", "")).strip('"')
        if not self._tags_are_md5 or not re.fullmatch("[0-9a-f]{32}", tag) or tag == ref.name[:32]:
            return True
        pieces = (self.read(ref.name, at, min(at + PIECE, ref.nbytes)) for at in range(0, max(ref.nbytes, 1), PIECE))
        self._tags_are_md5 = False
        return digest_of_parts(pieces) == ref.digest

    # ---- download

    def read(self, name: ObjectName, start: int, end: int) -> bytes:
        def look() -> bytes:
            try:
                return self._kind.read(self._path(name), start, end)
            except FileNotFoundError as err:
                if store_errors.says_no_bucket(err):
                    raise
                raise missing_there(name, self.name) from err

        return self._patiently(f"read object {short(name)}", look)

    # ---- what it can do

    def probe(self, now: float) -> Probe:
        path = f"{self._root}/{files.tmp_name()}"
        if not self._kind.appears_whole:
            self._make_folder(self._root)
        try:
            once = self._patiently("write", lambda: self._write(path))
            info = self._patiently("look", lambda: self._fs.info(path))
            ranges = self._patiently("read", lambda: self._kind.read(path, 1, 3)) == THROWAWAY[1:3]
            listing = self._kind.lists and self._is_listed(path)
            exclusive = once and self._kind.creates_only_once(path, THROWAWAY)
        finally:
            with contextlib.suppress(Exception):  # whoever may only add leaves it there, and DVC looks past it
                self._fs.rm_file(path)
        written = timestamp(info)
        clock_s = None if written is None else written - now
        return Probe(ranges=ranges, listing=listing, exclusive=exclusive, clock_s=clock_s)

    def _write(self, path: str) -> bool:
        """Write the throw-away object; returns whether that could be done as what makes a name only once."""
        try:
            self._kind.create(path, THROWAWAY)
        except Exception as err:
            if store_errors.says_unsupported(err):
                self._fs.pipe_file(path, THROWAWAY)
                return False
            if not store_errors.says_exists(err):  # nobody else has that name: the answer to the first try was lost
                raise
        return True

    def _is_listed(self, path: str) -> bool:
        self._fs.invalidate_cache()
        folder, _, name = path.rpartition("/")
        entries = self._patiently("list", lambda: self._fs.ls(folder, detail=True))
        return any(entry["name"].endswith(name) for entry in entries)

    def is_empty(self) -> bool:
        def look() -> Any:
            try:
                return self._fs.ls(self._root, detail=False)
            except FileNotFoundError as err:
                if store_errors.says_no_bucket(err):
                    raise
                return []
            except PermissionError:  # who may not list cannot tell
                return [self._root]

        if not self._kind.lists:
            return False
        self._fs.invalidate_cache()
        return not self._patiently("list", look)

    # ---- beside the objects

    def side_files(self) -> SideFiles:
        return FilesystemSide(self.name, self._fs, self._kind, self._home, patiently=self._patiently)

    def removal(self) -> Removal:
        return FilesystemRemoval(self._fs, self._kind, self._root, self._home, self._patiently)

    @property
    def _home(self) -> str:
        return self._root.removesuffix("files/md5").rstrip("/")  # of WebDAV it has nothing before that

    # ---- many at once

    def _each(self, action: Callable[[Any], T], items: Iterable[Any]) -> Iterator[T]:
        with ThreadPoolExecutor(PARALLEL, "ckptvcs-remote") as pool:
            futures = [pool.submit(action, item) for item in items]
            try:
                for future in futures:
                    yield future.result()
            finally:
                for future in futures:
                    future.cancel()
