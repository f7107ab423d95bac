"""The allow-list of the `.pt` reader: what each class and function that a state may name becomes.

Neither torch nor the classes themselves are asked; everything made here is inert.
"""

from __future__ import annotations

import ast
from collections import Counter, OrderedDict, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.formats import dtypes
from ckptvcs.formats.leaf import Leaf, Opaque, TorchAtom
from ckptvcs.formats.strided import Storage, leaf_of_view
from ckptvcs.formats.tree.encode import Ready

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class StorageType:
    """A storage class of torch: the element type of its tensors, or None for an untyped one."""

    dtype: str | None


@dataclass(frozen=True, slots=True)
class StorageRef:
    """A storage that a pickle refers to, and where its tensors were."""

    type: StorageType
    storage: Storage
    device: str


# ---------------------------------------------------------------------------------------------------------- tensors


def _tensor_v2(
    ref: StorageRef, offset: int, shape: Any, strides: Any, requires_grad: bool = False, hooks: Any = None, *_: Any
) -> Any:
    return _tensor(ref, ref.type.dtype, offset, shape, strides, requires_grad, hooks)


def _tensor_v3(
    ref: StorageRef, offset: int, shape: Any, strides: Any, requires_grad: bool, hooks: Any, dtype: TorchAtom, *_: Any
) -> Any:
    return _tensor(ref, dtypes.BY_TORCH_NAME.get(dtype.value), offset, shape, strides, requires_grad, hooks)


def _tensor(
    ref: StorageRef, dtype: str | None, offset: int, shape: Any, strides: Any, requires_grad: bool, hooks: Any
) -> Any:
    if dtype is None or hooks:
        return Opaque("torch.Tensor with hooks" if hooks else "torch.Tensor of an unknown element type")
    attrs: dict[str, Any] = {"requires_grad": True} if requires_grad else {}
    if ref.device != "cpu":
        attrs["device"] = ref.device
    shape, strides = (tuple(v.value if isinstance(v, TorchAtom) else v) for v in (shape, strides))
    if any(type(n) is not int for n in (*shape, *strides, offset)):
        raise TypeError("a shape that is not made of integers")
    start = offset * dtypes.itemsize(dtype)
    return leaf_of_view(dtype, shape, strides, start=start, storage=ref.storage, attrs=attrs)


def _parameter(data: Any, requires_grad: bool = True, hooks: Any = None) -> Any:
    if not isinstance(data, Leaf) or hooks:
        return data if isinstance(data, Opaque) else Opaque("torch.nn.Parameter with hooks")
    return replace(data, attrs={**data.attrs, "parameter": True, "requires_grad": bool(requires_grad)})


def _parameter_with_state(data: Any, requires_grad: bool, hooks: Any, state: Any) -> Any:
    return Opaque("torch.nn.Parameter with attributes") if state else _parameter(data, requires_grad, hooks)


def _typed(data: Any, cls: Any, *_: Any) -> Any:
    return data if isinstance(data, Opaque) else Opaque(getattr(cls, "qualname", "a subclass of torch.Tensor"))


# ------------------------------------------------------------------------------------------------------------ numpy


class _Dtype:
    """A NumPy type while it is unpickled: `dtype('f8', ...)`, then its byte order by BUILD."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code = str(code)

    def build(self, state: Any) -> Any:
        order, subtype, names, *_ = state[1:]
        if subtype is not None or names is not None or self.code.startswith("O"):
            return Opaque(f"numpy.dtype {self.code!r}")
        order = {"|": "|", "<": "<", ">": ">", "=": "<"}[order]
        unit = _datetime_unit(state)
        return _FinishedDtype(_canonical(f"{order}{self.code}") + unit)


class _FinishedDtype(Ready):
    """A NumPy type as NumPy writes it (`<f4`), which is its own node."""

    __slots__ = ("type_string",)

    def __init__(self, type_string: str) -> None:
        super().__init__({"$npdtype": type_string})
        self.type_string = type_string


def _canonical(type_string: str) -> str:
    """NumPy writes types of one byte without a byte order."""
    order, code = type_string[0], type_string[1:]
    plain = code in ("b1", "i1", "u1") or code[0] in "SV"
    return f"|{code}" if plain or order == "|" else type_string


def _datetime_unit(state: Any) -> str:
    """`[ns]` of a date type; it is the last part of its state."""
    if len(state) < 9 or not isinstance(state[8], tuple):
        return ""
    unit, count, *_ = state[8][-1]
    unit = unit.decode() if isinstance(unit, bytes) else unit
    return f"[{unit}]" if count == 1 else f"[{count}{unit}]"


class _Array:
    """A NumPy array while it is unpickled: `_reconstruct(...)`, then shape, type and bytes by BUILD."""

    def __init__(self, cls: Any, *_: Any) -> None:
        self.cls = getattr(cls, "qualname", "")

    def build(self, state: Any) -> Any:
        _, shape, dtype, fortran, data = state
        return _array(self.cls, data, dtype, shape, "F" if fortran else "C")


def _frombuffer(data: Any, dtype: Any, shape: Any, order: str, *_: Any) -> Any:
    return _array("numpy.ndarray", data, dtype, shape, order)


def _array(cls: str, data: Any, dtype: Any, shape: Any, order: str) -> Any:
    if cls != "numpy.ndarray" or not isinstance(dtype, _FinishedDtype):
        return Opaque(dtype.qualname if isinstance(dtype, Opaque) else cls)
    import numpy as np

    name, shape = dtypes.from_numpy(dtype.type_string), tuple(shape)
    if not isinstance(data, (bytes, bytearray)) or dtypes.nbytes(name, shape) != len(data):
        raise ValueError("an array whose shape does not fit its bytes")
    return np.frombuffer(data, dtype=np.dtype(dtype.type_string)).reshape(shape, order="F" if order == "F" else "C")


def _scalar(dtype: Any, data: Any) -> Any:
    if not isinstance(dtype, _FinishedDtype):
        return Opaque("numpy scalar of objects")
    if not isinstance(data, bytes) or len(data) != dtypes.itemsize(dtypes.from_numpy(dtype.type_string)):
        raise ValueError("a scalar whose type does not fit its bytes")
    return Ready({"$numpy": [dtype.type_string, data.hex()]})


# ------------------------------------------------------------------------------------------------------------ Python


def _encode(text: str, encoding: str = "utf-8", *_: Any) -> bytes:
    if encoding not in ("latin1", "latin-1", "utf-8"):
        raise ValueError(f"encoding {encoding!r}")
    return text.encode(encoding)


def _bytearray(data: Any = b"", *encoding: Any) -> bytearray:
    return bytearray(data.encode(*encoding) if isinstance(data, str) else data)


def _defaultdict(factory: Any = None, *_: Any) -> Any:
    return defaultdict(factory) if factory is None or factory in _FACTORIES else Opaque("collections.defaultdict")


def _counter(items: Any = ()) -> Any:
    counter: Counter[Any] = Counter()
    counter.update(dict(items))
    return counter


def _odict(pairs: Any = ()) -> Any:
    return OrderedDict((key, value) for key, value in pairs)


def _namespace(module: str, name: str) -> Callable[..., Any]:
    def make(*args: Any) -> Any:
        return getattr(__import__(module), name)() if not args else Opaque(f"{module}.{name}")

    return make


def _path(flavour: str) -> Callable[..., Any]:
    def make(*parts: str) -> Any:
        import pathlib

        # A concrete path of the other system cannot be made here; its text is all that it is.
        pure = pathlib.PureWindowsPath if "Windows" in flavour else pathlib.PurePosixPath
        return Ready({"$path": str(pure(*parts)), "flavour": flavour})

    return make


def _complex(real: float, imaginary: float = 0.0) -> complex:
    return complex(real, imaginary)


def _floating(text: Any = 0.0) -> float:
    return float(ast.literal_eval(text) if isinstance(text, str) else text)


_FACTORIES: Final = (dict, list, set, tuple, int, float, str, bool, bytes)
_BUILTINS: Final = {
    "set": lambda items=(): set(items),
    "frozenset": lambda items=(): frozenset(items),
    "list": lambda items=(): list(items),
    "dict": lambda items=(): dict(items),
    "tuple": lambda items=(): tuple(items),
    "bytes": lambda data=b"": bytes(data) if isinstance(data, bytes) else b"",
    "bytearray": _bytearray,
    "complex": _complex,
    "float": _floating,
}

CONSTRUCTORS: Final[dict[str, Any]] = {
    "collections.OrderedDict": _odict,
    "collections.defaultdict": _defaultdict,
    "collections.Counter": _counter,
    "_codecs.encode": _encode,
    "argparse.Namespace": _namespace("argparse", "Namespace"),
    "types.SimpleNamespace": _namespace("types", "SimpleNamespace"),
    **{f"{module}.{name}": make for module in ("builtins", "__builtin__") for name, make in _BUILTINS.items()},
    **{
        f"{module}.{name}": _path(name)
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    },
    "torch._utils._rebuild_tensor": _tensor_v2,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter_with_state,
    "torch._tensor._rebuild_from_type_v2": lambda _, cls, *__: _typed(None, cls),
    "torch.Size": lambda sizes=(): TorchAtom("size", tuple(sizes)),
    "torch.device": lambda kind, index=None: TorchAtom("device", kind if index is None else f"{kind}:{index}"),
    "torch.serialization._get_layout": lambda name: TorchAtom("layout", name.removeprefix("torch.")),
    "numpy.dtype": _Dtype,
    **{
        f"{module}.{name}": make
        for module in ("numpy.core.multiarray", "numpy._core.multiarray")
        for name, make in (("_reconstruct", _Array), ("scalar", _scalar))
    },
    "numpy.core.numeric._frombuffer": _frombuffer,
    "numpy._core.numeric._frombuffer": _frombuffer,
}

_STORAGES: Final = {
    "Double": "F64",
    "Float": "F32",
    "Half": "F16",
    "BFloat16": "BF16",
    "Long": "I64",
    "Int": "I32",
    "Short": "I16",
    "Char": "I8",
    "Byte": "U8",
    "Bool": "BOOL",
    "ComplexFloat": "C64",
    "ComplexDouble": "C128",
}

CONSTANTS: Final[dict[str, Any]] = {
    **{f"torch.{prefix}Storage": StorageType(dtype) for prefix, dtype in _STORAGES.items()},
    **{f"torch.cuda.{prefix}Storage": StorageType(dtype) for prefix, dtype in _STORAGES.items()},
    "torch.UntypedStorage": StorageType(None),
    "torch.storage.UntypedStorage": StorageType(None),
    **{f"torch.{name}": TorchAtom("dtype", name) for name in dtypes.BY_TORCH_NAME},
    **{f"{m}.{f.__name__}": f for m in ("builtins", "__builtin__") for f in _FACTORIES},
}
