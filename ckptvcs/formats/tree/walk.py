"""Where the tensors of a tree hang, told from its nodes alone: no value is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ckptvcs.formats.tree.nodes import Node, Path

_PAIRS: Final = ("$dict", "$odict", "$defaultdict", "$counter", "attrs")
_ITEMS: Final = ("$tuple", "$set", "$frozenset")


def hanging(node: Node, path: Path = ()) -> Iterator[tuple[Path, str | None, str]]:
    """Every place where a tensor hangs, in reading order.

    Args:
        node: the tree of one component.
        path: where the tree itself hangs.

    Yields:
        The path in the state; the component that owns the tensor, None for the one of the tree; its name there.
    """
    stack: list[tuple[Path, Node]] = [(path, node)]
    while stack:
        here, current = stack.pop()
        if isinstance(current, dict) and isinstance(current.get("$tensor"), str):
            yield here, current.get("in"), current["$tensor"]
        else:
            stack.extend(reversed(list(_within(here, current))))


def _within(path: Path, node: Node) -> Iterator[tuple[Path, Node]]:
    if isinstance(node, list):
        yield from (((*path, i), item) for i, item in enumerate(node))
    if not isinstance(node, dict):
        return
    if not any(key.startswith("$") for key in node):
        yield from (((*path, key), item) for key, item in node.items())
    for tag in _ITEMS:
        yield from (((*path, i), item) for i, item in enumerate(node.get(tag, ())))
    for tag in _PAIRS:
        if isinstance(pairs := node.get(tag), list) and any(key.startswith("$") for key in node):
            yield from (((*path, _key(key)), item) for key, item in pairs)


def _key(node: Any) -> Any:
    """The key of a dict as far as it is plain; for any other, its node as text."""
    return node if isinstance(node, (str, int, float)) or node is None else str(node)
