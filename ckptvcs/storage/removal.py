"""Taking objects away from a store: first into a trash beside the objects, from where they can be brought back, then for good.

What is to be removed is for others to decide. Everything here can be interrupted, and done again: what is gone already is no
error, and what a first try left half done a second one completes. None of it needs room on a disk.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from ckptvcs.digest import short
from ckptvcs.errors import from_os_error
from ckptvcs.storage import files, store_errors
from ckptvcs.storage.filesystems import timestamp
from ckptvcs.storage.names import ObjectName, is_object_name
from ckptvcs.storage.sidefiles import FOLDER

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from ckptvcs.storage.filesystems import Kind
    from ckptvcs.storage.objects import LocalStore
    from ckptvcs.storage.patience import Patience

_PARALLEL: Final = 16
_FEW: Final = 128
"""Objects that are asked for one by one; of more, every folder is listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An object that is there."""

    name: ObjectName
    nbytes: int
    time_s: float | None
    """When it was written, by the clock of the store, in seconds since the epoch; None if the store does not say."""


class Removal(Protocol):
    """What can be taken away from a store. Every method raises `StorageError` where it does not answer or allow it."""

    def stored(self, names: Collection[ObjectName] | None = None) -> Iterator[Stored]:
        """The objects that are there: all of them, or those of some names."""

    def remove(self, names: Iterable[ObjectName]) -> None:
        """Remove objects for good."""

    def trash(self, names: Iterable[ObjectName], run: str) -> None:
        """Move objects into the trash of a run: they are no objects of the store any more."""

    def bring_back(self, names: Iterable[ObjectName], run: str) -> list[ObjectName]:
        """Make objects of the store again of what is in the trash of a run; returns those that were in it."""

    def trashed(self, names: Iterable[ObjectName], run: str) -> dict[ObjectName, int]:
        """The objects of some names that are in the trash of a run, and the bytes of each."""

    def empty(self, names: Iterable[ObjectName], run: str) -> None:
        """Remove objects from the trash of a run for good."""


def _trashed(run: str, name: ObjectName) -> str:
    return f"{FOLDER}/trash/{run}/{name[:2]}/{name[2:]}"


# --------------------------------------------------------------------------------------------------------------- folder


class FolderRemoval:
    """Of a store on a local path.

    Args:
        store: its objects.
    """

    def __init__(self, store: LocalStore) -> None:
        self._store = store
        self._home = store.root.parents[1]

    def stored(self, names: Collection[ObjectName] | None = None) -> Iterator[Stored]:
        wanted = None if names is None else set(names)
        if wanted is not None and len(wanted) <= _FEW:
            yield from filter(None, map(self._look, sorted(wanted)))
            return
        for name in self._store.names():
            if (wanted is None or name in wanted) and (found := self._look(name)) is not None:
                yield found

    def _look(self, name: ObjectName) -> Stored | None:
        try:
            info = os.lstat(self._store.path(name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as err:
            raise from_os_error(err, doing=f"look at object {short(name)}") from err
        if not stat.S_ISREG(info.st_mode):
            return None
        return Stored(name=name, nbytes=info.st_size, time_s=info.st_mtime_ns / 1e9)

    def remove(self, names: Iterable[ObjectName]) -> None:
        for prefix, some in _by_folder(names).items():
            with _doing("remove objects"), self._store.enter(prefix) as folder:
                for name in some:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name[2:], dir_fd=folder)
                os.fsync(folder)

    def trash(self, names: Iterable[ObjectName], run: str) -> None:
        for prefix, some in _by_folder(names).items():
            with (
                _doing("move objects into the trash"),
                self._store.enter(prefix) as folder,
                self._trash(run, prefix, make=True) as to,
            ):
                for name in some:
                    with contextlib.suppress(FileNotFoundError):
                        os.rename(name[2:], name[2:], src_dir_fd=folder, dst_dir_fd=to)
                os.fsync(to)
                os.fsync(folder)

    def bring_back(self, names: Iterable[ObjectName], run: str) -> list[ObjectName]:
        found = []
        for prefix, some in _by_folder(names).items():
            with _doing("bring objects back"), self._trash(run, prefix) as folder, self._store.enter(prefix) as to:
                for name in some:
                    with contextlib.suppress(FileNotFoundError):
                        _without_harm(name[2:], folder, to)
                        found.append(name)
                os.fsync(to)
        return found

    def trashed(self, names: Iterable[ObjectName], run: str) -> dict[ObjectName, int]:
        found = {}
        for prefix, some in _by_folder(names).items():
            with _doing("look into the trash"), self._trash(run, prefix) as folder:
                for name in some:
                    with contextlib.suppress(FileNotFoundError):
                        found[name] = os.stat(name[2:], dir_fd=folder, follow_symlinks=False).st_size
        return found

    def empty(self, names: Iterable[ObjectName], run: str) -> None:
        for prefix, some in _by_folder(names).items():
            with _doing("empty the trash"), self._trash(run, prefix) as folder:
                for name in some:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name[2:], dir_fd=folder)
        trash = self._home / FOLDER / "trash" / run
        for folder_path in (*sorted(trash.glob("[0-9a-f][0-9a-f]")), trash, trash.parent):
            with contextlib.suppress(OSError):  # there may be more in it
                folder_path.rmdir()

    @contextlib.contextmanager
    def _trash(self, run: str, prefix: str, *, make: bool = False) -> Iterator[int]:
        home = os.open(self._home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with files.open_beneath(home, f"{FOLDER}/trash/{run}/{prefix}", make=make) as folder:
                yield folder
        finally:
            os.close(home)


def _without_harm(name: str, folder: int, to: int) -> None:
    """Move a file to where one may be by now, which is left as it is then."""
    try:
        os.link(name, name, src_dir_fd=folder, dst_dir_fd=to)
    except FileExistsError:
        pass
    except OSError as err:
        if err.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
            raise
        os.rename(name, name, src_dir_fd=folder, dst_dir_fd=to)
        return
    os.unlink(name, dir_fd=folder)


def _by_folder(names: Iterable[ObjectName]) -> dict[str, list[ObjectName]]:
    found: dict[str, list[ObjectName]] = {}
    for name in sorted(set(names)):
        found.setdefault(name[:2], []).append(name)
    return found


@contextlib.contextmanager
def _doing(doing: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:  # a whole folder is gone, and so is what was to be taken from it
        return
    except OSError as err:
        raise from_os_error(err, doing=doing) from err


# ---------------------------------------------------------------------------------------------------------- filesystems


class FilesystemRemoval:
    """Of a store on a file system of fsspec.

    Args:
        fs: the file system, as DVC opened it.
        kind: what it is.
        root: where DVC's objects are in it.
        home: the folder of the store.
        patiently: how its calls are made.
    """

    def __init__(self, fs: Any, kind: Kind, root: str, home: str, patiently: Patience) -> None:
        self._fs = fs
        self._kind = kind
        self._root = root
        self._home = home
        self._patiently = patiently

    def _path(self, name: ObjectName) -> str:
        return f"{self._root}/{name[:2]}/{name[2:]}"

    def _trash_path(self, name: ObjectName, run: str) -> str:
        return f"{self._home}/{_trashed(run, name)}"

    def stored(self, names: Collection[ObjectName] | None = None) -> Iterator[Stored]:
        wanted = None if names is None else set(names)
        self._fs.invalidate_cache()
        if wanted is not None and (len(wanted) <= _FEW or not self._kind.lists):
            yield from filter(None, self._each(self._look, sorted(wanted)))
            return
        folders = [f"{number:02x}" for number in range(256)]
        if wanted is not None:
            folders = sorted({name[:2] for name in wanted})
        for found in self._each(self._list, folders):
            yield from (one for one in found if wanted is None or one.name in wanted)

    def _look(self, name: ObjectName) -> Stored | None:
        info = self._patiently(f"look at object {short(name)}", lambda: self._info(self._path(name)))
        return None if info is None else _stored(name, info)

    def _info(self, path: str) -> Any:
        try:
            return self._fs.info(path)
        except FileNotFoundError as err:
            if store_errors.says_no_bucket(err):
                raise
            return None

    def _list(self, folder: str) -> list[Stored]:
        def look() -> Any:
            try:
                return self._fs.ls(f"{self._root}/{folder}", detail=True)
            except FileNotFoundError as err:
                if store_errors.says_no_bucket(err):
                    raise
                return []

        entries = self._patiently("list its objects", look)
        named = ((folder + e["name"].rstrip("/").rpartition("/")[2], e) for e in entries)
        return [_stored(ObjectName(name), entry) for name, entry in named if is_object_name(name)]

    def remove(self, names: Iterable[ObjectName]) -> None:
        self._remove([self._path(name) for name in names])

    def trash(self, names: Iterable[ObjectName], run: str) -> None:
        list(self._each(lambda name: self._move(self._path(name), self._trash_path(name, run)), names))

    def bring_back(self, names: Iterable[ObjectName], run: str) -> list[ObjectName]:
        def one(name: ObjectName) -> ObjectName | None:
            return name if self._move(self._trash_path(name, run), self._path(name)) else None

        return [name for name in self._each(one, names) if name is not None]

    def trashed(self, names: Iterable[ObjectName], run: str) -> dict[ObjectName, int]:
        def one(name: ObjectName) -> tuple[ObjectName, Any]:
            return name, self._patiently("look into the trash", lambda: self._info(self._trash_path(name, run)))

        self._fs.invalidate_cache()
        return {name: int(info.get("size") or 0) for name, info in self._each(one, names) if info is not None}

    def empty(self, names: Iterable[ObjectName], run: str) -> None:
        self._remove([self._trash_path(name, run) for name in names])
        if not self._kind.appears_whole:
            trash = f"{self._home}/{FOLDER}/trash/{run}"
            with contextlib.suppress(Exception):  # empty folders are in nobody's way
                for folder in [*self._fs.ls(trash, detail=False), trash]:
                    self._fs.rmdir(folder)

    def _remove(self, paths: Iterable[str]) -> None:
        def one(path: str) -> None:
            def act() -> None:
                with contextlib.suppress(FileNotFoundError):
                    self._fs.rm_file(path)

            self._patiently("remove an object", act)

        list(self._each(one, paths))

    def _move(self, path: str, to: str) -> bool:
        """Move a file, also onto one of the same bytes; whether there was one."""

        def act() -> bool:
            self._fs.invalidate_cache()
            if self._info(path) is None:
                return False
            there = self._info(to)
            if self._kind.appears_whole:
                if there is None:
                    self._fs.cp_file(path, to)
                self._fs.rm_file(path)
            elif there is not None:
                self._fs.rm_file(path)
            else:
                self._fs.makedirs(to.rpartition("/")[0], exist_ok=True)
                self._kind.move(path, to)
            return True

        return self._patiently("move an object", act)

    def _each(self, action: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        with ThreadPoolExecutor(_PARALLEL, "ckptvcs-removal") as pool:
            yield from pool.map(action, items)


def _stored(name: ObjectName, info: Any) -> Stored:
    return Stored(name=name, nbytes=int(info.get("size") or 0), time_s=timestamp(info))
