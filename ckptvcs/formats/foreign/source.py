"""What a user hands to `commit`, read: a state, and what else came with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.formats import numpy_values
from ckptvcs.formats.leaf import Leaf

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


def is_neutral_leaf(value: Any) -> bool:
    """Whether a value of a neutral state is a tensor or an array."""
    return isinstance(value, Leaf)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A state that was read."""

    format: str
    name: str
    """Of the file or folder, without its path."""
    state: Any
    """Neutral (containers, leaves, stand-ins), unless `adapt` and `is_leaf` are torch's."""
    adapt: Callable[[Any], Any] = numpy_values.adapt
    is_leaf: Callable[[Any], bool] = is_neutral_leaf
    files: Mapping[str, Path] = field(default_factory=dict)
    """Files kept as they are: path in the artifact (component first) -> where they lie."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What the header of the file said beside its tensors."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """`step`, `epoch`, `metrics`, `params`, as far as the format says them; `best`: the checkpoint that was best so far."""
    notes: tuple[str, ...] = ()
    """What the user should know about how it was read."""
    watched: tuple[Path, ...] = ()
    """Files whose bytes the state still looks at: if one changes now, the state does."""


MAX_COUNT: Final = 1 << 63
"""What counts something has fewer digits, and not every reader of a manifest has larger integers."""

_STEP_KEYS: Final = ("step", "global_step", "iteration", "iter", "num_updates")


def facts_of(state: Any) -> dict[str, Any]:
    """What a state says about itself at its top level: step, epoch, metrics, hyperparameters."""
    if not isinstance(state, dict):
        return {}
    facts: dict[str, Any] = {}
    said = {key: dict.get(state, key) for key in (*_STEP_KEYS, "epoch", "metrics", "hyper_parameters")}
    step = next((said[key] for key in _STEP_KEYS if type(said[key]) is int), None)
    if step is not None and 0 <= step < MAX_COUNT:
        facts["step"] = step
    if type(said["epoch"]) is int and abs(said["epoch"]) < MAX_COUNT:
        facts["epoch"] = said["epoch"]
    facts["metrics"] = _plain(said["metrics"], (int, float))
    facts["params"] = _plain(said["hyper_parameters"], (int, float, str, bool))
    return facts


def _plain(values: Any, types: tuple[type, ...]) -> dict[str, Any]:
    if not isinstance(values, dict):
        return {}
    items = [(key, value) for key, value in dict.items(values) if type(key) is str and type(value) in types]
    return {key: value for key, value in items if type(value) is not int or abs(value) < MAX_COUNT}
