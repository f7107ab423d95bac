"""Pull: refs and ledger, then objects, then the branch that is checked out, if no revision is named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckptvcs.errors import UsageError
from ckptvcs.paths import printable
from ckptvcs.porcelain import fetch
from ckptvcs.porcelain.checkpoints import tracks_at
from ckptvcs.porcelain.push import ORIGIN
from ckptvcs.porcelain.tracked import tracked
from ckptvcs.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ckptvcs.porcelain.fetch import Fetched, ObjectsPlan
    from ckptvcs.porcelain.repo import Repository
    from ckptvcs.storage.history.repository import CommitId


@dataclass(frozen=True, slots=True, kw_only=True)
class PullPlan:
    """What a pull would bring, as far as it is known here."""

    to: str
    """The git remote."""
    fetched: Fetched
    """Refs that came, or would."""
    follow: bool
    """Whether the branch that is checked out goes on, and its checkpoint appears: no revision was named."""
    ahead: CommitId | None
    """Where the branch goes; None if it stays."""
    objects: ObjectsPlan | None
    """None if there is no commit yet."""

    @property
    def nbytes(self) -> int:
        """Bytes to be downloaded."""
        return self.objects.nbytes if self.objects is not None else 0

    @property
    def count(self) -> int:
        """Objects to be downloaded."""
        return len(self.objects.missing) if self.objects is not None else 0


def plan_pull(
    repo: Repository,
    revision: str | None = None,
    *,
    components: Sequence[str] = (),
    to: str = ORIGIN,
    track: str | None = None,
) -> PullPlan:
    """Look at everything, change nothing. Of refs that were not fetched yet, the objects are not known.

    Args:
        repo: the repository.
        revision: bring the objects of this one alone; None for the branch that is checked out.
        components: names or roles; all of them if there are none.
        to: the git remote.
        track: the track; all that the revision has if it is None.

    Raises:
        UsageError: components of no revision.
        NotFound: no such remote, revision, component or checkpoint.
        StorageError: the remote does not answer.
    """
    _check(revision, components)
    return _planned(repo, fetch.plan_fetch(repo, to), revision, components=components, to=to, track=track)


def begin(
    repo: Repository,
    revision: str | None = None,
    *,
    components: Sequence[str] = (),
    to: str = ORIGIN,
    track: str | None = None,
) -> PullPlan:
    """Fetch refs and ledger, and look which objects that asks for. Arguments and errors are those of `plan_pull`."""
    _check(revision, components)
    return _planned(repo, fetch.fetch(repo, to), revision, components=components, to=to, track=track)


def _check(revision: str | None, components: Sequence[str]) -> None:
    if revision is None and components:
        raise UsageError(
            "a part of what?",
            why="components are those of a revision that is named",
            next_step="ckpt pull REV --component C",
        )


def _planned(
    repo: Repository,
    fetched: Fetched,
    revision: str | None,
    *,
    components: Sequence[str],
    to: str,
    track: str | None,
) -> PullPlan:
    there = tracked(repo, revision) if revision is not None and repo.history.resolve(revision) is None else None
    if there is not None:  # a branch that only a git remote has
        revision = there.name
    ahead = fetch.upstream(repo, to) if revision is None else None
    wanted = revision or ahead or repo.history.head()
    return PullPlan(
        to=to,
        fetched=fetched,
        follow=revision is None,
        ahead=ahead,
        objects=None if wanted is None else fetch.plan_objects(repo, wanted, components=components, track=track),
    )


def _branches_with_some(repo: Repository, to: str) -> list[str]:
    """Where checkpoints are, for who looks where none are."""
    prefix, here = f"refs/remotes/{to}/", repo.history.branches()
    there = {ref.removeprefix(prefix): tip for ref, tip in repo.history.remote_tips().items() if ref.startswith(prefix)}
    found = [printable(name) for name, tip in there.items() if name not in here and tracks_at(repo, tip)]
    if not found:
        return []
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return [
        f"this branch has no checkpoints; '{to}' has some on {', '.join(found[:3])}{more}: "
        f"'ckpt pull {found[0]}' brings them, 'ckpt checkout {found[0]}' goes there"
    ]


def execute(
    repo: Repository, plan: PullPlan, *, remote: str | None = None, progress: Progress = silent
) -> tuple[str, ...]:
    """Bring what the plan says: objects first, then the branch.

    Args:
        repo: the repository.
        plan: from `begin`.
        remote: the DVC remote to begin with; None for the one that checkpoints go to.
        progress: told about bytes that came.

    Returns:
        What the user should know.

    Raises:
        IntegrityError: no remote has an object, or none has it whole; no branch was moved.
        Refused: both sides have commits of their own, or something would be lost; no branch was moved.
        StorageError: no remote answers, or the disk is full.
    """
    notes = list(plan.fetched.notes)
    if plan.follow and (plan.objects is None or not plan.objects.checkpoints):
        notes += _branches_with_some(repo, plan.to)
    if plan.objects is not None:
        notes += fetch.fetch_objects(repo, plan.objects, remote=remote, progress=progress)
    if plan.follow:
        fetch.advance(repo, plan.ahead)
    return tuple(notes)
