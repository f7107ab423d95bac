"""The only raw writes: temporary file, fsync, rename; folders that are never entered through a link; locks.

Guarantee of everything here: after a crash at any instruction a name holds its old bytes or its new ones, whole.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import time
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.errors import HostileInput, LockHeld, from_os_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PREFIX: Final = ".ckptvcs-"
"""Every name that we make for ourselves begins so. Neither DVC nor git takes such a file for one of theirs."""

_TMP_SUFFIX: Final = ".tmp"

_CHUNK: Final = 1 << 20
_DIR_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_STALE_TMP_S: Final = 60.0
"""A temporary file younger than this may belong to a process that has not locked it yet."""


def tmp_name() -> str:
    """A fresh temporary name."""
    return f"{PREFIX}{os.urandom(8).hex()}{_TMP_SUFFIX}"


def write_all(fd: int, data: Any) -> None:
    """Write every byte: `os.write` may write less than it was given."""
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(fd, view[:_CHUNK]) :]


def fsync_dir(path: str | Path, dir_fd: int | None = None) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: Path, data: bytes, *, mode: int = 0o666, exactly: bool = False) -> None:
    """Replace a file, durably; its folder must exist.

    Args:
        path: the file; if it is a link, the link is replaced.
        data: its bytes.
        mode: its permissions.
        exactly: whether it gets these whatever the umask says.

    Raises:
        StorageError: the disk is full, read-only or failing; the old file is as it was.
    """
    try:
        with open_folder(path.parent) as folder:
            replace_in(folder, path.name, data, mode, exactly=exactly)
    except OSError as err:
        raise from_os_error(err, doing=f"write '{path}'") from err


def replace_in(folder: int, name: str, data: bytes, mode: int = 0o666, *, exactly: bool = False) -> None:
    """Replace a file in an open folder, durably: the part of `write_atomic` that follows no path."""
    tmp = tmp_name()
    fd = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=folder)
    try:
        try:
            write_all(fd, data)
            if exactly:
                os.fchmod(fd, mode)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(tmp, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to report
            os.unlink(tmp, dir_fd=folder)
        raise
    os.fsync(folder)


# ------------------------------------------------------------------------------------- folders, never through a link


@contextlib.contextmanager
def open_folder(path: str | Path, dir_fd: int | None = None) -> Iterator[int]:
    """A descriptor of a folder; the last part of its path may not be a link."""
    fd = os.open(path, _DIR_FLAGS, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def open_beneath(root: int, relative: str, *, make: bool = False, durable: bool = True) -> Iterator[int]:
    """A descriptor of a folder below `root`, reached part by part without following a link.

    Args:
        root: descriptor of a folder.
        relative: POSIX path, or the empty string for `root` itself.
        make: create what is missing.
        durable: make the names of what is created durable.

    Raises:
        HostileInput: a part of the path is a link or a file, or leads up again.
        FileNotFoundError: a part is missing and `make` is not set.
    """
    fd = os.dup(root)
    try:
        for part in filter(None, relative.split("/")):
            inner = _enter(fd, part, make=make, durable=durable)
            os.close(fd)
            fd = inner
        yield fd
    finally:
        os.close(fd)


def _enter(parent: int, part: str, *, make: bool, durable: bool) -> int:
    if part == "..":
        raise HostileInput("cannot go through '..'", why="it may lead out of the folder", next_step="leave it out")
    made = False
    try:
        if make:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o777, dir_fd=parent)
                made = True
                if durable:
                    os.fsync(parent)
        fd = os.open(part, _DIR_FLAGS, dir_fd=parent)
        if made:
            _share(fd, os.fstat(parent))
        return fd
    except OSError as err:
        if err.errno in (errno.ELOOP, errno.ENOTDIR):
            raise HostileInput(
                f"cannot go through '{part}'",
                why="it is a link or a file where a folder should be, and links are never followed here",
                next_step="move it away",
            ) from err
        raise


def _share(fd: int, folder: os.stat_result) -> None:
    """Let the group write to what was made in a folder, whatever the umask says, if it may write to all that is there."""
    shared = stat.S_ISGID | stat.S_IWGRP
    mode = os.fstat(fd).st_mode
    if folder.st_mode & shared == shared and not mode & stat.S_IWGRP:
        with contextlib.suppress(PermissionError):  # somebody else made it
            os.fchmod(fd, stat.S_IMODE(mode) | stat.S_IWGRP)


def remove_tree(folder: int, name: str) -> None:
    """Remove a file or a folder with all it holds; links are removed, not followed. What is gone already is no error."""
    with contextlib.suppress(FileNotFoundError):
        try:
            os.unlink(name, dir_fd=folder)
        except (IsADirectoryError, PermissionError):
            with open_folder(name, folder) as inner:
                for entry in os.listdir(inner):
                    remove_tree(inner, entry)
            os.rmdir(name, dir_fd=folder)


def sweep_temporaries(folder: Path, now: float) -> list[str]:
    """Remove temporary files and folders of processes that died. A living writer holds a lock on its own.

    Args:
        folder: where to look, not below.
        now: the time in seconds since the epoch.

    Returns:
        The names that were removed.
    """
    removed = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for entry in os.scandir(folder):
            if _is_temporary(entry.name) and not entry.is_symlink() and _is_abandoned(entry, now):
                with open_folder(folder) as fd:
                    remove_tree(fd, entry.name)
                removed.append(entry.name)
    return removed


def remove_temporaries(folder: int) -> None:
    """Remove every temporary file in an open folder in which only the holder of a lock writes, which the caller is."""
    for name in os.listdir(folder):
        if _is_temporary(name):
            with contextlib.suppress(OSError):  # it is in nobody's way
                os.unlink(name, dir_fd=folder)


def _is_temporary(name: str) -> bool:
    return name.startswith(PREFIX) and name.endswith(_TMP_SUFFIX)


def _is_abandoned(entry: os.DirEntry[str], now: float) -> bool:
    try:
        if now - entry.stat(follow_symlinks=False).st_mtime < _STALE_TMP_S:
            return False
        fd = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(fd)


# ------------------------------------------------------------------------------------------------------------ locks


_AT: Final = "at"
_NOTE_BYTES: Final = 4096
"""A block of a disk, which notes fit into."""
_NOTE_LIMIT: Final = 1 << 20


class Lock:
    """An exclusive lock between processes that the kernel releases when its holder dies.

    The file can carry a note, which outlives a holder that died before it could take the note back: that is how the next
    one learns what was left half done.

    Args:
        path: the lock file; its folder must exist.
        timeout_s: how long to wait for another holder.
        stamp: written into the file while it is held, for formats in which others look for it.
    """

    def __init__(self, path: Path, *, timeout_s: float, stamp: bytes = b"") -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._stamp = stamp
        self._fd = -1
        self._known: dict[str, Any] | None = None

    def __enter__(self) -> Lock:
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            _share(self._fd, os.stat(self._path.parent))
        except OSError as err:
            raise from_os_error(err, doing=f"open lock '{self._path}'") from err
        try:
            self._acquire()
        except BaseException:
            os.close(self._fd)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)  # which releases the lock

    def _acquire(self) -> None:
        end = time.monotonic() + self._timeout_s  # how long we wait, not what time it is
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise self._held() from None
                time.sleep(0.02)
            except OSError as err:
                raise from_os_error(err, doing=f"lock '{self._path}'") from err
        if self._stamp:
            self._rewrite(self._stamp)

    def _held(self) -> LockHeld:
        holder = os.pread(self._fd, 64, 0).decode("ascii", "replace").strip()
        who = f"process {holder}" if holder.isdigit() else "another process"
        return LockHeld(
            f"cannot lock '{self._path}'",
            why=f"{who} has held it for more than {self._timeout_s:g} s",
            next_step="wait for it to end and run the command again",
            path=str(self._path),
            holder=holder,
        )

    # ---- the note

    def read_note(self) -> dict[str, Any]:
        """What the last holder left, or an empty dict."""
        note = self._note()
        note.pop(_AT, None)
        return note

    def _note(self) -> dict[str, Any]:
        if self._known is None:  # nobody else writes while it is held
            self._known = self._read()
        return dict(self._known)

    def _read(self) -> dict[str, Any]:
        data = os.pread(self._fd, min(os.fstat(self._fd).st_size, _NOTE_LIMIT), 0)
        try:
            note = json.loads(data) if data.strip() else {}
        except ValueError:
            return {}
        return note if isinstance(note, dict) else {}

    def write_note(self, note: dict[str, Any]) -> None:
        """Leave a note, durably; an empty one takes the last one back.

        It is written over the last one, in a file that keeps its size: then a disk has to be waited for once, and not for
        the journal of its file system too. So the time goes into the note: that of the file need not be on the disk.

        Raises:
            StorageError: the disk is full, read-only or failing.
        """
        self._known = None
        if not note:
            self._overwrite(b"")
            self._known = {}
            return  # one that is taken back and comes back after a power cut has done its work already
        try:
            os.utime(self._fd)  # the clock of the file system; the old note stays until the new one is there
            written = {**note, _AT: os.fstat(self._fd).st_mtime}
            self._overwrite(json.dumps(written).encode("ascii"))
            os.fdatasync(self._fd)
        except OSError as err:
            raise from_os_error(err, doing=f"write '{self._path}'") from err
        self._known = written

    def _overwrite(self, data: bytes) -> None:
        """Replace the note; blanks, which JSON does not mind, fill a file that is larger."""
        size = max(_NOTE_BYTES, os.fstat(self._fd).st_size, len(data))
        try:
            os.pwrite(self._fd, data.ljust(size), 0)
        except OSError as err:
            raise from_os_error(err, doing=f"write '{self._path}'") from err

    def _rewrite(self, data: bytes) -> None:
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, data, 0)
        except OSError as err:
            raise from_os_error(err, doing=f"write '{self._path}'") from err

    def note_age_s(self, now: float) -> float:
        """Seconds since the note was written."""
        written = self._note().get(_AT)
        return now - (written if isinstance(written, (int, float)) else os.fstat(self._fd).st_mtime)
