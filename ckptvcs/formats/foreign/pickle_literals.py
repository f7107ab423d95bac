"""The opcodes of a pickle that are plain values: numbers, text, byte strings, empty containers.

Each reads its argument from the pickle and gives the value. What is done with values is told by `unpickle`.
"""

from __future__ import annotations

import codecs
import struct
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

U8: Final = struct.Struct("<B")
U16: Final = struct.Struct("<H")
U32: Final = struct.Struct("<I")
U64: Final = struct.Struct("<Q")
_I32: Final = struct.Struct("<i")
_F64: Final = struct.Struct(">d")


class Input:
    """The bytes of a pickle, and how far they are read."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.position = 0

    def take(self, size: int) -> memoryview:
        """The next `size` bytes; nothing is allocated for a size that the pickle does not have."""
        end = self.position + size
        if size < 0 or end > len(self.data):
            raise ValueError(f"{size} bytes claimed, {len(self.data) - self.position} left")
        piece = self.data[self.position : end]
        self.position = end
        return piece

    def number(self, layout: struct.Struct) -> Any:
        """The next number."""
        value = layout.unpack_from(self.data, self.position)[0]
        self.position += layout.size
        return value

    def line(self) -> bytes:
        """What stands before the next line feed."""
        size = 256  # names are short; text of protocol 0 may be long
        while True:
            window = bytes(self.data[self.position : self.position + size])
            end = window.find(b"\n")
            if end >= 0:
                self.position += end + 1
                return window[:end]
            if len(window) < size:
                raise ValueError("a line without an end")
            size *= 16


def _text(size: struct.Struct) -> Callable[[Input], str]:
    return lambda source: str(source.take(source.number(size)), "utf-8", "surrogatepass")


def _old_text(size: struct.Struct) -> Callable[[Input], str]:
    # A byte string of Python 2; torch reads it as UTF-8, and so the state is the same here.
    return lambda source: str(source.take(source.number(size)), "utf-8")


def _bytes(size: struct.Struct) -> Callable[[Input], bytes]:
    return lambda source: bytes(source.take(source.number(size)))


def _fixed(layout: struct.Struct) -> Callable[[Input], Any]:
    return lambda source: source.number(layout)


def _long(size: struct.Struct) -> Callable[[Input], int]:
    return lambda source: int.from_bytes(source.take(source.number(size)), "little", signed=True)


_BOOLEANS: Final = {b"00": False, b"01": True}


def _int_line(source: Input) -> int:
    text = source.line()
    return _BOOLEANS[text] if text in _BOOLEANS else int(text)


def _quoted_line(source: Input) -> str:
    text = source.line()
    if len(text) < 2 or text[0] != text[-1] or text[:1] not in (b"'", b'"'):
        raise ValueError("a string without quotes")
    return str(codecs.escape_decode(text[1:-1])[0], "utf-8")


_BY_CODE: Final[dict[str, Callable[[Input], Any]]] = {
    "N": lambda _: None,
    "\x88": lambda _: True,
    "\x89": lambda _: False,
    "I": _int_line,
    "J": _fixed(_I32),
    "K": _fixed(U8),
    "M": _fixed(U16),
    "L": lambda source: int(source.line().rstrip(b"L")),
    "\x8a": _long(U8),
    "\x8b": _long(_I32),
    "F": lambda source: float(source.line()),
    "G": _fixed(_F64),
    "S": _quoted_line,
    "T": _old_text(_I32),
    "U": _old_text(U8),
    "V": lambda source: str(source.line(), "raw_unicode_escape"),
    "X": _text(U32),
    "\x8c": _text(U8),
    "\x8d": _text(U64),
    "B": _bytes(U32),
    "C": _bytes(U8),
    "\x8e": _bytes(U64),
    "\x96": lambda source: bytearray(source.take(source.number(U64))),
    "]": lambda _: [],
    ")": lambda _: (),
    "}": lambda _: {},
    "\x8f": lambda _: set(),
}

LITERALS: Final = [_BY_CODE.get(chr(code)) for code in range(256)]
"""By opcode: reads its value, or None where the opcode is of another kind."""
