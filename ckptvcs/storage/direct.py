"""Writing big files past the page cache, where the file system can (`O_DIRECT`).

A checkpoint is rarely read again soon, and would push out what training reads all the time; on top of that, Linux slows
down who fills the page cache faster than the disk takes it. A direct write is one of whole pages from aligned memory; the
file is cut to size in the end.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
from typing import TYPE_CHECKING, Final

from ckptvcs.storage import files

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Buffer

STEP: Final = 1 << 20
"""How many bytes are written at once."""

PARALLEL: Final = 4
"""Writes under way at once: what keeps a disk busy without keeping it from anything else."""

_PAGE: Final = 4096
_FROM: Final = 4 << 20
"""Smaller files go through the page cache: the last, partial page costs more than it saves."""

_DIRECT: Final[int] = getattr(os, "O_DIRECT", 0)


def buffer() -> memoryview:
    """Aligned memory for a step, with a page to spare behind it."""
    return memoryview(mmap.mmap(-1, STEP + _PAGE))


class Source:
    """Pieces of any size, read as one stream."""

    def __init__(self, pieces: Iterable[Buffer]) -> None:
        self._pieces = iter(pieces)
        self._piece = memoryview(b"")

    def read_into(self, target: memoryview) -> int:
        """Fill `target`; returns how many bytes, which are fewer than it holds only at the end of the stream."""
        count = 0
        while count < len(target):
            if not self._piece:
                following = next(self._pieces, None)
                if following is None:
                    break
                self._piece = memoryview(following).cast("B")
                continue
            size = min(len(target) - count, len(self._piece))
            target[count : count + size] = self._piece[:size]
            self._piece = self._piece[size:]
            count += size
        return count


class Output:
    """A new file that is written from its beginning to its end.

    Args:
        fd: the open file, empty; it stays the caller's to close.
        nbytes: how big it will be.
    """

    def __init__(self, fd: int, nbytes: int) -> None:
        self._fd = fd
        self._written = 0
        self._direct = False
        if nbytes >= _FROM and _DIRECT:
            with contextlib.suppress(OSError):  # not on this file system
                self._set(_DIRECT)
                self._direct = True

    def write(self, data: memoryview, count: int) -> None:
        """Write the first `count` bytes of a `buffer()`: a step of them, or fewer at the end.

        Raises:
            OSError: the disk is full, read-only or failing.
        """
        try:
            files.write_all(self._fd, data[: -(-count // _PAGE) * _PAGE if self._direct else count])
        except OSError as err:
            if err.errno != errno.EINVAL or not self._direct:
                raise
            # This file system takes the flag and then refuses to write.
            self._direct = False
            self._set(0)
            os.lseek(self._fd, self._written, os.SEEK_SET)
            files.write_all(self._fd, data[:count])
        self._written += count

    def end(self) -> None:
        """Cut the file to its size."""
        os.ftruncate(self._fd, self._written)

    def _set(self, flag: int) -> None:
        fcntl.fcntl(self._fd, fcntl.F_SETFL, fcntl.fcntl(self._fd, fcntl.F_GETFL) & ~_DIRECT | flag)
