"""What others need of the objects: every file of DVC that is no pointer of ours, wherever it is, and what its folders hold.

Files of DVC in commits are found by the inventory; here are those that are in no commit yet, and what directories name.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ckptvcs.errors import CkptvcsError
from ckptvcs.paths import printable
from ckptvcs.porcelain.inventory import tells_of_dvc, tokens
from ckptvcs.storage.history import recovery
from ckptvcs.storage.names import DIR_SUFFIX, ObjectName, is_object_name
from ckptvcs.storage.plain_yaml import plain_yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from ckptvcs.porcelain.inventory import Inventory
    from ckptvcs.porcelain.places import Place
    from ckptvcs.porcelain.repo import Repository

MAX_FILE: Final = 16 << 20
_MAX_LIST: Final = 1 << 30
_PIECE: Final = 8 << 20


@dataclass(slots=True)
class Foreign:
    """What others need."""

    names: set[str] = field(default_factory=set)
    unreadable: list[str] = field(default_factory=list)
    """What cannot be read, so that nobody knows what it needs, in words."""


def needed(repo: Repository, inventory: Inventory, places: Sequence[Place]) -> Foreign:
    """Everything that files of DVC name which are no pointers of ours, and what is in the directories that they name.

    Args:
        repo: the repository.
        inventory: of its commits.
        places: where the lists of directories are looked for.

    Raises:
        StorageError: git cannot read its index.
    """
    found = Foreign(names=set(inventory.foreign), unreadable=list(inventory.unreadable))
    if repo.history.is_shallow():
        found.unreadable.append(
            "this clone is shallow: what older checkpoints need is known after 'git fetch --unshallow'"
        )
    found.unreadable += [
        f"worktree '{printable(str(path))}' is locked and away: nobody knows which files of DVC lie there"
        for path in recovery.away(repo.history)
    ]
    staged = recovery.staged(repo.history, tells_of_dvc, limit=MAX_FILE)
    for where, data in (*staged, *_on_disk(repo, found)):
        if data is None:
            found.unreadable.append(f"'{printable(where)}' is too large")
        else:
            named = tokens(data)
            found.names |= named
            if not named and tells_of_dvc(where) and not _can_be_read(data):
                found.unreadable.append(f"'{printable(where)}' is no file of DVC, so that nobody knows what it needs")
    add_members(found, inventory, places)
    return found


def _can_be_read(data: bytes) -> bool:
    """Whether a file that names no object is one of DVC nevertheless, and not one that was damaged."""
    try:
        return isinstance(plain_yaml(data), dict)
    except ValueError:
        return False


def named_on_disk(repo: Repository) -> set[str]:
    """What files of DVC name in the worktrees, committed or not."""
    return {name for _, data in _on_disk(repo, Foreign()) for name in tokens(data or b"")}


def _on_disk(repo: Repository, found: Foreign) -> Iterator[tuple[str, bytes | None]]:
    """The files of every worktree, committed or not, and what DVC remembers of runs of stages."""
    for tree in recovery.worktrees(repo.history):
        yield from _files_below(tree, found, below_dvc=False)
    yield from _files_below(repo.dvc_config.cache_dir / "runs", found, below_dvc=True)


def _files_below(root: Path, found: Foreign, *, below_dvc: bool) -> Iterator[tuple[str, bytes | None]]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name != ".git" and not (name == ".dvc" and not below_dvc)]
        for name in names:
            if not below_dvc and not tells_of_dvc(name):
                continue
            path = os.path.join(folder, name)
            try:
                with open(path, "rb") as file:
                    data = file.read(MAX_FILE + 1)
            except FileNotFoundError:
                continue
            except OSError as err:
                found.unreadable.append(f"'{printable(path)}': {err.strerror}")
                continue
            yield path, data if len(data) <= MAX_FILE else None


def add_members(found: Foreign, inventory: Inventory, places: Sequence[Place]) -> None:
    """The files of directories that are needed. Those of our checkpoints are known; of others the list has to be read."""
    lists = {name for name in found.names if name.endswith(DIR_SUFFIX)}
    ours = {slim.directory.hex() + DIR_SUFFIX: slim for slim in inventory.slims()} if lists else {}
    for name in lists & ours.keys():
        for part in (*ours[name].parts.values(), ours[name].files):
            found.names.update(one.hex() for one, _ in part.objects())
    left = sorted(ObjectName(name) for name in lists - ours.keys())
    for place in places:
        left = list(_not_read(found, left, place))
    found.unreadable += [f"the files of directory {name[:10]}, which DVC tracks, are not known" for name in left]


def _not_read(found: Foreign, names: Iterable[ObjectName], place: Place) -> Iterator[ObjectName]:
    names = list(names)
    sizes = place.objects.sizes(names) if names else {}
    for name in names:
        try:
            if name not in sizes or sizes[name] > _MAX_LIST:
                raise ValueError("it is not there")
            pieces = (
                place.objects.read(name, at, min(at + _PIECE, sizes[name])) for at in range(0, sizes[name], _PIECE)
            )
            found.names |= _members(b"".join(pieces))
        except (CkptvcsError, ValueError):
            yield name


def _members(data: bytes) -> set[str]:
    """The names in the list of a directory.

    Raises:
        ValueError: it is none.
    """
    document = json.loads(data)
    if not isinstance(document, list) or not all(isinstance(entry, dict) for entry in document):
        raise ValueError("it is no list of files")
    names = {str(entry.get("md5")) for entry in document}
    if not all(map(is_object_name, names)):
        raise ValueError("it names what is no object")
    return names
