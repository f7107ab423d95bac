"""The ledger: append an event, read the union of all chains, and what late metrics they add up to.

A chain that somebody damaged counts up to the first entry that cannot be read: an entry that is put behind it can not
take away what was there before. What is left out is told as a note, never silently.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timezone
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ckptvcs._version import VERSION
from ckptvcs.digest import digest
from ckptvcs.domain import events as entries
from ckptvcs.domain.events import Event, Flaw, Head
from ckptvcs.errors import BadEntry, NewerVersion, RefMoved, StorageError, UsageError
from ckptvcs.storage.history import ledger
from ckptvcs.storage.history.repository import CommitId

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

    from ckptvcs.domain.checkpoint import Checkpoint, CheckpointId
    from ckptvcs.porcelain.repo import Repository
    from ckptvcs.storage.files import Lock

PUSH: Final = "push"
"""The operation of an entry that tells which checkpoints a remote has from then on."""
_ATTEMPTS: Final = 10
_WORTH_REMEMBERING: Final = 64
"""Entries that it takes to read before what they say is remembered: fewer are read faster than a long memory is written."""


# --------------------------------------------------------------------------------------------------------------- append


def append(repo: Repository, op: str, **facts: Any) -> Event:
    """Add an event to the chain of this clone. It is durable when this returns, and only then.

    Takes the lock of the repository: not for who holds it.

    Args:
        repo: the repository.
        op: what was done: lower-case words, such as `note` or `run.start`.
        facts: what there is to say about it, of JSON's types. NaN and infinities are kept as words.

    Raises:
        UsageError: the entry would be larger than any reader takes.
        BadEntry: the chain of this clone does not end with an entry of its own.
        StorageError: the disk is full, read-only or failing; nothing was added.
        LockHeld: another process holds the repository and does not let go.
    """
    from ckptvcs.porcelain.following import locked

    with locked(repo) as lock:
        writer = _writer(repo)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return _append_once(repo, writer, op, entries.facts_of(facts), lock)
            except RefMoved:  # by a git program, which knows nothing of our lock
                if attempt == _ATTEMPTS:
                    raise
    raise AssertionError("unreachable")


def _append_once(repo: Repository, writer: Writer, op: str, facts: dict[str, Any], lock: Lock) -> Event:
    heads = ledger.heads(repo.history)
    mine = heads.pop(writer.id, None)
    last = _own_head(repo, writer.id, mine) if mine else None
    now = repo.now()
    event = Event(
        writer=writer.id,
        n=last.n + 1 if last else 1,
        prev=last.hashed if last else "",
        time=_iso(now),
        op=op,
        actor=writer.pseudonym(repo.identity.email),
        facts=facts,
        seen=entries.seen_now(_known_heads(repo, heads), last.n + 1 if last else 1),
    )
    data = entries.to_bytes(event)
    if len(data) > entries.MAX_BYTES:
        raise UsageError(
            f"cannot write down a '{op}'",
            why=f"its entry would have {len(data)} bytes, and at most {entries.MAX_BYTES} are ever read",
            next_step="say less: fewer metrics at once, or a shorter message",
        )
    entries.from_bytes(data, where=f"{writer.id}#{event.n}")  # what we could not read again is not written
    when = now.astimezone(timezone.utc)
    ledger.append(repo.history, writer.id, data, after=mine, op=op, when=when, lock=lock)
    return event


def _head(repo: Repository, writer: str, commit: CommitId) -> Head:
    """The last entry of a chain.

    Raises:
        BadEntry: it is none, or belongs to another chain.
        StorageError: git cannot read it.
    """
    data = ledger.read_one(repo.history, commit, limit=entries.MAX_BYTES)
    event, head = entries.head_of(data, where=f"'{writer}'")
    if event.writer != writer:
        raise BadEntry(f"cannot read chain '{writer}' of the ledger", why=f"it ends with an entry of '{event.writer}'")
    return head


def _own_head(repo: Repository, writer: str, commit: CommitId) -> Head:
    try:
        return _head(repo, writer, commit)
    except (BadEntry, StorageError) as err:
        raise _damaged(repo, writer, err.why) from err


def _damaged(repo: Repository, writer: str, why: str) -> BadEntry:
    return BadEntry(
        f"cannot add to chain '{writer}' of the ledger",
        why=why,
        next_step=f"run 'ckpt doctor'; to begin a new chain, rm '{_writer_file(repo)}': the old one stays as it is",
        writer=writer,
    )


def refuse_damage(repo: Repository, late: LateMetrics) -> None:
    """Refuse to add to the chain of this clone if nobody could read what is added.

    Raises:
        BadEntry: an entry of it is damaged or missing.
    """
    own = _known_writer(repo)
    for flaw in late.flaws:
        if own is not None and flaw.writer == own.id:
            raise _damaged(repo, own.id, f"entry {flaw.n}: {flaw.what}")


def _known_heads(repo: Repository, heads: Mapping[str, CommitId]) -> dict[str, Head]:
    """The last entries of other chains; what is no entry is nothing that a witness could have seen."""
    found = {}
    for writer, commit in heads.items():
        with suppress(BadEntry, NewerVersion, StorageError):
            if entries.is_writer(writer):
                found[writer] = _head(repo, writer, commit)
    return found


def _iso(time: datetime) -> str:
    return time.astimezone(timezone.utc).isoformat(timespec="microseconds")


# ---------------------------------------------------------------------------------------------------------- the writer


class Writer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who writes the chain of this clone. A copy of the folder is another clone, and has another writer."""

    id: str
    salt: str
    folder: int
    """Inode of the private folder that it was made in."""

    def pseudonym(self, email: str) -> str:
        """What a person is called in entries. Who does not have the salt cannot try names until one fits."""
        return digest(f"{self.salt}\0{email}".encode("utf-8", "surrogateescape"))[:16]


def _writer_file(repo: Repository) -> Path:
    return repo.private / "writer.json"


def _writer(repo: Repository) -> Writer:
    """The writer of this clone; our lock is held, so that processes that come at once agree on one."""
    import secrets

    from ckptvcs.storage import files

    known = _known_writer(repo)
    if known is not None:
        return known
    new = Writer(id=secrets.token_hex(8), salt=secrets.token_hex(16), folder=repo.private.stat().st_ino)
    files.write_atomic(_writer_file(repo), msgspec.json.encode(new) + b"\n", mode=0o600)
    return new


def writer_id(repo: Repository) -> str | None:
    """Whose chain this clone adds to; None if it never did."""
    known = _known_writer(repo)
    return known.id if known is not None else None


def _known_writer(repo: Repository) -> Writer | None:
    try:
        known = msgspec.json.decode(_writer_file(repo).read_bytes(), type=Writer)
        folder = repo.private.stat().st_ino
    except (OSError, ValueError):
        return None
    return known if known.folder == folder and entries.is_writer(known.id) else None


# ----------------------------------------------------------------------------------------------------------------- read


def events(repo: Repository, *, ops: Collection[str] | None = None) -> Iterator[Event]:
    """The union of all chains, oldest first; never against the order of a chain.

    Args:
        repo: the repository.
        ops: the kinds of events that are wanted; None for all.
    """
    chains = {writer: entries.sound(writer, chain)[0] for writer, chain in chains_of(repo).items()}
    return (event for event in entries.in_order(chains) if ops is None or event.op in ops)


def chains_of(repo: Repository) -> dict[str, tuple[bytes, ...]]:
    """The bytes of every entry, oldest first, by writer: what `domain.events.check` looks at.

    A chain that git cannot read is left out; `examine` tells of it.
    """
    found = {}
    for writer, head in ledger.heads(repo.history).items():
        with suppress(StorageError):  # `examine` tells of it
            found[writer] = ledger.read(repo.history, head, limit=entries.MAX_BYTES).entries
    return found


def were_pushed(repo: Repository, ids: Collection[CheckpointId], remote: str | None) -> bool:
    """Whether the ledger tells of all these checkpoints that they were pushed to a remote.

    Each chain is read from its end: what was pushed lately is found at once, however long the ledger is.
    """
    left = set(ids)
    for writer, head in ledger.heads(repo.history).items():
        with suppress(StorageError):
            for data in ledger.newest_first(repo.history, head, limit=entries.MAX_BYTES):
                left -= _pushed(data, writer, remote)
                if not left:
                    return True
    return False


def _pushed(data: bytes, writer: str, remote: str | None) -> set[Any]:
    try:
        event = entries.from_bytes(data, where=f"'{writer}'")
    except (BadEntry, NewerVersion):
        return set()
    told = event.facts.get("checkpoints")
    if event.op != PUSH or event.facts.get("remote") != remote or not isinstance(told, list):
        return set()
    return {one for one in told if isinstance(one, str)}


def examine(repo: Repository) -> tuple[Flaw, ...]:
    """Everything that is wrong with the ledger, as far as its chains can tell of themselves and of each other."""
    flaws = []
    for writer, head in ledger.heads(repo.history).items():
        try:
            ledger.read(repo.history, head, limit=entries.MAX_BYTES)
        except StorageError as err:
            flaws.append(Flaw(writer=writer, n=1, what=err.why))
    return (*flaws, *entries.check(chains_of(repo)))


@dataclass(frozen=True, slots=True)
class LateMetrics:
    """The newest note of every metric, by checkpoint, and what had to be left out."""

    by_checkpoint: entries.Late
    flaws: tuple[Flaw, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """The flaws in words."""
        return tuple(
            f"late metrics of '{flaw.writer}' count only up to entry {flaw.n - 1} of the ledger: {flaw.what}"
            for flaw in self.flaws
        )

    def on(self, checkpoint: Checkpoint) -> Checkpoint:
        """A checkpoint with what was noted of it."""
        late = self.by_checkpoint.get(checkpoint.id)
        return replace(checkpoint, late=late) if late else checkpoint


def with_late(repo: Repository, *checkpoints: Checkpoint) -> tuple[Checkpoint, ...]:
    """Checkpoints with what was noted of them."""
    late = read_late(repo)
    return tuple(map(late.on, checkpoints))


def late_metrics(repo: Repository) -> Mapping[CheckpointId, Mapping[str, int | float | str]]:
    """What was noted of each checkpoint after it was made; the newest note wins for each metric."""
    late = read_late(repo).by_checkpoint
    return {checkpoint: {name: found.value for name, found in said.items()} for checkpoint, said in late.items()}


def read_late(repo: Repository) -> LateMetrics:
    """The same, with who noted it and when; and what is wrong with chains that could not be read to their ends."""
    heads = ledger.heads(repo.history)
    if not heads:
        return LateMetrics({})
    known = _remembered(repo)
    read, flaws, count = {}, [], 0
    for writer, head in heads.items():
        try:
            chain, new, flaw = _fold(repo, writer, head, known.get(writer))
        except StorageError as err:
            flaws.append(Flaw(writer=writer, n=1, what=err.why))
            continue
        read[writer], count = chain, count + new
        flaws.extend([flaw] if flaw else [])
    if count >= _WORTH_REMEMBERING:
        _remember(repo, read)
    return LateMetrics(entries.joined(chain.late for chain in read.values()), tuple(flaws))


class _Folded(msgspec.Struct, frozen=True):
    """What the notes of one chain say, up to one entry. Git names the commit by its content: what it says is settled."""

    commit: CommitId
    n: int
    hashed: str
    late: entries.Late


def _fold(repo: Repository, writer: str, head: CommitId, known: _Folded | None) -> tuple[_Folded, int, Flaw | None]:
    """What a chain says, how many entries had to be read for it, and what is wrong with it."""
    if known is not None and known.commit == head:
        return known, 0, None
    after = known.commit if known else None
    chain = ledger.read(repo.history, head, after=after, limit=entries.MAX_BYTES)
    base = known if chain.follows else None
    start = Head(n=base.n, hashed=base.hashed) if base else None
    found, flaw = entries.sound(writer, chain.entries, after=start)
    late = entries.noted(found, onto=base.late if base else None)
    if flaw is not None:
        # Remembered would be the whole of it, and with it that nothing is wrong.
        return _Folded(commit=CommitId(""), n=flaw.n - 1, hashed="", late=late), 0, flaw
    last = chain.entries[-1]
    n = (base.n if base else 0) + len(found)
    return _Folded(commit=head, n=n, hashed=entries.link(last), late=late), len(found), None


# ----------------------------------------------------------------------------------------------------- what is remembered


class _Memory(msgspec.Struct):
    """The hint `.git/ckptvcs/ledger.json`: sealed, so that what a disk or an editor made of it is not believed."""

    by: str
    chains: dict[str, _Folded]


def _memory_file(repo: Repository) -> Path:
    return repo.private / "ledger.json"


def _remembered(repo: Repository) -> dict[str, _Folded]:
    try:
        seal, _, data = _memory_file(repo).read_bytes().partition(b"\n")
        if seal.decode("ascii") != digest(data):
            return {}
        memory = msgspec.json.decode(data, type=_Memory)
    except (OSError, ValueError):
        return {}
    return memory.chains if memory.by == VERSION else {}


def _remember(repo: Repository, chains: Mapping[str, _Folded]) -> None:
    data = msgspec.json.encode(_Memory(by=VERSION, chains={w: chain for w, chain in chains.items() if chain.commit}))
    with suppress(OSError):  # it is a hint; a repository that we may only read has none
        if repo.private.is_dir():
            _memory_file(repo).write_bytes(digest(data).encode("ascii") + b"\n" + data)
