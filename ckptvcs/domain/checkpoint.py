"""What a checkpoint is to everyone above storage: ids, marks, names."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NewType

from ckptvcs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from ckptvcs.domain.events import Noted
    from ckptvcs.domain.manifest import Manifest

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

    @property
    def metrics(self) -> dict[str, int | float | str]:
        """Its metrics: those of the manifest, and the late ones, which override them."""
        return {**self.manifest.metrics, **{name: noted.value for name, noted in self.late.items()}}


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
