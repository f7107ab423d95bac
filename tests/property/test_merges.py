"""Laws of merging: equal inputs are the outcome, a mean lies between its inputs, a component taken out is the one put in."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from ckptvcs.formats import dtypes
from ckptvcs.formats.flat_artifact import flat_component
from ckptvcs.formats.leaf import Leaf
from ckptvcs.formats.merged import merged_leaf
from ckptvcs.formats.merging import Slerp, Ties, Weighted, ema_weights
from tests.support.states import states
from tests.unit.formats.makers import files_of, opened, write

TYPES = ["F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"]
_weights = st.lists(st.floats(2**-10, 2**10), min_size=1, max_size=5)


@st.composite
def tensors(draw: st.DrawFn, count: int | None = None) -> tuple[str, list[torch.Tensor]]:
    """Some tensors of one type and shape: any finite numbers whose sums are finite too."""
    dtype = draw(st.sampled_from(TYPES))
    size = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    made = []
    for _ in range(count or draw(st.integers(1, 5))):
        values = rng.standard_normal(size) * 10.0 ** rng.integers(-30, 30, size)
        tensor = torch.from_numpy(values).float().to(getattr(torch, dtypes.TORCH[dtype]))
        made.append(torch.where(tensor.float().isfinite(), tensor.float(), 1.0).to(tensor.dtype))
    return dtype, made


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.view(torch.uint8).numpy().tobytes()


def leaf(dtype: str, tensor: torch.Tensor) -> Leaf:
    return Leaf(dtype=dtype, shape=tuple(tensor.shape), read=lambda: raw(tensor))


def merge(method: Any, dtype: str, some: list[torch.Tensor]) -> torch.Tensor:
    leaves = [leaf(dtype, tensor) for tensor in some]
    data = bytearray(merged_leaf(leaves[0], leaves, method).read())
    return torch.frombuffer(data, dtype=torch.uint8).view(some[0].dtype)


@given(tensors(1), _weights)
def test_the_mean_of_equal_inputs_is_the_input_bit_for_bit(given: tuple[str, list[torch.Tensor]], weights: list[float]):
    dtype, (tensor,) = given

    assert raw(merge(Weighted(tuple(weights)), dtype, [tensor] * len(weights))) == raw(tensor)


@given(tensors(1), st.integers(2, 6), st.floats(0, 1))
def test_so_is_an_average_that_moves(given: tuple[str, list[torch.Tensor]], count: int, decay: float):
    dtype, (tensor,) = given
    weights = ema_weights(count, decay)

    assert raw(merge(Weighted(weights), dtype, [tensor] * count)) == raw(tensor)


@given(tensors(), st.data())
def test_a_mean_lies_between_the_least_and_the_greatest(given: tuple[str, list[torch.Tensor]], data: st.DataObject):
    dtype, some = given
    weights = data.draw(st.lists(st.floats(0, 100), min_size=len(some), max_size=len(some)))
    assume(sum(weights) > 1e-3)

    found = merge(Weighted(tuple(weights)), dtype, some).double()

    wide = torch.stack([tensor.double() for tensor in some])
    assert (found >= wide.min(dim=0).values).all()
    assert (found <= wide.max(dim=0).values).all()


@given(tensors(2))
def test_slerp_begins_at_the_first_and_ends_at_the_second(given: tuple[str, list[torch.Tensor]]):
    dtype, (one, other) = given

    assert torch.equal(merge(Slerp(0.0), dtype, [one, other]).double(), one.double())
    assert torch.equal(merge(Slerp(1.0), dtype, [one, other]).double(), other.double())


@given(tensors(3), st.floats(0.01, 1))
def test_ties_with_lambda_zero_is_the_base(given: tuple[str, list[torch.Tensor]], density: float):
    dtype, some = given

    assert torch.equal(merge(Ties(density, 0.0), dtype, some).double(), some[0].double())


@given(states)
def test_a_component_that_is_taken_out_of_an_artifact_is_the_one_that_went_in(state: dict[str, Any]):
    files = write(state)
    artifact = opened(files)

    assert files_of([flat_component(artifact, name) for name in artifact.names]) == files
