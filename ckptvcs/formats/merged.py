"""A leaf whose bytes are computed from those of others when they are read, block by block: nothing is held in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.formats import dtypes
from ckptvcs.formats.numbers import numbers, rounded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ckptvcs.formats.leaf import Leaf
    from ckptvcs.formats.merging import Method

BLOCK: Final = 1 << 18
"""Elements that are computed at a time. It is part of the outcome of sums: another number gives other last bits."""

_FORGET_EVERY: Final = 4
"""Blocks after which the pages of the inputs are given back: a mapped file that was read counts as our memory."""


def merged_leaf(like: Leaf, inputs: Sequence[Leaf], method: Method) -> Leaf:
    """A leaf that is like `like` but for its bytes, which `method` makes of those of `inputs`.

    Args:
        like: says type, shape and attributes.
        inputs: in the order that the method takes them; of the type and shape of `like`.
        method: how.
    """
    tensor = _Merged(like, inputs, method)
    return replace(like, read=tensor.read, release=tensor.release, stream=tensor.stream, span=None, digest=None)


class _Merged:
    def __init__(self, like: Leaf, inputs: Sequence[Leaf], method: Method) -> None:
        self._like, self._inputs, self._method = like, inputs, method
        self._combine: Callable[[Sequence[Any]], Any] | None = None

    def read(self) -> bytes:
        return b"".join(self.stream())

    def stream(self) -> Iterator[memoryview]:
        if not self._like.nbytes:
            return
        if self._combine is None:
            self._combine = self._method.prepare(self._blocks)  # what it found out holds for every later reading
        for arrays in self._blocks():
            yield rounded(self._like.dtype, self._combine(arrays))

    def _blocks(self) -> Iterator[list[Any]]:
        dtype, step = self._like.dtype, BLOCK * dtypes.itemsize(self._like.dtype)
        data = [memoryview(leaf.read()).cast("B") for leaf in self._inputs]
        for n, start in enumerate(range(0, self._like.nbytes, step), start=1):
            yield [numbers(dtype, view[start : start + step]) for view in data]
            if n % _FORGET_EVERY == 0:
                self.release()
        self.release()

    def release(self) -> None:
        for leaf in self._inputs:
            leaf.release()
