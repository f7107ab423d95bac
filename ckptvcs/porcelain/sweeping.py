"""The second run of a collection: what was condemned a grace ago goes, unless somebody needs it by now.

From the local cache it goes for good, while nobody else can write here. From a remote it goes into the trash, from which what
turns out to be needed is brought back, and for good when it has been there long enough.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ckptvcs.domain import fates
from ckptvcs.errors import RefMoved
from ckptvcs.porcelain import ballast, ledger, marks, neighbours
from ckptvcs.porcelain.doomed import names_of
from ckptvcs.porcelain.following import locked
from ckptvcs.porcelain.state import state_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from ckptvcs.domain.checkpoint import CheckpointId
    from ckptvcs.domain.remote_files import Marks
    from ckptvcs.porcelain.marks import Marked
    from ckptvcs.porcelain.repo import Repository
    from ckptvcs.porcelain.retention import Verdict
    from ckptvcs.porcelain.survey import Survey
    from ckptvcs.storage.files import Lock
    from ckptvcs.storage.names import ObjectName
    from ckptvcs.storage.removal import Stored


_BATCH: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What went from one place."""

    place: str
    objects: int = 0
    """Those that were swept."""
    nbytes: int = 0
    into_trash: bool = False
    """Whether they can be brought back for some time: then no room is free yet."""
    emptied: int = 0
    """Objects that went from the trash for good."""
    emptied_bytes: int = 0
    healed: tuple[ObjectName, ...] = ()
    """Objects in the trash that are needed after all, and are back."""

    @property
    def did(self) -> bool:
        """Whether anything happened."""
        return bool(self.objects or self.emptied or self.healed)


def sweep(
    repo: Repository,
    run: Marks,
    verdict: Verdict,
    surveys: Sequence[Survey],
    *,
    others: Mapping[str, set[ObjectName]] | None,
    trash_s: float | None,
    dry_run: bool,
) -> list[Swept]:
    """Sweep every place, the local cache first.

    Args:
        repo: the repository.
        run: what this collection writes beside objects, without names.
        verdict: what is needed.
        surveys: of all places.
        others: what every other place has of what nobody needs; None if that is not known.
        trash_s: how long what goes from a remote stays in the trash; None if not at all.
        dry_run: change nothing.

    Raises:
        RefMoved: this clone, or another one that uses the cache, has moved on since it was looked at.
        StorageError: a store does not answer; the next run goes on.
    """
    ordered = sorted(surveys, key=lambda survey: not survey.place.is_hot)
    if dry_run:
        return [_would(one, trash_s) for one in ordered]
    sweeper = _Sweeper(repo, run, verdict, trash_s, _left(surveys, others))
    return [sweeper.here(one) if one.place.is_hot else sweeper.there(one) for one in ordered]


def _would(one: Survey, trash_s: float | None) -> Swept:
    return Swept(
        place=one.place.name,
        objects=len(one.kill),
        nbytes=_size(one.kill.values()),
        into_trash=trash_s is not None and not one.place.is_hot,
    )


def _size(stored: Iterable[Stored]) -> int:
    return sum(one.nbytes for one in stored)


def _left(surveys: Sequence[Survey], others: Mapping[str, set[ObjectName]] | None) -> dict[str, set[ObjectName]] | None:
    return None if others is None else {**others, **{survey.place.name: set(survey.stored) for survey in surveys}}


class _Sweeper:
    """Sweeps places, one after the other."""

    def __init__(
        self,
        repo: Repository,
        run: Marks,
        verdict: Verdict,
        trash_s: float | None,
        left: dict[str, set[ObjectName]] | None,
    ) -> None:
        self._repo = repo
        self._run = run
        self._verdict = verdict
        self._state = verdict.state
        self._trash_s = trash_s
        self._left = left
        """What each place still has that nobody needs; None if that is not known of all of them."""

    def here(self, one: Survey) -> Swept:
        """The local cache: nobody writes here meanwhile, neither we nor DVC."""
        if not one.due:
            return Swept(place=one.place.name)
        with self._repo.cache_lock(), self._repo.dvc_lock(), self._unmoved(one) as lock:
            if self._verdict.answers is not None and neighbours.have_moved(self._verdict.answers.theirs.clones):
                raise _moved(one, "another repository that uses it")
            self._tell(one, lock)
            one.place.removal.remove(one.kill)
            marks.forget(one.place, one.due)
        ballast.fill(self._repo)
        return Swept(place=one.place.name, objects=len(one.kill), nbytes=_size(one.kill.values()))

    @contextmanager
    def _unmoved(self, one: Survey) -> Iterator[Lock]:
        """Nobody of this clone has come to need anything since it was looked at, and nobody does during the block."""
        with locked(self._repo) as lock:
            if state_of(self._repo) != self._state:
                raise _moved(one, "this repository")
            yield lock

    def there(self, one: Survey) -> Swept:
        """A remote. G6: into the trash, which is written down first; G7: our own marks; G8: the trash of earlier runs.

        What goes for good goes as from the cache: what pushes need is leased, but holds and tags here are not.
        """
        emptied, healed = _empty(one, self._verdict, self._trash_s)
        if one.due:
            with nullcontext() if self._trash_s is not None else self._unmoved(one) as lock:
                self._tell(one, lock)
            self._take(one)
            marks.forget(one.place, one.due)
        return Swept(
            place=one.place.name,
            objects=len(one.kill),
            nbytes=_size(one.kill.values()),
            into_trash=self._trash_s is not None,
            emptied=len(emptied),
            emptied_bytes=sum(emptied.values()),
            healed=tuple(healed),
        )

    def _take(self, one: Survey) -> None:
        """Take the objects away, some at a time, as long as the marks of them stand: they may have gone to an heir."""
        names = sorted(one.kill)
        if self._trash_s is not None and names:
            marks.write(one.place, marks.TRASH, msgspec.structs.replace(self._run, objects=tuple(names)))
        for start in range(0, len(names), _BATCH):
            marks.refuse_inherited(one.place, one.due)
            some = names[start : start + _BATCH]
            if self._trash_s is None:
                with self._unmoved(one):
                    one.place.removal.remove(some)
            else:
                one.place.removal.trash(some, self._run.run)

    def _tell(self, one: Survey, lock: Lock | None) -> None:
        """The ledger first. On a full disk there is room for it: that is what the ballast is for."""
        if not one.kill:
            return
        told = [(fates.SWEEP, entry) for entry in self._entries(one)]
        ballast.despite_full(self._repo, lambda: ledger.append_all(self._repo, told, lock=lock))
        if lock is not None:
            self._state = state_of(self._repo)  # now with what we told ourselves

    def _entries(self, one: Survey) -> list[dict[str, Any]]:
        """What goes from which place, and the components of which that was the last copy."""
        if self._left is not None:
            self._left[one.place.name] -= one.kill.keys()
        facts = {"place": one.place.name, "objects": len(one.kill), "bytes": _size(one.kill.values())}
        gone, known = dict(self._gone(one.kill.keys())), self._verdict.looked.account.dropped
        by_why: dict[str, dict[CheckpointId, tuple[str, ...]]] = {}
        for identifier, components in gone.items():
            why = known[identifier].why if identifier in known else ""
            by_why.setdefault(why, {})[identifier] = components
        found = [
            entry
            for why, some in by_why.items()
            for entry in fates.facts(run=self._run.run, of=some, why=why, more=facts)
        ]
        none = {"run": self._run.run, "components": [], "checkpoints": [], "gone": False, **facts}
        return found or [none]

    def _gone(self, swept: Collection[ObjectName]) -> Iterator[tuple[CheckpointId, tuple[str, ...]]]:
        """The components of dropped checkpoints that lose an object of which no copy is left anywhere."""
        lost = set(swept).difference(*self._left.values()) if self._left is not None else set()
        if not lost:
            return
        for identifier, components in self._verdict.dropped().items():
            slim = self._verdict.looked.inventory.slim(identifier)
            whole = not self._verdict.kept[identifier]
            names = (name for name in components if not lost.isdisjoint(names_of(slim, [name], whole=whole)))
            if found := tuple(names):
                yield identifier, found


def _moved(one: Survey, who: str) -> RefMoved:
    return RefMoved(
        f"'{one.place.name}' was not swept any further",
        why=f"{who} has changed since it was looked at",
        next_step="run 'ckpt gc' again",
    )


def _empty(one: Survey, verdict: Verdict, trash_s: float | None) -> tuple[dict[ObjectName, int], list[ObjectName]]:
    """Bring back what is needed from the trash, and remove for good what has been in it long enough.

    Returns:
        What went, and the bytes of each; and what is back.
    """
    emptied: dict[ObjectName, int] = {}
    healed: list[ObjectName] = []
    place = one.place
    for record in one.trash:
        run = trash_of(record)
        needed = verdict.doomed.needed(record.names)
        here = {stored.name for stored in place.removal.stored(needed)}
        healed += place.removal.bring_back(sorted(needed - here), run)
        if record.age_s >= (trash_s or 0.0):
            sizes = place.removal.trashed(sorted(record.names - (needed - here)), run)
            place.removal.empty(sizes, run)
            marks.forget(place, [record])
            emptied.update(sizes)
    return emptied, healed


def trash_of(record: Marked) -> str:
    """The run in whose folder the objects of a list lie: a long list is in parts."""
    return "-".join(record.run.split("-")[:3])
