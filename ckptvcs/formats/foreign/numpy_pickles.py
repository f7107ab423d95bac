"""What NumPy's functions in a pickle make: types, arrays and scalars, from their bytes and nothing else.

NumPy is imported for arrays alone; types and scalars become nodes of a tree at once.
"""

from __future__ import annotations

from typing import Any, Final

from ckptvcs.formats import dtypes
from ckptvcs.formats.foreign.unpickle import Buildable, exactly
from ckptvcs.formats.leaf import Opaque
from ckptvcs.formats.tree.encode import Ready


class _Dtype(Buildable):
    """A NumPy type: `dtype('f8', ...)`, then its byte order by BUILD. It is a `$npdtype` node then."""

    def __init__(self, code: Any, *_: Any) -> None:
        self._made: Any = Opaque("numpy.dtype")
        if type(code) is Opaque:  # a type that another package added to NumPy
            code, self._made = "O", Opaque(f"numpy.dtype of {code.qualname}")
        exactly(str, code)
        self._code = code

    def finished(self) -> Any:
        return self._made

    def build(self, state: Any) -> None:
        exactly(tuple, state)
        order, subtype, names = state[1:4]
        exactly(str, order)
        if self._code.startswith("O"):
            return
        if subtype is not None or names is not None:
            self._made = Opaque(f"numpy.dtype {self._code[:20]!r}")
            return
        order = {"|": "|", "<": "<", ">": ">", "=": "<"}[order]
        type_string = _canonical(f"{order}{self._code}") + _datetime_unit(state)
        if not dtypes.is_numpy(type_string):
            raise ValueError(f"NumPy has no type {type_string[:20]!r}")
        self._made = Ready({"$npdtype": type_string})


def _type_string(dtype: Any) -> str | None:
    """`<f4` of a NumPy type that is finished."""
    return dtype.node.get("$npdtype") if type(dtype) is Ready and type(dtype.node) is dict else None


def _canonical(type_string: str) -> str:
    """NumPy writes types of one byte without a byte order."""
    order, code = type_string[0], type_string[1:]
    plain = code in ("b1", "i1", "u1") or code[:1] in ("S", "V")
    return f"|{code}" if plain or order == "|" else type_string


def _datetime_unit(state: Any) -> str:
    """`[ns]` of a date type; it is the last part of its state."""
    if len(state) < 9 or type(state[8]) is not tuple:
        return ""
    unit, count, *_ = state[8][-1]
    unit = unit.decode() if type(unit) is bytes else unit
    exactly(str, unit)
    exactly(int, count)
    return f"[{unit}]" if count == 1 else f"[{count}{unit}]"


class _Array(Buildable):
    """A NumPy array: `_reconstruct(...)`, then shape, type and bytes by BUILD."""

    def __init__(self, cls: Any, *_: Any) -> None:
        self._cls = cls if type(cls) is Opaque else Opaque("numpy.ndarray of an unknown class")
        self._made: Any = self._cls

    def finished(self) -> Any:
        return self._made

    def build(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self._made = _array(self._cls, data, dtype, shape, "F" if fortran else "C")


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> Any:
    exactly(str, order)
    if order != "K" or axes is None:
        return _array(_NDARRAY, data, dtype, shape, "F" if order == "F" else "C")
    # The bytes of an array that is neither in C nor in Fortran order, with its axes in the order of their strides.
    array = _array(_NDARRAY, data, dtype, shape, "C")
    return array if isinstance(array, Opaque) else array.transpose(axes)


_NDARRAY: Final = Opaque("numpy.ndarray")


def _array(cls: Opaque, data: Any, dtype: Any, shape: Any, order: Any) -> Any:
    type_string = _type_string(dtype)
    if cls != _NDARRAY or type_string is None:
        return dtype if cls == _NDARRAY and type(dtype) is Opaque else cls
    import numpy as np

    exactly(tuple, shape)
    exactly(int, *shape)
    if type(data) not in (bytes, bytearray) or dtypes.nbytes(dtypes.from_numpy(type_string), shape) != len(data):
        raise ValueError("an array whose shape does not fit its bytes")
    real = np.dtype(type_string)
    if not real.itemsize:
        return np.ndarray(shape, real)  # texts of no character: `frombuffer` takes none
    return np.frombuffer(data, dtype=real).reshape(shape, order=order)


def _scalar(dtype: Any, data: Any) -> Any:
    type_string = _type_string(dtype)
    if type_string is None:
        return Opaque("numpy scalar of objects")
    if type(data) is not bytes or len(data) != dtypes.itemsize(dtypes.from_numpy(type_string)):
        raise ValueError("a scalar whose type does not fit its bytes")
    return Ready({"$numpy": [type_string, data.hex()]})


CONSTRUCTORS: Final[dict[str, Any]] = {
    "numpy.dtype": _Dtype,
    **{
        f"{module}.multiarray.{name}": make
        for module in ("numpy.core", "numpy._core")
        for name, make in (("_reconstruct", _Array), ("scalar", _scalar))
    },
    "numpy.core.numeric._frombuffer": _frombuffer,
    "numpy._core.numeric._frombuffer": _frombuffer,
}
