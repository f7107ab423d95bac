"""A repository with a long history, made in seconds: one real checkpoint, and as many more of the same bytes as wanted."""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec
import torch

from ckptvcs.domain import manifest as manifests
from tests.bench.ground import ENVIRONMENT, repository

_PATHS = "checkpoints/model.dvc", "checkpoints/model.json"


def long_history(root: Path, count: int) -> None:
    """A branch `main` with `count` checkpoints, each with its own manifest, step and loss.

    Args:
        root: a folder that does not exist yet.
        count: how many checkpoints.
    """
    with repository(root) as repo:
        repo.commit({"model": {"w": torch.ones(64, 64)}}, step=0, metrics={"loss": 2.0})
    pointer, first = ((root / path).read_bytes() for path in _PATHS)
    stream, parent, old = [], manifests.id_of(first), manifests.from_bytes(first, where="the first")
    for step in range(1, count):
        data = manifests.to_bytes(
            msgspec.structs.replace(old, step=step, parents=(parent,), metrics={"loss": 1 + 1 / (step + 1)})
        )
        changed = pointer.replace(manifests.id_of(first).encode(), manifests.id_of(data).encode())
        message = f"ckpt: step {step}\n".encode()
        stream.append(
            b"commit refs/heads/main\ncommitter bench <b@x> %d +0000\ndata %d\n%s\n"
            % (1_700_000_000 + step, len(message), message)
            + (b"from refs/heads/main^0\n" if step == 1 else b"")
            + b"".join(
                b"M 100644 inline %s\ndata %d\n%s\n" % (path.encode(), len(content), content)
                for path, content in zip(_PATHS, (changed, data), strict=True)
            )
        )
        parent = manifests.id_of(data)
    subprocess.run(["git", "fast-import", "--quiet"], cwd=root, input=b"".join(stream), env=ENVIRONMENT, check=True)
    subprocess.run(["git", "reset", "-q", "--hard"], cwd=root, env=ENVIRONMENT, check=True)
