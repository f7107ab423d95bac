"""Any entry comes back as it was written, any change of a chain is found, and what notes add up to has one answer."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptvcs.domain import events
from ckptvcs.domain.events import Event
from ckptvcs.errors import BadEntry, NewerVersion

_text = st.text(max_size=12)
_digests = st.text("0123456789abcdef", min_size=64, max_size=64)
_writers = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=8, max_size=20)
_json = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False), _text
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_text, inner, max_size=3)),
    max_leaves=8,
)
_times = st.datetimes().map(lambda t: t.isoformat(timespec="microseconds") + "+00:00")


@st.composite
def entries(draw: st.DrawFn) -> Event:
    n = draw(st.integers(1, 2**53 - 1))
    writer = draw(_writers)
    return Event(
        writer=writer,
        n=n,
        prev="" if n == 1 else draw(_digests),
        time=draw(_times),
        op=draw(st.from_regex(r"[a-z]{1,8}(\.[a-z]{1,8})?", fullmatch=True)),
        actor=draw(_text),
        facts=draw(st.dictionaries(_text, _json, max_size=4)),
        seen=draw(
            st.dictionaries(
                _writers.filter(lambda w: w != writer), st.tuples(st.integers(1, 2**53 - 1), _digests), max_size=3
            )
        ),
    )


@given(entries())
def test_an_entry_is_read_as_it_was_written(event: Event):
    data = events.to_bytes(event)

    assert events.from_bytes(data, where="x") == event
    assert events.to_bytes(events.from_bytes(data, where="x")) == data


@given(entries())
def test_the_bytes_are_what_json_alone_would_write(event: Event):
    data = events.to_bytes(event)

    text = json.dumps(json.loads(data), sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"

    assert text.encode() == data


@given(entries(), st.data())
def test_one_changed_bit_is_another_entry_or_none(event: Event, data: st.DataObject):
    written = events.to_bytes(event)
    changed = bytearray(written)
    changed[data.draw(st.integers(0, len(written) - 1))] ^= 1 << data.draw(st.integers(0, 7))

    try:
        found = events.from_bytes(bytes(changed), where="x")
    except (BadEntry, NewerVersion):
        return

    assert found != event
    assert events.to_bytes(found) == changed
    assert events.link(bytes(changed)) != events.link(written)


@given(st.binary(max_size=64) | _json.map(lambda value: json.dumps(value).encode()))
def test_anything_else_is_no_entry(data: Any):
    with pytest.raises((BadEntry, NewerVersion)):
        events.from_bytes(data, where="x")


# --------------------------------------------------------------------------------------------------------------- ledgers

_CHECKPOINTS = ["5" * 64, "6" * 64]
_notes = st.tuples(
    st.sampled_from(_CHECKPOINTS),
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 9), min_size=1, max_size=2),
    st.integers(0, 5),
)


@st.composite
def ledgers(draw: st.DrawFn) -> dict[str, list[bytes]]:
    """Up to four chains of notes, whose clocks go forwards and backwards; each note may have seen heads of the others."""
    chains: dict[str, list[bytes]] = {f"{'abcd'[k] * 8}": [] for k in range(draw(st.integers(1, 4)))}
    for _ in range(draw(st.integers(0, 12))):
        writer = draw(st.sampled_from(sorted(chains)))
        checkpoint, metrics, second = draw(_notes)
        heads = {w: (len(c), hashlib.sha256(c[-1]).hexdigest()) for w, c in chains.items() if c and w != writer}
        mine = chains[writer]
        event = Event(
            writer=writer,
            n=len(mine) + 1,
            prev=hashlib.sha256(mine[-1]).hexdigest() if mine else "",
            time=f"2026-11-21T10:00:0{second}.000000+00:00",
            op="note",
            actor="",
            facts={"checkpoint": checkpoint, "metrics": metrics},
            seen=heads if draw(st.booleans()) else {},
        )
        mine.append(events.to_bytes(event))
    return {writer: entries for writer, entries in chains.items() if entries}


@given(ledgers())
def test_chains_as_they_were_written_have_no_flaw(chains: dict[str, list[bytes]]):
    assert events.check(chains) == ()


@given(ledgers(), st.data())
def test_a_change_anywhere_but_in_what_nobody_saw_is_found(chains: dict[str, list[bytes]], data: st.DataObject):
    pinned = {writer: events.Head(n=len(c), hashed=hashlib.sha256(c[-1]).hexdigest()) for writer, c in chains.items()}
    places = [(writer, n) for writer, c in chains.items() for n in range(len(c))]
    if not places:
        return
    writer, n = data.draw(st.sampled_from(places))
    changed = {w: list(c) for w, c in chains.items()}
    how = data.draw(st.sampled_from(["cut", "drop", "twice", "edit", "swap"]))
    if how == "cut":
        del changed[writer][n:]
    elif how == "drop":
        del changed[writer][n]
    elif how == "twice":
        changed[writer].insert(n, changed[writer][n])
    elif how == "edit":
        changed[writer][n] = changed[writer][n].replace(b'"actor":""', b'"actor":"x"')
    else:
        changed[writer].reverse()
    if changed == chains:
        return

    assert events.check(changed, pinned=pinned)


@given(ledgers(), st.randoms(use_true_random=False))
def test_the_order_in_which_chains_are_read_does_not_matter(chains: dict[str, list[bytes]], random: Any):
    folds = [events.noted(events.sound(writer, c)[0]) for writer, c in chains.items()]
    shuffled = random.sample(folds, len(folds))

    together = events.joined(folds)

    assert events.joined(shuffled) == together
    assert events.joined([events.joined(shuffled[:2]), events.joined(shuffled[2:])]) == together
    assert events.joined([*folds, *folds]) == together


@given(ledgers())
def test_the_newest_note_wins_as_a_plain_sort_has_it(chains: dict[str, list[bytes]]):
    notes = []
    for writer, entries in chains.items():
        latest = ""
        for data in entries:
            document = json.loads(data)
            latest = max(latest, document["time"])
            notes.append((latest, writer, document["n"], document["facts"]))
    expected: dict[str, dict[str, int]] = {}
    for _, _, _, facts in sorted(notes, key=lambda item: item[:3]):
        expected.setdefault(facts["checkpoint"], {}).update(facts["metrics"])

    found = events.joined(events.noted(events.sound(writer, c)[0]) for writer, c in chains.items())

    assert {c: {name: said.value for name, said in m.items()} for c, m in found.items()} == expected


@given(ledgers())
def test_the_union_has_every_event_once_in_the_order_of_its_chain(chains: dict[str, list[bytes]]):
    read = {writer: events.sound(writer, c)[0] for writer, c in chains.items()}

    found = list(events.in_order(read))

    assert {w: [e for e in found if e.writer == w] for w in read} == read
