"""The ledger in git: one chain of commits per writer, on `refs/ckptvcs/ledger/<writer>`; each holds the bytes of one entry.

An entry is the message of its commit, which has an empty tree and the signature of its writer, as `git commit -S` makes
one: one object per entry, and `git verify-commit` can check it. Before there were signatures it was the file `entry.json`
of the tree. What the bytes mean is not known here. A chain only grows, by compare-and-swap, and leads to no checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pygit2.enums import FileMode, ObjectType

from ckptvcs.signatures import Signed
from ckptvcs.storage.history.repository import OURS, CommitId, git_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    import pygit2

    from ckptvcs.storage.history.repository import History

LEDGER: Final = f"{OURS}ledger/"
OLD_ENTRY: Final = "entry.json"
_EMPTY_TREE: Final = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
"""git knows it without being told; so does libgit2, in repositories that name things by SHA-1."""
_SIGNATURE: Final = b"gpgsig "
_AROUND: Final = 2048
"""Bytes of a commit beside its message, at most: two names that we make, and a signature."""


def of_remote(name: str) -> str:
    """Where the chains of a git remote are kept as they are there."""
    return f"{OURS}remotes/{name}/ledger/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Entries of one chain, oldest first. `follows` says whether they follow the commit that was asked for."""

    entries: tuple[Signed, ...]
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
    entries: list[Signed] = []
    following: CommitId | None = head
    while following is not None and following != after:
        found, following = _entry(history, following, limit)
        entries.append(found)
    return Chain(entries=tuple(reversed(entries)), follows=following is not None)


def newest_first(history: History, head: CommitId, *, limit: int) -> Iterator[Signed]:
    """The entries of a chain from its end, each read when it is asked for; see `read`."""
    following: CommitId | None = head
    while following is not None:
        found, following = _entry(history, following, limit)
        yield found


def read_one(history: History, commit: CommitId, *, limit: int) -> Signed:
    """The entry that a commit holds; see `read`."""
    return _entry(history, commit, limit)[0]


def _entry(history: History, commit: CommitId, limit: int) -> tuple[Signed, CommitId | None]:
    """An entry, and the commit before it."""
    with git_errors(f"read entry {commit[:10]} of the ledger"):
        try:
            found = history.repo[commit].peel(ObjectType.COMMIT)
            parents = found.parent_ids
            data = _held(history.repo, found, limit) if len(parents) < 2 else Signed(b"")
        except KeyError as err:
            raise ValueError(f"git object {err.args[0]} is missing") from err
        return data, CommitId(str(parents[0])) if parents else None


def _held(repo: pygit2.Repository, commit: pygit2.Commit, limit: int) -> Signed:
    if str(commit.tree_id) != _EMPTY_TREE:
        return Signed(_file_of(repo, commit.tree, limit))
    if repo.odb.read_header(commit.id)[1] > limit + _AROUND:  # before it is unpacked
        return Signed(b"")
    payload, signature = _taken_apart(repo.odb.read(commit.id)[1])
    return Signed(payload.partition(b"\n\n")[2], payload, signature)


def _file_of(repo: pygit2.Repository, tree: pygit2.Tree, limit: int) -> bytes:
    if OLD_ENTRY not in tree or tree[OLD_ENTRY].filemode != FileMode.BLOB:
        return b""
    blob = tree[OLD_ENTRY].id
    if repo.odb.read_header(blob)[1] > limit:  # before it is unpacked
        return b""
    return repo.odb.read(blob)[1]


def _taken_apart(commit: bytes) -> tuple[bytes, bytes]:
    """A commit without its signature, which is what was signed, and the signature."""
    head, blank, message = commit.partition(b"\n\n")
    kept: list[bytes] = []
    signature: list[bytes] = []
    for line in head.split(b"\n"):
        if line.startswith(_SIGNATURE):
            signature.append(line.removeprefix(_SIGNATURE))
        elif signature and line.startswith(b" "):
            signature.append(line[1:])
        else:
            kept.append(line)
    return b"\n".join(kept) + blank + message, b"\n".join(signature)


def write(
    history: History,
    writer: str,
    data: bytes,
    *,
    after: CommitId | None,
    when: datetime,
    sign: Callable[[bytes], bytes],
) -> CommitId:
    """Write an entry that follows another; it is durable when this returns, and no ref names it yet.

    Args:
        history: the repository.
        writer: whose chain it is; safe as the end of a ref.
        data: the bytes of the entry, UTF-8.
        after: the entry before; None for a new chain.
        when: the time of the entry, aware.
        sign: gives the signature of bytes, as armoured by OpenSSH.

    Raises:
        StorageError: the disk is full, read-only or failing.
    """
    with git_errors("write an entry of the ledger"):
        # Not who did it: entries are never removed, and a name is personal data.
        who = f"ckptvcs ledger <{writer}@ledger.invalid> {int(when.timestamp())} +0000"
        parent = f"parent {after}\n" if after else ""
        history.repo.TreeBuilder().write()  # the empty tree; where it is there already nothing is written
        head = f"tree {_EMPTY_TREE}\n{parent}author {who}\ncommitter {who}".encode("ascii")
        signature = sign(head + b"\n\n" + data).replace(b"\n", b"\n ")
        commit = head + b"\n" + _SIGNATURE + signature + b"\n\n" + data
        return CommitId(str(history.repo.write(ObjectType.COMMIT, commit)))
