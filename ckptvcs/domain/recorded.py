"""What entries of the ledger tell that alerts are made of: runs under way, how long restores took, proofs, what was swept.

What an entry says is not trusted to make sense: what we do not understand counts for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.domain import fates
from ckptvcs.domain.alerts import Restored, RunUnderWay
from ckptvcs.domain.moments import finite
from ckptvcs.domain.running import END, LONGEST, START

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ckptvcs.domain.events import Event

RESTORED: Final = "restore.end"
"""The operation of an entry that tells how long it took to give checkpoints out."""
PROOF: Final = "proof"
"""The operation of an entry that tells whether a checkpoint was proved to restore."""
MARK: Final = "mark"

OPS: Final = (START, END, RESTORED, PROOF, MARK, fates.SWEEP)


@dataclass(slots=True)
class Recorded:
    """What was found."""

    runs: dict[str, RunUnderWay] = field(default_factory=dict)
    """By the id of the run: those that began and have not ended. Their saves are not looked at."""
    restored: Restored | None = None
    proved: dict[str, float] = field(default_factory=dict)
    """When each checkpoint was last proved to restore."""
    failed: dict[str, float] = field(default_factory=dict)
    """When each that failed since then did so."""
    marked: dict[str, float] = field(default_factory=dict)
    """When each mark was made, by the name of its tag."""
    swept: dict[tuple[str, str], tuple[float, int]] = field(default_factory=dict)
    """By collection and place: when, and how many bytes went."""

    def runs_at(self, now: float) -> list[RunUnderWay]:
        """Those that may still be under way."""
        return [run for run in self.runs.values() if now - run.began <= LONGEST.total_seconds()]

    def swept_since(self, place: str, since: float) -> int:
        """Bytes that collections took from a place."""
        return sum(nbytes for (_, where), (at, nbytes) in self.swept.items() if where == place and at > since)


def of_events(events: Iterable[Event]) -> Recorded:
    """What entries say, oldest first."""
    found = Recorded()
    for event in events:
        at = _time_of(event)
        if at is not None and event.op in _READERS:
            _READERS[event.op](found, event.facts, at)
    return found


def _time_of(event: Event) -> float | None:
    try:
        return datetime.fromisoformat(event.time).timestamp()
    except ValueError:  # it is of the right form, and there is no such day
        return None


def _text(facts: Mapping[str, Any], key: str) -> str:
    value = facts.get(key)
    return value if isinstance(value, str) else ""


def _started(found: Recorded, facts: Mapping[str, Any], at: float) -> None:
    """A run that is started again was broken off before: the one that is under way is the new one."""
    run, run_id, branch = (_text(facts, key) for key in ("run", "run_id", "branch"))
    if run_id:
        found.runs = {
            key: one for key, one in found.runs.items() if key != run_id and (one.run, one.branch) != (run, branch)
        }
        found.runs[run_id] = RunUnderWay(run=run, branch=branch, began=at, newest=None)


def _ended(found: Recorded, facts: Mapping[str, Any], at: float) -> None:  # noqa: ARG001 - as all of them
    found.runs.pop(_text(facts, "run_id"), None)


def _restored(found: Recorded, facts: Mapping[str, Any], at: float) -> None:
    seconds = finite(facts.get("seconds"))
    if seconds is not None and seconds >= 0:
        found.restored = Restored(
            checkpoint=_text(facts, "checkpoint"), by=_text(facts, "by") or "restore", time=at, seconds=seconds
        )


def _proof(found: Recorded, facts: Mapping[str, Any], at: float) -> None:
    checkpoint, good = _text(facts, "checkpoint"), facts.get("ok")
    if good is True:
        found.proved[checkpoint] = at
        found.failed.pop(checkpoint, None)
    elif good is False:
        found.failed[checkpoint] = at


def _marked(found: Recorded, facts: Mapping[str, Any], at: float) -> None:
    found.marked.setdefault(_text(facts, "name"), at)


def _swept(found: Recorded, facts: Mapping[str, Any], at: float) -> None:
    """Of one collection, each entry about a place says how much went from it in all."""
    nbytes = finite(facts.get("bytes"))
    if nbytes is not None and nbytes >= 0:
        found.swept[_text(facts, "run"), _text(facts, "place")] = (at, int(nbytes))


_READERS: Final = {
    START: _started,
    END: _ended,
    RESTORED: _restored,
    PROOF: _proof,
    MARK: _marked,
    fates.SWEEP: _swept,
}
