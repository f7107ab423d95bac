"""`log`: every checkpoint once, newest first, as git's history has them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from blake3 import blake3

from ckptvcs import Repo
from ckptvcs.errors import IntegrityError, NewerVersion, NotFound, StorageError
from ckptvcs.porcelain import log
from ckptvcs.porcelain.commit import Receipt
from ckptvcs.porcelain.repo import Repository
from tests.support.world import World


def steps(repo: Repo, revision: str = "HEAD", **options) -> list[int]:
    return [checkpoint.manifest.step for checkpoint in repo.log(revision, **options)]


@pytest.fixture
def merged(repo: Repo, world: World, history, state) -> None:
    """A fork of two checkpoints, merged by git beside a third one."""
    repo.checkout("HEAD~1", new_branch="exp")
    for n in (4, 5):
        repo.commit(state(n), step=n)
    repo.checkout("main")
    world.git("merge", "-q", "-s", "ours", "-m", "merge", "exp")


def test_checkpoints_come_newest_first(repo: Repo, history: list[Receipt]):
    assert [checkpoint.id for checkpoint in repo.log()] == [receipt.id for receipt in reversed(history)]


def test_what_is_told_of_a_checkpoint_is_what_git_tells(repo: Repo, world: World, history: list[Receipt]):
    newest = repo.log()[0]

    told = world.git("log", "-1", "--format=%H|%s|%an|%cI")
    assert f"{newest.commit}|{newest.subject}|{newest.author}|{newest.time.isoformat()}" == told
    assert newest.manifest == history[-1].manifest


@pytest.mark.parametrize(("revision", "expected"), [("HEAD~1", [2, 1]), ("main@step:1", [1]), ("HEAD~3", [])])
def test_a_log_begins_where_it_is_told_to(repo: Repo, history, revision: str, expected: list[int]):
    assert steps(repo, revision) == expected


@pytest.mark.parametrize(
    ("limit", "expected", "more"),
    [(None, [3, 2, 1], False), (3, [3, 2, 1], False), (2, [3, 2], True), (1, [3], True), (0, [], True)],
)
def test_a_limit_says_whether_there_is_more(repository: Repository, history, limit, expected, more):
    found = log.log(repository, [repository.history.head()], limit=limit)

    assert [entry.checkpoint.manifest.step for entry in found.entries] == expected
    assert found.more is more


def test_ordinary_commits_are_no_checkpoints(repo: Repo, world: World, history):
    for _ in range(3):
        world.git("commit", "-q", "--allow-empty", "-m", "code")

    assert steps(repo) == [3, 2, 1]


def test_a_merge_shows_every_checkpoint_once(merged: None, repo: Repo):
    assert sorted(steps(repo)) == [1, 2, 3, 4, 5]


def test_a_graph_has_every_child_before_its_parents(merged: None, repository: Repository):
    found = log.log(repository, [repository.history.head()], graph=True)

    seen = [entry.checkpoint.commit for entry in found.entries]
    assert len(seen) == 5
    assert all(seen.index(entry.checkpoint.commit) < seen.index(up) for entry in found.entries for up in entry.above)


def test_lines_lead_to_the_nearest_checkpoints_above(merged: None, repository: Repository, repo: Repo, history, world):
    found = log.log(repository, [repository.history.head()], graph=True)

    by_step = {e.checkpoint.manifest.step: e for e in found.entries}
    above = {
        step: [s for s, e in by_step.items() if e.checkpoint.commit in entry.above] for step, entry in by_step.items()
    }
    assert above == {5: [4], 4: [2], 3: [2], 2: [1], 1: []}


def test_names_stand_beside_their_checkpoints(repo: Repo, repository: Repository, world: World, history):
    repo.tag("base", "HEAD~1", golden=True)
    repo.branch("exp", "HEAD~1")
    repo.branch("also")

    found = log.log(repository, [repository.history.head()])

    assert [entry.names for entry in found.entries] == [("HEAD -> main", "also"), ("exp", "tag: golden/base"), ()]


def test_a_detached_head_is_a_name(repository: Repository, world: World, history):
    world.git("checkout", "-q", "--detach", "HEAD~1")

    found = log.log(repository, [repository.history.head()])

    assert [entry.names for entry in found.entries] == [("HEAD",), ()]


def test_each_track_has_a_log_of_its_own(repo: Repo, history, state):
    repo.commit(state(7), track="teacher", step=7)

    assert steps(repo) == [3, 2, 1]
    assert steps(repo, track="teacher") == [7]
    assert steps(repo, track="nobody") == []


def test_the_same_manifest_again_is_the_same_checkpoint(repo: Repo, world: World, history):
    world.git("revert", "--no-edit", "HEAD")
    world.git("revert", "--no-edit", "HEAD")

    found = repo.log()

    assert {c.id for c in found} == {receipt.id for receipt in history}


def test_a_repository_without_checkpoints_has_an_empty_log(repo: Repo):
    assert repo.log() == []


def test_before_the_first_commit_there_is_nothing_to_begin_at(repo: Repo, world: World, history):
    world.git("checkout", "-q", "--orphan", "fresh")

    with pytest.raises(NotFound):
        repo.log()
    assert steps(repo, "main") == [3, 2, 1]


def test_a_shallow_clone_has_the_log_that_it_has(world: World, history, tmp_path: Path, git):
    git("clone", "-q", "--depth", "2", f"file://{world.root}", str(tmp_path / "shallow"))

    with Repo(tmp_path / "shallow") as shallow:
        assert steps(shallow) == [3, 2]


@pytest.mark.parametrize("revision", ["missing", "HEAD~9", "missing@latest"])
def test_a_revision_that_there_is_not_has_no_log(repo: Repo, history, revision: str):
    with pytest.raises(NotFound):
        repo.log(revision)


def test_a_later_version_in_the_history_is_named(repo: Repo, world: World, history):
    path = world.root / "checkpoints/model.json"
    pointer = world.root / "checkpoints/model.dvc"
    before = blake3(path.read_bytes()).hexdigest()
    document = {**json.loads(path.read_text()), "format": "ckptvcs/7"}
    path.write_text(json.dumps(document, sort_keys=True, indent=1) + "\n")
    pointer.write_text(pointer.read_text().replace(before, blake3(path.read_bytes()).hexdigest()))
    world.git("commit", "-qam", "by a later version")

    with pytest.raises(NewerVersion, match="ckptvcs/7"):
        repo.log()
    assert steps(repo, "HEAD~1") == [3, 2, 1]


@pytest.mark.parametrize(
    ("what", "harm"),
    [
        ("HEAD", "flip"),
        ("HEAD~1", "flip"),
        ("HEAD:checkpoints/model.json", "flip"),
        ("HEAD:checkpoints/model.json", "unlink"),
    ],
)
def test_damage_in_git_is_an_error_and_no_shorter_log(world: World, history, flip, what: str, harm: str):
    name = world.git("rev-parse", what)
    path = world.root / ".git/objects" / name[:2] / name[2:]
    flip(path) if harm == "flip" else path.unlink()

    with world.repo() as repo, pytest.raises((StorageError, IntegrityError)):
        repo.log()


def test_a_tree_that_is_missing_is_an_error_and_no_shorter_log(world: World, history):
    name = world.git("rev-parse", "HEAD~1^{tree}")
    (world.root / ".git/objects" / name[:2] / name[2:]).unlink()
    assert subprocess.run(["git", "fsck"], cwd=world.root, check=False, capture_output=True).returncode

    with world.repo() as repo, pytest.raises((StorageError, IntegrityError)):
        repo.log()


def test_looking_changes_nothing(repo: Repo, world: World, history, everything):
    before = everything(world)

    repo.log()
    repo.log("main@best", limit=1)

    assert everything(world) == before
