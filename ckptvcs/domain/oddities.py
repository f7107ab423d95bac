"""What is odd about a policy of retention: it is valid, and does something else than whoever wrote it may think."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from ckptvcs.domain import quotas
from ckptvcs.domain.keeping import seconds, size
from ckptvcs.domain.remote_files import GRACE_S
from ckptvcs.domain.retention import kept_components
from ckptvcs.domain.rules import RULES, Rule, named
from ckptvcs.paths import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ckptvcs.domain.checkpoint import CheckpointId
    from ckptvcs.domain.keeping import Keep, Retain
    from ckptvcs.domain.reasons import Line, View
    from ckptvcs.domain.retention import Decision


def oddities(retain: Retain, view: View, decided: Mapping[CheckpointId, Decision]) -> Iterator[str]:
    """Everything that is odd, in words that begin with a key of `ckpt.yaml`.

    Args:
        retain: the policy.
        view: the checkpoints, with their objects.
        decided: what the policy makes of them.
    """
    floor = {
        i: kept_components(view.members[i], floored)
        for i, one in decided.items()
        if (floored := [reason for reason in one.reasons if reason.floor])
    }
    for place, keep in enumerate(retain.keep):
        key = f"retain.keep.{place}"
        yield from _spans(key, keep)
        if view.lines:
            yield from _fitting(key, keep, view, floor)
    if view.has_warm and seconds(retain.grace) < GRACE_S:
        yield f"retain.grace: at remotes what is condemned waits 24 h in any case, not {retain.grace}"
    limit = quotas.limit_of(retain, has_warm=view.has_warm)
    if limit is not None:
        yield from _below_floor(limit[1], limit[0], _nbytes(view, floor, floor), "what is always kept")


def _spans(key: str, keep: Keep) -> Iterator[str]:
    if keep.ttl is not None and keep.keep_within is not None and seconds(keep.ttl) < seconds(keep.keep_within):
        yield f"{key}.ttl: {keep.ttl} is shorter than keep_within, {keep.keep_within}, which then keeps no more than that"


def _fitting(key: str, keep: Keep, view: View, floor: Mapping[CheckpointId, frozenset[str]]) -> Iterator[str]:
    for pattern in keep.branches:
        if not any(fnmatchcase(line.branch, pattern) for line in view.lines):
            yield f"{key}.branches: no branch that has checkpoints fits '{printable(pattern)}'"
    for pattern in keep.tracks:
        if not any(fnmatchcase(line.track, pattern) for line in view.lines):
            yield f"{key}.tracks: no track fits '{printable(pattern)}'"
    lines = [line for line in view.lines if _rule_of(keep).fits(line)]
    members = [view.members[identifier] for line in lines for identifier in line.members]
    if not members:
        return
    best = keep.keep_best
    if best is not None and not any(best.monitor in member.metrics for member in members):
        yield f"{key}.keep_best: no checkpoint that it is about has the metric '{printable(best.monitor)}'"
    known = {name for member in members for pair in member.components.items() for name in pair}
    for name in keep.components:
        if name not in known:
            yield f"{key}.components: no checkpoint that it is about has a component or role '{printable(name)}'"
    yield from _full_lines(key, keep, lines, view, floor)


def _rule_of(keep: Keep) -> Rule:
    kind = next(kind for kind in RULES if getattr(keep, kind) is not None)
    return Rule(source="", kind=kind, place=0, keep=keep)


def _full_lines(
    key: str, keep: Keep, lines: Iterable[Line], view: View, floor: Mapping[CheckpointId, frozenset[str]]
) -> Iterator[str]:
    limit = size(keep.max_bytes) if keep.max_bytes is not None else None
    if limit is None:
        return
    part = {i: _part(view.members[i].components, keep, floor[i]) for i in floor.keys() & view.members.keys()}
    needed = {line: _nbytes(view, (i for i in line.members if i in part), part) for line in lines}
    if needed:
        line = max(needed, key=lambda one: (needed[one], str(one)))
        yield from _below_floor(f"{key}.max_bytes", limit, needed[line], f"what is always kept of {line}")


def _part(components: Mapping[str, str], keep: Keep, needed: frozenset[str]) -> frozenset[str]:
    """What rules would keep of what is needed in any case."""
    return needed.intersection(named(components, keep.components)) if keep.components else needed


def _below_floor(key: str, limit: int, needed: int, what: str) -> Iterator[str]:
    if needed > limit:
        yield f"{key}: {limit} bytes have no room for {printable(what)}, {needed} bytes: so these rules keep nothing else"


def _nbytes(view: View, ids: Iterable[CheckpointId], kept: Mapping[CheckpointId, frozenset[str]]) -> int:
    """Bytes of the objects of some checkpoints, each once."""
    assert view.objects is not None
    found: dict[object, int] = {}
    for identifier in ids:
        found.update(view.objects(identifier, kept[identifier]) if kept[identifier] else ())
    return sum(found.values())
