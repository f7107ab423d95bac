"""How one file gets to its place: cloned, hard-linked, written from memory or copied.

Never over a file that is there, and never through a link. Which of the ways may be taken is for the caller to say.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ckptvcs.digest import hasher
from ckptvcs.errors import CkptvcsError
from ckptvcs.storage import direct, files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from typing_extensions import Buffer

    from ckptvcs.storage.names import ObjectRef

Chunks = Callable[[], "Iterable[Buffer]"]
"""Gives the bytes of a file, the same each time."""

Way = Callable[[str, str, int], None]
"""Takes the path of an object, the name of the new file, and the descriptor of its folder."""

_FICLONE: Final = 0x40049409
_PIECE: Final = 1 << 20
_NOT_THIS_WAY: Final = {
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
        if way in (reflink, hardlink) and ref.nbytes == 0:
            continue
        try:
            way(path, name, folder)
        except OSError as err:
            if way is copy or err.errno not in _NOT_THIS_WAY:
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


def from_memory(chunks: Chunks, ref: ObjectRef) -> Way:
    """Have bytes of its own, which need not be read from the disk; for files of which somebody still has them.

    Args:
        chunks: gives the bytes. If they are no longer those of the object, this is not the way.
        ref: the object.
    """

    def write(_: str, name: str, folder: int) -> None:
        found, buffer, source = hasher(), direct.buffer(), direct.Source(_steady(chunks))
        with _new(name, folder) as new:
            output = direct.Output(new, ref.nbytes)
            while count := source.read_into(buffer[: direct.STEP]):
                found.update(buffer[:count])
                output.write(buffer, count)
            output.end()
            if found.hexdigest() != ref.digest:
                raise _changed()

    return write


def _steady(chunks: Chunks) -> Iterator[Buffer]:
    """The pieces, as long as they can be had: they may come from a file of the user that is gone by now."""
    try:
        yield from chunks()
    except (OSError, CkptvcsError) as err:
        raise _changed() from err


def _changed() -> OSError:
    return OSError(errno.EINVAL, "the bytes at hand are not what they were")


def copy(path: str, name: str, folder: int) -> None:
    """Have bytes of its own.

    Not `copy_file_range`: where the file system cannot clone, Linux copies page by page, which is slower than this.
    """
    with _source_and_new(path, name, folder) as (source, new):
        left = os.fstat(source).st_size
        buffer = memoryview(bytearray(min(left, _PIECE)))
        while left:
            copied = os.readv(source, [buffer])
            if copied == 0:
                raise OSError(errno.EIO, "the object became shorter while it was copied", path)
            files.write_all(new, buffer[:copied])
            left -= copied


@contextlib.contextmanager
def _source_and_new(path: str, name: str, folder: int) -> Iterator[tuple[int, int]]:
    """An object to read and a new file to write."""
    source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with _new(name, folder) as new:
            yield source, new
    finally:
        os.close(source)


@contextlib.contextmanager
def _new(name: str, folder: int) -> Iterator[int]:
    """A new file to write; it goes again if the block fails."""
    # O_EXCL: opening an existing file to clone into it would truncate it, and it may be a link to an object.
    new = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=folder)
    try:
        yield new
    except BaseException:
        os.unlink(name, dir_fd=folder)
        raise
    finally:
        os.close(new)
