"""Entries of the ledger: one form only, chained to each other, and what they add up to."""

from __future__ import annotations

import hashlib
import itertools
import json
from typing import Any

import pytest

from ckptvcs.domain import events
from ckptvcs.domain.events import Event, Flaw, Head, Noted
from ckptvcs.errors import BadEntry, NewerVersion

WRITERS = ["aaaaaaaa", "bbbbbbbb", "cccccccc"]
CHECKPOINT = "5" * 64
OTHER = "6" * 64


def at(second: int) -> str:
    return f"2026-11-21T10:00:{second:02d}.000000+00:00"


def event(**changed: Any) -> Event:
    values = {
        "writer": WRITERS[0],
        "n": 1,
        "prev": "",
        "time": at(0),
        "op": "note",
        "actor": "me",
        "facts": {},
        "seen": {},
    }
    return Event(**{**values, **changed})


def chain(writer: str, *said: dict[str, Any], seen: dict[int, dict[str, Any]] | None = None) -> list[bytes]:
    """A chain whose entries are written by hand: only `json` and `hashlib` are asked."""
    entries: list[bytes] = []
    for n, values in enumerate(said, start=1):
        document = {
            "actor": "me",
            "facts": {},
            "format": "ckptvcs-ledger/1",
            "n": n,
            "op": "note",
            "prev": hashlib.sha256(entries[-1]).hexdigest() if entries else "",
            "seen": (seen or {}).get(n, {}),
            "time": at(n),
            "writer": writer,
            **values,
        }
        entries.append((json.dumps(document, sort_keys=True, separators=(",", ":")) + "\n").encode())
    return entries


def note(time: int = 1, checkpoint: str = CHECKPOINT, **metrics: Any) -> dict[str, Any]:
    return {"time": at(time), "facts": {"checkpoint": checkpoint, "metrics": metrics}}


def read(writer: str, entries: list[bytes]) -> list[Event]:
    found, flaw = events.sound(writer, entries)
    assert flaw is None
    return found


# ---------------------------------------------------------------------------------------------------------------- bytes


def test_the_bytes_are_json_on_one_line_with_sorted_keys():
    data = events.to_bytes(event(facts={"b": 1, "a": "ü", "x": {"z": None, "y": 0.5}}))

    document = json.loads(data)
    assert data.decode() == json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
    assert list(document) == ["actor", "facts", "format", "n", "op", "prev", "seen", "time", "writer"]


def test_an_entry_is_read_as_it_was_written():
    written = event(n=2, prev="0" * 64, facts={"x": [1, 2.5, None, True]}, seen={WRITERS[1]: (3, "1" * 64)})

    assert events.from_bytes(events.to_bytes(written), where="x") == written


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"{}",
        b"[]",
        b"null",
        b'{"format":"ckptvcs-ledger/1"}',
        b'{"format":"ckptvcs/1"}',
        b"[" * 100_000,
        b'{"facts":' * 5000 + b"1" + b"}" * 5000,
        events.to_bytes(event())[:-1],
        events.to_bytes(event()) + b"\n",
        events.to_bytes(event()).replace(b",", b", ", 1),
        events.to_bytes(event()).replace(b'"n":1', b'"n":1.0'),
        events.to_bytes(event()).replace(b'"n":1', b'"n":1,"n":1'),
        events.to_bytes(event()).replace(b'"facts":{}', b'"facts":{"a":1e999}'),
        events.to_bytes(event()).replace(b'"facts":{}', b'"facts":{"a":1,"a":2}'),
        events.to_bytes(event()).replace(b'"facts":{}', b'"facts":{},"more":1'),
        events.to_bytes(event(facts={"x": "y" * events.MAX_BYTES})),
    ],
)
def test_what_is_no_entry_is_refused(data: bytes):
    with pytest.raises(BadEntry):
        events.from_bytes(data, where="x")


@pytest.mark.parametrize(
    "changed",
    [
        {"writer": "short"},
        {"writer": "../../../x"},
        {"writer": "A" * 16},
        {"writer": "a" * 65},
        {"n": 0},
        {"n": -1},
        {"n": 1 << 60, "prev": "0" * 64},
        {"prev": "0" * 64},
        {"n": 2},
        {"n": 2, "prev": "xyz"},
        {"time": "yesterday"},
        {"time": "2026-11-21T10:00:00.000000+01:00"},
        {"time": "2026-11-21T10:00:00Z"},
        {"op": ""},
        {"op": "Note"},
        {"op": "rm -rf /"},
        {"op": "a.b.c.d.e"},
        {"actor": "a" * 65},
        {"seen": {WRITERS[0]: (1, "0" * 64)}},
        {"seen": {WRITERS[1]: (0, "0" * 64)}},
        {"seen": {WRITERS[1]: (1, "0")}},
        {"seen": {"..": (1, "0" * 64)}},
        {"seen": {f"{n:016d}": (1, "0" * 64) for n in range(257)}},
    ],
)
def test_a_field_beyond_its_limits_is_refused(changed: dict[str, Any]):
    with pytest.raises(BadEntry):
        events.from_bytes(events.to_bytes(event(**changed)), where="x")


@pytest.mark.parametrize("version", ["ckptvcs-ledger/2", "ckptvcs-ledger/1.1"])
def test_an_entry_of_a_later_version_is_told_as_such(version: str):
    data = b'{"format":"%s","other":[1]}\n' % version.encode()

    with pytest.raises(NewerVersion, match="cannot read entry x of the ledger"):
        events.from_bytes(data, where="x")


def test_facts_that_json_cannot_say_are_words():
    facts = events.facts_of({"a": float("nan"), "b": (1, float("-inf")), "c": "\udcff"})

    assert facts == {"a": "nan", "b": [1, "-inf"], "c": "\\udcff"}


# ---------------------------------------------------------------------------------------------------------------- chain


@pytest.fixture
def chains() -> dict[str, list[bytes]]:
    """Three chains; the first two have seen each other."""
    first = chain(WRITERS[0], *(note(n, loss=n) for n in range(1, 6)))
    heads = {WRITERS[0]: [4, hashlib.sha256(first[3]).hexdigest()]}
    second = chain(WRITERS[1], *(note(n, acc=n) for n in range(1, 5)), seen={3: heads})
    third = chain(WRITERS[2], note(1, f1=1), seen={1: {WRITERS[1]: [3, hashlib.sha256(second[2]).hexdigest()]}})
    return dict(zip(WRITERS, (first, second, third), strict=True))


def test_chains_that_nobody_touched_have_no_flaw(chains: dict[str, list[bytes]]):
    assert events.check(chains) == ()
    assert [e.n for e in read(WRITERS[0], chains[WRITERS[0]])] == [1, 2, 3, 4, 5]


def edited(entries: list[bytes], n: int) -> list[bytes]:
    return [*entries[:n], entries[n].replace(b'"metrics":{', b'"metrics":{"x":1,'), *entries[n + 1 :]]


def relinked(entries: list[bytes], n: int) -> list[bytes]:
    """As an insider does who changes one of his own entries and makes all of the later ones anew."""
    said = [json.loads(entry) for entry in entries]
    said[n]["facts"]["metrics"] = {"loss": 0.0}
    kept = [{key: value for key, value in document.items() if key != "prev"} for document in said]
    return chain(said[0]["writer"], *kept)


@pytest.mark.parametrize("place", range(4))
def test_an_edit_is_found(chains: dict[str, list[bytes]], place: int):
    chains[WRITERS[0]] = edited(chains[WRITERS[0]], place)

    (flaw, *_) = events.check(chains)

    assert flaw.writer == WRITERS[0]
    assert flaw.n in (place + 1, place + 2)


def test_an_edit_of_the_last_entry_is_found_by_who_saw_it(chains: dict[str, list[bytes]]):
    pinned = {WRITERS[0]: Head(n=5, hashed=events.link(chains[WRITERS[0]][-1]))}
    assert events.check(chains, pinned=pinned) == ()

    chains[WRITERS[0]] = relinked(chains[WRITERS[0]], 4)

    assert events.check(chains) == ()
    assert events.check(chains, pinned=pinned) == (
        Flaw(writer=WRITERS[0], n=5, what="it is not the entry that who looked before saw"),
    )


@pytest.mark.parametrize("place", range(4))
def test_a_chain_that_was_written_anew_is_found_by_who_saw_the_old_one(chains: dict[str, list[bytes]], place: int):
    chains[WRITERS[0]] = relinked(chains[WRITERS[0]], place)

    assert read(WRITERS[0], chains[WRITERS[0]])  # in itself it is without a flaw
    assert [(flaw.writer, flaw.n) for flaw in events.check(chains)] == [(WRITERS[0], 4)]


@pytest.mark.parametrize("place", range(5))
def test_an_entry_that_is_missing_is_found(chains: dict[str, list[bytes]], place: int):
    del chains[WRITERS[0]][place]

    found = events.check(chains)

    assert (place == 4) == (found == ()), "only what nobody saw can be cut off unnoticed"


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(range(5), 2)))
def test_another_order_is_found(chains: dict[str, list[bytes]], first: int, second: int):
    entries = chains[WRITERS[0]]
    entries[first], entries[second] = entries[second], entries[first]

    assert events.check(chains)


def test_a_cut_below_what_another_saw_is_found(chains: dict[str, list[bytes]]):
    del chains[WRITERS[0]][3:]

    assert events.check(chains) == (
        Flaw(writer=WRITERS[0], n=4, what=f"entries up to 4 are gone that {WRITERS[1]}#3 saw"),
    )


def test_a_chain_that_is_gone_is_found(chains: dict[str, list[bytes]]):
    del chains[WRITERS[1]]

    assert [(flaw.writer, flaw.n) for flaw in events.check(chains)] == [(WRITERS[1], 1)]


def test_an_entry_of_another_chain_is_found(chains: dict[str, list[bytes]]):
    chains[WRITERS[0]].append(chains[WRITERS[1]][-1])

    assert [(flaw.writer, flaw.n) for flaw in events.check(chains)] == [(WRITERS[0], 6)]


def test_a_chain_counts_up_to_its_first_flaw(chains: dict[str, list[bytes]]):
    found, flaw = events.sound(WRITERS[0], [*chains[WRITERS[0]][:3], b"garbage", *chains[WRITERS[0]][4:]])

    assert [e.n for e in found] == [1, 2, 3]
    assert flaw is not None
    assert flaw.n == 4


def test_a_part_of_a_chain_is_read_if_what_is_before_it_is_known(chains: dict[str, list[bytes]]):
    entries = chains[WRITERS[0]]
    head = Head(n=2, hashed=events.link(entries[1]))

    found, flaw = events.sound(WRITERS[0], entries[2:], after=head)
    _, other = events.sound(WRITERS[0], entries[3:], after=head)

    assert (flaw, [e.n for e in found]) == (None, [3, 4, 5])
    assert other is not None


@pytest.mark.parametrize("count", [0, 3, 256, 257, 1000])
def test_every_head_is_named_again_and_again(count: int):
    heads = {f"{n:016d}": Head(n=1, hashed="0" * 64) for n in range(count)}

    named = [events.seen_now(heads, n) for n in range(1, 9)]

    assert all(len(seen) == min(count, events.MAX_SEEN) for seen in named)
    assert set().union(*named) == set(heads)


def test_events_of_all_chains_come_by_time_and_never_against_their_chain():
    backwards = read(WRITERS[0], chain(WRITERS[0], note(5), note(2), note(9)))
    other = read(WRITERS[1], chain(WRITERS[1], note(4), note(5), note(6)))

    found = list(events.in_order({WRITERS[1]: other, WRITERS[0]: backwards}))

    order = [(e.writer[0], e.n) for e in found]
    assert order == [("b", 1), ("a", 1), ("a", 2), ("b", 2), ("b", 3), ("a", 3)]


# --------------------------------------------------------------------------------------------------------- late metrics


def late(*chains: list[bytes]) -> dict[str, dict[str, Any]]:
    found = events.joined(events.noted(read(json.loads(entries[0])["writer"], entries)) for entries in chains)
    return {checkpoint: {name: said.value for name, said in metrics.items()} for checkpoint, metrics in found.items()}


def test_the_newest_note_of_a_chain_wins_for_each_metric():
    assert late(chain(WRITERS[0], note(1, a=1, b=1), note(2, OTHER, a=5), note(3, a=2))) == {
        CHECKPOINT: {"a": 2, "b": 1},
        OTHER: {"a": 5},
    }


def test_within_a_chain_the_order_counts_and_not_the_clock():
    assert late(chain(WRITERS[0], note(9, a=1), note(2, a=2))) == {CHECKPOINT: {"a": 2}}


def test_between_chains_the_later_one_wins():
    one, other = chain(WRITERS[0], note(5, a=1, b=1)), chain(WRITERS[1], note(3, b=2, c=2), note(6, a=2))

    assert late(one, other) == late(other, one) == {CHECKPOINT: {"a": 2, "b": 1, "c": 2}}


def test_of_notes_at_the_same_time_one_wins_always():
    one, other = chain(WRITERS[0], note(5, a=1)), chain(WRITERS[1], note(5, a=2))

    assert late(one, other) == late(other, one) == {CHECKPOINT: {"a": 2}}


def test_a_late_metric_says_who_noted_it_when_and_why():
    said = {**note(3, a=1), "facts": {"checkpoint": CHECKPOINT, "metrics": {"a": 1}, "message": "why", "new": 1}}

    found = events.noted(read(WRITERS[0], chain(WRITERS[0], said)))

    assert found == {CHECKPOINT: {"a": Noted(value=1, time=at(3), writer=WRITERS[0], n=1, message="why")}}


@pytest.mark.parametrize(
    "values",
    [
        {"op": "save", **note(1, a=1)},
        {"facts": {}},
        {"facts": {"checkpoint": CHECKPOINT}},
        {"facts": {"checkpoint": "short", "metrics": {"a": 1}}},
        {"facts": {"checkpoint": CHECKPOINT, "metrics": {"a": [1]}}},
        {"facts": {"checkpoint": CHECKPOINT, "metrics": {"a": True}}},
        {"facts": {"checkpoint": CHECKPOINT, "metrics": [1]}},
    ],
)
def test_what_is_no_note_that_we_know_counts_for_nothing(values: dict[str, Any]):
    assert late(chain(WRITERS[0], values)) == {}


def test_a_fold_goes_on_where_it_was():
    entries = read(WRITERS[0], chain(WRITERS[0], note(4, a=1), note(9, b=1), note(2, a=2), note(3, OTHER, a=1)))

    for cut in range(5):
        first = events.noted(entries[:cut])
        assert events.noted(entries[cut:], onto=first) == events.noted(entries)
        assert first == events.noted(entries[:cut])
