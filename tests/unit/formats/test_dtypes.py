"""Element types have the names and widths that torch, NumPy and safetensors give them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.torch
import torch

from ckptvcs.errors import FormatError
from ckptvcs.formats import dtypes

TORCH = sorted(dtypes.TORCH.items())


@pytest.mark.parametrize(("name", "torch_name"), TORCH)
def test_a_type_is_as_wide_as_in_torch(name: str, torch_name: str):
    assert dtypes.itemsize(name) == getattr(torch, torch_name).itemsize
    assert dtypes.BY_TORCH_NAME[torch_name] == name


@pytest.mark.parametrize(("name", "torch_name"), [(n, t) for n, t in TORCH if n in dtypes.SAFETENSORS])
def test_a_type_is_called_as_safetensors_calls_it(name: str, torch_name: str):
    tensor = torch.zeros(16, dtype=torch.uint8).view(getattr(torch, torch_name))

    data = safetensors.torch.save({"x": tensor})

    assert json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["x"]["dtype"] == name


@pytest.mark.parametrize(("name", "type_string"), sorted(dtypes.NUMPY.items()))
def test_a_type_is_called_as_numpy_calls_it(name: str, type_string: str):
    assert np.dtype(type_string).str == type_string
    assert np.dtype(type_string).itemsize == dtypes.itemsize(name)
    assert dtypes.from_numpy(type_string) == name
    assert dtypes.to_numpy(name) == type_string


@pytest.mark.parametrize(
    "type_string", [">f4", "<U5", "|S3", "<M8[ns]", "<m8[25s]", "|V7", "<f16", "<c32", ">i8", "<M8"]
)
def test_what_only_numpy_has_keeps_the_name_of_numpy(type_string: str):
    name = dtypes.from_numpy(type_string)

    assert name == f"np:{type_string}"
    assert dtypes.to_numpy(name) == type_string
    assert dtypes.itemsize(name) == np.dtype(type_string).itemsize


@pytest.mark.parametrize("name", ["BF16", "F8_E4M3", "F8_E8M0", "C32"])
def test_what_numpy_has_not_has_no_name_there(name: str):
    assert dtypes.to_numpy(name) is None


@pytest.mark.parametrize(
    "name",
    ["", "F4", "f32", "float32", "np:", "np:O", "np:|O8", "np:f4,f4", "np:<f4\n", "np:(2,)f4", "np:<f9999999999"],
)
def test_an_unknown_type_is_refused_and_named(name: str):
    with pytest.raises(FormatError) as caught:
        dtypes.itemsize(name)

    assert f"'{name}'" in caught.value.what


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4), (5, 0, 2)])
def test_bytes_are_counted_as_torch_counts_them(shape: tuple[int, ...]):
    assert dtypes.nbytes("F64", shape) == torch.empty(shape, dtype=torch.float64).nbytes
