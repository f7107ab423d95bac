"""Many small objects to a folder in one batch: a power cut or a kill at any point finds whole objects under their names."""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

import pytest

from tests.support import strace

COUNT = 20
SCRIPT = """
import random, sys
from pathlib import Path
from ckptvcs.progress import silent
from ckptvcs.storage import copies
from ckptvcs.storage.index import LocalIndex
from ckptvcs.storage.ingest import NewObject
from ckptvcs.storage.objects import LocalStore
from ckptvcs.storage.verified import VerifiedStore

here = Path(sys.argv[1])
source = VerifiedStore(LocalStore(here / "source"), LocalIndex(here / "index"))
data = [random.Random(n).randbytes(3000) for n in range(int(sys.argv[2]))]
refs = source.store.put([NewObject(lambda d=d: [d], len(d)) for d in data])
copies.copy(refs, source, LocalStore(here / "target"), silent)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def command(script: Path, folder: Path) -> list[str]:
    folder.mkdir(exist_ok=True)
    return strace.python([str(script), str(folder), str(COUNT)])


def order_of_durability(calls: list[tuple[str, str, str]], target: str) -> list[str]:
    """What a power cut would find out: bytes or names that were not durable in time."""
    found: list[str] = []
    dirty: set[str] = set()
    linked = 0
    for _, call, rest in calls:
        if call == "openat" and "O_CREAT" in rest and target in rest and "= -1" not in rest:
            dirty.add(re.findall(r'"([^"]*)"', rest)[0])
        elif call == "syncfs" and target in rest:
            dirty.clear()
        elif call == "linkat" and target in rest:
            name = re.findall(r'"([^"]*)"', rest)[0]
            found += [f"{name} has a name and is not durable"] if name in dirty else []
            dirty.add("names")
            linked += 1
    return found + (["the names are not durable in the end"] if dirty else []) if linked == COUNT else ["nothing named"]


def test_bytes_are_durable_before_names_and_names_in_the_end(script: Path, tmp_path: Path):
    calls = strace.trace(command(script, tmp_path / "here"), tmp_path, tmp_path / "log")

    assert order_of_durability(calls, f"{tmp_path}/here/target") == []
    without = [call for call in calls if call[1] != "syncfs"]
    assert order_of_durability(without, f"{tmp_path}/here/target") != []


def test_a_kill_leaves_whole_objects_and_the_next_run_finishes(script: Path, tmp_path: Path):
    calls = strace.trace(command(script, tmp_path / "traced"), tmp_path, tmp_path / "log")
    points = strace.points(calls, tmp_path / "traced/target")
    assert {"mkdirat", "syncfs", "linkat", "unlinkat"} <= {point.call for point in points}
    for number, point in enumerate(points[:: max(1, len(points) // 12)]):
        here = tmp_path / f"killed-{number}"
        strace.kill(command(script, here), tmp_path, point)
        whole(here / "target")

        assert subprocess.run(command(script, here), check=False).returncode == 0
        assert whole(here / "target") == COUNT


def whole(target: Path) -> int:
    found = list(target.glob("??/*"))
    for path in found:
        assert hashlib.md5(path.read_bytes()).hexdigest() == path.parent.name + path.name
    return len(found)
