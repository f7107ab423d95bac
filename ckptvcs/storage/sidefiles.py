"""Small files of our own beside the objects of a remote, in `.ckptvcs/` there, which DVC never looks at.

What they mean is not known here. A file appears as a whole; what is read is bounded, and links are not followed. Times are
those of the store: the only clock that everybody who uses it shares.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from ckptvcs.errors import HostileInput, StorageError, from_os_error
from ckptvcs.storage import files, store_errors
from ckptvcs.storage.filesystems import timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ckptvcs.storage.filesystems import Kind

FOLDER: Final = ".ckptvcs"
MAX_ENTRIES: Final = 10_000
"""In one folder; of more, somebody else made most."""

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")
_NO_LINKS: Final = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}


@dataclass(frozen=True, slots=True, kw_only=True)
class SideFile:
    """An entry of a folder."""

    name: str
    is_folder: bool
    nbytes: int
    time_s: float | None
    """When it was written, by the clock of the store, in seconds since the epoch; None if the store does not say."""


class SideFiles(Protocol):
    """Small files by their path below `.ckptvcs/`.

    Guarantees: a file that is written appears as a whole or not at all, durably. Reading changes nothing. Every method
    raises `StorageError` where the store does not answer or does not allow it.
    """

    def write(self, path: str, data: bytes, *, exclusive: bool = False) -> bool:
        """Write a file; with `exclusive` only if there is none: False if there is one.

        Where a store cannot tell two who write at once from each other, the later one of them counts.
        """

    def read(self, path: str, *, limit: int) -> bytes | None:
        """The bytes of a file, None if there is none; raises `HostileInput` if it has more than `limit`, or is no file."""

    def list(self, path: str) -> list[SideFile]:
        """What is in a folder, by name; nothing if there is no such folder.

        Names that are none of ours are left out. Raises `HostileInput` if there are more than `MAX_ENTRIES`.
        """

    def remove(self, path: str) -> None:
        """Remove a file; no error if there is none."""

    def now(self, path: str) -> float | None:
        """What time it is there, by a throw-away file in a folder; None if the store does not say."""


def is_ours(name: str) -> bool:
    """Whether a name in a listing may be one of ours: neither a temporary file nor something that leads elsewhere."""
    return _NAME.match(name) is not None and not name.startswith(".")


def _sorted(entries: Iterator[SideFile], where: str) -> list[SideFile]:
    found: list[SideFile] = []
    for entry in entries:
        if not is_ours(entry.name):
            continue
        if len(found) == MAX_ENTRIES:
            raise HostileInput(
                f"cannot list {where}", why=f"it has more than {MAX_ENTRIES} entries", next_step="see who made them"
            )
        found.append(entry)
    return sorted(found, key=lambda entry: entry.name)


def _too_large(where: str, limit: int) -> HostileInput:
    return HostileInput(
        f"cannot read {where}", why=f"it has more than the {limit} bytes that are read", next_step="see who wrote it"
    )


# --------------------------------------------------------------------------------------------------------------- folder


class FolderSide:
    """Side files on a local path, which may be a network share.

    Args:
        name: of the remote.
        root: the folder of the remote.
    """

    def __init__(self, name: str, root: Path) -> None:
        self._name = name
        self._root = root

    def write(self, path: str, data: bytes, *, exclusive: bool = False) -> bool:
        with self._doing(f"write {self._where(path)}"), self._folder_of(path, make=True) as folder:
            name = path.rpartition("/")[2]
            if not exclusive:
                files.replace_in(folder, name, data)
                return True
            return _make_once(folder, name, data)

    def read(self, path: str, *, limit: int) -> bytes | None:
        where = self._where(path)
        try:
            with self._doing(f"read {where}"), self._folder_of(path) as folder:
                # Without waiting: what has our name may be a pipe.
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                with open(os.open(path.rpartition("/")[2], flags, dir_fd=folder), "rb", buffering=0) as file:
                    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                        raise HostileInput(f"cannot read {where}", why="it is no file", next_step="move it away")
                    data = _read(file, limit + 1)
        except FileNotFoundError:
            return None
        if len(data) > limit:
            raise _too_large(where, limit)
        return data

    def list(self, path: str) -> list[SideFile]:
        def look(folder: int) -> Iterator[SideFile]:
            with os.scandir(folder) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):  # it was removed meanwhile
                        info = entry.stat(follow_symlinks=False)
                        is_folder = stat.S_ISDIR(info.st_mode)
                        yield SideFile(
                            name=entry.name, is_folder=is_folder, nbytes=info.st_size, time_s=info.st_mtime_ns / 1e9
                        )

        try:
            with self._doing(f"list {self._where(path)}"), self._folder_of(f"{path}/") as folder:
                return _sorted(look(folder), self._where(path))
        except FileNotFoundError:
            return []

    def remove(self, path: str) -> None:
        with (
            contextlib.suppress(FileNotFoundError),
            self._doing(f"remove {self._where(path)}"),
            self._folder_of(path) as folder,
        ):
            os.unlink(path.rpartition("/")[2], dir_fd=folder)

    def now(self, path: str) -> float | None:
        name = files.tmp_name()
        with self._doing(f"write {self._where(path)}"), self._folder_of(f"{path}/", make=True) as folder:
            fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=folder)
            try:
                os.write(fd, b"\n")
                os.fsync(fd)  # a network share has its own time only when it has the file
                return os.fstat(fd).st_mtime_ns / 1e9
            finally:
                os.close(fd)
                os.unlink(name, dir_fd=folder)

    def _where(self, path: str) -> str:
        return f"'{FOLDER}/{path}' at remote '{self._name}'"

    @contextlib.contextmanager
    def _folder_of(self, path: str, *, make: bool = False) -> Iterator[int]:
        if make:
            self._root.mkdir(parents=True, exist_ok=True)
        root = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            relative = f"{FOLDER}/{path.rpartition('/')[0]}"
            with files.open_beneath(root, relative, make=make) as folder:
                yield folder
        finally:
            os.close(root)

    @contextlib.contextmanager
    def _doing(self, doing: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as err:
            if err.errno == errno.ELOOP:
                raise HostileInput(f"cannot {doing}", why="it is a link", next_step="move it away") from err
            raise from_os_error(err, doing=doing) from err


def _make_once(folder: int, name: str, data: bytes) -> bool:
    """Give bytes a name that nobody has yet."""
    tmp = files.tmp_name()
    files.replace_in(folder, tmp, data)
    try:
        os.link(tmp, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError:
        return False
    except OSError as err:
        if err.errno not in _NO_LINKS:
            raise
        with contextlib.suppress(FileNotFoundError):
            os.stat(name, dir_fd=folder, follow_symlinks=False)
            return False
        os.rename(tmp, name, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(tmp, dir_fd=folder)
    os.fsync(folder)
    return True


def _read(file: Any, count: int) -> bytes:
    pieces, left = [], count
    while left and (piece := file.read(left)):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


# ---------------------------------------------------------------------------------------------------------- file system


class FilesystemSide:
    """Side files on a file system of fsspec.

    Args:
        name: of the remote.
        fs: the file system, as DVC opened it.
        kind: how it is written to.
        root: the folder of the remote in it.
        patiently: does something over the network, again where it failed for no reason that stays.
    """

    def __init__(
        self, name: str, fs: Any, kind: Kind, root: str, *, patiently: Callable[[str, Callable[[], Any]], Any]
    ) -> None:
        self._name = name
        self._fs = fs
        self._kind = kind
        self._root = f"{root}/{FOLDER}" if root else FOLDER
        self._patiently = patiently

    def write(self, path: str, data: bytes, *, exclusive: bool = False) -> bool:
        doing, full = f"write '{FOLDER}/{path}'", f"{self._root}/{path}"
        if exclusive and self._kind.creates_whole:
            self._make_folder(full)
            made = self._patiently(doing, lambda: self._made_once(full, data))
            if made is not None:
                return bool(made)
        if exclusive and self._info(path) is not None:
            return False
        write = self._fs.pipe_file if self._kind.appears_whole else self._under_a_name
        self._patiently(doing, lambda: write(full, data))
        return True

    def _made_once(self, full: str, data: bytes) -> bool | None:
        """Write what must not be there; None if the store cannot be asked to do that."""
        try:
            self._kind.create(full, data)
        except Exception as err:
            if store_errors.says_exists(err):
                return False
            if store_errors.says_unsupported(err):
                return None
            raise
        return True

    def _make_folder(self, full: str) -> None:
        if not self._kind.appears_whole:
            self._fs.makedirs(full.rpartition("/")[0], exist_ok=True)

    def _under_a_name(self, full: str, data: bytes) -> None:
        tmp = f"{full.rpartition('/')[0]}/{files.tmp_name()}"
        self._make_folder(full)
        try:
            self._fs.pipe_file(tmp, data)
            self._rename(tmp, full)
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to report
                self._fs.rm_file(tmp)
            raise

    def _rename(self, tmp: str, full: str) -> None:
        try:
            self._kind.move(tmp, full)
        except Exception:
            if not self._fs.exists(full):
                raise
            self._fs.rm_file(full)  # there is SFTP that renames onto nothing that is there, and WebDAV is told not to
            self._kind.move(tmp, full)

    def read(self, path: str, *, limit: int) -> bytes | None:
        def look() -> bytes | None:
            try:
                return bytes(self._fs.cat_file(f"{self._root}/{path}", start=0, end=limit + 1))
            except FileNotFoundError:
                return None

        where, info = f"'{FOLDER}/{path}' at remote '{self._name}'", self._info(path)
        if info is None or info.get("type") == "directory":
            return None
        if int(info["size"] or 0) > limit:
            raise _too_large(where, limit)
        data = self._patiently(f"read '{FOLDER}/{path}'", look) if info["size"] else b""
        if data is not None and len(data) > limit:
            raise _too_large(where, limit)
        return data

    def _info(self, path: str) -> Any:
        def look() -> Any:
            try:
                return self._fs.info(f"{self._root}/{path}")
            except FileNotFoundError:
                return None

        self._fs.invalidate_cache()
        try:
            return self._patiently(f"look at '{FOLDER}/{path}'", look)
        except StorageError as err:
            folder, _, name = path.rpartition("/")
            # S3 forbids, instead of saying that it is not there, to whoever may list below a prefix alone.
            if isinstance(err.__cause__, PermissionError) and all(e.name != name for e in self.list(folder)):
                return None
            raise

    def list(self, path: str) -> list[SideFile]:
        def look() -> Any:
            try:
                return self._fs.ls(f"{self._root}/{path}".rstrip("/"), detail=True)
            except FileNotFoundError:
                return []

        self._fs.invalidate_cache()
        found = self._patiently(f"list '{FOLDER}/{path}'", look)
        return _sorted(_entries(found, path), f"'{FOLDER}/{path}' at remote '{self._name}'")

    def remove(self, path: str) -> None:
        def act() -> None:
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(f"{self._root}/{path}")

        self._patiently(f"remove '{FOLDER}/{path}'", act)

    def now(self, path: str) -> float | None:
        name = f"{path}/{files.tmp_name()}"

        def act() -> None:
            self._make_folder(f"{self._root}/{name}")
            self._fs.pipe_file(f"{self._root}/{name}", b"\n")

        self._patiently(f"write '{FOLDER}/{path}'", act)
        try:
            return timestamp(self._info(name) or {})
        finally:
            with contextlib.suppress(StorageError):  # it means nothing, and whoever lists leaves it out
                self.remove(name)


def _entries(found: Any, path: str) -> Iterator[SideFile]:
    folder = f"{FOLDER}/{path}".rstrip("/").rpartition("/")[2]
    for entry in found:
        parent, _, name = str(entry["name"]).rstrip("/").rpartition("/")
        if parent.rpartition("/")[2] == folder:  # S3 has the folder itself among its entries, where somebody made one
            yield SideFile(
                name=name,
                is_folder=entry.get("type") == "directory",
                nbytes=int(entry.get("size") or 0),
                time_s=timestamp(entry),
            )
