"""The places that garbage is collected from: the local cache and the warm remotes, all of them in one way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ckptvcs.errors import NotFound
from ckptvcs.paths import printable
from ckptvcs.porcelain.remotes import known, open_remote
from ckptvcs.storage.folder_remote import FolderRemote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ckptvcs.porcelain.repo import Repository
    from ckptvcs.storage.remotes import Remote
    from ckptvcs.storage.removal import Removal
    from ckptvcs.storage.sidefiles import SideFiles

HOT: Final = "hot"
"""The name of the local cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Objects somewhere."""

    name: str
    is_hot: bool
    objects: Remote
    side: SideFiles
    removal: Removal


def names(repo: Repository) -> list[str]:
    """The names of all places."""
    return [HOT, *(one.name for one in known(repo) if one.tier == "warm")]


def opened(repo: Repository, wanted: Sequence[str] = ()) -> list[Place]:
    """The places of some names; all of them if there are none. What cannot be opened is an error.

    Raises:
        NotFound: there is no such place.
        StorageError: a store does not answer.
    """
    there = names(repo)
    for name in wanted:
        if name not in there:
            raise NotFound(
                f"no place '{printable(name)}'",
                why=f"there are {', '.join(there)}",
                next_step="name one of them: 'hot' is the local cache, the others are warm remotes",
            )
    return [_open(repo, name) for name in wanted or there]


def _open(repo: Repository, name: str) -> Place:
    remote = FolderRemote(HOT, repo.objects.store) if name == HOT else open_remote(repo, name)
    return Place(name=name, is_hot=name == HOT, objects=remote, side=remote.side_files(), removal=remote.removal())
