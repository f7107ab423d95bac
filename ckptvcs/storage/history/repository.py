"""Reading a git repository: names to commits, commits to files, ancestors in order."""

from __future__ import annotations

import contextlib
import heapq
import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, NewType

import pygit2
from pygit2.enums import ObjectType, SortMode

from ckptvcs.errors import AmbiguousRevision, NoRepository, StorageError, UsageError
from ckptvcs.paths import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

CommitId = NewType("CommitId", str)
BlobId = NewType("BlobId", str)

HEADS = "refs/heads/"
TAGS = "refs/tags/"
OURS = "refs/ckptvcs/"  # what we keep in git beside checkpoints, such as the ledger: it leads to none

_PARENTS = re.compile(r"(.*?)((?:[~^]\d{0,9})*)")
_STEP = re.compile(r"([~^])(\d*)")

# libgit2 makes neither objects nor refs durable unless it is told to; a commit that is reported must survive a power cut.
pygit2.settings.enable_fsync_gitdir(True)  # noqa: FBT003 - pygit2's signature
# Of a pack, libgit2 would map a gigabyte at once, which counts as our memory once it was read.
pygit2.settings.mwindow_size = 8 << 20
pygit2.settings.mwindow_mapped_limit = 64 << 20
pygit2.settings.cache_max_size(32 << 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who makes a commit."""

    name: str
    email: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A git commit, as far as we look at it. `time` is that of the committer, `authored` that of the author."""

    id: CommitId
    parents: tuple[CommitId, ...]
    message: str
    author: Identity
    time: datetime
    authored: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """A tag and the commit it stands for; `message` is None for a lightweight one."""

    name: str
    commit: CommitId
    message: str | None


@contextlib.contextmanager
def git_errors(doing: str) -> Iterator[None]:
    """Turn what libgit2 raises into our errors. pygit2 raises OSError as well as GitError for a failing disk."""
    try:
        yield
    except (pygit2.GitError, OSError, ValueError, KeyError) as err:
        why = printable(str(err.args[0] if err.args else err))
        raise StorageError(f"cannot {doing}", why=why, next_step="run 'git fsck' and 'ckpt doctor'") from err


def is_locked(err: Exception) -> bool:
    """Whether an error of libgit2 means that another git process holds a lock; it has three texts for that."""
    return any(text in str(err) for text in ("failed to lock file", "failed to create locked file", "index is locked"))


class History:
    """One git repository with a worktree."""

    def __init__(self, repo: pygit2.Repository) -> None:
        self.repo = repo
        self.root = Path(repo.workdir).absolute()
        self.git_dir = Path(repo.path).absolute()
        common = self.git_dir / "commondir"
        relative = common.read_text(encoding="utf-8").strip() if common.is_file() else "."
        self.common_dir = (self.git_dir / relative).resolve()
        self.private = self.common_dir / "ckptvcs"
        """What is this clone's alone, and can be lost. The first command that writes makes it."""

    @classmethod
    def discover(cls, start: Path) -> History:
        """Open the repository that `start` is in.

        Raises:
            NoRepository: there is none, it is bare, or libgit2 cannot read its format.
        """
        try:
            found = pygit2.discover_repository(str(start))
            repo = pygit2.Repository(found) if found else None
        except (pygit2.GitError, OSError, ValueError, KeyError) as err:
            raise NoRepository(
                f"cannot open the git repository at '{start}'",
                why=printable(str(err.args[0] if err.args else err)),
                next_step="run 'git status' there: git names the cause",
            ) from err
        if repo is None:
            raise NoRepository(f"no git repository at '{start}'", next_step="run 'ckpt init' to make one")
        if repo.is_bare:
            raise NoRepository(
                f"cannot work in '{start}'",
                why="the git repository there is bare: it has no worktree and no DVC cache",
                next_step="clone it and work in the clone",
            )
        return cls(repo)

    @staticmethod
    def create(path: Path) -> History:
        """Make a repository with the branch `main`, or open the one that is there."""
        with git_errors(f"make a git repository at '{path}'"):
            return History(pygit2.init_repository(str(path), initial_head="main"))

    # ---- identity

    # ---- names

    def head(self) -> CommitId | None:
        """The commit that is checked out, or None before the first one."""
        with git_errors("read HEAD"):
            return None if self.repo.head_is_unborn else CommitId(str(self.repo.head.target))

    def head_branch(self) -> str | None:
        """The branch that is checked out (it may have no commit yet), or None if HEAD is detached."""
        with git_errors("read HEAD"):
            target = self.repo.lookup_reference("HEAD").raw_target
            name = target.decode() if isinstance(target, bytes) else str(target)
            return name.removeprefix(HEADS) if name.startswith(HEADS) else None

    def tip(self, ref: str) -> CommitId | None:
        """The commit that a ref such as `refs/heads/main` leads to, or None if there is no such ref."""
        with git_errors(f"read '{ref}'"):
            try:
                found = self.repo.references.get(ref)
            except (pygit2.InvalidSpecError, ValueError):
                return None
            return None if found is None else CommitId(str(found.peel(ObjectType.COMMIT).id))

    def resolve(self, revision: str) -> CommitId | None:
        """The commit of any git revision, or None if there is none.

        Raises:
            AmbiguousRevision: an abbreviated id that several objects begin with.
            UsageError: it is no revision at all.
        """
        if len(revision) > 512 or not revision.isprintable():
            raise UsageError(
                f"no revision '{printable(revision[:60])}'", why="it holds control characters or is too long"
            )
        try:
            return CommitId(str(self.repo.revparse_single(revision).peel(ObjectType.COMMIT).id))
        except KeyError:
            self._refuse_damage(revision)
            return None
        except ValueError as err:
            if "ambiguous" in str(err) and "too short" not in str(err):
                raise AmbiguousRevision(
                    f"'{revision}' is ambiguous",
                    why=f"git says: {printable(str(err))}",
                    next_step="write more of its characters",
                ) from err
            return None
        except pygit2.GitError:
            with git_errors(f"read '{printable(revision)}'"):
                raise

    def _refuse_damage(self, revision: str) -> None:
        """Raise if git does not find a revision because a commit is missing: its words are those for an unknown name."""
        base, steps = _PARENTS.fullmatch(revision).groups()  # type: ignore[union-attr]
        with git_errors(f"read '{printable(revision)}'"):
            try:
                following = self.repo.lookup_reference_dwim(base).resolve().target
            except (KeyError, ValueError):
                return  # no ref, or one that leads nowhere yet
            for choice in _choices(steps):
                commit = self.repo[following].peel(ObjectType.COMMIT)
                family = [commit.id, *commit.parent_ids]
                if choice >= len(family):
                    return
                following = family[choice]
            self.repo[following]  # raises if it is missing

    def is_branch_name(self, name: str) -> bool:
        """Whether git allows a branch of that name."""
        return not name.startswith("-") and name.isprintable() and pygit2.reference_is_valid_name(HEADS + name)

    def is_checked_out(self, branch: str) -> bool:
        """Whether a branch is checked out, in this worktree or a linked one."""
        with git_errors(f"look at branch '{branch}'"):
            found = self.repo.branches.local.get(branch)
            return found is not None and found.is_checked_out()

    def branches(self) -> dict[str, CommitId]:
        """Local branches and their tips."""
        return {name.removeprefix(HEADS): tip for name, tip in self._refs(HEADS)}

    def tags(self) -> list[Tag]:
        """All tags that lead to a commit, by name."""
        return [self._tag(name, commit) for name, commit in self._refs(TAGS)]

    def tag(self, name: str) -> Tag | None:
        commit = self.tip(TAGS + name)
        return None if commit is None else self._tag(TAGS + name, commit)

    def _tag(self, ref: str, commit: CommitId) -> Tag:
        with git_errors(f"read '{ref}'"):
            target = self.repo[self.repo.references[ref].target]
        message = target.message if isinstance(target, pygit2.Tag) else None
        return Tag(name=ref.removeprefix(TAGS), commit=commit, message=message)

    def _refs(self, prefix: str) -> Iterator[tuple[str, CommitId]]:
        with git_errors("list refs"):
            names = sorted(name for name in self.repo.references if name.startswith(prefix))
        for name in names:
            commit = self._commit_of(name)
            if commit is not None:
                yield name, commit

    def _commit_of(self, ref: str) -> CommitId | None:
        with git_errors(f"read '{ref}'"):
            try:
                found = self.repo.references[ref].resolve()
            except KeyError:
                return None  # removed meanwhile, or a name for one that is: `origin/HEAD` after a branch was renamed
            try:
                return CommitId(str(found.peel(ObjectType.COMMIT).id))
            except ValueError:
                return None  # a tag may stand for a tree or a blob; those are no commits, and none of our business

    def remote_tips(self) -> dict[str, CommitId]:
        """Every ref outside of `refs/heads` and `refs/tags` that leads to a commit, and is none of our own book-keeping."""
        return {name: tip for name, tip in self._refs("refs/") if not name.startswith((HEADS, TAGS, OURS))}

    # ---- commits and files

    def commit(self, commit: CommitId) -> Commit:
        """Look at a commit."""
        with git_errors(f"read commit {commit[:10]}"):
            return as_commit(self.repo[commit].peel(ObjectType.COMMIT))

    def walk(self, tips: list[CommitId]) -> Iterator[Commit]:
        """Commits reachable from `tips`, children before their parents, newest first. Reads the whole history first."""
        with git_errors("walk the history"):
            walker = self.repo.walk(None, SortMode.TOPOLOGICAL | SortMode.TIME)
            for tip in tips:
                walker.push(tip)
            for found in walker:
                yield as_commit(found)

    def newest_first(self, tips: list[CommitId]) -> Iterator[Commit]:
        """Commits reachable from `tips` by their time, as `git log` gives them, each read when it is asked for.

        Where a clock went backwards, a parent may come before its child.
        """
        waiting = {tip: self.commit(tip) for tip in tips}
        queue = [(-commit.time.timestamp(), n, commit) for n, commit in enumerate(waiting.values())]
        heapq.heapify(queue)
        seen = set(waiting)
        while queue:
            _, _, commit = heapq.heappop(queue)
            yield commit
            for parent in commit.parents:
                if parent not in seen:
                    seen.add(parent)
                    found = self.commit(parent)
                    heapq.heappush(queue, (-found.time.timestamp(), len(seen), found))

    def first_parents(self, tip: CommitId) -> Iterator[Commit]:
        """A commit, its first parent, the first parent of that, and so on."""
        following: CommitId | None = tip
        while following is not None:
            commit = self.commit(following)
            yield commit
            following = commit.parents[0] if commit.parents else None

    def is_ancestor(self, ancestor: CommitId, descendant: CommitId) -> bool:
        """Whether `ancestor` is `descendant` or can be reached from it."""
        with git_errors("walk the history"):
            return ancestor == descendant or self.repo.descendant_of(descendant, ancestor)

    def blob_id(self, commit: CommitId, path: str) -> BlobId | None:
        """The id of a file in a commit, or None if the commit has no such file."""
        with git_errors(f"read '{path}' in commit {commit[:10]}"):
            tree = self.repo[commit].peel(ObjectType.TREE)  # outside of the `try`: a missing tree is no empty one
            try:
                found = tree[path]
            except KeyError:
                return None
            return BlobId(str(found.id)) if found.type == ObjectType.BLOB else None

    def is_folder(self, commit: CommitId, path: str) -> bool:
        """Whether a commit has a folder of that path."""
        with git_errors(f"read '{path}' in commit {commit[:10]}"):
            tree = self.repo[commit].peel(ObjectType.TREE)
            try:
                return tree[path].type == ObjectType.TREE
            except KeyError:
                return False

    def is_file(self, commit: CommitId, path: str) -> bool:
        """Whether a commit has a file or link of that path."""
        return self.blob_id(commit, path) is not None

    def blob(self, blob: BlobId, *, limit: int) -> bytes:
        """The bytes of a file.

        Raises:
            StorageError: it is damaged, or larger than `limit` bytes.
        """
        with git_errors(f"read git object {blob[:10]}"):
            found = self.repo[blob]
            if not isinstance(found, pygit2.Blob) or found.size > limit:
                raise ValueError(f"it is no file of at most {limit} bytes")
            return bytes(found.data)

    def files(self, commit: CommitId, suffixes: tuple[str, ...]) -> Iterator[tuple[str, BlobId]]:
        """Paths and ids of all files of a commit whose names end in one of `suffixes`."""
        with git_errors(f"list the files of commit {commit[:10]}"):
            tree = self.repo[commit].peel(ObjectType.TREE)
            found = list(_files(tree, "", suffixes))
        yield from found

    def same_outside(self, one: CommitId, other: CommitId, folder: str) -> bool:
        """Whether two commits hold the same files, apart from those in one folder."""
        with git_errors("compare two commits"):
            trees = [self.repo[commit].peel(ObjectType.TREE) for commit in (one, other)]
            return _same_outside(trees[0], trees[1], folder.split("/"))

    def is_shallow(self) -> bool:
        """Whether older commits are missing because the clone was made without them."""
        return self.repo.is_shallow


def _choices(steps: str) -> Iterator[int]:
    """Which parent the steps of a revision such as `~2^2` take, one after the other; 0 is the commit itself."""
    for sign, number in _STEP.findall(steps):
        yield from repeat(1, int(number or 1)) if sign == "~" else [int(number or 1)]


def as_commit(found: pygit2.Commit) -> Commit:
    """A commit of libgit2 as a value."""
    return Commit(
        id=CommitId(str(found.id)),
        parents=tuple(CommitId(str(parent)) for parent in found.parent_ids),
        message=found.message,
        author=Identity(name=found.author.name, email=found.author.email),
        time=_time(found.commit_time, found.commit_time_offset),
        authored=_time(found.author.time, found.author.offset),
    )


def _time(seconds: int, minutes: int) -> datetime:
    return datetime.fromtimestamp(seconds, timezone(timedelta(minutes=minutes)))


def _same_outside(one: pygit2.Tree | None, other: pygit2.Tree | None, path: list[str]) -> bool:
    name, *rest = path
    entries = [{e.name: e for e in tree} if tree is not None else {} for tree in (one, other)]
    inner = [found.pop(name, None) for found in entries]
    seen = [{name: (entry.id, entry.filemode) for name, entry in found.items()} for found in entries]
    if seen[0] != seen[1]:
        return False
    trees = [e if isinstance(e, pygit2.Tree) else None for e in inner]
    return not rest or _same_outside(trees[0], trees[1], rest)


def _files(tree: pygit2.Tree, prefix: str, suffixes: tuple[str, ...]) -> Iterator[tuple[str, BlobId]]:
    for entry in tree:
        name = entry.name or ""
        if entry.type == ObjectType.TREE:
            yield from _files(entry, f"{prefix}{name}/", suffixes)  # type: ignore[arg-type]
        elif name.endswith(suffixes) and entry.type == ObjectType.BLOB:
            yield prefix + name, BlobId(str(entry.id))
