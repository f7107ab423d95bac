"""`Repo.push`, `Repo.fetch` and `Repo.pull`: what they send and bring, and what they answer."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ckptvcs import Repo
from ckptvcs.errors import NotFound, RefMoved
from ckptvcs.porcelain.sharing import Pulled, Pushed
from tests.support import oracle
from tests.support.world import World, run


@pytest.fixture
def hub(world: World, history, tmp_path: Path) -> Path:
    world.git("init", "-q", "--bare", "-b", "main", tmp_path / "hub.git")
    world.git("remote", "add", "origin", tmp_path / "hub.git")
    world.ckpt("remote", "add", "share", tmp_path / "store")
    world.git("commit", "-qam", "a remote")
    return tmp_path / "hub.git"


@pytest.fixture
def other(hub: Path, repo: Repo, tmp_path: Path) -> World:
    """A clone, after a push."""
    repo.push()
    run(["git", "clone", "-q", str(hub), str(tmp_path / "other")], tmp_path)
    found = World(tmp_path / "other")
    found.git("config", "user.name", "Other")
    found.git("config", "user.email", "other@example.com")
    return found


def stored(tmp_path: Path) -> dict[str, int]:
    """The objects in the store, by name, as they lie there."""
    return {p.parent.name + p.name: p.stat().st_size for p in (tmp_path / "store/files/md5").glob("??/*")}


def test_a_push_tells_what_it_sent(world: World, hub: Path, repo: Repo, history, tmp_path: Path):
    looked = repo.push(dry_run=True)
    assert stored(tmp_path) == {}
    assert oracle.git(hub, "for-each-ref") == ""

    sent = repo.push()

    assert isinstance(sent, Pushed)
    assert (looked.checkpoints, looked.objects, looked.nbytes) == (sent.checkpoints, sent.objects, sent.nbytes)
    assert set(sent.checkpoints) == {receipt.id for receipt in history}
    assert (sent.objects, sent.nbytes) == (len(stored(tmp_path)), sum(stored(tmp_path).values()))
    assert oracle.git(hub, "rev-parse", "main") == world.git("rev-parse", "main") + "\n"
    again = repo.push()
    assert (again.refs, again.checkpoints, again.objects, again.nbytes) == ((), (), 0, 0)


def test_names_are_one_or_several_or_all(world: World, hub: Path, repo: Repo):
    repo.branch("a")
    repo.branch("b")
    repo.tag("base", golden=True)

    def branches_and_tags() -> set[str]:
        return {
            line.split("\t")[1]
            for line in oracle.git(hub, "for-each-ref", "--format=x%09%(refname:short)").splitlines()
        }

    assert "refs/heads/a" in repo.push("a").refs
    assert branches_and_tags() >= {"a"}
    assert not branches_and_tags() & {"b", "main", "golden/base"}
    repo.push(["b", "golden/base"], verify=True)
    assert not branches_and_tags() & {"main"}
    repo.push(everything=True, full=True)
    assert branches_and_tags() >= {"a", "b", "main", "golden/base"}
    with pytest.raises(NotFound, match="no branch or tag 'nope'"):
        repo.push("nope")


def test_a_store_can_be_named(world: World, hub: Path, repo: Repo, tmp_path: Path):
    world.ckpt("remote", "add", "second", tmp_path / "second")
    with world.repo() as fresh:
        fresh.push(remote="second")

    assert stored(tmp_path) == {}
    assert list((tmp_path / "second").rglob("*.dir"))


def test_a_fetch_brings_refs_and_a_pull_the_objects_too(world: World, repo: Repo, other: World, state):
    repo.commit(state(4), step=4)
    repo.push()
    with other.repo() as theirs:
        looked = theirs.fetch(dry_run=True)
        assert "refs/remotes/origin/main" in looked.moved
        assert theirs.fetch().moved == looked.moved
        assert theirs.fetch().moved == ()
        assert other.objects() == {}

        planned = theirs.pull(dry_run=True)
        assert other.objects() == {}
        found = theirs.pull()

        assert isinstance(found, Pulled)
        assert (planned.commit, planned.objects, planned.nbytes) == (found.commit, found.objects, found.nbytes)
        assert found.commit == world.git("rev-parse", "main") == other.git("rev-parse", "HEAD")
        assert found.objects == len([name for name in other.objects() if not name.endswith(".dir")])
        assert theirs.load("HEAD")["step"] == 4
        assert theirs.pull().objects == 0


@pytest.mark.parametrize("components", ["model", ["model"], ["model", "optimizer"]], ids=str)
def test_a_part_of_a_revision_moves_nothing(components, other: World):
    with other.repo() as theirs:
        head = other.git("rev-parse", "HEAD")

        found = theirs.pull("main@step:2", components)

        assert found.commit is None
        assert found.objects == len(other.objects()) > 0
        assert other.git("rev-parse", "HEAD") == head
        state = theirs.load("main@step:2", [components] if isinstance(components, str) else components)
        assert float(state["model"]["layer.weight"][0]) == 2.0


def test_who_was_slower_is_told_and_can_go_on(repo: Repo, other: World, state):
    with other.repo() as theirs:
        theirs.commit(state(5), step=5)
        theirs.push()
    repo.commit(state(6), step=6)

    for dry_run in (False, True):
        with pytest.raises(RefMoved):
            repo.push(dry_run=dry_run)

    assert any("branch 'main' is not pushed" in note for note in repo.push(everything=True).notes)


def test_answers_are_values(repo: Repo, hub: Path):
    sent = repo.push(dry_run=True)

    with pytest.raises(dataclasses.FrozenInstanceError):
        sent.objects = 1  # type: ignore[misc]
