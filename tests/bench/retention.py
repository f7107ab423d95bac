"""What it takes to decide about a very long history: 100,000 checkpoints of 60 objects, of which 40 are new each time."""

from __future__ import annotations

import random
import re
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import msgspec
import torch

from ckptvcs.domain import manifest as manifests
from ckptvcs.domain.manifest import FileEntry, Manifest
from tests.bench.ground import ENVIRONMENT, repository

OBJECTS, NEW = 60, 40
BRANCHES = 20
_PATHS = "checkpoints/model.dvc", "checkpoints/model.json"

POLICY = """version: 1
retain:
  keep:
    - keep_last: 5
      keep_best: {monitor: val_loss, n: 3}
      keep_every: 1d
    - branches: [main]
      keep_every_n_steps: 1000
      components: [model]
"""


def wide_history(root: Path, count: int) -> None:
    """`count` checkpoints, one every ten minutes, on branches that fork from each other; no object of them is there.

    Args:
        root: a folder that does not exist yet.
        count: how many checkpoints.
    """
    with repository(root) as repo:
        repo.commit(
            {"model": {"w": torch.ones(4)}, "optimizer": {"m": torch.ones(4)}}, step=0, metrics={"val_loss": 2.0}
        )
    pointer, first = ((root / path).read_bytes() for path in _PATHS)
    old, parent, branch, rng = (
        manifests.from_bytes(first, where="the first"),
        manifests.id_of(first),
        "main",
        random.Random(1),
    )
    command = ["git", "fast-import", "--quiet"]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, env=ENVIRONMENT) as git:
        assert git.stdin is not None
        for step in range(1, count):
            data = manifests.to_bytes(_next(old, step, parent, rng))
            named = pointer.replace(manifests.id_of(first).encode(), manifests.id_of(data).encode())
            named = re.sub(rb"md5: [0-9a-f]{32}", b"md5: " + rng.randbytes(16).hex().encode(), named, count=1)
            start = b"from refs/heads/main^0\n" if step == 1 else b""
            if step % (count // BRANCHES) == 0:
                start, branch = f"from refs/heads/{branch}\n".encode(), f"exp/{step}"
            git.stdin.write(_commit(branch, step, start, (named, data)))
            parent = manifests.id_of(data)
    if git.returncode:
        raise RuntimeError("git fast-import failed")
    (root / "ckpt.yaml").write_text(POLICY)


def _next(old: Manifest, step: int, parent: str, rng: random.Random) -> Manifest:
    components = tuple(
        msgspec.structs.replace(component, files=tuple(_files(component.name, component.files[0], rng)))
        for component in old.components
    )
    return msgspec.structs.replace(
        old,
        components=components,
        files=(),
        step=step,
        parents=(parent,),
        created=datetime.fromtimestamp(1_700_000_000 + 600 * step, timezone.utc).isoformat(),
        metrics={"val_loss": 1 + rng.random()},
    )


def _files(component: str, like: FileEntry, rng: random.Random) -> list[FileEntry]:
    fixed = random.Random(component)
    found = []
    for number in range(OBJECTS // 2):
        source = fixed if number < (OBJECTS - NEW) // 2 else rng
        name, digest = source.randbytes(16).hex(), source.randbytes(32).hex()
        path = f"{component}/encoder.layer.{number:02d}.safetensors"
        found.append(msgspec.structs.replace(like, path=path, size=100_000 + number, md5=name, blake3=digest))
    return found


def _commit(branch: str, step: int, start: bytes, contents: tuple[bytes, bytes]) -> bytes:
    message = f"ckpt: step {step}\n".encode()
    head = b"commit refs/heads/%s\ncommitter bench <b@x> %d +0000\ndata %d\n%s\n" % (
        branch.encode(),
        1_700_000_000 + 600 * step,
        len(message),
        message,
    )
    files = b"".join(
        b"M 100644 inline %s\ndata %d\n%s\n" % (path.encode(), len(content), content)
        for path, content in zip(_PATHS, contents, strict=True)
    )
    return head + start + files
