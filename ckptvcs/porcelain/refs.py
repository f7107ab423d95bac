"""`branch` and `tag`: names for checkpoints. Golden marks are immutable; nothing is deleted that would lose a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckptvcs.domain.checkpoint import GOLDEN, MILESTONE, Checkpoint, mark_of
from ckptvcs.errors import NotFound, Protected, Refused, UsageError, WouldOverwrite
from ckptvcs.paths import printable
from ckptvcs.porcelain import account, ledger
from ckptvcs.porcelain.checkpoints import checkpoint_at, locate, made_by
from ckptvcs.porcelain.gone import refuse_gone
from ckptvcs.porcelain.target import check_branch_name
from ckptvcs.storage.history import commits
from ckptvcs.storage.history.repository import HEADS, TAGS

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from ckptvcs.porcelain.repo import Repository
    from ckptvcs.storage.files import Lock
    from ckptvcs.storage.history.repository import CommitId


@dataclass(frozen=True, slots=True, kw_only=True)
class Ref:
    """A branch or a tag, and the checkpoint of the configured track that it leads to, if any."""

    name: str
    commit: CommitId
    checkpoint: Checkpoint | None
    current: bool = False
    """For a branch: whether it is checked out."""
    message: str | None = None
    """For an annotated tag: its message."""

    @property
    def mark(self) -> str | None:
        """`golden`, `milestone` or None."""
        return mark_of(self.name)


def branches(repo: Repository) -> list[Ref]:
    """All local branches."""
    here, look = repo.history.head_branch(), _look(repo)
    return [
        Ref(name=name, commit=tip, checkpoint=look(tip), current=name == here)
        for name, tip in repo.history.branches().items()
    ]


def tags(repo: Repository) -> list[Ref]:
    """All tags that lead to a commit."""
    look = _look(repo)
    return [
        Ref(name=tag.name, commit=tag.commit, checkpoint=look(tag.commit), message=tag.message)
        for tag in repo.history.tags()
    ]


def _look(repo: Repository) -> Callable[[CommitId], Checkpoint | None]:
    """What finds the checkpoint of the configured track that a commit holds, with its late metrics."""
    late, track = account.read(repo), repo.basics.track

    def look(commit: CommitId) -> Checkpoint | None:
        found = checkpoint_at(repo, commit, track)
        return found and late.on(found)

    return look


def _locked(repo: Repository) -> AbstractContextManager[Lock]:
    from ckptvcs.porcelain.following import locked  # who only looks need not pay for what it imports

    return locked(repo)


# ---------------------------------------------------------------------------------------------------------- branches


def create_branch(repo: Repository, name: str, revision: str = "HEAD", *, dry_run: bool = False) -> CommitId:
    """Fork: make a branch at a revision. HEAD stays.

    Returns:
        The commit that it was made at.

    Raises:
        WouldOverwrite: there is a branch of that name.
        MissingObject: the commit made a checkpoint that was dropped, and nothing of it is there.
    """
    check_branch_name(repo, name)
    commit = locate(repo, revision, repo.basics.track)
    if repo.history.tip(HEADS + name) is not None:
        raise WouldOverwrite(f"branch '{name}' exists already", next_step="choose another name", name=name)
    # code above a checkpoint that is gone may be gone on with: only who names the checkpoint itself wants that
    made = made_by(repo, iter([repo.history.commit(commit)]), repo.basics.track)
    refuse_gone(repo, *account.with_late(repo, *made))
    if not dry_run:
        with _locked(repo) as lock:
            commits.create_branch(repo.history, name, commit, lock=lock)
    return commit


def delete_branch(repo: Repository, name: str, *, dry_run: bool = False) -> CommitId:
    """Delete a branch, if every checkpoint on it can be reached from another name.

    Returns:
        The commit that it was at.

    Raises:
        NotFound: there is no such branch.
        Refused: it is checked out, or its checkpoints would be lost.
    """
    tip = repo.history.tip(HEADS + name)
    if tip is None:
        raise NotFound(f"no branch '{printable(name)}'", next_step="run 'ckpt branch' to see the branches")
    if repo.history.is_checked_out(name):
        raise Refused(
            f"cannot delete branch '{name}'", why="it is checked out", next_step="check out another one first"
        )
    others = {*(t for n, t in repo.history.branches().items() if n != name), *(t.commit for t in repo.history.tags())}
    if not any(repo.history.is_ancestor(tip, other) for other in others):
        raise Refused(
            f"cannot delete branch '{name}'",
            why="no other branch or tag leads to its last checkpoint, so that 'dvc gc' would remove it",
            next_step=f"keep it with 'ckpt tag NAME {name}' first, or delete it with 'git branch -D {name}'",
        )
    if not dry_run:
        with _locked(repo) as lock:
            commits.delete_ref(repo.history, HEADS + name, old=tip, lock=lock)
    return tip


# --------------------------------------------------------------------------------------------------------------- tags


def create_tag(
    repo: Repository, name: str, revision: str = "HEAD", *, message: str | None = None, dry_run: bool = False
) -> Ref:
    """Tag a revision. `golden/...` and `milestone/...` are marks, and always annotated tags on a checkpoint.

    Args:
        repo: the repository.
        name: the whole name, mark included.
        revision: what to tag.
        message: makes it an annotated tag.
        dry_run: only look.

    Raises:
        Protected: there is a golden mark of that name elsewhere.
        WouldOverwrite: there is another tag of that name.
        NotFound: a mark was asked for, and the revision holds no checkpoint.
    """
    if not repo.history.is_branch_name(name) or "#" in name or "@" in name:
        raise UsageError(
            f"'{printable(name)}' cannot be the name of a tag", next_step="use letters, digits, '-', '.', '/'"
        )
    commit = locate(repo, revision, repo.basics.track)
    checkpoint = checkpoint_at(repo, commit, repo.basics.track)
    mark = mark_of(name)
    if mark and checkpoint is None:
        raise NotFound(
            f"cannot mark '{printable(revision)}' as {mark}",
            why=f"commit {commit[:10]} holds no checkpoint",
            next_step="run 'ckpt log' to see which there are",
        )
    if mark and checkpoint is not None and repo.history.tag(name) is None:
        refuse_gone(repo, account.read(repo).on(checkpoint))
    if mark and message is None and checkpoint is not None:
        message = f"{mark}: checkpoint {checkpoint.id}"
    existing = repo.history.tag(name)
    ref = Ref(name=name, commit=commit, checkpoint=checkpoint, message=message)
    if existing is not None:
        _refuse_to_move(existing.name, existing.commit, commit)
        if mark and existing.message is None:
            raise WouldOverwrite(
                f"tag '{name}' exists already",
                why="it is a plain tag, and a mark says who set it and when",
                next_step=f"remove it with 'git tag -d {name}', then run the command again",
                name=name,
            )
        return ref
    if not dry_run:
        annotation = None
        if message is not None:
            annotation = commits.Annotation(message=message, identity=repo.identity, when=repo.now())
        with _locked(repo) as lock:
            commits.create_tag(repo.history, name, commit, annotation=annotation, lock=lock)
        if mark == "golden" and checkpoint is not None:
            # Where it stands is in the ledger too: who has seen that entry finds out if the tag is ever another one. # inv. 7
            ledger.append(repo, ledger.MARK, name=name, commit=commit, checkpoint=checkpoint.id)
    return ref


def _refuse_to_move(name: str, there: CommitId, wanted: CommitId) -> None:
    if there == wanted:
        return
    if mark_of(name) == "golden":
        raise Protected(
            f"cannot move '{name}'",
            why=f"golden marks are immutable, and it stands at {there[:10]}",
            next_step=f"choose another name, such as '{name}-2'",
            name=name,
            commit=there,
        )
    raise WouldOverwrite(
        f"tag '{name}' exists already", why=f"it stands at {there[:10]}", next_step="choose another name", name=name
    )


def delete_tag(repo: Repository, name: str, *, dry_run: bool = False) -> CommitId:
    """Delete a tag that is no golden mark.

    Raises:
        NotFound: there is no such tag.
        Protected: it is a golden mark.
        Refused: it is the last name of its checkpoint.
    """
    tag = repo.history.tag(name)
    if tag is None:
        raise NotFound(f"no tag '{printable(name)}'", next_step="run 'ckpt tag' to see the tags")
    if mark_of(name) == "golden":
        raise Protected(
            f"cannot delete '{name}'",
            why="golden marks are immutable",
            next_step="if it must go, it is for a person to do with git, and everyone who fetched it will notice",
        )
    others = {*repo.history.branches().values(), *(t.commit for t in repo.history.tags() if t.name != name)}
    if checkpoint_at(repo, tag.commit, repo.basics.track) and not any(
        repo.history.is_ancestor(tag.commit, other) for other in others
    ):
        raise Refused(
            f"cannot delete tag '{name}'",
            why="it is the last name that leads to its checkpoint, so that 'dvc gc' would remove it",
            next_step=f"make a branch there first: ckpt branch NAME {name}",
        )
    if not dry_run:
        with _locked(repo) as lock:
            commits.delete_ref(repo.history, TAGS + name, old=tag.commit, lock=lock)
    return tag.commit


def marked_name(name: str, *, golden: bool, milestone: bool) -> str:
    """The whole name of a tag.

    Raises:
        UsageError: both marks were asked for.
    """
    if golden and milestone:
        raise UsageError("a tag is golden or a milestone, not both", next_step="drop one of the two options")
    prefix = GOLDEN if golden else MILESTONE if milestone else ""
    return name if name.startswith(prefix) else prefix + name
