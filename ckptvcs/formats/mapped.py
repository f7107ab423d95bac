"""A file as memory: read where it lies, given back piece by piece."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

from ckptvcs.formats.strided import Storage

if TYPE_CHECKING:
    from collections.abc import Hashable
    from pathlib import Path


class MappedFile:
    """A read-only map of a file that is not empty. It lives for as long as anything looks into it.

    Raises:
        OSError, ValueError: the file cannot be opened, or is empty.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.view = memoryview(self._map)

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
