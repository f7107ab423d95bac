"""What a checkpoint is to everyone above storage: ids, marks, names."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NewType

from ckptvcs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from ckptvcs.domain.events import Noted
    from ckptvcs.domain.fates import Dropped
    from ckptvcs.domain.manifest import FileEntry, Manifest

CheckpointId = NewType("CheckpointId", str)
"""The BLAKE3 digest of the manifest."""

DEFAULT_TRACK: Final = "model"
GOLDEN: Final = "golden/"
MILESTONE: Final = "milestone/"

_TRACK: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}\Z")
_YAML_WORDS: Final = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A git commit that writes a manifest, and the manifest."""

    id: CheckpointId
    commit: str
    manifest: Manifest
    subject: str
    """First line of the commit message."""
    author: str
    time: datetime
    """When it was saved: the time of the author of the commit, which is that of the file where it was imported."""
    late: Mapping[str, Noted] = field(default_factory=dict)
    """What was noted of it later, by metric, where the ledger was looked into; its id does not depend on it."""
    dropped: Dropped | None = None
    """What of it is condemned or gone, where the ledger was looked into."""

    @property
    def metrics(self) -> dict[str, int | float | str]:
        """Its metrics: those of the manifest, and the late ones, which override them."""
        return {**self.manifest.metrics, **{name: noted.value for name, noted in self.late.items()}}

    @property
    def is_dropped(self) -> bool:
        """Whether nothing of it is kept."""
        names = {component.name for component in self.manifest.components}
        return self.dropped is not None and names <= self.dropped.components

    @property
    def is_gone(self) -> bool:
        """Whether nothing of it is there any more."""
        names = {component.name for component in self.manifest.components}
        return self.dropped is not None and names <= self.dropped.gone

    @property
    def grade(self) -> str:
        """How training goes on from it: that of the manifest, or less where components are gone."""
        if self.dropped is None or not self.dropped.gone:
            return self.manifest.grade
        return "dropped" if self.is_gone else "weights-only"

    def needed_files(self) -> tuple[FileEntry, ...]:
        """The files of its artifact that are needed: neither condemned nor gone."""
        if self.dropped is None:
            return self.manifest.all_files()
        if self.is_dropped:
            return ()
        return self._files_without(self.dropped.components)

    def uncondemned(self) -> Checkpoint:
        """The same as if only what is gone had been dropped: what is condemned is needed after all."""
        if self.dropped is None:
            return self
        gone = self.dropped.gone
        return replace(self, dropped=replace(self.dropped, components=gone) if gone else None)

    def remaining_files(self) -> tuple[FileEntry, ...]:
        """The files of its artifact that are not gone for good, condemned or not."""
        if self.dropped is None:
            return self.manifest.all_files()
        return () if self.is_gone else self._files_without(self.dropped.gone)

    def _files_without(self, components: Collection[str]) -> tuple[FileEntry, ...]:
        some = (c for c in self.manifest.components if c.name not in components)
        return (*(file for component in some for file in component.files), *self.manifest.files)


def check_track(name: str) -> str:
    """Return `name` if a track may have it.

    Raises:
        UsageError: it could not be a file name and a plain YAML word everywhere.
    """
    if not _TRACK.match(name) or name.lower() in _YAML_WORDS:
        raise UsageError(
            f"'{name}' cannot be the name of a track",
            why="a name begins with a letter and has letters, digits, '-' and '_', 64 at most, and is no YAML word",
            next_step="choose another name, such as 'model' or 'teacher'",
        )
    return name


def mark_of(tag: str) -> str | None:
    """`golden` or `milestone` for a tag that retention obeys, else None."""
    return next((prefix[:-1] for prefix in (GOLDEN, MILESTONE) if tag.startswith(prefix)), None)
