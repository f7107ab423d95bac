"""In which order checkpoints that lie around became, and which run each belongs to. No clock, no file is looked at.

By step; what has none goes behind what has the same or an earlier epoch, else behind what is of the same or an earlier date.
Never by the order of names as text: `step-1000` is not before `step-200`.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

Parts = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When a checkpoint became, as far as it is known."""

    step: int | None
    epoch: int | float | None
    date: float
    """Seconds since the epoch."""
    name: str


def natural(name: str) -> tuple[tuple[str | int, ...], str]:
    """A key that sorts numbers in names as numbers."""
    parts = re.split(r"([0-9]+)", name)
    return tuple(int(part) if n % 2 else part for n, part in enumerate(parts)), name


def in_order(moments: Sequence[Moment]) -> list[int]:
    """The places in `moments`, the earliest first; the order that they are given in does not matter."""
    by_name = sorted(range(len(moments)), key=lambda n: natural(moments[n].name))
    by_date = sorted(by_name, key=lambda n: moments[n].date)
    by_epoch = sorted(by_date, key=lambda n: -1 if (epoch := moments[n].epoch) is None else epoch)
    line = sorted((n for n in by_epoch if moments[n].step is not None), key=lambda n: moments[n].step or 0)
    with_epoch = [n for n in by_epoch if moments[n].step is None and moments[n].epoch is not None]
    line = _woven(moments, line, with_epoch, lambda m: m.epoch)
    rest = [n for n in by_date if moments[n].step is None and moments[n].epoch is None]
    return _woven(moments, line, rest, lambda _: None)


def _woven(
    moments: Sequence[Moment], line: list[int], others: list[int], measure: Callable[[Moment], float | None]
) -> list[int]:
    """The others put into a line, each behind the last one that it does not come before; among themselves as they are."""
    behind: dict[int, list[int]] = {}
    place = 0
    for n in others:
        place = max(place, _place(moments, line, moments[n], measure))
        behind.setdefault(place, []).append(n)
    return [n for at in range(len(line) + 1) for n in (*line[at - 1 : at], *behind.get(at, ()))]


def _place(moments: Sequence[Moment], line: list[int], one: Moment, measure: Callable[[Moment], float | None]) -> int:
    """How many of a line come before it."""
    own = measure(one)
    known = [(at, value) for at, n in enumerate(line) if (value := measure(moments[n])) is not None]
    if own is None or not known:
        own, known = one.date, [(at, moments[n].date) for at, n in enumerate(line)]
    return max((at + 1 for at, value in known if value <= own), default=0)


def precedes(one: Moment, other: Moment) -> bool:
    """Whether a checkpoint is older than another, by the first thing that is known of both."""
    if one.step is not None and other.step is not None:
        return one.step < other.step
    if one.epoch is not None and other.epoch is not None:
        return one.epoch < other.epoch
    return one.date < other.date


# ---------------------------------------------------------------------------------------------------------------- runs

_TELLS_NOTHING: Final = re.compile(
    r"(?:checkpoints?|ckpts?|weights|models?|saved_models?|snapshots?|states?|lightning_logs|\.|/)\Z", re.IGNORECASE
)
_NUMBERED: Final = re.compile(r"(?:version|ver|v|run|trial|seed|fold|rank|exp|try)?[-_]?\d+\Z", re.IGNORECASE)
_ROOT: Final = "imported"
"""The run of what lies in the root of a repository, whose name is not that of a training."""
_MAX_NAME: Final = 100
"""Bytes; git keeps branches as files."""


def run_names(folders: Iterable[Parts]) -> Mapping[Parts, str]:
    """The run of each folder that holds checkpoints: its name; where that tells nothing, or not enough, with those above.

    `exp-a/checkpoints` is `exp-a`, `exp-a/lightning_logs/version_0/checkpoints` is `exp-a-version_0`.

    Args:
        folders: the parts of their paths, from the root of the repository or of the file system.
    """
    telling = {folder: _telling(folder) for folder in folders}
    depth = dict.fromkeys(telling, 1)
    while True:
        names = {folder: _joined(parts, depth[folder]) for folder, parts in telling.items()}
        shared = {name for name, count in Counter(names.values()).items() if count > 1}
        deeper = [f for f, name in names.items() if name in shared and depth[f] < len(telling[f])]
        if not deeper:
            return _numbered(names)
        for folder in deeper:
            depth[folder] += 1


def _telling(folder: Parts) -> list[Parts]:
    """The parts of a path that tell something, the last one first; a number goes with what is before it."""
    parts = [part for part in folder if not _TELLS_NOTHING.match(part)] or [*folder[-1:]]
    groups: list[Parts] = []
    tail: Parts = ()
    for part in reversed(parts):
        tail = (part, *tail)
        if not _NUMBERED.match(part):
            groups.append(tail)
            tail = ()
    return [*groups, tail] if tail else groups


def _joined(groups: list[Parts], depth: int) -> str:
    parts = [part for group in reversed(groups[:depth]) for part in group]
    name = re.sub(r"[^\w.+-]+", "-", "-".join(parts))
    name = re.sub(r"\.{2,}", ".", name).encode()[-_MAX_NAME:].decode(errors="ignore").strip("-.")
    name = name.removesuffix(".lock").strip("-.") or _ROOT
    return f"run-{name}" if name in ("HEAD", "latest", "best") else name


def _numbered(names: Mapping[Parts, str]) -> dict[Parts, str]:
    """The names, with a number where two are still the same."""
    found: dict[Parts, str] = {}
    for folder in sorted(names):
        name, number = names[folder], 1
        while name in found.values():
            number += 1
            name = f"{names[folder]}-{number}"
        found[folder] = name
    return found
