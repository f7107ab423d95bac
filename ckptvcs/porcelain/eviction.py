"""A limit of bytes for the local cache: copies go of what a warm remote has whole, the oldest first. Nothing is dropped by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckptvcs.domain import quotas
from ckptvcs.domain.keeping import size
from ckptvcs.domain.retention import kept_components
from ckptvcs.porcelain.doomed import sizes_of

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence

    from ckptvcs.domain.checkpoint import CheckpointId
    from ckptvcs.domain.keeping import Retain
    from ckptvcs.domain.retention import Decision
    from ckptvcs.porcelain.places import Place
    from ckptvcs.porcelain.view import Looked

    Kept = Mapping[CheckpointId, frozenset[str]]


def evicted(
    looked: Looked, decided: Mapping[CheckpointId, Decision], retain: Retain | None, kept: Kept, places: Sequence[Place]
) -> tuple[CheckpointId, ...]:
    """The checkpoints whose local copies go, oldest first. What the floor keeps stays here as well.

    Args:
        looked: what was found.
        decided: about each checkpoint.
        retain: the policy.
        kept: the components of each checkpoint that are kept.
        places: the local cache and the warm remotes, as far as they were asked for.

    Raises:
        StorageError: a remote does not answer.
    """
    hot = next((place for place in places if place.is_hot), None)
    warm = [place for place in places if not place.is_hot]
    if retain is None or retain.max_bytes.hot is None or hot is None or not warm:
        return ()
    limit = size(retain.max_bytes.hot)
    assert limit is not None  # checked when the policy was read
    here = {bytes.fromhex(stored.name[:32]) for stored in hot.removal.stored()}

    every = looked.view.sized()

    def objects(identifier: CheckpointId, components: Collection[str]) -> Iterator[tuple[Hashable, int]]:
        return (one for one in every(identifier, components) if one[0] in here)

    members = looked.view.members
    fixed = {i: kept_components(members[i], [r for r in one.reasons if r.floor]) for i, one in decided.items()}
    loose = [i for i in kept if kept[i] - fixed[i]]
    there = _whole_elsewhere(looked, loose, kept, warm)
    fixed |= {i: kept[i] for i in loose if i not in there}
    oldest = sorted((i for i in kept if kept[i]), key=lambda i: (members[i].time, i))
    return tuple(quotas.too_many(objects, oldest, kept, fixed, limit=limit))


def _whole_elsewhere(
    looked: Looked, some: Sequence[CheckpointId], kept: Kept, warm: Sequence[Place]
) -> set[CheckpointId]:
    """Those of which one remote has every object that is kept, as long as it is here."""
    needed = {i: sizes_of(looked.inventory.slim(i), kept[i]) for i in some}
    wanted = {name for sizes in needed.values() for name in sizes}
    found: set[CheckpointId] = set()
    for place in warm:
        there = place.objects.sizes(wanted)
        found |= {i for i, sizes in needed.items() if all(there.get(name) == nbytes for name, nbytes in sizes.items())}
    return found
