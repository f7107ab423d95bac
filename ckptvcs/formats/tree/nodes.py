"""The vocabulary of tree nodes, shared by the encoder and the decoder.

A *node* is JSON. Plain values stand for themselves; everything JSON cannot say is an object with one `$` key:

| node | value |
|---|---|
| `{"$int": hex}` | an integer beyond 63 bits |
| `{"$float": bits}` | NaN (with its payload) or an infinity: 16 hexadecimal digits, big-endian |
| `{"$complex": [bits, bits]}` | a complex number |
| `{"$bytes": base64}`, `{"$bytearray": base64}` | short byte strings; long ones are leaves |
| `{"$tuple": [...]}`, `{"$set": [...]}`, `{"$frozenset": [...]}` | |
| `{"$dict": [[key, value]...]}` | a dict with keys that JSON has not, such as integers |
| `{"$odict": [...], "attrs": [...]}` | an `OrderedDict`; `attrs` are its instance attributes (`_metadata` of a state dict) |
| `{"$defaultdict": [...], "factory": name}`, `{"$counter": [...]}` | |
| `{"$namespace": class, "attrs": [[name, value]...]}` | `argparse.Namespace`, `types.SimpleNamespace` |
| `{"$path": text, "flavour": class}` | a `pathlib` path |
| `{"$numpy": [type, hex]}`, `{"$npdtype": type}` | a NumPy scalar, a NumPy type |
| `{"$torch": [type, value]}` | `torch.Size`, `torch.dtype`, `torch.device`... |
| `{"$tensor": name, "in": component}` | a leaf; `in` only where another component owns it |
| `{"$same": n}` | the very object that is the n-th mutable container of this tree, counted from 0 in reading order |
| `{"$component": name}` | in the root tree alone: here hangs that component |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

Node = Any
Path = tuple[Any, ...]

MAX_DEPTH: Final = 100
"""Deeper states are refused: JSON parsers and people both get lost, and a hostile file would exhaust the stack."""

MAX_NODES: Final = 5_000_000
"""A tuple that holds itself many times over many levels is small in memory and endless when it is written out."""

MAX_TEXT: Final = 256 << 20
"""Bytes of text and of byte strings in a tree: more would make a file that is not read."""

INLINE_BYTES: Final = 4096
"""Byte strings longer than this are leaves in a shard, not base64 in JSON."""

FACTORIES: Final = {f.__name__: f for f in (dict, list, set, tuple, int, float, str, bool, bytes)}
"""What a `defaultdict` may make; anything else would be code."""

NAMESPACES: Final = ("argparse.Namespace", "types.SimpleNamespace")
FLAVOURS: Final = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")


def where(path: Path) -> str:
    """A path in a state as Python would write it: `state['model']['layers'][0]`."""
    return "state" + "".join(f"[{_short(spelled(key, repr))}]" for key in path)


def spelled(key: Any, write: Callable[[Any], str] = str) -> str:
    """The text of a key. Python refuses to write out an integer of thousands of digits."""
    try:
        return write(key)
    except ValueError:
        return f"a long {type(key).__name__}"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_KEY else f"{text[:_LONGEST_KEY]}..."


_LONGEST_KEY: Final = 200
