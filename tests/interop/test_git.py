"""The real `git` reads what we wrote, and finds nothing wrong with it."""

from __future__ import annotations

import time

import pytest

from tests.support.states import training_state
from tests.support.world import World


def test_fsck_is_clean_and_the_files_are_where_git_looks_for_them(world: World):
    with world.repo() as repo:
        for step in range(5):
            repo.commit(training_state(step), step=step)
        repo.tag("base", golden=True)
        repo.branch("exp", "HEAD~2")

    assert world.git("fsck", "--strict", "--no-dangling") == ""
    assert world.git("status", "--porcelain") == ""
    assert world.git("show", "HEAD:checkpoints/model.dvc").startswith("outs:")
    assert world.git("cat-file", "-t", "golden/base") == "tag"


def test_the_code_that_made_a_checkpoint_is_in_its_commit(world: World):
    (world.root / "train.py").write_text("first\n")
    world.git("add", "train.py")
    world.git("commit", "-qm", "code")
    with world.repo() as repo:
        repo.commit(training_state(1), branch="run", step=1)
        (world.root / "train.py").write_text("second\n")
        world.git("commit", "-qam", "better code")
        repo.commit(training_state(2), branch="run", step=2)

    assert world.git("show", "run:train.py") == "second"
    assert world.git("show", "run~1:train.py") == "first"
    assert world.git("log", "--first-parent", "--format=%s", "run").splitlines()[:2] == [
        "ckpt: run step 2",
        "ckpt: run step 1",
    ]


def test_uncommitted_changes_are_a_patch_that_git_applies(world: World):
    (world.root / "train.py").write_text("a = 1\nb = 2\n")
    world.git("add", "train.py")
    world.git("commit", "-qm", "code")
    (world.root / "train.py").write_text("a = 1\nb = 3\n")
    with world.repo() as repo:
        repo.commit(training_state(1), step=1)

    world.git("checkout", "-q", "--", "train.py")
    world.git("apply", "checkpoints/model/code.patch")

    assert (world.root / "train.py").read_text() == "a = 1\nb = 3\n"


@pytest.mark.parametrize("then", ["commit", "checkout"])
def test_git_sees_an_edit_made_in_the_second_of_its_staging(world: World, then: str):
    code = world.root / "train.py"
    code.write_text("a = 1\nb = 1\n")
    world.git("add", "train.py")
    world.git("commit", "-qm", "code")
    with world.repo() as repo:
        repo.commit(training_state(1), step=1)
    world.git("branch", "other")
    with world.repo() as repo:
        repo.commit(training_state(2), step=2)
    _next_second()
    code.write_text("a = 1\nb = 2\n")
    world.git("add", "train.py")
    code.write_text("a = 1\nb = 3\n")
    _next_second()  # an index written from here on is younger than the edit, in the whole seconds that git compares

    if then == "commit":
        with world.repo() as repo:
            repo.commit(training_state(3), step=3)
    else:
        world.ckpt("checkout", "other")

    assert world.git("diff", "--name-only", "--", "train.py") == "train.py"


def _next_second() -> None:
    time.sleep(1.01 - time.time() % 1)


def test_a_rebase_and_a_merge_of_git_leave_checkpoints_readable(world: World):
    with world.repo() as repo:
        repo.commit(training_state(1), step=1)
        repo.branch("exp")
        repo.commit(training_state(2), step=2)
    world.git("checkout", "-q", "exp")
    (world.root / "notes.txt").write_text("x")
    world.git("add", "notes.txt")
    world.git("commit", "-qm", "notes")
    world.git("rebase", "-q", "main")
    world.git("checkout", "-q", "main")
    world.git("merge", "-q", "--no-ff", "-m", "merge", "exp")

    log = world.ckpt("log", "--json").json

    assert [entry["step"] for entry in log["checkpoints"]] == [2, 1]
    with world.repo() as repo:
        assert repo.load("main")["step"] == 2
