"""What somebody has to know: growth, a place that fills, work that could be lost, restores that take long, proofs too old.

Pure: facts and limits in, alerts out. How the facts are found, and who is told, is for others.
"""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from ckptvcs.domain.keeping import seconds, size
from ckptvcs.paths import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ckptvcs.domain.alerting import Alerts, Growth, Quota

KINDS: Final = ("growth", "quota", "save", "restore", "push", "proof", "place", "collection")
"""Every kind of alert there is."""

_DAY_S: Final = 86400.0
_SHORTEST_S: Final = _DAY_S
"""Growth is never reckoned over less: what a new repository saves in its first hour is no rate."""

Severity = Literal["warning", "critical"]
"""What will be wrong before long; what is wrong now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One thing that somebody has to know."""

    kind: str
    severity: Severity
    what: str
    next_step: str
    value: float
    """What was found, in bytes or seconds."""
    limit: float
    """What it is compared with, in the same unit; 0 where there is nothing to compare."""
    facts: Mapping[str, Any] = field(default_factory=dict)


# --------------------------------------------------------------------------------------------------------------- facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """What is in a place."""

    place: str
    nbytes: int
    objects: int
    added: Mapping[float, int] = field(default_factory=dict)
    """Net bytes that came in the last so many seconds, for each period that is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunUnderWay:
    """A training that began and has not told of its end."""

    run: str
    branch: str
    began: float
    newest: float | None
    """When its newest checkpoint was saved that training goes on from; None if there is none here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """How long a checkpoint took to come back."""

    checkpoint: str
    by: str
    time: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """A golden mark, and what is known of its restores."""

    tag: str
    checkpoint: str
    since: float
    """When it was made."""
    proved: float | None = None
    """When it was last proved to restore."""
    failed: float | None = None
    """When a proof last failed, if none has succeeded since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that alerts are made of. Times are seconds since the epoch."""

    now: float
    oldest: float | None = None
    """When the oldest checkpoint was saved; None if there is none."""
    added: Mapping[float, int] = field(default_factory=dict)
    """Bytes that checkpoints added in the last so many seconds, each object once, for each period that is asked for."""
    places: Sequence[Filled] = ()
    silent: Mapping[str, str] = field(default_factory=dict)
    """Places that do not answer, and why."""
    runs: Sequence[RunUnderWay] = ()
    restored: Restored | None = None
    """The last restore that told how long it took."""
    unpushed: Sequence[tuple[str, float]] = ()
    """Checkpoints that are in no warm remote, and when they were saved."""
    golden: Sequence[Golden] = ()


def periods(wanted: Alerts | None) -> tuple[float, ...]:
    """The periods, in seconds, over which growth has to be known."""
    sections = (wanted.growth, wanted.quota) if wanted is not None else ()
    return tuple(sorted({seconds(section.period) for section in sections if section is not None}))


def rate(added: int, period_s: float, *, age_s: float) -> float:
    """Bytes a second, at which something has grown.

    Args:
        added: net bytes that came in the period.
        period_s: how long that is; more than 0.
        age_s: how long there has been anything. What is younger than the period grew in less time, but never reckoned over
            less than a day.
    """
    return max(0, added) / min(period_s, max(age_s, _SHORTEST_S))


def full_in_s(nbytes: int, limit: int, rate: float) -> float:
    """Seconds until a place is full, if it goes on as it did: `(limit - nbytes) / rate`.

    It is the straight line through the bytes of now with the mean slope of the period: the forecast that `df` histories and
    the rule "disk will fill in N hours" of Prometheus (`predict_linear`) make, but with the mean instead of a regression.
    Checkpoints come in steps, at known times, so there is no noise for a regression to take out.

    Args:
        nbytes: what is there now.
        limit: what there is room for.
        rate: bytes a second; not negative.

    Returns:
        0 where it is full; infinity where nothing is added.
    """
    left = limit - nbytes
    if left <= 0:
        return 0.0
    return left / rate if rate > 0 else math.inf


# --------------------------------------------------------------------------------------------------------------- rules


def found(facts: Facts, wanted: Alerts | None) -> tuple[Alert, ...]:
    """Everything that somebody wants to be told, the worst first.

    Args:
        facts: what is.
        wanted: what is wanted; without it nothing is.
    """
    if wanted is None:
        return ()
    alerts = [
        *(_growth(facts, wanted.growth) if wanted.growth is not None else ()),
        *(_quota(facts, wanted.quota) if wanted.quota is not None else ()),
        *(_save(facts, seconds(wanted.save_within)) if wanted.save_within is not None else ()),
        *(_restore(facts, seconds(wanted.restore_within)) if wanted.restore_within is not None else ()),
        *(_push(facts, seconds(wanted.push_within)) if wanted.push_within is not None else ()),
        *(_proof(facts, seconds(wanted.proof_within)) if wanted.proof_within is not None else ()),
        *_silent(facts),
    ]
    return tuple(sorted(alerts, key=lambda one: (one.severity != "critical", KINDS.index(one.kind), one.what)))


def _growth(facts: Facts, wanted: Growth) -> Iterator[Alert]:
    limit, added = bytes_of(wanted.max_bytes), facts.added.get(seconds(wanted.period), 0)
    if added > limit:
        yield Alert(
            kind="growth",
            severity="warning",
            what=f"checkpoints added {bytes_text(added)} in {wanted.period}, more than {wanted.max_bytes}",
            next_step="save less often, or less at a time: 'ckpt policy calibrate' proposes an interval",
            value=added,
            limit=limit,
            facts={"period": wanted.period},
        )


def forecast(facts: Facts, wanted: Quota) -> Iterator[tuple[Filled, int, float]]:
    """Each place that has a limit and answers, its limit, and in how many seconds it is full."""
    period_s = seconds(wanted.period)
    age_s = facts.now - facts.oldest if facts.oldest is not None else 0.0
    for filled in facts.places:
        if filled.place in wanted.places:
            limit = bytes_of(wanted.places[filled.place])
            speed = rate(filled.added.get(period_s, 0), period_s, age_s=age_s)
            yield filled, limit, full_in_s(filled.nbytes, limit, speed)


def _quota(facts: Facts, wanted: Quota) -> Iterator[Alert]:
    for filled, limit, left_s in forecast(facts, wanted):
        if left_s <= seconds(wanted.within):
            when = f"will be full in {span_text(left_s)}, at the growth of the last {wanted.period}"
            yield Alert(
                kind="quota",
                severity="warning" if left_s else "critical",
                what=f"place '{printable(filled.place)}' {when if left_s else 'is full'}: "
                f"{bytes_text(filled.nbytes)} of {bytes_text(limit)}",
                next_step="keep less ('ckpt policy simulate' tells what a policy frees), or give it more room",
                value=filled.nbytes,
                limit=limit,
                facts={"place": filled.place, "full_in_s": left_s, "period": wanted.period},
            )


def at_risk_s(run: RunUnderWay, now: float) -> float:
    """Seconds of work that a run would lose if it failed now: since its last save, else since it began."""
    return max(0.0, now - max(run.began, run.newest if run.newest is not None else run.began))


def _save(facts: Facts, limit: float) -> Iterator[Alert]:
    for run in facts.runs:
        lost = at_risk_s(run, facts.now)
        if lost > limit:
            yield Alert(
                kind="save",
                severity="critical",
                what=f"run '{printable(run.run)}' has saved nothing to go on from for {span_text(lost)}, "
                f"more than {span_text(limit)}",
                next_step="look whether it still runs: a run that failed tells of no end, and is taken for under way until "
                "it is started again",
                value=lost,
                limit=limit,
                facts={"run": run.run, "branch": run.branch},
            )


def _restore(facts: Facts, limit: float) -> Iterator[Alert]:
    last = facts.restored
    if last is not None and last.seconds > limit:
        yield Alert(
            kind="restore",
            severity="warning",
            what=f"the last {last.by} took {span_text(last.seconds)}, longer than {span_text(limit)}",
            next_step="keep what has to come back soon in the cache or in a warm remote that is near",
            value=last.seconds,
            limit=limit,
            facts={"checkpoint": last.checkpoint, "by": last.by},
        )


def _push(facts: Facts, limit: float) -> Iterator[Alert]:
    late = sorted((time, checkpoint) for checkpoint, time in facts.unpushed if facts.now - time > limit)
    if late:
        age = facts.now - late[0][0]
        some = f"{len(late)} checkpoints are" if len(late) > 1 else "a checkpoint is"
        yield Alert(
            kind="push",
            severity="warning",
            what=f"{some} in no warm remote, for up to {span_text(age)}, longer than {span_text(limit)}",
            next_step="run 'ckpt push --all'",
            value=age,
            limit=limit,
            facts={"checkpoints": [checkpoint for _, checkpoint in late[:20]], "count": len(late)},
        )


def _proof(facts: Facts, limit: float) -> Iterator[Alert]:
    for mark in facts.golden:
        known = {"tag": mark.tag, "checkpoint": mark.checkpoint}
        age = facts.now - (mark.proved if mark.proved is not None else mark.since)
        if mark.failed is not None:
            yield Alert(
                kind="proof",
                severity="critical",
                what=f"golden mark '{printable(mark.tag)}' could not be proved to restore, "
                f"{span_text(facts.now - mark.failed)} ago",
                next_step=f"run 'ckpt doctor' and 'ckpt restore {_quoted(mark.tag)} --to DIR', and mend what is damaged",
                value=facts.now - mark.failed,
                limit=limit,
                facts=known,
            )
        elif age > limit:
            never = "has never been proved to restore" if mark.proved is None else "was last proved to restore"
            when = f"and is {span_text(age)} old" if mark.proved is None else f"{span_text(age)} ago"
            yield Alert(
                kind="proof",
                severity="warning",
                what=f"golden mark '{printable(mark.tag)}' {never} {when}; the limit is {span_text(limit)}",
                next_step=f"restore it somewhere and look at it: ckpt restore {_quoted(mark.tag)} --to DIR",
                value=age,
                limit=limit,
                facts=known,
            )


def _silent(facts: Facts) -> Iterator[Alert]:
    for place, why in facts.silent.items():
        yield Alert(
            kind="place",
            severity="critical",
            what=f"place '{printable(place)}' does not answer: {printable(why)}",
            next_step=f"run 'ckpt remote show {_quoted(place)}', and look at its address and credentials",
            value=0.0,
            limit=0.0,
            facts={"place": place},
        )


# --------------------------------------------------------------------------------------------------------------- words


def bytes_of(text: str) -> int:
    """How many bytes a size of a policy is, which was checked."""
    found = size(text)
    assert found is not None
    return found


def bytes_text(nbytes: float) -> str:
    """Bytes for people, with decimal units as disks have."""
    for unit, factor in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= factor:
            return f"{nbytes / factor:.1f} {unit}"
    return f"{nbytes:.0f} B"


def _quoted(name: str) -> str:
    """A name from outside, in a command that somebody may copy."""
    return shlex.quote(printable(name))


def span_text(length_s: float) -> str:
    """A span of time for people: of its largest unit at least two."""
    for unit, factor in (("days", _DAY_S), ("h", 3600.0), ("min", 60.0)):
        if length_s >= 2 * factor:
            return f"{length_s / factor:.3g} {unit}"
    return f"{length_s:.3g} s"
