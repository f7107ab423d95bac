"""`status`: how workspace and code stand to HEAD; git is the oracle for the code."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from ckptvcs import Repo
from ckptvcs.errors import BadManifest
from ckptvcs.porcelain.commit import Receipt
from ckptvcs.porcelain.status import Status
from tests.support.world import World


def presence(status: Status) -> dict[str, str]:
    return {track.track: track.presence for track in status.tracks}


def test_after_a_commit_all_is_clean(repo: Repo, world: World, history: list[Receipt]):
    status = repo.status()

    assert (status.branch, status.head) == ("main", world.git("rev-parse", "HEAD"))
    assert presence(status) == {"model": "clean"}
    assert status.tracks[0].checkpoint.id == history[-1].id
    assert (status.code.changed, status.code.untracked) == ((), ())


def test_without_checkpoints_there_are_no_tracks(repo: Repo):
    assert repo.status().tracks == ()


def test_before_the_first_commit_there_is_a_branch_and_no_head(repo: Repo, world: World):
    world.git("checkout", "-q", "--orphan", "fresh")

    assert (repo.status().branch, repo.status().head) == ("fresh", None)


def test_a_detached_head_is_no_branch(repo: Repo, world: World, history):
    world.git("checkout", "-q", "--detach")

    assert repo.status().branch is None


def test_code_stands_as_git_says(repo: Repo, user_work, world: World):
    code = repo.status().code

    lines = world.git("status", "--porcelain", "--no-renames").splitlines()
    assert sorted(code.changed) == sorted(line[3:] for line in lines if not line.startswith("??"))
    untracked = sorted(line[3:] for line in lines if line.startswith("??"))
    assert [path for path in sorted(code.untracked) if path not in code.changed] == [
        path for path in untracked if path not in code.changed
    ]


def damage(artifact: Path) -> list[str]:
    path = artifact / "model/tree.json"
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.unlink()
    path.write_bytes(data)
    return ["model/tree.json"]


def damage_in_disguise(artifact: Path) -> list[str]:
    path = artifact / "model/tree.json"
    before = path.stat()
    damage(artifact)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return ["model/tree.json"]


def truncate(artifact: Path) -> list[str]:
    path = artifact / "model/tree.json"
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-1])
    return ["model/tree.json"]


def remove(artifact: Path) -> list[str]:
    (artifact / "model/tree.json").unlink()
    return ["model/tree.json"]


def add(artifact: Path) -> list[str]:
    (artifact / "notes").mkdir()
    (artifact / "notes/mine.txt").write_text("x")
    return ["notes/mine.txt"]


def link(artifact: Path) -> list[str]:
    (artifact / "model/tree.json").rename(artifact.parent / "elsewhere.json")
    (artifact / "model/tree.json").symlink_to(artifact.parent / "elsewhere.json")
    return ["model/tree.json"]


def pipe(artifact: Path) -> list[str]:
    os.mkfifo(artifact / "pipe")
    return ["pipe"]


def folder(artifact: Path) -> list[str]:
    (artifact / "model/tree.json").unlink()
    (artifact / "model/tree.json").mkdir()
    (artifact / "model/tree.json/inner").write_text("x")
    return ["model/tree.json", "model/tree.json/inner"]


@pytest.mark.parametrize("change", [damage, damage_in_disguise, truncate, remove, add, link, pipe, folder])
def test_a_file_that_differs_is_named(repo: Repo, history, artifact: Path, change):
    repo.status()

    expected = change(artifact)

    (track,) = repo.status().tracks
    assert (track.presence, list(track.changed)) == ("changed", expected)


def test_the_same_bytes_in_another_file_are_clean(repo: Repo, history, artifact: Path):
    shutil.copytree(artifact, artifact.parent / "copy")
    shutil.rmtree(artifact)
    (artifact.parent / "copy").rename(artifact)

    assert presence(repo.status()) == {"model": "clean"}


def test_an_artifact_of_an_earlier_checkpoint_is_told_from_work_of_the_user(
    repo: Repo, world: World, history, artifact: Path
):
    repo.restore("HEAD~1")

    (track,) = repo.status().tracks
    assert (track.presence, track.holds.id) == ("earlier", history[-2].id)
    assert f"holds the earlier checkpoint {history[-2].id[:10]}" in world.ckpt("status").out
    (artifact / "mine").write_text("work")
    assert presence(repo.status()) == {"model": "changed"}


@pytest.mark.parametrize("left", ["nothing", "an empty folder"])
def test_an_artifact_that_is_not_there_is_missing(repo: Repo, history, artifact: Path, left: str):
    shutil.rmtree(artifact)
    if left != "nothing":
        artifact.mkdir()

    assert presence(repo.status()) == {"model": "missing"}


def test_each_track_stands_for_itself(repo: Repo, world: World, state):
    repo.commit(state(1), track="teacher")
    repo.commit(state(2), track="student")
    shutil.rmtree(world.root / "checkpoints/teacher")

    assert presence(repo.status()) == {"student": "clean", "teacher": "missing"}


def test_a_manifest_that_was_damaged_by_hand_is_an_error(repo: Repo, world: World, history):
    (world.root / "checkpoints/model.json").write_text("{}")
    world.git("commit", "-qam", "damaged")

    with pytest.raises(BadManifest):
        repo.status()


def test_looking_changes_nothing(repo: Repo, world: World, history, everything, artifact: Path):
    add(artifact)
    (world.root / "ckpt.yaml").touch()
    before = everything(world)

    repo.status()

    assert everything(world) == before


def test_a_repository_that_may_only_be_read_can_be_looked_at(world: World, history, without_privilege: None):
    folders = [world.root, *(p for p in world.root.rglob("*") if p.is_dir() and not p.is_symlink())]
    for place in folders:
        place.chmod(0o555)

    with world.repo() as repo:
        assert presence(repo.status()) == {"model": "clean"}

    for place in folders:
        place.chmod(0o755)
