"""How good a checkpoint of Lightning is: its `ModelCheckpoint` callbacks know the score of each of their files."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.formats.leaf import Leaf

if TYPE_CHECKING:
    from collections.abc import Iterator

_NUMBERS: Final = {"F32": "<f", "F64": "<d", "F16": "<e", "I64": "<q", "I32": "<i"}


def scores_of(state: dict[Any, Any], name: str) -> dict[str, Any]:
    """The metrics that were monitored, as they were for the file of that name, and the name of the best file.

    Args:
        state: of the whole file.
        name: of the file, as Lightning wrote it; a file that was renamed has no scores.
    """
    facts: dict[str, Any] = {"metrics": {}}
    for monitor, scores, best in _callbacks(state):
        if best:
            facts["best"] = best
        for path, score in dict.items(scores):
            number = _number(score)
            if type(path) is str and _last(path) == name and number is not None and math.isfinite(number):
                facts["metrics"][monitor] = number
    return facts


def _callbacks(state: dict[Any, Any]) -> Iterator[tuple[str, dict[Any, Any], str]]:
    callbacks = dict.get(state, "callbacks")
    for callback in dict.values(callbacks) if isinstance(callbacks, dict) else ():
        if not isinstance(callback, dict):
            continue
        monitor, scores = dict.get(callback, "monitor"), dict.get(callback, "best_k_models")
        best = dict.get(callback, "best_model_path")
        if type(monitor) is str and isinstance(scores, dict):
            yield monitor, scores, best if type(best) is str else ""


def _last(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]


def _number(score: Any) -> int | float | None:
    if isinstance(score, Leaf) and score.shape == () and score.dtype in _NUMBERS:
        number: int | float = struct.unpack(_NUMBERS[score.dtype], bytes(memoryview(score.read())))[0]
        return number
    return score if type(score) in (int, float) else None
