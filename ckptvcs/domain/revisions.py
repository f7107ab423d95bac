"""Revision expressions: how they parse. What they mean is looked up by `porcelain.checkpoints`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from ckptvcs.errors import UsageError
from ckptvcs.paths import printable


@dataclass(frozen=True, slots=True)
class Plain:
    """Whatever git knows, or the beginning of a checkpoint id."""

    text: str


@dataclass(frozen=True, slots=True)
class Latest:
    """`BRANCH@latest`: the newest checkpoint of a branch; None is the branch that is checked out."""

    branch: str | None


@dataclass(frozen=True, slots=True)
class Best:
    """`BRANCH@best` or `BRANCH@best:METRIC`."""

    branch: str | None
    metric: str | None


@dataclass(frozen=True, slots=True)
class AtStep:
    """`BRANCH@step:N`: the newest checkpoint of a branch with that step."""

    branch: str | None
    step: int


Revision = Plain | Latest | Best | AtStep
Mode = Literal["min", "max"]

_SELECTOR: Final = re.compile(r"(?P<branch>.*)@(?P<kind>latest|best|step)(?::(?P<value>.*))?\Z", re.DOTALL)


def parse(text: str) -> Revision:
    """Parse a revision expression.

    Raises:
        UsageError: it begins like one of ours and does not end like one.
    """
    match = _SELECTOR.match(text)
    if match is None:
        if not text:
            raise UsageError("the revision is empty", next_step="write HEAD for what is checked out")
        return Plain(text)
    branch, kind, value = match["branch"] or None, match["kind"], match["value"]
    if kind == "step":
        if value is None or not value.isascii() or not value.isdigit() or len(value) > 18:
            raise _malformed(text, "a step is a number: BRANCH@step:1200")
        return AtStep(branch, int(value))
    if kind == "latest":
        if value is not None:
            raise _malformed(text, "nothing may follow '@latest'")
        return Latest(branch)
    if value == "":
        raise _malformed(text, "a metric is missing: BRANCH@best:val_loss")
    return Best(branch, value)


def _malformed(text: str, why: str) -> UsageError:
    return UsageError(
        f"cannot read revision '{printable(text)}'",
        why=why,
        next_step="write BRANCH@latest, BRANCH@best, BRANCH@best:METRIC or BRANCH@step:N",
    )


_MINIMISED: Final = (
    "loss",
    "error",
    "err",
    "perplexity",
    "ppl",
    "mae",
    "mse",
    "rmse",
    "wer",
    "cer",
    "nll",
    "fid",
    "regret",
)
_MAXIMISED: Final = (
    "acc",
    "accuracy",
    "auc",
    "auroc",
    "f1",
    "bleu",
    "rouge",
    "reward",
    "return",
    "precision",
    "recall",
    "map",
    "iou",
    "miou",
    "dice",
    "r2",
    "score",
    "psnr",
    "ssim",
)


def mode_of(metric: str) -> Mode | None:
    """Whether less or more of a metric is better, as far as its name tells: `val_loss` is `min`, `top1_acc` is `max`."""
    words = re.split(r"[^a-z0-9]+", metric.lower())
    if any(word in _MINIMISED for word in words):
        return "min"
    return "max" if any(word in _MAXIMISED or word.removesuffix("1") in _MAXIMISED for word in words) else None
