"""Whether a clone has moved on: what it may need is worked out once, and nothing goes for good if that is no longer all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ckptvcs.digest import digest
from ckptvcs.porcelain import foreign, view
from ckptvcs.porcelain.inventory import tells_of_dvc
from ckptvcs.storage.history import ledger, recovery

if TYPE_CHECKING:
    from ckptvcs.porcelain.repo import Repository


def state_of(repo: Repository) -> str:
    """What is another one whenever anything in a clone may need other objects than before.

    That is its refs, what is checked out or staged, what files of DVC name, and the ledger, in which there may be a new hold.

    Raises:
        StorageError: git cannot read its index.
    """
    heads = {where: str(commit) for where, commit in recovery.heads(repo.history).items()}
    staged = recovery.staged(repo.history, tells_of_dvc, limit=foreign.MAX_FILE)
    files = sorted((path, digest(data or b"")) for path, data in staged)
    named = sorted(foreign.named_on_disk(repo))
    said = ledger.heads(repo.history)
    return digest(msgspec.json.encode([view.refs_here(repo), heads, files, named, said], order="sorted"))
