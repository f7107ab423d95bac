"""`audit`: who did what, whether anybody changed what was written, and whose keys may write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ckptvcs.digest import is_digest
from ckptvcs.domain import events as entries
from ckptvcs.domain import vouching
from ckptvcs.domain.events import Event, Flaw, Head
from ckptvcs.domain.when import moment
from ckptvcs.errors import BadEntry, FormatError, NewerVersion
from ckptvcs.porcelain import ledger, signers
from ckptvcs.porcelain.writer import known_writer
from ckptvcs.storage.history import ancestry
from ckptvcs.storage.history import ledger as storage
from ckptvcs.storage.history.repository import TAGS, CommitId
from ckptvcs.storage.history.transport import Git

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from ckptvcs.porcelain.repo import Repository

PINS_FORMAT: Final = "ckptvcs-pins/1"
_MAX_PINS: Final = 16 << 20


# ------------------------------------------------------------------------------------------------------------------ log


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """An event, and who did it as far as that is known."""

    event: Event
    who: str
    """The name of the key in ckpt.signers, else the pseudonym of the entry."""
    here: bool
    """Whether this clone wrote it."""
    counts: bool
    """Whether its writer may write: what may not is shown, and changes nothing."""


def log(
    repo: Repository,
    *,
    since: str | None = None,
    until: str | None = None,
    actor: str | None = None,
    ops: Collection[str] = (),
) -> list[Deed]:
    """What was done, newest first, as far as chains are whole; what does not count is marked.

    Args:
        repo: the repository.
        since: only from this time on; as `moment` reads it, spans are past.
        until: only up to this time.
        actor: only what this name, pseudonym or writer did; `me` is who runs this, in this clone.
        ops: only events of these kinds: `restore`, or `run` for all whose first word it is.

    Raises:
        UsageError: a time means nothing.
        BadConfig: ckpt.signers cannot be read.
    """
    first, last = (ledger.iso(moment(t, repo.now(), ahead=False)) if t is not None else None for t in (since, until))
    wanted = _me(repo) if actor == "me" else {actor}
    found = [
        deed
        for deed in _deeds(repo)
        if (first is None or deed.event.time >= first)
        and (last is None or deed.event.time <= last)
        and (actor is None or wanted & {deed.who, deed.event.actor, deed.event.writer})
        and (not ops or any(deed.event.op == op or deed.event.op.startswith(f"{op}.") for op in ops))
    ]
    return found[::-1]


def _me(repo: Repository) -> set[str | None]:
    writer = known_writer(repo)
    return {writer.pseudonym(repo.identity.email)} if writer is not None else set()


def _deeds(repo: Repository) -> Iterator[Deed]:
    listed, own = signers.read(repo), ledger.writer_id(repo)
    chains, names, count = {}, {}, {}
    for writer, chain in ledger.chains_of(repo).items():
        vouched = vouching.vouched(writer, chain)
        chains[writer], count[writer] = vouched.events, len(ledger.counted(repo, writer, vouched, listed).events)
        names[writer] = listed.name_of(vouched.key) if listed is not None else None
    for event in entries.in_order(chains):
        who, here = names[event.writer] or event.actor, event.writer == own
        yield Deed(event=event, who=who, here=here, counts=event.n <= count[event.writer])


# --------------------------------------------------------------------------------------------------------------- verify


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a look at the whole ledger found."""

    chains: int
    entries: int
    unsigned: tuple[str, ...]
    """Chains from before there were signatures."""
    listed: bool
    """Whether it is listed who may write."""
    flaws: tuple[Flaw, ...]
    notes: tuple[str, ...]


def verify(repo: Repository, *, pins: Path | None = None, remote: str | None = None) -> Verdict:
    """Look at every entry, link and signature, at what chains saw of each other, and at golden marks; change nothing.

    Args:
        repo: the repository.
        pins: a file that `heads` made at an earlier time, elsewhere.
        remote: a git remote, to be asked whether its chains are those that are here, or have grown.

    Raises:
        FormatError: the file holds no heads.
        BadConfig: ckpt.signers cannot be read.
        NotFound, StorageError: git knows no such remote, or it does not answer.
    """
    chains = ledger.chains_of(repo)
    flaws = list(ledger.examine(repo, pinned=read_pins(pins) if pins is not None else None))
    theirs = Git(repo.history, repo.around.variables).list_refs(remote) if remote is not None else None
    marks, notes = _marks(repo, remote, theirs)
    flaws += marks
    if remote is not None and theirs is not None:
        flaws += _against(repo, remote, theirs)
    keys = vouching.keys_of(chains)
    return Verdict(
        chains=len(chains),
        entries=sum(map(len, chains.values())),
        unsigned=tuple(sorted(writer for writer, key in keys.items() if key is None)),
        listed=signers.text_of(repo) is not None,
        flaws=tuple(sorted(flaws, key=lambda flaw: (flaw.writer, flaw.n))),
        notes=tuple(notes),
    )


def _marks(repo: Repository, remote: str | None, theirs: Mapping[str, str] | None) -> tuple[list[Flaw], list[str]]:
    """Golden marks that are not what the ledger says was made, here or at a remote, and those that are not there at all."""
    flaws, notes = [], []
    for event in ledger.events(repo, ops=(ledger.MARK,)):
        name, commit = event.facts.get("name"), event.facts.get("commit")
        if not isinstance(name, str) or not isinstance(commit, str):
            continue
        there = repo.history.tag(name)
        if there is None:
            notes.append(
                f"'{name}' is not here, which {event.writer}#{event.n} made: it was not pushed, or was deleted"
            )
        elif there.commit != commit:
            what = f"'{name}' stands at {there.commit[:10]}, it was made at {commit[:10]}"
            flaws.append(Flaw(writer=event.writer, n=event.n, what=what))
        elif theirs is not None and TAGS + name not in theirs:
            notes.append(f"'{name}' is not at '{remote}': it was not pushed, or was deleted there")
        elif theirs is not None and theirs[TAGS + name] != ancestry.target(repo.history, TAGS + name):
            what = f"'{name}' is another one at '{remote}'"
            flaws.append(Flaw(writer=event.writer, n=event.n, what=what))
    return flaws, notes


def _against(repo: Repository, remote: str, theirs: Mapping[str, str]) -> Iterator[Flaw]:
    """Chains that a remote has no more, or shorter than they were there; and our own, if it has more of it than we."""
    git, own = Git(repo.history, repo.around.variables), ledger.writer_id(repo)
    known = storage.heads(repo.history, storage.of_remote(remote))
    alone = len(git.remotes()) == 1  # then what others wrote can have come from nowhere else
    for writer, head in storage.heads(repo.history).items():
        there = theirs.get(storage.LEDGER + writer)
        if writer == own and there is not None and not ledger.holds(repo, head, there):
            what = f"'{remote}' has entries of it that are not here: it was cut or rewritten here"
            yield Flaw(writer=writer, n=_length(repo, head), what=what)
            continue
        least = head if alone and writer != own else known.get(writer)
        if least is None:
            continue
        n = _length(repo, least)
        if there is None:
            yield Flaw(writer=writer, n=1, what=f"'{remote}' has nothing of it any more; here it has {n} entries")
        elif there in repo.history.repo and not repo.history.is_ancestor(least, CommitId(there)):
            yield Flaw(writer=writer, n=n, what=f"'{remote}' has other entries, or less of them, than it had")


def _length(repo: Repository, head: CommitId) -> int:
    """How many entries a chain has, as far as its last one says it."""
    data = storage.read_one(repo.history, head, limit=entries.MAX_BYTES).data
    try:
        return entries.from_bytes(data, where="head").n
    except (BadEntry, NewerVersion):
        return 1


# ----------------------------------------------------------------------------------------------------------------- pins


class _Pins(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    heads: dict[str, tuple[int, str]]


def heads(repo: Repository) -> dict[str, Any]:
    """What every chain ends with now. Kept elsewhere, it shows what was cut off or rewritten since."""
    plain = {w: [s.data for s in chain] for w, chain in ledger.chains_of(repo).items()}
    return {"format": PINS_FORMAT, "heads": {w: (len(c), entries.link(c[-1])) for w, c in sorted(plain.items()) if c}}


def read_pins(path: Path) -> Mapping[str, Head]:
    """The heads in a file that `heads` made.

    Raises:
        FormatError: it holds none.
    """
    try:
        with path.open("rb") as file:
            pins = msgspec.json.decode(file.read(_MAX_PINS), type=_Pins)
        if pins.format != PINS_FORMAT or not all(is_digest(h) and n > 0 for n, h in pins.heads.values()):
            raise ValueError(f"it is not of the form {PINS_FORMAT}")
    except (OSError, ValueError) as err:
        raise FormatError(
            f"cannot read the heads in '{path}'",
            why=str(getattr(err, "strerror", None) or err)[:200],
            next_step="make such a file with 'ckpt audit heads > FILE'",
        ) from err
    return {writer: Head(n=n, hashed=hashed) for writer, (n, hashed) in pins.heads.items()}
