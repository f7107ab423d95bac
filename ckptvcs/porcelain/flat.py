"""A checkpoint as flat components whose leaves look into its verified objects: how it goes into another one without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.errors import FormatError
from ckptvcs.formats import tree_file
from ckptvcs.formats.artifact import INDEX, PICKLE
from ckptvcs.formats.flat_artifact import flat_component
from ckptvcs.formats.mapped import MappedFile
from ckptvcs.formats.reading import Artifact
from ckptvcs.formats.tree_file import Stored
from ckptvcs.porcelain.checkpoints import pointer_at
from ckptvcs.porcelain.describe import ref_of
from ckptvcs.progress import Progress, silent
from ckptvcs.storage.history.repository import CommitId

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from ckptvcs.domain.checkpoint import Checkpoint
    from ckptvcs.domain.manifest import FileEntry
    from ckptvcs.formats.flatten import FlatComponent
    from ckptvcs.porcelain.repo import Repository

_OURS: Final = (tree_file.NAME, INDEX, PICKLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flat:
    """A checkpoint, opened."""

    checkpoint: Checkpoint
    components: Mapping[str, FlatComponent]
    """The components that are no pickles, by name, in the order of the manifest."""
    artifact: Artifact

    def files(self, repo: Repository, names: Iterable[str]) -> dict[str, Path]:
        """The files of some components that are kept as they are, such as `config.json`: path in the artifact -> object."""
        found = {}
        for name in names:
            entry = next(c for c in self.checkpoint.manifest.components if c.name == name)
            component = self.components.get(name)
            table = self.artifact.tree(name).table.values() if component else ()
            ours = {*_OURS, *(row.shard for row in table if isinstance(row, Stored))}
            for file in entry.files:
                if file.path.removeprefix(f"{name}/") not in ours:
                    found[file.path] = _verified(repo, file)
        return found

    def pickles(self, repo: Repository, names: Iterable[str]) -> dict[str, tuple[str, bytes]]:
        """The bytes of some components that only pickle could represent; nothing is unpickled."""
        found = {}
        for entry in self.checkpoint.manifest.components:
            if entry.name in names and entry.encoding == "pickle":
                file = next(file for file in entry.files if file.path == f"{entry.name}/{PICKLE}")
                found[entry.name] = entry.role, _verified(repo, file).read_bytes()
        return found


def open_flat(repo: Repository, checkpoint: Checkpoint, progress: Progress = silent) -> Flat:
    """Open a checkpoint. Its tensors are verified here and read when they are needed.

    Raises:
        IntegrityError: an object is missing or damaged.
        BadManifest: pointer and manifest do not belong together.
    """
    pointer_at(repo, CommitId(checkpoint.commit), checkpoint.manifest.track)
    entries = [c for c in checkpoint.manifest.components if c.encoding == "tree"]
    repo.objects.check((ref_of(file) for entry in entries for file in entry.files), progress)
    listed = {file.path: file for entry in entries for file in entry.files}

    def open_file(path: str) -> Any:
        entry = listed.get(path)
        if entry is None:
            raise FormatError(
                f"cannot read '{path}'", why="the manifest does not list it", next_step="run 'ckpt doctor'"
            )
        return MappedFile(_verified(repo, entry)) if entry.size else b""

    artifact = Artifact([entry.name for entry in entries], open_file)
    components = {entry.name: flat_component(artifact, entry.name) for entry in entries}
    return Flat(checkpoint=checkpoint, components=components, artifact=artifact)


def _verified(repo: Repository, entry: FileEntry) -> Path:
    ref = ref_of(entry)
    repo.objects.check([ref])
    return repo.objects.store.path(ref.name)
