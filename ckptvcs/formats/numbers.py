"""The bytes of a floating point tensor as numbers to compute with, and back, rounded once. NumPy alone, for every type.

Computing is wider than storing, so that the one rounding that counts is the last: half precision, bfloat16 and the 8-bit
types are computed in float32; float32 in float64, for else the mean of three equal numbers would not be that number;
float64 in float64, because there is nothing wider that every machine has. Rounding is to nearest, ties to even, as torch
does it. A complex number is two numbers.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import numpy as np

from ckptvcs.formats import dtypes

_PARTS: Final = {"C32": "F16", "C64": "F32", "C128": "F64"}
_WIDE: Final = {"F16": np.float32, "F32": np.float64, "F64": np.float64}
# Bits of the exponent and of the fraction, and the bias. `fn`: no infinity, NaN is all ones; `fnuz`: NaN is the negative zero.
_SMALL: Final = {
    "F8_E4M3": (4, 3, 7, "fn"),
    "F8_E4M3FNUZ": (4, 3, 8, "fnuz"),
    "F8_E5M2": (5, 2, 15, "ieee"),
    "F8_E5M2FNUZ": (5, 2, 16, "fnuz"),
}


def is_float(dtype: str) -> bool:
    """Whether elements of this type are numbers that can be averaged. `F8_E8M0` are bare exponents, the scales of others."""
    return dtype in _WIDE or dtype in _PARTS or dtype in _SMALL or dtype == "BF16"


def is_small(dtype: str) -> bool:
    """Whether it is an 8-bit type, whose numbers often mean something only together with a scale beside them."""
    return dtype in _SMALL


def count(dtype: str, nbytes: int) -> int:
    """How many numbers so many bytes are."""
    return nbytes // dtypes.itemsize(_PARTS.get(dtype, dtype))


def numbers(dtype: str, data: memoryview) -> Any:
    """The elements as an array of float32 or float64 of their own, one-dimensional."""
    dtype = _PARTS.get(dtype, dtype)
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    if dtype in _SMALL:
        return _table(dtype)[np.frombuffer(data, np.uint8)]
    with np.errstate(all="ignore"):  # a NaN that signals
        return np.frombuffer(data, f"<f{2 if dtype == 'F16' else 4 if dtype == 'F32' else 8}").astype(_WIDE[dtype])


def rounded(dtype: str, array: Any) -> memoryview:
    """The bytes of an array in a type, each number rounded to the nearest one that the type has."""
    dtype = _PARTS.get(dtype, dtype)
    with np.errstate(all="ignore"):  # what is too large becomes infinite, as in torch
        if dtype == "BF16":
            stored = _bfloat16(array.astype(np.float32))
        elif dtype in _SMALL:
            stored = _eight_bits(dtype, array)
        else:
            stored = array.astype(f"<f{2 if dtype == 'F16' else 4 if dtype == 'F32' else 8}")
    contiguous: Any = np.ascontiguousarray(stored)
    return memoryview(contiguous).cast("B")


def _bfloat16(array: Any) -> Any:
    bits: Any = array.view(np.uint32)
    even: Any = (bits >> 16) & 1
    upper: Any = ((bits + np.uint32(0x7FFF) + even) >> 16).astype("<u2")
    return np.where(np.isnan(array), ((bits >> 16) | 0x40).astype("<u2"), upper)


@cache
def _table(dtype: str) -> Any:
    """The value of each of the 256 codes."""
    exponents, fractions, bias, kind = _SMALL[dtype]
    code = np.arange(256)
    exponent, fraction = (code & 0x7F) >> fractions, code & ((1 << fractions) - 1)
    normal = (1 + fraction / (1 << fractions)) * 2.0 ** (exponent - bias)
    subnormal = fraction / (1 << fractions) * 2.0 ** (1 - bias)
    values = np.where(exponent == 0, subnormal, normal) * np.where(code & 0x80, -1.0, 1.0)
    if kind == "fn":
        values[[0x7F, 0xFF]] = np.nan
    elif kind == "fnuz":
        values[0x80] = np.nan
    else:
        top = exponent == (1 << exponents) - 1
        values[top] = np.where(fraction[top] == 0, np.copysign(np.inf, values[top]), np.nan)
    return values.astype(np.float32)


def _eight_bits(dtype: str, array: Any) -> Any:
    kind = _SMALL[dtype][3]
    positive = _table(dtype)[:0x80].astype(np.float64)
    finite = positive[np.isfinite(positive)]
    # One more beyond the largest: what is nearer to that one has no code.
    steps = np.append(finite, 2 * finite[-1] - finite[-2])
    middles = (steps[1:] + steps[:-1]) / 2
    size = np.abs(array).astype(np.float64)
    code = np.searchsorted(middles, size, side="left")
    tie = (code < len(middles)) & (middles[np.minimum(code, len(middles) - 1)] == size)
    code = code + (tie & (code % 2 == 1))
    over = {"ieee": 0x7C, "fn": 0x7E, "fnuz": 0x80}[kind]  # infinity; the largest number there is, as torch has it; NaN
    nan = {"ieee": 0x7F, "fn": 0x7F, "fnuz": 0x80}[kind]
    sign = np.where(np.signbit(array), 0x80, 0)
    if kind == "fnuz":
        sign = np.where(code == 0, 0, sign)
    out = np.where(code >= len(finite), over, code) | sign
    return np.where(np.isnan(array), nan | (0 if kind == "fnuz" else sign), out).astype(np.uint8)
