"""What the policy would do: which checkpoints are dropped, why the others are kept, and what that frees where. It only looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from ckptvcs.digest import digest
from ckptvcs.domain import retention
from ckptvcs.domain.retention import Decision, kept_components
from ckptvcs.porcelain import eviction, foreign, view
from ckptvcs.porcelain.doomed import Doomed, doomed, names_of
from ckptvcs.porcelain.state import state_of
from ckptvcs.storage.history import ledger

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from ckptvcs.domain.checkpoint import CheckpointId
    from ckptvcs.domain.keeping import Retain
    from ckptvcs.domain.reasons import View
    from ckptvcs.porcelain.asking import Answers
    from ckptvcs.porcelain.foreign import Foreign
    from ckptvcs.porcelain.inventory import Brief
    from ckptvcs.porcelain.places import Place
    from ckptvcs.porcelain.repo import Repository
    from ckptvcs.porcelain.view import Looked
    from ckptvcs.storage.removal import Stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A checkpoint, and what the policy makes of it."""

    slim: Brief
    decision: Decision
    dropped: tuple[str, ...]
    """The components that nothing keeps; all of them where there is no reason."""
    branches: tuple[str, ...]
    """Those that it is on."""

    @property
    def is_kept(self) -> bool:
        """Whether anything of it is kept."""
        return bool(self.decision.reasons)


@dataclass(frozen=True, slots=True, kw_only=True)
class Freed:
    """What goes from one place."""

    place: str
    objects: int
    nbytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is decided of a repository at one time."""

    looked: Looked
    decided: Mapping[CheckpointId, Decision]
    kept: Mapping[CheckpointId, frozenset[str]]
    """The components of each checkpoint that are kept."""
    foreign: Foreign
    doomed: Doomed
    evicted: tuple[CheckpointId, ...]
    """Those whose local copies go because there is a limit, and that a remote has."""
    doomed_here: Doomed
    """What nobody needs in the local cache."""
    now: float
    """The time that was decided for, in seconds since the epoch."""
    clock: float
    """The time when it was decided."""
    state: str
    """What this clone was then; see `state.state_of`."""
    answers: Answers | None
    """What others said, if they were asked."""

    def doomed_in(self, place: Place) -> Doomed:
        """What nobody needs in a place."""
        return self.doomed_here if place.is_hot else self.doomed

    def dropped(self) -> dict[CheckpointId, tuple[str, ...]]:
        """The components of checkpoints that are there and that nothing keeps."""
        members = self.looked.view.members
        found = {i: tuple(sorted(set(members[i].components) - self.kept[i])) for i in members}
        return {identifier: components for identifier, components in found.items() if components}


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPlan:
    """What the policy would do."""

    verdict: Verdict
    judged: tuple[Judged, ...]
    """Every checkpoint, newest first."""
    freed: tuple[Freed, ...]
    at: Fingerprint
    notes: tuple[str, ...]


class Fingerprint(msgspec.Struct, frozen=True):
    """What a plan was made from: if any of it has changed since, the plan is about something else."""

    refs: str
    policy: str
    ledger: str


def judge(
    repo: Repository,
    places: Sequence[Place],
    *,
    now: datetime,
    answers: Answers | None = None,
) -> Verdict:
    """Decide about everything; change nothing.

    Args:
        repo: the repository.
        places: where lists of directories are looked for.
        now: the time to decide for.
        answers: what others said that they need, if they were asked.

    Raises:
        BadConfig: ckpt.yaml cannot be used.
        StorageError: git or a store cannot be read.
    """
    state = state_of(repo)
    looked = view.look(repo, answers.refs if answers is not None else None)
    at = now.timestamp()
    decided = retention.decide(looked.view, repo.config.retain, now=at)
    kept = {i: kept_components(looked.view.members[i], one.reasons) for i, one in decided.items()}
    others = foreign.needed(repo, looked.inventory, places)
    others.names.update(answers.theirs.names if answers is not None else (), _named_again(looked))
    everything = doomed(looked.inventory, kept, others.names)
    moved = eviction.evicted(looked, decided, repo.config.retain, kept, places)
    kept_here = {i: frozenset[str]() if i in set(moved) else components for i, components in kept.items()}
    return Verdict(
        looked=looked,
        decided=decided,
        kept=kept,
        foreign=others,
        doomed=everything,
        evicted=moved,
        doomed_here=doomed(looked.inventory, kept_here, others.names) if moved else everything,
        now=at,
        clock=repo.now().timestamp(),
        state=state,
        answers=answers,
    )


def _named_again(looked: Looked) -> Iterator[str]:
    """What there is of checkpoints that somebody named after they were swept: it stays, and comes back from the trash."""
    for identifier in looked.again:
        slim = looked.inventory.slim(identifier)
        yield from names_of(slim, slim.parts, whole=True)


def plan(repo: Repository, places: Sequence[Place], *, now: datetime | None = None) -> RetentionPlan:
    """Look at all refs, at the ledger and at what is stored where; change nothing.

    Raises:
        BadConfig: ckpt.yaml cannot be used.
        StorageError: git or a store cannot be read.
    """
    at = fingerprint(repo)
    verdict = judge(repo, places, now=now or repo.now())
    freed = tuple(_freed(place, list(verdict.doomed_in(place).at(place.removal))) for place in places)
    notes = (*verdict.looked.account.notes, *(f"cannot be read: {what}" for what in verdict.foreign.unreadable))
    return RetentionPlan(verdict=verdict, judged=judged(verdict), freed=freed, at=at, notes=notes)


def _freed(place: Place, stored: Sequence[Stored]) -> Freed:
    return Freed(place=place.name, objects=len(stored), nbytes=sum(one.nbytes for one in stored))


def judged(verdict: Verdict) -> tuple[Judged, ...]:
    """Every checkpoint that is there, newest first."""
    on = branches_of(verdict.looked.view)
    checkpoints, members = verdict.looked.inventory.checkpoints, verdict.looked.view.members
    dropped = verdict.dropped()
    found = [
        Judged(
            slim=checkpoints[identifier],
            decision=verdict.decided[identifier],
            dropped=dropped.get(identifier, ()),
            branches=tuple(on.get(identifier, ())),
        )
        for identifier in members
    ]
    return tuple(sorted(found, key=lambda one: (one.slim.time, one.slim.id), reverse=True))


def branches_of(seen: View) -> dict[CheckpointId, list[str]]:
    """The branches that each checkpoint is on."""
    found: dict[CheckpointId, list[str]] = {}
    for line in seen.lines:
        for identifier in line.members:
            branches = found.setdefault(identifier, [])
            if line.branch not in branches:
                branches.append(line.branch)
    return found


def policy_digest(retain: Retain | None) -> str:
    """What tells one policy from another."""
    return digest(msgspec.json.encode(retain, order="sorted"))


def fingerprint(repo: Repository) -> Fingerprint:
    """What a plan of now is made from."""
    return Fingerprint(
        refs=digest(msgspec.json.encode(view.refs_here(repo), order="sorted")),
        policy=policy_digest(repo.config.retain),
        ledger=digest(msgspec.json.encode(ledger.heads(repo.history), order="sorted")),
    )
