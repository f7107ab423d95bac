"""How checkpoints are merged, as the user says it: a method and the numbers that it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from ckptvcs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

MethodName = Literal["mean", "weighted", "ema", "slerp", "ties"]
METHODS: Final[tuple[MethodName, ...]] = ("mean", "weighted", "ema", "slerp", "ties")
Rest = Literal["none", "first"]
RESTS: Final[tuple[Rest, ...]] = ("none", "first")

# Number -> the method that takes it, and its default (None: it has to be given).
_NUMBERS: Final[dict[str, tuple[MethodName, Any]]] = {
    "weights": ("weighted", None),
    "decay": ("ema", None),
    "t": ("slerp", 0.5),
    "base": ("ties", ""),
    "density": ("ties", 0.2),
    "scale": ("ties", 1.0),
}
_OPTIONS: Final = {"scale": "--lambda"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What the user said; None where it was not said."""

    method: MethodName | None = None
    """`mean`; `weighted` if there are weights."""
    weights: Sequence[float] | None = None
    """One for each checkpoint. They are divided by their sum."""
    decay: float | None = None
    """Of `ema`: how much of the average stays when the next checkpoint comes in; from 0 to 1."""
    t: float | None = None
    """Of `slerp`: 0 is the first checkpoint, 1 the second."""
    base: str | None = None
    """Of `ties`: the revision that the others were tuned from; the nearest common ancestor if it is not given."""
    density: float | None = None
    """Of `ties`: the share of each task vector that stays; above 0, at most 1."""
    scale: float | None = None
    """Of `ties`: by how much the merged task vector is multiplied (the lambda of the paper)."""
    components: Sequence[str] = ()
    """Names or roles of the components that are merged; every model and average of weights if it is empty."""
    rest: Rest = "none"
    """What becomes of the other components: left out, or taken from the first checkpoint."""

    def completed(self, count: int) -> Recipe:
        """The recipe for so many checkpoints, with every number that its method takes.

        Raises:
            UsageError: it makes no sense.
        """
        method = self.method or ("weighted" if self.weights else "mean")
        if method not in METHODS:
            raise _wrong(f"no method '{method}'", f"there are {', '.join(METHODS)}", "name one of them")
        values: dict[str, Any] = {}
        for name, (owner, default) in _NUMBERS.items():
            given = getattr(self, name)
            option = _OPTIONS.get(name, f"--{name}")
            if owner != method and given is not None:
                raise _wrong(
                    f"method '{method}' takes no {option}",
                    f"it is for '{owner}'",
                    f"leave it out, or say --method {owner}",
                )
            if owner == method and given is None and default is None:
                raise _wrong(
                    f"method '{method}' needs {option}", "there is no default that fits everybody", f"give {option}"
                )
            values[name] = (default if given is None else given) if owner == method else None
        whole = Recipe(method=method, components=tuple(self.components), rest=self.rest, **values)
        whole.check(count)
        return whole

    def check(self, count: int) -> None:
        """Raise `UsageError` if a number is out of its range."""
        if count < 2:
            raise _wrong("one checkpoint cannot be merged", "a merge is of two or more", "name another one")
        if self.rest not in RESTS:
            raise _wrong(
                f"'{self.rest}' cannot become of the rest", f"there are {', '.join(RESTS)}", "name one of them"
            )
        if self.method == "slerp" and count != 2:
            raise _wrong(
                f"slerp cannot merge {count} checkpoints", "it goes from one to another", "name two, or use 'mean'"
            )
        if self.weights is not None:
            _check_weights(self.weights, count)
        for option, value, low, high in (
            ("--decay", self.decay, 0.0, 1.0),
            ("--t", self.t, 0.0, 1.0),
            ("--density", self.density, math.ulp(0.0), 1.0),
            ("--lambda", self.scale, -math.inf, math.inf),
        ):
            if value is not None and not (math.isfinite(value) and low <= value <= high):
                said = "finite" if high == math.inf else f"{'above 0 and at most 1' if low else 'from 0 to 1'}"
                raise _wrong(f"{option} cannot be {value}", f"it is a number {said}", "give one")

    def plain(self) -> dict[str, Any]:
        """What to write down of a completed recipe, beside the checkpoints: the method and its numbers."""
        names = {"weights": "weights", "decay": "decay", "t": "t", "density": "density", "scale": "lambda"}
        values = {text: getattr(self, name) for name, text in names.items()}
        said = {text: list(v) if isinstance(v, (list, tuple)) else v for text, v in values.items() if v is not None}
        return {"method": self.method, **said}


def _check_weights(weights: Sequence[float], count: int) -> None:
    if len(weights) != count:
        raise _wrong(
            f"{len(weights)} weights do not fit {count} checkpoints", "each has one", "give as many as there are"
        )
    if not all(map(math.isfinite, weights)) or not math.fsum(weights) > 0:
        raise _wrong(
            f"the weights cannot be {', '.join(map(str, weights))}",
            "they are finite and their sum, by which they are divided, is above 0",
            "give others",
        )


def _wrong(what: str, why: str, next_step: str) -> UsageError:
    return UsageError(what, why=why, next_step=next_step)
