"""What a user says of a state that is saved, as values for the record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ckptvcs.errors import UsageError
from ckptvcs.porcelain.user_values import unwrapped


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is said of a state that is saved."""

    step: int | None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """Numbers that say how good it is; NaN is kept as a word and never ranks."""
    epoch: float | None = None
    message: str | None = None
    reason: str = "manual"
    params: Mapping[str, Any] = field(default_factory=dict)
    """Hyperparameters, beside those of the run, which go before."""
    grade_at_most: str | None = None
    """What the grade is at most, where the caller knows that the state is not all there."""


def whole(what: str, value: Any) -> int:
    """A whole number of any library as Python's.

    Raises:
        UsageError: it is none, or is below 0.
    """
    number = unwrapped(value)
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise UsageError(f"{what} cannot be {value!r}", why="it is a whole number from 0 on", next_step="pass an int")
    return number


def mapping_of(what: str, given: Any) -> Mapping[Any, Any]:
    """What may be left out, and else is a mapping.

    Raises:
        UsageError: it is none.
    """
    if given is not None and not isinstance(given, Mapping):
        raise UsageError(
            f"'{what}' cannot be {given!r}", why="it is no mapping of names to values", next_step="pass a dict"
        )
    return given or {}


def versions_of(data: Any) -> dict[str, str]:
    """Names and versions of data sets.

    Raises:
        UsageError: they are no texts.
    """
    versions = dict(mapping_of("data", data))
    for name, version in versions.items():
        if not isinstance(name, str) or not isinstance(version, str):
            raise UsageError(
                f"data set {name!r} cannot have version {version!r}",
                why="names and versions of data sets are texts",
                next_step='pass data={"NAME": "VERSION"}',
            )
    return versions


def metrics_of(given: Any) -> dict[str, int | float | str]:
    """Metrics for the manifest, by name; see `metric`.

    Raises:
        UsageError: they are no mapping of names to numbers.
    """
    metrics = mapping_of("metrics", given)
    for name in metrics:
        if not isinstance(name, str):
            raise UsageError(f"a metric cannot be named {name!r}", why="its name is a text", next_step="name it")
    return {name: metric(name, value) for name, value in metrics.items()}


def metric(name: str, value: Any) -> int | float | str:
    """A metric for the manifest. A diverged run must still be saved, so NaN is no error here; it is kept as a word."""
    value = unwrapped(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UsageError(f"metric '{name}' cannot be {value!r}", why="a metric is a number", next_step="leave it out")
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value
