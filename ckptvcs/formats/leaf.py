"""What stands at the end of a branch of a state: a tensor whose bytes can be read, or a stand-in of torch's small types.

Nothing here knows torch, so that a checkpoint file can be read, stored and compared without it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from ckptvcs.formats import dtypes
from ckptvcs.formats.tree.nodes import NAMESPACES

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping

    from typing_extensions import Buffer

PIECE: Final = 16 << 20
"""Of a file that is read where it lies, so much of a tensor counts as our memory at a time."""

Kind = Literal["tensor", "ndarray", "bytes", "bytearray"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The part of a storage that a leaf looks at: how tied tensors are found.

    Two leaves with equal spans are one tensor. Two leaves whose byte ranges in one storage meet share memory.
    """

    storage: Hashable
    """Equal for two leaves if and only if they look at the same storage."""
    start: int
    """First byte within the storage, inclusive."""
    stop: int
    """Last byte within the storage, exclusive."""
    strides: tuple[int, ...]
    """In elements, as they are in memory."""
    shape: tuple[int, ...]
    """As it is in memory, before a repeated dimension was narrowed."""
    read: Callable[[int, int], Buffer]
    """Gives the bytes of the storage between two offsets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A tensor (or array, or long byte string) of a state: what it is, and a way to its bytes.

    Guarantees: `read()` gives exactly `nbytes` bytes, C-contiguous and little-endian, the same ones at every call
    for as long as the owner of the state leaves it alone. `release()` may be called after each use; it gives memory back.
    """

    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], Buffer]
    kind: Kind = "tensor"
    attrs: Mapping[str, Any] = field(default_factory=dict)
    """JSON values that loading needs beside the bytes: `requires_grad`, `parameter`, `stride`, `expand`, `device`."""
    span: Span | None = None
    release: Callable[[], None] = lambda: None
    forget: Callable[[int, int], None] | None = None
    """The same for the bytes between two offsets, where they lie in a file as `read()` gives them."""
    on_device: Any = None
    """A contiguous tensor with these very bytes in the memory of an accelerator, for who can copy from there by itself."""
    alignment: int = 0
    """For bytes that tensors of wider types look at: the alignment that those need; 0 is that of the type."""
    stream: Callable[[], Iterator[Buffer]] | None = None
    """Gives the same bytes as `read` piece by piece, where they are computed and the whole need not be in memory."""

    digest: str | None = None
    """The BLAKE3 of the bytes, where it is known without reading them."""

    def pieces(self) -> Iterator[Buffer]:
        """The bytes, in as many pieces as it takes; memory is given back behind each where that can be, and behind the last."""
        if self.stream is not None:
            yield from self.stream()
        elif self.forget is not None and self.nbytes > PIECE:
            data = memoryview(self.read()).cast("B")
            for start in range(0, self.nbytes, PIECE):
                stop = min(start + PIECE, self.nbytes)
                yield data[start:stop]
                self.forget(start, stop)
        else:
            yield self.read()
        self.release()

    @property
    def nbytes(self) -> int:
        return dtypes.nbytes(self.dtype, self.shape)


@dataclass(frozen=True, slots=True)
class TorchAtom:
    """One of torch's small values, without torch: `Size`, `dtype`, `device`, `layout`, `memory_format`."""

    type: Literal["size", "dtype", "device", "layout", "memory_format"]
    value: Any
    """A tuple of integers for a size; else torch's own name of it, such as `float32` or `cuda:0`."""


class Inert:
    """What was read of an object that has no representation in a state.

    No ABC, for the reason of `foreign.unpickle.Pending`: every value is asked whether it is one.
    """

    __slots__ = ()

    def named(self) -> str:
        """What the program that wrote it calls it."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Opaque(Inert):
    """An object whose class is not on the allow-list. It was never made; only its class is known."""

    qualname: str

    def named(self) -> str:
        return self.qualname


def find_opaque(value: Any) -> Inert | None:
    """The first object without representation, anywhere in nested containers and their attributes, or None."""
    stack, seen = [value], set[int]()
    while stack:
        item = stack.pop()
        if isinstance(item, Inert):
            return item
        if id(item) not in seen:
            seen.add(id(item))
            stack.extend(_within(item))
    return None


def _within(item: Any) -> Iterator[Any]:
    if isinstance(item, (dict, list, tuple, set, frozenset)):
        yield from item
    if isinstance(item, dict):
        yield from dict.values(item)  # attributes of an `OrderedDict` may hide its methods
    if isinstance(item, OrderedDict) or f"{type(item).__module__}.{type(item).__qualname__}" in NAMESPACES:
        yield from vars(item).values()
