"""What `retain` of `ckpt.yaml` says, as values: which checkpoints are kept. What follows from it is `retention`'s business."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar, Final, Literal

from ckptvcs.domain.policy_values import (
    STRICT,
    BadValue,
    Compared,
    check_at_least,
    check_positive,
    described,
)
from ckptvcs.domain.when import SPANS, span


@dataclass(frozen=True, kw_only=True)
class KeepBest(Compared):
    """Those whose metric is best."""

    n: int = field(default=1, metadata=described("how many of them"))

    def __post_init__(self) -> None:
        """Check what types cannot say.

        Raises:
            BadValue: a value cannot be used.
        """
        super().__post_init__()
        check_at_least("n", self.n, 1)


@dataclass(frozen=True, kw_only=True)
class Keep:
    """Rules for some branches and tracks. They add to each other: a checkpoint is kept that at least one of them keeps."""

    __pydantic_config__: ClassVar[Any] = STRICT

    branches: tuple[str, ...] = field(
        default=("*",),
        metadata=described(
            "patterns of the branches that these rules are about, such as `main` or `exp/*`; a `*` stands for any text"
        ),
    )
    tracks: tuple[str, ...] = field(default=("*",), metadata=described("patterns of the tracks that they are about"))
    keep_last: int | None = field(default=None, metadata=described("so many of the newest of each line"))
    keep_best: KeepBest | None = field(default=None, metadata=described("the best of each line by a metric"))
    keep_every_n_steps: int | None = field(default=None, metadata=described("those at multiples of so many steps"))
    keep_every: str | None = field(
        default=None,
        metadata=described("the first of each line in each such span of time, such as `1h`, `1d` or `1w`, in UTC"),
    )
    keep_within: str | None = field(default=None, metadata=described("those that are younger than that"))
    components: tuple[str, ...] = field(
        default=(),
        metadata=described("these rules keep these components alone, by name or role; all of them, if none is named"),
    )
    ttl: str | None = field(
        default=None, metadata=described("these rules keep nothing that is older than that; others may")
    )
    max_bytes: str | None = field(
        default=None,
        metadata=described(
            "these rules keep at most so many bytes of each line, such as `200GB` or `1.5TiB`: the oldest go first"
        ),
    )

    def __post_init__(self) -> None:
        """Check what types cannot say.

        Raises:
            BadValue: a value cannot be used.
        """
        check_positive("keep_last", self.keep_last)
        check_positive("keep_every_n_steps", self.keep_every_n_steps)
        if not any((self.keep_last, self.keep_best, self.keep_every_n_steps, self.keep_every, self.keep_within)):
            raise BadValue("keep_last", "there is no rule: say keep_last, keep_best, keep_every... or keep_within")
        for key in ("keep_every", "keep_within", "ttl"):
            check_span(key, getattr(self, key))
        for key in ("branches", "tracks"):
            if not all(getattr(self, key)) or not getattr(self, key):
                raise BadValue(key, "a pattern cannot be empty; '*' means all")
        check_size("max_bytes", self.max_bytes)


@dataclass(frozen=True, kw_only=True)
class TierLimits:
    """How many bytes a tier may hold of checkpoints that rules keep: beyond it the oldest go first, the floor never."""

    __pydantic_config__: ClassVar[Any] = STRICT

    hot: str | None = field(
        default=None,
        metadata=described(
            "of the local cache, such as `200GB`: beyond it local copies go whose objects are all in a warm remote; "
            "where there is no warm remote, checkpoints themselves"
        ),
    )
    warm: str | None = field(
        default=None, metadata=described("of a warm remote, such as `5TB`: beyond it checkpoints are dropped")
    )

    def __post_init__(self) -> None:
        """Check what types cannot say.

        Raises:
            BadValue: a value cannot be used.
        """
        for key in ("hot", "warm"):
            check_size(key, getattr(self, key))


@dataclass(frozen=True, kw_only=True)
class Retain:
    """What is kept. Without it, everything is."""

    __pydantic_config__: ClassVar[Any] = STRICT

    keep: tuple[Keep, ...] = field(
        metadata=described("sets of rules, each for some branches and tracks; what one rule of one set keeps is kept")
    )
    keep_marked: Literal[True] = field(
        default=True, metadata=described("marks keep what they name; it is there to be read, and cannot be turned off")
    )
    grace: str = field(
        default="7d",
        metadata=described(
            "how long what nothing keeps any more is condemned before it is swept; at a remote at least 24 hours"
        ),
    )
    trash: str = field(
        default="14d",
        metadata=described("how long what was swept from a remote can still be brought back; `0d`: not at all"),
    )
    max_bytes: TierLimits = field(
        default_factory=TierLimits,
        metadata=described("how many bytes a tier may hold of what rules keep; the oldest go first, the floor never"),
    )
    shared_with: tuple[str, ...] | None = field(
        default=None,
        metadata=described(
            "other repositories that use the same cache or remotes, by path or git URL: what they need stays. Those that push "
            "to a remote are known there; for a cache outside of `.dvc` this has to be said, `[]` if there is none"
        ),
    )
    eval_deadline: str | None = field(
        default=None,
        metadata=described(
            "how long a checkpoint is kept in any case while a metric that rules compare is not known of it"
        ),
    )

    def __post_init__(self) -> None:
        """Check what types cannot say.

        Raises:
            BadValue: a value cannot be used.
        """
        if not self.keep:
            raise BadValue("keep", "there is no rule; leave 'retain' out to keep everything")
        for key in ("grace", "eval_deadline"):
            check_span(key, getattr(self, key))
        if self.trash != "0d":
            check_span("trash", self.trash)


_SIZE: Final = re.compile(r"(\d{1,15}(?:\.\d{1,6})?) ?([kMGTP]i?)?B\Z")
_FACTORS: Final = {"": 0, "k": 1, "M": 2, "G": 3, "T": 4, "P": 5}


def size(text: str) -> int | None:
    """How many bytes `500MB`, `1.5TiB` or `800B` are; None for anything else."""
    found = _SIZE.match(text)
    if found is None:
        return None
    unit = found[2] or ""
    base = 1024 if unit.endswith("i") else 1000
    return int(float(found[1]) * base ** _FACTORS[unit.removesuffix("i")])


def check_size(key: str, text: str | None) -> None:
    """Raise `BadValue` unless a text is a size, if there is one."""
    if text is not None and size(text) is None:
        raise BadValue(key, f"'{text}' is no size: write 500MB, 200GB or 1.5TiB")


def seconds(text: str) -> float:
    """How long a span of a policy is, which was checked."""
    found = span(text)
    assert found is not None
    return found.total_seconds()


def check_span(key: str, text: str | None) -> None:
    """Raise `BadValue` unless a text is a span of time, if there is one."""
    if text is None:
        return
    try:
        found = span(text)
    except OverflowError:
        found = None
    if found is None or found <= timedelta(0):
        none = ", and 0d keeps no trash" if key == "trash" else ""
        raise BadValue(key, f"'{text}' is no span of time: write {SPANS}; 1min is the smallest{none}")
