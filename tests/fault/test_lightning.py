"""Lightning, killed anywhere, and told to end anywhere: started again with the same command, it ends as if nothing had been."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.world import World

LINES = 52
"""What `lit` writes down: 44 losses of training and 8 of validation, whatever the loader."""


@dataclass
class Run:
    """The program, in a repository of its own."""

    world: World
    loader: str
    folder: Path

    def start(self, log: Path) -> subprocess.Popen[bytes]:
        extra = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        return subprocess.Popen(
            [sys.executable, "-m", "tests.support.lit", str(self.world.root), self.loader, str(log), "0.01"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(extra), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "stderr").open("wb"),
        )

    def finish(self, name: str) -> list[str]:
        process = self.start(self.folder / name)
        assert process.wait(300) == 0, (self.folder / "stderr").read_text()
        return lines(self.folder / name)

    def interrupt(self, name: str, after: int, sign: signal.Signals) -> tuple[int, float, list[str]]:
        """Send a signal once so many lines are written; the exit status, how long it took to end, what it wrote."""
        log = self.folder / name
        process = self.start(log)
        while process.poll() is None and len(lines(log)) < after:
            time.sleep(0.002)
        process.send_signal(sign)
        began = time.monotonic()
        return process.wait(120), time.monotonic() - began, lines(log)


def lines(log: Path) -> list[str]:
    return log.read_text(encoding="ascii").splitlines() if log.exists() else []


def new_run(tmp_path: Path, name: str, loader: str) -> Run:
    return Run(World.create(tmp_path / name), loader, tmp_path)


@pytest.fixture(scope="module")
def through(tmp_path_factory: pytest.TempPathFactory):
    """What each kind of loader gives when nothing interferes."""
    known: dict[str, list[str]] = {}

    def give(loader: str, home: Path) -> list[str]:
        if loader == "stateful":
            pytest.importorskip("torchdata")
        if loader not in known:
            known[loader] = new_run(tmp_path_factory.mktemp("through"), loader, loader).finish("log")
        return known[loader]

    return give


def same(told: list[str], whole: list[str]) -> None:
    """The second life told the rest of the story, to the last bit of every parameter."""
    assert told[-1].startswith("end ")
    assert told == whole[-len(told) :]


def check_kill(tmp_path: Path, loader: str, after: int, whole: list[str]) -> None:
    run = new_run(tmp_path, f"killed-{after}", loader)

    status, _, first = run.interrupt(f"first-{after}", after, signal.SIGKILL)
    second = run.finish(f"second-{after}")

    assert status == -signal.SIGKILL
    assert first[:after] == whole[:after]
    same(second, whole)
    if after > 24:
        assert len(second) < len(whole), "it began anew"


POINTS = [(kind, after) for kind in ("plain", "stateful") for after in random.Random(kind).sample(range(1, LINES), 20)]


@pytest.mark.long
@pytest.mark.parametrize(("loader", "after"), POINTS)
def test_a_training_killed_at_random_points_ends_as_one_that_went_through(
    tmp_path: Path, through, loader: str, after: int
):
    check_kill(tmp_path, loader, after, through(loader, tmp_path))


def test_a_training_killed_twice_and_told_to_end_once_ends_as_one_that_went_through(tmp_path: Path, through):
    whole = through("plain", tmp_path)
    assert len(whole) == LINES + 1
    run = new_run(tmp_path, "interrupted", "plain")

    killed = [run.interrupt(f"killed-{n}", after, signal.SIGKILL) for n, after in enumerate((17, 15))]
    status, seconds, ended = run.interrupt("ended", 8, signal.SIGTERM)
    manifest = json.loads(run.world.git("show", "lit:checkpoints/model.json"))
    last = run.finish("last")

    assert [status for status, *_ in killed] == [-signal.SIGKILL] * 2
    assert killed[0][2][:17] == whole[:17]
    assert (status, manifest["grade"]) == (143, "exact")
    assert "on_preemption: SIGTERM" in manifest["reason"].split("; ")  # the step may have been due as well
    assert seconds < 30, "the grace period is over"
    assert len(last) < len(whole) - 17, "it began anew"
    same([*ended, *last], whole)  # not a batch of those after SIGTERM was trained twice, or left out
