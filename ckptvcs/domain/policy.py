"""What `ckpt.yaml` says, as values. How it is read, and how its mistakes are named, is `schema`'s business."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal

from ckptvcs.domain.alerting import Alerts  # noqa: TC001 - pydantic looks types up when it runs
from ckptvcs.domain.basics import DEFAULT_DIRECTORY, Basics
from ckptvcs.domain.checkpoint import DEFAULT_TRACK
from ckptvcs.domain.keeping import Retain  # noqa: TC001 - pydantic looks types up when it runs
from ckptvcs.domain.policy_values import (
    STRICT,
    BadValue,
    Compared,
    check_at_least,
    check_positive,
    described,
)

_REMOTE: Final = re.compile(
    r"(?!(true|false|yes|no|on|off|null|y|n)\Z)[a-z][a-z0-9._-]{0,63}", re.ASCII | re.IGNORECASE
)
"""What YAML takes for text without quotes, as it stands in a pointer."""


def is_remote_name(name: str) -> bool:
    """Whether a remote may have that name: it stands in pointers and on command lines."""
    return _REMOTE.fullmatch(name) is not None


@dataclass(frozen=True, kw_only=True)
class Best:
    """What `BRANCH@best` means where no metric is named."""

    __pydantic_config__: ClassVar[Any] = STRICT

    monitor: str = field(metadata=described("the metric to compare"))
    mode: Literal["min", "max"] = field(metadata=described("whether less or more of it is better"))


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """How files are put into the workspace."""

    __pydantic_config__: ClassVar[Any] = STRICT

    link: Literal["auto", "reflink", "hardlink", "copy"] = field(
        default="auto",
        metadata=described(
            "`auto`: reflink, else hard link (never as root), else copy; any other: only that, and a copy where it fails"
        ),
    )
    on_commit: bool = field(
        default=True,
        metadata=described("whether a commit to the branch that is checked out puts its artifact into the workspace"),
    )


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What the git hooks do that `ckpt hooks install` brings."""

    __pydantic_config__: ClassVar[Any] = STRICT

    materialise: Literal["auto", "tell"] = field(
        default="auto",
        metadata=described(
            "after git moved HEAD: `auto` puts the checkpoint that is there into the workspace, `tell` only says that it differs"
        ),
    )
    max_mib: int = field(
        default=10, metadata=described("MiB that a raw checkpoint may have to enter git; larger ones are refused")
    )

    def __post_init__(self) -> None:
        """Check what types cannot say.

        Raises:
            BadValue: a value cannot be used.
        """
        check_at_least("max_mib", self.max_mib, 0)


@dataclass(frozen=True, kw_only=True)
class RemotePolicy:
    """What a remote is for."""

    __pydantic_config__: ClassVar[Any] = STRICT

    tier: Literal["warm", "cold"] = field(
        default="warm", metadata=described("`warm`: `push` and `pull` use it; `cold`: it is for the archive alone")
    )


@dataclass(frozen=True, kw_only=True)
class Improvement(Compared):
    """A save whenever a metric is better than at any save before."""

    min_delta: float = field(default=0.0, metadata=described("by how much it has to be better, more than that"))
    min_interval: int = field(default=0, metadata=described("steps between two improvements that are saved, at least"))

    def __post_init__(self) -> None:
        """Check what types cannot say.

        Raises:
            BadValue: a value cannot be used.
        """
        super().__post_init__()
        check_at_least("min_delta", self.min_delta, 0)
        check_at_least("min_interval", self.min_interval, 0)


@dataclass(frozen=True, kw_only=True)
class Plateau(Compared):
    """One save when a metric has stopped getting better."""

    patience: int = field(
        default=10, metadata=described("so many observations of it in a row, none better than the best, are a plateau")
    )
    min_delta: float = field(default=0.0, metadata=described("by how much it has to be better, more than that"))

    def __post_init__(self) -> None:
        """Check what types cannot say.

        Raises:
            BadValue: a value cannot be used.
        """
        super().__post_init__()
        check_at_least("patience", self.patience, 1)
        check_at_least("min_delta", self.min_delta, 0)


@dataclass(frozen=True, kw_only=True)
class Preemption:
    """A save when the machine is about to be taken away."""

    __pydantic_config__: ClassVar[Any] = STRICT

    signals: tuple[str, ...] = field(default=("SIGTERM", "SIGUSR1"), metadata=described("the signals that announce it"))
    grace_s: float = field(default=30.0, metadata=described("seconds from the signal to the end of the process"))

    def __post_init__(self) -> None:
        """Check what types cannot say.

        Raises:
            BadValue: a value cannot be used.
        """
        for name in self.signals:
            if name not in signal.Signals.__members__ or name in ("SIGKILL", "SIGSTOP"):
                raise BadValue("signals", f"'{name}' is no signal that a process can handle, such as SIGTERM")
        check_positive("grace_s", self.grace_s)


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Saves as often as their cost and the failures of the machine make best."""

    __pydantic_config__: ClassVar[Any] = STRICT

    overhead: float = field(
        default=0.035, metadata=described("the part of the training time that saves may cost, at most")
    )
    mtbf_s: float | None = field(
        default=None, metadata=described("mean seconds between failures; observed where it is not stated")
    )

    def __post_init__(self) -> None:
        """Check what types cannot say.

        Raises:
            BadValue: a value cannot be used.
        """
        check_positive("overhead", self.overhead)
        if self.overhead > 1:
            raise BadValue("overhead", f"it is a part of the training time, at most 1, not {self.overhead}")
        check_positive("mtbf_s", self.mtbf_s)


@dataclass(frozen=True, kw_only=True)
class Save:
    """When training saves. Rules add to each other: a save is taken when at least one asks for it."""

    __pydantic_config__: ClassVar[Any] = STRICT

    every_n_steps: int | None = field(
        default=None, metadata=described("at each multiple of so many steps; step 0 is none")
    )
    every_n_epochs: int | None = field(default=None, metadata=described("whenever so many epochs more are completed"))
    every_n_seconds: float | None = field(
        default=None, metadata=described("when the last save, or the start, is so many seconds ago")
    )
    on_improvement: Improvement | None = field(
        default=None, metadata=described("when a metric is better than at any save before")
    )
    on_plateau: Plateau | None = field(
        default=None, metadata=described("once, when a metric has stopped getting better")
    )
    on_event: tuple[str, ...] = field(
        default=(), metadata=described("when the training loop tells of one of these events")
    )
    on_preemption: Preemption | None = field(
        default=None,
        metadata=described(
            "when the machine is about to be taken away; `true` is short for the defaults",
            short=((True, {}), (False, None)),
        ),
    )
    on_exception: bool = field(default=False, metadata=described("when the training loop ends with an exception"))
    on_exit: bool = field(default=False, metadata=described("when the training loop ends"))
    interval: Interval | None = field(
        default=None,
        metadata=described(
            "as often as the cost of saves and the time between failures make best; `auto` is short for the defaults",
            short=(("auto", {}),),
        ),
    )
    when_busy: Literal["wait", "skip"] = field(
        default="wait", metadata=described("what a save does while the one before is still under way")
    )
    grade: Literal["exact", "approximate", "weights-only"] | None = field(
        default=None, metadata=described("the least grade that a checkpoint of the training loop must have")
    )

    def __post_init__(self) -> None:
        """Check what types cannot say.

        Raises:
            BadValue: a value cannot be used.
        """
        for key in ("every_n_steps", "every_n_epochs", "every_n_seconds"):
            check_positive(key, getattr(self, key))
        for name in self.on_event:
            if not _EVENT.fullmatch(name):
                raise BadValue("on_event", f"'{name}' cannot be an event: {_EVENT_RULE}")


DEFAULT_SAVE: Final = Save(interval=Interval(), on_preemption=Preemption(), on_exit=True)
"""When training saves where nobody said it: as often as the budget allows, and whenever it would lose something."""

_EVENT: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII | re.IGNORECASE)
_EVENT_RULE: Final = "at most 64 letters, digits, '.', '_', '-', a letter or digit first"


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What the ledger is told of checkpoints that are given out."""

    __pydantic_config__: ClassVar[Any] = STRICT

    restores: Literal["record", "require", "off"] = field(
        default="record",
        metadata=described(
            "whether `checkout`, `restore` and `export` are written down: `record` as far as it is possible, `require`: "
            "without it nothing is given out, `off` not at all",
            short=((False, "off"),),  # what YAML takes `off` for
        ),
    )
    loads: bool = field(
        default=False, metadata=described("whether `ckptvcs.load` is written down too; it may be called in a loop")
    )


@dataclass(frozen=True, kw_only=True)
class Config:
    """Policy and configuration of one repository."""

    __pydantic_config__: ClassVar[Any] = STRICT

    version: Literal[1] = field(default=1, metadata=described("of this schema"))
    directory: str = field(
        default=DEFAULT_DIRECTORY, metadata=described("folder of pointers, manifests and artifacts, below the DVC root")
    )
    track: str = field(default=DEFAULT_TRACK, metadata=described("the track that is meant where none is named"))
    remote: str | None = field(
        default=None, metadata=described("DVC remote for checkpoints; its name is written into each pointer")
    )
    remotes: dict[str, RemotePolicy] = field(
        default_factory=dict,
        metadata=described("what remotes are for, by their names; a remote that is not here is warm"),
    )
    replicas: int = field(
        default=1,
        metadata=described("so many warm remotes have the objects of a checkpoint before `push` moves a ref"),
    )
    best: Best | None = field(default=None, metadata=described("what `@best` compares"))
    checkout: Checkout = field(default_factory=Checkout, metadata=described("how files are put into the workspace"))
    audit: Audit = field(
        default_factory=Audit, metadata=described("what the ledger is told of checkpoints that are given out")
    )
    hooks: Hooks = field(default_factory=Hooks, metadata=described("what git hooks do"))
    save: Save | None = field(
        default=None,
        metadata=described(
            "when training saves; without it: as often as costs 3.5 % of the time, when the process is told to end, and "
            "at the end"
        ),
    )
    retain: Retain | None = field(
        default=None, metadata=described("what is kept, and how long the rest waits; without it everything is kept")
    )
    alerts: Alerts | None = field(default=None, metadata=described("what `ckpt alerts` tells of; without it nothing"))

    def __post_init__(self) -> None:
        """Check what types cannot say.

        Raises:
            ValueError: a value cannot be used; the schema names its line.
        """
        Basics(directory=self.directory, track=self.track)
        if self.replicas < 1:
            raise ValueError(f"'replicas' has to be at least 1, not {self.replicas}")
        if self.remote is not None and not is_remote_name(self.remote):
            raise ValueError(
                f"'{self.remote}' cannot be the name of a remote: at most 64 letters, digits, '.', '_', '-', a letter first"
            )
