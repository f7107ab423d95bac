"""`gc --rescue`: a condemnation is taken back, and what is in the trash comes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckptvcs.domain import fates
from ckptvcs.errors import MissingObject, NotFound
from ckptvcs.porcelain import account, ledger, marks, places
from ckptvcs.porcelain.checkpoints import require_checkpoint
from ckptvcs.porcelain.describe import ref_of
from ckptvcs.porcelain.push import directory_of
from ckptvcs.porcelain.sweeping import trash_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ckptvcs.domain.checkpoint import Checkpoint
    from ckptvcs.porcelain.places import Place
    from ckptvcs.porcelain.repo import Repository
    from ckptvcs.storage.names import ObjectName


@dataclass(frozen=True, slots=True, kw_only=True)
class RescuePlan:
    """A checkpoint that is to be rescued."""

    checkpoint: Checkpoint
    components: tuple[str, ...]
    """What of it is condemned, or lies in a trash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescued:
    """What a rescue did."""

    brought_back: int
    """Objects that were in the trash of a remote."""


def plan(repo: Repository, revision: str, *, track: str | None = None) -> RescuePlan:
    """Look at the checkpoint; change nothing.

    Raises:
        NotFound: there is no such checkpoint, or nothing of it is condemned.
        BadEntry: the chain of this clone is damaged.
    """
    said = account.read(repo)
    ledger.refuse_damage(repo, said.flaws)
    checkpoint = said.on(require_checkpoint(repo, revision, track or repo.basics.track))
    if checkpoint.dropped is None:
        raise NotFound(
            f"checkpoint {checkpoint.id[:10]} is not condemned",
            why="the ledger, as far as it is here, says nothing of that",
            next_step="run 'ckpt fetch' if somebody else may have condemned it",
        )
    return RescuePlan(checkpoint=checkpoint, components=tuple(sorted(checkpoint.dropped.components)))


def execute(repo: Repository, rescue: RescuePlan) -> Rescued:
    """Bring back what is in the trash, and write the rescue down.

    Raises:
        MissingObject: something of it is nowhere any more; nothing is written down.
        StorageError: a store does not answer.
    """
    wanted = _names(repo, rescue)
    brought = 0
    here: set[ObjectName] = set()
    for place in places.opened(repo):
        here |= {stored.name for stored in place.removal.stored(wanted)}
        back = _bring_back(place, wanted - here)
        brought, here = brought + len(back), here | back
    missing = wanted - here
    if missing:
        raise MissingObject(
            f"checkpoint {rescue.checkpoint.id[:10]} cannot be rescued",
            why=f"{len(missing)} of its {len(wanted)} objects are nowhere any more, nor in a trash",
            next_step="see 'ckpt log' for what is near",
            objects=sorted(missing)[:100],
        )
    told = fates.facts(run="by-hand", of={rescue.checkpoint.id: rescue.components}, why="rescued")
    ledger.append_all(repo, [(fates.RESCUE, entry) for entry in told])
    return Rescued(brought_back=brought)


def _names(repo: Repository, rescue: RescuePlan) -> set[ObjectName]:
    manifest = rescue.checkpoint.manifest
    wanted = [c for c in manifest.components if c.name in rescue.components]
    files = [file for component in wanted for file in component.files]
    whole = len(wanted) == len(manifest.components)
    names = {ref_of(file).name for file in (*files, *(manifest.files if whole else ()))}
    return {*names, directory_of(repo, rescue.checkpoint)[0].name} if whole else names


def _bring_back(place: Place, wanted: set[ObjectName]) -> set[ObjectName]:
    return {
        name for record in _trash(place) for name in place.removal.bring_back(wanted & record.names, trash_of(record))
    }


def _trash(place: Place) -> Iterator[marks.Marked]:
    yield from marks.read(place, marks.TRASH) if not place.is_hot else ()
