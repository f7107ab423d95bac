"""What to keep: rules that add to each other, over a floor that no policy goes below. Every decision has its reasons.

All of it is a function of what is given: no order of branches, checkpoints or rules changes it, and no clock. Checkpoints are
ordered by the commit graph along a branch, and by recorded time between spans; of equals, the id decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from ckptvcs.domain.checkpoint import CheckpointId
from ckptvcs.domain.keeping import seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ckptvcs.domain.keeping import Keep, KeepBest, Retain

Components = frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A checkpoint, as far as retention looks at it."""

    id: CheckpointId
    time: float
    """When it was saved, in seconds since the epoch."""
    step: int | None
    metrics: Mapping[str, float]
    """Those that are numbers."""
    components: Mapping[str, str]
    """The role of each of its components, by name."""
    parents: tuple[CheckpointId, ...] = ()
    """What it was trained on from."""
    complete: bool = True
    """Whether training goes on from it by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The checkpoints of one track along a branch, newest first."""

    branch: str
    track: str
    members: tuple[CheckpointId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """Why somebody needs a checkpoint, whatever rules say: a mark, a hold, a stage, a job that goes on from it."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Everything that retention decides by."""

    members: Mapping[CheckpointId, Member]
    lines: Sequence[Line]
    pins: Mapping[CheckpointId, Sequence[Pin]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Reason:
    """Why a checkpoint is kept."""

    floor: bool
    """Whether no policy can change it."""
    kind: str
    text: str
    components: tuple[str, ...] = ()
    """The components that it keeps; none if it keeps all of them."""


Reasons = dict[CheckpointId, set[Reason]]


def decide(view: View, retain: Retain | None, *, now: float) -> dict[CheckpointId, tuple[Reason, ...]]:
    """Why each checkpoint is kept; one without a reason is not.

    Args:
        view: the checkpoints, and who needs them.
        retain: the policy; without one, everything is kept.
        now: seconds since the epoch.
    """
    found: Reasons = {identifier: set() for identifier in view.members}
    if retain is None:
        everything = Reason(floor=False, kind="no policy", text="ckpt.yaml has no section 'retain'")
        return dict.fromkeys(found, (everything,))
    for identifier, reason in _floor(view, retain, now):
        found[identifier].add(reason)
    for line in view.lines:
        for rules in retain.keep:
            if _fits(line.branch, rules.branches) and _fits(line.track, rules.tracks):
                for identifier, reason in _kept_by(rules, line, view, now):
                    found[identifier].add(reason)
    return {identifier: tuple(sorted(reasons, reverse=True)) for identifier, reasons in found.items()}


def kept_components(member: Member, reasons: Iterable[Reason]) -> Components:
    """The components of a checkpoint that at least one reason keeps."""
    found: set[str] = set()
    for reason in reasons:
        found |= set(reason.components) or set(member.components)
    return frozenset(found)


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


# ------------------------------------------------------------------------------------------------------------ the floor


def _floor(view: View, retain: Retain, now: float) -> Iterator[tuple[CheckpointId, Reason]]:
    """What no policy goes below."""
    for identifier, pins in view.pins.items():
        if identifier in view.members:
            yield from ((identifier, _needed(pin.kind, pin.text)) for pin in pins)
    for line in view.lines:
        yield from _newest(view, line)
    yield from _bases(view)
    for best, line in _compared(view, retain):
        for identifier in _ranked(view, line, best)[:1]:
            yield identifier, _needed("best", f"the best {best.monitor} of {_name(line)}")
    if retain.eval_deadline is not None:
        yield from _unevaluated(view, retain, now - seconds(retain.eval_deadline))


def _needed(kind: str, text: str) -> Reason:
    return Reason(floor=True, kind=kind, text=text)


def _name(line: Line) -> str:
    return f"branch '{line.branch}', track '{line.track}'"


def _newest(view: View, line: Line) -> Iterator[tuple[CheckpointId, Reason]]:
    for identifier in line.members[:1]:
        yield identifier, _needed("newest", f"the newest of {_name(line)}")
    for identifier in (i for i in line.members if view.members[i].complete):
        yield identifier, _needed("newest", f"the newest of {_name(line)} that training goes on from")
        return


def _bases(view: View) -> Iterator[tuple[CheckpointId, Reason]]:
    """Where lines fork: what more than one checkpoint follows, along branches or as what it was trained on from."""
    followers: dict[CheckpointId, set[CheckpointId]] = {}
    for line in view.lines:
        for newer, older in zip(line.members, line.members[1:], strict=False):
            followers.setdefault(older, set()).add(newer)
    for member in view.members.values():
        for parent in member.parents:
            followers.setdefault(parent, set()).add(member.id)
    for identifier, found in followers.items():
        if len(found) > 1 and identifier in view.members:
            yield identifier, _needed("fork", f"{len(found)} checkpoints were trained on from it")


def _compared(view: View, retain: Retain) -> Iterator[tuple[KeepBest, Line]]:
    for line in view.lines:
        for rules in retain.keep:
            if rules.keep_best is not None and _fits(line.branch, rules.branches) and _fits(line.track, rules.tracks):
                yield rules.keep_best, line


def _unevaluated(view: View, retain: Retain, since: float) -> Iterator[tuple[CheckpointId, Reason]]:
    for best, line in _compared(view, retain):
        for identifier in line.members:
            member = view.members[identifier]
            if best.monitor not in member.metrics and member.time > since:
                yield identifier, _needed("evaluation", f"its {best.monitor} is not known yet")


# ------------------------------------------------------------------------------------------------------------ the rules


def _kept_by(rules: Keep, line: Line, view: View, now: float) -> Iterator[tuple[CheckpointId, Reason]]:
    """What one set of rules keeps of a line."""
    since = -math.inf if rules.ttl is None else now - seconds(rules.ttl)
    for identifier, kind, text in _each_rule(rules, line, view, now):
        member = view.members[identifier]
        components = _named(member, rules.components)
        if member.time > since and (components or not rules.components):
            yield identifier, Reason(floor=False, kind=kind, text=f"{text} of {_name(line)}", components=components)


def _named(member: Member, wanted: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(name for name, role in member.components.items() if name in wanted or role in wanted))


def _each_rule(rules: Keep, line: Line, view: View, now: float) -> Iterator[tuple[CheckpointId, str, str]]:
    if rules.keep_last is not None:
        text = f"one of the newest {rules.keep_last}"
        yield from ((i, "keep_last", text) for i in line.members[: rules.keep_last])
    if rules.keep_best is not None:
        text = f"one of the best {rules.keep_best.n} by {rules.keep_best.monitor}"
        yield from ((i, "keep_best", text) for i in _ranked(view, line, rules.keep_best)[: rules.keep_best.n])
    if (every := rules.keep_every_n_steps) is not None:
        steps = ((i, view.members[i].step) for i in line.members)
        text = f"at a multiple of {every} steps"
        yield from ((i, "keep_every_n_steps", text) for i, step in steps if step is not None and step % every == 0)
    if rules.keep_every is not None:
        text = f"the first of its {rules.keep_every}"
        yield from ((i, "keep_every", text) for i in _first_of_each(view, line, seconds(rules.keep_every)))
    if rules.keep_within is not None:
        since = now - seconds(rules.keep_within)
        text = f"younger than {rules.keep_within}"
        yield from ((i, "keep_within", text) for i in line.members if view.members[i].time > since)


def _ranked(view: View, line: Line, best: KeepBest) -> list[CheckpointId]:
    """The best first. What has no value, or one that is not finite, does not rank; of equals the newest, then the id."""
    sign = 1.0 if best.direction == "min" else -1.0
    values = ((view.members[i].metrics.get(best.monitor), place, i) for place, i in enumerate(line.members))
    ranked = sorted(
        (sign * value, place, i) for value, place, i in values if value is not None and math.isfinite(value)
    )
    return [identifier for _, _, identifier in ranked]


def _first_of_each(view: View, line: Line, span: float) -> list[CheckpointId]:
    """The first of each span since the epoch: a newer one never takes its place."""
    first: dict[int, tuple[float, CheckpointId]] = {}
    for identifier in line.members:
        member = view.members[identifier]
        bucket = int(member.time // span)
        first[bucket] = min(first.get(bucket, (member.time, identifier)), (member.time, identifier))
    return [identifier for _, identifier in first.values()]
