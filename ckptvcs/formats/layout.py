"""Which tensors share a shard: grouped by layer at first, then inherited from the parent and split by what changes.

Pure functions of names, sizes, digests and hints, so the same state with the same parent always has the same layout. The
aim is that what does not change is the same object in every checkpoint, and that there are enough shards of similar size
to be hashed and copied in parallel.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final

from ckptvcs.paths import file_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ckptvcs.digest import Digest

MIB: Final = 1 << 20
SHARDS_AIMED_AT: Final = 24
MIN_TARGET: Final = 1 * MIB
MAX_TARGET: Final = 256 * MIB
SPLIT_FROM: Final = 256 * 1024
"""A shard is split only where at least so many bytes stay the same: every object costs a file, a hash and a request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One tensor to be put into a shard."""

    name: str
    nbytes: int
    digest: Digest
    layer: str
    """Name of its layer group."""
    trainable: bool | None = None
    """None where nothing is known."""


@dataclass(frozen=True, slots=True)
class Inherited:
    """Where the parent keeps a tensor of that name, and what it was."""

    shard: str
    digest: Digest


Layout = dict[str, list[str]]
"""File name of each shard -> names of its tensors, in the order of the component."""


def target_size(total: int) -> int:
    """The size a shard should have, in bytes, for an artifact of `total` bytes."""
    return min(max(total // SHARDS_AIMED_AT, MIN_TARGET), MAX_TARGET)


def plan(members: Sequence[Member], parent: Mapping[str, Inherited], *, target: int) -> Layout:
    """Lay out one component.

    Args:
        members: its tensors, in order.
        parent: the tensors of the same component of the parent checkpoint, by name; empty for a first checkpoint.
        target: the size to aim at, from `target_size`.
    """
    shards: dict[str, list[Member]] = {}
    for member in members:
        if member.name in parent:
            shards.setdefault(parent[member.name].shard, []).append(member)
    layout: Layout = {}
    for shard, group in shards.items():
        same = [m for m in group if m.digest == parent[m.name].digest]
        changed = [m for m in group if m.digest != parent[m.name].digest]
        if changed and _size(same) >= SPLIT_FROM:
            layout[shard] = [m.name for m in changed]
            layout[_free(_second_part(shard), {*layout, *shards})] = [m.name for m in same]
        else:
            layout[shard] = [m.name for m in group]
    new = [m for m in members if m.name not in parent]
    for name, group in _fresh(new, target):
        layout[_free(name, {*layout, *shards})] = [m.name for m in group]
    return layout


# --------------------------------------------------------------------------------------------- the first checkpoint


def _fresh(members: Sequence[Member], target: int) -> Iterable[tuple[str, list[Member]]]:
    groups = _by_layer(members)
    there = {(layer, trainable) for layer, trainable, _ in groups}
    mixed = {layer for layer, trainable in there if (layer, not trainable) in there}
    for trainable in (False, True):
        chosen = [(layer, group) for layer, t, group in groups if t is trainable]
        for layers, group in _joined(chosen, target):
            suffix = ".trainable" if trainable and mixed.intersection(layers) else ""
            yield from _divided(_joined_name(layers) + suffix, group, target)


def _by_layer(members: Sequence[Member]) -> list[tuple[str, bool, list[Member]]]:
    """Groups of (layer, known to be trainable), in the order of their first member."""
    groups: dict[tuple[str, bool], list[Member]] = {}
    for member in members:
        groups.setdefault((member.layer, bool(member.trainable)), []).append(member)
    return [(layer, trainable, group) for (layer, trainable), group in groups.items()]


def _joined(groups: Sequence[tuple[str, list[Member]]], target: int) -> Iterable[tuple[list[str], list[Member]]]:
    """Neighbours joined until each is at least half the target; the last one may be smaller."""
    layers: list[str] = []
    joined: list[Member] = []
    size = 0
    for layer, group in groups:
        if joined and size + _size(group) > target:
            yield layers, joined
            layers, joined, size = [], [], 0
        layers.append(layer)
        joined.extend(group)
        size += _size(group)
        if 2 * size >= target:
            yield layers, joined
            layers, joined, size = [], [], 0
    if joined:
        yield layers, joined


def _divided(name: str, group: list[Member], target: int) -> Iterable[tuple[str, list[Member]]]:
    """A group of more than twice the target, cut between tensors into parts of about the target."""
    if _size(group) <= 2 * target:
        yield name, group
        return
    end, part_of = 0, {}
    for member in group:
        part_of[member.name] = end // target
        end += member.nbytes
    for number, (_, part) in enumerate(groupby(group, key=lambda m: part_of[m.name]), start=1):
        yield f"{name}-{number}", list(part)


def _joined_name(layers: list[str]) -> str:
    return layers[0] if len(layers) == 1 else f"{layers[0]}-to-{layers[-1]}"


def _size(group: Iterable[Member]) -> int:
    return sum(m.nbytes for m in group)


# ------------------------------------------------------------------------------------------------------- file names

SUFFIX: Final = ".safetensors"


_RESERVED: Final = frozenset({"model.safetensors"})
"""transformers would take a file of this name for the whole model and not look at the index."""


def _second_part(shard: str) -> str:
    return f"{shard.removesuffix(SUFFIX)}.part2"


def _free(name: str, taken: Iterable[str]) -> str:
    """A file name for a shard that no other shard of the component has, on any file system."""
    stem = file_name(name.removesuffix(SUFFIX))
    folded = _RESERVED | {other.casefold() for other in taken}
    candidate, number = f"{stem}{SUFFIX}", 2
    while candidate.casefold() in folded:
        candidate, number = f"{stem}.{number}{SUFFIX}", number + 1
    return candidate
