"""What the ledger tells that alerts are made of: runs, restores, proofs, what was swept; nonsense counts for nothing."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from ckptvcs.domain import recorded
from ckptvcs.domain.events import Event
from ckptvcs.domain.recorded import Recorded

BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)


def told(*entries: tuple[str, dict], hours: float = 1.0) -> Recorded:
    """Entries that were written an hour after each other."""
    events = [
        Event(
            writer="w" * 16,
            n=n + 1,
            prev="",
            time=(BEGIN + timedelta(hours=n * hours)).isoformat(timespec="microseconds"),
            op=op,
            actor="",
            facts=facts,
            seen={},
        )
        for n, (op, facts) in enumerate(entries)
    ]
    return recorded.of_events(events)


def start(run: str, run_id: str, branch: str = "b") -> tuple[str, dict]:
    return "run.start", {"run": run, "run_id": run_id, "branch": branch, "parents": []}


def test_a_run_is_under_way_from_its_start_to_its_end():
    found = told(start("a", "1"), start("b", "2"), ("run.end", {"run_id": "1"}))

    assert [(run.run, run.began) for run in found.runs.values()] == [("b", BEGIN.timestamp() + 3600)]


def test_a_run_that_is_started_again_was_broken_off():
    found = told(start("a", "1"), start("a", "2"), start("a", "3", branch="other"))

    assert sorted(found.runs) == ["2", "3"]


def test_what_began_a_month_ago_is_taken_for_dead():
    found = told(start("a", "1"))
    began = BEGIN.timestamp()

    assert len(found.runs_at(began + 30 * 86400)) == 1
    assert found.runs_at(began + 30 * 86400 + 1) == []


def test_a_proof_takes_back_a_failure_and_no_proof_is_older_than_a_failure():
    bad, good = ("proof", {"checkpoint": "c", "ok": False}), ("proof", {"checkpoint": "c", "ok": True})

    assert told(bad, good).failed == {}
    assert told(good, bad).failed == {"c": BEGIN.timestamp() + 3600}
    assert told(good, bad).proved == {"c": BEGIN.timestamp()}


def test_each_collection_counts_once_for_a_place_however_many_entries_tell_of_it():
    entry = ("sweep", {"run": "r", "place": "hot", "bytes": 100})

    found = told(entry, entry, ("sweep", {"run": "r", "place": "store", "bytes": 7}))

    assert found.swept_since("hot", 0) == 100
    assert found.swept_since("store", 0) == 7
    assert found.swept_since("hot", BEGIN.timestamp() + 9000) == 0


def test_the_last_restore_counts_and_nonsense_for_nothing():
    found = told(
        ("restore.end", {"checkpoint": "a", "by": "restore", "seconds": 5}),
        ("restore.end", {"checkpoint": "b", "by": "export", "seconds": 7.5}),
        ("restore.end", {"checkpoint": "c", "seconds": "long"}),
        ("restore.end", {"checkpoint": "c", "seconds": -1}),
        ("restore.end", {}),
        ("proof", {"checkpoint": 5, "ok": "yes"}),
        ("sweep", {"run": [], "place": {}, "bytes": True}),
        ("run.start", {"run": 1, "run_id": None}),
        ("mark", {}),
    )

    assert found.restored is not None
    assert (found.restored.checkpoint, found.restored.by, found.restored.seconds) == ("b", "export", 7.5)
    assert (found.runs, found.proved, found.failed, found.swept) == ({}, {}, {}, {})
