"""What retention looks at, and what it says: checkpoints, the lines that they are on, who needs them, reasons."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import msgspec

from ckptvcs.domain.checkpoint import CheckpointId  # noqa: TC001 - msgspec looks types up when it runs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence

    from ckptvcs.domain.revisions import Mode

    Objects = Callable[[CheckpointId, Collection[str]], Iterable[tuple[Hashable, int]]]
    """The objects of some components of a checkpoint: what tells one from another, and its bytes."""


class Member(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A checkpoint, as far as retention looks at it. There may be very many, which are made faster so."""

    id: CheckpointId
    time: float
    """When it was saved, in seconds since the epoch."""
    step: int | None
    metrics: Mapping[str, float]
    """Those that are numbers."""
    components: Mapping[str, str]
    """The role of each of its components, by name."""
    parents: tuple[CheckpointId, ...] = ()
    """What it was trained on from."""
    complete: bool = True
    """Whether training goes on from it by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The checkpoints of one track along a branch, newest first."""

    branch: str
    track: str
    members: tuple[CheckpointId, ...]

    @property
    def source(self) -> str:
        """What a reason says that is there because of this line."""
        return f"branch {self.branch}"

    def __str__(self) -> str:
        return f"branch '{self.branch}', track '{self.track}'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """Why somebody needs a checkpoint, whatever rules say: a mark, a hold, a stage, a job that goes on from it."""

    kind: str
    text: str
    source: str = ""
    """What would have to go for it not to be needed, such as `tag golden/base`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Everything that retention decides by."""

    members: Mapping[CheckpointId, Member]
    lines: Sequence[Line]
    pins: Mapping[CheckpointId, Sequence[Pin]] = field(default_factory=dict)
    compared: Sequence[tuple[str, Mode]] = ()
    """Metrics by which a branch has a best checkpoint, whatever rules say, and which way they get better."""
    says_best: bool = True
    """Whether `best` of ckpt.yaml says so; else these are the usual names, as far as they are there."""
    objects: Objects | None = None
    """Needed where there are limits of bytes."""
    has_warm: bool = True
    """Whether there is a warm remote; without one the limit of the hot tier is that of everything."""

    def sized(self) -> Objects:
        """Its objects, which whoever sets a limit of bytes has to know."""
        assert self.objects is not None
        return self.objects

    def without(self, sources: Collection[str]) -> View:
        """The same, as if somebody had removed branches, tags and so on."""
        if not sources:
            return self
        lines = [line for line in self.lines if line.source not in sources]
        pins = {i: [pin for pin in pins if pin.source not in sources] for i, pins in self.pins.items()}
        return replace(self, lines=lines, pins=pins)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Reason:
    """Why a checkpoint is kept."""

    floor: bool
    """Whether no policy can change it."""
    kind: str
    text: str
    components: tuple[str, ...] = ()
    """The components that it keeps; none if it keeps all of them."""
    ends: tuple[tuple[str, ...], ...] = ()
    """It ends when all of one of these groups are gone, and not else: keys of `ckpt.yaml`, `branch NAME`, `tag NAME`..."""

    @property
    def sources(self) -> frozenset[str]:
        """Everything that has to do with its end."""
        return frozenset(source for group in self.ends for source in group)

    def without(self, sources: Collection[str]) -> bool:
        """Whether it is still one when something is gone."""
        return not any(set(group) <= set(sources) for group in self.ends)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Overruled:
    """A reason that does not count, because there is a limit of bytes."""

    reason: Reason
    by: str
    """The key of `ckpt.yaml`."""
