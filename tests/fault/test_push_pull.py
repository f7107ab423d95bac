"""Push and pull that are killed or run out of disk: no ref names what is not there, and it can be run again."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support import oracle, strace
from tests.support.places import Place, in_folder, sound
from tests.support.scenarios import LAUNCH
from tests.support.states import training_state
from tests.support.world import World

IN_SHORT = 6


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """One checkpoint that both have, and one that is to be pushed; every path is relative, so that it can be copied."""
    found = Place.create(tmp_path_factory.mktemp("share") / "base")
    world = found.world
    world.ckpt("remote", "add", "share", "../store")
    world.git("commit", "-qam", "a remote")
    commit(world, 1)
    world.ckpt("push")
    found.make_clone().ckpt("pull")
    commit(world, 2)
    return found


def commit(world: World, seed: int) -> None:
    with world.repo() as repo:
        repo.commit(training_state(seed, width=16), step=seed)


def command(*args: str) -> list[str]:
    return strace.python([LAUNCH, "none", *args])


def points_of(place: Place, verb: str, tmp_path: Path) -> list[strace.Point]:
    traced = place.copy(tmp_path / "traced")
    return strace.points(strace.trace(command(verb), root_of(traced, verb), tmp_path / "log"), tmp_path / "traced")


def root_of(place: Place, verb: str) -> Path:
    return (place.world if verb == "push" else place.clone).root


@pytest.fixture(scope="module")
def pushed(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    found = place.copy(tmp_path_factory.mktemp("share") / "pushed")
    found.world.ckpt("push")
    return found


def after(place: Place, verb: str, *, done: bool) -> None:
    """What must hold, whatever happened; then the command is run again, and all of it is there."""
    sound(place.hub, in_folder(place.folder / "store"))
    oracle.check(place.world.root)
    oracle.check(place.clone.root, complete=False)
    if not done:
        again = subprocess.run(command(verb), cwd=root_of(place, verb), capture_output=True, text=True, check=False)
        assert again.returncode == 0, f"the next {verb} failed: {again.stdout}{again.stderr}"
    if verb == "push":
        assert oracle.git(place.hub, "rev-parse", "main") == oracle.git(place.world.root, "rev-parse", "main")
        leases = list((place.folder / "store/.ckptvcs/intents").rglob("*.json"))
        assert not leases, "a dead push left a lease, and the next one did not remove it"
    else:
        assert oracle.git(place.clone.root, "rev-parse", "main") == oracle.git(place.hub, "rev-parse", "main")
        assert place.clone.ckpt("status").out.count("up to date") == 1
    assert sound(place.hub, in_folder(place.folder / "store")) > 0
    oracle.check(place.clone.root, complete=False)


@pytest.mark.parametrize("verb", ["push", "pull"])
def test_a_kill_leaves_nothing_half_there(place: Place, pushed: Place, tmp_path: Path, verb: str):
    begin = place if verb == "push" else pushed
    points = points_of(begin, verb, tmp_path)
    assert len(points) > 20, "the harness sees hardly anything"
    died = 0
    for point in strace.sample(points, IN_SHORT):
        here = begin.copy(tmp_path / "here")
        done = strace.kill(command(verb), root_of(here, verb), point)
        died += done.returncode != 0
        after(here, verb, done=done.returncode == 0)
    assert died >= IN_SHORT // 2


@pytest.mark.parametrize("verb", ["push", "pull"])
def test_a_full_disk_leaves_nothing_half_there(place: Place, pushed: Place, tmp_path: Path, verb: str):
    begin = place if verb == "push" else pushed
    points = [p for p in points_of(begin, verb, tmp_path) if p.call in strace.FAILING["ENOSPC"]]
    for point in strace.sample(points, IN_SHORT):
        here = begin.copy(tmp_path / "here")
        done = strace.fail(command(verb), root_of(here, verb), point, "ENOSPC", for_ever=True)
        assert "Traceback" not in done.stderr, done.stderr
        after(here, verb, done=done.returncode == 0)
