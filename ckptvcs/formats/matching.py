"""Whether the tensors of several states can be combined one by one: where each hangs, what it is, what it is tied to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckptvcs.formats.components import EXTRA
from ckptvcs.formats.flatten import View
from ckptvcs.formats.tree.nodes import where
from ckptvcs.formats.tree.walk import hanging

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from ckptvcs.formats.flatten import FlatComponent
    from ckptvcs.formats.leaf import Leaf
    from ckptvcs.formats.tree.nodes import Path

Key = tuple[str, str]
"""Component and name of a tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where the tensors of some components hang."""

    components: Mapping[str, FlatComponent]
    """Every component of the state, by name."""
    places: Mapping[Path, Key]
    """The tensor that hangs at each path, in reading order."""

    @classmethod
    def of(cls, components: Mapping[str, FlatComponent], wanted: Collection[str]) -> Layout:
        places: dict[Path, Key] = {}
        for name in wanted:
            if name in components:
                prefix = () if name == EXTRA else (name,)
                for path, owner, tensor in hanging(components[name].node, prefix):
                    places[path] = owner or name, tensor
        return cls(components=components, places=places)

    def tensor(self, key: Key) -> Leaf | View | None:
        """A tensor; None where the tree names one that there is not."""
        component = self.components.get(key[0])
        if component is None:
            return None
        return component.leaves.get(key[1]) or component.views.get(key[1])

    def stored(self) -> dict[Key, Path]:
        """Every tensor with bytes of its own that these places come to, also by a view, and the first path to it."""
        found: dict[Key, Path] = {}
        for path, key in self.places.items():
            component = self.components.get(key[0])
            view = component.views.get(key[1]) if component else None
            found.setdefault((view.component, view.name) if view else key, path)
        return found

    def ties(self) -> dict[Path, Path]:
        """For each path the first one, in the order of their texts, at which the same tensor hangs."""
        first: dict[Key, Path] = {}
        for path in sorted(self.places, key=where):
            first.setdefault(self.places[path], path)
        return {path: first[key] for path, key in self.places.items()}


def counterpart(one: Layout, other: Layout, key: Key, path: Path) -> Key:
    """The tensor of `other` that is where `key` is in `one`; they must match."""
    if one.places[path] == key:
        return other.places[path]
    view = other.tensor(other.places[path])  # `key` is what the view at `path` looks at
    return (view.component, view.name) if isinstance(view, View) else key


def differences(one: Layout, other: Layout, names: tuple[str, str]) -> Iterator[str]:
    """Everything that keeps two states from being combined, in words.

    Args:
        one: the first state.
        other: the other state.
        names: what the reader calls them.
    """
    ties = one.ties(), other.ties()  # not in the order of the dicts, which may differ
    for path in [*one.places, *(path for path in other.places if path not in one.places)]:
        if path not in other.places:
            yield f"{where(path)} is only in {names[0]}"
        elif path not in one.places:
            yield f"{where(path)} is only in {names[1]}"
        else:
            yield from _kinds(path, one, other, names)
            yield from _tied(path, ties, names)


def _kinds(path: Path, one: Layout, other: Layout, names: tuple[str, str]) -> Iterator[str]:
    first, second = one.tensor(one.places[path]), other.tensor(other.places[path])
    if first is None or second is None:
        yield f"{where(path)} is not in the tensor table of {names[0] if first is None else names[1]}"
    elif (first.dtype, first.shape) != (second.dtype, second.shape):
        told = [
            f"{tensor.dtype} {list(tensor.shape)} in {name}" for tensor, name in ((first, names[0]), (second, names[1]))
        ]
        yield f"{where(path)} is {told[0]}, {told[1]}"
    elif _look(first) != _look(second):
        yield f"{where(path)} shares memory in another way in {names[0]} than in {names[1]}"


def _look(tensor: Leaf | View) -> object:
    """How a tensor looks at the memory of another one."""
    return (tensor.offset, tensor.strides) if isinstance(tensor, View) else None


def _tied(path: Path, ties: tuple[dict[Path, Path], dict[Path, Path]], names: tuple[str, str]) -> Iterator[str]:
    for mine, yours in ((0, 1), (1, 0)):
        first = ties[mine][path]
        if first not in (path, ties[yours][path]):
            yield f"{where(path)} is tied to {where(first)} in {names[mine]}, and not in {names[yours]}"
