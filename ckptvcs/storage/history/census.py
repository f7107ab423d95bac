"""A census of a history: every commit, and the files in it that tell of data. Each tree is read once, however many have it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

import pygit2
from pygit2.enums import ObjectType, SortMode

from ckptvcs.storage.history.repository import BlobId, CommitId, git_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from ckptvcs.storage.history.repository import History

    Wanted = Callable[[str], bool]

Files = tuple[tuple[str, BlobId], ...]


class Counted(NamedTuple):
    """A commit, and its files whose names are wanted."""

    commit: CommitId
    parents: tuple[CommitId, ...]
    time: int
    """When it was made, in seconds since the epoch."""
    files: Files


def census(history: History, tips: Sequence[str], wanted: Wanted, *, known: Collection[str] = ()) -> Iterator[Counted]:
    """Every commit that can be reached, parents before their children.

    Args:
        history: the repository.
        tips: git ids of commits, or of tags of them.
        wanted: by name, which files are told of.
        known: commits that are left out, with all that is behind them, which is in it as well.

    Raises:
        StorageError: git cannot read one of them.
    """
    repo = history.repo
    trees: dict[pygit2.Oid, Files] = {}
    ids: dict[str, CommitId] = {}  # a commit is named by all that follow it
    with git_errors("read the history"):
        walker = repo.walk(None, SortMode.TOPOLOGICAL | SortMode.TIME | SortMode.REVERSE)
        new = False
        for tip in tips:
            commit = _peeled(repo[tip]) if tip not in known else None
            if commit is not None and str(commit.id) not in known:
                new = True
                walker.push(commit.id)
        for edge in _edges(repo, tips, known) if new else ():
            walker.hide(edge)
        for each in walker:
            files = _files(repo, each.tree_id, wanted, trees)
            name = CommitId(str(each.id))
            ids[name] = name
            parents = tuple(ids.get(str(parent), CommitId(str(parent))) for parent in each.parent_ids)
            yield Counted(name, parents, each.commit_time, files)


def _edges(repo: pygit2.Repository, tips: Sequence[str], known: Collection[str]) -> list[pygit2.Oid]:
    """The known commits that new ones begin at."""
    found, seen = list[pygit2.Oid](), set[str]()
    left = [tip for tip in tips if tip not in known] if known else []
    while left:
        tip = left.pop()
        commit = _peeled(repo[tip])
        for parent in commit.parent_ids if commit is not None and tip not in seen else ():
            if str(parent) in known:
                found.append(parent)
            else:
                left.append(str(parent))
        seen.add(tip)
    return found


def _peeled(found: pygit2.Object) -> pygit2.Commit | None:
    try:
        return found.peel(ObjectType.COMMIT)
    except (ValueError, pygit2.GitError):  # a tag may stand for a tree or a blob
        return None


def _files(repo: pygit2.Repository, tree: pygit2.Oid, wanted: Wanted, known: dict[pygit2.Oid, Files]) -> Files:
    """The wanted files of a tree, by their paths in it."""
    if tree in known:
        return known[tree]
    found: list[tuple[str, BlobId]] = []
    for entry in repo[tree]:  # type: ignore[attr-defined]
        name = entry.name or ""
        if entry.type == ObjectType.TREE:
            found += [(sys.intern(f"{name}/{path}"), blob) for path, blob in _files(repo, entry.id, wanted, known)]
        elif entry.type == ObjectType.BLOB and wanted(name):
            found.append((sys.intern(name), BlobId(str(entry.id))))
    files = tuple(found)
    if (
        not files or len(known) < _REMEMBERED
    ):  # most trees; what has some is hardly ever met twice, apart from those of folders beside
        known[tree] = files
    return files


_REMEMBERED = 1000
