"""The ledger: append events, and read the chains. What they add up to is `account`'s business.

A chain that somebody damaged counts up to the first entry that cannot be read: an entry that is put behind it can not
take away what was there before. What is left out is told, never silently.
"""

from __future__ import annotations

from contextlib import nullcontext, suppress
from datetime import timezone
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.domain import events as entries
from ckptvcs.domain import vouching
from ckptvcs.domain.events import Event, Flaw, Head
from ckptvcs.domain.vouching import Vouched
from ckptvcs.errors import BadEntry, NewerVersion, RefMoved, StorageError, UsageError
from ckptvcs.porcelain.writer import known_writer, writer_file, writer_of
from ckptvcs.signatures import claimed_key
from ckptvcs.storage.history import ledger
from ckptvcs.storage.history.repository import CommitId

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from ckptvcs.domain.checkpoint import CheckpointId
    from ckptvcs.domain.signers import Signers
    from ckptvcs.porcelain.repo import Repository
    from ckptvcs.porcelain.writer import Writer
    from ckptvcs.signatures import Signed
    from ckptvcs.storage.files import Lock

PUSH: Final = "push"
"""The operation of an entry that tells which checkpoints a remote has from then on."""
RESTORE: Final = "restore"
"""The operation of an entry that tells which checkpoint was given out, and how."""
MARK: Final = "mark"
"""The operation of an entry that tells that a golden mark was made, and where it stands."""
_ATTEMPTS: Final = 10

Told = tuple[str, "Mapping[str, Any]"]
"""What was done, and what there is to say about it."""


# --------------------------------------------------------------------------------------------------------------- append


def append(repo: Repository, op: str, **facts: Any) -> Event:
    """Add an event to the chain of this clone; see `append_all`.

    Args:
        repo: the repository.
        op: what was done: lower-case words, such as `note` or `run.start`.
        facts: what there is to say about it, of JSON's types. NaN and infinities are kept as words.
    """
    return append_all(repo, [(op, facts)])[0]


def append_all(repo: Repository, told: Sequence[Told], *, lock: Lock | None = None) -> list[Event]:
    """Add events to the chain of this clone: all of them or none. They are durable when this returns, and only then.

    Args:
        repo: the repository.
        told: the events.
        lock: the lock of the repository, if it is held; else it is taken.

    Raises:
        UsageError: an entry would be larger than any reader takes, or the configured key cannot be used.
        BadEntry: the chain of this clone does not end with an entry of its own.
        StorageError: the disk is full, read-only or failing; nothing was added.
        LockHeld: another process holds the repository and does not let go.
    """
    from ckptvcs.porcelain.following import locked

    with nullcontext(lock) if lock is not None else locked(repo) as held:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return _append_once(repo, told, held)
            except RefMoved:  # by a git program, which knows nothing of our lock
                if attempt == _ATTEMPTS:
                    raise
    raise AssertionError("unreachable")


def _append_once(repo: Repository, told: Sequence[Told], lock: Lock) -> list[Event]:
    from ckptvcs.storage.history import commits

    writer, key = writer_of(repo)
    heads = ledger.heads(repo.history)
    mine = heads.pop(writer.id, None)
    last = _own_head(repo, writer, mine) if mine else None
    others, now, head, written = _known_heads(repo, heads), repo.now(), mine, list[Event]()
    repo.chain_ends = {(w, commit): others[w] for w, commit in heads.items() if w in others}
    actor = _actor(repo, writer)
    for op, facts in told:
        event = _next(writer, last, op, facts, now=now, actor=actor, others=others)
        data = _checked_bytes(event)
        when = now.astimezone(timezone.utc)
        head = ledger.write(repo.history, writer.id, data, after=head, when=when, sign=key.sign)
        last = Head(n=event.n, hashed=entries.link(data))
        written.append(event)
    ref, reason = ledger.LEDGER + writer.id, f"ckpt {told[-1][0]}"
    commits.move_ref(repo.history, ref, old=mine, new=head, reason=reason, lock=lock)
    if head is not None and last is not None:
        repo.chain_ends[writer.id, head] = last
    return written


def _actor(repo: Repository, writer: Writer) -> str:
    """The pseudonym of who runs this; none where git does not know, as in a job that only restores."""
    try:
        return writer.pseudonym(repo.identity.email)
    except UsageError:
        return ""


def _next(
    writer: Writer,
    last: Head | None,
    op: str,
    facts: Mapping[str, Any],
    *,
    now: datetime,
    actor: str,
    others: Mapping[str, Head],
) -> Event:
    n = last.n + 1 if last else 1
    return Event(
        writer=writer.id,
        n=n,
        prev=last.hashed if last else "",
        time=iso(now),
        op=op,
        actor=actor,
        facts=entries.facts_of(facts),
        seen=entries.seen_now(others, n),
    )


def _checked_bytes(event: Event) -> bytes:
    data = entries.to_bytes(event)
    if len(data) > entries.MAX_BYTES:
        raise UsageError(
            f"cannot write down a '{event.op}'",
            why=f"its entry would have {len(data)} bytes, and at most {entries.MAX_BYTES} are ever read",
            next_step="say less: fewer metrics at once, or a shorter message",
        )
    entries.from_bytes(data, where=f"{event.writer}#{event.n}")  # what we could not read again is not written
    return data


def _head(repo: Repository, writer: str, commit: CommitId) -> Head:
    """The last entry of a chain.

    Raises:
        BadEntry: it is none, or belongs to another chain.
        StorageError: git cannot read it.
    """
    if (writer, commit) in repo.chain_ends:  # what a commit holds does not change
        return repo.chain_ends[writer, commit]
    data = ledger.read_one(repo.history, commit, limit=entries.MAX_BYTES).data
    event, head = entries.head_of(data, where=f"'{writer}'")
    if event.writer != writer:
        raise BadEntry(f"cannot read chain '{writer}' of the ledger", why=f"it ends with an entry of '{event.writer}'")
    return head


def _own_head(repo: Repository, writer: Writer, commit: CommitId) -> Head:
    try:
        return _head(repo, writer.id, commit)
    except (BadEntry, StorageError) as err:
        raise _damaged(repo, writer.id, err.why) from err


def _damaged(repo: Repository, writer: str, why: str) -> BadEntry:
    return BadEntry(
        f"cannot add to chain '{writer}' of the ledger",
        why=why,
        next_step=f"run 'ckpt doctor'; to begin a new chain, rm '{writer_file(repo)}': the old one stays as it is",
        writer=writer,
    )


def refuse_damage(repo: Repository, flaws: Iterable[Flaw]) -> None:
    """Refuse to add to the chain of this clone if nobody could read what is added.

    Raises:
        BadEntry: an entry of it is damaged or missing.
    """
    own = writer_id(repo)
    for flaw in flaws:
        if own is not None and flaw.writer == own:
            raise _damaged(repo, own, f"entry {flaw.n}: {flaw.what}")


def _known_heads(repo: Repository, heads: Mapping[str, CommitId]) -> dict[str, Head]:
    """The last entries of other chains; what is no entry is nothing that a witness could have seen."""
    found = {}
    for writer, commit in heads.items():
        with suppress(BadEntry, NewerVersion, StorageError):
            if entries.is_writer(writer):
                found[writer] = _head(repo, writer, commit)
    return found


def iso(time: datetime) -> str:
    """A time as entries have it."""
    return time.astimezone(timezone.utc).isoformat(timespec="microseconds")


def this_writer(repo: Repository) -> tuple[str, str]:
    """Whose chain this clone adds to, and the pseudonym there of who runs this; made if it never did."""
    from ckptvcs.porcelain.following import locked

    with locked(repo):
        writer, _ = writer_of(repo)
    return writer.id, _actor(repo, writer)


def writer_id(repo: Repository) -> str | None:
    """Whose chain this clone adds to; None if it never did."""
    known = known_writer(repo)
    return known.id if known is not None else None


# ----------------------------------------------------------------------------------------------------------------- read


def counted(repo: Repository, writer: str, vouched: Vouched, signers: Signers | None) -> Vouched:
    """What of a chain counts where it is listed who may write. What this clone wrote itself counts here in any case."""
    if signers is None or writer == writer_id(repo):
        return vouched
    flaw = vouching.unlisted(writer, vouched.events, vouched.key, signers)
    if flaw is None:
        return vouched
    return Vouched(events=[e for e in vouched.events if e.n < flaw.n], key=vouched.key, flaw=flaw)


def events(repo: Repository, *, ops: Collection[str] | None = None) -> Iterator[Event]:
    """The union of all chains as far as they count, oldest first; never against the order of a chain.

    Args:
        repo: the repository.
        ops: the kinds of events that are wanted; None for all.
    """
    from ckptvcs.porcelain import signers

    listed = signers.read(repo)
    chains = {w: counted(repo, w, vouching.vouched(w, c), listed).events for w, c in chains_of(repo).items()}
    return (event for event in entries.in_order(chains) if ops is None or event.op in ops)


def chains_of(repo: Repository, prefix: str = ledger.LEDGER) -> dict[str, tuple[Signed, ...]]:
    """Every entry, oldest first, by writer. A chain that git cannot read is left out; `examine` tells of it."""
    found = {}
    for writer, head in ledger.heads(repo.history, prefix).items():
        with suppress(StorageError):  # `examine` tells of it
            found[writer] = ledger.read(repo.history, head, limit=entries.MAX_BYTES).entries
    return found


def growth_flaw(repo: Repository, writer: str, old: CommitId | None, new: CommitId) -> Flaw | None:
    """What is wrong with what a chain has grown by; None if it may be taken over.

    Args:
        repo: the repository.
        writer: whose chain it is.
        old: the entry that it ended with until now; None if the chain is new here.
        new: the one that it shall end with, which follows.
    """
    try:
        chain = ledger.read(repo.history, new, after=old, limit=entries.MAX_BYTES)
        before = ledger.read_one(repo.history, old, limit=entries.MAX_BYTES) if old else None
        start = entries.head_of(before.data, where=f"'{writer}'")[1] if before else None
    except (BadEntry, NewerVersion, StorageError) as err:
        return Flaw(writer=writer, n=1, what=err.why)
    key = claimed_key(before.signature) if before else None
    return vouching.vouched(writer, chain.entries, after=start, key=key).flaw


def holds(repo: Repository, head: CommitId, other: str) -> bool:
    """Whether a chain that ends with `head` has the entry that is the commit `other`, which need not be here."""
    return other in repo.history.repo and repo.history.is_ancestor(CommitId(other), head)


def refuse_unfit(repo: Repository, writer: str, head: CommitId, *, there: str | None, to: str) -> None:
    """Refuse to push a chain of this clone that does not go on from what the other side has of it.

    Raises:
        BadEntry: it was cut or rewritten here, or ends with what is no entry of it.
    """
    ref = f"{ledger.LEDGER}{writer}"
    if there is not None and not holds(repo, head, there):
        raise BadEntry(
            "cannot push the ledger of this clone",
            why=f"'{to}' has entries of its chain that are not here: it was cut or rewritten here",
            next_step=f"take back what is there: git fetch {to} +{ref}:{ref}; then push again. What was written down since "
            "is lost by that: 'ckpt audit log' shows it",
            writer=writer,
        )
    flaw = growth_flaw(repo, writer, None if there is None else CommitId(there), head)
    if flaw is not None:
        raise _damaged(repo, writer, f"entry {flaw.n}: {flaw.what}")


def were_pushed(repo: Repository, ids: Collection[CheckpointId], remote: str | None) -> bool:
    """Whether the ledger tells of all these checkpoints that they were pushed to a remote.

    Each chain is read from its end: what was pushed lately is found at once, however long the ledger is.
    """
    left = set(ids)
    for writer, head in ledger.heads(repo.history).items():
        with suppress(StorageError):
            for found in ledger.newest_first(repo.history, head, limit=entries.MAX_BYTES):
                left -= _pushed(found.data, writer, remote)
                if not left:
                    return True
    return False


def knows_remote(repo: Repository, remote: str) -> bool:
    """Whether the ledger tells of any push to a remote."""
    for writer, head in ledger.heads(repo.history).items():
        with suppress(StorageError):
            chain = ledger.newest_first(repo.history, head, limit=entries.MAX_BYTES)
            if any(_pushed(found.data, writer, remote) for found in chain):
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


def examine(repo: Repository, *, pinned: Mapping[str, Head] | None = None) -> tuple[Flaw, ...]:
    """Everything that is wrong with the ledger: every link, every signature, and what each chain saw of the others.

    Args:
        repo: the repository.
        pinned: heads that were remembered from an earlier look.
    """
    from ckptvcs.porcelain import signers

    flaws = []
    for writer, head in ledger.heads(repo.history).items():
        try:
            ledger.read(repo.history, head, limit=entries.MAX_BYTES)
        except StorageError as err:
            flaws.append(Flaw(writer=writer, n=1, what=err.why))
    chains, listed = chains_of(repo), signers.read(repo)
    plain = {writer: [signed.data for signed in chain] for writer, chain in chains.items()}
    flaws += entries.check(plain, pinned=pinned)
    known = {(flaw.writer, flaw.n) for flaw in flaws}
    for writer, chain in chains.items():
        vouched = vouching.vouched(writer, chain, thorough=True)
        unlisted = vouching.unlisted(writer, vouched.events, vouched.key, listed) if listed is not None else None
        flaws += [f for f in (vouched.flaw, unlisted) if f is not None and (f.writer, f.n) not in known]
    return tuple(flaws)
