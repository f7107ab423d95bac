"""Many at once: processes on one branch of one repository, clones on one hub and one store. Nothing is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
import pytest

from ckptvcs.domain import events
from ckptvcs.porcelain import fetch
from tests.support import oracle
from tests.support.places import Place, in_folder, point_to, sound
from tests.support.world import World

SCRIPT = str(Path(__file__).parent / "crowd.py")


def crowd(worlds: Sequence[World], *, branch: str, each: int, mode: str = "ours") -> list[list[str]]:
    """Let processes work at once, one in each folder; returns what each of them printed."""
    go = worlds[0].root.parent / "go"
    go.unlink(missing_ok=True)
    running = [
        subprocess.Popen(
            [sys.executable, SCRIPT, mode, str(world.root), branch, str(who), str(each)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for who, world in enumerate(worlds)
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()[1]
    go.touch()
    with ThreadPoolExecutor(len(running)) as pool:
        told = list(pool.map(lambda process: process.communicate(), running))
    assert mode == "naive" or not any(p.returncode for p in running), [err for _, err in told]
    return [out.split() for out, _ in told]


def commits_of(world: World, branch: str = "exp") -> list[list[str]]:
    """The commits of a branch, newest first, each with its parents."""
    return [line.split() for line in world.git("rev-list", "--parents", branch).splitlines()]


def is_none_lost(world: World, told: Sequence[Sequence[str]]) -> bool:
    there = {line[0] for line in commits_of(world)}
    return all(commit in there for some in told for commit in some)


@pytest.mark.parametrize(
    ("writers", "each"), [(4, 8), pytest.param(8, 100, marks=pytest.mark.long)], ids=["few", "many"]
)
def test_processes_that_commit_to_one_branch_lose_nothing(world: World, writers: int, each: int):
    told = crowd([world] * writers, branch="exp", each=each)

    lines = commits_of(world)
    assert all(len(line) == 2 for line in lines[:-1]), "the history is not a line"
    assert is_none_lost(world, told)
    found = oracle.check(world.root)
    assert len(found) == writers * each
    assert sorted(manifest["step"] for manifest in found.values()) == sorted(
        1000 * who + n for who in range(writers) for n in range(each)
    )
    for who, mine in enumerate(told):  # what one writer did is in the order in which it did it
        steps = [found[line[0]]["step"] for line in reversed(lines) if line[0] in mine]
        assert steps == [1000 * who + n for n in range(each)]
    assert not world.temporaries()


def test_a_writer_that_does_not_compare_and_swap_is_caught(world: World):
    """Else the test above would say little: it must see commits that get lost between a look and a move."""
    told = crowd([world] * 4, branch="exp", each=8, mode="naive")

    assert sum(map(len, told)) > 8, "they were not at it together"
    assert not is_none_lost(world, told)


# ---------------------------------------------------------------------------------------------------------------- clones


def chains(root: Path) -> dict[str, list[bytes]]:
    """The chains of the ledger, read by git alone."""
    found = {}
    for ref in oracle.git(root, "for-each-ref", "--format=%(refname)", "refs/ckptvcs/ledger").split():
        entries = oracle.git(root, "rev-list", "--reverse", "--topo-order", ref).split()
        found[ref.rpartition("/")[2]] = [
            oracle.git(root, "cat-file", "commit", entry).partition("\n\n")[2].encode() for entry in entries
        ]
    return found


@pytest.mark.parametrize(
    ("clones", "rounds"), [(3, 3), pytest.param(4, 25, marks=pytest.mark.long)], ids=["few", "many"]
)
def test_clones_that_push_and_pull_at_once_lose_nothing(tmp_path: Path, clones: int, rounds: int):
    place = Place.create(tmp_path / "place")
    point_to(place.world, "../../store", {})
    with place.world.repo() as repo:
        repo.commit({"model": {"w": numpy.zeros(64)}}, step=0)
    place.world.git("branch", "race")
    place.world.ckpt("push", "main", "race")
    worlds = [place.make_clone(f"clone-{n}") for n in range(clones)]
    for world in worlds:
        point_to(world, "../../store", {})
        world.git("branch", "-q", "race", "origin/race")

    told = crowd(worlds, branch="race", each=rounds, mode="share")

    assert Counter(word for some in told for word in some)["conflict"] > 0, "nobody was in anybody's way"
    pushed = [[word for word in some if word != "conflict"] for some in told]
    assert [len(some) for some in pushed] == [2 * rounds] * clones
    at_hub = set(oracle.git(place.hub, "rev-list", "--branches").split())
    assert {commit for some in pushed for commit in some} <= at_hub
    race = [line.split() for line in oracle.git(place.hub, "rev-list", "--parents", "race").splitlines()]
    assert len(race) == 2 + clones * rounds, "each of them put one checkpoint on it in each round"
    assert all(len(line) == 2 for line in race[:-1])
    assert sound(place.hub, in_folder(place.folder / "store")) > 0
    hub = chains(place.hub)
    for world in worlds:
        world.ckpt("fetch")
        is_complete(world, place, hub)
    assert len(hub) == clones + 1
    assert events.check(hub) == ()
    notes = [entry for entries in hub.values() for entry in map(json.loads, entries) if entry["op"] == "note"]
    assert len(notes) == clones * rounds


def is_complete(world: World, place: Place, hub: dict[str, list[bytes]]) -> None:
    """Fail unless a clone that has fetched has every branch and every chain of the hub, and can pull what they name."""
    branches = oracle.git(place.hub, "for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads").split()
    with world.repo() as repo:
        for branch in branches:
            tip = oracle.git(place.hub, "rev-parse", branch)
            assert oracle.git(world.root, "rev-parse", f"origin/{branch}") == tip
            fetch.fetch_objects(repo._repo, fetch.plan_objects(repo._repo, f"origin/{branch}"))
    assert chains(world.root) == hub
    oracle.check(world.root, complete=False)
    assert not world.temporaries()
