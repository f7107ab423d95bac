"""What of a place is to be condemned, what waits, and what can be swept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ckptvcs.domain.sanity import Going
from ckptvcs.paths import printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from ckptvcs.porcelain.marks import Marked, Seen
    from ckptvcs.porcelain.places import Place
    from ckptvcs.porcelain.retention import Verdict
    from ckptvcs.storage.names import ObjectName
    from ckptvcs.storage.removal import Stored

HEIRS_WAIT_S: Final = 86400.0
"""So much longer than the grace what another collector condemned is left to it."""
_OLD_S: Final = 30 * 86400.0
"""Marks of others that are older are of a collector that does not come back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What was found in a place."""

    place: Place
    stored: Mapping[ObjectName, Stored]
    """The objects there that nobody needs."""
    fresh: Mapping[ObjectName, Stored]
    """Those of them that nobody has condemned yet, and that no push under way needs."""
    due: Sequence[Marked]
    """Marks of ours that are older than the grace."""
    kill: Mapping[ObjectName, Stored]
    """What they name, and what can go now."""
    waiting: Sequence[Marked]
    """Marks of ours that are younger."""
    trash: Sequence[Marked]
    """Lists of what is in the trash, of whomever."""
    going: Going | None
    """What would be condemned, beside all that is there, without local copies of what a remote has; None if nothing goes."""
    notes: tuple[str, ...] = ()

    @property
    def fresh_bytes(self) -> int:
        return sum(stored.nbytes for stored in self.fresh.values())

    @property
    def _waiting_names(self) -> set[ObjectName]:
        return {name for marked in self.waiting for name in marked.names}.intersection(self.stored)

    @property
    def waiting_objects(self) -> int:
        return len(self._waiting_names)

    @property
    def waiting_bytes(self) -> int:
        return sum(self.stored[name].nbytes for name in self._waiting_names)


def survey(place: Place, verdict: Verdict, seen: Seen, *, writer: str, grace_s: float, heirs: bool) -> Survey:
    """Look at a place; change nothing.

    What another collector of this repository condemned long ago is taken over: its clone may have lived for one night.

    Args:
        place: the place.
        verdict: what is needed.
        seen: what is beside its objects, as it was before anybody was asked what is needed.
        writer: whose marks are ours.
        grace_s: how long what is condemned waits.
        heirs: whether what others of this repository condemned may be taken over; see `docs/decisions/0022-heirs.md`.

    Raises:
        StorageError: the store does not answer.
    """
    everyone, leased = seen.marks, seen.leased
    known = verdict.looked.account.collected.keys() if heirs else ()
    inherited = [m for m in everyone if m.writer in known and m.age_s >= grace_s + HEIRS_WAIT_S]
    mine = [marked for marked in everyone if marked.writer == writer or marked in inherited]
    due = [marked for marked in mine if marked.age_s >= grace_s]
    condemned = {name for marked in everyone for name in marked.names}
    stored = {one.name: one for one in verdict.doomed_in(place).at(place.removal)}
    fresh = {name: one for name, one in stored.items() if name not in condemned and name not in leased}
    kill = {one.name: one for marked in due for one in _killed(place, verdict, marked, leased)}
    return Survey(
        place=place,
        stored=stored,
        fresh=fresh,
        due=due,
        kill=kill,
        waiting=[marked for marked in mine if marked.age_s < grace_s],
        trash=seen.trash,
        going=_going(place, verdict, fresh) if fresh or kill else None,
        notes=tuple(_notes(place, [marked for marked in everyone if marked not in mine])),
    )


def _killed(place: Place, verdict: Verdict, marked: Marked, leased: Collection[ObjectName]) -> Iterator[Stored]:
    """What can go of what was marked: what nobody needs by now, and what was not written anew since."""
    names = marked.names - verdict.doomed_in(place).needed(marked.names) - set(leased)
    for stored in place.removal.stored(names):
        if stored.time_s is None or stored.time_s <= marked.time_s:
            yield stored


def _going(place: Place, verdict: Verdict, fresh: Mapping[ObjectName, Stored]) -> Going:
    here = place.side.now("gc")
    copies = verdict.doomed.needed(fresh) if verdict.evicted and place.is_hot else set()
    lost = {name: stored for name, stored in fresh.items() if name not in copies}
    return Going(
        place=place.name,
        objects=len(lost),
        nbytes=sum(stored.nbytes for stored in lost.values()),
        total=sum(stored.nbytes for stored in place.removal.stored()) if fresh else 0,
        skew_s=None if here is None or place.is_hot else here - verdict.clock,
    )


def _notes(place: Place, others: Sequence[Marked]) -> Iterator[str]:
    for marked in others:
        if marked.age_s > _OLD_S:
            yield (
                f"collection '{printable(marked.run)}' of writer '{marked.writer}' began {marked.age_s / 86400:.0f} days ago in "
                f"'{place.name}' and has not ended: what it condemned stays, and cannot be pushed; if that clone is gone for "
                f"good, remove '.ckptvcs/{marked.path}' there"
            )
