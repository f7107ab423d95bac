"""The allow-list of the `.pt` reader: what each class and function that a state may name becomes.

Neither torch nor the classes themselves are asked; everything made here is inert.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.errors import UnsupportedValue
from ckptvcs.formats import dtypes
from ckptvcs.formats.foreign import numpy_pickles
from ckptvcs.formats.foreign.unpickle import exactly
from ckptvcs.formats.leaf import Inert, Leaf, Opaque, TorchAtom
from ckptvcs.formats.strided import Storage, leaf_of_view, negated
from ckptvcs.formats.tree.encode import Ready

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@dataclass(frozen=True, slots=True)
class StorageType(Inert):
    """A storage class of torch: the element type of its tensors, or None for an untyped one."""

    dtype: str | None
    qualname: str

    def named(self) -> str:
        return self.qualname


@dataclass(frozen=True, slots=True)
class StorageRef(Inert):
    """A storage that a pickle refers to, and where its tensors were."""

    type: StorageType
    storage: Storage
    device: str

    def named(self) -> str:
        return self.type.qualname


# ---------------------------------------------------------------------------------------------------------- tensors


def _tensor_v2(
    ref: Any, offset: int, shape: Any, strides: Any, requires_grad: bool = False, hooks: Any = None, bits: Any = None
) -> Any:
    if not isinstance(ref, StorageRef):
        return _without_storage(ref)
    return _tensor(ref, ref.type.dtype, (offset, shape, strides), requires_grad, hooks, bits)


def _tensor_v3(
    ref: Any,
    offset: int,
    shape: Any,
    strides: Any,
    requires_grad: bool,
    hooks: Any,
    dtype: Any,
    bits: Any = None,
) -> Any:
    if not isinstance(ref, StorageRef):
        return _without_storage(ref)
    if not isinstance(dtype, TorchAtom) or dtype.type != "dtype":
        return Opaque(f"torch.Tensor of {dtype.qualname}" if type(dtype) is Opaque else "torch.Tensor of no type")
    name = dtypes.BY_TORCH_NAME[dtype.value]
    return _tensor(ref, name, (offset, shape, strides), requires_grad, hooks, bits)


def _without_storage(ref: Any) -> Opaque:
    if type(ref) is not Opaque:
        raise TypeError("a tensor without a storage")
    return ref


def _tensor(
    ref: StorageRef, dtype: str | None, place: tuple[int, Any, Any], requires_grad: bool, hooks: Any, bits: Any
) -> Any:
    if dtype is None or hooks:
        return Opaque("torch.Tensor with hooks" if hooks else "torch.Tensor of an unknown element type")
    attrs: dict[str, Any] = {"requires_grad": True} if requires_grad else {}
    if ref.device != "cpu":
        attrs["device"] = ref.device
    offset, *sizes = place
    shape, strides = (tuple(v.value if isinstance(v, TorchAtom) else v) for v in sizes)
    if any(type(n) is not int for n in (*shape, *strides, offset)):
        raise TypeError("a shape that is not made of integers")
    start = offset * dtypes.itemsize(dtype)
    storage = _as_seen(ref.storage, dtype, bits) if bits else ref.storage
    if storage is None:
        return Opaque("torch.Tensor with bits of an unknown meaning")
    try:
        return leaf_of_view(dtype, shape, strides, start=start, storage=storage, attrs=attrs)
    except UnsupportedValue:
        return Opaque("torch.Tensor whose elements overlap")


def _as_seen(storage: Storage, dtype: str, bits: Any) -> Storage | None:
    """The storage of a tensor that torch conjugates or negates only when it is read; None where we cannot."""
    if type(bits) is not dict or not all(key in ("conj", "neg") and value is True for key, value in bits.items()):
        return None
    neg = "neg" in bits
    return negated(storage, dtype, imaginary=neg != ("conj" in bits), real=neg)


def _quantised(ref: Any = None, *_: Any) -> Opaque:
    return Opaque(
        f"quantised torch.Tensor over a {ref.named()}" if isinstance(ref, Inert) else "quantised torch.Tensor"
    )


def _parameter(data: Any, requires_grad: bool = True, hooks: Any = None) -> Any:
    if not isinstance(data, Leaf) or hooks:
        return data if isinstance(data, Opaque) else Opaque("torch.nn.Parameter with hooks")
    return replace(data, attrs={**data.attrs, "parameter": True, "requires_grad": bool(requires_grad)})


def _parameter_with_state(data: Any, requires_grad: bool, hooks: Any, state: Any) -> Any:
    if not _is_of_compiler(state):
        return Opaque("torch.nn.Parameter with attributes")
    return _parameter(data, requires_grad, hooks)


def _typed(function: Any, cls: Any, args: Any, state: Any) -> Any:
    """A tensor of a subclass, or with attributes."""
    if not isinstance(cls, Opaque) or cls.qualname != "torch.Tensor":
        return cls if isinstance(cls, Opaque) else Opaque("subclass of torch.Tensor")
    make = _TENSORS.get(function.qualname) if isinstance(function, Opaque) else None
    if make is None or not _is_of_compiler(state):
        return Opaque("torch.Tensor with attributes")
    exactly(tuple, args)
    return make(*args)


def _is_of_compiler(state: Any) -> bool:
    """Whether attributes are notes of `torch.compile` alone, which it makes anew: those of `torch_state` are no others."""
    return not state or (type(state) is dict and all(type(key) is str and key.startswith("_dynamo_") for key in state))


_TENSORS: Final[dict[str, Callable[..., Any]]] = {
    "torch._utils._rebuild_tensor": _tensor_v2,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
}


# ------------------------------------------------------------------------------------------------------------ Python


_ENCODINGS: Final = ("latin1", "latin-1", "utf-8")


def _encode(text: str, encoding: str = "utf-8") -> bytes:
    exactly(str, text, encoding)
    if encoding not in _ENCODINGS:
        raise ValueError(f"encoding {encoding[:20]!r}")
    return text.encode(encoding)


def _bytearray(data: Any = b"", *encoding: Any) -> bytearray:
    return bytearray(_encode(data, *encoding) if encoding else _bytes(data))


def _bytes(data: Any = b"") -> bytes:
    exactly(bytes, data)  # a number would be a size: memory on the word of the file
    return bytes(data)


def _items(values: Any) -> Iterable[Any]:
    if type(values) not in (list, tuple, set, frozenset):
        raise TypeError(f"items of a {type(values).__name__}")
    return values  # type: ignore[no-any-return]


def _pairs(values: Any) -> Iterable[tuple[Any, Any]]:
    """What a dict is made from: another one, or pairs."""
    if isinstance(values, dict):
        return dict.items(values)
    pairs = list(_items(values))
    if any(type(pair) not in (list, tuple) or len(pair) != 2 for pair in pairs):
        raise TypeError("a pair that is none")
    return pairs


def _defaultdict(factory: Any = None, items: Any = ()) -> Any:
    if factory is not None and not any(factory is known for known in _FACTORIES):
        return Opaque("collections.defaultdict")
    return defaultdict(factory, _pairs(items))


def _counter(items: Any = ()) -> Any:
    counter: Counter[Any] = Counter()
    dict.update(counter, _pairs(items))  # `Counter.update` would add up
    return counter


def _namespace(module: str, name: str) -> Callable[..., Any]:
    def make(*args: Any) -> Any:
        return getattr(__import__(module), name)() if not args else Opaque(f"{module}.{name}")

    return make


def _path(flavour: str) -> Callable[..., Any]:
    def make(*parts: str) -> Any:
        import pathlib

        exactly(str, *parts)
        # A concrete path of the other system cannot be made here; its text is all that it is.
        pure = pathlib.PureWindowsPath if "Windows" in flavour else pathlib.PurePosixPath
        return Ready({"$path": str(pure(*parts)), "flavour": flavour})

    return make


def _number(make: Callable[..., Any]) -> Callable[..., Any]:
    """`float` or `complex` of numbers, and `float` of text."""

    def number(*values: Any) -> Any:
        if any(type(value) not in (int, float, str) for value in values):
            raise TypeError("a number of something that is none")
        return make(*values)

    return number


def _size(sizes: Any = ()) -> TorchAtom:
    sizes = tuple(_items(sizes))
    exactly(int, *sizes)
    return TorchAtom("size", sizes)


def _device(kind: Any, index: Any = None) -> TorchAtom:
    exactly(str, kind)
    if index is not None:
        exactly(int, index)
    return TorchAtom("device", kind if index is None else f"{kind}:{index}")


def _layout(name: Any) -> TorchAtom:
    exactly(str, name)
    return TorchAtom("layout", name.removeprefix("torch."))


_FACTORIES: Final = (dict, list, set, tuple, int, float, str, bool, bytes)
_BUILTINS: Final = {
    "set": lambda items=(): set(_items(items)),
    "frozenset": lambda items=(): frozenset(_items(items)),
    "list": lambda items=(): list(_items(items)),
    "dict": lambda items=(): dict(_pairs(items)),
    "tuple": lambda items=(): tuple(_items(items)),
    "bytes": _bytes,
    "bytearray": _bytearray,
    "complex": _number(complex),
    "float": _number(float),
}

CONSTRUCTORS: Final[dict[str, Any]] = {
    "collections.OrderedDict": lambda items=(): OrderedDict(_pairs(items)),
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
    **_TENSORS,
    "torch._utils._rebuild_qtensor": _quantised,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter_with_state,
    "torch._tensor._rebuild_from_type_v2": _typed,
    "torch.Size": _size,
    "torch.device": _device,
    "torch.serialization._get_layout": _layout,
    **numpy_pickles.CONSTRUCTORS,
}

HASHING: Final = frozenset(
    ["collections.OrderedDict", "collections.defaultdict", "collections.Counter"]
    + [f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("set", "frozenset", "dict")]
)
"""Those that hash what they are given."""

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
    **{
        name: StorageType(dtype, name)
        for prefix, dtype in _STORAGES.items()
        for name in (f"torch.{prefix}Storage", f"torch.cuda.{prefix}Storage")
    },
    **dict.fromkeys(
        ("torch.UntypedStorage", "torch.storage.UntypedStorage"), StorageType(None, "torch.UntypedStorage")
    ),
    **{f"torch.{name}": TorchAtom("dtype", name) for name in dtypes.BY_TORCH_NAME},
    **{f"{m}.{f.__name__}": f for m in ("builtins", "__builtin__") for f in _FACTORIES},
}
