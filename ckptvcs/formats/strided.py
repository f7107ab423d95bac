"""A view of a storage (offset, shape, strides) as a leaf: how PyTorch sees a tensor, for readers with and without it.

The bytes of a leaf are always written in logical order, so that every program reads the same tensor from a shard. What
the order in memory was is kept beside it, because an exact resume may depend on it: `stride` for a permuted tensor
(`channels_last`), `expand` for one that repeats its elements. A slice with gaps comes back contiguous.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.errors import HostileInput, UnsupportedValue
from ckptvcs.formats import dtypes
from ckptvcs.formats.leaf import Leaf, Span

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from typing_extensions import Buffer

Ints = tuple[int, ...]


def contiguous_strides(shape: Ints) -> Ints:
    """The strides, in elements, of a C-contiguous tensor of this shape."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def is_contiguous(shape: Ints, strides: Ints) -> bool:
    """Whether elements lie one behind the other in logical order. The stride of a dimension of one element is free."""
    expected = contiguous_strides(shape)
    return all(size == 1 or a == b for size, a, b in zip(shape, strides, expected, strict=True))


def is_dense(shape: Ints, strides: Ints) -> bool:
    """Whether the elements fill their range of memory without gap or overlap, in whatever order."""
    step = 1
    for stride, size in sorted((st, sz) for st, sz in zip(strides, shape, strict=True) if sz != 1):
        if stride != step:
            return False
        step *= size
    return True


def extent(shape: Ints, strides: Ints) -> int:
    """Elements between the first and the last one that the view touches, both included; 0 for an empty view."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


def leaf_of_view(
    dtype: str,
    shape: Ints,
    strides: Ints,
    *,
    start: int,
    storage: Storage,
    attrs: Mapping[str, Any],
) -> Leaf:
    """Make the leaf of one view of a storage.

    Args:
        dtype: name of the element type.
        shape: logical shape.
        strides: in elements, none negative.
        start: offset of the first element in the storage, in bytes.
        storage: what the view looks at.
        attrs: goes to `Leaf.attrs`, with `stride` and `expand` added where they are needed.

    Raises:
        HostileInput: the view reaches beyond its storage.
        UnsupportedValue: it has more elements than the storage, because they overlap.
    """
    size = dtypes.itemsize(dtype)
    stop = start + extent(shape, strides) * size
    if start < 0 or stop > storage.nbytes or min((*shape, *strides), default=0) < 0:
        raise HostileInput("cannot read a tensor", why=f"a tensor reaches beyond its storage of {storage.nbytes} bytes")
    attrs, logical = dict(attrs), shape
    if any(st == 0 and sz > 1 for sz, st in zip(shape, strides, strict=True)):
        attrs["expand"] = list(shape)
        shape = tuple(1 if st == 0 else sz for sz, st in zip(shape, strides, strict=True))
    if math.prod(shape) * size > storage.nbytes:
        # Written out, a file of a megabyte could be terabytes.
        raise UnsupportedValue(
            "cannot represent a tensor", why=f"{list(logical)} are more elements than its storage has"
        )
    if math.prod(shape) and not is_contiguous(shape, strides) and is_dense(shape, strides):
        attrs["stride"] = list(strides)
    span = Span(storage=storage.key, start=start, stop=stop, strides=strides, shape=logical, read=storage.read)
    return Leaf(
        dtype=dtype,
        shape=shape,
        read=lambda: _gather(storage.read(start, stop), size, shape, strides),
        attrs=attrs,
        span=span if math.prod(shape) else None,
        release=lambda: storage.release(start, stop),
        forget=_forget(storage, start) if storage.is_file and is_contiguous(shape, strides) else None,
    )


def _forget(storage: Storage, start: int) -> Callable[[int, int], None]:
    return lambda first, last: storage.release(start + first, start + last)


class Storage:
    """Bytes that several tensors may look at.

    Args:
        key: equal for equal storages alone.
        nbytes: how many there are.
        read: gives the bytes between two offsets.
        release: says that those bytes are not needed for now; None where they are not read from a file.
    """

    __slots__ = ("is_file", "key", "nbytes", "read", "release")

    def __init__(
        self,
        key: Hashable,
        nbytes: int,
        read: Callable[[int, int], Buffer],
        release: Callable[[int, int], None] | None = None,
    ) -> None:
        self.key, self.nbytes, self.read = key, nbytes, read
        self.is_file = release is not None
        self.release = release or (lambda _, __: None)


def negated(storage: Storage, dtype: str, *, imaginary: bool, real: bool) -> Storage | None:
    """A storage as torch reads it through its lazy conjugation and negation, or None for types that have neither.

    Args:
        storage: what lies in memory.
        dtype: the type of its elements.
        imaginary: whether the sign of the imaginary parts is turned round.
        real: whether that of all other numbers is.
    """
    parts = _SIGNED.get(dtype)
    if parts is None:
        return None
    width = dtypes.itemsize(dtype) // parts
    signs = [(1 << 8 * width - 1) * wanted for wanted in ((real, imaginary) if parts == 2 else (real,))]

    def read(start: int, stop: int) -> Buffer:
        import numpy as np

        data = memoryview(storage.read(start, stop))
        if not data.nbytes:
            return data
        # Of the bits, because the sign of a NaN turns round like any other.
        bits: Any = np.frombuffer(data, dtype=f"<u{width}").reshape(-1, parts)
        turned: Any = bits ^ np.array(signs, bits.dtype)
        return memoryview(turned).cast("B")

    return Storage(
        (storage.key, dtype, imaginary, real), storage.nbytes, read, storage.release if storage.is_file else None
    )


_SIGNED: Final = {"F16": 1, "BF16": 1, "F32": 1, "F64": 1, "C32": 2, "C64": 2, "C128": 2}
"""Types whose first bit is a sign, and of how many numbers an element is made."""


def _gather(data: Buffer, itemsize: int, shape: Ints, strides: Ints) -> Buffer:
    """The elements in logical order; no copy where they lie so already."""
    if is_contiguous(shape, strides) or 0 in shape:
        return data
    import numpy as np

    elements: Any = np.frombuffer(memoryview(data), dtype=np.dtype((np.void, itemsize)))
    steps = tuple(stride * itemsize for stride in strides)
    view = np.lib.stride_tricks.as_strided(elements, shape=shape, strides=steps, writeable=False)
    gathered: Any = np.ascontiguousarray(view)
    return memoryview(gathered).cast("B")
