"""A pickle interpreter that cannot run code: opcodes are data, classes are looked up in an allow-list and nowhere else.

Python's own unpickler imports and calls whatever a pickle names, and allocates whatever it claims. This one knows the
opcodes of protocols 0 to 5 that describe data; a class that is not on the list becomes an `Opaque` that absorbs its
arguments without anything being made, so that the caller can say *where* in the state it stood. Opcodes:
https://github.com/python/cpython/blob/main/Lib/pickletools.py
"""

from __future__ import annotations

import struct
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from ckptvcs.errors import HostileInput
from ckptvcs.formats.leaf import Opaque
from ckptvcs.paths import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_MARK: Final = object()
MAX_OPCODES: Final = 50_000_000
"""About ten seconds' worth each million; a state of a million tensors needs thirty million."""


class Constructor(Protocol):
    """An entry of the allow-list: makes an inert value from the arguments of a REDUCE."""

    def __call__(self, *args: Any) -> Any: ...


class Buildable(Protocol):
    """A value that accepts the state of a BUILD itself."""

    def build(self, state: Any) -> Any:
        """Return the finished value."""


class Global:
    """A class or function that a pickle names. Calling the Python object of that name never happens here."""

    __slots__ = ("make", "name", "value")

    def __init__(self, name: str, make: Constructor | None, value: Any = None) -> None:
        self.name, self.make, self.value = name, make, value


class Interpreter:
    """Runs one pickle.

    Args:
        data: the whole pickle.
        constructors: full name -> what makes its values.
        constants: full name -> the value that it stands for when it is used as it is.
        persistent: resolves a persistent id.
    """

    def __init__(
        self,
        data: memoryview,
        constructors: Mapping[str, Constructor],
        constants: Mapping[str, Any],
        persistent: Callable[[Any], Any],
    ) -> None:
        self.data = data
        self.position = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self._constructors = constructors
        self._constants = constants
        self.persistent = persistent

    def run(self) -> Any:
        """Return the value that the pickle describes.

        Raises:
            HostileInput: it is damaged, or claims what no honest pickle claims.
        """
        try:
            for _ in range(MAX_OPCODES):
                opcode = self.data[self.position]
                self.position += 1
                if opcode == _STOP:
                    return self.stack.pop()
                _OPCODES[opcode](self)
        except (IndexError, KeyError, ValueError, TypeError, struct.error, OverflowError, AttributeError) as err:
            why = f"the pickle is damaged at byte {self.position} ({printable(f'{type(err).__name__}: {err}')[:120]})"
            raise HostileInput("cannot read the state", why=why) from err
        raise HostileInput("cannot read the state", why=f"the pickle has more than {MAX_OPCODES} opcodes")

    # ---- input

    def take(self, size: int) -> memoryview:
        """The next `size` bytes; nothing is allocated for a size that the pickle does not have."""
        end = self.position + size
        if size < 0 or end > len(self.data):
            raise ValueError(f"{size} bytes claimed, {len(self.data) - self.position} left")
        piece = self.data[self.position : end]
        self.position = end
        return piece

    def number(self, layout: str) -> Any:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def line(self) -> str:
        window = bytes(self.data[self.position : self.position + 65536])
        end = window.index(b"\n")
        self.position += end + 1
        return window[:end].decode("utf-8")

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

    # ---- classes

    def find(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full in self._constants and full not in self._constructors:
            return self._constants[full]
        return Global(full, self._constructors.get(full), self._constants.get(full))

    @staticmethod
    def call(function: Any, args: tuple[Any, ...]) -> Any:
        if not isinstance(function, Global):
            return function if isinstance(function, Opaque) else _opaque(function)
        if function.make is None:
            return Opaque(function.name)
        return function.make(*args)

    @staticmethod
    def build(value: Any, state: Any) -> Any:
        """Give an object its state: only our own inert values and known attribute holders take one."""
        if isinstance(value, Opaque):
            return value
        if hasattr(type(value), "build"):
            return value.build(state)
        if isinstance(state, tuple) and len(state) == 2:
            state = {**(state[0] or {}), **(state[1] or {})}
        if not isinstance(state, dict) or not all(type(key) is str for key in state):
            raise TypeError(f"state of a {type(value).__name__}")
        vars(value).update(state)
        return value


def finished(value: Any) -> Any:
    """What a bare class reference in a state stands for: its constant, else an opaque object."""
    if isinstance(value, Global):
        return value.value if value.value is not None else Opaque(value.name)
    return value


def _opaque(value: Any) -> Opaque:
    return Opaque(f"{type(value).__module__}.{type(value).__qualname__}")


# -------------------------------------------------------------------------------------------------------- opcodes

_STOP: Final = ord(".")


def _text(size_layout: str) -> Callable[[Interpreter], None]:
    def run(vm: Interpreter) -> None:
        vm.push(str(vm.take(vm.number(size_layout)), "utf-8", "surrogatepass"))

    return run


def _binary(size_layout: str, make: Callable[[memoryview], Any]) -> Callable[[Interpreter], None]:
    def run(vm: Interpreter) -> None:
        vm.push(make(vm.take(vm.number(size_layout))))

    return run


def _fixed(layout: str) -> Callable[[Interpreter], None]:
    return lambda vm: vm.push(vm.number(layout))


def _constant(value: Any) -> Callable[[Interpreter], None]:
    return lambda vm: vm.push(value)


def _long(size_layout: str) -> Callable[[Interpreter], None]:
    def run(vm: Interpreter) -> None:
        vm.push(int.from_bytes(vm.take(vm.number(size_layout)), "little", signed=True))

    return run


def _int_line(vm: Interpreter) -> None:
    text = vm.line()
    vm.push({"00": False, "01": True}.get(text) if text in ("00", "01") else int(text))


def _string_line(vm: Interpreter) -> None:
    text = vm.line()
    if len(text) < 2 or text[0] != text[-1] or text[0] not in "'\"":
        raise ValueError("a string without quotes")
    vm.push(text[1:-1].encode("latin-1").decode("unicode_escape"))


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
    if isinstance(target, Opaque):
        return
    if type(target) is not list:
        raise TypeError("append to something that is no list")
    target.extend(map(finished, items))


def _add(vm: Interpreter, items: list[Any]) -> None:
    target = vm.stack[-1]
    if type(target) is not set:
        raise TypeError("add to something that is no set")
    target.update(map(finished, items))


def _set_items(vm: Interpreter, items: list[Any]) -> None:
    target = vm.stack[-1]
    if isinstance(target, Opaque):
        return
    if not isinstance(target, MutableMapping) or len(items) % 2:
        raise TypeError("set an item of something that is no dict")
    for key, value in zip(items[::2], items[1::2], strict=True):
        target[finished(key)] = finished(value)


def _pop2(vm: Interpreter) -> list[Any]:
    value, key = vm.stack.pop(), vm.stack.pop()
    return [key, value]


def _put(vm: Interpreter, index: int) -> None:
    vm.memo[index] = vm.stack[-1]


def _reduce(vm: Interpreter) -> None:
    args, function = vm.stack.pop(), vm.stack.pop()
    if not isinstance(args, tuple):
        raise TypeError("arguments that are no tuple")
    vm.push(vm.call(function, args))


def _new_object(vm: Interpreter) -> None:
    args, cls = vm.stack.pop(), vm.stack.pop()
    vm.push(vm.call(cls, tuple(args)))


def _new_object_ex(vm: Interpreter) -> None:
    kwargs, args, cls = vm.stack.pop(), vm.stack.pop(), vm.stack.pop()
    vm.push(Opaque(cls.name) if kwargs else vm.call(cls, tuple(args)))


def _instance(vm: Interpreter) -> None:
    module, name = vm.line(), vm.line()
    vm.push(vm.call(vm.find(module, name), tuple(vm.since_mark())))


def _object(vm: Interpreter) -> None:
    cls, *args = vm.since_mark()
    vm.push(vm.call(cls, tuple(args)))


def _build(vm: Interpreter) -> None:
    state = vm.stack.pop()
    before = vm.stack[-1]
    after = vm.build(before, state)
    vm.stack[-1] = after
    if after is not before:  # the memo must not go on naming the unfinished value
        vm.memo.update({index: after for index, value in vm.memo.items() if value is before})


def _stack_global(vm: Interpreter) -> None:
    name, module = vm.stack.pop(), vm.stack.pop()
    if type(name) is not str or type(module) is not str:
        raise TypeError("a class without a name")
    vm.push(vm.find(module, name))


def _frame(vm: Interpreter) -> None:
    vm.take(8)  # frames only say how much to read ahead


def _unsupported(vm: Interpreter) -> None:
    raise ValueError(f"opcode {vm.data[vm.position - 1]:#04x} is not used for data")


def _push_list(vm: Interpreter) -> None:
    vm.push(list(map(finished, vm.since_mark())))


def _push_dict(vm: Interpreter) -> None:
    items = vm.since_mark()
    vm.push({})
    _set_items(vm, items)


_OPCODES: Final[dict[int, Callable[[Interpreter], None]]] = dict.fromkeys(range(256), _unsupported) | {
    ord(code): run
    for code, run in {
        "\x80": lambda vm: vm.take(1),
        "\x95": _frame,
        "(": _constant(_MARK),
        "0": lambda vm: vm.stack.pop(),
        "1": lambda vm: vm.since_mark(),
        "2": lambda vm: vm.push(vm.stack[-1]),
        # constants
        "N": _constant(None),
        "\x88": _constant(True),
        "\x89": _constant(False),
        "I": _int_line,
        "J": _fixed("<i"),
        "K": _fixed("<B"),
        "M": _fixed("<H"),
        "L": lambda vm: vm.push(int(vm.line().rstrip("L"))),
        "\x8a": _long("<B"),
        "\x8b": _long("<i"),
        "F": lambda vm: vm.push(float(vm.line())),
        "G": _fixed(">d"),
        "S": _string_line,
        "T": _binary("<i", lambda b: str(b, "latin-1")),
        "U": _binary("<B", lambda b: str(b, "latin-1")),
        "V": lambda vm: vm.push(vm.line().encode("latin-1").decode("raw_unicode_escape")),
        "X": _text("<I"),
        "\x8c": _text("<B"),
        "\x8d": _text("<Q"),
        "B": _binary("<I", bytes),
        "C": _binary("<B", bytes),
        "\x8e": _binary("<Q", bytes),
        "\x96": _binary("<Q", bytearray),
        # containers
        "]": lambda vm: vm.push([]),
        "l": _push_list,
        "a": lambda vm: _append(vm, [vm.stack.pop()]),
        "e": lambda vm: _append(vm, vm.since_mark()),
        ")": _constant(()),
        "t": lambda vm: vm.push(tuple(map(finished, vm.since_mark()))),
        "\x85": _tuple_of(1),
        "\x86": _tuple_of(2),
        "\x87": _tuple_of(3),
        "}": lambda vm: vm.push({}),
        "d": _push_dict,
        "s": lambda vm: _set_items(vm, _pop2(vm)),
        "u": lambda vm: _set_items(vm, vm.since_mark()),
        "\x8f": lambda vm: vm.push(set()),
        "\x90": lambda vm: _add(vm, vm.since_mark()),
        "\x91": lambda vm: vm.push(frozenset(map(finished, vm.since_mark()))),
        # memo
        "p": lambda vm: _put(vm, int(vm.line())),
        "q": lambda vm: _put(vm, vm.number("<B")),
        "r": lambda vm: _put(vm, vm.number("<I")),
        "\x94": lambda vm: _put(vm, len(vm.memo)),
        "g": lambda vm: vm.push(vm.memo[int(vm.line())]),
        "h": lambda vm: vm.push(vm.memo[vm.number("<B")]),
        "j": lambda vm: vm.push(vm.memo[vm.number("<I")]),
        # classes
        "c": lambda vm: vm.push(vm.find(vm.line(), vm.line())),
        "\x93": _stack_global,
        "R": _reduce,
        "\x81": _new_object,
        "\x92": _new_object_ex,
        "i": _instance,
        "o": _object,
        "b": _build,
        "P": lambda vm: vm.push(vm.persistent(vm.line())),
        "Q": lambda vm: vm.push(vm.persistent(vm.stack.pop())),
    }.items()
}
