"""State -> nodes. Knows containers and plain values; what a leaf is called and who owns it is decided by the caller."""

from __future__ import annotations

import base64
import math
import struct
from collections import Counter, OrderedDict, defaultdict
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.errors import FormatError
from ckptvcs.formats.leaf import Leaf, Opaque, TorchAtom
from ckptvcs.formats.tree.nodes import (
    FACTORIES,
    FLAVOURS,
    INLINE_BYTES,
    MAX_DEPTH,
    MAX_NODES,
    NAMESPACES,
    Node,
    Path,
    where,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_INT_LIMIT: Final = 1 << 63


class Ready:
    """A node that the `adapt` of an `Encoder` made itself."""

    __slots__ = ("node",)

    def __init__(self, node: Node) -> None:
        self.node = node


class Encoder:
    """Turns one component of a state into a node.

    Args:
        adapt: makes a value of a foreign class (torch, NumPy) into one that this module knows: a `Leaf`, a `TorchAtom`,
            a `Ready` node; returns the value itself when it does not know it either.
        place: takes a leaf and its path and returns the node that names it.

    `problems` collects what has no representation, as (path, class), so that one error can name all of it.
    """

    def __init__(self, adapt: Callable[[Any], Any], place: Callable[[Leaf, Path], Node]) -> None:
        self.place = place
        self.problems: list[tuple[Path, str]] = []
        self._adapt = adapt
        self._numbers: dict[int, int] = {}
        self._alive: list[Any] = []  # an id names an object only for as long as it lives
        self._count = 0

    def encode(self, value: Any, path: Path = ()) -> Node:
        """Return the node of `value`; `path` is where it hangs in the whole state.

        Raises:
            FormatError: the state is nested too deeply, or has too many plain values.
        """
        self._count += 1
        if len(path) > MAX_DEPTH or self._count > MAX_NODES:
            deep = len(path) > MAX_DEPTH
            raise FormatError(
                f"cannot represent '{where(path[:3])}...'",
                why=f"the state is nested deeper than {MAX_DEPTH} levels"
                if deep
                else f"it has over {MAX_NODES} values",
                next_step="flatten that part of the state before saving it" if deep else "keep long lists as tensors",
            )
        value = self._adapt(value)
        encode = _BY_TYPE.get(type(value)) or _by_name(value)
        if encode is None:
            self.problems.append((path, class_name(value)))
            return None
        return encode(self, value, path)

    def seen(self, container: Any) -> Node | None:
        """Give a mutable container its number; return the node of the first occurrence at every later one."""
        number = self._numbers.setdefault(id(container), len(self._alive))
        if number < len(self._alive):
            return {"$same": number}
        self._alive.append(container)
        return None


def class_name(value: Any) -> str:
    """The full name of the class of a value."""
    cls = type(value)
    return f"{cls.__module__}.{cls.__qualname__}"


def _bits(number: float) -> str:
    return struct.pack(">d", number).hex()


def _int(_: Encoder, value: int, __: Path) -> Node:
    return value if -_INT_LIMIT <= value < _INT_LIMIT else {"$int": f"{value:x}"}


def _float(_: Encoder, value: float, __: Path) -> Node:
    return value if math.isfinite(value) else {"$float": _bits(value)}


def _complex(_: Encoder, value: complex, __: Path) -> Node:
    return {"$complex": [_bits(value.real), _bits(value.imag)]}


def _bytes(encoder: Encoder, value: bytes | bytearray, path: Path) -> Node:
    kind = "bytearray" if isinstance(value, bytearray) else "bytes"
    if kind == "bytearray" and (same := encoder.seen(value)):
        return same
    if len(value) > INLINE_BYTES:
        leaf = Leaf(dtype="U8", shape=(len(value),), read=lambda: memoryview(value), kind=kind)  # type: ignore[arg-type]
        return encoder.place(leaf, path)
    return {f"${kind}": base64.b64encode(value).decode("ascii")}


def _list(encoder: Encoder, value: list[Any], path: Path) -> Node:
    return encoder.seen(value) or [encoder.encode(item, (*path, i)) for i, item in enumerate(value)]


def _tuple(encoder: Encoder, value: tuple[Any, ...], path: Path) -> Node:
    return {"$tuple": [encoder.encode(item, (*path, i)) for i, item in enumerate(value)]}


def _items(encoder: Encoder, value: set[Any] | frozenset[Any], path: Path) -> list[Node]:
    # The order of a set changes from process to process; the bytes of a tree must not.
    return sorted((encoder.encode(item, (*path, i)) for i, item in enumerate(value)), key=repr)


def _set(encoder: Encoder, value: set[Any], path: Path) -> Node:
    return encoder.seen(value) or {"$set": _items(encoder, value, path)}


def _frozenset(encoder: Encoder, value: frozenset[Any], path: Path) -> Node:
    return {"$frozenset": _items(encoder, value, path)}


def _pairs(encoder: Encoder, mapping: Mapping[Any, Any], path: Path) -> list[list[Node]]:
    return [[encoder.encode(key, (*path, key)), encoder.encode(item, (*path, key))] for key, item in mapping.items()]


def _dict(encoder: Encoder, value: dict[Any, Any], path: Path) -> Node:
    if same := encoder.seen(value):
        return same
    if all(type(key) is str and not key.startswith("$") for key in value):
        return {key: encoder.encode(item, (*path, key)) for key, item in value.items()}
    return {"$dict": _pairs(encoder, value, path)}


def _odict(encoder: Encoder, value: OrderedDict[Any, Any], path: Path) -> Node:
    if same := encoder.seen(value):
        return same
    node = {"$odict": _pairs(encoder, value, path)}
    if attrs := vars(value):
        node["attrs"] = _pairs(encoder, attrs, path)
    return node


def _defaultdict(encoder: Encoder, value: defaultdict[Any, Any], path: Path) -> Node:
    if same := encoder.seen(value):
        return same
    factory = value.default_factory
    name = getattr(factory, "__name__", "")
    if factory is not None and FACTORIES.get(name) is not factory:
        encoder.problems.append((path, f"collections.defaultdict of {factory!r}"))
        return None
    return {"$defaultdict": _pairs(encoder, value, path), "factory": name or None}


def _counter(encoder: Encoder, value: Counter[Any], path: Path) -> Node:
    return encoder.seen(value) or {"$counter": _pairs(encoder, value, path)}


def _namespace(encoder: Encoder, value: Any, path: Path) -> Node:
    return encoder.seen(value) or {"$namespace": class_name(value), "attrs": _pairs(encoder, vars(value), path)}


def _path(_: Encoder, value: Any, __: Path) -> Node:
    return {"$path": str(value), "flavour": type(value).__name__}


def _atom(_: Encoder, value: TorchAtom, __: Path) -> Node:
    return {"$torch": [value.type, list(value.value) if value.type == "size" else value.value]}


def _opaque(encoder: Encoder, value: Opaque, path: Path) -> Node:
    encoder.problems.append((path, value.qualname))


def _plain(_: Encoder, value: Any, __: Path) -> Node:
    return value


_BY_TYPE: Final[dict[type, Callable[[Encoder, Any, Path], Node]]] = {
    # Exact types only: a subclass of dict or int carries meaning that we would lose without a word.
    type(None): _plain,
    bool: _plain,
    str: _plain,
    int: _int,
    float: _float,
    complex: _complex,
    bytes: _bytes,
    bytearray: _bytes,
    list: _list,
    tuple: _tuple,
    set: _set,
    frozenset: _frozenset,
    dict: _dict,
    OrderedDict: _odict,
    defaultdict: _defaultdict,
    Counter: _counter,
    TorchAtom: _atom,
    Opaque: _opaque,
    Leaf: lambda encoder, value, path: encoder.place(value, path),
    Ready: lambda _, value, __: value.node,
}


def _by_name(value: Any) -> Callable[[Encoder, Any, Path], Node] | None:
    """The encoder of the standard classes that are too dear to import only to recognise them."""
    name = class_name(value)
    if name in NAMESPACES:
        return _namespace
    module, _, cls = name.rpartition(".")
    return _path if module.partition(".")[0] == "pathlib" and cls in FLAVOURS else None
