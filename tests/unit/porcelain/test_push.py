"""What a push looks at, and that it looks at no more than is new."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckptvcs.errors import NotFound, RefMoved, UsageError
from ckptvcs.porcelain import fetch, push, remotes
from ckptvcs.porcelain.repo import Repository
from tests.support import oracle
from tests.support.places import Place
from tests.support.states import training_state
from tests.support.world import World, run


@pytest.fixture
def shared(world: World, tmp_path: Path) -> World:
    world.git("init", "-q", "--bare", "-b", "main", tmp_path / "hub.git")
    world.git("remote", "add", "origin", tmp_path / "hub.git")
    with_remote(world, "share", tmp_path / "store")
    return world


def with_remote(world: World, name: str, folder: Path) -> None:
    repo = Repository.open(world.root)
    remotes.add(repo, remotes.plan_add(repo, name, str(folder)))
    world.git("commit", "-qam", f"remote {name}")


def commit(world: World, state, seed: int) -> None:
    with world.repo() as repo:
        repo.commit(state(seed), step=seed)


def pushed(world: World, **options) -> push.PushPlan:
    repo = Repository.open(world.root)
    plan = push.plan_push(repo, **options)
    push.execute(repo, plan)
    return plan


def test_only_what_is_new_is_looked_at(shared: World, state):
    commit(shared, state, 1)
    first = pushed(shared)
    commit(shared, state, 2)

    second = push.plan_push(Repository.open(shared.root))

    assert [c.manifest.step for c in first.checkpoints] == [1]
    assert [c.manifest.step for c in second.checkpoints] == [2]
    (copy,) = second.copies
    assert {ref.name for ref in copy.missing} < {ref.name for ref in second.needed}
    assert second.nbytes == sum(ref.nbytes for ref in copy.missing)


def test_a_plan_changes_nothing(shared: World, state, tmp_path: Path):
    commit(shared, state, 1)
    before = shared.git("for-each-ref")

    push.plan_push(Repository.open(shared.root))

    assert shared.git("for-each-ref") == before
    assert not list((tmp_path / "store").rglob("*.dir"))
    assert oracle.git(tmp_path / "hub.git", "for-each-ref") == ""


def test_nothing_new_is_nothing_to_do(shared: World, state):
    commit(shared, state, 1)
    pushed(shared)

    assert pushed(shared).is_empty
    assert len(oracle.ledger(shared.root)) == 1


def test_what_plain_git_pushed_is_looked_at_all_the_same(shared: World, state):
    """Git knows the commit, and nobody has sent its objects."""
    commit(shared, state, 1)
    shared.git("push", "-q", "origin", "main")

    plan = pushed(shared)

    assert [c.manifest.step for c in plan.checkpoints] == [1]
    assert plan.uploads == len(plan.needed) > 0
    assert pushed(shared).is_empty


def test_another_store_is_another_question(shared: World, state, tmp_path: Path):
    commit(shared, state, 1)
    pushed(shared)
    with_remote(shared, "second", tmp_path / "second")

    plan = pushed(shared, remote="second")

    assert [copy.remote.name for copy in plan.copies] == ["second"]
    assert plan.uploads == len(plan.needed) > 0
    assert pushed(shared, remote="second").is_empty


def test_what_others_cannot_complete_either_is_told_and_in_nobodys_way(shared: World, state, tmp_path: Path):
    """Plain git brought a checkpoint whose objects are on no other machine."""
    commit(shared, state, 1)
    shared.git("push", "-q", "origin", "main")
    run(["git", "clone", "-q", str(tmp_path / "hub.git"), str(tmp_path / "other")], tmp_path)
    other = World(tmp_path / "other")
    for key, value in (("user.name", "O"), ("user.email", "o@x")):
        other.git("config", key, value)
    commit(other, state, 2)

    plan = pushed(other)

    assert [c.manifest.step for c in plan.checkpoints] == [2]
    assert "neither here nor in a store" in plan.notes[0]


def test_branches_and_tags_are_named(shared: World, state):
    commit(shared, state, 1)
    shared.git("branch", "exp")
    shared.ckpt("tag", "--golden", "base")

    plan = pushed(shared, names=["exp", "golden/base"])

    refs = {u.ref for u in plan.updates if not u.ref.startswith("refs/ckptvcs/")}
    assert refs == {"refs/heads/exp", "refs/tags/golden/base"}
    assert pushed(shared, everything=True).updates[0].ref == "refs/heads/main"
    with pytest.raises(NotFound, match="no branch or tag 'nope'"):
        push.plan_push(Repository.open(shared.root), ["nope"])


def test_who_was_slower_is_told(shared: World, state, tmp_path: Path):
    commit(shared, state, 1)
    pushed(shared)
    run(["git", "clone", "-q", str(tmp_path / "hub.git"), str(tmp_path / "other")], tmp_path)
    other = World(tmp_path / "other")
    other.git("-c", "user.name=O", "-c", "user.email=o@x", "commit", "-q", "--allow-empty", "-m", "faster")
    commit(shared, state, 2)
    repo = Repository.open(shared.root)
    plan = push.plan_push(repo)
    other.git("push", "-q")

    with pytest.raises(RefMoved, match="something that this clone has not"):
        push.execute(repo, plan)
    with pytest.raises(RefMoved, match="it has commits of that branch that are not here"):
        push.plan_push(repo)

    assert oracle.git(tmp_path / "hub.git", "log", "-1", "--format=%s", "main") == "faster\n"


def test_a_remote_that_nobody_named_is_asked_for(world: World, state, tmp_path: Path):
    commit(world, state, 1)
    with pytest.raises(NotFound, match="no git remote 'origin'"):
        push.plan_push(Repository.open(world.root))
    world.git("init", "-q", "--bare", tmp_path / "hub.git")
    world.git("remote", "add", "origin", tmp_path / "hub.git")
    with pytest.raises(UsageError, match="no remote for checkpoints"):
        push.plan_push(Repository.open(world.root))


def test_a_chain_that_was_rewritten_there_is_told_and_left(shared: World, state, tmp_path: Path):
    commit(shared, state, 1)
    shared.ckpt("note", "HEAD", "--metric", "a=1")
    pushed(shared)
    (ref,) = oracle.ledger(shared.root)
    forged = shared.git("commit-tree", "-m", "forged", f"{ref}^{{tree}}")
    oracle.git(tmp_path / "hub.git", "fetch", "-q", str(shared.root), f"{forged}:refs/forged")
    oracle.git(tmp_path / "hub.git", "update-ref", ref, forged)
    before = shared.git("rev-parse", ref)

    found = fetch.fetch(Repository.open(shared.root))

    assert "was rewritten at 'origin'" in found.notes[0]
    assert shared.git("rev-parse", ref) == before


def test_a_branch_that_is_ahead_there_is_told_before_anything_is_sent(tmp_path: Path):
    place = Place.create(tmp_path / "place")
    place.world.ckpt("remote", "add", "share", "../store")
    place.world.git("commit", "-qam", "a remote")
    place.world.ckpt("push")
    other = place.make_clone()
    other.git("commit", "-q", "--allow-empty", "-m", "other")
    other.git("push", "-q")
    place.world.git("commit", "-q", "--allow-empty", "-m", "mine")
    place.world.git("branch", "second")

    for args in (["push"], ["push", "-n", "main"]):
        told = place.world.ckpt(*args, status=None)
        assert "cannot push 'main' to 'origin'" in told.err
        assert "both sides have commits of their own" in told.err
    assert place.world.git("ls-remote", "origin", "second") == ""
    told = place.world.ckpt("push", "--all")

    assert "branch 'main' is not pushed: 'origin' has commits of it that are not here" in told.err
    assert place.world.git("ls-remote", "origin", "second").split()[0] == place.world.git("rev-parse", "second")
    assert place.world.git("ls-remote", "origin", "main").split()[0] == other.git("rev-parse", "main")


def test_who_is_not_listed_is_told(tmp_path: Path):
    place = Place.create(tmp_path / "place")
    place.world.ckpt("remote", "add", "share", "../store")
    place.world.git("commit", "-qam", "a remote")
    place.world.ckpt("audit", "allow")
    place.world.git("add", "-A")
    place.world.git("commit", "-qm", "who may write")
    assert "does not count" not in place.world.ckpt("push").err

    other = place.make_clone()
    with other.repo() as repo:
        repo.commit(training_state(1, width=16), step=1)
    other.ckpt("note", "HEAD", "--metric", "loss=1")
    told = other.ckpt("push").err

    assert "does not count for others" in told
    assert "ckpt audit allow" in told
    other.ckpt("audit", "allow")
    assert "does not count" not in other.ckpt("push", status=None).err
