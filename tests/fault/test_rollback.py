"""A git remote that serves an old but valid state, or none: who fetched before is told, and keeps what was there."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy
import pytest

from tests.support import oracle
from tests.support.places import Place
from tests.support.world import World


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A repository and a clone that has all of it; `old.git` is the hub before the second checkpoint."""
    found = Place.create(tmp_path / "place")
    found.world.ckpt("remote", "add", "share", "../store")
    found.world.git("commit", "-qam", "a remote")
    commit(found.world, 1)
    found.world.ckpt("push")
    shutil.copytree(found.hub, found.folder / "old.git")
    found.make_clone().ckpt("pull")
    commit(found.world, 2)
    found.world.ckpt("note", "main", "--metric", "late=1")
    found.world.ckpt("push")
    found.clone.ckpt("pull")
    return found


def commit(world: World, step: int) -> None:
    with world.repo() as repo:
        repo.commit({"model": {"w": numpy.arange(50) + step}}, step=step)


def chain(root: Path) -> str:
    return oracle.git(root, "for-each-ref", "--format=%(refname) %(objectname)", "refs/ckptvcs/ledger")


def test_an_old_state_is_told_and_nothing_here_goes_back(place: Place):
    clone, newest, chains = place.clone, place.world.git("rev-parse", "main"), chain(place.clone.root)
    shutil.rmtree(place.hub)
    (place.folder / "old.git").rename(place.hub)

    told = clone.ckpt("fetch")

    assert f"branch 'main' went back at 'origin': it was at {newest[:10]}" in told.err
    assert "in the ledger is shorter at 'origin'" in told.err
    assert clone.git("rev-parse", "main") == newest
    assert chain(clone.root) == chains
    assert clone.ckpt("show", "main", "--json").json["metrics"]["late"] == 1
    assert clone.ckpt("fetch").err == "", "it is told when it happens"
    assert clone.ckpt("pull").status == 0
    assert clone.git("rev-parse", "main") == newest
    clone.ckpt("push")
    assert oracle.git(place.hub, "rev-parse", "main").strip() == newest


def test_a_branch_that_was_rewritten_is_told(place: Place):
    place.world.git("reset", "-q", "--hard", "HEAD~1")
    commit(place.world, 3)
    place.world.git("push", "-qf", "origin", "main")

    told = place.clone.ckpt("fetch")

    assert "branch 'main' was rewritten at 'origin'" in told.err


def test_a_chain_that_is_gone_or_rewritten_is_told_and_the_own_stays(place: Place):
    clone, chains = place.clone, chain(place.clone.root)
    for ref in oracle.git(place.hub, "for-each-ref", "--format=%(refname)", "refs/ckptvcs").split():
        oracle.git(place.hub, "update-ref", "-d", ref)

    told = clone.ckpt("fetch")

    assert "in the ledger is gone at 'origin'" in told.err
    assert chain(clone.root) == chains


def test_what_goes_on_as_it_should_is_no_alarm(place: Place):
    commit(place.world, 3)
    place.world.git("branch", "gone")
    place.world.ckpt("push", "main", "gone")
    place.clone.ckpt("fetch")
    place.world.git("push", "-q", "origin", ":gone")
    place.world.ckpt("tag", "v1")
    place.world.ckpt("push", "v1")

    told = place.clone.ckpt("fetch")

    assert told.err == ""
    assert "refs/tags/v1" in told.out
