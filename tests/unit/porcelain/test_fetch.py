"""What a fetch brings, and what of the objects is still to come."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckptvcs.errors import MissingObject, NotFound, Unsaved, WrongDigest
from ckptvcs.porcelain import fetch, remotes
from ckptvcs.porcelain.repo import Repository
from tests.support import oracle
from tests.support.places import Place
from tests.support.states import training_state
from tests.support.world import World, run


@pytest.fixture
def both(world: World, state, tmp_path: Path) -> tuple[World, World]:
    """A repository that has pushed two checkpoints, and a clone that has their refs alone."""
    world.git("init", "-q", "--bare", "-b", "main", tmp_path / "hub.git")
    world.git("remote", "add", "origin", tmp_path / "hub.git")
    repo = Repository.open(world.root)
    remotes.add(repo, remotes.plan_add(repo, "share", str(tmp_path / "store")))
    world.git("commit", "-qam", "a remote")
    for seed in (1, 2):
        with world.repo() as opened:
            opened.commit(state(seed), step=seed)
    world.ckpt("note", "HEAD", "--metric", "acc=0.5")
    world.ckpt("push")
    run(["git", "clone", "-q", str(tmp_path / "hub.git"), str(tmp_path / "other")], tmp_path)
    other = World(tmp_path / "other")
    for key, value in (("user.name", "Other"), ("user.email", "other@example.com")):
        other.git("config", key, value)
    return world, other


def open_(world: World) -> Repository:
    return Repository.open(world.root)


def test_a_fetch_brings_the_ledger_and_no_objects(both: tuple[World, World]):
    _, other = both

    planned = fetch.plan_fetch(open_(other))
    found = fetch.fetch(open_(other))

    assert planned.moved == found.moved
    assert [ref.rpartition("/")[0] for ref in found.moved] == ["refs/ckptvcs/ledger"]
    assert other.objects() == {}
    assert other.ckpt("show", "--json").json["metrics"] == {"acc": 0.5}
    assert fetch.fetch(open_(other)).moved == ()


def test_what_is_missing_is_counted_and_comes_once(both: tuple[World, World]):
    _, other = both
    repo = open_(other)

    plan = fetch.plan_objects(repo, "HEAD")
    fetch.fetch_objects(repo, plan)

    assert plan.nbytes == sum(ref.nbytes for ref in plan.missing) > 0
    assert fetch.plan_objects(repo, "HEAD").missing == ()
    older = fetch.plan_objects(repo, "HEAD~1")
    assert 0 < len(older.missing) < len(plan.missing), "what both share is here already"
    oracle.check(other.root, complete=False)


def test_a_component_that_there_is_not_is_named(both: tuple[World, World]):
    with pytest.raises(NotFound, match="no component 'nope'"):
        fetch.plan_objects(open_(both[1]), "HEAD", components=["nope"])


def test_a_branch_goes_on_with_its_workspace(both: tuple[World, World], state):
    world, other = both
    other.ckpt("pull")
    with world.repo() as repo:
        repo.commit(state(3), step=3)
    world.ckpt("push")
    repo = open_(other)
    fetch.fetch(repo)
    ahead = fetch.upstream(repo)
    assert ahead is not None

    fetch.fetch_objects(repo, fetch.plan_objects(repo, ahead))
    fetch.advance(repo, ahead)

    assert other.git("rev-parse", "HEAD") == world.git("rev-parse", "HEAD")
    assert other.git("status", "--porcelain") == ""
    assert oracle.workspace_of(other.root, [oracle.checkpoints(other.root)[ahead]]) == 0
    assert fetch.upstream(repo) is None


def test_nothing_moves_where_something_would_be_lost(both: tuple[World, World], state):
    world, other = both
    other.ckpt("pull")
    with world.repo() as repo:
        repo.commit(state(3), step=3)
    world.ckpt("push")
    (other.root / "checkpoints/model/mine").write_text("saved nowhere")
    before = other.git("rev-parse", "HEAD")
    repo = open_(other)
    fetch.fetch(repo)
    ahead = fetch.upstream(repo)
    assert ahead is not None
    fetch.fetch_objects(repo, fetch.plan_objects(repo, ahead))

    with pytest.raises(Unsaved):
        fetch.advance(repo, ahead)

    assert other.git("rev-parse", "HEAD") == before
    assert (other.root / "checkpoints/model/mine").read_text() == "saved nowhere"


def test_two_lines_are_not_merged(both: tuple[World, World], state):
    world, other = both
    other.ckpt("pull")
    for one in both:
        with one.repo() as repo:
            repo.commit(state(3 + (one is other)), step=3)
    world.ckpt("push")

    refused = other.ckpt("pull", status=50)

    assert "cannot fast-forward" in refused.err


@pytest.mark.parametrize(("harm", "error"), [("gone", MissingObject), ("wrong", WrongDigest)])
def test_what_no_remote_has_whole_is_an_error_and_the_rest_comes(
    both: tuple[World, World], tmp_path: Path, harm: str, error: type[Exception]
):
    _, other = both
    repo = open_(other)
    plan = fetch.plan_objects(repo, "HEAD")
    victim = tmp_path / "store/files/md5" / plan.missing[0].name[:2] / plan.missing[0].name[2:]
    victim.chmod(0o644)
    victim.unlink() if harm == "gone" else victim.write_bytes(bytes(victim.stat().st_size))

    with pytest.raises(error) as caught:
        fetch.fetch_objects(repo, plan)

    assert caught.value.facts["object"] == plan.missing[0].name
    assert [ref.name for ref in fetch.plan_objects(repo, "HEAD").missing] == [plan.missing[0].name]


def test_a_store_that_does_not_answer_is_not_the_only_one(both: tuple[World, World], tmp_path: Path):
    _, other = both
    other.dvc("remote", "add", "--local", "-d", "broken", "s3://bucket/nowhere")
    for name, value in (("endpointurl", "http://127.0.0.1:9"), ("access_key_id", "x"), ("secret_access_key", "x")):
        other.dvc("remote", "modify", "--local", "broken", name, value)
    other.dvc("remote", "modify", "--local", "broken", "connect_timeout", "1")
    repo = open_(other)

    notes = fetch.fetch_objects(repo, fetch.plan_objects(repo, "HEAD"))

    assert notes
    assert notes[0].startswith("remote 'broken': cannot ")
    assert fetch.plan_objects(repo, "HEAD").missing == ()


def test_what_plain_dvc_brought_damaged_is_found_and_healed(tmp_path: Path):
    place = Place.create(tmp_path / "place")
    place.world.ckpt("remote", "add", "share", "../store", "--default")
    place.world.git("commit", "-qam", "a remote")
    with place.world.repo() as repo:
        repo.commit(training_state(1, width=16), step=1)
    place.world.ckpt("push")
    clone = place.make_clone()
    clone.dvc("pull")
    victim = max(clone.objects().values(), key=lambda path: path.stat().st_size)
    data = victim.read_bytes()
    victim.chmod(0o644)
    victim.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    victim.chmod(0o444)

    told = clone.ckpt("doctor", status=None)
    assert "1 are damaged" in told.out + told.err
    repo = open_(clone)
    assert [ref.name for ref in fetch.plan_objects(repo, "HEAD").missing] == [victim.parent.name + victim.name]
    fetch.fetch_objects(repo, fetch.plan_objects(repo, "HEAD"))

    assert victim.read_bytes() == data
    assert fetch.plan_objects(repo, "HEAD").missing == ()
