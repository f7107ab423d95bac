"""`policy check`: whether ckpt.yaml can be used, what it means differently than before, and for which checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from ckptvcs.domain import meaning, retention
from ckptvcs.domain.basics import FILE
from ckptvcs.domain.oddities import oddities
from ckptvcs.domain.policy import DEFAULT_SAVE, Config
from ckptvcs.domain.retention import kept_components
from ckptvcs.errors import BadConfig, NotFound
from ckptvcs.paths import printable
from ckptvcs.porcelain import config as configuration
from ckptvcs.porcelain import view
from ckptvcs.porcelain.remotes import known
from ckptvcs.porcelain.retention import branches_of

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping

    from ckptvcs.domain.checkpoint import CheckpointId
    from ckptvcs.domain.meaning import Change
    from ckptvcs.domain.retention import Decision
    from ckptvcs.porcelain.inventory import Slim
    from ckptvcs.porcelain.repo import Repository
    from ckptvcs.porcelain.view import Looked
    from ckptvcs.storage.history.repository import CommitId

HEAD: Final = "HEAD"

Kept = dict["CheckpointId", frozenset[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """A checkpoint, or some of its components, of which something else is made than before."""

    slim: Slim
    components: tuple[str, ...]
    branches: tuple[str, ...]
    because: tuple[str, ...]
    """Why it was kept, where it is dropped now; else why it is kept now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What was found."""

    against: CommitId | None
    """The commit that was compared with; None if there is none, or if its ckpt.yaml cannot be used."""
    changes: tuple[Change, ...]
    dropped: tuple[Effect, ...]
    """What was kept and is dropped now, newest first."""
    dropped_bytes: int
    """Bytes of the objects that only it needs."""
    kept: tuple[Effect, ...]
    """What was dropped and is kept now."""
    kept_bytes: int
    odd: tuple[str, ...]
    """What is odd about the policy, though valid."""
    notes: tuple[str, ...]


def check(repo: Repository, against: str = HEAD) -> Checked:
    """Look at ckpt.yaml as it is here, and as it was at a commit; change nothing.

    Args:
        repo: the repository.
        against: the revision of git to compare with.

    Raises:
        BadConfig: ckpt.yaml cannot be used; the error names its line.
        NotFound: there is no such revision.
        StorageError: git cannot read its history.
    """
    config = repo.config
    commit = _commit(repo, against)
    notes: list[str] = []
    try:
        before = Config() if commit is None else configuration.config_at(repo.history, commit, repo.git_path(FILE))
    except BadConfig as err:
        before, commit = config, None
        notes.append(f"nothing is compared with '{printable(against)}': {err}")
    looked, now = view.look(repo), repo.now().timestamp()
    remotes = {one.name for one in known(repo) if one.tier == "warm"}
    seen = replace(looked.view, has_warm=bool(remotes))
    decided = retention.decide(seen, config.retain, now=now)
    past = replace(
        seen, compared=view.compared(before, looked.view.members.values()), says_best=before.best is not None
    )
    was = _kept(looked, retention.decide(past, before.retain, now=now)) if before != config else None
    new = _kept(looked, decided)
    dropped, kept = ({}, {}) if was is None else (_less(was, new), _less(new, was))
    old_decided = retention.decide(past, before.retain, now=now) if dropped else {}
    return Checked(
        against=commit,
        changes=_changes(before, config),
        dropped=_effects(looked, dropped, old_decided),
        dropped_bytes=_nbytes(looked, was or {}, new),
        kept=_effects(looked, kept, decided),
        kept_bytes=_nbytes(looked, new, was or new),
        odd=(*(oddities(config.retain, seen, decided) if config.retain else ()), *_odd_alerts(config, remotes)),
        notes=(*notes, *looked.account.notes),
    )


def _commit(repo: Repository, against: str) -> CommitId | None:
    commit = repo.history.resolve(against)
    if commit is None and against != HEAD:
        raise NotFound(
            f"no revision '{printable(against)}'",
            why="git knows no commit by that name",
            next_step="name a branch, a tag or a commit; in CI, fetch the whole history first",
        )
    return commit


def _changes(before: Config, after: Config) -> tuple[Change, ...]:
    saves = [config.save or DEFAULT_SAVE for config in (before, after)]
    return (
        *meaning.of_retain(before.retain, after.retain),
        *meaning.of_section("best", before.best, after.best),
        *meaning.of_section("save", *saves),
    )


# -------------------------------------------------------------------------------------------------------------- effect


def _kept(looked: Looked, decided: Mapping[CheckpointId, Decision]) -> Kept:
    return {i: kept_components(looked.view.members[i], one.reasons) for i, one in decided.items()}


def _less(one: Kept, other: Kept) -> Kept:
    """The components that the first keeps and the second does not."""
    return {i: left for i, components in one.items() if (left := components - other[i])}


def _effects(looked: Looked, of: Kept, decided: Mapping[CheckpointId, Decision]) -> tuple[Effect, ...]:
    on = branches_of(looked.view) if of else {}
    found = [
        Effect(
            slim=looked.inventory.slim(identifier),
            components=tuple(sorted(components)),
            branches=tuple(on.get(identifier, ())),
            because=tuple(dict.fromkeys(reason.text for reason in decided[identifier].reasons)),
        )
        for identifier, components in of.items()
    ]
    return tuple(sorted(found, key=lambda one: (one.slim.time, one.slim.id), reverse=True))


def _nbytes(looked: Looked, one: Kept, other: Kept) -> int:
    """Bytes of the objects that the first needs and the second does not."""
    if one is other:
        return 0
    needed = _objects(looked, other.items())
    return sum(n for name, n in _objects(looked, one.items()).items() if name not in needed)


def _objects(looked: Looked, kept: Iterable[tuple[CheckpointId, frozenset[str]]]) -> dict[Hashable, int]:
    return {name: n for identifier, components in kept for name, n in looked.view.sized()(identifier, components)}


def _odd_alerts(config: Config, remotes: Collection[str]) -> Iterator[str]:
    wanted = config.alerts
    for place in wanted.quota.places if wanted is not None and wanted.quota is not None else ():
        if place != "hot" and place not in remotes:
            yield f"alerts.quota.places: there is no place '{printable(place)}': it is 'hot', or a warm remote"
    if wanted is not None and wanted.push_within is not None and not remotes:
        yield "alerts.push_within: there is no warm remote to push to"
