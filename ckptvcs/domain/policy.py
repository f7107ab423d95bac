"""What `ckpt.yaml` says, as values. How it is read, and how its mistakes are named, is `schema`'s business."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal

from ckptvcs.domain.checkpoint import DEFAULT_TRACK, check_track
from ckptvcs.errors import CkptvcsError
from ckptvcs.paths import check_path

FILE: Final = "ckpt.yaml"


_REMOTE: Final = re.compile(
    r"(?!(true|false|yes|no|on|off|null|y|n)\Z)[a-z][a-z0-9._-]{0,63}", re.ASCII | re.IGNORECASE
)
"""What YAML takes for text without quotes, as it stands in a pointer."""

_STRICT: Final = {"extra": "forbid", "strict": True}
"""For pydantic: no unknown key, no string where a number belongs."""


def _described(text: str) -> dict[str, str]:
    return {"description": text}


@dataclass(frozen=True, kw_only=True)
class Best:
    """What `BRANCH@best` means where no metric is named."""

    __pydantic_config__: ClassVar[Any] = _STRICT

    monitor: str = field(metadata=_described("the metric to compare"))
    mode: Literal["min", "max"] = field(metadata=_described("whether less or more of it is better"))


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """How files are put into the workspace."""

    __pydantic_config__: ClassVar[Any] = _STRICT

    link: Literal["auto", "reflink", "hardlink", "copy"] = field(
        default="auto",
        metadata=_described(
            "`auto`: reflink, else hard link (never as root), else copy; any other: only that, and a copy where it fails"
        ),
    )
    on_commit: bool = field(
        default=True,
        metadata=_described("whether a commit to the branch that is checked out puts its artifact into the workspace"),
    )


@dataclass(frozen=True, kw_only=True)
class Config:
    """Policy and configuration of one repository."""

    __pydantic_config__: ClassVar[Any] = _STRICT

    version: Literal[1] = field(default=1, metadata=_described("of this schema"))
    directory: str = field(
        default="checkpoints", metadata=_described("folder of pointers, manifests and artifacts, below the DVC root")
    )
    track: str = field(default=DEFAULT_TRACK, metadata=_described("the track that is meant where none is named"))
    remote: str | None = field(
        default=None, metadata=_described("DVC remote for checkpoints; its name is written into each pointer")
    )
    best: Best | None = field(default=None, metadata=_described("what `@best` compares"))
    checkout: Checkout = field(default_factory=Checkout, metadata=_described("how files are put into the workspace"))

    def __post_init__(self) -> None:
        """Check what types cannot say.

        Raises:
            ValueError: a value cannot be used; the schema names its line.
        """
        try:
            check_path(self.directory)
            check_track(self.track)
        except CkptvcsError as err:
            raise ValueError(f"{err.what}: {err.why}") from err
        if self.remote is not None and not _REMOTE.fullmatch(self.remote):
            raise ValueError(
                f"'{self.remote}' cannot be the name of a remote: at most 64 letters, digits, '.', '_', '-', a letter first"
            )
