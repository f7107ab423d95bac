"""The schema of `ckpt.yaml`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ckptvcs.domain.checkpoint import DEFAULT_TRACK, check_track
from ckptvcs.errors import CkptvcsError
from ckptvcs.paths import check_path

FILE = "ckpt.yaml"


def _ours(check: object) -> object:
    """Let one of our checks speak through pydantic, which wants a ValueError."""

    def run(value: str) -> str:
        try:
            return check(value)  # type: ignore[operator, no-any-return]
        except CkptvcsError as err:
            raise ValueError(f"{err.what}: {err.why}") from err

    return run


RelativePath = Annotated[str, AfterValidator(_ours(check_path))]
TrackName = Annotated[str, AfterValidator(_ours(check_track))]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class BestSection(_Section):
    """What `BRANCH@best` means where no metric is named."""

    monitor: Annotated[str, Field(description="the metric to compare", min_length=1)]
    mode: Annotated[Literal["min", "max"], Field(description="whether less or more of it is better")]


class CheckoutSection(_Section):
    """How files are put into the workspace."""

    link: Annotated[
        Literal["auto", "reflink", "hardlink", "copy"],
        Field(description="reflink, else hardlink (never as root), else copy; or only one of them, else copy"),
    ] = "auto"
    on_commit: Annotated[
        bool, Field(description="whether a commit to the branch that is checked out puts its artifact into the workspace")
    ] = True


class Config(_Section):
    """Policy and configuration of one repository."""

    version: Annotated[Literal[1], Field(description="of this schema")] = 1
    directory: Annotated[RelativePath, Field(description="folder of pointers, manifests and artifacts")] = "checkpoints"
    track: Annotated[TrackName, Field(description="the track that is meant where none is named")] = DEFAULT_TRACK
    remote: Annotated[
        str | None, Field(description="DVC remote for checkpoints, written into each pointer", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    ] = None
    best: Annotated[BestSection | None, Field(description="see below")] = None
    checkout: Annotated[CheckoutSection, Field(description="see below")] = CheckoutSection()
