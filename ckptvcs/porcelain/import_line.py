"""One branch of an import: which of the checkpoints that lie around go to it, in which order, and which do not, and why not."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from ckptvcs.domain.import_order import Moment, in_order, natural, precedes
from ckptvcs.errors import CkptvcsError, Refused
from ckptvcs.paths import printable
from ckptvcs.porcelain import account, import_look
from ckptvcs.porcelain.checkpoints import line
from ckptvcs.porcelain.target import find_target

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ckptvcs.digest import Digest
    from ckptvcs.domain.checkpoint import Checkpoint, CheckpointId
    from ckptvcs.domain.import_names import Facts
    from ckptvcs.porcelain.import_look import Looked
    from ckptvcs.porcelain.repo import Repository
    from ckptvcs.storage.history.repository import CommitId

Status = Literal["new", "there", "dropped", "same", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A checkpoint that lies around, and what an import makes of it."""

    looked: Looked
    shown: str
    """Its path as a user types it, with POSIX separators."""
    facts: Facts
    branch: str
    run: str | None
    status: Status
    same_as: str = ""
    """The one that stands for it because it has the same bytes."""
    before: Checkpoint | None = None
    """The checkpoint that was made of these bytes before, with what became of it."""
    best: bool = False
    """Whether its trainer says that it is the best of its run."""
    kept: tuple[str, ...] | None = None
    """Why `retain` would keep it; empty if it would not, None if there is nothing to say."""

    @property
    def checkpoint(self) -> CheckpointId | None:
        """Its id."""
        return self.before.id if self.before else None

    @property
    def failure(self) -> CkptvcsError | None:
        return self.looked.failure

    @property
    def nbytes(self) -> int:
        return self.looked.found.nbytes

    @property
    def moment(self) -> Moment:
        facts = self.facts
        return Moment(step=facts.step, epoch=facts.epoch, date=self.looked.date.timestamp(), name=self.shown)


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchPlan:
    """What goes to one branch."""

    branch: str
    tip: CommitId | None
    """Where it is now."""
    history: tuple[Checkpoint, ...]
    """Its checkpoints, oldest first."""
    items: tuple[Item, ...]
    """Everything that was found for it: in order; behind them, what cannot be read."""

    @property
    def new(self) -> tuple[Item, ...]:
        return tuple(item for item in self.items if item.status == "new")


def plan_branch(repo: Repository, items: Sequence[Item], *, branch: str, track: str) -> BranchPlan:
    """Decide what goes to a branch.

    Args:
        repo: the repository.
        items: what was found for it.
        branch: its name.
        track: the track.

    Raises:
        UsageError, Refused: there can be no branch of that name.
    """
    target = find_target(repo, branch, None)
    tip = repo.history.tip(target.ref)
    history = list(map(account.read(repo).on, line(repo, tip, track))) if tip else []
    readable = [item for item in items if item.failure is None]
    places = in_order([item.moment for item in readable])
    ordered = [readable[n] for n in places]
    known = _by_digest(history)
    placed = _settle(ordered, known, _groups(repo, ordered, history))
    placed = _without_late(placed, history[0] if history else None)
    failed = [item for item in items if item.failure is not None]
    rest = sorted(failed, key=lambda item: natural(item.shown))
    return BranchPlan(branch=branch, tip=tip, history=tuple(reversed(history)), items=(*_with_best(placed), *rest))


# --------------------------------------------------------------------------------------------------------- same bytes


def _by_digest(history: Sequence[Checkpoint]) -> dict[str, Checkpoint]:
    """The checkpoints of a line that an import made, by the digest of what they were made of."""
    found: dict[str, Checkpoint] = {}
    for checkpoint in history:
        known = checkpoint.manifest.source.metadata.get(import_look.DIGEST)
        if known is not None:
            found[known.removeprefix("blake3:")] = checkpoint
    return found


def _groups(
    repo: Repository, items: Sequence[Item], history: Sequence[Checkpoint]
) -> list[tuple[Digest | None, list[Item]]]:
    """Items of the same bytes together, with their digest. Only what has the size of another one is read."""
    sizes = Counter(item.nbytes for item in items)
    imported = {checkpoint.manifest.source.metadata.get(import_look.NBYTES) for checkpoint in history}
    groups: dict[str, tuple[Digest | None, list[Item]]] = {}
    by_place: dict[str, str] = {}
    for item in items:
        place = os.path.realpath(item.looked.found.path)
        key = by_place.get(place)
        if key is None:
            alike = sizes[item.nbytes] > 1 or str(item.nbytes) in imported
            digest = import_look.digest_of(item.looked.found, repo, hints=True) if alike else None
            key = by_place[place] = digest or place
            groups.setdefault(key, (digest, []))
        groups[key][1].append(item)
    return list(groups.values())


def _settle(
    items: Sequence[Item], known: Mapping[str, Checkpoint], groups: Sequence[tuple[Digest | None, list[Item]]]
) -> list[Item]:
    """Each with its status: of those with the same bytes one is imported, the one whose name says most."""
    settled: dict[str, Item] = {}
    for digest, members in groups:
        before = known.get(digest) if digest else None
        if before is not None:
            # who reads "there" may delete the file: what the policy dropped of it is not there
            status: Status = "dropped" if before.dropped is not None and before.dropped.gone else "there"
            settled |= {m.shown: replace(m, status=status, before=before) for m in members}
            continue
        chosen = min(members, key=_says_little)
        settled |= {m.shown: replace(m, status="same", same_as=chosen.shown) for m in members if m is not chosen}
        settled[chosen.shown] = chosen
    return [settled[item.shown] for item in items]


def _says_little(item: Item) -> tuple[object, ...]:
    facts = item.facts
    is_link = item.looked.found.path.is_symlink()
    return is_link, facts.step is None, facts.epoch is None, -len(facts.metrics), natural(item.shown)


# ---------------------------------------------------------------------------------------------------------- too late


def _without_late(items: list[Item], tip: Checkpoint | None) -> list[Item]:
    """Refuse what would come behind something newer: the branch would then name an old state as its latest."""
    if tip is None:
        return items
    same = [(_says_little(item), n) for n, item in enumerate(items) if item.checkpoint == tip.id]
    last = min(same)[1] if same else -1
    created = _moment_of(tip)
    found = []
    for n, item in enumerate(items):
        late = n < last if last >= 0 else precedes(item.moment, created)
        found.append(_refused(item, tip) if item.status == "new" and late else item)
    return found


def _moment_of(checkpoint: Checkpoint) -> Moment:
    manifest = checkpoint.manifest
    return Moment(step=manifest.step, epoch=manifest.epoch, date=checkpoint.time.timestamp(), name="")


def _refused(item: Item, tip: Checkpoint) -> Item:
    step = f", of step {tip.manifest.step}" if tip.manifest.step is not None else ""
    failure = Refused(
        f"cannot import '{printable(item.shown)}'",
        why=f"it is older than the newest checkpoint of branch '{item.branch}' ({tip.id[:10]}{step}), behind which it "
        "would come",
        next_step="import all of them to a new branch with --branch NAME: nothing is stored twice",
    )
    return replace(item, status="failed", looked=replace(item.looked, failure=failure))


def _with_best(items: Sequence[Item]) -> list[Item]:
    """The one that the last one says was best gets to know it."""
    best = next((item.looked.best for item in reversed(items) if item.looked.best), "")
    return [replace(item, best=bool(best) and item.looked.found.path.name == best) for item in items]
