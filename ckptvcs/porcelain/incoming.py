"""A state on its way into a commit: from a file, a folder or memory to flat components, with what came beside them."""

from __future__ import annotations

import io
import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ckptvcs.domain.manifest import SourceEntry
from ckptvcs.errors import Conflict, FormatError, UnsupportedValue
from ckptvcs.formats import flatten, hints, numpy_values
from ckptvcs.formats.artifact import PICKLE
from ckptvcs.formats.components import EXTRA, Part, Parts, take_apart
from ckptvcs.formats.foreign import detect
from ckptvcs.formats.foreign.source import Source, facts_of, is_neutral_leaf
from ckptvcs.storage.index import stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from ckptvcs.formats.flatten import FlatComponent


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """What is to be committed."""

    components: tuple[FlatComponent, ...]
    pickled: Mapping[str, tuple[str, bytes]]
    """Components that only pickle could represent: name -> (role, bytes)."""
    files: Mapping[str, Path | bytes]
    """Files kept as they are, by their path in the artifact."""
    source: SourceEntry
    facts: Mapping[str, Any] = field(default_factory=dict)
    hints: hints.Hints
    notes: tuple[str, ...] = ()
    computed: bool = False
    """Whether reading a leaf computes it: then who needs its bytes again reads them from where they are stored."""
    watched: Mapping[Path, str] = field(default_factory=dict)
    """Files that the components still look into, and how they were when they were opened."""

    def changed(self) -> Path | None:
        """A file that changed under our hands: its tensors are not those that were looked at."""
        return next((path for path, before in self.watched.items() if _stamp_now(path) != before), None)

    def check_unchanged(self) -> None:
        """Raise `Conflict` if a file changed under our hands: its tensors would not be those that were hashed."""
        path = self.changed()
        if path is not None:
            raise Conflict(
                f"cannot commit '{path}'",
                why="it was changed or removed while it was read",
                next_step="wait until the program that writes it is done, then run the command again",
            )


def _stamp_now(path: Path) -> str | None:
    try:
        return stamp(path.stat())
    except OSError:
        return None


def from_path(
    path: Path, *, allow_pickle: bool = False, follow_links: bool = False, leave_out: Collection[Path] = ()
) -> Incoming:
    """Read a file or folder.

    Args:
        path: of any format that `detect` knows.
        allow_pickle: let code in the file run if nothing else helps, and keep as pickle what has no exact representation.
        follow_links: also read links that lead out of a folder.
        leave_out: what lies in a folder and is none of it.

    Raises:
        UsageError, FormatError: it cannot be read, or holds values without exact representation.
    """
    source = detect.open_source(path, follow_links=follow_links, leave_out=leave_out)
    try:
        return from_source(source)
    except UnsupportedValue:
        if not allow_pickle or not path.is_file():
            raise
        return from_source(detect.open_trusted(path.resolve()), tolerate=True)


def from_source(source: Source, *, tolerate: bool = False) -> Incoming:
    """Flatten what was read.

    Args:
        source: from `detect`.
        tolerate: keep as pickle what has no exact representation.

    Raises:
        UnsupportedValue: it holds such values, and they are not tolerated.
    """
    rooted = any(member.startswith(f"{EXTRA}/") for member in source.files)
    parts = take_apart(source.state, source.is_leaf, rooted=rooted)
    components, pickled = _flatten(parts, source.adapt, tolerate=tolerate)
    return Incoming(
        components=components,
        pickled=pickled,
        files=dict(source.files),
        source=SourceEntry(format=source.format, name=source.name, metadata=dict(source.metadata)),
        facts=source.facts,
        hints=hints.infer(components),
        notes=source.notes,
        watched={path: stamp(path.stat()) for path in source.watched},
    )


def from_state(
    state: Any,
    *,
    allow_pickle: bool = False,
    roles: Mapping[str, str] | None = None,
    known: hints.Hints | None = None,
    files: Mapping[str, bytes] | None = None,
) -> Incoming:
    """Take a state from memory; its tensors are looked at, not copied.

    Args:
        state: what `torch.save` would be given.
        allow_pickle: keep as pickle what has no exact representation.
        roles: the roles of components, by name; told from the names where they are not given.
        known: which parameters are trained, and by which optimizer; guessed where it is None.
        files: further files by their path in the artifact, such as `model/config.json`.

    Raises:
        UnsupportedValue: it holds values without exact representation.
        FormatError: it is empty.
    """
    if isinstance(state, (dict, list, tuple)) and not state:
        raise FormatError(
            "cannot commit an empty state", why="there is nothing in it", next_step="give the state to save"
        )
    adapt, is_leaf = _framework()
    components, pickled = _flatten(take_apart(state, is_leaf, roles=roles), adapt, tolerate=allow_pickle)
    return Incoming(
        components=components,
        pickled=pickled,
        files=dict(files or {}),
        source=SourceEntry(format="memory", name="", metadata={}),
        facts=facts_of(state),
        hints=known or hints.infer(components),
    )


def _framework() -> tuple[Callable[[Any], Any], Callable[[Any], bool]]:
    """How to look at values in memory. Who has not imported torch has no tensors of it."""
    if "torch" not in sys.modules:
        return numpy_values.adapt, lambda value: is_neutral_leaf(value) or numpy_values.is_array(value)
    from ckptvcs.formats import torch_state

    return torch_state.adapt, torch_state.is_leaf


def _flatten(
    parts: Parts, adapt: Callable[[Any], Any], *, tolerate: bool
) -> tuple[tuple[FlatComponent, ...], dict[str, tuple[str, bytes]]]:
    flat = flatten.flatten(parts, adapt, tolerate=tolerate)
    pickled = {part.name: (part.role, _pickle(part, parts)) for part in flat.rejected}
    return tuple(flat.components), pickled


def _pickle(part: Part, parts: Parts) -> bytes:
    from ckptvcs.formats import torch_state

    value = part.value
    if part.name == EXTRA and isinstance(value, dict):
        names = {p.name for p in parts.parts}
        value = {"order": list(value), "rest": {key: item for key, item in value.items() if key not in names}}
    buffer = io.BytesIO()
    torch_state.write_pt(value, buffer)
    return buffer.getvalue()


def pickle_path(component: str) -> str:
    """Where the pickle of a component lies in the artifact."""
    return f"{component}/{PICKLE}"


def file_size(content: Path | bytes) -> int:
    """Bytes of a file that is kept as it is."""
    return len(content) if isinstance(content, bytes) else os.stat(content).st_size
