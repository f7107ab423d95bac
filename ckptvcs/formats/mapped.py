"""A file as memory: read where it lies, given back piece by piece."""

from __future__ import annotations

import io
import mmap
from typing import TYPE_CHECKING, Any, BinaryIO

from ckptvcs.formats.strided import Storage

if TYPE_CHECKING:
    from collections.abc import Hashable
    from pathlib import Path


class Part:
    """A range of a mapped file, with what lies in it counted from its beginning.

    Args:
        file: the file.
        start: the first byte.
        length: how many there are.
    """

    def __init__(self, file: MappedFile, start: int, length: int) -> None:
        self._file, self._start = file, start
        self.view = file.view[start : start + length]
        self.identity = (id(file), start)

    @classmethod
    def whole(cls, file: MappedFile) -> Part:
        """All of a file."""
        return cls(file, 0, len(file.view))

    def opened(self) -> BinaryIO:
        """The same bytes as a file that is read from its beginning to its end."""
        return io.BufferedReader(_Window(self.view))

    def storage(self, key: Hashable, start: int, size: int) -> Storage:
        """A part of it as a storage that tensors may look at."""
        return self._file.storage(key, self._start + start, size)


class _Window(io.RawIOBase):
    """Bytes in memory as a file, without a copy of them."""

    def __init__(self, view: memoryview) -> None:
        super().__init__()
        self._view, self._at = view, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, offset + (0, self._at, len(self._view))[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), max(0, len(self._view) - self._at))
        buffer[:size] = self._view[self._at : self._at + size]
        self._at += size
        return size


class MappedFile:
    """A read-only map of a file that is not empty. It lives for as long as anything looks into it.

    Raises:
        OSError, ValueError: the file cannot be opened, or is empty.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.view = memoryview(self._map)

    def part(self, start: int, length: int) -> Part:
        """A range of it."""
        return Part(self, start, length)

    def storage(self, key: Hashable, start: int, size: int) -> Storage:
        """A part of the file as a storage that tensors may look at."""
        part = self.view[start : start + size]
        return Storage(
            key,
            size,
            lambda first, last: part[first:last],
            lambda first, last: self.forget(start + first, start + last),
        )

    def forget(self, start: int, stop: int) -> None:
        """Give the pages of a range back: read once, a big file would else count as our memory until the end."""
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        length = stop // mmap.PAGESIZE * mmap.PAGESIZE - first
        if length > 0 and hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_DONTNEED, first, length)
