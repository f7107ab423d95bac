"""`show`: one checkpoint, with everything there is to say about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckptvcs.formats import tree_file
from ckptvcs.porcelain import account
from ckptvcs.porcelain.checkpoints import require_checkpoint
from ckptvcs.porcelain.describe import ref_of
from ckptvcs.porcelain.log import names_by_commit
from ckptvcs.storage.verified import verified_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ckptvcs.domain.checkpoint import Checkpoint
    from ckptvcs.domain.holds import Hold
    from ckptvcs.domain.manifest import ComponentEntry
    from ckptvcs.porcelain.repo import Repository


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One checkpoint with everything there is to say about it."""

    checkpoint: Checkpoint
    names: tuple[str, ...]
    here: tuple[str, ...]
    """Paths of the files whose objects are in the hot tier."""
    tables: Mapping[str, tree_file.TreeFile]
    """The tensors of each component, where they were asked for."""
    holds: tuple[Hold, ...] = ()
    """Those of it that stand."""
    notes: tuple[str, ...] = ()
    """What the user should know."""


def show(repo: Repository, revision: str, *, track: str | None = None, tensors: bool = False) -> Shown:
    """Look at one checkpoint.

    Raises:
        NotFound: there is none.
        IntegrityError: its tensors were asked for, and a tree file is missing or damaged.
    """
    checkpoint = require_checkpoint(repo, revision, track or repo.basics.track)
    store, late = repo.objects.store, account.read(repo)
    return Shown(
        checkpoint=late.on(checkpoint),
        names=names_by_commit(repo).get(checkpoint.commit, ()),
        here=tuple(f.path for f in checkpoint.manifest.all_files() if store.nbytes(ref_of(f).name) == f.size),
        tables=tables(repo, checkpoint.manifest.components) if tensors else {},
        holds=late.holds.get(checkpoint.id, ()),
        notes=late.notes,
    )


def tables(repo: Repository, components: Iterable[ComponentEntry]) -> dict[str, tree_file.TreeFile]:
    """The tree files of components of a checkpoint, from the hot tier.

    Raises:
        IntegrityError: one is missing or damaged.
    """
    found = {}
    for component in components:
        for file in component.files:
            if file.path == f"{component.name}/{tree_file.NAME}":
                data = verified_bytes(repo.objects.store, ref_of(file), limit=tree_file.MAX_BYTES)
                found[component.name] = tree_file.from_bytes(data, file=file.path)
    return found
