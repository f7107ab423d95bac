"""The objects that nobody needs any more: those of dropped components that no kept one has, and that nobody else names."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

import numpy as np

from ckptvcs.storage.names import DIR_SUFFIX, ObjectName

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import numpy.typing as npt

    from ckptvcs.domain.checkpoint import CheckpointId
    from ckptvcs.porcelain.inventory import Inventory, Slim
    from ckptvcs.storage.removal import Removal, Stored

_MANY: Final = 10_000
"""Objects of which the store is asked what it has, rather than for each of them."""
_BATCH: Final = 100_000


class _Names:
    """Names of objects by their bytes, and their sizes, as they come."""

    def __init__(self) -> None:
        self._names: list[bytes] = []
        self._sizes = array("q")

    def add(self, names: bytes, sizes: Iterable[int]) -> None:
        self._names.append(names)
        self._sizes.extend(sizes)

    def arrays(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
        """The names, two numbers each, and the sizes."""
        names = np.frombuffer(b"".join(self._names), dtype="<u8").reshape(-1, 2)
        self._names = []
        return names, np.frombuffer(self._sizes, dtype=np.int64)


class Table:
    """Objects, sorted by the first half of their names, each once.

    That is looked for first, and then all of the name. Of two names that begin alike one is left out: what is doomed stays
    where it is then, and what begins as something that is needed is not doomed.

    Args:
        names: two numbers each.
        sizes: bytes of each.
        suffix: what all of the names end in.
        but: what begins as something in there is left out.
    """

    def __init__(
        self,
        names: npt.NDArray[np.uint64],
        sizes: npt.NDArray[np.int64],
        suffix: str,
        *,
        but: Table | None = None,
    ) -> None:
        _, places = np.unique(names[:, 0], return_index=True)
        if but is not None:
            places = places[~but.begins(names[places, 0])]
        self._names, self._sizes, self._suffix = names[places], sizes[places], suffix

    def __len__(self) -> int:
        return len(self._names)

    @property
    def nbytes(self) -> int:
        return int(self._sizes.sum())

    def names(self) -> Iterator[ObjectName]:
        """All of them."""
        for row in self._names:
            yield ObjectName(row.tobytes().hex() + self._suffix)

    def begins(self, halves: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """Whether a name in it begins so."""
        if not len(self):
            return np.zeros(len(halves), dtype=bool)
        places = np.minimum(np.searchsorted(self._names[:, 0], halves), len(self) - 1)
        found: npt.NDArray[np.bool_] = self._names[places, 0] == halves
        return found

    def has(self, names: list[ObjectName]) -> npt.NDArray[np.bool_]:
        """Which of these names, all with the suffix of the table, are in it."""
        if not len(self):
            return np.zeros(len(names), dtype=bool)
        data = bytes.fromhex("".join(name[:32] for name in names))
        wanted = np.frombuffer(data, dtype="<u8").reshape(-1, 2)
        places = np.minimum(np.searchsorted(self._names[:, 0], wanted[:, 0]), len(self) - 1)
        found: npt.NDArray[np.bool_] = (self._names[places] == wanted).all(axis=1)
        return found


class Doomed:
    """Objects that nobody needs, told from those that somebody needs.

    Args:
        files: those that nobody needs.
        directories: likewise, lists of files.
        needed: the others of both kinds.
    """

    def __init__(self, files: Table, directories: Table, needed: tuple[Table, Table]) -> None:
        self.files = files
        self.directories = directories
        self._needed = needed

    def __len__(self) -> int:
        return len(self.files) + len(self.directories)

    def of(self, names: Iterable[ObjectName]) -> set[ObjectName]:
        """Those of some names that are doomed."""
        return _in(names, self.files, self.directories)

    def needed(self, names: Iterable[ObjectName]) -> set[ObjectName]:
        """Those of some names that somebody needs; what nothing is known of is neither doomed nor needed."""
        return _in(names, *self._needed)

    def at(self, removal: Removal) -> Iterator[Stored]:
        """Those that are in a store."""
        if len(self) <= _MANY:
            yield from removal.stored([*self.files.names(), *self.directories.names()])
            return
        batch: list[Stored] = []
        for stored in removal.stored():
            batch.append(stored)
            if len(batch) == _BATCH:
                yield from self._of_stored(batch)
                batch = []
        yield from self._of_stored(batch)

    def _of_stored(self, batch: list[Stored]) -> Iterator[Stored]:
        doomed = self.of([stored.name for stored in batch])
        yield from (stored for stored in batch if stored.name in doomed)


def _in(names: Iterable[ObjectName], files: Table, directories: Table) -> set[ObjectName]:
    found: set[ObjectName] = set()
    names = list(names)
    for is_list, table in ((False, files), (True, directories)):
        some = [name for name in names if name.endswith(DIR_SUFFIX) is is_list]
        found.update(name for name, is_in in zip(some, table.has(some), strict=True) if is_in)
    return found


def doomed(inventory: Inventory, kept: Mapping[CheckpointId, frozenset[str]], foreign: Iterable[str]) -> Doomed:
    """The objects that nobody needs.

    Args:
        inventory: every checkpoint.
        kept: the components of each that are kept.
        foreign: names that somebody else needs.
    """
    live, dead, live_lists, dead_lists = _Names(), _Names(), _Names(), _Names()
    for slim in inventory.slims():
        components = kept.get(slim.id, frozenset())
        for name, part in slim.parts.items():
            (live if name in components else dead).add(part.names, part.sizes)
        (live if components else dead).add(slim.files.names, slim.files.sizes)
        (live_lists if components else dead_lists).add(slim.directory, [slim.directory_nbytes])
    for name in foreign:
        (live_lists if name.endswith(DIR_SUFFIX) else live).add(bytes.fromhex(name[:32]), [0])
    needed, needed_lists = Table(*live.arrays(), ""), Table(*live_lists.arrays(), DIR_SUFFIX)
    files = Table(*dead.arrays(), "", but=needed)
    lists = Table(*dead_lists.arrays(), DIR_SUFFIX, but=needed_lists)
    return Doomed(files, lists, (needed, needed_lists))


def sizes_of(slim: Slim, components: Iterable[str]) -> dict[ObjectName, int]:
    """The objects of a checkpoint of which these components are kept, and the bytes of each."""
    found = {ObjectName(name.hex()): nbytes for name, nbytes in slim.objects(components)}
    return {**found, ObjectName(slim.directory.hex() + DIR_SUFFIX): slim.directory_nbytes}


def names_of(slim: Slim, components: Iterable[str], *, whole: bool) -> set[ObjectName]:
    """The names of the objects of some components of a checkpoint; of a whole one those of no component, too."""
    data = b"".join(slim.parts[name].names for name in components if name in slim.parts)
    data += slim.files.names if whole else b""
    found = {ObjectName(data[at : at + 16].hex()) for at in range(0, len(data), 16)}
    return {*found, ObjectName(slim.directory.hex() + DIR_SUFFIX)} if whole else found
