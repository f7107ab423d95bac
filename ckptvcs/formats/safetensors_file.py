"""The safetensors file format: a header written with deterministic bytes, and read without believing it.

Layout (https://github.com/huggingface/safetensors#format): 8 bytes little-endian length of the header, the header as JSON
padded with blanks, then the tensors. We write our own header because the bytes of a shard must be the same on every
machine and version, and read it ourselves because we need offsets, not copies; a test holds that the official library
reads what we write and that we read what it writes.
"""

from __future__ import annotations

import itertools
import json
import operator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.errors import FormatError, HostileInput
from ckptvcs.formats import dtypes
from ckptvcs.paths import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Buffer

MAX_HEADER: Final = 100_000_000
"""The bound of the official reader: more is a lie or an attempt to make us allocate."""

METADATA: Final = "__metadata__"
"""The one key of a header that is no tensor."""

_FORMAT: Final = {"format": "pt"}
"""transformers refuses a file without it."""


_MAX_COUNT: Final = (1 << 63) - 1
"""Elements of a tensor, of an empty one too, where the sizes before the 0 are multiplied first."""

_DATA_ALIGNMENT: Final = 64
"""Where the tensors begin, so that one in a memory map is aligned for every instruction of a processor."""


@dataclass(frozen=True, slots=True)
class Spec:
    """Type and shape of a tensor as a header names them."""

    dtype: str
    shape: tuple[int, ...]
    alignment: int = field(default=0, compare=False)
    """Address that its bytes need to be a multiple of, where it is not the size of an element."""

    @property
    def nbytes(self) -> int:
        return dtypes.nbytes(self.dtype, self.shape)


@dataclass(frozen=True, slots=True)
class Slot:
    """A tensor in a file: its spec and its bytes `[start, stop)`, counted from the beginning of the file."""

    spec: Spec
    start: int
    stop: int


def stored_spec(dtype: str, shape: tuple[int, ...], alignment: int = 0) -> Spec:
    """How a tensor is written: as itself where safetensors has its type, else as bytes with one more dimension."""
    if dtype in dtypes.SAFETENSORS:
        return Spec(dtype, shape, alignment)
    size = dtypes.itemsize(dtype)
    return Spec("U8", (*shape, size), size if size in (2, 4, 8, 16) else 1)


def write_order(specs: Mapping[str, Spec]) -> list[str]:
    """The order of tensors in a file: widest alignment first, so that every tensor has its own; then by name."""
    return sorted(specs, key=lambda name: (-(specs[name].alignment or dtypes.itemsize(specs[name].dtype)), name))


def header(specs: Mapping[str, Spec], metadata: Mapping[str, str] | None = None) -> bytes:
    """The first bytes of a file with these tensors in `write_order`, the length field included.

    Args:
        specs: the tensors, by name.
        metadata: what the file shall say beside them.

    Raises:
        FormatError: a name is no Unicode text, or there are so many that no reader takes the header.
    """
    entries: dict[str, Any] = {METADATA: {**_FORMAT, **(metadata or {})}}
    end = 0
    for name in write_order(specs):
        start, end = end, end + specs[name].nbytes
        entries[name] = {"dtype": specs[name].dtype, "shape": specs[name].shape, "data_offsets": [start, end]}
        if not _is_text(name):
            raise _cannot_write(f"the name {name!r} of a tensor is no Unicode text", "give the tensor another name")
    text = json.dumps(entries, separators=(",", ":")).encode("ascii")
    text += b" " * (-(8 + len(text)) % _DATA_ALIGNMENT)
    if len(text) > MAX_HEADER:
        raise _cannot_write(
            f"its header would have {len(text)} bytes, at most {MAX_HEADER} are read", "join small tensors"
        )
    return len(text).to_bytes(8, "little") + text


def read_header(data: Buffer, *, file: str) -> dict[str, Slot]:
    """Return the tensors of a file, in the order of their bytes.

    Args:
        data: the whole file; it may be a memory map, only the header is touched.
        file: its name, for the error.

    Raises:
        FormatError: this is no safetensors file, or one whose header does not describe its bytes.
    """
    view = memoryview(data).cast("B")
    length = int.from_bytes(view[:8], "little")
    if len(view) < 8 or length > MAX_HEADER or 8 + length > len(view):
        raise _bad(file, f"its header claims {length} bytes, the file has {len(view)}")
    entries = _parse(bytes(view[8 : 8 + length]), file)
    slots = {name: _slot(name, entry, 8 + length, file) for name, entry in entries.items() if name != METADATA}
    return _contiguous(slots, 8 + length, len(view), file)


def read_metadata(data: Buffer, *, file: str) -> dict[str, str]:
    """Return the `__metadata__` of a file whose header `read_header` accepts."""
    view = memoryview(data).cast("B")
    entries = _parse(bytes(view[8 : 8 + int.from_bytes(view[:8], "little")]), file)
    metadata: dict[str, str] = entries.get(METADATA, {})
    return metadata


def _parse(text: bytes, file: str) -> dict[str, Any]:
    """The header as JSON, as strict as the official reader, so that no file means one thing here and another there."""
    try:
        entries = json.loads(
            str(text, "utf-8"),
            object_pairs_hook=_no_duplicates,
            parse_constant=_no_constant,
            parse_int=_no_sign if b"-0" in text else None,
        )
    except (ValueError, RecursionError) as err:
        raise _bad(file, f"its header is no JSON ({printable(str(err)[:80])})") from err
    if not isinstance(entries, dict) or not isinstance(entries.get(METADATA, {}), dict):
        raise _bad(file, "its header is not an object")
    metadata = entries.get(METADATA, {})
    if not all(isinstance(value, str) and _is_text(value) for value in metadata.values()):
        raise _bad(file, "its metadata is not made of text")
    return entries


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _no_sign(number: str) -> int:
    if number.startswith("-"):  # else -0 would be 0
        raise ValueError(f"{number} is no size")
    return int(number)


def _is_text(value: str) -> bool:
    """Whether this is Unicode text, which half a surrogate pair is not."""
    try:
        return value.isascii() or bool(value.encode("utf-8"))
    except UnicodeEncodeError:
        return False


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a key stands there twice")
    if not all(map(_is_text, out)):
        raise ValueError("a key is no Unicode text")
    return out


def _slot(name: str, entry: Any, base: int, file: str) -> Slot:
    try:
        dtype, shape, (start, stop) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        numbers = (*shape, start, stop)
        if dtype not in dtypes.SAFETENSORS or any(type(n) is not int or n < 0 for n in numbers):
            raise ValueError(f"{dtype!r} {shape}")
        if any(n > _MAX_COUNT for n in (*shape, *itertools.accumulate(shape, operator.mul))):
            raise ValueError(f"shape {shape} is too large")
        spec = Spec(dtype, shape)
        if spec.nbytes != stop - start:
            raise ValueError(f"{spec.nbytes} bytes by its shape, {stop - start} by its offsets")
    except (KeyError, TypeError, ValueError) as err:
        raise _bad(file, f"tensor '{printable(name)}' is malformed ({printable(str(err))})") from err
    return Slot(spec, base + start, base + stop)


def _contiguous(slots: dict[str, Slot], start: int, size: int, file: str) -> dict[str, Slot]:
    """The slots by offset, if they fill the file without gap or overlap."""
    ordered = dict(sorted(slots.items(), key=lambda item: (item[1].start, item[1].stop)))
    for name, slot in ordered.items():
        if slot.start != start:
            raise _bad(file, f"tensor '{printable(name)}' leaves a gap or overlaps the one before")
        start = slot.stop
    if start != size:
        raise _bad(file, f"its tensors end at byte {start}, the file at {size}")
    return ordered


def _cannot_write(why: str, next_step: str) -> FormatError:
    return FormatError("cannot write safetensors", why=why, next_step=next_step)


def _bad(file: str, why: str) -> FormatError:
    return HostileInput(
        f"cannot read '{printable(file)}' as safetensors",
        why=why,
        next_step="check that the file was copied whole; write it again if not",
        file=file,
    )
