"""What a file is, by its first bytes and its name. Whether all of it is sound is for those to say who read it."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from ckptvcs.formats import safetensors_file

if TYPE_CHECKING:
    from collections.abc import Iterator

ENOUGH: Final = 1 << 16
"""Bytes from which `raw_checkpoint` sees what there is to see."""

LEGACY_MAGIC: Final = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"
"""What torch wrote first before version 1.6."""

_SUFFIXES: Final = (".pt", ".pth", ".ckpt", ".safetensors")
"""`.bin` is what checkpoints are called too, and much else: there the bytes decide alone."""

_RECORD: Final = b"PK\x03\x04"
_LOCAL_HEADER: Final = struct.Struct("<4s5H3I2H")


def raw_checkpoint(name: str, head: bytes, nbytes: int) -> str | None:
    """What a file is if it looks like a checkpoint that a training wrote, in words; else None. Nothing is unpickled.

    Args:
        name: of the file.
        head: its first bytes, `ENOUGH` of them if it has so many.
        nbytes: its size.
    """
    if any(record == "data.pkl" or record.endswith("/data.pkl") for record in _records(head)):
        return "a torch checkpoint"
    if head.startswith(LEGACY_MAGIC):
        return "a torch checkpoint of before version 1.6"
    if looks_like_safetensors(head, nbytes):
        return "a safetensors file"
    return "named as a checkpoint" if name.lower().endswith(_SUFFIXES) else None


def looks_like_safetensors(head: bytes, nbytes: int) -> bool:
    """Whether a file begins as a safetensors file does."""
    length = int.from_bytes(head[:8], "little")
    return len(head) > 8 and head[8:9] == b"{" and length <= min(nbytes - 8, safetensors_file.MAX_HEADER)


def _records(head: bytes) -> Iterator[str]:
    """The names of the records of a zip archive that begin in these bytes."""
    at = 0 if head.startswith(_RECORD) else -1
    while at >= 0 and at + _LOCAL_HEADER.size <= len(head):
        *_, length, _ = _LOCAL_HEADER.unpack_from(head, at)
        start = at + _LOCAL_HEADER.size
        yield head[start : start + length].decode("utf-8", "replace")
        at = head.find(_RECORD, start)
