"""What the chains of the ledger add up to: late metrics, holds, what was dropped. What was read is remembered, chain by chain.

A chain counts as far as it is whole, and as far as its writer may write. What is left out is told, never silently.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timezone
from typing import TYPE_CHECKING, Final

import msgspec

from ckptvcs._version import VERSION
from ckptvcs.digest import digest
from ckptvcs.domain import events as entries
from ckptvcs.domain import vouching
from ckptvcs.domain.events import Flaw, Head
from ckptvcs.domain.fates import Collected, Fates, dropped, last_collected, rescued, said_of_fates, together
from ckptvcs.domain.holds import Holds, said_of_holds, standing
from ckptvcs.domain.running import Running, said_of_runs, under_way
from ckptvcs.errors import StorageError
from ckptvcs.porcelain import signers
from ckptvcs.porcelain.ledger import counted, iso, writer_id
from ckptvcs.signatures import PublicKey  # noqa: TC001 - msgspec looks types up when it runs
from ckptvcs.storage.history import ledger
from ckptvcs.storage.history.repository import CommitId  # noqa: TC001 - likewise

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from ckptvcs.domain.checkpoint import Checkpoint, CheckpointId
    from ckptvcs.domain.events import Event
    from ckptvcs.domain.fates import Dropped
    from ckptvcs.domain.holds import Hold
    from ckptvcs.domain.running import Started
    from ckptvcs.domain.signers import Signers
    from ckptvcs.domain.vouching import Vouched
    from ckptvcs.porcelain.repo import Repository

_WORTH_REMEMBERING: Final = 64
"""Entries that it takes to read before what they say is remembered: fewer are read faster than a long memory is written."""


@dataclass(frozen=True, slots=True)
class Account:
    """What the ledger says now, and what had to be left out."""

    late: entries.Late
    """The newest note of every metric, by checkpoint."""
    holds: Mapping[CheckpointId, tuple[Hold, ...]] = field(default_factory=dict)
    """Those that stand."""
    dropped: Mapping[CheckpointId, Dropped] = field(default_factory=dict)
    """What of each checkpoint is condemned or gone."""
    rescued: Mapping[CheckpointId, str] = field(default_factory=dict)
    """When checkpoints were rescued, as in an entry."""
    collected: Mapping[str, Collected] = field(default_factory=dict)
    """The last collection, by writer."""
    running: tuple[Started, ...] = ()
    """Training that may be under way, and that went on from a checkpoint."""
    flaws: tuple[Flaw, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """The flaws in words."""
        return tuple(
            f"chain '{flaw.writer}' of the ledger counts only up to entry {flaw.n - 1}: {flaw.what}"
            for flaw in self.flaws
        )

    def on(self, checkpoint: Checkpoint) -> Checkpoint:
        """A checkpoint with what was noted of it."""
        late, dropped = self.late.get(checkpoint.id), self.dropped.get(checkpoint.id)
        return replace(checkpoint, late=late or {}, dropped=dropped) if late or dropped else checkpoint


def with_late(repo: Repository, *checkpoints: Checkpoint) -> tuple[Checkpoint, ...]:
    """Checkpoints with what was noted of them."""
    account = read(repo)
    return tuple(map(account.on, checkpoints))


def late_metrics(repo: Repository) -> Mapping[CheckpointId, Mapping[str, int | float | str]]:
    """What was noted of each checkpoint after it was made; the newest note wins for each metric."""
    late = read(repo).late
    return {checkpoint: {name: found.value for name, found in said.items()} for checkpoint, said in late.items()}


def read(repo: Repository) -> Account:
    """What all chains say together."""
    heads = ledger.heads(repo.history)
    if not heads:
        return Account({})
    text = signers.text_of(repo)
    listed, memory = signers.parsed(repo, text), _Memory(by=_reader(repo, text), chains={})
    known = _remembered(repo, memory.by)
    unreadable, count = [], 0
    for writer, head in heads.items():
        try:
            memory.chains[writer], new = _fold(repo, writer, head, known.get(writer), listed)
        except StorageError as err:
            unreadable.append(Flaw(writer=writer, n=1, what=err.why))
            continue
        count += new
    if count >= _WORTH_REMEMBERING:
        _remember(repo, memory)
    chains = memory.chains.values()
    fates = together(chain.fates for chain in chains)
    return Account(
        entries.joined(chain.late for chain in chains),
        standing((chain.holds for chain in chains), iso(repo.now())),
        dropped(fates),
        rescued(fates),
        {writer: chain.collected for writer, chain in memory.chains.items() if chain.collected is not None},
        tuple(under_way((chain.running for chain in chains), repo.now().astimezone(timezone.utc))),
        (*unreadable, *(chain.flaw for chain in chains if chain.flaw is not None)),
    )


class _Folded(msgspec.Struct, frozen=True):
    """What one chain says, up to one commit. Git names that by its content: what it says is settled."""

    commit: CommitId
    n: int
    hashed: str
    key: PublicKey | None
    late: entries.Late
    holds: Holds
    fates: Fates
    running: Running
    collected: Collected | None = None
    flaw: Flaw | None = None
    """What is wrong with the first entry that does not count; none behind it does."""
    broken: bool = False
    """Whether nothing behind it can be read; else who wrote it may not, and all that it can do is hold."""


def _fold(
    repo: Repository, writer: str, head: CommitId, known: _Folded | None, listed: Signers | None
) -> tuple[_Folded, int]:
    """What a chain says, and how many entries had to be read for it."""
    if known is not None and known.commit == head:
        return known, 0
    after = known.commit if known else None
    chain = ledger.read(repo.history, head, after=after, limit=entries.MAX_BYTES)
    base = known if chain.follows else None
    if base is not None and base.broken:
        return msgspec.structs.replace(base, commit=head), len(chain.entries)
    start = Head(n=base.n, hashed=base.hashed) if base else None
    vouched = vouching.vouched(writer, chain.entries, after=start, key=base.key if base else None)
    counts, flaw = _counted(repo, writer, vouched, listed, base.flaw if base else None)
    folded = _Folded(
        commit=head,
        n=(base.n if base else 0) + len(vouched.events),
        hashed=entries.link(chain.entries[-1].data),
        key=vouched.key,
        late=entries.noted(counts, onto=base.late if base else None),
        holds=_holds(vouched.events, counts, base.holds if base else Holds()),
        fates=said_of_fates(counts, onto=base.fates if base else None),
        collected=last_collected(counts, onto=base.collected if base else None),
        running=said_of_runs(vouched.events, onto=base.running if base else None),
        flaw=flaw,
        broken=vouched.flaw is not None,
    )
    return folded, len(chain.entries)


def _counted(
    repo: Repository, writer: str, vouched: Vouched, listed: Signers | None, before: Flaw | None
) -> tuple[list[Event], Flaw | None]:
    """The entries that count, and what is wrong with the first that does not."""
    if before is not None:
        return [], before
    found = counted(repo, writer, vouched, listed)
    return found.events, found.flaw


def _holds(events: Iterable[Event], counts: Iterable[Event], onto: Holds) -> Holds:
    """A hold keeps something, so everybody may make one; to release takes a key that may write."""
    made, released = said_of_holds(events, onto=onto).made, said_of_holds(counts, onto=onto).released
    return Holds(made=made, released=released)


# ----------------------------------------------------------------------------------------------------- what is remembered


class _Memory(msgspec.Struct):
    """The hint `.git/ckptvcs/ledger.json`: sealed, so that what a disk or an editor made of it is not believed."""

    by: str
    chains: dict[str, _Folded]


def _reader(repo: Repository, listed: str | None) -> str:
    """What decides what counts, beside the chains: with another version, list or writer all is read anew."""
    return f"{VERSION} {digest((listed or '').encode())[:16]} {listed is not None} {writer_id(repo)}"


def _memory_file(repo: Repository) -> Path:
    return repo.private / "ledger.json"


def _remembered(repo: Repository, by: str) -> dict[str, _Folded]:
    try:
        seal, _, data = _memory_file(repo).read_bytes().partition(b"\n")
        if seal.decode("ascii") != digest(data):
            return {}
        memory = msgspec.json.decode(data, type=_Memory)
    except (OSError, ValueError):
        return {}
    return memory.chains if memory.by == by else {}


def _remember(repo: Repository, memory: _Memory) -> None:
    data = msgspec.json.encode(memory)
    with suppress(OSError):  # it is a hint; a repository that we may only read has none
        if repo.private.is_dir():
            _memory_file(repo).write_bytes(digest(data).encode("ascii") + b"\n" + data)
