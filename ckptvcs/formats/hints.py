"""What is known, or can be guessed, about which tensors belong together: it steers the layout of shards and nothing else.

A wrong hint costs bytes, never correctness: what really changes is seen at the next checkpoint, and the layout follows.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ckptvcs.formats.flatten import FlatComponent
    from ckptvcs.formats.tree.nodes import Path

Shape = tuple[int, ...]
_LAYER: Final = re.compile(r"(.*?\.)?\d+(?=\.|\Z)")


@dataclass(frozen=True, slots=True)
class Hints:
    """What is known of a state."""

    trainable: Mapping[tuple[str, str], bool] = field(default_factory=dict)
    """By component and name of a model tensor."""
    owners: Mapping[tuple[Path, int], str] = field(default_factory=dict)
    """By optimizer (the path of its `state`) and parameter number: the name of the model tensor that it belongs to."""


def layer_of(name: str) -> str:
    """The layer group of a tensor: its name up to the first number, else its first part.

    `encoder.layer.0.attention.weight` is in `encoder.layer.0`, `embeddings.word.weight` in `embeddings`.
    """
    match = _LAYER.match(name)
    return match[0] if match else name.partition(".")[0]


def owner_key(path: Path) -> tuple[Path, int] | None:
    """Which parameter of which optimizer a leaf belongs to: `(..., "state", 12, "exp_avg")` gives `((..., "state"), 12)`."""
    for i, (part, number) in enumerate(itertools.pairwise(path)):
        if part == "state" and type(number) is int:
            return path[: i + 1], number
    return None


def infer(components: Sequence[FlatComponent]) -> Hints:
    """Guess from a bare state which model tensors the optimizers hold, by matching shapes in order.

    Optimizers number their parameters group by group, and each group usually follows the order of the model, so a group
    is a subsequence of the model's tensors. Where reading it from the front and from the back gives one answer, the
    match is certain; where not, the back is taken: who trains a part of a model trains the last layers.
    """
    models = [(c.name, name, leaf.shape) for c in components if c.role == "model" for name, leaf in c.leaves.items()]
    tensors = [(name, shape) for _, name, shape in models]
    owners: dict[tuple[Path, int], str] = {}
    for component in components:
        if component.role == "optimizer":
            for prefix, groups in _parameter_groups(component).items():
                owners.update({(prefix, n): name for n, name in _match(groups, tensors).items()})
    held = set(owners.values())
    trainable = {(component, name): name in held for component, name, _ in models}
    return Hints(trainable=trainable if held else {}, owners=owners)


def _parameter_groups(component: FlatComponent) -> dict[Path, list[list[tuple[int, Shape]]]]:
    """By optimizer: its groups of (parameter number, shape of the parameter)."""
    shapes: dict[Path, dict[int, Shape]] = defaultdict(dict)
    for name, leaf in component.leaves.items():
        key = owner_key(component.paths[name])
        if key is None or not leaf.shape:
            continue
        prefix, number = key
        known = shapes[prefix].get(number, ())
        # A factored moment has fewer dimensions than its parameter; the fullest shape is that of the parameter.
        shapes[prefix][number] = max(known, leaf.shape, key=len)
    return {
        prefix: [[(n, found[n]) for n in group if n in found] for group in _numbers(component, prefix, found)]
        for prefix, found in shapes.items()
    }


def _numbers(component: FlatComponent, prefix: Path, found: Iterable[int]) -> list[list[int]]:
    """The parameters of each group, as far as they are numbers; anything at all may stand there."""
    node: Any = component.node
    try:
        for key in prefix[1:-1]:
            node = node[key] if isinstance(node, list) else node.get(key, {})
        groups = [list(group["params"]) for group in node["param_groups"]]
    except (LookupError, TypeError, AttributeError):
        return [sorted(found)]
    return [[number for number in group if type(number) is int] for group in groups]


def _match(groups: list[list[tuple[int, Shape]]], tensors: list[tuple[str, Shape]]) -> dict[int, str]:
    forward = _greedy(groups, tensors)
    backward = _greedy([group[::-1] for group in groups], tensors[::-1])
    return forward if forward == backward else backward


def _greedy(groups: list[list[tuple[int, Shape]]], tensors: list[tuple[str, Shape]]) -> dict[int, str]:
    """For each parameter the next free tensor of its shape, reading on from the last one found in the group."""
    found: dict[int, str] = {}
    places: dict[Shape, list[int]] = defaultdict(list)
    for i, (_, shape) in enumerate(tensors):
        places[shape].append(i)
    for group in groups:
        position = -1
        for number, shape in group:
            free = places[shape]
            if not free:
                continue
            following = bisect.bisect_right(free, position)
            position = free.pop(following if following < len(free) else 0)
            found[number] = tensors[position][0]
    return found
