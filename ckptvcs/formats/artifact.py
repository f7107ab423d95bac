"""Components -> the files of an artifact: shards, trees and indexes, each ready to be streamed into a store.

Nothing is written here and no tensor is copied: a planned file gives its bytes piece by piece, straight from the memory
(or the memory map) that the state lives in.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ckptvcs.digest import Digest, digest, digest_of_parts
from ckptvcs.formats import layout, safetensors_file, tree_file
from ckptvcs.formats.hints import Hints, layer_of, owner_key
from ckptvcs.formats.leaf import PIECE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from typing_extensions import Buffer

    from ckptvcs.formats.flatten import FlatComponent
    from ckptvcs.formats.leaf import Leaf

INDEX: Final = "model.safetensors.index.json"
"""The name under which transformers looks for the list of shards."""

PICKLE: Final = "state.pkl"
"""The file of a component that only pickle could represent."""

_COMPUTED_AT_ONCE: Final = 4
"""Leaves that are computed at the same time: each may take several times its own size in memory."""

_INDEXED_ROLES: Final = ("model", "ema")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedFile:
    """One file of an artifact.

    `chunks()` may be called more than once and gives the same bytes each time, `nbytes` in all.
    """

    path: str
    """Relative to the artifact."""
    nbytes: int
    chunks: Callable[[], Iterator[Buffer]]
    key: Digest | None = None
    """For a shard: a digest of its header and the digests of its tensors. Equal keys are equal bytes."""


def digests(components: Sequence[FlatComponent]) -> dict[tuple[str, str], Digest]:
    """Hash every stored leaf, by (component, name). The one pass over the state that each commit makes."""
    leaves = {(component.name, name): leaf for component in components for name, leaf in component.leaves.items()}
    computed = [key for key, leaf in leaves.items() if leaf.stream is not None]
    found = {key: _digest(leaf) for key, leaf in leaves.items() if leaf.stream is None}
    if computed:
        with ThreadPoolExecutor(min(os.cpu_count() or 1, _COMPUTED_AT_ONCE), "ckptvcs-compute") as pool:
            found |= zip(computed, pool.map(lambda key: _digest(leaves[key]), computed), strict=True)
    return found


def _digest(leaf: Leaf) -> Digest:
    if leaf.stream is not None:
        return digest_of_parts(leaf.pieces())  # on this thread alone: the others compute
    if leaf.forget is not None and leaf.nbytes > PIECE:
        return digest_of_parts(leaf.pieces(), parallel=True)
    found = digest(leaf.read())
    leaf.release()
    return found


def plan_files(
    components: Sequence[FlatComponent],
    known: Mapping[tuple[str, str], Digest],
    *,
    parent: Mapping[str, tree_file.TreeFile],
    hints: Hints,
) -> list[PlannedFile]:
    """Decide which files an artifact has.

    Args:
        components: from `flatten`.
        known: from `digests`.
        parent: the tree files of the parent checkpoint, by component, as far as they could be read.
        hints: which parameters are trained, and by which optimizer.
    """
    total = sum(leaf.nbytes for c in components for leaf in c.leaves.values())
    target = layout.target_size(total)
    files: list[PlannedFile] = []
    for component in components:
        shards = _lay_out(component, known, parent.get(component.name), hints, target)
        files.extend(_shard(component, file, names, known) for file, names in shards.items())
        where = {name: file for file, names in shards.items() for name in names}
        files.append(_whole(f"{component.name}/{tree_file.NAME}", tree_file.to_bytes(_tree(component, where, known))))
        if component.role in _INDEXED_ROLES and where:
            files.append(_whole(f"{component.name}/{INDEX}", _index(component, where)))
    return files


def _lay_out(
    component: FlatComponent,
    known: Mapping[tuple[str, str], Digest],
    parent: tree_file.TreeFile | None,
    hints: Hints,
    target: int,
) -> layout.Layout:
    members = [_member(component, name, leaf, known, hints) for name, leaf in component.leaves.items()]
    before = parent.stored if parent else {}
    inherited = {
        name: layout.Inherited(before[name].shard, before[name].digest)
        for name, leaf in component.leaves.items()
        # A tensor of another type or shape is another tensor, whatever its name.
        if name in before and (before[name].dtype, before[name].shape) == (leaf.dtype, leaf.shape)
    }
    return layout.plan(members, inherited, target=target)


def _member(
    component: FlatComponent, name: str, leaf: Leaf, known: Mapping[tuple[str, str], Digest], hints: Hints
) -> layout.Member:
    owner = owner_key(component.paths[name])
    of_model = hints.owners.get(owner) if owner else None
    layer = layer_of(of_model or name)
    trainable = hints.trainable.get((component.name, name))
    return layout.Member(
        name=name, nbytes=leaf.nbytes, digest=known[component.name, name], layer=layer, trainable=trainable
    )


def _shard(
    component: FlatComponent, file: str, names: list[str], known: Mapping[tuple[str, str], Digest]
) -> PlannedFile:
    leaves = {name: component.leaves[name] for name in names}
    specs = {n: safetensors_file.stored_spec(leaf.dtype, leaf.shape, leaf.alignment) for n, leaf in leaves.items()}
    head = safetensors_file.header(specs)
    order = [component.leaves[name] for name in safetensors_file.write_order(specs)]
    parts = (known[component.name, n].encode("ascii") for n in safetensors_file.write_order(specs))

    def chunks() -> Iterator[Buffer]:
        yield head
        for leaf in order:
            yield from leaf.pieces()

    return PlannedFile(
        path=f"{component.name}/{file}",
        nbytes=len(head) + sum(leaf.nbytes for leaf in order),
        chunks=chunks,
        key=digest_of_parts([head, *parts]),
    )


def _tree(
    component: FlatComponent, where: Mapping[str, str], known: Mapping[tuple[str, str], Digest]
) -> tree_file.TreeFile:
    table: tree_file.Table = {
        name: tree_file.Stored(
            dtype=leaf.dtype,
            shape=leaf.shape,
            shard=where[name],
            digest=known[component.name, name],
            kind=leaf.kind,
            attrs=leaf.attrs,
        )
        for name, leaf in component.leaves.items()
    }
    for name, view in component.views.items():
        table[name] = tree_file.Viewed(
            dtype=view.dtype,
            shape=view.shape,
            of=view.name,
            component=None if view.component == component.name else view.component,
            offset=view.offset,
            strides=view.strides,
            attrs=view.attrs,
        )
    return tree_file.TreeFile(component=component.name, role=component.role, table=table, tree=component.node)


def _index(component: FlatComponent, where: Mapping[str, str]) -> bytes:
    size = sum(leaf.nbytes for leaf in component.leaves.values())
    document = {"metadata": {"total_size": size}, "weight_map": dict(sorted(where.items()))}
    return (json.dumps(document, indent=2) + "\n").encode("ascii")


def _whole(path: str, data: bytes) -> PlannedFile:
    return PlannedFile(path=path, nbytes=len(data), chunks=lambda: iter([data]))
