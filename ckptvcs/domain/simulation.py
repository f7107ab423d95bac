"""What a policy would have done: it is run over a history, time after time, and what it lets go is gone from then on.

It is the collector of `gc` in short: what is dropped at a look waits its grace, and goes at the first look after that if it is
still dropped then. A use of a checkpoint after it went is what the policy would have lost.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import msgspec

from ckptvcs.domain.keeping import seconds
from ckptvcs.domain.reasons import View
from ckptvcs.domain.retention import decide, kept_components

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from ckptvcs.domain.checkpoint import CheckpointId
    from ckptvcs.domain.keeping import Retain
    from ckptvcs.domain.reasons import Member, Pin

MONTH_S: Final = 30 * 86400.0
GB: Final = 1e9
_LOOKS: Final = 200
"""Times at which a collector looks, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """Somebody needed a checkpoint at a time."""

    time: float
    """Seconds since the epoch."""
    checkpoint: CheckpointId
    what: str
    """How: it was restored, marked, forked..."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A history, with the times at which things became so."""

    view: View
    """All of it, as it is at the end."""
    pinned_at: Mapping[tuple[CheckpointId, str], float]
    """Since when a checkpoint is pinned, by the source of the pin; others were so from the beginning."""
    known_at: Mapping[tuple[CheckpointId, str], float]
    """Since when a metric is known; others were from the beginning."""
    uses: Sequence[Use]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A use that came too late."""

    use: Use
    gone_at: float
    """When the last of what was needed went."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """What a policy would have done."""

    times: tuple[float, ...]
    """When the collector looked, in seconds since the epoch."""
    nbytes: tuple[int, ...]
    """Bytes that were there after each look, objects that several share counted once."""
    gb_months: float
    """Bytes times time, for a price."""
    kept: int
    """Checkpoints that are there at the end, whole or in part."""
    dropped: int
    """Those of which nothing is left."""
    lost: tuple[Lost, ...]

    @property
    def peak(self) -> int:
        """The most bytes at any time."""
        return max(self.nbytes, default=0)


def simulate(past: Past, retain: Retain | None, *, start: float, end: float) -> Simulated:
    """Run a policy over a history.

    Args:
        past: the history; its view has to know objects.
        retain: the policy; without one everything is kept.
        start: from when on the policy is in force, in seconds since the epoch.
        end: until when.
    """
    times = _looks(start, end)
    grace = seconds(retain.grace) if retain is not None else 0.0
    gone: dict[CheckpointId, dict[str, float]] = {}
    condemned: dict[tuple[CheckpointId, str], float] = {}
    sizes, gb_s = list[int](), 0.0
    for number, now in enumerate(times):
        view = _as_of(past, gone, now)
        kept = _kept(view, retain, now)
        for identifier, member in view.members.items():
            for component in set(member.components) - kept[identifier]:
                since = condemned.setdefault((identifier, component), now)
                if now - since >= grace and now > since:
                    gone.setdefault(identifier, {})[component] = now
        condemned = {key: since for key, since in condemned.items() if key[1] not in kept.get(key[0], frozenset())}
        sizes.append(_bytes(view, gone))
        following = times[number + 1] if number + 1 < len(times) else end
        gb_s += sizes[-1] / GB * (following - now)
    last = _as_of(past, gone, end)
    return Simulated(
        times=tuple(times),
        nbytes=tuple(sizes),
        gb_months=gb_s / MONTH_S,
        kept=len(last.members),
        dropped=len(past.view.members) - len(last.members),
        lost=tuple(_lost(past, gone)),
    )


def _looks(start: float, end: float) -> list[float]:
    """Once a day, or as often as there is time for."""
    step = max((end - start) / _LOOKS, 86400.0) if end - start > 86400.0 else max((end - start) / 24, 1.0)
    count = max(int((end - start) // step), 0)
    return [start + step * n for n in range(count + 1)] + [end]


def _as_of(past: Past, gone: Mapping[CheckpointId, Mapping[str, float]], now: float) -> View:
    """The history at a time: what was saved by then and is not gone."""
    members = {}
    for identifier, member in past.view.members.items():
        if member.time <= now and (left := _left(member, gone.get(identifier, {}))):
            metrics = {n: v for n, v in member.metrics.items() if past.known_at.get((identifier, n), 0.0) <= now}
            whole = len(left) == len(member.components)
            members[identifier] = msgspec.structs.replace(
                member, components=left, metrics=metrics, complete=member.complete and whole
            )
    lines = [
        replace(line, members=ids)
        for line in past.view.lines
        if (ids := tuple(i for i in line.members if i in members))
    ]
    pins: dict[CheckpointId, Sequence[Pin]] = {
        i: [pin for pin in pins if past.pinned_at.get((i, pin.source), 0.0) <= now]
        for i, pins in past.view.pins.items()
    }
    return replace(past.view, members=members, lines=lines, pins=pins)


def _left(member: Member, gone: Mapping[str, float]) -> Mapping[str, str]:
    return {name: role for name, role in member.components.items() if name not in gone} if gone else member.components


def _kept(view: View, retain: Retain | None, now: float) -> dict[CheckpointId, frozenset[str]]:
    decided = decide(view, retain, now=now)
    return {identifier: kept_components(view.members[identifier], one.reasons) for identifier, one in decided.items()}


def _bytes(view: View, gone: Mapping[CheckpointId, Mapping[str, float]]) -> int:
    found: dict[Hashable, int] = {}
    objects = view.sized()
    for identifier, member in view.members.items():
        left = _left(member, gone.get(identifier, {}))
        found.update(objects(identifier, left) if left else ())
    return sum(found.values())


def _lost(past: Past, gone: Mapping[CheckpointId, Mapping[str, float]]) -> list[Lost]:
    found = []
    for use in past.uses:
        went = gone.get(use.checkpoint, {})
        if went and min(went.values()) < use.time:
            found.append(Lost(use=use, gone_at=min(went.values())))
    return sorted(found, key=lambda one: (one.use.time, one.use.checkpoint))


# ------------------------------------------------------------------------------------------------- a stated cadence


@dataclass(frozen=True, slots=True, kw_only=True)
class Cadence:
    """A training to come, as far as sizes and times go."""

    every_s: float
    """Between two saves."""
    span_s: float
    """How long it lasts."""
    components: Mapping[str, int]
    """Bytes of each component, by its name, which is also its role."""
    shared: float = 0.0
    """The part of the bytes that never changes, such as frozen layers."""
    steps: int = 1000
    """Between two saves."""


def ahead(cadence: Cadence, *, start: float, branch: str, metric: str = "val_loss") -> Past:
    """A history that a training of that cadence would make.

    Its metric gets better as the square root of time, with a wave on it, so that the best is hardly ever the newest.

    Args:
        cadence: of the training.
        start: when it begins, in seconds since the epoch.
        branch: where it commits to.
        metric: what it measures.
    """
    from ckptvcs.domain.checkpoint import CheckpointId
    from ckptvcs.domain.reasons import Line, Member

    count = max(int(cadence.span_s // cadence.every_s), 1)
    ids = [CheckpointId(f"{number:064x}") for number in range(count)]
    members = {
        identifier: Member(
            id=identifier,
            time=start + cadence.every_s * (number + 1),
            step=cadence.steps * (number + 1),
            metrics={metric: 1 / (1 + number) ** 0.5 + 0.05 * ((number * 7919) % 13) / 13},
            components={name: name for name in cadence.components},
            parents=(ids[number - 1],) if number else (),
        )
        for number, identifier in enumerate(ids)
    }

    def objects(identifier: CheckpointId, components: object) -> list[tuple[Hashable, int]]:
        found: list[tuple[Hashable, int]] = []
        for name, nbytes in cadence.components.items():
            if name in components:  # type: ignore[operator]
                fixed = int(nbytes * cadence.shared)
                found += [((name, "shared"), fixed), ((name, identifier), nbytes - fixed)]
        return found

    line = Line(branch=branch, track="model", members=tuple(reversed(ids)))
    view = View(members=members, lines=(line,), objects=objects, compared=((metric, "min"),))
    return Past(view=view, pinned_at={}, known_at={}, uses=())
