"""SIGKILL before every system call of a command that changes something: nothing is lost, and the next command works."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import strace
from tests.support.scenarios import SCENARIOS, Ground, Scenario, ground

COMMIT, _, CHECKOUT, *_ = SCENARIOS
NOTE = next(scenario for scenario in SCENARIOS if scenario.name == "note")
IN_SHORT = 8
"""Points of a scenario in the default run; `make test-long` takes all of them."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return ground(tmp_path_factory.mktemp("ground") / "base")


def points_of(scenario: Scenario, ground: Ground, tmp_path: Path, mutant: str = "none") -> list[strace.Point]:
    traced = ground.copy(tmp_path / "traced")
    calls = strace.trace(scenario.command(mutant), traced.world.root, tmp_path / "log")
    return strace.points(calls, tmp_path / "traced")


def sweep(scenario: Scenario, points: list[strace.Point], ground: Ground, tmp_path: Path, mutant: str = "none") -> int:
    """Kill at each point, each time from the same beginning; returns how often the process really died."""
    died = 0
    for point in points:
        here = ground.copy(tmp_path / "here")
        done = strace.kill(scenario.command(mutant), here.world.root, point)
        died += done.returncode != 0
        try:
            scenario.examine(here, done=done.returncode == 0)
        except AssertionError as err:
            raise AssertionError(f"{scenario.name} killed at {point}: {err}") from err
    return died


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name)
def test_a_kill_loses_nothing(scenario: Scenario, prepared: Ground, tmp_path: Path):
    points = points_of(scenario, prepared, tmp_path)
    assert len(points) > 15, "the harness sees hardly anything"

    died = sweep(scenario, strace.sample(points, IN_SHORT), prepared, tmp_path)

    assert died >= IN_SHORT // 2, "hardly any of the kills came through: the harness is blind"


@pytest.mark.parametrize("scenario", [COMMIT, CHECKOUT], ids=lambda s: s.name)
def test_a_kill_while_index_and_pointers_follow_leaves_nothing_behind(
    scenario: Scenario, prepared: Ground, tmp_path: Path
):
    follows = r"/index\.lock|/checkpoints/(\.ckptvcs-\w+\.tmp|model\.(dvc|json))"
    points = [point for point in points_of(scenario, prepared, tmp_path) if point.fits(follows)]

    assert sweep(scenario, points, prepared, tmp_path) >= 3


def test_a_kill_of_the_command_that_cleans_up_after_a_kill(prepared: Ground, tmp_path: Path):
    killed, again, here = tmp_path / "killed", tmp_path / "again", tmp_path / "here"
    for point in points_of(COMMIT, prepared, tmp_path):
        if point.fits(r"/index\.lock"):
            strace.kill(COMMIT.command(), prepared.copy(killed).world.root, point)
            if (killed / "repo/.git/index.lock").exists():
                break
    else:
        raise AssertionError("no kill left anything to clean up")
    calls = strace.trace(COMMIT.command(), Ground(killed).copy(again).world.root, tmp_path / "log")
    points = [point for point in strace.points(calls, again) if point.fits(r"/index\.lock")]

    died = 0
    for point in points:
        done = strace.kill(COMMIT.command(), Ground(killed).copy(here).world.root, point)
        died += done.returncode != 0
        COMMIT.examine(Ground(here, prepared.before), done=done.returncode == 0)

    assert died >= 3


def without_writer(prepared: Ground, tmp_path: Path) -> Ground:
    """The same repository as a clone that has not written to its ledger yet."""
    new = prepared.copy(tmp_path / "new")
    (new.world.root / ".git/ckptvcs/writer.json").unlink()
    return new


def test_a_kill_of_the_first_note_of_a_clone_loses_nothing(prepared: Ground, tmp_path: Path):
    new = without_writer(prepared, tmp_path)
    points = points_of(NOTE, new, tmp_path)
    own = [point for point in points if point.fits(r"/ckptvcs/(\.ckptvcs-|writer\.json|ledger)|/refs/ckptvcs/")]

    assert sweep(NOTE, strace.sample(own, IN_SHORT), new, tmp_path) >= IN_SHORT // 2


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_a_kill_of_the_first_note_at_any_point_loses_nothing(prepared: Ground, tmp_path: Path):
    new = without_writer(prepared, tmp_path)
    points = points_of(NOTE, new, tmp_path)

    assert sweep(NOTE, points, new, tmp_path) >= len(points) * 0.8


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name)
def test_a_kill_at_any_point_loses_nothing(scenario: Scenario, prepared: Ground, tmp_path: Path):
    points = points_of(scenario, prepared, tmp_path)

    died = sweep(scenario, points, prepared, tmp_path)

    print(f"{scenario.name}: {len(points)} points, {died} kills")
    assert died >= len(points) * 0.8
