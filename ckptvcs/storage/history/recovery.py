"""What git keeps beside its refs: what is checked out in which worktree, and where refs have been."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import pygit2

from ckptvcs.storage.history.repository import OURS, CommitId, git_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ckptvcs.storage.history.repository import History


def worktrees(history: History) -> list[Path]:
    """Every folder that this repository is checked out in, its own first."""
    found = [history.root]
    with git_errors("list worktrees"):
        for name in pygit2.Repository(str(history.common_dir)).list_worktrees():
            with contextlib.suppress(pygit2.GitError, ValueError):  # a broken one has nothing checked out
                found.append(Path(history.repo.lookup_worktree(name).path).absolute())
    main = history.common_dir.parent
    found += [main] if main not in found and (main / ".git").is_dir() else []
    return list(dict.fromkeys(found))


def away(history: History) -> list[Path]:
    """Worktrees that are locked, so that git does not forget them, and whose folders are not there."""
    return [
        path for path, folder in _git_folders(history).items() if (folder / "locked").exists() and not path.is_dir()
    ]


def heads(history: History) -> dict[str, CommitId]:
    """What is checked out, by the folder of the worktree, which may be away; empty for this one.

    Raises:
        StorageError: git cannot read it, so that nobody knows what is needed there.
    """
    found = {}
    for path, folder in _git_folders(history).items():
        with git_errors(f"see what is checked out in '{path}'"):
            if (commit := _head(history, folder)) is not None:
                found["" if path == history.root else str(path)] = commit
    return found


def _head(history: History, folder: Path) -> CommitId | None:
    """The commit that HEAD leads to; None before the first one."""
    try:
        said = (folder / "HEAD").read_text(encoding="utf-8", errors="surrogateescape").strip()
    except FileNotFoundError:  # what is left of a worktree that was taken away
        return None
    name = said.removeprefix("ref: ")
    if name == said:
        return CommitId(str(history.repo[said].id))
    if name not in history.repo.references:
        return None
    return CommitId(str(history.repo.references[name].peel(pygit2.Commit).id))


def _git_folders(history: History) -> dict[Path, Path]:
    """Where git keeps what is checked out and staged, by the folder of the worktree; also of one whose folder is away."""
    found = {history.root: Path(history.repo.path)}
    for folder in (history.common_dir / "worktrees").glob("*"):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # no worktree, or what is left of one
            link = (folder / "gitdir").read_text(encoding="utf-8", errors="surrogateescape").strip()
            found.setdefault((folder / link).parent.absolute(), folder)
    main = history.common_dir.parent
    if (main / ".git").is_dir():
        found.setdefault(main, history.common_dir)
    return found


def own(history: History) -> set[str]:
    """The commits of our own book-keeping, such as the entries of the ledger: no branch leads to them, and they are not lost."""
    found: set[str] = set()
    with git_errors("read the refs of ckptvcs"):
        walker = history.repo.walk(None)
        for name in history.repo.references:
            if name.startswith(OURS):
                walker.push(history.repo.references[name].resolve().target)
        found.update(str(commit.id) for commit in walker)
    return found


def tag_times(history: History) -> dict[str, float]:
    """When annotated tags were made, in seconds since the epoch, by name; a plain one has no time."""
    found = {}
    for tag in history.tags():
        with git_errors(f"read tag '{tag.name}'"):
            target = history.repo[history.repo.references[f"refs/tags/{tag.name}"].target]
        if isinstance(target, pygit2.Tag) and target.tagger is not None:
            found[tag.name] = float(target.tagger.time)
    return found


def staged(history: History, wanted: Callable[[str], bool], *, limit: int) -> Iterator[tuple[str, bytes | None]]:
    """Files that are staged in any worktree, by their paths, and their bytes; None for one of more than `limit` bytes.

    Args:
        history: the repository.
        wanted: by name, which files.
        limit: bytes.

    Raises:
        StorageError: git cannot read an index, so that nobody knows what is staged.
    """
    for path, folder in _git_folders(history).items():
        with git_errors(f"see what is staged in '{path}'"):
            index = pygit2.Index(str(folder / "index"))  # empty where nothing was ever staged
            entries = [entry for entry in index if wanted(entry.path.rpartition("/")[2])]
        for entry in entries:
            blob = history.repo.get(entry.id)
            if isinstance(blob, pygit2.Blob):
                yield entry.path, blob.data if blob.size <= limit else None


def logged(history: History) -> set[str]:
    """Commits that reflogs name and that are still there: where branches, HEAD and the stash have been."""
    known = {oid for path in _logs(history) for oid in _named_in(path)}
    return {oid for oid in known if oid in history.repo}


def _logs(history: History) -> Iterator[Path]:
    for folder in (history.common_dir, *(history.common_dir / "worktrees").glob("*")):
        if (folder / "logs" / "HEAD").is_file():
            yield folder / "logs" / "HEAD"
    refs = history.common_dir / "logs" / "refs"
    yield from (path for path in refs.rglob("*") if path.is_file() and "ckptvcs" not in path.relative_to(refs).parts)


def _named_in(path: Path) -> Iterator[str]:
    """Both sides of every line: the first may have been there before the log."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        for line in file:
            for word in line[:130].split(b" ", 2)[:2]:
                if len(word) in (40, 64) and word.strip(b"0123456789abcdef") == b"" and word.strip(b"0"):
                    yield word.decode("ascii")
