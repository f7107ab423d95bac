"""A leaf whose bytes are computed from those of others when they are read, block by block: nothing is held in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ckptvcs.formats import dtypes
from ckptvcs.formats.numbers import count, numbers, rounded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ckptvcs.formats.leaf import Leaf
    from ckptvcs.formats.merging import Method

BLOCK: Final = 1 << 16
"""Elements that are computed at a time: they stay in the cache of a core, and the hundred shards that a large machine writes
at once hold little. It is part of the outcome of the sums that slerp takes: another number may give other last bits."""


def merged_leaf(like: Leaf, inputs: Sequence[Leaf], method: Method) -> Leaf:
    """A leaf that is like `like` but for its bytes, which `method` makes of those of `inputs`.

    Args:
        like: says type, shape and attributes.
        inputs: in the order that the method takes them; of the type and shape of `like`.
        method: how.
    """
    tensor = _Merged(like, inputs, method)
    return replace(
        like, read=tensor.read, release=tensor.release, forget=None, stream=tensor.stream, span=None, digest=None
    )


class _Merged:
    def __init__(self, like: Leaf, inputs: Sequence[Leaf], method: Method) -> None:
        self._like, self._inputs, self._method = like, inputs, method
        self._combine: Callable[[Sequence[Any]], Any] | None = None

    @property
    def count(self) -> int:
        return len(self._inputs)

    @property
    def size(self) -> int:
        return count(self._like.dtype, self._like.nbytes)

    def read(self) -> bytes:
        return b"".join(self.stream())

    def stream(self) -> Iterator[memoryview]:
        if not self._like.nbytes:
            return
        if self._combine is None:
            self._combine = self._method.prepare(self)  # what it found out holds for every later reading
        for arrays in self.blocks():
            with np.errstate(all="ignore"):  # what is too large becomes infinite, what is no number stays none
                combined = self._combine(arrays)
            piece = rounded(self._like.dtype, combined)
            del arrays, combined  # many streams wait here at the same time
            yield piece

    def blocks(self, *which: int) -> Iterator[list[Any]]:
        dtype, step = self._like.dtype, BLOCK * dtypes.itemsize(self._like.dtype)
        inputs = [self._inputs[i] for i in which] if which else self._inputs
        data = [memoryview(leaf.read()).cast("B") for leaf in inputs]
        for start in range(0, self._like.nbytes, step):
            arrays = [numbers(dtype, view[start : start + step]) for view in data]
            self.release()  # the pages of a mapped file that was read count as our memory
            yield arrays

    def release(self) -> None:
        for leaf in self._inputs:
            leaf.release()
