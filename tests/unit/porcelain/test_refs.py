"""`branch` and `tag`: names are made once, golden marks never move, and no checkpoint loses its last name."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ckptvcs import Repo
from ckptvcs.errors import (
    CkptvcsError,
    LockHeld,
    NotFound,
    Protected,
    Refused,
    UsageError,
    WouldOverwrite,
)
from ckptvcs.porcelain import refs
from ckptvcs.porcelain.commit import Receipt
from ckptvcs.porcelain.repo import Repository
from tests.support.world import World

# ----------------------------------------------------------------------------------------------------------- branches


def test_branches_are_those_of_git_with_their_checkpoints(repository: Repository, world: World, history):
    world.git("branch", "exp", "HEAD~1")
    world.git("branch", "before", "HEAD~3")

    found = refs.branches(repository)

    assert [(ref.name, ref.commit, ref.current) for ref in found] == [
        ("before", world.git("rev-parse", "before"), False),
        ("exp", history[1].commit, False),
        ("main", history[2].commit, True),
    ]
    assert [ref.checkpoint.id if ref.checkpoint else None for ref in found] == [None, history[1].id, history[2].id]


@pytest.mark.parametrize(("revision", "step"), [("HEAD", 3), ("HEAD~2", 1), ("main@step:2", 2), ("@best", 3)])
def test_a_branch_is_made_at_a_revision_and_head_stays(repo: Repo, world: World, history, revision: str, step: int):
    commit = repo.branch("exp", revision)

    assert world.git("rev-parse", "exp") == commit == history[step - 1].commit
    assert world.git("symbolic-ref", "HEAD") == "refs/heads/main"
    assert world.git("status", "--porcelain") == ""


def test_a_branch_is_not_made_twice(repo: Repo, world: World, history):
    repo.branch("exp")

    with pytest.raises(WouldOverwrite):
        repo.branch("exp", "HEAD~1")

    assert world.git("rev-parse", "exp") == history[2].commit


@pytest.mark.parametrize("name", ["a..b", "-x", "HEAD", "main@latest", "a#1", "a b", "", "\x1b[31m", "refs/../x"])
def test_a_name_that_is_none_makes_no_branch(repo: Repo, world: World, history, name: str):
    with pytest.raises(UsageError):
        repo.branch(name)

    assert world.git("branch", "--format=%(refname:short)") == "main"


@pytest.mark.parametrize("revision", ["missing", "HEAD~9", "missing@best", "main@step:77"])
def test_a_revision_that_there_is_not_makes_no_branch(repo: Repo, world: World, history, revision: str):
    with pytest.raises(NotFound):
        repo.branch("exp", revision)

    assert world.git("branch", "--format=%(refname:short)") == "main"


@pytest.mark.parametrize("name", ["main/x", "team"])
def test_a_branch_cannot_be_a_folder_of_branches_too(repo: Repo, world: World, history, name: str):
    repo.branch("team/a")

    with pytest.raises(CkptvcsError):
        repo.branch(name)

    assert world.git("branch", "--format=%(refname:short)").split() == ["main", "team/a"]


def test_a_branch_whose_commits_others_reach_is_deleted(repository: Repository, world: World, history):
    world.git("branch", "exp", "HEAD~1")

    assert refs.delete_branch(repository, "exp") == history[1].commit

    assert world.git("branch", "--format=%(refname:short)") == "main"
    assert world.git("fsck", "--strict", "--no-dangling") == ""


@pytest.mark.parametrize("packed", [True, False])
def test_a_branch_that_is_the_last_name_of_a_checkpoint_stays(
    repo: Repo, repository: Repository, world: World, history, state, *, packed: bool
):
    repo.commit(state(9), branch="exp")
    if packed:
        world.git("pack-refs", "--all")

    with pytest.raises(Refused, match="last checkpoint"):
        refs.delete_branch(repository, "exp")
    world.git("tag", "keep", "exp")
    refs.delete_branch(repository, "exp")

    assert world.git("branch", "--format=%(refname:short)") == "main"


def test_a_branch_that_is_checked_out_somewhere_stays(repository: Repository, world: World, history, tmp_path: Path):
    world.git("worktree", "add", "-q", "-b", "other", str(tmp_path / "linked"))

    for name in ("main", "other"):
        with pytest.raises(Refused, match="checked out"):
            refs.delete_branch(repository, name)


def test_a_remote_branch_is_no_reason_to_let_go_of_ours(repo: Repo, repository: Repository, world: World, state):
    repo.commit(state(9), branch="exp")
    world.git("update-ref", "refs/remotes/origin/exp", "exp")

    with pytest.raises(Refused):
        refs.delete_branch(repository, "exp")


@pytest.mark.parametrize("name", ["missing", "", "a..b", "HEAD", "\x1b"])
def test_a_branch_that_there_is_not_cannot_be_deleted(repository: Repository, history, name: str):
    with pytest.raises(NotFound):
        refs.delete_branch(repository, name)


# --------------------------------------------------------------------------------------------------------------- tags


def test_tags_are_those_of_git_with_their_marks(repo: Repo, repository: Repository, world: World, history):
    repo.tag("light", "HEAD~1")
    repo.tag("base", golden=True)
    repo.tag("epoch-1", "HEAD~2", milestone=True, message="first")
    world.git("tag", "blob", "HEAD:ckpt.yaml")

    found = {ref.name: ref for ref in refs.tags(repository)}

    assert {name: ref.mark for name, ref in found.items()} == {
        "light": None,
        "golden/base": "golden",
        "milestone/epoch-1": "milestone",
    }
    assert found["light"].message is None
    assert found["milestone/epoch-1"].message.rstrip() == "first"
    assert found["golden/base"].checkpoint.id == history[2].id


@pytest.mark.parametrize(
    ("options", "kind", "name"),
    [
        ({}, "commit", "v1"),
        ({"message": "words"}, "tag", "v1"),
        ({"golden": True}, "tag", "golden/v1"),
        ({"milestone": True}, "tag", "milestone/v1"),
    ],
)
def test_marks_and_messages_make_annotated_tags(repo: Repo, world: World, history, options, kind: str, name: str):
    assert repo.tag("v1", "HEAD~1", **options) == name

    assert world.git("cat-file", "-t", f"refs/tags/{name}") == kind
    assert world.git("rev-parse", f"{name}^{{commit}}") == history[1].commit
    assert world.git("fsck", "--strict", "--no-dangling") == ""


def test_a_mark_says_which_checkpoint_it_marks(repo: Repo, world: World, history: list[Receipt]):
    repo.tag("base", golden=True)

    assert world.git("for-each-ref", "--format=%(contents)", "refs/tags/golden/base").strip() == (
        f"golden: checkpoint {history[2].id}"
    )
    assert world.git("for-each-ref", "--format=%(taggername) %(taggeremail)", "refs/tags") == "Test <test@example.com>"


@pytest.mark.parametrize("name", ["base", "golden/base"])
def test_a_mark_may_be_written_with_its_folder(repo: Repo, history, name: str):
    assert repo.tag(name, golden=True) == "golden/base"


def test_a_tag_is_not_golden_and_a_milestone(repo: Repo, history):
    with pytest.raises(UsageError, match="not both"):
        repo.tag("x", golden=True, milestone=True)


@pytest.mark.parametrize(
    ("options", "error"), [({"golden": True}, Protected), ({"milestone": True}, WouldOverwrite), ({}, WouldOverwrite)]
)
def test_a_tag_does_not_move(repo: Repo, world: World, history, options, error: type[Exception]):
    name = repo.tag("base", "HEAD~1", **options)
    before = world.git("rev-parse", f"refs/tags/{name}")

    assert repo.tag("base", "HEAD~1", **options) == name
    with pytest.raises(error):
        repo.tag("base", "HEAD", **options)

    assert world.git("rev-parse", f"refs/tags/{name}") == before


def test_a_golden_mark_is_not_deleted(repo: Repo, repository: Repository, world: World, history):
    repo.tag("base", golden=True)

    with pytest.raises(Protected, match="immutable"):
        refs.delete_tag(repository, "golden/base")

    assert world.git("tag") == "golden/base"


@pytest.mark.parametrize("name", ["v1", "milestone/a"])
@pytest.mark.parametrize("packed", [True, False])
def test_another_tag_is_deleted(repo: Repo, repository: Repository, world: World, history, name: str, *, packed: bool):
    repo.tag(name, "HEAD~1")
    if packed:
        world.git("pack-refs", "--all")

    assert refs.delete_tag(repository, name) == history[1].commit

    assert world.git("tag") == ""


def test_a_tag_that_is_the_last_name_of_a_checkpoint_stays(repo: Repo, repository: Repository, world: World, state):
    repo.commit(state(1), branch="exp")
    repo.tag("keep", "exp")
    world.git("branch", "-qD", "exp")

    with pytest.raises(Refused, match="last name"):
        refs.delete_tag(repository, "keep")

    assert world.git("tag") == "keep"


@pytest.mark.parametrize("name", ["missing", "", "a..b", "\x1b"])
def test_a_tag_that_there_is_not_cannot_be_deleted(repository: Repository, history, name: str):
    with pytest.raises(NotFound):
        refs.delete_tag(repository, name)


@pytest.mark.parametrize("options", [{"golden": True}, {"milestone": True}])
def test_a_commit_without_a_checkpoint_is_not_marked(repo: Repo, world: World, history, options):
    with pytest.raises(NotFound, match="holds no checkpoint"):
        repo.tag("base", "HEAD~3", **options)

    assert repo.tag("plain", "HEAD~3") == "plain"
    assert world.git("tag") == "plain"


@pytest.mark.parametrize("name", ["a..b", "-x", "a@b", "model#prod#1", "a b", "", "x.lock", "\x1b[31m"])
def test_a_name_that_is_none_makes_no_tag(repo: Repo, world: World, history, name: str):
    with pytest.raises(UsageError):
        repo.tag(name)

    assert world.git("tag") == ""


def test_a_lightweight_tag_in_the_place_of_a_mark_is_not_taken_for_one(repo: Repo, world: World, history):
    world.git("tag", "golden/base")

    try:
        repo.tag("base", golden=True)
    except CkptvcsError:
        return

    assert world.git("cat-file", "-t", "refs/tags/golden/base") == "tag"


def test_who_is_nobody_to_git_makes_no_annotated_tag(world: World, history):
    (Path(os.environ["HOME"]) / ".gitconfig").unlink()

    with world.repo() as repo:
        with pytest.raises(UsageError, match="who you are"):
            repo.tag("base", golden=True)
        repo.tag("light")

    assert world.git("tag") == "light"


# ------------------------------------------------------------------------------------------------------------ dry runs


@pytest.mark.parametrize(
    "act",
    [
        lambda r: refs.create_branch(r, "new", "HEAD~1", dry_run=True),
        lambda r: refs.delete_branch(r, "exp", dry_run=True),
        lambda r: refs.create_tag(r, "new", dry_run=True),
        lambda r: refs.create_tag(r, "golden/new", dry_run=True),
        lambda r: refs.delete_tag(r, "old", dry_run=True),
    ],
    ids=["make a branch", "delete a branch", "make a tag", "make a mark", "delete a tag"],
)
def test_a_dry_run_changes_nothing(repository: Repository, world: World, history, everything, act):
    world.git("branch", "exp", "HEAD~1")
    world.git("tag", "old", "HEAD~1")
    before = everything(world)

    act(repository)

    assert everything(world) == before


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (lambda r: refs.create_branch(r, "main", dry_run=True), WouldOverwrite),
        (lambda r: refs.delete_branch(r, "main", dry_run=True), Refused),
        (lambda r: refs.create_tag(r, "old", "HEAD~1", dry_run=True), WouldOverwrite),
        (lambda r: refs.delete_tag(r, "missing", dry_run=True), NotFound),
    ],
)
def test_a_dry_run_refuses_what_the_real_one_would(repository: Repository, world: World, history, act, error):
    world.git("tag", "old")

    with pytest.raises(error):
        act(repository)


def test_a_repository_that_another_process_holds_gets_no_names(repository: Repository, world: World, history, python):
    hold = "import fcntl, sys\nf = open(sys.argv[1], 'a')\nfcntl.flock(f, fcntl.LOCK_EX)\nprint('ready', flush=True)\ninput()"
    python(hold, world.root / ".git/ckptvcs/lock")

    for act in (refs.create_branch, refs.create_tag):
        with pytest.raises(LockHeld):
            act(repository, "new")

    assert world.git("for-each-ref", "--format=%(refname)") == "refs/heads/main"


@pytest.mark.parametrize("verb", ["branch", "tag", "init"])
def test_what_a_killed_commit_left_is_finished_first(repo: Repo, world: World, state, verb: str):
    """A kill after the branch moved and before index and pointers followed, as the note under the lock tells it."""
    repo.commit(state(1))
    followed = [".git/index", "checkpoints/model.dvc", "checkpoints/model.json"]
    before = {path: (world.root / path).read_bytes() for path in followed}
    repo.commit(state(2))
    for path, data in before.items():
        (world.root / path).write_bytes(data)
    note = {"ref": "refs/heads/main", "commit": world.git("rev-parse", "HEAD"), "track": "model"}
    (world.root / ".git/ckptvcs/lock").write_text(json.dumps({"follow": note}))
    assert world.git("status", "--porcelain") != ""

    if verb == "init":
        (world.root / "ckpt.yaml").unlink()  # so that there is something to complete
        Repo.init(world.root).close()
    else:
        getattr(repo, verb)("x")

    assert world.git("status", "--porcelain") == ""
