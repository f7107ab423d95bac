"""What to keep: rules that add to each other, over a floor that no policy goes below. Every decision has its reasons.

All of it is a function of what is given: no order of branches, checkpoints or rules changes it, and no clock. Checkpoints are
ordered by the commit graph along a branch, and by recorded time between spans; of equals, the id decides.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ckptvcs.domain import floor, quotas, rules
from ckptvcs.domain.reasons import Overruled, Reason

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from ckptvcs.domain.checkpoint import CheckpointId
    from ckptvcs.domain.keeping import Retain
    from ckptvcs.domain.reasons import Member, View

Components = frozenset[str]


@dataclass(frozen=True, slots=True)
class Decision:
    """What is made of one checkpoint."""

    reasons: tuple[Reason, ...] = ()
    """Why it is kept; none if it is dropped."""
    overruled: tuple[Overruled, ...] = ()
    """What would keep it, if it were not for a limit of bytes."""


@dataclass(slots=True)
class _Found:
    reasons: set[Reason] = field(default_factory=set)
    overruled: set[Overruled] = field(default_factory=set)

    def decision(self) -> Decision:
        return Decision(tuple(sorted(self.reasons)), tuple(sorted(self.overruled)))


_NOTHING: Final = Decision()


def decide(
    view: View, retain: Retain | None, *, now: float, without: Collection[str] = ()
) -> dict[CheckpointId, Decision]:
    """Why each checkpoint is kept; one without a reason is dropped.

    Args:
        view: the checkpoints, and who needs them.
        retain: the policy; without one, everything is kept.
        now: seconds since the epoch.
        without: sources of reasons that are taken for gone: what would follow if somebody removed them.
    """
    if retain is None:
        everything = Decision((Reason(floor=False, kind="no policy", text="ckpt.yaml has no section 'retain'"),))
        return dict.fromkeys(view.members, everything)
    view = view.without(without)
    compiled = [rule for rule in rules.compiled(retain) if rule.source not in without]
    found: defaultdict[CheckpointId, _Found] = defaultdict(_Found)
    for identifier, reason in floor.reasons(view, retain, compiled, now=now, without=without):
        found[identifier].reasons.add(reason)
    needed = {i: kept_components(view.members[i], one.reasons) for i, one in found.items() if one.reasons}
    for line in view.lines:
        for identifier, reason, by in rules.kept_of(line, view, compiled, needed, now=now):
            if by is None:
                found[identifier].reasons.add(reason)
            else:
                found[identifier].overruled.add(Overruled(reason=reason, by=by))
    decided = {i: found[i].decision() if i in found else _NOTHING for i in view.members}
    limit = quotas.limit_of(retain, has_warm=view.has_warm)
    return decided if limit is None else _within(decided, view, *limit)


def _within(decided: dict[CheckpointId, Decision], view: View, limit: int, source: str) -> dict[CheckpointId, Decision]:
    """The same without what a limit of all bytes has no room for: the oldest go first, the floor never."""
    kept = {i: kept_components(view.members[i], one.reasons) for i, one in decided.items() if one.reasons}
    fixed = {
        i: kept_components(view.members[i], floored)
        for i, one in decided.items()
        if (floored := [reason for reason in one.reasons if reason.floor])
    }
    oldest = sorted(kept, key=lambda i: (view.members[i].time, i))
    for identifier in quotas.too_many(view.sized(), oldest, kept, fixed, limit=limit):
        one = decided[identifier]
        lost = [reason for reason in one.reasons if not reason.floor]
        decided[identifier] = Decision(
            tuple(reason for reason in one.reasons if reason.floor),
            tuple(sorted({*one.overruled, *(Overruled(reason=reason, by=source) for reason in lost)})),
        )
    return decided


def kept_components(member: Member, reasons: Iterable[Reason]) -> Components:
    """The components of a checkpoint that at least one reason keeps."""
    found: set[str] = set()
    for reason in reasons:
        if not reason.components:
            return frozenset(member.components)
        found.update(reason.components)
    return frozenset(found)
