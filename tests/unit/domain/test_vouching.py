"""A chain counts as far as its links, the signatures of its one key, and the list of signers go."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest

from ckptvcs.domain import events, signers, vouching
from ckptvcs.domain.events import Event, Head
from ckptvcs.signatures import KIND, Signed, SigningKey, new_key

WRITER = "a" * 16
KEY, OTHER = new_key(), new_key()


def at(n: int) -> str:
    return f"2026-06-{n:02}T00:00:00.000000+00:00"


def chain(keys: Sequence[SigningKey | None]) -> list[Signed]:
    found: list[Signed] = []
    for n, key in enumerate(keys, start=1):
        prev = hashlib.sha256(found[-1].data).hexdigest() if found else ""
        event = Event(writer=WRITER, n=n, prev=prev, time=at(n), op="save", actor="", facts={}, seen={})
        data = events.to_bytes(event)
        payload = b"tree\n\n" + data
        found.append(Signed(data, payload, key.sign(payload)) if key else Signed(data))
    return found


def test_a_chain_counts_with_its_key():
    found = vouching.vouched(WRITER, chain([KEY] * 4))

    assert (len(found.events), found.key, found.flaw) == (4, KEY.public, None)


def test_a_chain_from_before_there_were_signatures_counts_without():
    found = vouching.vouched(WRITER, chain([None] * 3))

    assert (len(found.events), found.key, found.flaw) == (3, None, None)


@pytest.mark.parametrize("thorough", [False, True])
@pytest.mark.parametrize(
    ("keys", "counts"),
    [
        ([KEY, KEY, OTHER], 2),
        ([KEY, OTHER, KEY], 1),
        ([KEY, None, KEY], 1),
        ([KEY, KEY, None], 2),
        ([None, None, KEY], 2),
    ],
)
def test_another_key_or_none_ends_what_counts(keys: list[SigningKey | None], counts: int, thorough: bool):
    found = vouching.vouched(WRITER, chain(keys), thorough=thorough)

    assert len(found.events) == counts
    assert found.flaw is not None
    assert found.flaw.n == counts + 1


def test_a_signature_that_is_not_right_ends_what_counts():
    entries = chain([KEY] * 4)
    forged = [*entries[:2], Signed(entries[2].data, entries[2].payload, KEY.sign(b"something else")), entries[3]]

    assert vouching.vouched(WRITER, forged).flaw is None, "the newest one vouches for it"
    thorough = vouching.vouched(WRITER, forged, thorough=True)
    assert (len(thorough.events), thorough.flaw and thorough.flaw.n) == (2, 3)
    last = vouching.vouched(WRITER, forged[:3])
    assert (len(last.events), last.flaw and last.flaw.n) == (2, 3)


def test_a_part_of_a_chain_counts_with_the_key_that_it_had_before():
    entries = chain([KEY] * 4)
    head = Head(n=2, hashed=hashlib.sha256(entries[1].data).hexdigest())

    assert len(vouching.vouched(WRITER, entries[2:], after=head, key=KEY.public).events) == 2
    for key in (OTHER.public, None):
        found = vouching.vouched(WRITER, entries[2:], after=head, key=key)
        assert (found.events, found.flaw and found.flaw.n) == ([], 3)


def test_no_entries_have_no_key():
    assert vouching.vouched(WRITER, []) == vouching.Vouched(events=[], key=None, flaw=None)


def listed(text: str) -> signers.Signers:
    return signers.parse(text)


def test_a_list_says_up_to_where_a_chain_counts():
    found = vouching.vouched(WRITER, chain([KEY] * 4))
    all_times = listed(f"ada {KIND} {KEY.public}")
    until = listed(f'ada valid-before="20260603Z" {KIND} {KEY.public}')
    nobody = listed(f"bob {KIND} {OTHER.public}")

    assert vouching.unlisted(WRITER, found.events, found.key, all_times) is None
    flaw = vouching.unlisted(WRITER, found.events, found.key, until)
    assert flaw is not None
    assert (flaw.n, flaw.what) == (4, "the key of ada in ckpt.signers is not valid at its time")
    flaw = vouching.unlisted(WRITER, found.events, found.key, nobody)
    assert flaw is not None
    assert (flaw.n, flaw.what) == (1, "it is signed with a key that is not in ckpt.signers")
    flaw = vouching.unlisted(WRITER, vouching.vouched(WRITER, chain([None])).events, None, nobody)
    assert flaw is not None
    assert (flaw.n, flaw.what) == (1, "nobody signed it")
