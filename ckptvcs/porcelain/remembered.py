"""The hint `.git/ckptvcs/history.msgpack`: checkpoints of commits that were looked at before, in brief.

It is sealed, so that what a disk or an editor made of it is not believed; losing it costs time. Git names commits by what they
hold, so what one holds is settled; those that no ref leads to any more are forgotten.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from ckptvcs._version import VERSION
from ckptvcs.digest import digest
from ckptvcs.domain.checkpoint import CheckpointId  # noqa: TC001 - msgspec looks types up when it runs
from ckptvcs.porcelain import inventory
from ckptvcs.porcelain.inventory import Brief, Inventory
from ckptvcs.storage.history.repository import CommitId

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ckptvcs.porcelain.repo import Repository

_WORTH_REMEMBERING: Final = 64
"""Commits that are new before all of it is written anew."""


class _Memory(msgspec.Struct, array_like=True, gc=False):
    by: str
    tips: list[str]
    """Where it was looked from."""
    parents: dict[CommitId, tuple[CommitId, ...]]
    held: dict[CommitId, tuple[CheckpointId, ...]]
    made: dict[CommitId, tuple[CheckpointId, ...]]
    checkpoints: list[Brief]


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(_Memory)


def take(repo: Repository, tips: Sequence[str]) -> Inventory:
    """What can be reached from some commits, in brief; see `inventory.take`.

    Raises:
        StorageError: git cannot read its history.
    """
    with inventory.undisturbed():
        known, tips_before = _read(_file(repo))
    if tips_before == list(tips):
        return known
    before = len(known.parents)
    found = inventory.take(repo.history, repo.around.variables, tips, onto=known)
    _forget_unreachable(found, tips)
    if abs(len(found.parents) - before) >= _WORTH_REMEMBERING and not found.unreadable:
        _write(repo, found, tips)
    return found


def _file(repo: Repository) -> Path:
    return repo.private / "history.msgpack"


def _read(path: Path) -> tuple[Inventory, list[str]]:
    try:
        seal, _, data = path.read_bytes().partition(b"\n")
        if seal.decode("ascii") != digest(data):
            return Inventory(), []
        memory = _DECODER.decode(data)
    except (OSError, ValueError):
        return Inventory(), []
    if memory.by != VERSION:
        return Inventory(), []
    checkpoints = {brief.id: brief for brief in memory.checkpoints}
    found = Inventory(checkpoints=checkpoints, parents=memory.parents, held=memory.held, made=memory.made)
    return found, memory.tips


def _write(repo: Repository, found: Inventory, tips: Sequence[str]) -> None:
    briefs = [Brief(*(getattr(one, name) for name in Brief.__struct_fields__)) for one in found.checkpoints.values()]
    memory = _Memory(VERSION, list(tips), found.parents, found.held, found.made, briefs)
    data = _ENCODER.encode(memory)
    with suppress(OSError):  # it is a hint; a repository that we may only read has none
        if repo.private.is_dir():
            _file(repo).write_bytes(digest(data).encode("ascii") + b"\n" + data)


def _forget_unreachable(found: Inventory, tips: Sequence[str]) -> None:
    """Leave out what no ref leads to any more."""
    seen: set[CommitId] = set()
    left = [CommitId(tip) for tip in tips if CommitId(tip) in found.parents]
    while left:
        commit = left.pop()
        if commit not in seen:
            seen.add(commit)
            left += found.parents[commit]
    if len(seen) == len(found.parents):
        return
    for table in (found.parents, found.held, found.made):
        for commit in table.keys() - seen:
            del table[commit]
    kept = {identifier for held in found.held.values() for identifier in held}
    for identifier in found.checkpoints.keys() - kept:
        del found.checkpoints[identifier]
