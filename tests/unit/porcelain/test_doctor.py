"""`doctor`: it finds what is wrong, says what to do, and changes nothing; what it says to do helps."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import torch

from ckptvcs import Repo
from ckptvcs.porcelain.doctor import Finding, examine
from tests.support import oracle
from tests.support.places import Place
from tests.support.states import training_state
from tests.support.world import World


def relevant(start: Path) -> list[Finding]:
    """What is found, apart from a disk that is nearly full, which is not for a test to decide."""
    return [finding for finding in examine(start) if "are free on the disk" not in finding.what]


def only(start: Path) -> Finding:
    (finding,) = relevant(start)
    assert finding.why
    assert finding.next_step
    return finding


def test_a_healthy_repository_has_no_findings(world: World, history):
    assert relevant(world.root) == []
    assert relevant(world.root / "checkpoints/model") == []


def test_looking_changes_nothing(world: World, history, everything, artifact: Path):
    shutil.rmtree(world.cache)
    (world.root / ".git/index.lock").touch()
    before = everything(world)

    examine(world.root)

    assert everything(world) == before


# --------------------------------------------------------------------------------------------------------- repository


@pytest.mark.parametrize(
    "make", [[], ["git", "init", "-q"], ["git", "init", "-q", "--bare"]], ids=["none", "git", "bare"]
)
def test_where_there_is_no_repository_it_says_how_to_make_one(tmp_path: Path, make: list[str]):
    (tmp_path / "place").mkdir()
    if make:
        subprocess.run([*make, tmp_path / "place"], check=True)

    (finding,) = relevant(tmp_path / "place")

    assert str(tmp_path / "place") in finding.what
    assert finding.next_step


def test_who_is_nobody_to_git_is_told_to_say_it(world: World, history):
    (Path(os.environ["HOME"]) / ".gitconfig").unlink()

    assert "git config --global user.name" in only(world.root).next_step


@pytest.mark.parametrize("text", ["version: 2\n", "colour: red\n", "{", "best: loss\n"])
def test_a_configuration_that_is_wrong_is_named(world: World, history, text: str):
    (world.root / "ckpt.yaml").write_text(text)

    assert all("ckpt.yaml" in finding.what for finding in relevant(world.root))
    assert relevant(world.root)


def test_one_mistake_does_not_hide_the_others(world: World, history):
    (Path(os.environ["HOME"]) / ".gitconfig").unlink()
    (world.root / ".dvcignore").write_text("*.json\n")
    shutil.rmtree(world.cache)

    whats = " ".join(finding.what for finding in relevant(world.root))

    assert all(part in whats for part in ("who you are", ".dvcignore", "cannot be restored here"))


def test_a_shallow_clone_is_told_how_to_get_the_rest(world: World, history, tmp_path: Path, git):
    git("clone", "-q", "--depth", "1", f"file://{world.root}", str(tmp_path / "shallow"))
    shutil.copytree(world.root / ".dvc/cache", tmp_path / "shallow/.dvc/cache")

    finding = only(tmp_path / "shallow")

    assert "shallow" in finding.what
    subprocess.run(shlex.split(finding.next_step), cwd=tmp_path / "shallow", check=True, capture_output=True)
    assert relevant(tmp_path / "shallow") == []


# ---------------------------------------------------------------------------------------------------------------- dvc


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("[core]\n    hardlink_lock = true\n", "hardlink_lock"),
        ("['remote \"r\"']\n    url = /x\n    version_aware = true\n", "remote 'r' is version_aware"),
        ("['remote \"r\"']\n    url = /x\n    worktree = true\n", "remote 'r' is worktree"),
        ("[cache\n", ".dvc/config"),
    ],
)
def test_a_setting_of_dvc_that_does_harm_is_named(world: World, history, config: str, words: str):
    (world.root / ".dvc/config").write_text(config)

    assert any(words in finding.what for finding in relevant(world.root))


def test_a_remote_that_dvc_does_not_know_is_named(world: World, history):
    (world.root / "ckpt.yaml").write_text("remote: store\n")

    assert "remote 'store'" in only(world.root).what

    world.dvc("remote", "add", "-q", "store", "/data/store")
    assert relevant(world.root) == []


def test_files_that_dvc_would_not_see_are_named_with_what_helps(world: World, history):
    (world.root / ".dvcignore").write_text("*.json\n")

    finding = next(f for f in relevant(world.root) if "tree.json" in f.what)
    line = finding.next_step.partition("add '")[2].partition("'")[0]
    (world.root / ".dvcignore").write_text(f"*.json\n{line}\n")

    assert relevant(world.root) == []


def test_hard_links_for_root_are_warned_about(world: World, history):
    (world.root / "ckpt.yaml").write_text("checkout: {link: hardlink}\n")

    whats = [finding.what for finding in relevant(world.root)]

    assert any("root" in what for what in whats) == (os.geteuid() == 0)


# ------------------------------------------------------------------------------------------------------------ objects


def test_objects_that_are_gone_are_counted(world: World, history, objects_of):
    gone = list(objects_of(history[-1]).values())[:2]
    for path in gone:
        path.unlink()

    finding = only(world.root)

    assert history[-1].id[:10] in finding.what
    assert finding.why.startswith("2 of their objects are not in the cache, 0 are damaged")


def test_objects_of_the_wrong_size_are_found_and_the_advice_removes_them(world: World, history, objects_of):
    path = objects_of(history[-1])["model/tree.json"]
    path.chmod(0o644)
    path.write_bytes(b"short")

    finding = only(world.root)

    assert finding.why.endswith("1 are damaged")
    assert str(path) in finding.next_step


def test_older_checkpoints_whose_objects_are_gone_are_named(world: World, history, objects_of):
    others = set(objects_of(history[-1]).values())
    for path in set(objects_of(history[0]).values()) - others:
        path.unlink()

    finding = only(world.root)

    assert history[0].id[:10] in finding.what
    assert history[-1].id[:10] not in finding.what


def test_an_object_that_changed_since_it_was_verified_is_read_again(
    world: World, repo: Repo, history, objects_of, flip
):
    repo.load("HEAD")["model"]
    path = objects_of(history[-1])["model/tree.json"]
    flip(path)
    os.utime(path)

    assert only(world.root).why.endswith("1 are damaged")


def test_pointers_in_conflict_are_told_and_the_advice_ends_it(world: World, history):
    world.git("checkout", "-q", "-b", "other", "main~1")
    with world.repo() as repo:
        repo.commit({"model": {"w": torch.ones(2)}}, step=9)
    world.git("merge", "main", status=1)

    finding = next(f for f in relevant(world.root) if "conflict" in f.what)
    world.ckpt("commit", "checkpoints/model", status=50)
    subprocess.run(finding.next_step.partition(" (")[0], shell=True, cwd=world.root, check=True, capture_output=True)
    world.git("commit", "-qm", "merged")

    assert relevant(world.root) == []


def test_damaged_objects_that_were_put_aside_are_told(repo: Repo, world: World, state, flip):
    repo.commit(state(1))
    for path in world.objects().values():
        flip(path)
    repo.commit(state(1))

    assert "damaged objects were put aside" in only(world.root).what


def test_a_pointer_and_a_manifest_that_do_not_fit_are_told(world: World, history):
    path = world.root / "checkpoints/model.json"
    path.write_text(path.read_text().replace('"step": 3', '"step": 4'))
    world.git("commit", "-qam", "edited")

    assert "do not belong together" in only(world.root).what


def test_a_manifest_of_a_later_version_is_told(world: World, history):
    path = world.root / "checkpoints/model.json"
    path.write_text(path.read_text().replace("ckptvcs/1", "ckptvcs/2"))
    world.git("commit", "-qam", "by a later version")

    assert "upgrade" in only(world.root).next_step


# ----------------------------------------------------------------------------------------------------- what dead ones left

LOCKS = ["index.lock", "HEAD.lock", "packed-refs.lock", "refs/heads/main.lock", "refs/heads/team/exp.lock"]


@pytest.mark.parametrize("name", LOCKS)
def test_an_old_lock_of_git_is_named_and_the_advice_removes_it(world: World, history, name: str):
    lock = world.root / ".git" / name
    lock.parent.mkdir(exist_ok=True)
    lock.touch()
    os.utime(lock, (time.time() - 700,) * 2)

    finding = only(world.root)

    assert str(lock) in finding.what
    subprocess.run(finding.next_step.partition("then: ")[2], shell=True, check=True)
    assert relevant(world.root) == []


@pytest.mark.parametrize("name", LOCKS)
def test_a_young_lock_of_git_belongs_to_somebody(world: World, history, name: str):
    lock = world.root / ".git" / name
    lock.parent.mkdir(exist_ok=True)
    lock.touch()

    assert relevant(world.root) == []


def test_locks_of_a_linked_worktree_are_found_there(world: World, history, tmp_path: Path):
    world.git("worktree", "add", "-q", "-b", "other", str(tmp_path / "linked"))
    shutil.copytree(world.root / ".dvc/cache", tmp_path / "linked/.dvc/cache")
    lock = world.root / ".git/worktrees/linked/index.lock"
    lock.touch()
    os.utime(lock, (1, 1))

    assert str(lock) in only(tmp_path / "linked").what


def test_a_cache_that_is_a_file_is_told(world: World, history):
    shutil.rmtree(world.root / ".dvc/cache")
    (world.root / ".dvc/cache").write_text("no folder")

    assert relevant(world.root)


def test_what_a_clone_has_not_fetched_is_not_lost(tmp_path: Path):
    place = Place.create(tmp_path / "place")
    place.world.ckpt("remote", "add", "share", "../store")
    place.world.git("commit", "-qam", "a remote")
    for step in (1, 2):
        with place.world.repo() as repo:
            repo.commit(training_state(step, width=16), step=step)
    place.world.ckpt("push")
    clone = place.make_clone()
    clone.ckpt("pull")

    assert "cannot be restored" not in clone.ckpt("doctor", status=None).out

    older = {f["md5"] for f in oracle.files(json.loads(oracle.git(clone.root, "show", "HEAD~:checkpoints/model.json")))}
    (lost, *_) = sorted(older - set(clone.objects()))
    (place.folder / "store/files/md5" / lost[:2] / lost[2:]).unlink()
    told = clone.ckpt("doctor", status=None)
    assert "1 of 2 checkpoints cannot be restored here" in told.out + told.err
    assert "1 of their objects are not in the cache" in told.out + told.err

    (place.folder / "store").rename(place.folder / "unmounted")
    told = clone.ckpt("doctor", status=None)
    assert "cannot be restored here" in told.out + told.err or "remote 'share'" in told.out + told.err
