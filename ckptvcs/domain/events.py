"""Events of the ledger: what one entry says, its canonical bytes, the chain of one writer, and what entries add up to.

An entry names the SHA-256 of the bytes of the one before it, so that a chain cannot be edited, cut in the middle or put
into another order unnoticed; and it names the heads of the other chains that its writer knew (`seen`), so that a chain
whose end was cut off is missed by whoever saw it. What nobody saw can be cut off unnoticed: nothing here can tell.
"""

from __future__ import annotations

import heapq
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ckptvcs.digest import is_digest
from ckptvcs.domain.checkpoint import CheckpointId
from ckptvcs.domain.manifest import sayable
from ckptvcs.domain.provenance import Entry
from ckptvcs.errors import BadEntry, NewerVersion
from ckptvcs.paths import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

FORMAT: Final = "ckptvcs-ledger/1"
MAX_BYTES: Final = 64 << 10
MAX_SEEN: Final = 256
"""Heads that one entry names at most; where there are more, entry after entry names them in turn."""

NOTE: Final = "note"

_WRITER: Final = re.compile(r"[a-z0-9]{8,64}\Z")
_OP: Final = re.compile(r"[a-z]{1,32}(\.[a-z]{1,32}){0,3}\Z")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00\Z")
_MAX_N: Final = 1 << 53


class Event(Entry, frozen=True):
    """One entry of a chain. See `docs/reference/format/ledger-1.md`."""

    writer: str
    n: int
    """1 for the first entry of the chain, then 2, 3..."""
    prev: str
    """SHA-256 of the bytes of the entry before; empty for the first."""
    time: str
    """UTC, ISO 8601, microseconds, so that texts sort as times do."""
    op: str
    """What was done: `note`, `run.start`..."""
    actor: str
    """Who did it, by a pseudonym: entries are never removed, and names are personal data."""
    facts: dict[str, Any]
    """What there is to say about it; any JSON."""
    seen: dict[str, tuple[int, str]]
    """Heads of other chains that the writer knew: writer -> (`n`, SHA-256 of its bytes)."""
    format: str = FORMAT


class _Versioned(msgspec.Struct):
    """As much of an entry as every version has."""

    format: str = ""


# ---------------------------------------------------------------------------------------------------------------- bytes


def is_writer(text: str) -> bool:
    """Whether a text may be the id of a writer: it is the end of a ref, on file systems of every kind."""
    return _WRITER.match(text) is not None


def is_time(text: str) -> bool:
    """Whether a text is a time as entries have it: UTC, microseconds, so that texts sort as times do."""
    return _TIME.match(text) is not None


def facts_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Facts such that JSON can say them: NaN and infinities become words, tuples lists."""
    facts = sayable(dict(values))
    assert isinstance(facts, dict)
    return facts


def link(data: bytes) -> str:
    """What the next entry calls one of these bytes. SHA-256, because git's own link may be SHA-1."""
    import hashlib  # loads OpenSSL, which a look at a repository without a ledger need not pay for

    return hashlib.sha256(data).hexdigest()


def to_bytes(event: Event) -> bytes:
    """The canonical bytes of an entry: JSON on one line, keys sorted, without blanks, UTF-8, a newline at the end."""
    return _ENCODER.encode(msgspec.to_builtins(event)).encode("utf-8") + b"\n"


def from_bytes(data: bytes, *, where: str) -> Event:
    """Read an entry that nobody vouches for.

    Args:
        data: its bytes.
        where: which one it is, for the error.

    Raises:
        NewerVersion: a later version of ckptvcs wrote it.
        BadEntry: it is damaged, not canonical, or was made to harm.
    """
    try:
        if not 0 < len(data) <= MAX_BYTES:
            raise ValueError(f"it has no bytes, or more than the {MAX_BYTES} that are read")
        event = _decoded(data, where)
        _check(event)
        if to_bytes(event) != data:
            raise ValueError("it is not in canonical form")
    except (ValueError, RecursionError) as err:  # msgspec's errors are ValueErrors
        raise BadEntry(
            f"cannot read entry {printable(where)} of the ledger",
            why=printable(str(err))[:200],
            next_step="run 'ckpt doctor'",
        ) from err
    return event


_ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_DECODER: Final = msgspec.json.Decoder(Event)
_VERSION_DECODER: Final = msgspec.json.Decoder(_Versioned)


def _decoded(data: bytes, where: str) -> Event:
    try:
        event = _DECODER.decode(data)
    except msgspec.ValidationError:
        _check_version(data, where)
        raise
    if event.format != FORMAT:
        _check_version(data, where)
    return event


def _check_version(data: bytes, where: str) -> None:
    """Find the version without understanding the rest, which a later version may have changed."""
    version = _VERSION_DECODER.decode(data).format
    if version != FORMAT and version.startswith("ckptvcs-ledger/"):
        raise NewerVersion(
            f"cannot read entry {printable(where)} of the ledger",
            why=f"its format is '{printable(version)[:64]}', this version of ckptvcs reads '{FORMAT}'",
            next_step="upgrade ckptvcs: pip install -U ckptvcs",
        )


def _check(event: Event) -> None:
    for wrong, what in (
        (event.format != FORMAT, f"its format is {event.format!r}"),
        (not is_writer(event.writer), "its writer has no proper id"),
        (not 1 <= event.n < _MAX_N, "its number is not 1 or more"),
        ((event.prev == "") != (event.n == 1), "the first entry, and no other, has nothing before it"),
        (event.prev != "" and not is_digest(event.prev), "'prev' is no SHA-256"),
        (not is_time(event.time), "its time is not UTC with microseconds"),
        (not _OP.match(event.op), "'op' is no word"),
        (len(event.actor) > 64, "'actor' is too long"),
        (len(event.seen) > MAX_SEEN or event.writer in event.seen, "'seen' names too many chains, or its own"),
    ):
        if wrong:
            raise ValueError(what)
    for writer, (n, hashed) in event.seen.items():
        if not (is_writer(writer) and 1 <= n < _MAX_N and is_digest(hashed)):
            raise ValueError("'seen' names something that is no head of a chain")


# ---------------------------------------------------------------------------------------------------------------- chain


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The last entry of a chain, as others name it."""

    n: int
    hashed: str
    """SHA-256 of its bytes."""


def head_of(data: bytes, *, where: str) -> tuple[Event, Head]:
    """An entry, and what names it as a head.

    Raises:
        BadEntry: it cannot be read.
    """
    event = from_bytes(data, where=where)
    return event, Head(n=event.n, hashed=link(data))


def seen_now(heads: Mapping[str, Head], n: int) -> dict[str, tuple[int, str]]:
    """What entry `n` says of other chains: all of their heads, or, where they are too many, the next ones in turn."""
    writers = sorted(heads)
    if len(writers) > MAX_SEEN:
        start = n * MAX_SEEN % len(writers)
        writers = (writers + writers)[start : start + MAX_SEEN]
    return {writer: (heads[writer].n, heads[writer].hashed) for writer in writers}


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaw:
    """Something that is wrong with a chain, from entry `n` on."""

    writer: str
    n: int
    what: str
    unlisted: bool = False
    """Whether all that is wrong is that its writer may not write."""


def sound(writer: str, entries: Iterable[bytes], *, after: Head | None = None) -> tuple[list[Event], Flaw | None]:
    """The entries of a chain up to the first that is not what it should be, and what is wrong with that one.

    Args:
        writer: whose chain it is.
        entries: bytes of its entries, oldest first.
        after: the entry that they follow; None if they begin with the first.
    """
    found: list[Event] = []
    n, prev = (after.n, after.hashed) if after else (0, "")
    for data in entries:
        n += 1
        try:
            event = from_bytes(data, where=f"{writer}#{n}")
        except (BadEntry, NewerVersion) as err:
            return found, Flaw(writer=writer, n=n, what=err.why)
        if (event.writer, event.n, event.prev) != (writer, n, prev):
            return found, Flaw(writer=writer, n=n, what="it does not follow the entry before it")
        found.append(event)
        prev = link(data)
    return found, None


def check(chains: Mapping[str, Sequence[bytes]], *, pinned: Mapping[str, Head] | None = None) -> tuple[Flaw, ...]:
    """Everything that is wrong with the chains of a ledger: edits, cuts, other orders, chains that are gone.

    Args:
        chains: writer -> bytes of its entries, oldest first.
        pinned: heads that were remembered from an earlier look.

    Returns:
        The flaws; empty if every chain is whole as far as its own links, the other chains and `pinned` can tell.
    """
    hashes = {writer: [link(data) for data in entries] for writer, entries in chains.items()}
    read = {writer: sound(writer, entries) for writer, entries in chains.items()}
    flaws = [flaw for _, flaw in read.values() if flaw]
    claims = {(writer, head.n, head.hashed): "who looked before" for writer, head in (pinned or {}).items()}
    for writer in sorted(read):
        for event in read[writer][0]:
            for other, (n, hashed) in event.seen.items():
                claims.setdefault((other, n, hashed), f"{writer}#{event.n}")
    for (writer, n, hashed), witness in sorted(claims.items()):
        there = hashes.get(writer, [])
        if n > len(there):
            flaws.append(Flaw(writer=writer, n=len(there) + 1, what=f"entries up to {n} are gone that {witness} saw"))
        elif there[n - 1] != hashed:
            flaws.append(Flaw(writer=writer, n=n, what=f"it is not the entry that {witness} saw"))
    return tuple(flaws)


def in_order(chains: Mapping[str, Iterable[Event]]) -> Iterator[Event]:
    """The union of chains by time, never against the order of a chain; of equal times, by writer."""

    def keyed(writer: str) -> Iterator[tuple[str, str, int, Event]]:
        latest = ""
        for event in chains[writer]:
            latest = max(latest, event.time)  # a clock that went backwards
            yield latest, writer, event.n, event

    for _, _, _, event in heapq.merge(*(keyed(writer) for writer in sorted(chains)), key=lambda item: item[:3]):
        yield event


# --------------------------------------------------------------------------------------------------------- late metrics


class Noted(Entry, frozen=True):
    """One late metric: its value, and the note that says it."""

    value: int | float | str
    """A number, or a word such as `nan`, which never ranks."""
    time: str
    """When it was noted; not before any earlier note of the same chain, whatever the clock said."""
    writer: str
    """Whose chain the note is in."""
    n: int
    """Its place there."""
    message: str = ""
    """Where the number comes from, as far as it was said."""

    @property
    def age(self) -> tuple[str, str, int]:
        """What decides between two notes: the later time; of equal times, the later writer by name, then the later entry."""
        return self.time, self.writer, self.n


Late = dict[CheckpointId, dict[str, Noted]]
"""Checkpoint -> metric -> its newest note."""


class _NoteFacts(msgspec.Struct, frozen=True):
    """The facts of a note."""

    checkpoint: str
    metrics: dict[str, int | float | str]
    message: str = ""


def noted(events: Iterable[Event], *, onto: Late | None = None) -> Late:
    """What the notes of one chain say, oldest first; the newest wins for each metric.

    Args:
        events: entries of one chain, in order; those that are no notes count for nothing.
        onto: what its entries before these say; it is not changed.
    """
    late: Late = {checkpoint: dict(metrics) for checkpoint, metrics in (onto or {}).items()}
    latest = max((found.time for metrics in late.values() for found in metrics.values()), default="")
    for event in events:
        said = _said(event)
        if said is None:
            continue
        latest = max(latest, event.time)
        for name, value in said.metrics.items():
            found = Noted(value=value, time=latest, writer=event.writer, n=event.n, message=said.message)
            late.setdefault(CheckpointId(said.checkpoint), {})[name] = found
    return late


def _said(event: Event) -> _NoteFacts | None:
    """What a note says; None for any other event, and for a note that says nothing we know."""
    if event.op != NOTE:
        return None
    try:
        facts = msgspec.convert(event.facts, _NoteFacts)
    except msgspec.ValidationError:
        return None
    return facts if is_digest(facts.checkpoint) else None


def joined(chains: Iterable[Late]) -> Late:
    """What several chains say together: the newest note wins for each metric, in whatever order chains are given."""
    late: Late = {}
    for chain in chains:
        for checkpoint, metrics in chain.items():
            known = late.setdefault(checkpoint, {})
            for name, found in metrics.items():
                if name not in known or known[name].age < found.age:
                    known[name] = found
    return late
