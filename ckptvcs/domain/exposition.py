"""Numbers in the text format of Prometheus, version 0.0.4: what its `node_exporter` reads from a file, and what it scrapes.

The format: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One number."""

    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """Numbers of one name, all of them gauges: what is now."""

    name: str
    what: str
    samples: tuple[Sample, ...]


def text_of(metrics: Iterable[Metric], *, labels: Mapping[str, str] | None = None) -> str:
    """The text. A metric without numbers is left out.

    Args:
        metrics: each name once, and in it each set of labels once.
        labels: what every number has, besides its own.

    Raises:
        ValueError: a name or label cannot be one.
    """
    return "".join(_lines(metric, labels or {}) for metric in metrics if metric.samples)


def _lines(metric: Metric, labels: Mapping[str, str]) -> str:
    if not _NAME.match(metric.name):
        raise ValueError(f"'{metric.name}' cannot be the name of a metric")
    head = [f"# HELP {metric.name} {_escaped(metric.what)}", f"# TYPE {metric.name} gauge"]
    numbers = [f"{metric.name}{_labels({**labels, **one.labels})} {_number(one.value)}" for one in metric.samples]
    return "\n".join([*head, *numbers]) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    for name in labels:
        if not _LABEL.match(name) or name.startswith("__"):
            raise ValueError(f"'{name}' cannot be the name of a label")
    quoted = ",".join(f'{name}="{_quoted(value)}"' for name, value in labels.items())
    return f"{{{quoted}}}" if quoted else ""


def _escaped(text: str) -> str:
    return _utf8(text).replace("\\", r"\\").replace("\n", r"\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', r"\"")


def _utf8(text: str) -> str:
    """A name of git that is no UTF-8 has lone surrogates in Python, which no stream of UTF-8 can say."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\r", " ")


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if float(value).is_integer() else repr(float(value))
