"""Nodes -> state: the exact inverse of `encode`, for nodes that nobody vouches for."""

from __future__ import annotations

import base64
import struct
from collections import Counter, OrderedDict, defaultdict
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from ckptvcs.errors import FormatError, HostileInput
from ckptvcs.formats import dtypes
from ckptvcs.formats.leaf import TorchAtom
from ckptvcs.formats.tree.nodes import FACTORIES, FLAVOURS, MAX_DEPTH, NAMESPACES, Node
from ckptvcs.paths import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")


class Builder(Protocol):
    """Makes the values that only a framework, or only the reader of an artifact, can make."""

    def tensor(self, name: str, component: str | None) -> Any:
        """The leaf of that name, the same object at every call; `component` is given where another one owns it."""

    def atom(self, atom: TorchAtom) -> Any:
        """A `torch.Size`, `torch.dtype`..., or the stand-in itself where torch is not wanted."""

    def component(self, name: str) -> Any:
        """The value of a component, for the root tree."""


class Decoder:
    """Turns one tree back into a value: equal to what was encoded, of the same types, with the same sharing."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.containers: list[Any] = []

    def decode(self, node: Node, depth: int = 0) -> Any:
        """Return the value of a node.

        Raises:
            FormatError: no encoder of ours wrote this.
        """
        if depth > MAX_DEPTH + 1:
            raise HostileInput("cannot read a tree", why=f"it is nested deeper than {MAX_DEPTH} levels")
        if isinstance(node, list):
            return _list(self, node, depth)
        if not isinstance(node, dict):
            return node
        tag = next((key for key in node if key.startswith("$")), "")
        decode = _BY_TAG.get(tag)
        if decode is None:
            raise FormatError(
                "cannot read a tree", why=f"node '{printable(tag[:40])}' is unknown to this version of ckptvcs"
            )
        try:
            return decode(self, node, depth + 1)
        except (KeyError, TypeError, ValueError, AttributeError, struct.error) as err:
            raise FormatError(
                "cannot read a tree", why=f"node '{tag}' is malformed: {printable(str(err)[:200])}"
            ) from err

    def register(self, container: T) -> T:
        """Number a mutable container, before its content is decoded: it may contain itself."""
        self.containers.append(container)
        return container


def _list(decoder: Decoder, nodes: list[Node], depth: int) -> list[Any]:
    out: list[Any] = decoder.register([])
    out.extend(_items(decoder, nodes, depth + 1))
    return out


def _dict(decoder: Decoder, node: Node, depth: int) -> dict[str, Any]:
    out: dict[str, Any] = decoder.register({})
    for key, item in node.items():
        out[key] = decoder.decode(item, depth)
    return out


def _items(decoder: Decoder, nodes: list[Node], depth: int) -> list[Any]:
    return [decoder.decode(item, depth) for item in nodes]


def _fill(decoder: Decoder, out: Any, pairs: Iterable[tuple[Node, Node]], depth: int) -> None:
    for key, item in pairs:
        decoded_key = decoder.decode(key, depth)
        out[decoded_key] = decoder.decode(item, depth)


def _mapping(decoder: Decoder, out: T, pairs: Iterable[tuple[Node, Node]], depth: int) -> T:
    _fill(decoder, decoder.register(out), pairs, depth)
    return out


def _odict(decoder: Decoder, node: Node, depth: int) -> Any:
    out: OrderedDict[Any, Any] = _mapping(decoder, OrderedDict(), node["$odict"], depth)
    _fill(decoder, vars(out), node.get("attrs", ()), depth)
    return out


def _defaultdict(decoder: Decoder, node: Node, depth: int) -> Any:
    factory = None if node["factory"] is None else FACTORIES[node["factory"]]
    return _mapping(decoder, defaultdict(factory), node["$defaultdict"], depth)


def _set(decoder: Decoder, node: Node, depth: int) -> Any:
    out: set[Any] = decoder.register(set())
    out.update(_items(decoder, node["$set"], depth))
    return out


def _namespace(decoder: Decoder, node: Node, depth: int) -> Any:
    if node["$namespace"] not in NAMESPACES:
        raise ValueError(node["$namespace"])
    module, _, name = node["$namespace"].rpartition(".")
    out = decoder.register(getattr(__import__(module), name)())
    _fill(decoder, vars(out), node["attrs"], depth)
    return out


def _bytearray(decoder: Decoder, node: Node, _: int) -> Any:
    return decoder.register(bytearray(base64.b64decode(node["$bytearray"], validate=True)))


def _same(decoder: Decoder, node: Node, _: int) -> Any:
    number = node["$same"]
    if not isinstance(number, int) or not 0 <= number < len(decoder.containers):
        raise ValueError(f"no container has number {number}")
    return decoder.containers[number]


def _tensor(decoder: Decoder, node: Node, _: int) -> Any:
    value = decoder.builder.tensor(node["$tensor"], node.get("in"))
    return decoder.register(value) if isinstance(value, bytearray) else value


def _torch(decoder: Decoder, node: Node, _: int) -> Any:
    kind, value = node["$torch"]
    return decoder.builder.atom(TorchAtom(kind, tuple(value) if kind == "size" else value))


def _component(decoder: Decoder, node: Node, _: int) -> Any:
    return decoder.builder.component(node["$component"])


def _float(bits: str) -> float:
    return float(struct.unpack(">d", bytes.fromhex(bits))[0])


def _path(_: Decoder, node: Node, __: int) -> Any:
    import pathlib

    if node["flavour"] not in FLAVOURS:
        raise ValueError(node["flavour"])
    try:
        return getattr(pathlib, node["flavour"])(node["$path"])
    except NotImplementedError as err:
        raise FormatError(
            f"cannot make a {node['flavour']} here",
            why=f"the state holds the path '{printable(str(node['$path']))}' of another operating system",
            next_step="load the other components, or load it on that system",
        ) from err


def _numpy(_: Decoder, node: Node, __: int) -> Any:
    import numpy as np

    type_string, text = node["$numpy"]
    dtype, data = _np_dtype(type_string), bytes.fromhex(text)
    if len(data) < dtype.itemsize:
        raise ValueError(f"{len(data)} bytes of {dtype.itemsize}")
    if (
        dtype.kind == "S"
    ):  # NumPy cuts zeros off the end of texts that come out of an array, and has no empty ones there
        return np.bytes_(data[: dtype.itemsize])
    if dtype.kind == "U":
        order = "be" if dtype.byteorder == ">" else "le"
        return np.str_(data[: dtype.itemsize].decode(f"utf-32-{order}", "surrogatepass"))
    return np.frombuffer(data, dtype=dtype, count=1)[0] if dtype.itemsize else np.void(b"")


def _npdtype(_: Decoder, node: Node, __: int) -> Any:
    return _np_dtype(node["$npdtype"])


def _np_dtype(type_string: Any) -> Any:
    """The NumPy type of a type string, and of nothing else: `np.dtype` takes a whole language, and None for `f8`."""
    import numpy as np

    if not isinstance(type_string, str) or not dtypes.is_numpy(type_string):
        raise ValueError(f"{type_string!r} is no NumPy type")
    return np.dtype(type_string)


_BY_TAG: Final[dict[str, Callable[[Decoder, Node, int], Any]]] = {
    "": _dict,
    "$int": lambda _, node, __: int(node["$int"], 16),
    "$float": lambda _, node, __: _float(node["$float"]),
    "$complex": lambda _, node, __: complex(*map(_float, node["$complex"])),
    "$bytes": lambda _, node, __: base64.b64decode(node["$bytes"], validate=True),
    "$bytearray": _bytearray,
    "$tuple": lambda decoder, node, depth: tuple(_items(decoder, node["$tuple"], depth)),
    "$frozenset": lambda decoder, node, depth: frozenset(_items(decoder, node["$frozenset"], depth)),
    "$set": _set,
    "$dict": lambda decoder, node, depth: _mapping(decoder, {}, node["$dict"], depth),
    "$odict": _odict,
    "$defaultdict": _defaultdict,
    "$counter": lambda decoder, node, depth: _mapping(decoder, Counter(), node["$counter"], depth),
    "$namespace": _namespace,
    "$path": _path,
    "$numpy": _numpy,
    "$npdtype": _npdtype,
    "$torch": _torch,
    "$tensor": _tensor,
    "$same": _same,
    "$component": _component,
}
