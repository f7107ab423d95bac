"""The files of an artifact -> a state. The bytes come from wherever the caller opens files: cache, workspace, memory map.

Two builders share this: `NeutralBuilder` makes leaves (no torch; for comparing, converting, committing again), and the
one in `torch_state` makes tensors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from ckptvcs.errors import FormatError, NotFound
from ckptvcs.formats import numpy_values, safetensors_file, tree_file
from ckptvcs.formats.components import EXTRA
from ckptvcs.formats.leaf import Leaf, TorchAtom
from ckptvcs.formats.mapped import MappedFile
from ckptvcs.formats.strided import Storage, contiguous_strides, leaf_of_view
from ckptvcs.formats.tree.decode import Builder, Decoder
from ckptvcs.formats.tree_file import Stored, TreeFile, Viewed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from typing_extensions import Buffer


class Artifact:
    """The components of one artifact, read as they are asked for.

    Args:
        names: the components that there are, in the order of the state.
        open_file: gives the bytes of a file, or a map of it, by its path relative to the artifact; called once a file.
    """

    def __init__(self, names: Sequence[str], open_file: Callable[[str], Buffer | MappedFile]) -> None:
        self.names = tuple(names)
        self._open_file = open_file
        self._maps: dict[str, MappedFile] = {}
        self._trees: dict[str, TreeFile] = {}
        self._shards: dict[str, tuple[memoryview, dict[str, safetensors_file.Slot]]] = {}

    def tree(self, component: str) -> TreeFile:
        """The tree file of a component.

        Raises:
            NotFound: there is no such component.
            FormatError: its tree file is damaged.
        """
        if component not in self._trees:
            if component not in self.names:
                raise NotFound(
                    f"no component '{component}'",
                    why=f"the checkpoint has {', '.join(self.names) or 'none'}",
                    next_step="name one of them",
                )
            path = f"{component}/{tree_file.NAME}"
            self._trees[component] = tree_file.from_bytes(self._open(path), file=path)
        return self._trees[component]

    def _open(self, path: str) -> memoryview:
        opened = self._open_file(path)
        if isinstance(opened, MappedFile):
            self._maps[path] = opened
            return opened.view
        return memoryview(opened)

    def data(self, component: str, name: str) -> memoryview:
        """The bytes of a stored tensor.

        Raises:
            FormatError: the table and the shard contradict each other.
        """
        path, start, stop = self._place(component, name)
        return self._shards[path][0][start:stop]

    def forget(self, component: str, name: str, first: int, last: int) -> None:
        """Give memory back for the bytes of a stored tensor between two offsets, if its file is mapped."""
        path, start, _ = self._place(component, name)
        if path in self._maps:
            self._maps[path].forget(start + first, start + last)

    def _place(self, component: str, name: str) -> tuple[str, int, int]:
        """Where the bytes of a stored tensor are: the file, the first byte, the byte after the last."""
        entry = self.stored(component, name)
        path = f"{component}/{entry.shard}"
        if path not in self._shards:
            view = self._open(path).cast("B")
            self._shards[path] = view, safetensors_file.read_header(view, file=path)
        slot = self._shards[path][1].get(name)
        if slot is None or slot.spec != safetensors_file.stored_spec(entry.dtype, entry.shape):
            raise FormatError(
                f"cannot read tensor '{name}' of '{component}'",
                why=f"shard '{path}' and '{tree_file.NAME}' contradict each other",
                next_step="restore the checkpoint again",
            )
        return path, slot.start, slot.stop

    def stored(self, component: str, name: str, kind: str | None = None) -> Stored:
        """The table entry of a tensor that has bytes of its own, and is of that kind."""
        entry = self.tree(component).table.get(name)
        if not isinstance(entry, Stored) or kind not in (None, entry.kind):
            why = f"it is no {kind}" if isinstance(entry, Stored) else "it is in no shard"
            raise FormatError(f"cannot read tensor '{name}' of '{component}'", why=why)
        return entry


def build(
    artifact: Artifact, make_builder: Callable[[Assembler, str], Builder], wanted: Collection[str] | None = None
) -> Any:
    """Put a state together.

    Args:
        artifact: where it lies.
        make_builder: makes the builder for the tree of one component.
        wanted: names of the components to read; None for all of them, which gives the state as it was committed.

    Returns:
        The state; with `wanted`, a dict of those components alone.
    """
    assembler = Assembler(artifact, make_builder)
    if wanted is None and EXTRA in artifact.names:
        return assembler.component(EXTRA)
    names = artifact.names if wanted is None else [name for name in artifact.names if name in wanted]
    return {name: assembler.component(name) for name in names}


class Assembler:
    """Decodes each component once, so that what is shared between components stays shared.

    Args:
        artifact: where the components lie.
        make_builder: makes the builder for the tree of one component.
        hang: what the root gets where a component hangs; None for the component itself.
    """

    def __init__(
        self,
        artifact: Artifact,
        make_builder: Callable[[Assembler, str], Builder],
        hang: Callable[[str], Any] | None = None,
    ) -> None:
        self.artifact = artifact
        self.hang = hang or self.component
        self._make_builder = make_builder
        self._values: dict[str, Any] = {}
        self._builders: dict[str, Builder] = {}

    def component(self, name: str) -> Any:
        if name not in self._values:
            self._values[name] = None  # a root that hangs itself below itself must not recurse for ever
            self._values[name] = Decoder(self.builder(name)).decode(self.artifact.tree(name).tree)
        return self._values[name]

    def builder(self, name: str) -> Builder:
        if name not in self._builders:
            self._builders[name] = self._make_builder(self, name)
        return self._builders[name]


class LeafBuilder(ABC):
    """What both builders share: each tensor is made once, and one that another component owns is made there.

    A subclass says how to make a stored and a viewed tensor.
    """

    def __init__(self, assembler: Assembler, component: str) -> None:
        self._assembler = assembler
        self._component = component
        self._made: dict[str, Any] = {}

    def tensor(self, name: str, component: str | None) -> Any:
        if component is not None and component != self._component:
            return self._assembler.builder(component).tensor(name, None)
        if name not in self._made:
            entry = self._assembler.artifact.tree(self._component).table.get(name)
            if entry is None:
                raise FormatError(f"cannot read tensor '{name}'", why=f"component '{self._component}' does not list it")
            self._made[name] = self._make(name, entry)
        return self._made[name]

    def component(self, name: str) -> Any:
        return self._assembler.hang(name)

    def atom(self, atom: TorchAtom) -> Any:
        return atom

    def _make(self, name: str, entry: Stored | Viewed) -> Any:
        if isinstance(entry, Viewed):
            owner = entry.component or self._component
            return self.make_view(entry, owner)
        data = self._assembler.artifact.data(self._component, name)
        if entry.kind == "bytes":
            return bytes(data)
        if entry.kind == "bytearray":
            return bytearray(data)
        return self.make_stored(self._component, name, entry, data)

    @abstractmethod
    def make_stored(self, owner: str, name: str, entry: Stored, data: memoryview) -> Any:
        """The tensor or array of a stored entry, from its bytes."""

    @abstractmethod
    def make_view(self, entry: Viewed, owner: str) -> Any:
        """The tensor of an entry that looks at the memory of a stored one of component `owner`."""


class NeutralBuilder(LeafBuilder):
    """Makes leaves and stand-ins, without torch."""

    def make_stored(self, owner: str, name: str, entry: Stored, data: memoryview) -> Any:
        if entry.kind == "ndarray":
            return numpy_values.array_of(entry.dtype, entry.shape, data, entry.attrs)
        strides = contiguous_strides(entry.shape)
        storage = self._storage(owner, name, data)
        return leaf_of_view(entry.dtype, entry.shape, strides, start=0, storage=storage, attrs=entry.attrs)

    def make_view(self, entry: Viewed, owner: str) -> Leaf:
        self._assembler.artifact.stored(owner, entry.of, "tensor")
        data = self._assembler.artifact.data(owner, entry.of)
        storage = self._storage(owner, entry.of, data)
        return leaf_of_view(
            entry.dtype, entry.shape, entry.strides, start=entry.offset, storage=storage, attrs=entry.attrs
        )

    def _storage(self, owner: str, name: str, data: memoryview) -> Storage:
        artifact = self._assembler.artifact
        return Storage(
            ("artifact", owner, name),
            len(data),
            lambda start, stop: data[start:stop],
            lambda first, last: artifact.forget(owner, name, first, last),
        )


def named_leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Leaf]]:
    """The tensors of a neutral component with their names; a tensor that hangs in two places comes twice."""
    value = numpy_values.adapt(value)
    if isinstance(value, Leaf):
        yield prefix, value
    elif isinstance(value, (dict, list, tuple)):
        items = dict.items(value) if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from named_leaves(item, f"{prefix}.{key}" if prefix else str(key))
