"""A pickle interpreter that cannot run code: opcodes are data, classes are looked up in an allow-list and nowhere else.

Python's own unpickler imports and calls whatever a pickle names, and allocates whatever it claims. This one knows the
opcodes of protocols 0 to 5 that describe data; a class that is not on the list becomes an `Opaque` that absorbs its
arguments without anything being made, so that the caller can say *where* in the state it stood. What is made stays in
proportion to the size of the pickle. Opcodes: https://github.com/python/cpython/blob/main/Lib/pickletools.py
"""

from __future__ import annotations

import struct
from collections import Counter, OrderedDict, defaultdict
from typing import TYPE_CHECKING, Any, Final, Protocol

from ckptvcs.errors import HostileInput
from ckptvcs.formats.foreign.pickle_literals import LITERALS, U8, U32, Input
from ckptvcs.formats.leaf import Opaque, TorchAtom
from ckptvcs.formats.tree.encode import class_name
from ckptvcs.formats.tree.nodes import MAX_DEPTH, NAMESPACES
from ckptvcs.paths import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

_MARK: Final = object()
MAX_OPCODES: Final = 50_000_000
"""About ten seconds' worth each million; a state of a million tensors needs thirty million."""

_CONTAINERS: Final[tuple[type, ...]] = (list, tuple, set, frozenset, dict, OrderedDict, defaultdict, Counter)
_COSTS: Final[dict[type, int]] = {str: 1, bytes: 1, bytearray: 1, **dict.fromkeys(_CONTAINERS, 8)}
"""Bytes that a copy takes for each item."""

_ROOM: Final = 8
"""How many times its own size a pickle may make by calls, whose arguments it can name again and again for two bytes. An
honest one comes to four: a set of eight bytes an item, each of which is named in two."""

_HASHED: Final = 16
"""How many values, for each byte of a pickle, may be hashed. An honest one comes to a few: the parts of its keys."""

_SMALL: Final = 1 << 16
"""What a pickle of any size may."""


class Constructor(Protocol):
    """An entry of the allow-list: makes an inert value from the arguments of a REDUCE."""

    def __call__(self, *args: Any) -> Any: ...


class Pending:
    """What lies on the stack, or in the memo, and stands for a value that may not be made yet.

    No ABC: every value is asked whether it is one, and `isinstance` takes five times as long for those.
    """

    __slots__ = ()

    def finished(self) -> Any:
        """The value."""
        raise NotImplementedError


class Buildable(Pending):
    """What becomes a value by a BUILD."""

    def build(self, state: Any) -> None:
        """Make the value."""
        raise NotImplementedError


class Global(Pending):
    """A class or function that a pickle names. Calling the Python object of that name never happens here."""

    __slots__ = ("make", "name", "value")

    def __init__(self, name: str, make: Constructor | None, value: Any = None) -> None:
        self.name, self.make, self.value = name, make, value

    def finished(self) -> Any:
        """What a bare class reference stands for: its constant, else an opaque object."""
        return self.value if self.value is not None else Opaque(self.name)


def exactly(kind: type, *values: Any) -> None:
    """Refuse values of any other type: text made of a tuple that holds itself again and again would not end."""
    for value in values:
        if type(value) is not kind:
            raise TypeError(f"a {type(value).__name__} instead of {kind.__name__}")


def finished(value: Any) -> Any:
    """A value of the stack as it goes into the state."""
    return value.finished() if isinstance(value, Pending) else value


class Interpreter(Input):
    """Runs one pickle.

    Args:
        data: the whole pickle.
        constructors: full name -> what makes its values.
        hashing: those of them that make sets, or dicts with keys from their arguments.
        constants: full name -> the value that it stands for when it is used as it is.
        persistent: resolves a persistent id.
    """

    def __init__(
        self,
        data: memoryview,
        *,
        constructors: Mapping[str, Constructor],
        hashing: Collection[str],
        constants: Mapping[str, Any],
        persistent: Callable[[Any], Any],
    ) -> None:
        super().__init__(data)
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.persistent = persistent
        self.unknown: str | None = None
        """The first function that the pickle calls and that is not on the list."""
        self._constructors = constructors
        self._hashing = hashing
        self._constants = constants
        self._room = _ROOM * len(data) + _SMALL
        self._hashed = -_HASHED * len(data) - _SMALL

    def run(self) -> Any:
        """Return the value that the pickle describes.

        Raises:
            HostileInput: it is damaged, or claims what no honest pickle claims.
        """
        try:
            return self._run()
        except (
            *(LookupError, ValueError, TypeError, AttributeError, ArithmeticError),
            *(struct.error, RecursionError, MemoryError),
        ) as err:
            reason = printable(f"{type(err).__name__}: {str(err)[:120]}")
            why = f"the pickle is damaged at byte {self.position} ({reason})"
            raise HostileInput("cannot read the state", why=why) from err

    def _run(self) -> Any:
        for _ in range(MAX_OPCODES):
            opcode = self.data[self.position]
            self.position += 1
            literal = LITERALS[opcode]
            if literal is not None:
                self.stack.append(literal(self))
            elif opcode == _STOP:
                return finished(self.stack.pop())
            else:
                _OPCODES[opcode](self)
        raise HostileInput("cannot read the state", why=f"the pickle has more than {MAX_OPCODES} opcodes")

    # ---- stack

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def since_mark(self) -> list[Any]:
        """Pop everything above the last mark, and the mark."""
        for i in range(len(self.stack) - 1, -1, -1):
            if self.stack[i] is _MARK:
                items = self.stack[i + 1 :]
                del self.stack[i:]
                return items
        raise ValueError("no mark on the stack")

    # ---- limits

    def _charge(self, cost: int) -> None:
        self._room -= cost
        if self._room < 0:
            raise ValueError("it makes far more than it holds")

    def weigh(self, key: Any) -> None:
        """Look at a key before it is hashed: that walks all of it, for ever where a tuple holds itself again and again."""
        stack = [(key, 0)]
        while stack:
            value, depth = stack.pop()
            value = value.value if type(value) is TorchAtom else value
            if type(value) is int:
                self._hashed += value.bit_length() >> 6
            elif type(value) in (tuple, frozenset):
                self._hashed += len(value)
                if depth > MAX_DEPTH or self._hashed > 0:
                    raise ValueError(f"a key that is nested deeper than {MAX_DEPTH} levels, or holds itself")
                stack.extend((item, depth + 1) for item in value)
        if self._hashed > 0:
            raise ValueError("keys that take too long to look at")

    # ---- classes

    def find(self, module: str, name: str) -> Global:
        full = f"{module}.{name}"
        return Global(full, self._constructors.get(full), self._constants.get(full))

    def call(self, function: Any, args: tuple[Any, ...]) -> Any:
        if not isinstance(function, Global) or function.make is None:
            return self.not_called(function)
        self._charge(sum(len(arg) * _COSTS[type(arg)] for arg in args if type(arg) in _COSTS))
        if function.name in self._hashing:
            for item in (item for arg in args if type(arg) in _CONTAINERS for item in arg):
                self.weigh(item[0] if type(item) is list and item else item)  # a list is a pair: nothing else is hashed
        return function.make(*args)

    def not_called(self, function: Any) -> Opaque:
        """Stand for what a function that is not on the list would have made."""
        opaque = finished(function)
        if isinstance(function, Global):
            opaque = Opaque(function.name)
        elif type(opaque) is not Opaque:
            raise TypeError(f"a call of a {type(opaque).__name__}")
        self.unknown = self.unknown or opaque.qualname
        return opaque

    def build(self, value: Any, state: Any) -> None:
        """Give an object its state: only our own inert values and known attribute holders take one."""
        if type(value) is Opaque:
            return
        if isinstance(value, Buildable):
            value.build(state)
            return
        parts = state if type(state) is tuple and len(state) == 2 else (state,)
        if type(value) is not OrderedDict and class_name(value) not in NAMESPACES:
            raise TypeError(f"state of a {type(value).__name__}")
        for attributes in parts:
            if attributes is None:
                continue
            if type(attributes) is not dict or not all(type(key) is str for key in attributes):
                raise TypeError(f"state of a {type(value).__name__} that is no dict")
            self._charge(_COSTS[dict] * len(attributes))
            vars(value).update(attributes)


# -------------------------------------------------------------------------------------------------------- opcodes

_STOP: Final = ord(".")


def _tuple_of(count: int) -> Callable[[Interpreter], None]:
    def run(vm: Interpreter) -> None:
        items = tuple(finished(v) for v in vm.stack[len(vm.stack) - count :])
        if len(items) != count or any(item is _MARK for item in items):
            raise ValueError("stack underflow")
        del vm.stack[len(vm.stack) - count :]
        vm.push(items)

    return run


def _append(vm: Interpreter, items: list[Any]) -> None:
    target = vm.stack[-1]
    if type(target) is Opaque:
        return
    if type(target) is not list:
        raise TypeError("append to something that is no list")
    target.extend(map(finished, items))


def _add(vm: Interpreter, items: list[Any]) -> None:
    target = vm.stack[-1]
    if type(target) is not set:
        raise TypeError("add to something that is no set")
    for item in map(finished, items):
        vm.weigh(item)
        target.add(item)


def _frozenset(vm: Interpreter) -> None:
    items = [finished(item) for item in vm.since_mark()]
    for item in items:
        vm.weigh(item)
    vm.push(frozenset(items))


def _set_items(vm: Interpreter, items: list[Any]) -> None:
    target = vm.stack[-1]
    if type(target) is Opaque:
        return
    if not isinstance(target, dict) or len(items) % 2:
        raise TypeError("set an item of something that is no dict")
    for raw, value in zip(items[::2], items[1::2], strict=True):
        key = finished(raw)
        if type(key) is not str:
            vm.weigh(key)
        target[key] = finished(value)


def _pop2(vm: Interpreter) -> list[Any]:
    value, key = vm.stack.pop(), vm.stack.pop()
    return [key, value]


def _put(vm: Interpreter, index: int) -> None:
    vm.memo[index] = vm.stack[-1]


def _reduce(vm: Interpreter) -> None:
    args, function = vm.stack.pop(), vm.stack.pop()
    if type(args) is not tuple:
        raise TypeError("arguments that are no tuple")
    vm.push(vm.call(function, args))


def _new_object_ex(vm: Interpreter) -> None:
    kwargs, args, cls = vm.stack.pop(), vm.stack.pop(), vm.stack.pop()
    if type(args) is not tuple:
        raise TypeError("arguments that are no tuple")
    vm.push(vm.not_called(cls) if kwargs else vm.call(cls, args))


def _instance(vm: Interpreter) -> None:
    cls = _global(vm)
    vm.push(vm.call(cls, tuple(map(finished, vm.since_mark()))))


def _object(vm: Interpreter) -> None:
    cls, *args = vm.since_mark()
    vm.push(vm.call(cls, tuple(map(finished, args))))


def _build(vm: Interpreter) -> None:
    state = finished(vm.stack.pop())
    vm.build(vm.stack[-1], state)


def _global(vm: Interpreter) -> Global:
    module, name = vm.line(), vm.line()
    return vm.find(module.decode("utf-8"), name.decode("utf-8"))


def _stack_global(vm: Interpreter) -> None:
    name, module = vm.stack.pop(), vm.stack.pop()
    if type(name) is not str or type(module) is not str:
        raise TypeError("a class without a name")
    vm.push(vm.find(module, name))


def _frame(vm: Interpreter) -> None:
    vm.take(8)  # frames only say how much to read ahead


def _unsupported(vm: Interpreter) -> None:
    raise ValueError(f"opcode {vm.data[vm.position - 1]:#04x} is not used for data")


def _push_dict(vm: Interpreter) -> None:
    items = vm.since_mark()
    vm.push({})
    _set_items(vm, items)


_OPCODES: Final[dict[int, Callable[[Interpreter], None]]] = dict.fromkeys(range(256), _unsupported) | {
    ord(code): run
    for code, run in {
        "\x80": lambda vm: vm.take(1),
        "\x95": _frame,
        "(": lambda vm: vm.push(_MARK),
        "0": lambda vm: vm.stack.pop(),
        "1": lambda vm: vm.since_mark(),
        "2": lambda vm: vm.push(vm.stack[-1]),
        # containers
        "l": lambda vm: vm.push(list(map(finished, vm.since_mark()))),
        "a": lambda vm: _append(vm, [vm.stack.pop()]),
        "e": lambda vm: _append(vm, vm.since_mark()),
        "t": lambda vm: vm.push(tuple(map(finished, vm.since_mark()))),
        "\x85": _tuple_of(1),
        "\x86": _tuple_of(2),
        "\x87": _tuple_of(3),
        "d": _push_dict,
        "s": lambda vm: _set_items(vm, _pop2(vm)),
        "u": lambda vm: _set_items(vm, vm.since_mark()),
        "\x90": lambda vm: _add(vm, vm.since_mark()),
        "\x91": _frozenset,
        # memo
        "p": lambda vm: _put(vm, int(vm.line())),
        "q": lambda vm: _put(vm, vm.number(U8)),
        "r": lambda vm: _put(vm, vm.number(U32)),
        "\x94": lambda vm: _put(vm, len(vm.memo)),
        "g": lambda vm: vm.push(vm.memo[int(vm.line())]),
        "h": lambda vm: vm.push(vm.memo[vm.number(U8)]),
        "j": lambda vm: vm.push(vm.memo[vm.number(U32)]),
        # classes
        "c": lambda vm: vm.push(_global(vm)),
        "\x93": _stack_global,
        "R": _reduce,
        "\x81": _reduce,
        "\x92": _new_object_ex,
        "i": _instance,
        "o": _object,
        "b": _build,
        "P": lambda vm: vm.push(vm.persistent(vm.line().decode("ascii"))),
        "Q": lambda vm: vm.push(vm.persistent(vm.stack.pop())),
    }.items()
}
