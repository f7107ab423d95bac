"""How several tensors of one shape become one: pure arithmetic on arrays, block by block.

A *method* looks at a tensor first, as often as it needs (`prepare`), and then combines it one block of elements at a time.
Sums are taken in the order of the inputs, on the calling thread alone, over blocks of a fixed size: the same inputs give
the same bytes on every machine, with any number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

_PARALLEL: Final = 0.9995
"""Beyond this cosine two tensors are interpolated along a straight line: the sine that slerp divides by vanishes."""


Combine = Callable[[Sequence[Any]], Any]
"""Makes one array of several, which it may change."""


class Inputs(Protocol):
    """The inputs of one tensor."""

    @property
    def count(self) -> int:
        """How many there are."""

    @property
    def size(self) -> int:
        """Numbers in each of them."""

    def blocks(self, *which: int) -> Iterable[Sequence[Any]]:
        """The blocks from the first to the last, each with one array for each input, or for each of those numbered."""


class Method(Protocol):
    """A way to merge."""

    @property
    def keeps_equal(self) -> bool:
        """Whether equal inputs are the outcome, bit for bit."""

    def prepare(self, inputs: Inputs) -> Combine:
        """Look at one tensor; return what combines a block of it."""


@dataclass(frozen=True, slots=True)
class Weighted:
    """The weighted mean: the sum of `w_i x_i`, divided by the sum of `w_i`.

    Equal weights make the uniform soup of Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models
    improves accuracy without increasing inference time", ICML 2022.
    """

    weights: tuple[float, ...]

    keeps_equal = True

    def prepare(self, inputs: Inputs) -> Combine:  # noqa: ARG002
        return self._combine

    def _combine(self, arrays: Sequence[Any]) -> Any:
        total: Any = None
        for weight, array in zip(self.weights, arrays, strict=True):
            if weight != 1:
                np.multiply(array, array.dtype.type(weight), out=array)
            total = array if total is None else np.add(total, array, out=total)
        total /= total.dtype.type(math.fsum(self.weights))
        return total


def ema_weights(count: int, decay: float) -> tuple[float, ...]:
    """The weight of each of `count` checkpoints, oldest first, in an exponential moving average.

    `a_0 = x_0`, `a_i = decay a_(i-1) + (1 - decay) x_i`, written out: Polyak and Juditsky, "Acceleration of stochastic
    approximation by averaging", SIAM 1992, with the exponential window that training loops use.
    """
    return (decay ** (count - 1), *((1 - decay) * decay ** (count - 1 - i) for i in range(1, count)))


@dataclass(frozen=True, slots=True)
class Slerp:
    """Spherical linear interpolation between two tensors, each taken as one vector.

    `sin((1-t) w) / sin(w) a + sin(t w) / sin(w) b`, with `w` the angle between them: Shoemake, "Animating rotation with
    quaternion curves", SIGGRAPH 1985. Where they are nearly parallel or opposed, or one of them is zero: `(1-t) a + t b`.
    """

    t: float

    keeps_equal = True

    def prepare(self, inputs: Inputs) -> Combine:
        one, other = self.factors(inputs.blocks())

        def combine(arrays: Sequence[Any]) -> Any:
            a, b = arrays
            return a.dtype.type(one) * a + b.dtype.type(other) * b

        return combine

    def factors(self, blocks: Iterable[Sequence[Any]]) -> tuple[float, float]:
        """What each of the two is multiplied by."""
        dot: list[float] = []
        first: list[float] = []
        second: list[float] = []
        for a, b in blocks:
            x, y = a.astype(np.float64), b.astype(np.float64)
            # Not `np.dot`, whose sum depends on the number of threads.
            for total, product in ((dot, x * y), (first, x * x), (second, y * y)):
                total.append(float(np.sum(product)))
        norm = math.sqrt(math.fsum(first)) * math.sqrt(math.fsum(second))
        cosine = math.fsum(dot) / norm if norm else 1.0
        if not abs(cosine) <= _PARALLEL:
            return 1 - self.t, self.t
        angle = math.acos(cosine)
        return math.sin((1 - self.t) * angle) / math.sin(angle), math.sin(self.t * angle) / math.sin(angle)


@dataclass(frozen=True, slots=True)
class Ties:
    """TIES: Yadav et al., "TIES-Merging: resolving interference when merging models", NeurIPS 2023 (arXiv 2306.01708).

    The first input is the base; the difference of each other one to it is its task vector. **Trim**: of each task vector
    the `density` largest by magnitude stay, the others are zero. **Elect**: the sign of an element is that of the sum of
    what stayed. **Disjoint mean**: the mean of the values that stayed and have that sign. The outcome is `scale` (the
    lambda of the paper) times that, added to the base.

    Trimming is by tensor, as mergekit does it, where the paper takes all tensors as one vector. Of values that are
    equally large at the edge all stay. Where the sum is exactly zero, no sign is elected and the base stays.
    """

    density: float
    scale: float

    keeps_equal = False

    def prepare(self, inputs: Inputs) -> Combine:
        edges = [self._edge(inputs, task) for task in range(1, inputs.count)]

        def combine(arrays: Sequence[Any]) -> Any:
            base, *tasks = arrays
            vectors = [task - base for task in tasks]
            for vector, edge in zip(vectors, edges, strict=True):
                np.multiply(vector, np.abs(vector) >= edge, out=vector)
            return base + base.dtype.type(self.scale) * _disjoint_mean(vectors)

        return combine

    def _edge(self, inputs: Inputs, task: int) -> Any:
        """The smallest magnitude that stays of one task vector, which is in memory as a whole for this."""
        sizes: Any = None
        start = 0
        for base, tuned in inputs.blocks(0, task):
            sizes = np.empty(inputs.size, base.dtype) if sizes is None else sizes
            np.abs(tuned - base, out=sizes[start : start + len(base)])
            start += len(base)
        drop = len(sizes) - max(1, math.ceil(self.density * len(sizes)))
        sizes.partition(drop)
        return sizes[drop]


def _disjoint_mean(vectors: Sequence[Any]) -> Any:
    total = vectors[0].copy()
    for vector in vectors[1:]:
        total += vector
    up = total > 0
    chosen, count = np.zeros_like(total), np.zeros_like(total)
    for vector in vectors:
        part = np.where(up, np.maximum(vector, 0), np.minimum(vector, 0))
        chosen += part
        count += part != 0
    chosen *= total != 0  # what cancels out elects nobody; what is no number stays none
    return np.divide(chosen, np.maximum(count, 1), out=chosen)
