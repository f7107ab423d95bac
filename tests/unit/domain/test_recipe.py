"""A recipe: what is not said has its default, what makes no sense is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ckptvcs.domain.recipe import Recipe
from ckptvcs.errors import UsageError


@pytest.mark.parametrize(
    ("said", "count", "plain"),
    [
        ({}, 3, {"method": "mean"}),
        ({"weights": [1, 2.5]}, 2, {"method": "weighted", "weights": [1, 2.5]}),
        ({"weights": (3, -1)}, 2, {"method": "weighted", "weights": [3, -1]}),
        ({"method": "ema", "decay": 0.5}, 4, {"method": "ema", "decay": 0.5}),
        ({"method": "slerp"}, 2, {"method": "slerp", "t": 0.5}),
        ({"method": "slerp", "t": 0}, 2, {"method": "slerp", "t": 0}),
        ({"method": "ties"}, 3, {"method": "ties", "density": 0.2, "lambda": 1.0}),
        ({"method": "ties", "density": 1, "scale": 0.3}, 2, {"method": "ties", "density": 1, "lambda": 0.3}),
    ],
)
def test_what_is_not_said_has_its_default(said: dict[str, Any], count: int, plain: dict[str, Any]):
    assert Recipe(**said).completed(count).plain() == plain


@pytest.mark.parametrize(
    ("said", "count", "problem"),
    [
        ({}, 1, "one checkpoint cannot be merged"),
        ({"method": "median"}, 2, "no method 'median'"),
        ({"method": "mean", "weights": [1, 2]}, 2, "method 'mean' takes no --weights"),
        ({"method": "mean", "t": 0.5}, 2, "method 'mean' takes no --t"),
        ({"method": "slerp", "scale": 1.0}, 2, "method 'slerp' takes no --lambda"),
        ({"method": "weighted"}, 2, "method 'weighted' needs --weights"),
        ({"method": "ema"}, 2, "method 'ema' needs --decay"),
        ({"weights": [1, 2, 3]}, 2, "3 weights do not fit 2 checkpoints"),
        ({"weights": [1, -1]}, 2, "the weights cannot be 1, -1"),
        ({"weights": [1, math.nan]}, 2, "the weights cannot be 1, nan"),
        ({"method": "ema", "decay": 1.5}, 2, "--decay cannot be 1.5"),
        ({"method": "slerp", "t": math.nan}, 2, "--t cannot be nan"),
        ({"method": "slerp"}, 3, "slerp cannot merge 3 checkpoints"),
        ({"method": "ties", "density": 0.0}, 2, "--density cannot be 0.0"),
        ({"method": "ties", "scale": math.inf}, 2, "--lambda cannot be inf"),
        ({"rest": "last"}, 2, "'last' cannot become of the rest"),
    ],
)
def test_what_makes_no_sense_is_refused(said: dict[str, Any], count: int, problem: str):
    with pytest.raises(UsageError, match=problem) as caught:
        Recipe(**said).completed(count)

    assert caught.value.why
    assert caught.value.next_step
