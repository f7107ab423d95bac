"""Where a commit goes: its branch, its parents, the tree that it begins with. git is the oracle."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckptvcs import Repo
from ckptvcs.errors import Refused, UsageError
from ckptvcs.porcelain.repo import Repository
from ckptvcs.porcelain.target import Target, find_place, find_target
from tests.support.world import World

# ------------------------------------------------------------------------------------------------------------- branch


@pytest.mark.parametrize(
    ("branch", "run", "expected"),
    [
        (None, None, Target(branch="main", checked_out=True)),
        ("main", None, Target(branch="main", checked_out=True)),
        ("exp", None, Target(branch="exp", checked_out=False)),
        (None, "bert-lr3e-4", Target(branch="bert-lr3e-4", checked_out=False)),
        (None, "main", Target(branch="main", checked_out=True)),
        ("exp", "bert", Target(branch="exp", checked_out=False)),
        ("main", "bert", Target(branch="main", checked_out=True)),
        ("team/exp-1.0_a", None, Target(branch="team/exp-1.0_a", checked_out=False)),
    ],
)
def test_a_branch_goes_before_a_run_and_a_run_before_what_is_checked_out(
    repository: Repository, branch: str | None, run: str | None, expected: Target
):
    assert find_target(repository, branch, run) == expected


def test_a_detached_head_needs_a_name(repository: Repository, world: World):
    world.git("checkout", "-q", "--detach")

    with pytest.raises(UsageError, match="no branch to commit to"):
        find_target(repository, None, None)
    assert find_target(repository, "main", None) == Target(branch="main", checked_out=False)


def test_a_branch_without_commits_is_checked_out_all_the_same(repository: Repository, world: World):
    world.git("checkout", "-q", "--orphan", "fresh")

    assert find_target(repository, None, None) == Target(branch="fresh", checked_out=True)


def test_a_branch_of_another_worktree_is_refused(repository: Repository, world: World, tmp_path: Path):
    world.git("worktree", "add", "-q", "-b", "other", str(tmp_path / "linked"))

    with pytest.raises(Refused, match="another worktree"):
        find_target(repository, "other", None)
    assert find_target(Repository.open(tmp_path / "linked"), None, None) == Target(branch="other", checked_out=True)


@pytest.mark.parametrize(
    "name",
    [
        *[
            "-x",
            "--force",
            "a..b",
            "a~1",
            "a^",
            "a:b",
            "a?",
            "a*",
            "[a",
            "a\\b",
            "/a",
            "a/",
            "a//b",
            ".a",
            "a.",
            "a.lock",
        ],
        *["a@{1}", "HEAD", "latest", "best", "main@latest", "a@b", "@", "a#1", " ", "a b", "a\n", "\x1b[31m", "a\0"],
    ],
)
def test_a_name_that_means_something_else_is_no_branch(repository: Repository, name: str):
    with pytest.raises(UsageError, match="cannot be the name of a branch"):
        find_target(repository, name, None)
    with pytest.raises(UsageError, match="cannot be the name of a branch"):
        find_target(repository, None, name)


@pytest.mark.parametrize(("branch", "run"), [("", None), (None, ""), ("", "run")])
def test_an_empty_name_is_no_branch(repository: Repository, branch: str | None, run: str | None):
    with pytest.raises(UsageError):
        find_target(repository, branch, run)


# -------------------------------------------------------------------------------------------------- parents and tree


def parents(world: World, revision: str) -> list[str]:
    return world.git("log", "-1", "--format=%P", revision).split()


def edit_code(world: World, text: str) -> str:
    """Commit other code; tells the commit."""
    (world.root / "train.py").write_text(text)
    world.git("add", "train.py")
    world.git("commit", "-qm", text)
    return world.git("rev-parse", "HEAD")


def test_a_checkpoint_follows_the_last_one_of_its_branch(repo: Repo, world: World, state):
    code = edit_code(world, "one")

    first, second = repo.commit(state(1), branch="run"), repo.commit(state(2), branch="run")

    assert parents(world, first.commit) == [code]
    assert parents(world, second.commit) == [first.commit]
    assert second.manifest.parents == (first.id,)


def test_code_that_moved_on_comes_with_the_checkpoint_as_in_a_merge(repo: Repo, world: World, state):
    edit_code(world, "one")
    first = repo.commit(state(1), branch="run")
    code = edit_code(world, "two")

    second = repo.commit(state(2), branch="run")
    third = repo.commit(state(3), branch="run")

    assert parents(world, second.commit) == [first.commit, code]
    assert parents(world, third.commit) == [second.commit]
    assert world.git("show", f"{second.commit}:train.py") == "two"
    assert second.manifest.parents == (first.id,)


def test_other_tracks_of_the_branch_are_carried_along(repo: Repo, world: World, state):
    edit_code(world, "one")
    teacher = repo.commit(state(1), branch="run", track="teacher")
    edit_code(world, "two")

    repo.commit(state(2), branch="run", track="student")

    assert repo.show("run", track="teacher").id == teacher.id
    assert world.git("show", "run:checkpoints/.gitignore").split() == ["/teacher", "/student"]
    assert world.git("show", "run:train.py") == "two"


def test_code_that_the_branch_has_already_is_no_second_parent(repo: Repo, world: World, state):
    edit_code(world, "one")
    repo.commit(state(1), branch="run")
    world.git("checkout", "-q", "run")
    newer = edit_code(world, "two")
    world.git("checkout", "-q", "--detach", "HEAD~2")

    commit = repo.commit(state(2), branch="run")

    assert parents(world, commit.commit) == [newer]
    assert world.git("show", f"{commit.commit}:train.py") == "one"


def test_a_branch_that_begins_nowhere_begins_with_nothing(repository: Repository):
    place = find_place(repository, Target(branch="fresh", checked_out=True), code=None, start=None)

    assert (place.tip, place.base, place.parents, place.carried) == (None, None, (), {})


def test_a_commit_to_a_branch_without_commits_is_its_first(repo: Repo, world: World, state):
    world.git("checkout", "-q", "--orphan", "fresh")
    before = world.git("status", "--porcelain")

    receipt = repo.commit(state(1))

    assert (receipt.branch, parents(world, "fresh")) == ("fresh", [])
    assert world.git("status", "--porcelain") == before
    assert receipt.manifest.parents == ()
