"""The ledger in git: one chain of commits per writer, on `refs/ckptvcs/ledger/<writer>`; each holds the bytes of one entry.

What the bytes mean is not known here. A chain only grows, by compare-and-swap, and its commits lead to no checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pygit2.enums import FileMode, ObjectType

from ckptvcs.storage.history.repository import OURS, CommitId, Identity, git_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    import pygit2

    from ckptvcs.storage.files import Lock
    from ckptvcs.storage.history.repository import History

LEDGER: Final = f"{OURS}ledger/"
ENTRY: Final = "entry.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Entries of one chain, oldest first. `follows` says whether they follow the commit that was asked for."""

    entries: tuple[bytes, ...]
    follows: bool


def heads(history: History, prefix: str = LEDGER) -> dict[str, CommitId]:
    """What every chain ends with, by writer, in the order of their names. It may be anything until it is read."""
    with git_errors("list the chains of the ledger"):
        names = sorted(name for name in history.repo.references if name.startswith(prefix))
        targets = {name: history.repo.references.get(name) for name in names}
        # No symbolic refs: we make none, and one could lead anywhere.
        found = {name: ref.target for name, ref in targets.items() if ref is not None}
    return {n.removeprefix(prefix): CommitId(str(oid)) for n, oid in found.items() if not isinstance(oid, str)}


def read(history: History, head: CommitId, *, after: CommitId | None = None, limit: int) -> Chain:
    """Read a chain from its end.

    Args:
        history: the repository.
        head: the newest commit.
        after: a commit where to stop; it is not read. Where it is no part of the chain, all of the chain is read.
        limit: how many bytes an entry has at most. A larger one, and a commit that holds none, or stands at the end of
            two chains, is given as no bytes at all.

    Raises:
        StorageError: a commit is missing or damaged.
    """
    entries: list[bytes] = []
    following: CommitId | None = head
    while following is not None and following != after:
        data, following = _entry(history, following, limit)
        entries.append(data)
    return Chain(entries=tuple(reversed(entries)), follows=following is not None)


def newest_first(history: History, head: CommitId, *, limit: int) -> Iterator[bytes]:
    """The bytes of the entries of a chain from its end, each read when it is asked for; see `read`."""
    following: CommitId | None = head
    while following is not None:
        data, following = _entry(history, following, limit)
        yield data


def read_one(history: History, commit: CommitId, *, limit: int) -> bytes:
    """The bytes of the entry that a commit holds; see `read`."""
    return _entry(history, commit, limit)[0]


def _entry(history: History, commit: CommitId, limit: int) -> tuple[bytes, CommitId | None]:
    """The bytes of an entry, and the commit before it."""
    with git_errors(f"read entry {commit[:10]} of the ledger"):
        try:
            found = history.repo[commit].peel(ObjectType.COMMIT)
            parents = found.parent_ids
            data = _bytes_of(history.repo, found.tree, limit) if len(parents) < 2 else b""
        except KeyError as err:
            raise ValueError(f"git object {err.args[0]} is missing") from err
        return data, CommitId(str(parents[0])) if parents else None


def _bytes_of(repo: pygit2.Repository, tree: pygit2.Tree, limit: int) -> bytes:
    if ENTRY not in tree or tree[ENTRY].filemode != FileMode.BLOB:
        return b""
    blob = tree[ENTRY].id
    if repo.odb.read_header(blob)[1] > limit:  # before it is unpacked
        return b""
    return repo.odb.read(blob)[1]


def append(
    history: History, writer: str, data: bytes, *, after: CommitId | None, op: str, when: datetime, lock: Lock
) -> CommitId:
    """Put an entry at the end of a chain; it is durable when this returns.

    Args:
        history: the repository.
        writer: whose chain it is; safe as the end of a ref.
        data: the bytes of the entry.
        after: the commit that the chain ends with; None for a new chain.
        op: what the entry is about, for `git log`.
        when: the time of the entry, aware.
        lock: our repository lock, held.

    Raises:
        RefMoved: the chain does not end there any more; look again.
        LockHeld: another git process holds the ref and does not let go.
        StorageError: the disk is full, read-only or failing; nothing was added.
    """
    from ckptvcs.storage.history import commits  # who only looks does not need what writes

    commit = commits.write_commit(
        history,
        base=None,
        parents=(after,) if after else (),
        changes={ENTRY: data},
        message=f"{op}\n",
        # Not who did it: entries are never removed, and a name is personal data.
        identity=Identity(name="ckptvcs ledger", email=f"{writer}@ledger.invalid"),
        when=when,
    )
    commits.move_ref(history, LEDGER + writer, old=after, new=commit, reason=f"ckpt {op}", lock=lock)
    return commit
