"""What others need, asked of them before anything is condemned or swept: git remotes, and neighbours in the same stores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ckptvcs.errors import RefMoved
from ckptvcs.porcelain import fetch, neighbours
from ckptvcs.storage.history import ancestry
from ckptvcs.storage.history.ledger import LEDGER
from ckptvcs.storage.history.transport import Git

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ckptvcs.porcelain.places import Place
    from ckptvcs.porcelain.repo import Repository

_TRIES: Final = 5


@dataclass(slots=True)
class Answers:
    """What others said."""

    refs: dict[str, str] = field(default_factory=dict)
    """Refs of git remotes as they are there, under `REMOTE:REF`, and what they name; it is all here."""
    theirs: neighbours.Needs = field(default_factory=neighbours.Needs)
    """What neighbours said."""
    unsaid: bool = False
    """Whether others may use the local cache, and nobody said who."""
    notes: list[str] = field(default_factory=list)


def ask(repo: Repository, places: Sequence[Place], *, offline: bool) -> Answers:
    """Ask everybody who may need something.

    Args:
        repo: the repository.
        places: where something may go.
        offline: ask nobody but neighbours that the policy names.

    Raises:
        StorageError: a git remote does not answer.
    """
    found, hubs, unreadable = Answers(), list[dict[str, str]](), list[str]()
    shared = (repo.config.retain.shared_with if repo.config.retain else None) or ()
    addresses = [neighbours.resolved(repo, one) for one in shared]
    if not offline:
        git = Git(repo.history, repo.around.variables)
        for to in git.remotes():
            found.notes += fetch.fetch(repo, to).notes
            listed = _listed(repo, git, to)
            hubs.append(listed)
            found.refs.update(_needed_by(repo, to, listed))
        for place in places:
            urls, some = neighbours.known(repo, place)
            addresses += urls
            unreadable += some
    found.unsaid = any(place.is_hot for place in places) and _is_shared(repo)
    found.theirs = neighbours.needed(repo, addresses, places, hubs)
    found.theirs.silent += unreadable
    return found


def _is_shared(repo: Repository) -> bool:
    """Whether others may use the cache, and nobody said who."""
    retain = repo.config.retain
    return repo.shares_cache and (retain is None or retain.shared_with is None)


def _listed(repo: Repository, git: Git, to: str) -> dict[str, str]:
    """Every ref of a git remote as it is there now; what they name is brought here, but for the ledger."""
    for _ in range(_TRIES):
        there = git.list_refs(to)
        absent = {oid for ref, oid in there.items() if not ref.startswith(LEDGER) and oid not in repo.history.repo}
        if not absent:
            return there
        git.bring(to, sorted(absent))
    raise RefMoved(
        f"cannot tell what '{to}' needs", why="its refs move faster than they can be read", next_step="run it again"
    )


def _needed_by(repo: Repository, to: str, listed: Mapping[str, str]) -> dict[str, str]:
    """What the refs of a git remote lead to, under `REMOTE:REF`."""
    some = {ref: oid for ref, oid in listed.items() if not ref.startswith(LEDGER)}
    return {f"{to}:{ref}": ancestry.commit_behind(repo.history, oid) or oid for ref, oid in some.items()}
