"""A training loop that is killed again and again, wherever that may be, ends like one that nobody killed: bit for bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ckptvcs import Repo
from tests.support.world import World

STEPS = 120


@dataclass
class Told:
    """What a run told: the line of each step, and the digest at its end."""

    steps: dict[int, str] = field(default_factory=dict)
    end: str | None = None
    starts: list[int] = field(default_factory=list)

    def take(self, line: str) -> int | None:
        """Take down a line; returns the step it is about. A step that is made again has to be what it was."""
        kind, _, rest = line.strip().partition(" ")
        if kind == "end":
            self.end = rest
        elif kind == "start":
            self.starts.append(int(rest))
        elif kind == "step":
            step, _, values = rest.partition(" ")
            assert self.steps.setdefault(int(step), values) == values, f"step {step} is not what it was"
            return int(step)
        return None


def start(world: World, *options: str, steps: int = STEPS) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.support.loop", str(steps), *options]
    env = {**os.environ, "PYTHONPATH": f"{Path(__file__).parents[2]}:{os.environ.get('PYTHONPATH', '')}"}
    return subprocess.Popen(command, cwd=world.root, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def follow(process: subprocess.Popen[str], told: Told, *, until: int = STEPS) -> int:
    """Take down what a run tells: to its end, or until it tells of a step. Returns the last step."""
    last = -1
    assert process.stdout is not None
    for line in process.stdout:
        step = told.take(line)
        last = last if step is None else step
        if last >= until:
            break
    return last


def finish(process: subprocess.Popen[str], told: Told) -> None:
    follow(process, told)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """What a run tells that nobody kills."""
    told = Told()
    finish(start(World.create(tmp_path_factory.mktemp("reference") / "repo"), "policy=every_n_steps: 1000"), told)
    assert sorted(told.steps) == list(range(STEPS))
    return told


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.long)])
def test_a_run_that_is_killed_ends_like_one_that_is_not(world: World, reference: Told, kills: int):
    chance, told = random.Random(kills), Told()

    for place in sorted(chance.sample(range(5, STEPS - 5), kills)):
        process = start(world, "pause_s=0.02")
        follow(process, told, until=place)
        time.sleep(chance.random() / 20)
        process.send_signal(signal.SIGKILL)
        process.wait()
        follow(process, told)
    finish(start(world), told)

    assert told.steps == reference.steps
    assert told.end == reference.end
    assert sum(begun > 0 for begun in told.starts) >= kills - 1, "it began anew, so that nothing was shown"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1], ids=lambda n: n.name)
def test_a_run_that_is_told_to_end_saves_all_and_goes_on_from_there(
    world: World, reference: Told, number: signal.Signals
):
    told, policy = Told(), "policy=on_preemption: true"
    process = start(world, policy, "pause_s=0.02")
    place = follow(process, told, until=30)
    process.send_signal(number)
    began = time.monotonic()
    last = max(place, follow(process, told))  # it may have been told of the step that the signal found it in
    process.communicate(timeout=60)

    assert process.returncode == 128 + number
    assert time.monotonic() - began < 30, "it did not keep the grace period"
    with Repo(world.root) as repo:
        manifest = repo.show("loop").manifest
    assert place <= manifest.step == last <= place + 10
    assert (manifest.reason, manifest.grade) == (f"on_preemption: {number.name}", "exact")
    finish(start(world, policy), told)
    assert told.starts == [0, last + 1], "the next start goes on with the very next step"
    assert (told.steps, told.end) == (reference.steps, reference.end)
