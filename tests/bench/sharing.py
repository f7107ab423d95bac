"""What a push costs: where nothing is new, by the length of history; and of thousands of small objects, against `dvc push`."""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path

from tests.bench import uploading
from tests.bench.ground import PYTHON, repository, shell
from tests.bench.history import long_history
from tests.bench.timing import Candidate, race

CKPT = f"{sys.executable} -m ckptvcs"
OBJECTS = 2000
OBJECT_BYTES = 50_000

Options = dict[str, str]
"""Options of a DVC remote, without its URL."""


def connect(root: Path, url: str, options: Options) -> None:
    """Give a repository a bare one and a store."""
    hub = root.with_name(f"{root.name}.git")
    shell(f"git init -q --bare -b main {hub} && git remote add origin {hub}", root)
    shell(f"{PYTHON} dvc remote add -q -d store {url}", root)
    for name, value in options.items():
        shell(f"{PYTHON} dvc remote modify -q store {name} {value}", root)
    shell("git commit -qam store", root)


def nothing_new(folder: Path, url: str, options: Options) -> list[Candidate]:
    """`ckpt push` of what was pushed, with 20 and with 2,000 checkpoints."""
    candidates = []
    for count in (20, 2000):
        root = folder / f"history-{count}"
        long_history(root, count)
        connect(root, f"{url}/{count}", options)
        shell(f"{CKPT} push", root)
        candidates.append(Candidate(f"{count:,} checkpoints", lambda root=root: shell(f"{CKPT} push", root)))
    race(candidates, scratch=folder, nbytes=0, rounds=7)
    return candidates


def small_objects(folder: Path, url: str, options: Options) -> list[Candidate]:
    """A first push of 2,000 objects of 50 KB, each a process that starts cold; ours verifies each on arrival, DVC's none."""
    root = folder / "small"
    repository(root).close()
    for number in range(OBJECTS):
        path = root / "data" / str(number)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(os.urandom(OBJECT_BYTES))
    shell(f"{PYTHON} dvc add -q data && git add data.dvc .gitignore && git commit -qm data", root)
    connect(root, url, options)
    uploading.write_refs(root, folder / "refs.json")
    fresh = itertools.count()

    def elsewhere() -> None:
        shell(f"{PYTHON} dvc remote modify -q store url {url}/{next(fresh)}", root)

    ours = f"{PYTHON} tests.bench.uploading {root} {folder}/refs.json"
    candidates = [
        Candidate("`dvc push`", lambda: shell(f"{PYTHON} dvc push -q data.dvc", root), before=elsewhere),
        Candidate(
            "ckptvcs",
            lambda: shell(ours, Path.cwd()),
            before=elsewhere,
        ),
    ]
    race(candidates, scratch=folder, nbytes=2 * OBJECTS * OBJECT_BYTES, rounds=5)
    return candidates
