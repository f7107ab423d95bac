"""State -> nodes. Knows containers and plain values; what a leaf is called and who owns it is decided by the caller."""

from __future__ import annotations

import base64
import math
import re
import struct
from collections import Counter, OrderedDict, defaultdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ckptvcs.digest import digest
from ckptvcs.errors import FormatError
from ckptvcs.formats.leaf import Inert, Leaf, TorchAtom
from ckptvcs.formats.tree.nodes import (
    FACTORIES,
    FLAVOURS,
    INLINE_BYTES,
    MAX_DEPTH,
    MAX_NODES,
    MAX_TEXT,
    NAMESPACES,
    Node,
    Path,
    where,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_INT_LIMIT: Final = 1 << 63
_SIZE_OF_NUMBER: Final = 8
_HALVES: Final = re.compile("[\ud800-\udbff][\udc00-\udfff]")


class Ready:
    """A node that the `adapt` of an `Encoder` made itself."""

    __slots__ = ("node",)

    def __init__(self, node: Node) -> None:
        self.node = node


class _Known(NamedTuple):
    """A tuple that was encoded before."""

    value: tuple[Any, ...]
    """Keeps its id."""
    node: Node
    size: int
    """How many values are in it, each counted as often as it hangs there."""
    height: int
    """How many levels are below it."""


class Encoder:
    """Turns one component of a state into a node.

    Args:
        adapt: makes a value of a foreign class (torch, NumPy) into one that this module knows: a `Leaf`, a `TorchAtom`,
            a `Ready` node; returns the value itself when it does not know it either.
        place: takes a leaf and its path and returns the node that names it.

    `problems` collects what has no representation, as (path, class), so that one error can name all of it.
    """

    def __init__(self, adapt: Callable[[Any], Any], place: Callable[[Leaf, Path], Node]) -> None:
        self.adapt = adapt
        self.problems: list[tuple[Path, str]] = []
        self._place = place
        self._numbers: dict[int, int] = {}
        self._alive: list[Any] = []  # an id names an object only for as long as it lives
        self._leaves: dict[int, tuple[Any, Node]] = {}
        self._tuples: dict[int, _Known] = {}
        self._deepest = 0
        self._count = 0
        self._room = MAX_TEXT
        self._sketch: Encoder | None = None

    def encode(self, value: Any, path: Path = ()) -> Node:
        """Return the node of `value`; `path` is where it hangs in the whole state.

        Raises:
            FormatError: the state is nested too deeply, or has too many plain values.
        """
        self._count += 1
        if len(path) > self._deepest or self._count > MAX_NODES:
            self._take_in(path, 0, 0)
        adapted = self.adapt(value)
        if type(adapted) is Leaf:
            return self.leaf(adapted, value, path)
        encode = _BY_TYPE.get(type(adapted)) or _by_name(adapted)
        if encode is None:
            self.problems.append((path, class_name(adapted)))
            return None
        return encode(self, adapted, path)

    def leaf(self, leaf: Leaf, value: Any, path: Path) -> Node:
        """Return the node of the leaf that was made of `value`: the same one for the same object."""
        known = self._leaves.get(id(value))
        if known is None:
            known = self._leaves[id(value)] = value, self._place(leaf, path)
        return known[1]

    def seen(self, container: Any) -> Node | None:
        """Give a mutable container its number; return the node of the first occurrence at every later one."""
        number = self._numbers.setdefault(id(container), len(self._alive))
        if number < len(self._alive):
            return {"$same": number}
        self._alive.append(container)
        return None

    def items(self, value: tuple[Any, ...], path: Path) -> Node:
        """Return the node of a tuple: the same one again where nothing in it could come out otherwise.

        One that holds itself again and again is small in memory and endless when it is written out; it is counted here
        without being walked.
        """
        known = self._tuples.get(id(value))
        if known is not None:
            self._take_in(path, known.size, known.height)
            return known.node
        numbered = len(self._alive) + len(self._leaves)
        count, deepest, self._deepest = self._count, self._deepest, len(path)
        node = {"$tuple": [self.encode(item, (*path, i)) for i, item in enumerate(value)]}
        height = self._deepest - len(path)
        # What it holds comes out otherwise after the first time if it was numbered then; and a flat one is soon walked.
        if height > 1 and numbered == len(self._alive) + len(self._leaves):
            self._tuples[id(value)] = _Known(value, node, self._count - count, height)
        self._deepest = max(deepest, self._deepest)
        return node

    def likeness(self, value: Any, path: Path) -> str:
        """Return a text that is equal for equal values and tells all others apart, by the content of leaves too."""
        if self._sketch is None:
            self._sketch = Encoder(self.adapt, lambda leaf, _: digest(leaf.read()))
        return repr(self._sketch.encode(value, path))

    def charge(self, nbytes: int, path: Path) -> None:
        """Count what a value takes in the file: one long text can hang in a state a million times."""
        self._room -= nbytes
        if self._room < 0:
            raise _too_much(
                path, f"it has over {MAX_TEXT} bytes of text", "keep long texts and byte strings as tensors"
            )

    def _take_in(self, path: Path, count: int, height: int) -> None:
        """Count values, the lowest of them `height` levels below `path`."""
        self._count += count
        depth = len(path) + height
        self._deepest = max(self._deepest, depth)
        if depth > MAX_DEPTH:
            why = f"the state is nested deeper than {MAX_DEPTH} levels"
            raise _too_much(path, why, "flatten that part of the state before saving it")
        if self._count > MAX_NODES:
            raise _too_much(path, f"it has over {MAX_NODES} values", "keep long lists as tensors")


def _too_much(path: Path, why: str, next_step: str) -> FormatError:
    return FormatError(f"cannot represent '{where(path[:3])}...'", why=why, next_step=next_step)


def class_name(value: Any) -> str:
    """The full name of the class of a value."""
    cls = type(value)
    return f"{cls.__module__}.{cls.__qualname__}"


def _bits(number: float) -> str:
    return struct.pack(">d", number).hex()


def _int(encoder: Encoder, value: int, path: Path) -> Node:
    if -_INT_LIMIT <= value < _INT_LIMIT:
        return value
    encoder.charge(value.bit_length() // 4, path)
    return {"$int": f"{value:x}"}


def _float(_: Encoder, value: float, __: Path) -> Node:
    return value if math.isfinite(value) else {"$float": _bits(value)}


def _complex(_: Encoder, value: complex, __: Path) -> Node:
    return {"$complex": [_bits(value.real), _bits(value.imag)]}


def _text(encoder: Encoder, value: str, path: Path) -> Node:
    encoder.charge(len(value), path)
    if _is_split(value):
        encoder.problems.append((path, "str with a character in two halves, which JSON would join"))
    return value


def _is_split(text: str) -> bool:
    return not text.isascii() and _HALVES.search(text) is not None


def _bytes(encoder: Encoder, value: bytes | bytearray, path: Path) -> Node:
    kind = "bytearray" if isinstance(value, bytearray) else "bytes"
    if kind == "bytearray" and (same := encoder.seen(value)):
        return same
    if len(value) > INLINE_BYTES:
        leaf = Leaf(dtype="U8", shape=(len(value),), read=lambda: memoryview(value), kind=kind)  # type: ignore[arg-type]
        return encoder.leaf(leaf, value, path)
    encoder.charge(len(value) * 4 // 3, path)
    return {f"${kind}": base64.b64encode(value).decode("ascii")}


def _list(encoder: Encoder, value: list[Any], path: Path) -> Node:
    return encoder.seen(value) or [encoder.encode(item, (*path, i)) for i, item in enumerate(value)]


def _items(encoder: Encoder, value: set[Any] | frozenset[Any], path: Path) -> list[Node]:
    # The order of a set changes from process to process; the bytes of a tree, and the names of leaves, must not.
    ordered = sorted(value, key=lambda item: encoder.likeness(item, path)) if len(value) > 1 else value
    return [encoder.encode(item, (*path, i)) for i, item in enumerate(ordered)]


def _set(encoder: Encoder, value: set[Any], path: Path) -> Node:
    return encoder.seen(value) or {"$set": _items(encoder, value, path)}


def _frozenset(encoder: Encoder, value: frozenset[Any], path: Path) -> Node:
    return {"$frozenset": _items(encoder, value, path)}


def _pairs(encoder: Encoder, mapping: dict[Any, Any], path: Path) -> list[list[Node]]:
    # Attributes of an `OrderedDict` may hide its methods.
    items = dict.items(mapping)
    return [[encoder.encode(key, (*path, key)), encoder.encode(item, (*path, key))] for key, item in items]


def _dict(encoder: Encoder, value: dict[Any, Any], path: Path) -> Node:
    if same := encoder.seen(value):
        return same
    if all(type(key) is str and not key.startswith("$") and not _is_split(key) for key in value):
        encoder.charge(sum(map(len, value)), path)
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


def _path(encoder: Encoder, value: Any, path: Path) -> Node:
    return {"$path": _text(encoder, str(value), path), "flavour": type(value).__name__}


def _atom(encoder: Encoder, value: TorchAtom, path: Path) -> Node:
    encoder.charge(_SIZE_OF_NUMBER * len(value.value), path)
    return {"$torch": [value.type, list(value.value) if value.type == "size" else value.value]}


def _inert(encoder: Encoder, value: Inert, path: Path) -> Node:
    encoder.problems.append((path, value.named()))


def _ready(encoder: Encoder, value: Ready, path: Path) -> Node:
    encoder.charge(len(repr(value.node)), path)
    return value.node


def _plain(_: Encoder, value: Any, __: Path) -> Node:
    return value


_BY_TYPE: Final[dict[type, Callable[[Encoder, Any, Path], Node]]] = {
    # Exact types only: a subclass of dict or int carries meaning that we would lose without a word.
    type(None): _plain,
    bool: _plain,
    str: _text,
    int: _int,
    float: _float,
    complex: _complex,
    bytes: _bytes,
    bytearray: _bytes,
    list: _list,
    tuple: Encoder.items,
    set: _set,
    frozenset: _frozenset,
    dict: _dict,
    OrderedDict: _odict,
    defaultdict: _defaultdict,
    Counter: _counter,
    TorchAtom: _atom,
    Ready: _ready,
}


def _by_name(value: Any) -> Callable[[Encoder, Any, Path], Node] | None:
    """The encoder of the standard classes that are too dear to import only to recognise them."""
    if isinstance(value, Inert):
        return _inert
    name = class_name(value)
    if name in NAMESPACES:
        return _namespace
    module, _, cls = name.rpartition(".")
    return _path if module.partition(".")[0] == "pathlib" and cls in FLAVOURS else None
