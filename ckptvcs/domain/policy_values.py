"""What the sections of `ckpt.yaml` are made of: how a key is described, and what types cannot say of a value."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal

from ckptvcs.domain.revisions import Mode, mode_of

STRICT: Final = {"extra": "forbid", "strict": True}
"""For pydantic: no unknown key, no string where a number belongs."""


class BadValue(ValueError):
    """A value that types allow and we cannot use; `key` is where it stands in its section."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(why)
        self.key = key


def described(text: str, *, short: tuple[tuple[bool | str, dict[str, Any] | str | None], ...] = ()) -> dict[str, Any]:
    """What the reference says of a key, and which words are short for which of its values."""
    return {"description": text, "short": short}


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A metric, and which way it gets better: what sections have in common that compare one."""

    __pydantic_config__: ClassVar[Any] = STRICT

    monitor: str = field(metadata=described("the metric"))
    mode: Literal["min", "max"] | None = field(
        default=None, metadata=described("whether less or more of it is better, where its name does not tell")
    )

    def __post_init__(self) -> None:
        """Check what types cannot say.

        Raises:
            BadValue: a value cannot be used.
        """
        if not self.monitor:
            raise BadValue("monitor", "the name of a metric cannot be empty")
        if self.mode is None and mode_of(self.monitor) is None:
            raise BadValue(
                "mode", f"the name '{self.monitor}' does not tell whether less or more is better: say min or max"
            )

    @property
    def direction(self) -> Mode:
        """`mode`, else what the name of the metric tells."""
        found = self.mode or mode_of(self.monitor)
        assert found is not None  # checked when the value was made
        return found


def check_positive(key: str, value: float | None) -> None:
    """Raise `BadValue` unless a value is finite and more than 0, if there is one."""
    if value is not None and not (value > 0 and math.isfinite(value)):
        raise BadValue(key, f"it has to be more than 0, not {value}")


def check_at_least(key: str, value: float, least: int) -> None:
    """Raise `BadValue` unless a value is finite and not less than another."""
    if not (value >= least and math.isfinite(value)):
        raise BadValue(key, f"it has to be at least {least}, not {value}")
