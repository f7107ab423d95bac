"""The files of an artifact -> flat components, exactly as they were flattened: no state is made, no tensor is read.

Trees, names, ties and views stay what they are; the leaves look into the files. This is how a checkpoint becomes a part
of the next one without torch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ckptvcs.errors import FormatError
from ckptvcs.formats import dtypes
from ckptvcs.formats.components import EXTRA
from ckptvcs.formats.flatten import WIDEST, FlatComponent, View
from ckptvcs.formats.leaf import Leaf
from ckptvcs.formats.tree.walk import hanging
from ckptvcs.formats.tree_file import Stored

if TYPE_CHECKING:
    from typing import Any

    from ckptvcs.formats.reading import Artifact
    from ckptvcs.formats.tree.nodes import Path
    from ckptvcs.formats.tree_file import TreeFile


def flat_component(artifact: Artifact, name: str) -> FlatComponent:
    """Take one component out of an artifact.

    Args:
        artifact: where it lies.
        name: which one.

    Raises:
        FormatError: its tree file is damaged.
    """
    file = artifact.tree(name)
    component = FlatComponent(name=name, role=file.role, node=file.tree, paths=_paths(file))
    hang = {leaf for _, owner, leaf in hanging(file.tree) if owner is None}
    for leaf, entry in file.table.items():
        if isinstance(entry, Stored):
            made = _leaf(artifact, name, leaf)
            component.leaves[leaf] = made if leaf in hang else replace(made, alignment=WIDEST)
        else:
            component.views[leaf] = View(
                component=entry.component or name,
                name=entry.of,
                offset=entry.offset,
                dtype=entry.dtype,
                shape=entry.shape,
                strides=entry.strides,
                attrs=dict(entry.attrs),
            )
    return component


def _paths(file: TreeFile) -> dict[str, Path]:
    """Where each tensor of the table hangs first; one that only others look at, where the first of those hangs."""
    paths: dict[str, Path] = {}
    try:
        for path, owner, name in hanging(file.tree, () if file.component == EXTRA else (file.component,)):
            if owner is None:
                paths.setdefault(name, path)
    except (TypeError, ValueError) as err:
        raise FormatError(f"cannot read the tree of '{file.component}'", why=f"a node is malformed: {err}") from err
    for name, entry in file.table.items():
        if not isinstance(entry, Stored) and entry.component is None:
            paths.setdefault(entry.of, paths.get(name, ()))
    return {name: paths.get(name, ()) for name in file.table}


def _leaf(artifact: Artifact, component: str, name: str) -> Leaf:
    entry = artifact.stored(component, name)

    def read() -> Any:
        return artifact.data(component, name)

    def forget(first: int, last: int) -> None:
        artifact.forget(component, name, first, last)

    return Leaf(
        dtype=entry.dtype,
        shape=entry.shape,
        read=read,
        kind=entry.kind,  # type: ignore[arg-type]
        attrs=entry.attrs,
        release=lambda: forget(0, dtypes.nbytes(entry.dtype, entry.shape)),
        forget=forget,
        digest=entry.digest,
    )
