"""The arithmetic of merging, against figures worked out by hand and against NumPy on whole tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ckptvcs.formats.leaf import Leaf
from ckptvcs.formats.merged import BLOCK, merged_leaf
from ckptvcs.formats.merging import Method, Slerp, Ties, Weighted, ema_weights


def leaf(values: Sequence[float] | np.ndarray, kind: str = "<f4") -> Leaf:
    data = np.asarray(values, kind).tobytes()
    return Leaf(dtype={"<f4": "F32", "<f8": "F64", "<f2": "F16"}[kind], shape=(len(values),), read=lambda: data)


def merge(method: Method, *values: Sequence[float] | np.ndarray, kind: str = "<f4") -> np.ndarray:
    leaves = [leaf(v, kind) for v in values]
    return np.frombuffer(merged_leaf(leaves[0], leaves, method).read(), kind)


def noise(seed: int, size: int = 3 * BLOCK + 17) -> np.ndarray:
    """More than a few blocks, and not a whole number of them."""
    return np.random.default_rng(seed).standard_normal(size).astype("f4")


def test_weights_are_divided_by_their_sum():
    assert merge(Weighted((3.0, 1.0)), [4.0, 0.0], [0.0, 8.0]).tolist() == [3.0, 2.0]


def test_ema_is_what_stepping_through_gives():
    values, average = [5.0, 1.0, -3.0, 8.0], 5.0
    for value in values[1:]:
        average = 0.75 * average + 0.25 * value

    weights = ema_weights(4, 0.75)

    assert merge(Weighted(weights), *([v] for v in values), kind="<f8")[0] == pytest.approx(average, rel=1e-15)
    assert sum(weights) == pytest.approx(1)


def test_slerp_goes_along_the_arc():
    half = merge(Slerp(0.5), [1.0, 0.0], [0.0, 1.0], kind="<f8")

    np.testing.assert_allclose(half, [math.sqrt(0.5)] * 2, rtol=1e-15)
    np.testing.assert_allclose(merge(Slerp(1 / 3), [1.0, 0.0], [0.0, 1.0]), [math.sqrt(3) / 2, 0.5], rtol=1e-7)


def test_slerp_begins_and_ends_at_the_two():
    a, b = noise(1), noise(2)

    assert merge(Slerp(0.0), a, b).tobytes() == a.tobytes()
    assert merge(Slerp(1.0), a, b).tobytes() == b.tobytes()


@pytest.mark.parametrize("other", [[2.0, 2.0], [-1.0, -1.0], [0.0, 0.0], [math.nan, 0.0]])
def test_slerp_is_a_straight_line_where_there_is_no_angle(other: list[float]):
    np.testing.assert_array_equal(merge(Slerp(0.25), [1.0, 1.0], other), 0.75 + 0.25 * np.array(other))


def test_ties_by_hand():
    base = [1.0, 1.0, 1.0, 1.0]
    # Task vectors (3, -1, 0.1, 2), (1, 2, 0.2, -2), (-2, 2, 0.3, 0.1); of each the two largest magnitudes stay, and of
    # equals all: (3, 0, 0, 2), (0, 2, 0, -2), (-2, 2, 0, 0). Sums: 1, 4, 0, 0. Signs: +, +, none, none.
    tasks = [[4.0, 0.0, 1.1, 3.0], [2.0, 3.0, 1.2, -1.0], [-1.0, 3.0, 1.3, 1.1]]

    assert merge(Ties(0.5, 1.0), base, *tasks).tolist() == [4.0, 3.0, 1.0, 1.0]
    assert merge(Ties(0.5, 0.5), base, *tasks).tolist() == [2.5, 2.0, 1.0, 1.0]


def test_ties_of_one_task_that_is_not_trimmed_is_that_task():
    base, task = noise(1), noise(2)

    np.testing.assert_allclose(merge(Ties(1.0, 1.0), base, task), task, rtol=1e-6)


def test_what_is_no_number_does_not_vanish_in_a_vote():
    found = merge(Ties(1.0, 1.0), [0.0, 0.0], [math.nan, 1.0], [1.0, 1.0])

    assert math.isnan(found[0])
    assert found[1] == 1.0


def test_blocks_do_not_show():
    values = [noise(n) for n in range(4)]
    doubles = [v.astype("f8") for v in values]

    mean = np.mean(doubles[1:], axis=0).astype("f4")
    np.testing.assert_array_equal(merge(Weighted((1.0,) * 3), *values[1:]), mean)
    np.testing.assert_array_equal(merge(Ties(0.2, 0.7), *values), ties(doubles, 0.2, 0.7).astype("f4"))
    np.testing.assert_allclose(merge(Slerp(0.3), *values[:2]), slerp(doubles, 0.3).astype("f4"), rtol=1e-6)


def ties(values: Sequence[np.ndarray], density: float, scale: float) -> np.ndarray:
    """TIES on whole tensors, step by step as in the paper."""
    base, *tasks = values
    vectors = []
    for task in tasks:
        vector = task - base
        keep = math.ceil(density * vector.size)
        edge = np.sort(np.abs(vector))[-keep]
        vectors.append(np.where(np.abs(vector) >= edge, vector, 0))
    sign = np.sign(np.sum(vectors, axis=0))
    agree = [(np.sign(v) == sign) & (v != 0) for v in vectors]
    total = np.sum([np.where(a, v, 0) for a, v in zip(agree, vectors, strict=True)], axis=0)
    return base + scale * (total / np.maximum(np.sum(agree, axis=0), 1))


def slerp(values: Sequence[np.ndarray], t: float) -> np.ndarray:
    a, b = values[:2]
    angle = math.acos(float(a @ b) / (np.linalg.norm(a) * np.linalg.norm(b)))
    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)


@pytest.mark.parametrize("method", [Weighted((1.0, 2.0)), Slerp(0.3), Ties(0.3, 1.0)], ids=lambda m: type(m).__name__)
def test_any_number_of_threads_gives_the_same_bytes(method: Method):
    leaves = [leaf(noise(n)) for n in (1, 2)]

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: merged_leaf(leaves[0], leaves, method).read(), range(16)))

    assert len(found) == 1


def test_pieces_may_be_asked_for_again_and_are_the_same():
    leaves = [leaf(noise(n)) for n in (1, 2, 3)]
    merged = merged_leaf(leaves[0], leaves, Ties(0.2, 1.0))

    first = b"".join(map(bytes, merged.pieces()))

    assert b"".join(map(bytes, merged.pieces())) == first == merged.read()
    assert len(first) == merged.nbytes


def test_half_precision_is_rounded_once():
    # 1 + 2^-10 is the number after 1. Added in half precision one by one, the two small ones would vanish.
    assert merge(Weighted((1.0,) * 3), [2048.0], [1.0], [1.0], kind="<f2")[0] == np.float16(2050 / 3)


def test_an_empty_tensor_is_empty():
    assert merge(Ties(0.2, 1.0), [], [], []).size == 0
