"""What every command needs of `ckpt.yaml`. The rest of it is `policy`, which only those import who go by it."""

from __future__ import annotations

from typing import Final

import msgspec

from ckptvcs.domain.checkpoint import DEFAULT_TRACK, check_track
from ckptvcs.errors import CkptvcsError
from ckptvcs.paths import check_path

FILE: Final = "ckpt.yaml"
DEFAULT_DIRECTORY: Final = "checkpoints"


class Basics(msgspec.Struct, frozen=True, kw_only=True):
    """Where checkpoints are, and which one is meant."""

    directory: str = DEFAULT_DIRECTORY
    """Folder of pointers, manifests and artifacts, below the DVC root."""
    track: str = DEFAULT_TRACK
    """The track that is meant where none is named."""

    def __post_init__(self) -> None:
        """Check what types cannot say.

        Raises:
            ValueError: a value cannot be used.
        """
        try:
            check_path(self.directory)
            check_track(self.track)
        except CkptvcsError as err:
            raise ValueError(f"{err.what}: {err.why}") from err
