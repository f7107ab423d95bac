"""How one file gets to its place: cloned, hard-linked or copied.

Never over a file that is there, and never through a link. Which of the ways may be taken is for the caller to say.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ckptvcs.storage import files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ckptvcs.storage.names import ObjectRef

Way = Callable[[str, str, int], None]
"""Takes the path of an object, the name of the new file, and the descriptor of its folder."""

_FICLONE: Final = 0x40049409
_CANNOT_LINK: Final = {
    errno.EOPNOTSUPP,
    errno.EXDEV,
    errno.EPERM,
    errno.ENOTTY,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EMLINK,
}


def place(path: str, ref: ObjectRef, ways: Sequence[Way], folder: int, name: str) -> None:
    """Make an object appear as a file that is not there yet.

    Args:
        path: where the object lies.
        ref: what it is.
        ways: what to try, best first; the last one is `copy`.
        folder: descriptor of the folder.
        name: of the file in it.

    Raises:
        OSError: none of the ways is open, or the disk is full; there is no file then.
    """
    for way in ways:
        if way is not copy and ref.nbytes == 0:
            continue
        try:
            way(path, name, folder)
        except OSError as err:
            if way is copy or err.errno not in _CANNOT_LINK:
                raise
        else:
            return


def reflink(path: str, name: str, folder: int) -> None:
    """Share the bytes until one of the two is written."""
    with _source_and_new(path, name, folder) as (source, new):
        fcntl.ioctl(new, _FICLONE, source)


def hardlink(path: str, name: str, folder: int) -> None:
    """Be the same file; it is as read-only as the object."""
    os.link(path, name, dst_dir_fd=folder, follow_symlinks=False)


def copy(path: str, name: str, folder: int) -> None:
    """Have bytes of its own."""
    with _source_and_new(path, name, folder) as (source, new):
        left = os.fstat(source).st_size
        while left:
            copied = _copy_some(source, new, left)
            if copied == 0:
                raise OSError(errno.EIO, "the object became shorter while it was copied", path)
            left -= copied


def _copy_some(source: int, new: int, left: int) -> int:
    """Copy in the kernel where it can; returns how many bytes."""
    if hasattr(os, "copy_file_range"):
        try:
            return os.copy_file_range(source, new, min(left, 1 << 30))
        except OSError as err:
            if err.errno not in _CANNOT_LINK:
                raise
    piece = os.read(source, min(left, 1 << 20))
    files.write_all(new, piece)
    return len(piece)


@contextlib.contextmanager
def _source_and_new(path: str, name: str, folder: int) -> Iterator[tuple[int, int]]:
    """An object to read and a new file to write; the file goes again if the block fails."""
    source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        # O_EXCL: opening an existing file to clone into it would truncate it, and it may be a link to an object.
        new = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=folder)
        try:
            yield source, new
        except BaseException:
            os.unlink(name, dir_fd=folder)
            raise
        finally:
            os.close(new)
    finally:
        os.close(source)
