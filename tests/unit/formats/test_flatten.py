"""Leaves get names, shared memory is stored once, and what cannot be represented is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from ckptvcs.errors import UnsupportedValue
from ckptvcs.formats import flatten, torch_state
from ckptvcs.formats.components import take_apart
from tests.support.same import assert_same
from tests.unit.formats.makers import components_of, read, write


def component(state: Any, name: str = "model") -> flatten.FlatComponent:
    return next(c for c in components_of(state) if c.name == name)


def stored(state: Any) -> int:
    return sum(leaf.nbytes for c in components_of(state) for leaf in c.leaves.values())


def test_a_leaf_is_named_by_its_path_below_its_component():
    found = component({"model": {"a": {"b": torch.ones(1)}, "c": [torch.zeros(1), torch.zeros(2)]}})

    assert list(found.leaves) == ["a.b", "c.0", "c.1"]
    assert found.paths["c.1"] == ("model", "c", 1)
    assert found.node == {"a": {"b": {"$tensor": "a.b"}}, "c": [{"$tensor": "c.0"}, {"$tensor": "c.1"}]}


def test_paths_of_one_spelling_get_names_of_their_own():
    found = component({"model": {"a.b": torch.ones(1), "a": {"b": torch.ones(2)}, "x": [{"a.b": torch.ones(3)}]}})

    assert list(found.leaves) == ["a.b", "a.b~2", "x.0.a.b"]


def test_no_leaf_has_the_name_that_safetensors_keeps_for_itself():
    state = {"model": {"__metadata__": torch.ones(1), "": torch.ones(2)}}

    assert list(component(state).leaves) == ["__metadata__~2", "tensor"]
    assert_same(state, read(write(state)))


def test_a_name_is_text_that_a_shard_can_hold():
    state = {"model": {"\ud800": torch.ones(1), "\\ud800": torch.ones(2)}}

    files = write(state)

    assert list(component(state).leaves) == ["\\ud800", "\\ud800~2"]
    shards = [safetensors.torch.load(data) for path, data in files.items() if path.endswith(".safetensors")]
    assert sum(map(len, shards)) == 2
    assert_same(state, read(files))


def test_a_number_that_python_does_not_write_out_is_a_key_like_any_other():
    state = {"model": {10**5000: torch.ones(1), 10**5001: torch.ones(1)}, 10**5000: torch.zeros(1)}

    assert list(component(state).leaves) == ["a long int", "a long int~2"]
    assert read(write(state)) == state
    with pytest.raises(UnsupportedValue, match="a long int"):
        write({"model": {10**5000: object()}})


def test_one_tensor_in_two_places_is_stored_once():
    weight = torch.ones(10)
    state = {"ema": {"w": weight}, "model": {"a": weight, "b": weight}}

    found = component(state)

    assert stored(state) == weight.nbytes
    assert found.node == {"a": {"$tensor": "w", "in": "ema"}, "b": {"$tensor": "w", "in": "ema"}}


def test_views_of_a_stored_tensor_name_it():
    whole = torch.arange(10.0)
    state = {"model": {"first": whole[:4], "all": whole, "last": whole[6:].view(2, 2)}}

    found = component(state)

    assert list(found.leaves) == ["all"]
    assert {n: (v.name, v.offset, v.shape, v.strides) for n, v in found.views.items()} == {
        "first": ("all", 0, (4,), (1,)),
        "last": ("all", 24, (2, 2), (2, 1)),
    }


def test_views_that_none_spans_share_their_memory_as_bytes():
    whole = torch.arange(10.0)
    state = {"model": {"a": whole[:6], "b": whole[4:8]}}

    found = component(state)

    assert list(found.leaves) == ["a~storage"]
    assert stored(state) == 8 * 4  # the last two elements belong to nobody
    assert_same(state, read(write(state)))


def test_views_of_two_types_share_their_memory():
    raw = torch.arange(32, dtype=torch.uint8)
    state = {"model": {"bytes": raw[:16], "floats": raw.view(torch.float32)[2:]}}

    assert stored(state) == 32
    assert_same(state, read(write(state)))


def test_views_that_do_not_meet_are_two_tensors():
    whole = torch.arange(10.0)

    found = component({"model": {"a": whole[:5], "b": whole[5:]}})

    assert list(found.leaves) == ["a", "b"]
    assert not found.views


def test_equal_tensors_with_memory_of_their_own_are_two():
    assert stored({"model": {"a": torch.ones(4), "b": torch.ones(4)}}) == 32


def test_a_parameter_and_its_data_are_two_values_over_one_memory():
    parameter = torch.nn.Parameter(torch.ones(4))
    state = {"model": {"p": parameter, "d": parameter.detach()}}

    assert stored(state) == 16
    assert_same(state, read(write(state)))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.eye(2).to_sparse(),
        torch.empty(2, device="meta"),
        torch.nested.nested_tensor([torch.ones(1), torch.ones(2)], layout=torch.jagged),
        torch.nn.parameter.UninitializedParameter(),
    ],
    ids=["sparse", "meta", "nested", "uninitialised"],
)
def test_a_tensor_without_exact_representation_is_named(tensor: torch.Tensor):
    with pytest.raises(UnsupportedValue) as caught:
        write({"model": {"layer": {"w": tensor}}})

    assert "state['model']['layer']['w']" in caught.value.what
    assert "torch" in caught.value.facts["values"][0]["class"]
    assert "--allow-pickle" in caught.value.next_step


def test_a_tensor_with_attributes_is_refused_as_in_a_file_rather_than_stripped():
    tensor = torch.ones(2)
    tensor.tag = "frozen"  # type: ignore[attr-defined]

    with pytest.raises(UnsupportedValue):
        write({"model": {"w": tensor}})


def test_overlapping_windows_are_refused_with_their_path():
    with pytest.raises(UnsupportedValue) as caught:
        write({"model": {"w": torch.arange(10.0).unfold(0, 3, 1)}})

    assert "state['model']['w']" in caught.value.what


def test_a_rejected_component_is_left_to_the_caller_and_owns_nothing():
    weight = torch.ones(4)
    state = {"bad": {"x": object(), "w": weight}, "model": {"w": weight}}

    flat = flatten.flatten(take_apart(state, torch_state.is_leaf), torch_state.adapt, tolerate=True)

    assert [part.name for part in flat.rejected] == ["bad"]
    assert {c.name: list(c.leaves) for c in flat.components} == {"model": ["w"]}


def test_arrays_and_tensors_live_side_by_side():
    state = {"model": {"t": torch.ones(2), "n": np.ones(2), "tied": [1]}}

    assert [leaf.kind for leaf in component(state).leaves.values()] == ["tensor", "ndarray"]
