"""What users say of a checkpoint, checked: metrics, steps and parameters, with numbers of any library as Python's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping


def check_metrics(metrics: Mapping[str, Any]) -> dict[str, int | float | str]:
    """Metrics as numbers.

    Raises:
        UsageError: a value is no finite number.
    """
    checked: dict[str, int | float | str] = {}
    for name, value in metrics.items():
        number = _number(value)
        if number is None or not math.isfinite(number):
            raise UsageError(
                f"metric '{name}' cannot be {value!r}",
                why="a metric is a finite number, so that checkpoints can be ranked by it",
                next_step="leave it out, or give the number",
            )
        checked[name] = number
    return checked


def _number(value: Any) -> int | float | None:
    """A Python, NumPy or torch number as a Python one."""
    value = unwrapped(value)
    return value if type(value) in (int, float) else None


def unwrapped(value: Any) -> Any:
    """What a scalar of NumPy, or a tensor of one element, holds; anything else as it is."""
    if isinstance(value, (str, bytes)) or not hasattr(value, "item"):
        return value
    try:
        return value.item()
    except (TypeError, ValueError, RuntimeError):  # it holds several, or is no scalar at all
        return value


def check_numbers(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a commit, with numbers of any library as Python's.

    Raises:
        UsageError: step or a seed is no whole number, or epoch no finite one.
    """
    checked = dict(options)
    if options.get("step") is not None:
        checked["step"] = _whole("step", options["step"])
    if options.get("epoch") is not None:
        epoch = _number(options["epoch"])
        if epoch is None or not math.isfinite(epoch):
            raise UsageError(f"epoch cannot be {options['epoch']!r}", why="it is a finite number", next_step="give one")
        checked["epoch"] = epoch
    if options.get("seeds"):
        checked["seeds"] = {str(name): _whole("a seed", value) for name, value in options["seeds"].items()}
    return checked


def _whole(what: str, value: Any) -> int:
    number = _number(value)
    if type(number) is not int or (what == "step" and number < 0):
        least = " from 0 on" if what == "step" else ""
        raise UsageError(f"{what} cannot be {value!r}", why=f"it is a whole number{least}", next_step="give one")
    return number


_MAX_PARAMS: Final = 100_000
_MAX_DEPTH: Final = 64


def check_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters as values of JSON: what is no such value is written as text.

    Raises:
        UsageError: they are nested without end, or are far too many for a record of a run.
    """
    left = [_MAX_PARAMS]
    return {str(name): _json_value(value, left, depth=1) for name, value in params.items()}


def _json_value(value: Any, left: list[int], *, depth: int) -> Any:
    left[0] -= 1
    if left[0] < 0 or depth > _MAX_DEPTH:
        raise UsageError(
            "cannot record the hyperparameters",
            why=f"they are nested more than {_MAX_DEPTH} deep, or more than {_MAX_PARAMS} values",
            next_step="leave out what is no setting of the run",
        )
    if isinstance(value, dict):
        return {str(key): _json_value(item, left, depth=depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_value(item, left, depth=depth + 1) for item in value]
    value = unwrapped(value)
    if type(value) is float:
        return value if math.isfinite(value) else str(value)
    return value if value is None or type(value) in (bool, int, str) else str(value)
