"""A training with Hugging Face's Trainer, or with Accelerate, that is killed goes on bit for bit as if it had not been."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import trainings
from tests.support.world import World

KINDS = {"trainer": "bert", "accelerate": "mlp"}
KIND = pytest.mark.parametrize("kind", ["trainer", pytest.param("accelerate", marks=pytest.mark.long)])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each training comes to that runs through, by its kind."""
    return {}


def of_undisturbed(kind: str, known: dict[str, Any], tmp_path: Path) -> Any:
    if kind not in known:
        world = World.create(tmp_path / "undisturbed")
        done = trainings.run(kind, world.root)
        assert done.returncode == 0, done.stderr
        known[kind] = trainings.result(world.root)
    return known[kind]


def points(seed: int, count: int) -> Iterator[str]:
    """Random steps at which to be killed, half of them a moment after the step, while a commit may be under way."""
    chance = random.Random(seed)
    for number in range(count):
        delay_s = chance.uniform(0, 0.1) if number % 2 else 0
        yield f"{chance.randint(1, trainings.STEPS - 1)}:{int(signal.SIGKILL)}:{delay_s}"


def check_kill(kind: str, end: str, expected: Any, root: Path) -> None:
    world = World.create(root)

    killed = trainings.run(kind, world.root, end=end)
    done = trainings.run(kind, world.root)

    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert done.returncode == 0, done.stderr
    assert trainings.result(world.root) == expected, f"killed at {end}"
    assert world.ckpt("doctor").status == 0
    assert not [path for path in world.temporaries() if ".dvc" not in path.parts], "the cache sweeps its own by age"


@KIND
def test_a_killed_training_goes_on_bit_for_bit(kind: str, undisturbed: dict[str, Any], tmp_path: Path):
    expected = of_undisturbed(kind, undisturbed, tmp_path)

    for end in points(1, 2):
        check_kill(kind, end, expected, tmp_path / end)


@pytest.mark.long
@pytest.mark.timeout(7200)
@KIND
def test_a_training_that_is_killed_anywhere_goes_on_bit_for_bit(kind: str, undisturbed: dict[str, Any], tmp_path: Path):
    expected = of_undisturbed(kind, undisturbed, tmp_path)

    for number, end in enumerate(points(20, 20)):
        check_kill(kind, end, expected, tmp_path / f"{number}-{end}")


@pytest.mark.parametrize(("kind", "number"), [("trainer", signal.SIGTERM), ("accelerate", signal.SIGUSR1)])
def test_a_training_that_is_told_to_end_saves_that_step_and_goes_on_bit_for_bit(
    kind: str, number: signal.Signals, undisturbed: dict[str, Any], tmp_path: Path
):
    expected = of_undisturbed(kind, undisturbed, tmp_path)
    world = World.create(tmp_path / "repo")

    told = trainings.run(kind, world.root, end=f"14:{int(number)}:0")
    saved = world.ckpt("show", KINDS[kind], "--json").json
    done = trainings.run(kind, world.root)

    assert told.returncode == 128 + number, told.stderr
    assert f"{number.name} announced the end: step 14 is saved" in told.stderr
    assert (saved["step"], saved["grade"]) == (14, "exact")
    assert number.name in saved["reason"]
    assert done.returncode == 0, done.stderr
    assert trainings.result(world.root) == expected
