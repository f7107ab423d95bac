"""`load`: a checkpoint as a state in memory, straight from the cache; no workspace files are needed.

Tensors look into a private map of the objects: nothing is read before it is used, writing to a tensor does not touch the
cache. Every object is verified against its BLAKE3 before it is handed out; one that did not change since it was last
verified is not read again for that.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from copy import copy as shallow_copy
from typing import TYPE_CHECKING, Any

from ckptvcs.errors import FormatError, MissingObject, NotFound, Refused
from ckptvcs.formats.artifact import PICKLE
from ckptvcs.formats.components import EXTRA
from ckptvcs.formats.mapped import MappedFile
from ckptvcs.formats.reading import Artifact, Assembler, NeutralBuilder
from ckptvcs.porcelain import given
from ckptvcs.porcelain.checkpoints import pointer_at, require_checkpoint
from ckptvcs.porcelain.describe import ref_of
from ckptvcs.porcelain.gone import explained
from ckptvcs.storage.history.repository import CommitId

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ckptvcs.domain.checkpoint import Checkpoint
    from ckptvcs.domain.manifest import ComponentEntry, FileEntry
    from ckptvcs.formats.tree.decode import Builder
    from ckptvcs.porcelain.repo import Repository
    from ckptvcs.storage.names import ObjectRef


class State(Mapping[str, Any]):
    """A state whose components are read when they are asked for.

    It is a mapping like the dict that was committed: same keys, same order. `dict(state)` reads everything.
    """

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root

    def whole(self) -> dict[str, Any]:
        """What was committed, of the same type, with everything read."""
        root = shallow_copy(self._root)
        root.update((key, self[key]) for key in self._root)
        return root

    def __getitem__(self, key: str) -> Any:
        value = self._root[key]
        if isinstance(value, _Pending):
            value = self._root[key] = value.read()
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._root)

    def __len__(self) -> int:
        return len(self._root)

    def __repr__(self) -> str:
        return f"<ckptvcs state of {', '.join(map(str, self._root))}>"


class _Pending:
    """A component that was not read yet."""

    def __init__(self, read: Callable[[], Any]) -> None:
        self.read = read


def load(
    repo: Repository,
    revision: str,
    components: Collection[str] | None = None,
    *,
    map_location: Any = None,
    allow_pickle: bool = False,
    copy: bool = False,
    track: str | None = None,
    told: bool = False,
) -> Any:
    """Read a checkpoint into torch.

    Args:
        repo: the repository.
        revision: any revision; see `docs/reference/revisions.md`.
        components: names or roles of the components that are wanted; None for the whole state.
        map_location: the device for tensors; None for the CPU.
        allow_pickle: unpickle components that only pickle could represent, which runs whatever code they contain.
        copy: give tensors memory of their own instead of looking into the cache.
        track: the track; None for the configured one.
        told: whether the ledger is told, as far as ckpt.yaml asks for it: it is somebody else who gets the state.

    Returns:
        What was committed. A dict comes back as a `State`, whose components are read when they are asked for.

    Raises:
        NotFound: no such revision or component.
        IntegrityError: an object is missing or damaged.
        Refused: a component is a pickle and `allow_pickle` is not set.
    """
    checkpoint = require_checkpoint(repo, revision, track or repo.basics.track)
    pointer_at(repo, CommitId(checkpoint.commit), checkpoint.manifest.track)  # it vouches for the manifest
    if told:
        given.tell(repo, [checkpoint], by=given.LOAD, components=tuple(components or ()))
    from ckptvcs.formats import torch_state

    def make(assembler: Assembler, name: str) -> Builder:
        return torch_state.TensorBuilder(assembler, name, copy=copy, device=map_location)

    return Reading(repo, checkpoint, make, allow_pickle=allow_pickle).state(components)


def open_component_file(repo: Repository, checkpoint: Checkpoint) -> Callable[[str], Any]:
    """A function that gives a file of a checkpoint to be read where it lies, by its path in the artifact, verified."""
    return Reading(repo, checkpoint, NeutralBuilder).map


class Reading:
    """A checkpoint while it is read.

    Args:
        repo: the repository.
        checkpoint: what to read.
        make_builder: makes the builder for the tree of a component.
        allow_pickle: see `load`.
    """

    def __init__(
        self,
        repo: Repository,
        checkpoint: Checkpoint,
        make_builder: Callable[[Assembler, str], Builder],
        *,
        allow_pickle: bool = False,
    ) -> None:
        self._repo = repo
        self._checkpoint = checkpoint
        self._manifest = checkpoint.manifest
        self._files = {file.path: file for file in self._manifest.all_files()}
        self._allow_pickle = allow_pickle
        self._components = {c.name: c for c in self._manifest.components}
        names = [c.name for c in self._manifest.components if c.encoding == "tree"]
        self._assembler = Assembler(Artifact(names, self.open), make_builder, hang=self._pending)

    def state(self, wanted: Collection[str] | None) -> Any:
        """The whole state, or a state of the wanted components alone."""
        if wanted is not None:
            return State({name: self._pending(name) for name in (self._find(w).name for w in wanted)})
        if EXTRA not in self._components:
            return State({name: self._pending(name) for name in self._components})
        root = self._root()
        if isinstance(root, _Pending):
            return root.read()
        pending = isinstance(root, dict) and any(isinstance(value, _Pending) for value in dict.values(root))
        return State(root) if type(root) is dict or pending else root

    def _root(self) -> Any:
        """What hangs at the root, with something pending wherever a component hangs."""
        root = self._read(self._components[EXTRA])
        if self._components[EXTRA].encoding == "pickle" and isinstance(root, dict) and set(root) == {"order", "rest"}:
            rest = root["rest"]
            return {key: rest[key] if key in rest else self._pending(key) for key in root["order"]}
        return root

    def _pending(self, name: str) -> _Pending:
        if name == EXTRA:
            return _Pending(self._rest)
        return _Pending(lambda: self._read(self._find(name)))

    def _rest(self) -> Any:
        """The root without the components that hang from it."""
        root = self._root()
        return {k: v for k, v in root.items() if not isinstance(v, _Pending)} if isinstance(root, dict) else root

    def _find(self, name: str) -> ComponentEntry:
        entry = self._manifest.component(name)
        if entry is None:
            raise NotFound(
                f"no component '{name}' in checkpoint {self._checkpoint.id[:10]}",
                why=f"it has {', '.join(f'{c.name} ({c.role})' for c in self._manifest.components)}",
                next_step="name one of them",
            )
        return entry

    def _read(self, entry: ComponentEntry) -> Any:
        self._check([ref_of(file) for file in entry.files])
        if entry.encoding == "pickle":
            return self._unpickle(entry)
        return self._assembler.component(entry.name)

    def _check(self, refs: list[ObjectRef]) -> None:
        try:
            self._repo.objects.check(refs)
        except MissingObject as err:
            raise explained(self._repo, self._checkpoint, err) from err

    def _unpickle(self, entry: ComponentEntry) -> Any:
        if not self._allow_pickle:
            raise Refused(
                f"cannot load component '{entry.name}'",
                why="it is a pickle, and loading it runs whatever code is in it",
                next_step="pass allow_pickle=True (or --allow-pickle) if you trust who made it",
            )
        from ckptvcs.formats import torch_state

        return torch_state.read_trusted(
            self._repo.objects.store.path(ref_of(self._file(f"{entry.name}/{PICKLE}")).name)
        )

    def _file(self, path: str) -> FileEntry:
        entry = self._files.get(path)
        if entry is None:
            raise FormatError(
                f"cannot read '{path}'", why="the manifest does not list it", next_step="run 'ckpt doctor'"
            )
        return entry

    def map(self, path: str) -> MappedFile | bytes:
        """A read-only map of a verified object, of which pages can be given back."""
        ref = ref_of(self._file(path))
        self._check([ref])
        return MappedFile(self._repo.objects.store.path(ref.name)) if ref.nbytes else b""

    def open(self, path: str) -> Any:
        """A private, writable map of a verified object."""
        ref = ref_of(self._file(path))
        self._check([ref])
        with self._repo.objects.store.open(ref.name) as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) if ref.nbytes else bytearray()
