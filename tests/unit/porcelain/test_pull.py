"""What a pull brings, in which order, and that a look at it brings nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckptvcs.errors import IntegrityError, NotFound, Refused, UsageError
from ckptvcs.porcelain import pull
from ckptvcs.porcelain.repo import Repository
from tests.support import oracle
from tests.support.world import World, run


@pytest.fixture
def both(world: World, history, tmp_path: Path) -> tuple[World, World]:
    """A repository that has pushed three checkpoints, and a clone that is two behind and has no objects."""
    world.git("init", "-q", "--bare", "-b", "main", tmp_path / "hub.git")
    world.git("remote", "add", "origin", tmp_path / "hub.git")
    world.ckpt("remote", "add", "share", tmp_path / "store")
    world.git("commit", "-qam", "a remote")
    world.ckpt("push")
    run(["git", "clone", "-q", str(tmp_path / "hub.git"), str(tmp_path / "other")], tmp_path)
    other = World(tmp_path / "other")
    other.git("config", "user.name", "Other")
    other.git("config", "user.email", "other@example.com")
    with world.repo() as repo:
        repo.commit({"model": {}, "step": 4}, step=4)
    world.ckpt("push")
    return world, other


def test_a_plan_fetches_nothing_and_counts_what_is_known(both: tuple[World, World], everything):
    _, other = both
    before = everything(other)

    plan = pull.plan_pull(Repository.open(other.root))

    assert everything(other) == before
    assert "refs/remotes/origin/main" in plan.fetched.moved
    assert plan.ahead is None
    assert plan.count == len(plan.objects.missing) > 0
    assert plan.nbytes == sum(ref.nbytes for ref in plan.objects.missing)


def test_objects_come_first_and_then_the_branch_goes_on(both: tuple[World, World]):
    world, other = both
    head = other.git("rev-parse", "HEAD")
    repo = Repository.open(other.root)

    plan = pull.begin(repo)
    assert other.git("rev-parse", "HEAD") == head
    assert plan.ahead == world.git("rev-parse", "HEAD")
    assert [c.manifest.step for c in plan.objects.checkpoints] == [4]
    pull.execute(repo, plan)

    assert other.git("rev-parse", "HEAD") == plan.ahead
    assert oracle.workspace_of(other.root, [oracle.checkpoints(other.root)[plan.ahead]]) == 0


def test_a_branch_whose_objects_do_not_come_stays(both: tuple[World, World], tmp_path: Path):
    _, other = both
    repo = Repository.open(other.root)
    plan = pull.begin(repo)
    for path in (tmp_path / "store").rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            path.write_bytes(b"rubbish")

    with pytest.raises(IntegrityError):
        pull.execute(repo, plan)

    assert other.git("rev-parse", "HEAD") != plan.ahead
    assert not (other.root / "checkpoints/model").exists()


def test_a_revision_moves_nothing(both: tuple[World, World]):
    _, other = both
    head = other.git("rev-parse", "HEAD")
    repo = Repository.open(other.root)

    plan = pull.begin(repo, "main@step:1", components=["model"])
    pull.execute(repo, plan)

    assert (plan.follow, plan.ahead) == (False, None)
    assert other.git("rev-parse", "HEAD") == head
    assert not (other.root / "checkpoints/model").exists()
    assert len(other.objects()) == plan.count > 0
    assert pull.plan_pull(repo, "main@step:1", components=["model"]).count == 0


def test_what_makes_no_sense_is_refused_before_anything_is_fetched(both: tuple[World, World], everything):
    _, other = both
    repo, before = Repository.open(other.root), everything(other)

    for begin in (pull.plan_pull, pull.begin):
        with pytest.raises(UsageError, match="a part of what"):
            begin(repo, components=["model"])
        with pytest.raises(NotFound, match="no git remote 'nope'"):
            begin(repo, to="nope")

    assert everything(other) == before


def test_two_sides_with_commits_of_their_own_are_told_apart(both: tuple[World, World]):
    _, other = both
    other.git("commit", "-q", "--allow-empty", "-m", "mine")
    repo = Repository.open(other.root)

    with pytest.raises(Refused, match="cannot fast-forward"):
        pull.execute(repo, pull.begin(repo))
