"""On a disk that is full, a collection of the local cache makes room."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest

from tests.fault.test_errors import mount
from tests.support import oracle
from tests.support.world import World

POLICY = "retain:\n  keep: [{keep_last: 1}]\n  grace: 12h\n"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    mount(tmp_path / "small", "size=24m")
    try:
        yield tmp_path / "small"
    finally:
        subprocess.run(["umount", "-l", str(tmp_path / "small")], check=True)


def fill(folder: Path) -> None:
    """Until not one byte more goes in."""
    subprocess.run(["dd", "if=/dev/zero", f"of={folder}/filler", "bs=64k"], capture_output=True, check=False)
    subprocess.run(["dd", "if=/dev/zero", f"of={folder}/filler-2", "bs=1"], capture_output=True, check=False)
    assert shutil.disk_usage(folder).free == 0


def test_what_is_due_goes_with_no_byte_free(small: Path):
    world = World.create(small / "repo")
    with (world.root / "ckpt.yaml").open("a") as file:
        file.write(POLICY)
    world.git("commit", "-qam", "a policy")
    with world.repo() as repo:
        repo.commit({"model": {"w": numpy.arange(600_000)}}, branch="large", step=0)
        for n in range(3):
            repo.commit({"model": {"w": numpy.arange(100_000) + n}}, step=n)
    world.ckpt("gc", "--place", "hot", "--offline")
    for path in (world.root / ".dvc/cache").rglob("*"):
        if path.is_file():
            os.utime(path, (path.stat().st_mtime - 13 * 3600,) * 2)
    before = len(world.objects())
    fill(small)

    done = world.ckpt("gc", "--place", "hot", "--offline")

    assert "swept" in done.out
    assert len(world.objects()) < before
    assert shutil.disk_usage(small).free > 800_000
    (small / "filler").unlink()
    entries = [entry["op"] for chain in oracle.ledger(world.root).values() for entry in chain]
    assert entries.count("sweep") == 1
    with world.repo() as repo:
        assert repo.load("main")["model"]["w"][0] == 2
    assert world.ckpt("gc", "--place", "hot", "--offline").out == "nothing to collect\n"
