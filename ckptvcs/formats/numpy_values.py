"""NumPy's arrays, scalars and types in a state. NumPy is imported only when a state holds some."""

from __future__ import annotations

from typing import Any

from ckptvcs.formats import dtypes
from ckptvcs.formats.leaf import Leaf, Span
from ckptvcs.formats.tree.encode import Ready


def is_array(value: Any) -> bool:
    """Whether a value is an array of NumPy; told without importing it."""
    return type(value).__module__ == "numpy" and type(value).__name__ == "ndarray"


def adapt(value: Any) -> Any:
    """Make a NumPy value into what the tree encoder knows; anything else comes back as it is.

    Arrays of Python objects and of records are left alone: they have no exact representation here.
    """
    if type(value).__module__.partition(".")[0] != "numpy":
        return value
    import numpy as np

    if isinstance(value, np.dtype):
        return value if _is_compound(value) else Ready({"$npdtype": value.str})
    if isinstance(value, np.generic):
        return value if _is_compound(value.dtype) else Ready({"$numpy": [value.dtype.str, _bytes(value).hex()]})
    if type(value) is not np.ndarray or _is_compound(value.dtype):
        return value
    return leaf_of_array(value)


def _bytes(scalar: Any) -> bytes:
    """The bytes of a scalar; NumPy gives those of one character for an empty text."""
    data: bytes = scalar.tobytes()
    return data[: scalar.dtype.itemsize]


def leaf_of_array(array: Any) -> Leaf:
    """The leaf of an `ndarray` of plain elements. Byte order is kept; so is Fortran order, as an attribute."""
    import numpy as np

    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    itself = Span(
        storage=("numpy", id(array)), start=0, stop=array.nbytes, strides=(), shape=(), read=lambda _, __: b""
    )

    def read() -> Any:
        # `array` in this closure keeps its id alive for as long as the span is compared.
        contiguous: Any = np.ascontiguousarray(array).reshape(-1)
        return memoryview(contiguous.view(np.uint8)) if array.nbytes else b""

    return Leaf(
        dtype=dtypes.from_numpy(array.dtype.str),
        shape=array.shape,
        read=read,
        kind="ndarray",
        attrs={"order": "F"} if fortran else {},
        span=itself,
    )


def array_of(dtype: str, shape: tuple[int, ...], data: Any, attrs: Any) -> Any:
    """The array of a leaf, writable where `data` is."""
    import numpy as np

    real = np.dtype(dtypes.to_numpy(dtype))
    if not real.itemsize:
        return np.ndarray(shape, real)  # texts of no character: `frombuffer` takes none
    array = np.frombuffer(data, dtype=real).reshape(shape)
    return np.asfortranarray(array) if attrs.get("order") == "F" else array


def _is_compound(dtype: Any) -> bool:
    """Whether a type is more than its type string: objects, records, and types that other packages added to NumPy."""
    if dtype.hasobject or dtype.names is not None or dtype.subdtype is not None:
        return True
    import numpy as np

    return bool(np.dtype(dtype.str) != dtype)
