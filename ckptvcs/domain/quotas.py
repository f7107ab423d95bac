"""Limits of bytes: which checkpoints have to go so that what is kept fits. Objects that several share count once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckptvcs.domain.keeping import size

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping, Sequence

    from ckptvcs.domain.checkpoint import CheckpointId
    from ckptvcs.domain.keeping import Retain
    from ckptvcs.domain.reasons import Objects

    Kept = Mapping[CheckpointId, frozenset[str]]
    """The components of checkpoints that are kept."""


def limit_of(retain: Retain, *, has_warm: bool) -> tuple[int, str] | None:
    """The limit of everything that is kept anywhere, and its key; None if there is none."""
    tier = "warm" if has_warm else "hot"
    found: str | None = getattr(retain.max_bytes, tier)
    if found is None:
        return None
    limit = size(found)
    assert limit is not None  # checked when the policy was read
    return limit, f"retain.max_bytes.{tier}"


def too_many(
    objects: Objects, oldest: Sequence[CheckpointId], kept: Kept, fixed: Kept, *, limit: int
) -> Iterator[CheckpointId]:
    """The checkpoints that have no room, oldest first.

    Args:
        objects: those of a checkpoint.
        oldest: those that are kept, in the order in which they go.
        kept: what of each is kept.
        fixed: what of each stays in any case, and takes room as well.
        limit: bytes.
    """
    room = _Room(objects)
    for identifier in oldest:
        room.enter(identifier, kept[identifier])
    for identifier in oldest:
        if room.nbytes <= limit:
            return
        stays = fixed.get(identifier, frozenset[str]())
        if kept[identifier] - stays:
            room.leave(identifier, kept[identifier])
            room.enter(identifier, stays)
            yield identifier


class _Room:
    """The bytes of the objects of what is in it, each counted once."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._users: dict[Hashable, int] = {}
        self.nbytes = 0

    def enter(self, identifier: CheckpointId, components: frozenset[str]) -> None:
        for key, nbytes in self._of(identifier, components):
            users = self._users.get(key, 0)
            self._users[key] = users + 1
            self.nbytes += 0 if users else nbytes

    def leave(self, identifier: CheckpointId, components: frozenset[str]) -> None:
        for key, nbytes in self._of(identifier, components):
            self._users[key] -= 1
            self.nbytes -= 0 if self._users[key] else nbytes

    def _of(self, identifier: CheckpointId, components: frozenset[str]) -> Sequence[tuple[Hashable, int]]:
        return list(dict(self._objects(identifier, components)).items()) if components else []
