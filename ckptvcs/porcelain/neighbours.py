"""Other repositories that use the same stores: they are known there, and asked what they need before anything is condemned.

A push makes its repository known, by the address of its git remote. What a neighbour needs is everything that its refs lead
to: its policy is its own.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from ckptvcs.digest import digest
from ckptvcs.domain import remote_files
from ckptvcs.domain.remote_files import MAX_BYTES, Neighbour
from ckptvcs.errors import CkptvcsError, FormatError, StorageError
from ckptvcs.paths import printable
from ckptvcs.porcelain import foreign, inventory
from ckptvcs.porcelain.repo import Repository
from ckptvcs.porcelain.state import state_of
from ckptvcs.storage.history import ancestry, mirror, recovery, settings
from ckptvcs.storage.history.transport import without_password
from ckptvcs.storage.names import DIR_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ckptvcs.porcelain.places import Place
    from ckptvcs.storage.sidefiles import SideFiles

FOLDER: Final = "repositories"


def register(repo: Repository, remote: str, side: SideFiles, to: str) -> None:
    """Make this repository known in a store, if it is not. That it cannot be is no reason not to push.

    Args:
        repo: the repository.
        remote: the name of the store.
        side: the files beside its objects.
        to: the git remote that has its refs.
    """
    ours = _ourselves(repo, to)
    if ours is None:
        return
    data = remote_files.to_bytes(ours)
    name = f"{digest(ours.url.encode('utf-8', 'surrogateescape'))[:16]}.json"
    note = repo.private / "registered.json"
    known = _noted(note)
    if known.get(remote) == name:
        return
    try:
        if side.read(f"{FOLDER}/{name}", limit=MAX_BYTES) != data:
            side.write(f"{FOLDER}/{name}", data)
    except (StorageError, FormatError):  # who may add objects alone has told of its push by its lease
        return
    with suppress(OSError):  # it is a hint: next time it is looked at again
        note.write_bytes(msgspec.json.encode({**known, remote: name}))


def _noted(note: os.PathLike[str]) -> dict[str, str]:
    try:
        with open(note, "rb") as file:
            return msgspec.json.decode(file.read(), type=dict[str, str])
    except (OSError, ValueError):
        return {}


def _ourselves(repo: Repository, to: str) -> Neighbour | None:
    url, head = address(repo, to), repo.history.head()
    if url is None or len(url) > 4096 or url.startswith("-"):
        return None
    first = ancestry.first(repo.history, head) if head is not None else ""
    return Neighbour(repository=first, url=printable(url))


def address(repo: Repository, to: str) -> str | None:
    """Where a git remote is, without a password; a path is made absolute."""
    url = settings.value(repo.history, f"remote.{to}.url")
    return None if url is None else without_password(resolved(repo, url))


def resolved(repo: Repository, url: str) -> str:
    """An address that git finds from everywhere: a path, which begins at the root of the repository, is made absolute."""
    if "://" in url or ":" in url.partition("/")[0]:
        return url
    return os.path.realpath(repo.history.root / os.path.expanduser(url))


def known(repo: Repository, place: Place) -> tuple[list[str], list[str]]:
    """The addresses of other repositories that use a place, and what cannot be read of them, in words."""
    ours = {url for name in repo.history.repo.remotes.names() if name and (url := address(repo, name)) is not None}
    found, unreadable = [], []
    for entry in place.side.list(FOLDER):
        path = f"{FOLDER}/{entry.name}"
        data = place.side.read(path, limit=MAX_BYTES) if entry.name.endswith(".json") else None
        if data is None:
            continue
        try:
            said = remote_files.from_bytes(data, Neighbour, where=path)
        except CkptvcsError as err:
            unreadable.append(str(err))
            continue
        if said.url not in ours:
            found.append(said.url)
    return found, unreadable


@dataclass(slots=True)
class Needs:
    """What neighbours said."""

    names: set[str] = field(default_factory=set)
    """Of all objects that they need."""
    silent: list[str] = field(default_factory=list)
    """Those that did not answer, and what could not be read of the others."""
    answered: list[str] = field(default_factory=list)
    """The addresses of the others, as far as they answered and are not our own git remotes by another address."""
    clones: dict[str, str] = field(default_factory=dict)
    """Those on this machine, and what they were when they were asked; see `state.state_of`."""


def needed(
    repo: Repository, addresses: Sequence[str], places: Sequence[Place], hubs: Sequence[Mapping[str, str]]
) -> Needs:
    """Ask other repositories what they need.

    Args:
        repo: the repository.
        addresses: where git finds the others.
        places: where lists of their directories are looked for.
        hubs: all refs of our git remotes. Who has the very same ones is one of them by another address, such as https for ssh,
            or decides as we do: it has the same policy and the same ledger.
    """
    found, said = foreign.Foreign(), Needs()
    for url in sorted(set(addresses)):
        try:
            clone = _clone_at(url)
            if clone is not None:
                said.clones[url] = state_of(clone)
            variables = mirror.guarded(repo.around.variables)
            copy = mirror.update(repo.private / "neighbours", url, variables)
            if clone is None and mirror.refs(copy) in hubs:
                continue
            taken = inventory.take(copy, variables, sorted(mirror.tips(copy)))
        except StorageError:
            said.silent.append(printable(without_password(url)))
            continue
        said.answered.append(printable(without_password(url)))
        found.names |= taken.foreign
        found.names.update(_names(taken))
        found.unreadable += [f"{what} in '{printable(url)}'" for what in taken.unreadable]
        foreign.add_members(found, taken, places)
        if clone is not None:
            _add_unfinished(found, clone, url, places)
    said.names = found.names
    said.silent += found.unreadable
    return said


def have_moved(clones: Mapping[str, str]) -> bool:
    """Whether a neighbour on this machine is no longer what it was when it was asked: it may need more now."""
    now = {url: _clone_at(url) for url in clones}
    return any(clone is None or state_of(clone) != clones[url] for url, clone in now.items())


def _clone_at(url: str) -> Repository | None:
    path = url.removeprefix("file://")
    if not os.path.isdir(path):
        return None
    try:
        return Repository.open(path)
    except CkptvcsError:  # a bare one, or one without data: refs are all that it has
        return None


def _add_unfinished(found: foreign.Foreign, other: Repository, url: str, places: Sequence[Place]) -> None:
    """Of a repository on this machine what no ref leads to, too: what is staged or stashed, and files of DVC that lie there."""
    tips = {*map(str, recovery.heads(other.history).values()), *recovery.logged(other.history)}
    taken = inventory.take(other.history, mirror.guarded(other.around.variables), sorted(tips))
    named = foreign.needed(other, taken, places)
    found.names.update(named.names, _names(taken))
    found.unreadable += [f"{what} in '{printable(url)}'" for what in named.unreadable]


def _names(taken: inventory.Inventory) -> Iterator[str]:
    for slim in taken.slims():
        yield slim.directory.hex() + DIR_SUFFIX
        for part in (*slim.parts.values(), slim.files):
            yield from (name.hex() for name, _ in part.objects())
