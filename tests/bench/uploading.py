"""What a push does with the objects of checkpoints, in a process that starts cold."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ckptvcs.digest import Digest, digest_of_parts
from ckptvcs.porcelain.remotes import open_remote
from ckptvcs.porcelain.repo import Repository
from ckptvcs.progress import silent
from ckptvcs.storage.names import ObjectName, ObjectRef


def write_refs(root: Path, to: Path) -> None:
    """Write down what the cache holds, as manifests have it."""
    with_digest = []
    store = Repository.open(root).objects.store
    for name in store.names():
        with_digest.append((name, store.nbytes(name), digest_of_parts(store.read(name))))
    to.write_text(json.dumps(with_digest))


def upload(root: Path, refs_file: Path) -> None:
    """Look at what is there, send the rest, be told or see that it arrived."""
    refs = [
        ObjectRef(name=ObjectName(name), nbytes=nbytes, digest=Digest(digest))
        for name, nbytes, digest in json.loads(refs_file.read_text())
    ]
    repo = Repository.open(root)
    remote = open_remote(repo)
    there = remote.sizes([ref.name for ref in refs])
    remote.upload([ref for ref in refs if there.get(ref.name) != ref.nbytes], repo.objects, silent)


if __name__ == "__main__":
    upload(Path(sys.argv[1]), Path(sys.argv[2]))
