"""A state in memory -> components: a tree and named leaves each. Here leaves get their names and shared memory is found."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.errors import UnsupportedValue
from ckptvcs.formats.components import EXTRA, Part, Parts
from ckptvcs.formats.leaf import Leaf, Span
from ckptvcs.formats.safetensors_file import METADATA
from ckptvcs.formats.strided import contiguous_strides
from ckptvcs.formats.tree.encode import Encoder
from ckptvcs.formats.tree.nodes import Node, Path, spelled, where

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Hashable, Iterable


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A tensor that shares memory with another one, which is stored."""

    component: str
    """The component of the stored tensor."""
    name: str
    """The name of the stored tensor."""
    offset: int
    """Of the first element, in bytes from the beginning of the stored tensor."""
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """In elements of `dtype`."""
    attrs: dict[str, Any]


@dataclass(slots=True, kw_only=True)
class FlatComponent:
    """One component: a tree whose `$tensor` nodes name `leaves` (stored) or `views` (looking at a stored one)."""

    name: str
    role: str
    node: Node = None
    leaves: dict[str, Leaf] = field(default_factory=dict)
    views: dict[str, View] = field(default_factory=dict)
    paths: dict[str, Path] = field(default_factory=dict)
    """Where in the state each leaf hangs."""


def flatten(parts: Parts, adapt: Callable[[Any], Any], *, tolerate: bool = False) -> Flat:
    """Turn a state that was taken apart into flat components.

    Args:
        parts: from `take_apart`.
        adapt: makes framework values into leaves and stand-ins; see `Encoder`.
        tolerate: leave parts with unsupported values to the caller, in `Flat.rejected`, instead of raising.

    Raises:
        UnsupportedValue: the state holds values without an exact representation; all of them are named.
    """
    owners: dict[Hashable, tuple[str, str]] = {}
    flat = Flat()
    for part in _with_root(parts):
        component, problems = _flatten_part(part, adapt, owners)
        if not problems:
            flat.components.append(component)
        elif tolerate:
            flat.rejected.append(part)
            owners = {key: owner for key, owner in owners.items() if owner[0] != part.name}
        else:
            flat.problems.extend(problems)
    if flat.problems:
        raise unsupported(flat.problems)
    _share(flat.components)
    return flat


@dataclass(slots=True)
class Flat:
    """What `flatten` found."""

    components: list[FlatComponent] = field(default_factory=list)
    rejected: list[Part] = field(default_factory=list)
    problems: list[tuple[Path, str]] = field(default_factory=list)


def unsupported(problems: list[tuple[Path, str]]) -> UnsupportedValue:
    """One error that names the first values without representation, and how many there are."""
    lines = [f"{where(path)} is a {name}" for path, name in problems[:5]]
    more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
    return UnsupportedValue(
        f"cannot represent '{where(problems[0][0])}'",
        why="; ".join(lines) + more + ": no exact representation without running code",
        next_step="turn it into plain values (numbers, strings, lists, dicts, tensors), or pass --allow-pickle "
        "to keep that component as a pickle",
        values=[{"path": where(path), "class": name} for path, name in problems],
    )


def _with_root(parts: Parts) -> Iterable[Part]:
    yield from parts.parts
    if parts.has_root:
        yield Part(name=EXTRA, role=EXTRA, value=parts.root)


def _flatten_part(
    part: Part, adapt: Callable[[Any], Any], owners: dict[Hashable, tuple[str, str]]
) -> tuple[FlatComponent, list[tuple[Path, str]]]:
    component = FlatComponent(name=part.name, role=part.role)
    prefix = 0 if part.name == EXTRA else 1  # the name of a leaf does not repeat the name of its component

    def place(leaf: Leaf, path: Path) -> Node:
        key = _identity(leaf)
        if key is not None and key in owners:
            owner, name = owners[key]
            return {"$tensor": name} if owner == part.name else {"$tensor": name, "in": owner}
        name = _unique(_name(path[prefix:]), component.leaves)
        encoder.charge(len(name), path)
        component.leaves[name] = leaf
        component.paths[name] = path
        if key is not None:
            owners[key] = (part.name, name)
        return {"$tensor": name}

    encoder = Encoder(adapt, place)
    component.node = encoder.encode(part.value, (part.name,) if prefix else ())
    return component, encoder.problems


def _name(path: Path) -> str:
    """The path of a leaf as text; what is no Unicode text (half a character) is escaped, as no shard may hold it."""
    name = ".".join(map(spelled, path)) or "tensor"
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _identity(leaf: Leaf) -> Hashable:
    """Equal for two leaves that are one and the same tensor, or None for a leaf that can have no second name."""
    span = leaf.span
    if span is None:
        return None
    attrs = tuple(sorted((key, repr(value)) for key, value in leaf.attrs.items()))
    return (span.storage, span.start, leaf.dtype, span.shape, span.strides, leaf.kind, attrs)


def _unique(name: str, *taken: Container[str]) -> str:
    """`name`, or with `~2`, `~3`... behind it: `{"a.b": t}` and `{"a": {"b": t}}` have paths of one spelling."""

    def is_free(candidate: str) -> bool:
        return candidate != METADATA and not any(candidate in names for names in taken)

    numbered = (f"{name}~{number}" for number in itertools.count(2))
    return name if is_free(name) else next(filter(is_free, numbered))


# ------------------------------------------------------------------------------------------------- shared memory

WIDEST: Final = 16
"""The alignment that the widest element type needs (`C128`)."""


@dataclass(frozen=True, slots=True)
class _Place:
    component: FlatComponent
    name: str
    leaf: Leaf
    span: Span


def _share(components: list[FlatComponent]) -> None:
    """Store memory that several leaves look at once, and make the leaves views of it."""
    by_storage: dict[Hashable, list[_Place]] = defaultdict(list)
    for component in components:
        for name, leaf in component.leaves.items():
            if leaf.span is not None and leaf.kind == "tensor":
                by_storage[leaf.span.storage].append(_Place(component, name, leaf, leaf.span))
    for places in by_storage.values():
        for cluster in _clusters(places):
            _store_once(cluster)


def _clusters(places: list[_Place]) -> Iterable[list[_Place]]:
    """Groups of at least two leaves whose byte ranges meet."""
    if len(places) < 2:
        return
    places = sorted(places, key=lambda p: (p.span.start, -p.span.stop))
    cluster, stop = [places[0]], places[0].span.stop
    for place in places[1:]:
        if place.span.start < stop:
            cluster.append(place)
        else:
            if len(cluster) > 1:
                yield cluster
            cluster = [place]
        stop = max(stop, place.span.stop)
    if len(cluster) > 1:
        yield cluster


def _store_once(cluster: list[_Place]) -> None:
    start, stop = min(p.span.start for p in cluster), max(p.span.stop for p in cluster)
    one_type = len({place.leaf.dtype for place in cluster}) == 1
    base = next((p for p in cluster if one_type and _covers(p, start, stop)), None) or _add_base(
        cluster[0], start, stop
    )
    for place in cluster:
        if place.leaf is base.leaf:
            continue
        del place.component.leaves[place.name]
        place.component.views[place.name] = View(
            component=base.component.name,
            name=base.name,
            offset=place.span.start - start,
            dtype=place.leaf.dtype,
            shape=place.span.shape,
            strides=place.span.strides,
            attrs={k: v for k, v in place.leaf.attrs.items() if k not in ("stride", "expand")},
        )


def _covers(place: _Place, start: int, stop: int) -> bool:
    span, leaf = place.span, place.leaf
    whole = (span.start, span.stop) == (start, stop) and span.strides == contiguous_strides(span.shape)
    return whole and leaf.shape == span.shape


def _add_base(first: _Place, start: int, stop: int) -> _Place:
    """A leaf for the memory that a cluster looks at, where no single leaf of it spans all."""
    size = stop - start
    span = Span(storage=None, start=start, stop=stop, strides=(1,), shape=(size,), read=first.span.read)
    leaf = Leaf(
        dtype="U8",
        shape=(size,),
        read=lambda: first.span.read(start, stop),
        release=first.leaf.release,
        alignment=WIDEST,
    )
    name = _unique(f"{first.name}~storage", first.component.leaves, first.component.views)
    first.component.leaves[name] = leaf
    first.component.paths[name] = first.component.paths[first.name]
    return _Place(first.component, name, leaf, span)
