"""`log`: the checkpoints of a history, newest first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckptvcs.porcelain import account
from ckptvcs.porcelain.checkpoints import made_by

if TYPE_CHECKING:
    from ckptvcs.domain.checkpoint import Checkpoint
    from ckptvcs.porcelain.repo import Repository
    from ckptvcs.storage.history.repository import CommitId


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One line of a log."""

    checkpoint: Checkpoint
    names: tuple[str, ...]
    """Branches and tags that stand here; the branch that is checked out first, as `HEAD -> NAME`."""
    above: tuple[str, ...]
    """Commits of the shown checkpoints that this one was made on top of, along every git parent; only for a graph."""
    held: bool
    """Whether a hold of it stands."""


@dataclass(frozen=True, slots=True)
class Log:
    """A part of a history, newest first; `more` says whether there is more, `notes` what the user should know."""

    entries: tuple[LogEntry, ...]
    more: bool
    notes: tuple[str, ...] = ()


def log(
    repo: Repository,
    revisions: list[CommitId],
    *,
    track: str | None = None,
    limit: int | None = None,
    graph: bool = False,
) -> Log:
    """The checkpoints that can be reached from some commits.

    Args:
        repo: the repository.
        revisions: where to begin.
        track: the track; None for the configured one.
        limit: how many at most; None for all.
        graph: children before their parents in any case, and what is above each; takes reading the whole history.
    """
    track = track or repo.basics.track
    walk = repo.history.walk if graph else repo.history.newest_first
    found: list[Checkpoint] = []
    for checkpoint in made_by(repo, walk(revisions), track):
        if limit is not None and len(found) == limit:
            return _log(repo, found, graph=graph, more=True)
        found.append(checkpoint)
    return _log(repo, found, graph=graph, more=False)


def _log(repo: Repository, found: list[Checkpoint], *, graph: bool, more: bool) -> Log:
    said, names = account.read(repo), names_by_commit(repo)
    here = {checkpoint.commit for checkpoint in found}
    above = {commit: _above(repo, commit, here) for commit in here} if graph else {}
    entries = tuple(
        LogEntry(
            checkpoint=said.on(c),
            names=names.get(c.commit, ()),
            above=above.get(c.commit, ()),
            held=c.id in said.holds,
        )
        for c in found
    )
    return Log(entries, more=more, notes=said.notes)


def _above(repo: Repository, commit: str, here: set[str]) -> tuple[str, ...]:
    """The nearest checkpoint commits among the ancestors, past ordinary commits."""
    nearest: list[str] = []
    stack, seen = list(reversed(repo.history.commit(commit).parents)), set[str]()  # type: ignore[arg-type]
    while stack:
        parent = stack.pop()
        if parent in seen:
            continue
        seen.add(parent)
        if parent in here:
            nearest.append(parent)
        elif len(seen) < 1000:  # beyond that the line is drawn to nowhere rather than all of a long history read
            stack.extend(reversed(repo.history.commit(parent).parents))
    return tuple(nearest)


def names_by_commit(repo: Repository) -> dict[str, tuple[str, ...]]:
    """The names that stand at each commit."""
    here = repo.history.head_branch()
    found: dict[str, list[str]] = {}
    for name, tip in repo.history.branches().items():
        names = found.setdefault(tip, [])
        names.insert(0, f"HEAD -> {name}") if name == here else names.append(name)
    if here is None and (head := repo.history.head()):
        found.setdefault(head, []).insert(0, "HEAD")
    for tag in repo.history.tags():
        found.setdefault(tag.commit, []).append(f"tag: {tag.name}")
    return {commit: tuple(names) for commit, names in found.items()}
