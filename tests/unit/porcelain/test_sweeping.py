"""What comes to be needed between the question and the sweep: it stays, whoever it is that needs it."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ckptvcs.errors import NeedsPerson
from ckptvcs.porcelain import gc, marks, sweeping
from tests.support.world import World
from tests.unit.porcelain.test_gone import aged, pushed, shared
from tests.unit.porcelain.test_retention import LAST_TWO, Training, training

__all__ = ["shared", "training"]


def before_the_sweep(monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any]) -> list[int]:
    """Have something happen when all is looked at and nothing has gone yet, once; how often there was a sweep."""
    real, calls = sweeping.sweep, list[int]()

    def sweep(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            act()
        return real(*args, **options)

    monkeypatch.setattr(sweeping, "sweep", sweep)
    return calls


def needed_by(world: World, revision: str) -> set[str]:
    """The objects of the checkpoint that a commit holds, as its manifest and its pointer say."""
    manifest = json.loads(world.git("show", f"{revision}:checkpoints/model.json"))
    pointer = yaml.safe_load(world.git("show", f"{revision}:checkpoints/model.dvc"))
    files = [file for component in manifest["components"] for file in component["files"]] + manifest["files"]
    return {pointer["outs"][0]["md5"], *(file["md5"] for file in files)}


def names_in(folder: Path) -> set[str]:
    return {path.parent.name + path.name for path in (folder / "files/md5").glob("??/*")}


@pytest.mark.parametrize("how", ["hold", "tag"])
def test_what_is_held_meanwhile_does_not_go_for_good(
    shared: tuple[Training, Path], monkeypatch: pytest.MonkeyPatch, how: str
):
    training, store = shared
    pushed(training, store, f"{LAST_TWO}  trash: 0d\n", days=10)
    training.collect()
    aged(store, 3)
    world = training.world
    command = ["hold", "exp~3", "--why", "a paper"] if how == "hold" else ["tag", "paper", "exp~3"]
    calls = before_the_sweep(monkeypatch, lambda: world.ckpt(*command))

    report = gc.collect(training.open(), gc.Options(places=("store",)))

    assert len(calls) == 2
    assert report.swept[0].objects
    assert needed_by(world, "exp~3") <= names_in(store)


def test_what_is_named_while_it_goes_stays_as_far_as_it_is_there(
    shared: tuple[Training, Path], monkeypatch: pytest.MonkeyPatch
):
    """The ledger says by then that it is gone. What is there is not touched, and the next one says that it is back."""
    training, store = shared
    pushed(training, store, f"{LAST_TWO}  trash: 0d\n", days=10)
    for place in ("hot", "hot", "store"):
        training.collect(places=(place,))
    aged(store, 3)
    world, named = training.world, list[str]()
    real = marks.refuse_inherited

    def branch(*args: Any) -> None:
        real(*args)
        if not named:
            named.append("exp~3")
            world.git("branch", "back", "exp~3")

    monkeypatch.setattr(marks, "refuse_inherited", branch)

    report = gc.collect(training.open(), gc.Options(places=("store",)))

    assert report.swept[0].objects
    assert needed_by(world, "exp~3") <= names_in(store)
    assert "dropped" not in world.ckpt("show", "exp~3").out
    assert world.ckpt("pull", "exp~3").status == 0
    assert world.ckpt("restore", "exp~3", "--to", "back").status == 0


@pytest.fixture
def neighbour(training: Training, tmp_path: Path) -> World:
    """Another repository that uses the same cache, and that the first one knows of."""
    world = training.world
    (tmp_path / "cache").mkdir()
    theirs = World.create(tmp_path / "theirs")
    for one in (world, theirs):
        one.dvc("cache", "dir", "-q", "--local", tmp_path / "cache")
    return theirs


def test_what_a_neighbour_saves_meanwhile_is_whole(
    training: Training, neighbour: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    training.save(*range(1, 8))
    training.policy(f"{LAST_TWO}  shared_with: [{neighbour.root}]\n")
    training.collect()
    calls = before_the_sweep(monkeypatch, lambda: Training(neighbour).save(4))  # the bits that are about to go

    report = training.collect()

    assert len(calls) == 2
    assert report.swept[0].objects
    assert needed_by(neighbour, "exp") <= names_in(tmp_path / "cache")
    assert neighbour.ckpt("restore", "exp", "--to", "back").status == 0


def test_a_save_waits_for_a_sweep_of_the_cache_that_both_use(training: Training, neighbour: World):
    training.save(1)
    late = threading.Thread(target=Training(neighbour).save, args=(1,))

    with training.open().cache_lock():
        late.start()
        late.join(1.0)
        assert late.is_alive()
        assert not neighbour.git("branch", "--list", "exp")
    late.join(60.0)

    assert neighbour.git("branch", "--list", "exp")


def test_a_cache_that_nobody_shares_has_no_such_lock(training: Training):
    training.save(1)

    assert not training.open().shares_cache
    assert not list(training.world.root.rglob("cache.lock"))


def test_a_cache_in_this_clone_that_a_neighbour_saved_to_is_shared(training: Training, tmp_path: Path):
    training.save(*range(1, 8))
    training.policy(LAST_TWO)
    theirs = World.create(tmp_path / "theirs")
    theirs.dvc("cache", "dir", "-q", "--local", training.world.root / ".dvc/cache")
    Training(theirs).save(4)

    with pytest.raises(NeedsPerson, match="other repositories may use the cache"):
        training.collect()

    training.policy(f"{LAST_TWO}  shared_with: [{theirs.root}]\n")
    training.collect(accept_policy=True)
    assert training.collect().swept[0].objects
    assert needed_by(theirs, "exp") <= names_in(training.world.root / ".dvc/cache")


def test_worktrees_of_one_clone_are_no_neighbours(training: Training, tmp_path: Path):
    training.save(*range(1, 8))
    training.policy(LAST_TWO)
    training.world.git("worktree", "add", "-q", "-b", "side", tmp_path / "side")
    side = World(tmp_path / "side")
    side.dvc("cache", "dir", "-q", "--local", training.world.root / ".dvc/cache")
    Training(side).save(50, run="side")

    assert not training.open().shares_cache
    assert not Training(side).open().shares_cache
    training.collect()
    assert training.collect().swept[0].objects


def test_who_shares_a_cache_in_a_group_can_write_beside_it(training: Training, neighbour: World, tmp_path: Path):
    (tmp_path / "cache").chmod(0o2775)
    before = os.umask(0o077)
    try:
        training.save(1)
    finally:
        os.umask(before)

    for path in (tmp_path / "cache/.ckptvcs", tmp_path / "cache/.ckptvcs/cache.lock"):
        assert path.stat().st_mode & stat.S_IWGRP, path
