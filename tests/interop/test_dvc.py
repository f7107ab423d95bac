"""The real `dvc` accepts what we write, in every command that a user of DVC types, and gives it to others."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.states import training_state
from tests.support.world import World, run


@pytest.fixture
def committed(world: World, tmp_path: Path) -> World:
    """A repository with two checkpoints and a remote."""
    world.dvc("remote", "add", "-d", "store", str(tmp_path / "store"))
    world.git("commit", "-qam", "a remote")
    with world.repo() as repo:
        repo.commit(training_state(1, width=64), step=1)
        repo.commit(training_state(2, width=64), step=2)
    return world


def test_init_writes_what_dvc_init_writes(world: World, tmp_path: Path, git):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    git("init", "-q", cwd=theirs)
    World(theirs).dvc("init", "-q")

    for name in (".dvc/config", ".dvc/.gitignore", ".dvcignore"):
        assert (world.root / name).read_bytes() == (theirs / name).read_bytes()


def test_init_writes_a_remote_as_dvc_does(tmp_path: Path, git):
    ours, theirs = World.create(tmp_path / "ours"), World.create(tmp_path / "theirs")

    ours.ckpt("init", "--remote", "s3://bucket/path")
    theirs.dvc("remote", "add", "-q", "-d", "checkpoints", "s3://bucket/path")

    assert sorted((ours.root / ".dvc/config").read_text().split("[")) == sorted(
        (theirs.root / ".dvc/config").read_text().split("[")
    )
    assert "s3://bucket/path" in ours.dvc("remote", "list").out
    assert ours.git("status", "--porcelain") == ""


def test_status_is_clean_and_add_changes_no_byte(committed: World):
    pointer = (committed.root / "checkpoints/model.dvc").read_bytes()

    assert "up to date" in committed.dvc("status").out
    assert "No changes" in committed.dvc("data", "status").out
    committed.dvc("add", "-q", "checkpoints/model")

    assert (committed.root / "checkpoints/model.dvc").read_bytes() == pointer
    assert committed.git("status", "--porcelain") == ""


def test_dvc_add_of_the_same_files_makes_the_same_objects(committed: World, tmp_path: Path, git):
    theirs = World(tmp_path / "theirs")
    theirs.root.mkdir()
    git("init", "-q", cwd=theirs.root)
    theirs.dvc("init", "-q")
    (theirs.root / "checkpoints").mkdir()
    run(["cp", "-r", str(committed.root / "checkpoints/model"), "checkpoints/model"], theirs.root)

    theirs.dvc("add", "-q", "checkpoints/model")

    ours = committed.objects()
    for name, path in theirs.objects().items():
        assert ours[name].read_bytes() == path.read_bytes()


def test_every_object_has_the_name_and_the_mode_that_dvc_trusts(committed: World):
    for name, path in committed.objects().items():
        assert hashlib.md5(path.read_bytes()).hexdigest() == name.removesuffix(".dir")
        assert stat.S_IMODE(path.stat().st_mode) == 0o444


def test_push_clone_and_pull_give_the_same_files(committed: World, tmp_path: Path):
    committed.dvc("push", "-q")

    clone = committed.clone(tmp_path / "clone")
    clone.dvc("pull", "-q")

    assert "up to date" in clone.dvc("status").out
    ours, theirs = (world.root / "checkpoints/model" for world in (committed, clone))
    files = sorted(p.relative_to(ours) for p in ours.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(theirs) for p in theirs.rglob("*") if p.is_file())
    assert all((ours / f).read_bytes() == (theirs / f).read_bytes() for f in files)


def test_a_clone_with_nothing_but_dvc_loads_the_weights(committed: World, tmp_path: Path):
    committed.dvc("push", "-q")
    clone = committed.clone(tmp_path / "clone")
    clone.dvc("pull", "-q")

    folder = clone.root / "checkpoints/model/model"
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    loaded: dict[str, torch.Tensor] = {}
    for shard in set(index["weight_map"].values()):
        loaded |= load_file(folder / shard)

    expected = training_state(2, width=64)["model"]
    assert set(loaded) == set(expected) == set(index["weight_map"])
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_our_clone_reads_what_dvc_pulled(committed: World, tmp_path: Path):
    committed.dvc("push", "-q")
    clone = committed.clone(tmp_path / "clone")
    clone.dvc("pull", "-q")

    with clone.repo() as repo:
        state = repo.load("HEAD")

    assert torch.equal(state["model"]["0.weight"], training_state(2, width=64)["model"]["0.weight"])


def test_dvc_checkout_follows_git_checkout(committed: World):
    committed.git("checkout", "-q", "HEAD~1")
    committed.dvc("checkout", "-q")

    assert "up to date" in committed.dvc("status").out
    assert committed.ckpt("status", "--json").json["tracks"]["model"]["workspace"] == "clean"


def test_dvc_gc_keeps_what_its_scope_names(committed: World):
    before = set(committed.objects())

    committed.dvc("gc", "-A", "-f", "-q")
    assert set(committed.objects()) == before

    committed.dvc("gc", "-w", "-f", "-q")
    assert set(committed.objects()) < before
    assert "up to date" in committed.dvc("status").out
    with committed.repo() as repo:
        assert repo.load("HEAD")["step"] == 2


def test_dvc_goes_through_all_commits_past_the_ledger(committed: World):
    committed.ckpt("note", "HEAD", "--metric", "acc=1")
    before = set(committed.objects())

    committed.dvc("gc", "-A", "-f", "-q")

    assert set(committed.objects()) == before
    assert committed.ckpt("show", "--json").json["metrics"]["acc"] == 1


def test_a_save_after_dvc_gc_writes_again_what_gc_took(committed: World):
    with committed.repo() as repo:
        repo.checkout("HEAD~1", new_branch="other")
        committed.dvc("gc", "-w", "-f", "-q")
        repo.commit(training_state(2, width=64), step=3)

        assert torch.equal(repo.load("HEAD")["model"]["0.weight"], training_state(2, width=64)["model"]["0.weight"])


def test_dvc_diff_names_what_changed(committed: World):
    changed = json.loads(committed.dvc("diff", "HEAD~1", "--json").out)

    assert any("tree.json" in entry["path"] for entry in changed["modified"])


def test_a_dedicated_remote_is_where_plain_dvc_pushes(world: World, tmp_path: Path):
    world.dvc("remote", "add", "-d", "data", str(tmp_path / "data"))
    world.dvc("remote", "add", "ckpts", str(tmp_path / "ckpts"))
    (world.root / "ckpt.yaml").write_text("version: 1\nremote: ckpts\n")
    with world.repo() as repo:
        repo.commit(training_state(1), step=1)

    world.dvc("push", "-q")

    assert list((tmp_path / "ckpts/files/md5").rglob("*.dir"))
    assert not (tmp_path / "data").exists()
    world.dvc("add", "-q", "checkpoints/model")
    assert "checkpoints" not in world.git("status", "--porcelain")


def test_several_tracks_live_side_by_side(world: World):
    with world.repo() as repo:
        repo.commit(training_state(1), track="teacher", step=1)
        repo.commit(training_state(2), track="student", step=2)

    assert "up to date" in world.dvc("status").out
    assert sorted(p.name for p in (world.root / "checkpoints").glob("*.dvc")) == ["student.dvc", "teacher.dvc"]
    assert (world.root / "checkpoints/.gitignore").read_text().split() == ["/teacher", "/student"]


def test_a_dvc_project_in_a_subfolder_is_served(tmp_path: Path, git):
    git("init", "-q")
    project = World(tmp_path / "ml")
    project.root.mkdir()
    project.dvc("init", "--subdir", "-q")
    git("add", "-A", cwd=tmp_path)
    git("commit", "-qm", "a sub-project", cwd=tmp_path)

    with project.repo() as repo:
        repo.commit(training_state(1), step=1)

    assert "up to date" in project.dvc("status").out
    assert "ml/checkpoints/model.dvc" in git("ls-files")
