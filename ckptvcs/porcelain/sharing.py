"""`Repo.push`, `Repo.fetch`, `Repo.pull`: what a training script calls to share its checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckptvcs.porcelain import fetch, pull, push
from ckptvcs.porcelain.push import ORIGIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ckptvcs.porcelain.fetch import Fetched
    from ckptvcs.porcelain.repo import Repository


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What a push sent, or would send."""

    to: str
    """The git remote."""
    refs: tuple[str, ...]
    """Full names of the refs that moved."""
    checkpoints: tuple[str, ...]
    """Ids of those that the other side did not have."""
    objects: int
    """How many objects were uploaded, to all remotes together."""
    nbytes: int
    """Their size."""
    notes: tuple[str, ...]
    """What the user should know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """What a pull brought, or would bring of what is known here."""

    to: str
    """The git remote."""
    refs: tuple[str, ...]
    """Full names of the refs that are new here, or moved."""
    commit: str | None
    """Where the branch that is checked out went; None if it stayed."""
    objects: int
    """How many objects came."""
    nbytes: int
    """Their size."""
    notes: tuple[str, ...]
    """What the user should know."""


class Sharing:
    """The methods of `Repo` that other clones are involved in."""

    _repo: Repository

    def push(
        self,
        names: str | Sequence[str] = (),
        *,
        to: str = ORIGIN,
        remote: str | None = None,
        everything: bool = False,
        full: bool = False,
        replicas: int | None = None,
        verify: bool = False,
        dry_run: bool = False,
    ) -> Pushed:
        """Push branches, tags, the ledger, and the objects of their checkpoints: objects first, then all refs at once.

        Args:
            names: branches and tags; the branch that is checked out if there are none.
            to: the git remote.
            remote: the DVC remote to begin with; the one of ckpt.yaml, or DVC's default, if it is not given.
            everything: all branches and tags.
            full: look at the objects of every checkpoint, not only of those that the git remote does not know yet.
            replicas: how many remotes have to have the objects; what ckpt.yaml says, if it is not given.
            verify: read back from each remote all that was needed, and heal what is wrong.
            dry_run: only look; nothing is sent.

        Raises:
            RefMoved: somebody pushed meanwhile; pull, then push again.
            Conflict: a garbage collection has condemned what is needed.
            Refused: a hook or rule of the other side does not allow it.
            IntegrityError: an object is missing or damaged here, or did not arrive as it is; no ref was moved.
            StorageError: a remote does not answer, or is full; no ref was moved.
        """
        names = [names] if isinstance(names, str) else names
        plan = push.plan_push(
            self._repo, names, to=to, remote=remote, everything=everything, full=full, copies=replicas
        )
        healed = () if dry_run else push.execute(self._repo, plan, verify=verify)
        return Pushed(
            to=to,
            refs=tuple(update.ref for update in plan.updates),
            checkpoints=tuple(checkpoint.id for checkpoint in plan.checkpoints),
            objects=plan.uploads,
            nbytes=plan.nbytes,
            notes=plan.notes + healed,
        )

    def fetch(self, to: str = ORIGIN, *, dry_run: bool = False) -> Fetched:
        """Fetch branches, tags and the ledger; no objects.

        Args:
            to: the git remote.
            dry_run: only look; nothing is fetched.

        Raises:
            StorageError: the remote does not answer.
        """
        return fetch.plan_fetch(self._repo, to) if dry_run else fetch.fetch(self._repo, to)

    def pull(
        self,
        revision: str | None = None,
        components: str | Sequence[str] = (),
        *,
        to: str = ORIGIN,
        remote: str | None = None,
        track: str | None = None,
        dry_run: bool = False,
    ) -> Pulled:
        """Fetch, and bring objects: of the branch that is checked out, which goes on, or of a revision; then nothing moves.

        Args:
            revision: bring the objects of this one.
            components: with a revision, only these, by name or role.
            to: the git remote.
            remote: the DVC remote to begin with.
            track: the track; all that the revision has if it is not given.
            dry_run: only look; nothing is fetched, and what is not known here is not counted.

        Raises:
            IntegrityError: no remote has an object, or none has it whole; no branch was moved.
            Refused: both sides have commits of their own, or something would be lost; no branch was moved.
            StorageError: no remote answers, or the disk is full.
        """
        components = [components] if isinstance(components, str) else components
        begin = pull.plan_pull if dry_run else pull.begin
        plan = begin(self._repo, revision, components=components, to=to, track=track)
        notes = plan.fetched.notes if dry_run else pull.execute(self._repo, plan, remote=remote)
        return Pulled(
            to=to,
            refs=plan.fetched.moved,
            commit=plan.ahead,
            objects=plan.count,
            nbytes=plan.nbytes,
            notes=notes,
        )
