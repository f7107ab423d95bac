"""The rules of a policy: what each of them keeps of a line of checkpoints."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from ckptvcs.domain import quotas
from ckptvcs.domain.keeping import seconds, size
from ckptvcs.domain.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ckptvcs.domain.checkpoint import CheckpointId
    from ckptvcs.domain.keeping import Keep, KeepBest, Retain
    from ckptvcs.domain.reasons import Line, View

RULES = ("keep_last", "keep_best", "keep_every_n_steps", "keep_every", "keep_within")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of one entry of `retain.keep`."""

    source: str
    """Its key, such as `retain.keep.0.keep_last`."""
    kind: str
    place: int
    """Which entry it is of."""
    keep: Keep

    @property
    def best(self) -> KeepBest | None:
        """What it compares."""
        return self.keep.keep_best if self.kind == "keep_best" else None

    def fits(self, line: Line) -> bool:
        """Whether it is about a line."""
        return _fits(line.branch, self.keep.branches) and _fits(line.track, self.keep.tracks)


def compiled(retain: Retain) -> tuple[Rule, ...]:
    """Every rule of a policy."""
    return tuple(
        Rule(source=f"retain.keep.{place}.{kind}", kind=kind, place=place, keep=keep)
        for place, keep in enumerate(retain.keep)
        for kind in RULES
        if getattr(keep, kind) is not None
    )


def kept_of(
    line: Line, view: View, rules: Sequence[Rule], needed: Mapping[CheckpointId, frozenset[str]], *, now: float
) -> Iterator[tuple[CheckpointId, Reason, str | None]]:
    """What rules keep of a line.

    Args:
        line: the line.
        view: where its checkpoints are known.
        rules: those of a policy; what is not about the line keeps nothing.
        needed: the components of checkpoints that are kept in any case, which count where there is a limit of bytes.
        now: seconds since the epoch.

    Yields:
        The checkpoint, the reason, and the limit that overrules it, if one does.
    """
    fitting = [rule for rule in rules if rule.fits(line)]
    for place in sorted({rule.place for rule in fitting}):
        some = [rule for rule in fitting if rule.place == place]
        found = [one for rule in some for one in _kept_by(rule, line, view, now)]
        over = _over_limit(some[0], line, view, found, needed)
        limit = f"retain.keep.{place}.max_bytes"
        yield from ((i, reason, limit if i in over else None) for i, reason in found)


def _kept_by(rule: Rule, line: Line, view: View, now: float) -> Iterator[tuple[CheckpointId, Reason]]:
    since = -math.inf if rule.keep.ttl is None else now - seconds(rule.keep.ttl)
    ids, text = _chosen(rule, line, view, now)
    cache: dict[tuple[str, ...], Reason] = {}  # most checkpoints of a line have the same components
    for identifier in ids:
        member = view.members[identifier]
        components = named(member.components, rule.keep.components)
        if member.time > since and (components or not rule.keep.components):
            if components not in cache:
                cache[components] = Reason(
                    floor=False,
                    kind=rule.kind,
                    text=f"{text} of {line}",
                    components=components,
                    ends=((line.source,), (rule.source,)),
                )
            yield identifier, cache[components]


def _over_limit(
    rule: Rule,
    line: Line,
    view: View,
    found: Sequence[tuple[CheckpointId, Reason]],
    needed: Mapping[CheckpointId, frozenset[str]],
) -> set[CheckpointId]:
    """Those of a line that the limit of its rules has no room for: the oldest. What else is needed of it takes no room."""
    if rule.keep.max_bytes is None:
        return set()
    limit = size(rule.keep.max_bytes)
    assert limit is not None  # checked when the policy was read
    kept: dict[CheckpointId, frozenset[str]] = {}
    for identifier, reason in found:
        components = frozenset(reason.components or view.members[identifier].components)
        kept[identifier] = kept.get(identifier, frozenset()) | components
    oldest = [identifier for identifier in reversed(line.members) if identifier in kept]
    fixed = {identifier: kept[identifier] & needed[identifier] for identifier in kept.keys() & needed.keys()}
    return set(quotas.too_many(view.sized(), oldest, kept, fixed, limit=limit))


def named(components: Mapping[str, str], wanted: Sequence[str]) -> tuple[str, ...]:
    """The components that have one of the wanted names or roles."""
    if not wanted:
        return ()
    return tuple(sorted(name for name, role in components.items() if name in wanted or role in wanted))


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _chosen(rule: Rule, line: Line, view: View, now: float) -> tuple[Sequence[CheckpointId], str]:
    """The checkpoints that a rule keeps, whatever their age, and why."""
    keep, members = rule.keep, view.members
    if rule.kind == "keep_last" and keep.keep_last is not None:
        return line.members[: keep.keep_last], f"one of the newest {keep.keep_last}"
    if rule.kind == "keep_best" and (best := keep.keep_best) is not None:
        return _ranked(view, line, best), f"one of the best {best.n} by {best.monitor}"
    if rule.kind == "keep_every_n_steps" and (every := keep.keep_every_n_steps) is not None:
        steps = ((i, members[i].step) for i in line.members)
        return [i for i, step in steps if step is not None and step % every == 0], f"at a multiple of {every} steps"
    if rule.kind == "keep_every" and keep.keep_every is not None:
        return _first_of_each(view, line, seconds(keep.keep_every)), f"the first of its {keep.keep_every}"
    assert keep.keep_within is not None
    since = now - seconds(keep.keep_within)
    return [i for i in line.members if members[i].time > since], f"younger than {keep.keep_within}"


def _ranked(view: View, line: Line, best: KeepBest) -> list[CheckpointId]:
    """The best few. What has no value, or one that is not finite, does not rank; of equals the id decides."""
    sign = 1.0 if best.direction == "min" else -1.0
    values = ((view.members[i].metrics.get(best.monitor), i) for i in line.members)
    ranked = ((sign * value, i) for value, i in values if value is not None and math.isfinite(value))
    return [identifier for _, identifier in heapq.nsmallest(best.n, ranked)]


def _first_of_each(view: View, line: Line, span: float) -> list[CheckpointId]:
    """The first of each span since the epoch: a newer one never takes its place."""
    first: dict[int, tuple[float, CheckpointId]] = {}
    members = view.members
    for identifier in line.members:
        time = members[identifier].time
        bucket = int(time // span)
        known = first.get(bucket)
        if known is None or (time, identifier) < known:
            first[bucket] = (time, identifier)
    return [identifier for _, identifier in first.values()]
