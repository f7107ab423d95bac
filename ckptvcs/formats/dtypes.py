"""Element types by name: how wide they are and what other programs call them. No torch, no numpy.

The names are those of safetensors (`F32`, `BF16`, `F8_E4M3`...). Types that safetensors has no name for are written into
a shard as bytes (`U8` with one more dimension) and keep their real name in the tensor table: `C128`, `C32` and the types
of NumPy alone, written `np:` and the NumPy type string (`np:<U5`, `np:>f4`, `np:<M8[ns]`).
"""

from __future__ import annotations

import math
import re
from typing import Final

from ckptvcs.errors import FormatError

# name -> bytes per element, for the types that a safetensors header may carry.
SAFETENSORS: Final = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E4M3FNUZ": 1,
    "F8_E5M2": 1,
    "F8_E5M2FNUZ": 1,
    "F8_E8M0": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
    "C64": 8,
}
_OTHERS: Final = {"C32": 4, "C128": 16}
_NUMPY = re.compile(r"np:[<>|=]?([biufcSUmMV])(\d{1,9})(\[[0-9a-zA-Z/]{1,20}\])?\Z")

# torch's own name (`torch.NAME`) of each type.
TORCH: Final = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "U16": "uint16",
    "I16": "int16",
    "F16": "float16",
    "BF16": "bfloat16",
    "U32": "uint32",
    "I32": "int32",
    "F32": "float32",
    "U64": "uint64",
    "I64": "int64",
    "F64": "float64",
    "C32": "complex32",
    "C64": "complex64",
    "C128": "complex128",
}
BY_TORCH_NAME: Final = {torch_name: name for name, torch_name in TORCH.items()}

# NumPy's little-endian type string of each type that NumPy has.
NUMPY: Final = {
    "BOOL": "|b1",
    "U8": "|u1",
    "I8": "|i1",
    "U16": "<u2",
    "I16": "<i2",
    "F16": "<f2",
    "U32": "<u4",
    "I32": "<i4",
    "F32": "<f4",
    "U64": "<u8",
    "I64": "<i8",
    "F64": "<f8",
    "C64": "<c8",
    "C128": "<c16",
}
BY_NUMPY_NAME: Final = {numpy_name: name for name, numpy_name in NUMPY.items()}


def itemsize(dtype: str) -> int:
    """Bytes per element.

    Raises:
        FormatError: no such type.
    """
    size = SAFETENSORS.get(dtype) or _OTHERS.get(dtype)
    if size is not None:
        return size
    match = _NUMPY.match(dtype)
    if match is None:
        raise FormatError(f"cannot read element type '{dtype}'", why="no such type in this version of ckptvcs")
    # A NumPy string type counts characters of four bytes; all others count bytes.
    return int(match[2]) * (4 if match[1] == "U" else 1)


def is_numpy(type_string: str) -> bool:
    """Whether this is a NumPy type string of plain elements, and not one of the many other things `np.dtype` takes."""
    return type_string in BY_NUMPY_NAME or _NUMPY.match(f"np:{type_string}") is not None


def from_numpy(type_string: str) -> str:
    """The name of a NumPy type string such as `<f4`, which must not hold Python objects."""
    return BY_NUMPY_NAME.get(type_string, f"np:{type_string}")


def to_numpy(dtype: str) -> str | None:
    """The NumPy type string of a name, or None where NumPy has no such type (`BF16`, `F8_...`)."""
    return dtype[3:] if dtype.startswith("np:") else NUMPY.get(dtype)


def nbytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor of this type and shape."""
    return itemsize(dtype) * math.prod(shape)
