"""What the sections of `ckpt.yaml` are made of: how a key is described, and what types cannot say of a value."""

from __future__ import annotations

import math
from typing import Any, Final

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


def check_positive(key: str, value: float | None) -> None:
    """Raise `BadValue` unless a value is finite and more than 0, if there is one."""
    if value is not None and not (value > 0 and math.isfinite(value)):
        raise BadValue(key, f"it has to be more than 0, not {value}")


def check_at_least(key: str, value: float, least: int) -> None:
    """Raise `BadValue` unless a value is finite and not less than another."""
    if not (value >= least and math.isfinite(value)):
        raise BadValue(key, f"it has to be at least {least}, not {value}")


def check_monitor(monitor: str, mode: Mode | None) -> None:
    """Raise `BadValue` unless a metric has a name, and it is known which way it gets better."""
    if not monitor:
        raise BadValue("monitor", "the name of a metric cannot be empty")
    if mode is None and mode_of(monitor) is None:
        raise BadValue("mode", f"the name '{monitor}' does not tell whether less or more is better: say min or max")


def direction_of(monitor: str, mode: Mode | None) -> Mode:
    """Which way a metric gets better: what is stated, else what its name tells."""
    found = mode or mode_of(monitor)
    assert found is not None  # checked when the value was made
    return found
