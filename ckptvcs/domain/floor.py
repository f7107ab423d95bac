"""The floor of retention: what is kept whatever the policy says."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ckptvcs.domain.keeping import seconds
from ckptvcs.domain.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from ckptvcs.domain.checkpoint import CheckpointId
    from ckptvcs.domain.keeping import Retain
    from ckptvcs.domain.reasons import Line, View
    from ckptvcs.domain.revisions import Mode
    from ckptvcs.domain.rules import Rule

DEADLINE = "retain.eval_deadline"


def reasons(
    view: View, retain: Retain, rules: Sequence[Rule], *, now: float, without: Collection[str] = ()
) -> Iterator[tuple[CheckpointId, Reason]]:
    """Every reason that no rule can take away.

    Args:
        view: the checkpoints.
        retain: the policy, for its deadline.
        rules: what it compares counts for the best.
        now: seconds since the epoch.
        without: sources that are taken for gone.
    """
    yield from _pinned(view)
    for line in view.lines:
        yield from _newest(view, line)
        for (monitor, mode), sources in _compared(view, rules, line).items():
            best = _best(view, line, monitor, mode)
            if best is not None:
                ends = [[line.source], sources] if sources else [[line.source]]
                yield best, _needed("best", f"the best {monitor} of {line}", ends)
    yield from _bases(view)
    if retain.eval_deadline is not None and DEADLINE not in without:
        yield from _unevaluated(view, rules, now - seconds(retain.eval_deadline))


def _needed(kind: str, text: str, ends: Iterable[Iterable[str]]) -> Reason:
    groups = tuple(sorted({tuple(sorted(set(group))) for group in ends}))
    return Reason(floor=True, kind=kind, text=text, ends=groups)


def _pinned(view: View) -> Iterator[tuple[CheckpointId, Reason]]:
    for identifier, pins in view.pins.items():
        if identifier in view.members:
            for pin in pins:
                yield identifier, _needed(pin.kind, pin.text, [[pin.source]] if pin.source else [])


def _newest(view: View, line: Line) -> Iterator[tuple[CheckpointId, Reason]]:
    for identifier in line.members[:1]:
        yield identifier, _needed("newest", f"the newest of {line}", [[line.source]])
    for identifier in (i for i in line.members if view.members[i].complete):
        yield identifier, _needed("newest", f"the newest of {line} that training goes on from", [[line.source]])
        return


def _bases(view: View) -> Iterator[tuple[CheckpointId, Reason]]:
    """Where lines fork: what more than one checkpoint follows, along branches or as what it was trained on from."""
    first: dict[CheckpointId, CheckpointId] = {}
    bases: dict[CheckpointId, set[CheckpointId]] = {}
    for base, follower in _followed(view):
        one = first.setdefault(base, follower)  # nearly all of very many have one follower
        if one != follower and base in view.members:
            bases.setdefault(base, {one}).add(follower)
    because = _branches_between(view, bases)
    for base, found in bases.items():
        branches = sorted({branch for one in found for branch in because[base, one]})
        text = f"{len(found)} checkpoints were trained on from it, on {_listed(branches)}"
        ends = [
            [f"branch {branch}" for other in found if other != one for branch in because[base, other]] for one in found
        ]
        yield base, _needed("fork", text, ends)


def _followed(view: View) -> Iterator[tuple[CheckpointId, CheckpointId]]:
    """What follows what."""
    for line in view.lines:
        yield from zip(line.members[1:], line.members, strict=False)
    for identifier in {identifier for line in view.lines for identifier in line.members}:
        for parent in view.members[identifier].parents:
            yield parent, identifier


def _branches_between(
    view: View, bases: Mapping[CheckpointId, Collection[CheckpointId]]
) -> dict[tuple[CheckpointId, CheckpointId], set[str]]:
    """The branches because of which a checkpoint follows its base."""
    found = {(base, one): set[str]() for base, some in bases.items() for one in some}
    of: dict[CheckpointId, set[str]] = {one: set() for _, one in found}
    for line in view.lines:
        for newer, older in zip(line.members, line.members[1:], strict=False):
            if (older, newer) in found:
                found[older, newer].add(line.branch)
        for one in of.keys() & set(line.members):
            of[one].add(line.branch)
    for (base, one), branches in found.items():
        if base in view.members[one].parents:
            branches.update(of[one])
    return found


def _listed(branches: Sequence[str]) -> str:
    shown = ", ".join(f"'{branch}'" for branch in branches[:3])
    return f"{shown} and {len(branches) - 3} more" if len(branches) > 3 else shown


def _compared(view: View, rules: Sequence[Rule], line: Line) -> dict[tuple[str, Mode], list[str]]:
    """The metrics by which a line has a best checkpoint, and what says so."""
    found: dict[tuple[str, Mode], list[str]] = {compared: [] for compared in view.compared}
    for rule in rules:
        if rule.best is None or not rule.fits(line):
            continue
        compared = (rule.best.monitor, rule.best.direction)
        if compared not in view.compared:  # else it is compared without that rule as well
            found.setdefault(compared, []).append(rule.source)
    return found


def _best(view: View, line: Line, monitor: str, mode: Mode) -> CheckpointId | None:
    """The one that `@best` means: of equals the newest."""
    sign = 1.0 if mode == "min" else -1.0
    best, found = math.inf, None
    for identifier in line.members:  # the newest first, so that it stays the one of equals
        value = view.members[identifier].metrics.get(monitor)
        if value is not None and sign * value < best and math.isfinite(value):
            best, found = sign * value, identifier
    return found


def _unevaluated(view: View, rules: Sequence[Rule], since: float) -> Iterator[tuple[CheckpointId, Reason]]:
    for line in view.lines:
        for monitors, sources in _awaited(view, rules, line):
            what = f"its {monitors[0]} is" if len(monitors) == 1 else f"none of {', '.join(monitors)} is"
            ends = [[DEADLINE], [line.source], *([sources] if sources else [])]
            reason = _needed("evaluation", f"{what} not known yet, and may come", ends)
            for identifier in line.members:
                member = view.members[identifier]
                if member.time > since and member.metrics.keys().isdisjoint(monitors):
                    yield identifier, reason


def _awaited(view: View, rules: Sequence[Rule], line: Line) -> Iterator[tuple[list[str], list[str]]]:
    """Metrics of which one has to be known, and the rules that say so; no rule where it is so without one.

    Of the usual names one is enough: nobody said that a training knows all of them.
    """
    said = [monitor for monitor, _ in view.compared]
    by_rule: dict[str, list[str]] = {}
    for rule in rules:
        if rule.best is not None and rule.fits(line):
            by_rule.setdefault(rule.best.monitor, []).append(rule.source)
    if view.says_best:
        yield from (([monitor], []) for monitor in said)
        by_rule = {monitor: sources for monitor, sources in by_rule.items() if monitor not in said}
    elif said:
        yield said, []
    yield from (([monitor], sources) for monitor, sources in by_rule.items())
