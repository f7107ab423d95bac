"""`init`: a folder becomes a repository, what is missing is completed, what is there stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ckptvcs import Repo
from ckptvcs.errors import NoRepository, StorageError, UsageError
from ckptvcs.porcelain.init import execute, plan_init
from tests.support.world import World

FILES = [".dvc/.gitignore", ".dvc/config", ".dvcignore", "ckpt.yaml"]


@pytest.fixture
def folder(tmp_path: Path) -> World:
    """An empty folder."""
    (tmp_path / "new").mkdir()
    return World(tmp_path / "new")


def init(folder: World, **options):
    return execute(plan_init(folder.root, **options))


def test_an_empty_folder_becomes_a_repository_of_git_and_dvc(folder: World):
    receipt = init(folder)

    assert receipt.root == folder.root
    assert sorted(receipt.made) == sorted([".git", *FILES])
    assert folder.git("ls-tree", "-r", "--name-only", "HEAD").split() == FILES
    assert folder.git("log", "--format=%s|%an|%D") == "ckpt: init|Test|HEAD -> main"
    assert folder.git("status", "--porcelain") == ""


def test_the_second_time_changes_nothing(folder: World, snapshot):
    init(folder)
    before = snapshot(folder.root)

    receipt = init(folder)

    assert (receipt.made, receipt.commit) == ((), None)
    assert snapshot(folder.root) == before


def test_a_plan_changes_nothing(folder: World, snapshot):
    plan = plan_init(folder.root, remote="/data/store")

    assert plan.make_git
    assert sorted(plan.make_files) == FILES
    assert snapshot(folder.root) == {}


def test_what_is_missing_is_completed(folder: World):
    init(folder)
    folder.git("rm", "-q", "ckpt.yaml", ".dvcignore")
    folder.git("commit", "-qm", "removed")

    receipt = init(folder)

    assert sorted(receipt.made) == [".dvcignore", "ckpt.yaml"]
    assert folder.git("show", "--format=%s", "--name-only", "HEAD").split() == [
        "ckpt:",
        "init",
        ".dvcignore",
        "ckpt.yaml",
    ]


def test_the_work_of_a_user_of_git_stays_as_it_is(world: World, request: pytest.FixtureRequest):
    world.git("rm", "-q", "ckpt.yaml")
    world.git("commit", "-qm", "before ckptvcs")
    user_work = request.getfixturevalue("user_work")
    before = user_work()

    init(world)

    assert world.git("show", "--format=", "--name-only", "HEAD") == "ckpt.yaml"
    after = user_work()
    assert after[:3] == before[:3]
    assert [line for line in after[3].splitlines() if not line.endswith("ckpt.yaml")] == before[3].splitlines()


def test_the_configuration_of_a_user_of_dvc_stays(folder: World):
    folder.git("init", "-q")
    folder.dvc("init", "-q")
    folder.dvc("remote", "add", "-q", "-d", "mine", "/data/mine")
    before = (folder.root / ".dvc/config").read_bytes()

    init(folder)

    assert (folder.root / ".dvc/config").read_bytes() == before


@pytest.mark.parametrize("start", [".", "sub", "sub/deep"])
def test_from_a_folder_in_it_the_repository_above_is_completed(folder: World, start: str):
    folder.git("init", "-q")
    (folder.root / "sub/deep").mkdir(parents=True)

    receipt = execute(plan_init(folder.root / start))

    assert receipt.root == folder.root
    assert sorted(os.listdir(folder.root)) == [".dvc", ".dvcignore", ".git", "ckpt.yaml", "sub"]


def test_a_dvc_repository_in_a_subfolder_is_the_one_that_is_meant(folder: World):
    folder.git("init", "-q")
    (folder.root / "ml/.dvc").mkdir(parents=True)
    (folder.root / "ml/.dvc/config").touch()

    receipt = execute(plan_init(folder.root / "ml"))

    assert receipt.root == folder.root / "ml"
    assert (folder.root / "ml/ckpt.yaml").exists()
    assert "ml/ckpt.yaml" in folder.git("ls-files")


def test_a_detached_head_gets_the_files_and_no_commit(world: World):
    world.git("rm", "-q", "ckpt.yaml")
    world.git("commit", "-qm", "removed")
    world.git("checkout", "-q", "--detach")
    before = world.git("rev-parse", "HEAD")

    receipt = init(world)

    assert (receipt.made, receipt.commit) == (("ckpt.yaml",), None)
    assert (world.root / "ckpt.yaml").exists()
    assert world.git("rev-parse", "HEAD") == before


def test_a_branch_without_commits_gets_its_first_one(folder: World):
    folder.git("init", "-q", "-b", "trunk")
    (folder.root / "staged.py").write_text("x")
    folder.git("add", "staged.py")

    init(folder)

    assert folder.git("log", "--format=%s", "trunk") == "ckpt: init"
    assert folder.git("status", "--porcelain") == "A  staged.py"


# ------------------------------------------------------------------------------------------------------------ remotes


def remotes(world: World) -> str:
    return world.dvc("remote", "list").out


def test_a_remote_is_added_and_is_the_default_if_there_is_no_other(folder: World):
    init(folder, remote="s3://bucket/path")

    assert remotes(folder).split() == ["checkpoints", "s3://bucket/path", "(default)"]
    assert folder.git("status", "--porcelain") == ""


def test_a_remote_beside_another_is_not_the_default(world: World):
    world.dvc("remote", "add", "-q", "-d", "mine", "/data/mine")
    world.git("commit", "-qam", "mine")

    init(world, remote="/data/store")

    told = [line.split() for line in remotes(world).splitlines()]
    assert told == [["mine", "/data/mine", "(default)"], ["checkpoints", "/data/store"]]


def test_the_same_remote_again_changes_nothing_and_another_replaces_it(world: World, snapshot):
    init(world, remote="/data/one")
    before = snapshot(world.root)

    assert init(world, remote="/data/one").made == ()
    assert snapshot(world.root) == before

    init(world, remote="/data/two")
    assert remotes(world).split()[:2] == ["checkpoints", "/data/two"]


def test_a_relative_remote_is_where_the_user_stands(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (world.root / "sub").mkdir()
    monkeypatch.chdir(world.root / "sub")

    init(world, remote="../../store")

    assert remotes(world).split()[:2] == ["checkpoints", str(tmp_path / "store")]


def test_changes_of_the_user_in_the_configuration_of_dvc_are_not_committed(world: World):
    (world.root / ".dvc/config").write_text("[core]\n    autostage = true\n")

    receipt = init(world, remote="/data/store")

    assert receipt.commit is None
    assert world.git("status", "--porcelain") == " M .dvc/config"
    assert "autostage = true" in (world.root / ".dvc/config").read_text()


@pytest.mark.parametrize("remote", ["", "-x", "--force", "a\nb", "\x1b[31m"])
def test_what_is_no_url_is_refused(folder: World, remote: str):
    with pytest.raises(UsageError, match="is no URL"):
        plan_init(folder.root, remote=remote)


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("name", ["missing", "file", "loop"])
def test_what_is_no_folder_is_refused(tmp_path: Path, name: str):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "loop").symlink_to("loop")

    with pytest.raises(UsageError, match=name):
        plan_init(tmp_path / name)


@pytest.mark.parametrize("options", [["--bare"], ["--object-format=sha256"]])
def test_a_repository_that_cannot_be_used_is_left_alone(folder: World, options: list[str], snapshot):
    folder.git("init", "-q", *options)
    before = snapshot(folder.root)

    with pytest.raises(NoRepository) as caught:
        Repo.init(folder.root)

    assert caught.value.why
    assert snapshot(folder.root) == before


def test_who_is_nobody_to_git_makes_nothing(folder: World, snapshot):
    (Path(os.environ["HOME"]) / ".gitconfig").unlink()

    with pytest.raises(UsageError, match="who you are"):
        Repo.init(folder.root)

    assert snapshot(folder.root) == {}


def test_who_is_known_from_the_environment_alone_can_begin(folder: World, monkeypatch: pytest.MonkeyPatch):
    (Path(os.environ["HOME"]) / ".gitconfig").unlink()
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Robot")
    monkeypatch.setenv("GIT_AUTHOR_EMAIL", "robot@example.com")

    init(folder)

    assert folder.git("log", "--format=%an <%ae>, %cn <%ce>") == ", ".join(["Robot <robot@example.com>"] * 2)


def test_a_folder_that_cannot_be_written_says_so(folder: World, without_privilege: None):
    folder.root.chmod(0o555)

    with pytest.raises(StorageError):
        Repo.init(folder.root)

    assert os.listdir(folder.root) == []
