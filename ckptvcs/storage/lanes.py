"""MD5 of several streams at once: by the registers of the processor where it has wide ones, else by hashlib.

DVC names objects by MD5, which on one stream is slower than everything else that a commit does. It is serial within a
stream and independent across streams; see `_md5lanes.c`. Both ways give plain MD5, which a test holds against hashlib.
"""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING, Final

try:
    import ckptvcs.storage._md5lanes as native

    _WIDTH = native.width()
except ImportError:  # it was installed without a C compiler
    _WIDTH = 0

if TYPE_CHECKING:
    from collections.abc import Sequence

_INITIAL: Final = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)
BLOCK: Final = 64


def width() -> int:
    """How many streams this processor hashes at once; 1 where it has to be done one by one."""
    return max(_WIDTH, 1)


def padding(nbytes: int) -> bytes:
    """What MD5 puts behind a message of `nbytes` bytes, up to a whole number of blocks (RFC 1321, sections 3.1, 3.2)."""
    return b"\x80" + bytes((55 - nbytes) % BLOCK) + struct.pack("<Q", nbytes * 8 & (1 << 64) - 1)


class Lanes:
    """The MD5 states of `width()` streams."""

    def __init__(self) -> None:
        self.width = _WIDTH
        self._state = bytearray(16 * self.width)

    def reset(self, lane: int) -> None:
        """Begin a new stream in a lane."""
        for word, value in enumerate(_INITIAL):
            struct.pack_into("=I", self._state, 4 * (word * self.width + lane), value)

    def update(self, streams: Sequence[memoryview | None], blocks: int) -> None:
        """Hash the first `blocks` blocks of each stream; None for a lane that rests. The GIL is released."""
        native.update(self._state, tuple(streams), blocks)

    def hexdigest(self, lane: int) -> str:
        """The digest of a lane that was given its padding."""
        words = [struct.unpack_from("=I", self._state, 4 * (k * self.width + lane))[0] for k in range(4)]
        return struct.pack("<4I", *words).hex()


def new() -> hashlib._Hash:
    """An ordinary MD5, for one stream."""
    return hashlib.md5(usedforsecurity=False)
