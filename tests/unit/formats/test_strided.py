"""A view of a storage becomes the bytes that torch would read through it, or an error that says why not."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from ckptvcs.errors import HostileInput, UnsupportedValue
from ckptvcs.formats.leaf import Leaf
from ckptvcs.formats.strided import Storage, contiguous_strides, extent, is_contiguous, is_dense, leaf_of_view

MEMORY = torch.arange(240, dtype=torch.int32)
RAW = memoryview(MEMORY.numpy()).cast("B")
STORAGE = Storage("memory", RAW.nbytes, lambda start, stop: RAW[start:stop])

VIEWS = {
    "whole": MEMORY,
    "matrix": MEMORY.view(12, 20),
    "slice": MEMORY[7:19],
    "row": MEMORY.view(12, 20)[3],
    "column": MEMORY.view(12, 20)[:, 3],
    "transposed": MEMORY.view(12, 20).t(),
    "channels last": MEMORY.view(2, 3, 4, 10).permute(0, 3, 1, 2),
    "steps": MEMORY[::7],
    "gaps": MEMORY.view(12, 20)[::2, 1::3],
    "expanded": MEMORY[:20].expand(5, 20),
    "expanded column": MEMORY.view(12, 20)[:, 3:4].expand(12, 4),
    "scalar": MEMORY[11],
    "one element": MEMORY[11:12].view(1, 1, 1),
    "empty": MEMORY[5:5],
    "empty matrix": MEMORY[:0].view(0, 7),
    "empty inside": MEMORY[:0].view(3, 0, 2),
}


def leaf(view: torch.Tensor) -> Leaf:
    start = view.storage_offset() * 4
    return leaf_of_view("I32", tuple(view.shape), view.stride(), start=start, storage=STORAGE, attrs={})


@pytest.mark.parametrize("name", VIEWS)
def test_the_bytes_are_those_that_torch_reads(name: str):
    view = VIEWS[name]

    found = leaf(view)

    narrowed = view[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in view.stride())]
    assert found.shape == tuple(narrowed.shape)
    assert bytes(found.read()) == narrowed.contiguous().numpy().tobytes()
    assert found.nbytes == narrowed.numel() * 4


@pytest.mark.parametrize(
    ("name", "attrs"),
    [
        ("whole", {}),
        ("slice", {}),
        ("steps", {}),
        ("gaps", {}),
        ("transposed", {"stride": [1, 20]}),
        ("channels last", {"stride": [120, 1, 40, 10]}),
        ("expanded", {"expand": [5, 20]}),
        ("empty matrix", {}),
    ],
)
def test_what_the_order_in_memory_was_is_kept_beside_the_bytes(name: str, attrs: dict[str, Any]):
    assert leaf(VIEWS[name]).attrs == attrs


@pytest.mark.parametrize("name", VIEWS)
def test_contiguity_is_what_torch_says(name: str):
    view = VIEWS[name]

    assert is_contiguous(tuple(view.shape), view.stride()) == view.is_contiguous()


@pytest.mark.parametrize("shape", list(itertools.permutations([0, 1, 2, 3], 3)))
def test_contiguous_strides_are_those_of_torch(shape: tuple[int, ...]):
    assert contiguous_strides(shape) == torch.empty(shape).stride()


@pytest.mark.parametrize(
    ("shape", "strides", "dense"),
    [
        ((2, 3), (3, 1), True),
        ((2, 3), (1, 2), True),
        ((2, 1, 3), (3, 99, 1), True),
        ((2, 3), (4, 1), False),
        ((2, 3), (1, 1), False),
        ((2, 3), (0, 1), False),
        ((), (), True),
    ],
)
def test_dense_means_no_gap_and_no_overlap(shape: tuple[int, ...], strides: tuple[int, ...], dense: bool):
    assert is_dense(shape, strides) is dense


@pytest.mark.parametrize(
    ("shape", "strides", "expected"),
    [((), (), 1), ((5,), (1,), 5), ((2, 3), (10, 2), 15), ((4,), (0,), 1), ((3, 0), (9, 9), 0)],
)
def test_the_extent_reaches_from_the_first_to_the_last_element(shape: Any, strides: Any, expected: int):
    assert extent(shape, strides) == expected


@pytest.mark.parametrize(
    ("shape", "strides", "start"),
    [
        ((240,), (1,), 4),
        ((241,), (1,), 0),
        ((12, 21), (20, 1), 0),
        ((1,), (1,), -4),
        ((1,), (1,), 960),
        ((2,), (-1,), 8),
        ((-1,), (1,), 0),
        ((2,), (1 << 62,), 0),
        ((1 << 62,), (1,), 0),
    ],
)
def test_a_view_beyond_its_storage_is_refused(shape: Any, strides: Any, start: int):
    with pytest.raises(HostileInput) as caught:
        leaf_of_view("I32", shape, strides, start=start, storage=STORAGE, attrs={})

    assert "960 bytes" in caught.value.why


def test_a_small_storage_cannot_claim_many_elements():
    with pytest.raises(UnsupportedValue) as caught:  # overlapping windows are no lie, only too many to write out
        leaf_of_view("I32", (100, 100), (1, 1), start=0, storage=STORAGE, attrs={})

    assert "[100, 100]" in caught.value.why


def test_a_repeated_dimension_costs_one_element():
    found = leaf_of_view("I32", (1 << 40, 3), (0, 1), start=0, storage=STORAGE, attrs={})

    assert found.nbytes == 12
    assert found.attrs["expand"] == [1 << 40, 3]


def test_memory_is_given_back_where_it_was_read():
    asked: list[tuple[int, int]] = []
    storage = Storage("x", RAW.nbytes, lambda a, b: RAW[a:b], lambda a, b: asked.append((a, b)))

    leaf_of_view("I32", (3,), (2,), start=8, storage=storage, attrs={}).release()

    assert asked == [(8, 28)]


def test_what_is_contiguous_is_not_copied():
    found = leaf(VIEWS["slice"])

    MEMORY[7] = -1
    first = bytes(found.read())[:4]
    MEMORY[7] = 7

    assert first == (-1).to_bytes(4, "little", signed=True)
