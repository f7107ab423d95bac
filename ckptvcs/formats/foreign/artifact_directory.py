"""A folder that is an artifact of ours, changed or not, as a source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ckptvcs.errors import FormatError
from ckptvcs.formats import tree_file
from ckptvcs.formats.artifact import INDEX, PICKLE
from ckptvcs.formats.foreign.source import Source, facts_of
from ckptvcs.formats.mapped import MappedFile
from ckptvcs.formats.reading import Artifact, NeutralBuilder, build
from ckptvcs.formats.tree_file import Stored

if TYPE_CHECKING:
    from pathlib import Path


def is_artifact(path: Path) -> bool:
    """Whether a folder is an artifact of ours."""
    return any((entry / tree_file.NAME).is_file() for entry in path.iterdir() if entry.is_dir())


def is_component(path: Path) -> bool:
    """Whether a folder is a component of such an artifact."""
    return (path / tree_file.NAME).is_file()


def open_artifact(path: Path) -> Source:
    """Read an artifact from its files alone.

    Raises:
        FormatError: a component lacks a file, or holds a pickle.
    """
    names = _component_order(path)
    watched: list[Path] = []

    def open_file(member: str) -> Any:
        file = path / member
        if file.is_symlink() or not file.is_file():
            raise FormatError(
                f"cannot read '{file}'", why="it is missing, or a link", next_step="run 'ckpt restore HEAD'"
            )
        watched.append(file)
        return MappedFile(file) if file.stat().st_size else b""

    artifact = Artifact(names, open_file)
    state = build(artifact, NeutralBuilder)
    ours = {f"{name}/{file}" for name in names for file in (tree_file.NAME, INDEX, *_shards(artifact, name))}
    files = {
        member: file
        for file in sorted(path.rglob("*"))
        if file.is_file()
        and not file.is_symlink()
        and file.parent != path  # files of no component are made anew by each commit
        and (member := file.relative_to(path).as_posix()) not in ours
    }
    return Source(
        format="artifact", name=path.name, state=state, files=files, facts=facts_of(state), watched=tuple(watched)
    )


def _shards(artifact: Artifact, name: str) -> set[str]:
    return {entry.shard for entry in artifact.tree(name).table.values() if isinstance(entry, Stored)}


def _component_order(path: Path) -> list[str]:
    """The components, in alphabetical order: a state of another order has a root that says so."""
    pickled = sorted(entry.name for entry in path.iterdir() if (entry / PICKLE).is_file())
    if pickled:
        raise FormatError(
            f"cannot read folder '{path}'",
            why=f"component '{pickled[0]}' is a pickle",
            next_step="load it with ckptvcs.load(..., allow_pickle=True) and commit the state",
        )
    return sorted(entry.name for entry in path.iterdir() if (entry / tree_file.NAME).is_file())
