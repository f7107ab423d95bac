"""SIGKILL in the middle of an import, again and again: run again, it ends with the history of one that nobody disturbed."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.support import oracle, strace
from tests.support.world import World

COMMAND = [sys.executable, "-m", "ckptvcs", "import", "runs"]
IN_SHORT = 10


def folder_of_checkpoints(root: Path, count: int) -> None:
    """Two runs, in which layers stay the same; one file is there twice, and one cannot be read."""
    torch.manual_seed(1)
    frozen = torch.randn(64, 64)
    for run in ("a", "b"):
        (root / run).mkdir(parents=True)
        for n in range(1, count + 1):
            path = root / run / f"step_{n * 50}.pt"
            torch.save({"model": {"frozen": frozen, "head": torch.full((8, 8), float(n))}, "lr": 0.1 / n}, path)
            os.utime(path, (1_600_000_000 + n, 1_600_000_000 + n))
    shutil.copy2(root / "a/step_100.pt", root / "a/best.pt")
    (root / "b/broken.pt").write_bytes(b"PK\x03\x04 cut short")


def ground(folder: Path, count: int) -> World:
    world = World.create(folder / "repo")
    folder_of_checkpoints(world.root / "runs", count)
    return world


def copied(world: World, to: Path) -> World:
    shutil.rmtree(to, ignore_errors=True)
    return World(Path(shutil.copytree(world.root, to, symlinks=True)))


def history(world: World) -> dict[str, str]:
    return {branch: world.git("rev-parse", branch) for branch in ("a", "b")}


def sources(world: World) -> dict[str, tuple[bytes, int]]:
    return {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in (world.root / "runs").rglob("*") if p.is_file()}


@pytest.fixture
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, dict[str, str]]:
    """What is imported, and the history of an import that nobody disturbed."""
    world = ground(tmp_path_factory.mktemp("import"), 3)
    undisturbed = copied(world, tmp_path_factory.mktemp("whole") / "repo")
    undisturbed.ckpt("import", "runs", status=1)
    return world, history(undisturbed)


def finish(world: World, expected: dict[str, str]) -> None:
    """Run it again, and fail unless the outcome is that of an undisturbed import."""
    found = set(oracle.check(world.root))
    world.ckpt("import", "runs", status=1)
    assert history(world) == expected
    assert found <= set(oracle.check(world.root)), "a checkpoint was lost"
    again = world.ckpt("import", "runs", "--json", status=1).json
    assert {file["status"] for file in again["files"]} == {"there", "failed"}
    assert history(world) == expected


def sweep(prepared: tuple[World, dict[str, str]], tmp_path: Path, count: int | None) -> tuple[int, int]:
    world, expected = prepared
    before = sources(world)
    traced = copied(world, tmp_path / "traced")
    command = [*COMMAND[:1], "-B", *COMMAND[1:]]
    log = tmp_path / "log"
    subprocess.run(  # the status is 1, because one of the files is broken
        [strace.required(), "-f", "-qq", "-o", log, "-s", "4096", "-y", "-e",
         "trace=" + ",".join(f"?{call}" for call in strace.CALLS), *command],
        cwd=traced.root, env={**os.environ, **strace.ENVIRONMENT}, capture_output=True, check=False,
    )  # fmt: skip
    calls = [
        tuple(m.groups()) for line in log.read_text(errors="replace").splitlines() if (m := strace._LINE.match(line))
    ]
    points = strace.points(calls, traced.root)  # type: ignore[arg-type]
    assert len(points) > 30, "the harness sees hardly anything"
    died = 0
    for point in strace.sample(points, count) if count else points:
        here = copied(world, tmp_path / "here")
        died += strace.kill(command, here.root, point).returncode not in (0, 1)
        try:
            finish(here, expected)
        except AssertionError as err:
            raise AssertionError(f"killed at {point}: {err}") from err
        assert {name.replace(str(here.root), str(world.root)): what for name, what in sources(here).items()} == before
    return died, len(points)


def test_a_kill_anywhere_and_a_second_import_make_the_same_history(
    prepared: tuple[World, dict[str, str]], tmp_path: Path
):
    died, _ = sweep(prepared, tmp_path, IN_SHORT)

    assert died >= IN_SHORT // 2, "hardly any of the kills came through: the harness is blind"


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_a_kill_at_any_point_and_a_second_import_make_the_same_history(
    prepared: tuple[World, dict[str, str]], tmp_path: Path
):
    died, points = sweep(prepared, tmp_path, None)

    assert died >= points * 0.8


def test_kills_at_random_moments_until_it_is_done(tmp_path: Path):
    world = ground(tmp_path / "ground", 8)
    undisturbed = copied(world, tmp_path / "whole")
    begin = time.monotonic()
    undisturbed.ckpt("import", "runs", status=1)
    lasts = time.monotonic() - begin
    chance = random.Random(11)

    kills = 0
    for _ in range(40):
        process = subprocess.Popen(COMMAND, cwd=world.root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(chance.uniform(0.4, 0.9) * lasts if kills else 0.2 * lasts)
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            oracle.check(world.root)

    finish(world, history(undisturbed))
    assert kills


def test_two_imports_at_once_make_one_history(prepared: tuple[World, dict[str, str]], tmp_path: Path):
    world, expected = prepared
    here = copied(world, tmp_path / "here")

    running = [
        subprocess.Popen(COMMAND, cwd=here.root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in "ab"
    ]
    ends = {process.wait() for process in running}

    assert ends <= {1, 11}
    finish(here, expected)
