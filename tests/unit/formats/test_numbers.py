"""Bytes as numbers and back: every code of every small type, and rounding, as torch has them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ckptvcs.formats import dtypes
from ckptvcs.formats.numbers import count, is_float, numbers, rounded

FLOATS = ["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E4M3FNUZ", "F8_E5M2", "F8_E5M2FNUZ"]


def torch_type(dtype: str) -> torch.dtype:
    return getattr(torch, dtypes.TORCH[dtype])


def codes(dtype: str) -> torch.Tensor:
    """Every code of a type of at most 16 bits; many of a wider one."""
    size = dtypes.itemsize(dtype)
    if size <= 2:
        return torch.arange(256**size).to(torch.uint8 if size == 1 else torch.uint16).view(torch_type(dtype))
    bits = np.random.default_rng(0).integers(0, 256, 4096 * size, dtype=np.uint8)
    return torch.from_numpy(bits).view(torch_type(dtype))


def data(tensor: torch.Tensor) -> memoryview:
    return memoryview(tensor.contiguous().view(torch.uint8).numpy())


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_value_of_every_code_is_that_of_torch(dtype: str):
    found = numbers(dtype, data(codes(dtype)))

    np.testing.assert_array_equal(found, codes(dtype).to(torch.float64).numpy())


@pytest.mark.parametrize("dtype", FLOATS)
def test_every_number_comes_back_as_the_bytes_it_was(dtype: str):
    tensor = codes(dtype)
    tensor = tensor[~tensor.to(torch.float32).isnan()] if dtype != "F64" else tensor[~tensor.isnan()]

    assert bytes(rounded(dtype, numbers(dtype, data(tensor)))) == bytes(data(tensor))


@pytest.mark.parametrize("dtype", [d for d in FLOATS if d not in ("F32", "F64")])
def test_rounding_is_that_of_torch(dtype: str):
    neighbours = np.sort(numbers(dtype, data(codes(dtype))))
    neighbours = neighbours[np.isfinite(neighbours)].astype(np.float64)
    middles = ((neighbours[1:] + neighbours[:-1]) / 2).astype(np.float32)
    around = [np.nextafter(middles, s).astype(np.float32) for s in (np.float32(-np.inf), np.float32(np.inf))]
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-30, -1e-30, 3e38, -3e38], np.float32)
    values = np.concatenate([middles, *around, special, np.random.default_rng(1).standard_normal(4096).astype("f4")])

    found = torch.frombuffer(bytearray(rounded(dtype, values)), dtype=torch_type(dtype)).to(torch.float32)

    expected = torch.from_numpy(values).to(torch_type(dtype)).to(torch.float32)
    np.testing.assert_array_equal(found.numpy(), expected.numpy())
    assert (torch.signbit(found) == torch.signbit(expected))[~expected.isnan()].all()


def test_float64_is_rounded_to_float32_as_torch_does():
    values = np.random.default_rng(0).standard_normal(4096) * 10.0 ** np.random.default_rng(1).integers(-45, 45, 4096)

    with np.errstate(over="ignore"):
        assert bytes(rounded("F32", values)) == bytes(data(torch.from_numpy(values).to(torch.float32)))


@pytest.mark.parametrize(("dtype", "part"), [("C64", "F32"), ("C128", "F64"), ("C32", "F16")])
def test_a_complex_number_is_two_numbers(dtype: str, part: str):
    raw = data(codes(part)[:4096])

    np.testing.assert_array_equal(numbers(dtype, raw), numbers(part, raw))
    assert count(dtype, raw.nbytes) == 2 * raw.nbytes // dtypes.itemsize(dtype)


def test_what_is_computed_is_wider_than_what_is_stored():
    widths = {dtype: numbers(dtype, memoryview(bytes(16))).dtype.name for dtype in FLOATS}

    assert widths.pop("F64") == widths.pop("F32") == "float64"
    assert set(widths.values()) == {"float32"}


def test_integers_and_scales_are_no_numbers_to_average():
    assert [d for d in ("I64", "BOOL", "U8", "F8_E8M0", "np:>f4", "np:<U5") if is_float(d)] == []
