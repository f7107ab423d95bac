"""`commit`: what goes in comes out, and nothing else is touched."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blake3 import blake3

from ckptvcs import Repo
from ckptvcs.errors import (
    CkptvcsError,
    Conflict,
    FormatError,
    HostileInput,
    LockHeld,
    Refused,
    StorageError,
    TierReadOnly,
    UnsupportedValue,
    UsageError,
)
from ckptvcs.porcelain import commit, incoming
from ckptvcs.porcelain.describe import Options
from ckptvcs.porcelain.repo import Repository
from tests.support import oracle
from tests.support.same import assert_same
from tests.support.world import World


def plan(repository: Repository, state: Any, **options: Any) -> commit.CommitPlan:
    return commit.plan(repository, incoming.from_state(state), Options(run_id=secrets.token_hex(8), **options))


# ------------------------------------------------------------------------------------------------- what is committed


def test_a_state_comes_back_bit_for_bit(repo: Repo, world: World, state):
    receipt = repo.commit(state(7), step=7)

    assert_same(dict(repo.load("HEAD")), state(7))
    assert list(oracle.check(world.root)) == [receipt.commit]


def test_the_commit_writes_three_files_and_the_rest_of_the_tree_stays(repo: Repo, world: World, state):
    repo.commit(state(1))

    changed = world.git("diff", "--name-status", "HEAD~1", "HEAD").split("\n")
    assert changed == ["A\tcheckpoints/.gitignore", "A\tcheckpoints/model.dvc", "A\tcheckpoints/model.json"]
    assert world.git("status", "--porcelain") == ""


def test_the_receipt_says_what_the_repository_says(repo: Repo, world: World, state):
    receipt = repo.commit(state(1), step=5, epoch=1.5, metrics={"loss": 0.25}, params={"lr": 0.1}, reason="best")

    data = subprocess.run(
        ["git", "show", "HEAD:checkpoints/model.json"], cwd=world.root, check=True, capture_output=True
    ).stdout
    manifest = json.loads(data)
    assert receipt.id == blake3(data).hexdigest()
    assert (receipt.commit, receipt.branch) == (world.git("rev-parse", "HEAD"), "main")
    assert (manifest["step"], manifest["epoch"], manifest["reason"]) == (5, 1.5, "best")
    assert (manifest["metrics"], manifest["params"]) == ({"loss": 0.25}, {"lr": 0.1})
    age = datetime.now(timezone.utc) - datetime.fromisoformat(manifest["created"])
    assert 0 <= age.total_seconds() < 60


@pytest.mark.parametrize(
    ("message", "subject"),
    [(None, "ckpt: main step 3 (acc 0.5, loss 0.25)"), ("mine", "mine"), ("mine\n\nbody\n\n", "mine")],
)
def test_the_message_ends_with_the_id(repo: Repo, world: World, state, message: str | None, subject: str):
    receipt = repo.commit(state(1), step=3, metrics={"loss": 0.25, "acc": 0.5}, message=message)

    assert world.git("log", "-1", "--format=%s") == subject
    assert world.git("log", "-1", "--format=%B").rstrip().endswith(f"\n\nCheckpoint: {receipt.id}")


@pytest.mark.parametrize(
    ("parts", "grade"),
    [({"model"}, "weights-only"), ({"model", "optimizer"}, "approximate"), ({"model", "optimizer", "rng"}, "exact")],
)
def test_the_grade_tells_how_well_training_can_go_on(repo: Repo, parts: set[str], grade: str):
    receipt = repo.commit({name: {"x": torch.ones(1)} for name in parts})

    assert receipt.manifest.grade == grade


def test_what_the_user_says_goes_before_what_the_file_says(repo: Repo, tmp_path: Path, state):
    torch.save({**state(3), "epoch": 2}, tmp_path / "x.pt")

    said, unsaid = repo.commit(tmp_path / "x.pt", step=9), repo.commit(tmp_path / "x.pt")

    assert (said.manifest.step, said.manifest.epoch) == (9, 2)
    assert unsaid.manifest.step == 3


def test_a_run_has_one_id_as_long_as_it_has_its_name(repo: Repo, state):
    receipts = [repo.commit(state(n), run=run) for n, run in enumerate(["a", "a", "b", "a"])]

    ids = [receipt.manifest.run.id for receipt in receipts]
    assert ids[0] == ids[1] == ids[3] != ids[2]
    assert [receipt.branch for receipt in receipts] == ["a", "a", "b", "a"]


# ----------------------------------------------------------------------------------------- the same state, or a part of it


def test_the_same_state_twice_is_two_checkpoints_of_the_same_objects(repo: Repo, world: World, state):
    first = repo.commit(state(1))
    before = set(world.objects())

    second = repo.commit(state(1))

    assert first.id != second.id
    assert second.manifest.parents == (first.id,)
    assert set(world.objects()) == before
    assert world.git("rev-list", "--count", "HEAD") == "3"


def test_a_shard_that_did_not_change_costs_nothing(repo: Repo, world: World):
    def grown(n: int) -> dict[str, Any]:
        torch.manual_seed(0)
        frozen = {f"layers.{i}.weight": torch.randn(512, 512) for i in range(4)}
        return {"model": {**frozen, "head.weight": torch.randn(512, 512) + n}}

    first, second = repo.commit(grown(0)), repo.commit(grown(1))

    assert first.new_bytes > 5 << 20
    assert second.new_bytes < 3 << 20
    assert_same(dict(repo.load("HEAD")), grown(1))


def test_an_index_that_lies_is_not_believed(repo: Repo, world: World, state):
    first = repo.commit(state(1))
    for path in world.objects().values():
        path.unlink()
    repo.close()

    with world.repo() as again:
        again.commit(state(1))

    assert set(oracle.check(world.root)) == {first.commit, world.git("rev-parse", "HEAD")}


def test_damage_in_the_cache_is_healed_by_the_next_commit(repo: Repo, world: World, state, flip):
    repo.commit(state(1))
    for path in world.objects().values():
        flip(path)

    repo.commit(state(1))

    assert_same(dict(repo.load("HEAD")), state(1))
    oracle.check(world.root)


def test_a_parent_that_is_damaged_does_not_stop_the_next_commit(repo: Repo, world: World, state, flip):
    repo.commit(state(1))
    for name, path in world.objects().items():
        path.unlink() if name.endswith("0") else flip(path)

    repo.commit(state(2))

    assert_same(dict(repo.load("HEAD")), state(2))


# ------------------------------------------------------------------------------------------------------------ branches


def test_another_branch_leaves_head_index_and_worktree(repo: Repo, world: World, state, everything):
    repo.commit(state(1))
    before = {p: w for p, w in everything(world).items() if not p.startswith((".git/", ".dvc/"))}

    receipt = repo.commit(state(2), branch="exp")

    assert {p: w for p, w in everything(world).items() if not p.startswith((".git/", ".dvc/"))} == before
    assert world.git("status", "--porcelain") == ""
    assert world.git("rev-parse", "exp", "HEAD").split() == [receipt.commit, world.git("rev-parse", "main")]
    assert_same(dict(repo.load("exp")), state(2))


@pytest.mark.parametrize(
    ("options", "branch", "run", "track"),
    [
        ({}, "main", "main", "model"),
        ({"run": "r"}, "r", "r", "model"),
        ({"branch": "b"}, "b", "b", "model"),
        ({"branch": "b", "run": "r"}, "b", "r", "model"),
        ({"track": "teacher"}, "main", "main", "teacher"),
        ({"branch": "b", "run": "r", "track": "t"}, "b", "r", "t"),
    ],
)
def test_branch_run_and_track_are_told_apart(repo: Repo, world: World, state, options, branch, run, track):
    receipt = repo.commit(state(1), **options)

    assert (receipt.branch, receipt.manifest.run.name, receipt.manifest.track) == (branch, run, track)
    assert f"checkpoints/{track}.json" in world.git("ls-tree", "-r", "--name-only", branch).split()


def test_a_detached_head_stays_where_it_is(repo: Repo, world: World, state):
    world.git("checkout", "-q", "--detach")
    before = world.git("rev-parse", "HEAD")

    with pytest.raises(UsageError, match="HEAD is detached"):
        repo.commit(state(1))
    repo.commit(state(1), branch="exp")

    assert world.git("rev-parse", "HEAD", "exp~1").split() == [before, before]
    assert world.git("status", "--porcelain") == ""


def test_a_linked_worktree_is_a_place_of_its_own(repo: Repo, world: World, state, tmp_path: Path):
    repo.commit(state(1))
    world.git("worktree", "add", "-q", "-b", "other", str(tmp_path / "linked"))
    linked = World(tmp_path / "linked")

    with linked.repo() as there:
        receipt = there.commit(state(2))
        assert_same(dict(there.load("HEAD")), state(2))

    assert receipt.branch == "other"
    assert linked.git("status", "--porcelain") == world.git("status", "--porcelain") == ""
    with pytest.raises(Refused):
        repo.commit(state(3), branch="other")


def test_a_repository_with_packed_refs_and_objects_is_no_other(repo: Repo, world: World, state):
    repo.commit(state(1))
    world.git("gc", "-q")

    repo.commit(state(2))
    repo.commit(state(3), branch="exp")

    assert len(oracle.check(world.root)) == 3


def test_a_shallow_clone_goes_on_from_what_it_has(repo: Repo, world: World, state, tmp_path: Path, git):
    for n in (1, 2, 3):
        repo.commit(state(n))
    git("clone", "-q", "--depth", "1", f"file://{world.root}", str(tmp_path / "shallow"))
    shallow = World(tmp_path / "shallow")

    with shallow.repo() as there:
        receipt = there.commit(state(4))
        assert_same(dict(there.load("HEAD")), state(4))

    assert shallow.git("log", "--format=%H").split() == [receipt.commit, world.git("rev-parse", "HEAD")]
    assert receipt.manifest.parents == (repo.show("HEAD").id,)


def test_a_branch_that_cannot_be_made_beside_another_is_refused_before_anything_is_written(
    repo: Repo, world: World, state
):
    repo.commit(state(1))

    with pytest.raises(CkptvcsError):
        repo.commit(state(2), branch="main/exp")

    assert world.git("branch", "--format=%(refname:short)") == "main"
    assert repo.commit(state(3)).branch == "main"


# --------------------------------------------------------------------------------------------------------- the workspace


def test_the_artifact_lies_in_the_workspace_of_the_branch(repo: Repo, world: World, state, artifact: Path):
    repo.commit(state(1))

    assert oracle.workspace_of(world.root, [json.loads((world.root / "checkpoints/model.json").read_text())]) == 0
    assert (artifact / "model/tree.json").exists()


@pytest.mark.parametrize("how", ["option", "configuration"])
def test_the_workspace_stays_empty_if_that_is_asked_for(repo: Repo, world: World, state, artifact: Path, how: str):
    if how == "configuration":
        (world.root / "ckpt.yaml").write_text("checkout: {on_commit: false}\n")

    repo.commit(state(1), **({"workspace": False} if how == "option" else {}))

    assert not artifact.exists()


def test_files_in_the_workspace_that_are_saved_nowhere_stay_there(repo: Repo, world: World, state, artifact: Path):
    repo.commit(state(1))
    (artifact / "notes.txt").write_text("mine")

    receipt = repo.commit(state(2))

    assert (artifact / "notes.txt").read_text() == "mine"
    assert "notes.txt" in receipt.notes[0]
    assert_same(dict(repo.load("HEAD")), state(2))


def test_the_folder_that_was_committed_is_replaced_by_what_it_became(repo: Repo, world: World, state, artifact: Path):
    repo.commit(state(1))
    tree = json.loads((artifact / "model/tree.json").read_text())
    shutil.copytree(artifact, world.root / "copy")

    receipt = repo.commit(world.root / "copy")

    assert receipt.notes == ()
    assert json.loads((artifact / "model/tree.json").read_text()) == tree
    assert_same(dict(repo.load("HEAD")), state(1))


def test_a_file_in_the_place_of_the_artifact_stays(repo: Repo, world: World, state, artifact: Path):
    artifact.parent.mkdir()
    artifact.write_text("precious")

    try:
        repo.commit(state(1))
    except Refused:
        pass

    assert artifact.is_file()


# ------------------------------------------------------------------------------------------------------ the user's work


def test_the_work_of_the_user_stays_as_it_is(repo: Repo, state, user_work):
    before = user_work()

    repo.commit(state(1))
    repo.commit(state(2), branch="exp")

    assert user_work() == before


def test_a_merge_under_way_stays_under_way(repo: Repo, world: World, state):
    for branch, text in (("side", "1"), ("main", "2")):
        world.git("checkout", "-q", "-B", branch)
        (world.root / "a.txt").write_text(text)
        world.git("add", "a.txt")
        world.git("commit", "-qm", text)
        world.git("checkout", "-q", "-B", "main", "HEAD~1") if branch == "side" else None
    world.git("merge", "side", status=1)
    before = world.git("ls-files", "-u"), (world.root / "a.txt").read_text()

    repo.commit(state(1))

    assert (world.git("ls-files", "-u"), (world.root / "a.txt").read_text()) == before
    assert (world.root / ".git/MERGE_HEAD").exists()


@pytest.mark.parametrize("tracked", [True, False])
@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_file_or_link_in_the_place_of_our_folder_is_refused_before_anything_is_committed(
    repo: Repo, world: World, state, tmp_path: Path, kind: str, *, tracked: bool
):
    folder = world.root / "checkpoints"
    folder.write_text("precious") if kind == "file" else folder.symlink_to(tmp_path)
    if tracked:
        world.git("add", "checkpoints")
        world.git("commit", "-qm", "precious")
    before = world.git("rev-parse", "HEAD")

    with pytest.raises((Refused, HostileInput)):
        repo.commit(state(1))

    assert world.git("rev-parse", "HEAD") == before
    assert world.git("status", "--porcelain") == ("" if tracked else "?? checkpoints")


def test_a_tracked_file_in_the_place_of_our_folder_is_not_lost_on_another_branch(repo: Repo, world: World, state):
    (world.root / "checkpoints").write_text("precious")
    world.git("add", "checkpoints")
    world.git("commit", "-qm", "precious")

    try:
        repo.commit(state(1), branch="exp")
    except Refused:
        assert "exp" not in world.git("branch")
    else:
        assert world.git("show", "exp:checkpoints") == "precious"


def test_a_folder_in_the_place_of_our_pointer_is_refused_before_anything_is_committed(repo: Repo, world: World, state):
    (world.root / "checkpoints/model.dvc").mkdir(parents=True)
    before = world.git("rev-parse", "HEAD")

    with pytest.raises(CkptvcsError):
        repo.commit(state(1))

    assert world.git("rev-parse", "HEAD") == before


def test_an_artifact_that_git_tracks_is_refused(repo: Repo, world: World, state, artifact: Path):
    artifact.mkdir(parents=True)
    (artifact / "x").write_text("x")
    world.git("add", "-A")
    world.git("commit", "-qm", "x")

    with pytest.raises(Refused, match="git itself tracks files"):
        repo.commit(state(1))


def test_a_track_inside_an_output_of_dvc_is_refused(repo: Repo, world: World, state):
    (world.root / "all.dvc").write_text(f"outs:\n- md5: {'0' * 32}.dir\n  path: checkpoints\n")
    world.git("add", "-A")
    world.git("commit", "-qm", "an output")

    with pytest.raises(Refused, match="DVC already tracks"):
        repo.commit(state(1))


def test_files_that_dvc_would_not_see_are_refused(repo: Repo, world: World, state):
    (world.root / ".dvcignore").write_text("*.json\n")

    with pytest.raises(Refused, match=r"\.dvcignore hides") as caught:
        repo.commit(state(1))

    (world.root / ".dvcignore").write_text("*.json\n!checkpoints/model/**\n")
    assert "!checkpoints/model/**" in caught.value.next_step
    repo.commit(state(1))


# --------------------------------------------------------------------------------------------------------- bad requests


def refused(repo: Repo, world: World, error: type[Exception], *args: Any, **options: Any) -> CkptvcsError:
    """Commit something that cannot be, and make sure that nothing was."""
    before = world.git("for-each-ref"), world.git("status", "--porcelain")
    with pytest.raises(error) as caught:
        repo.commit(*args, **options)
    assert (world.git("for-each-ref"), world.git("status", "--porcelain")) == before
    return caught.value


def test_a_value_deep_inside_that_cannot_be_represented_is_named(repo: Repo, world: World, state):
    bad = {**state(1), "extra": {"callbacks": [{"fn": [object()]}]}}

    err = refused(repo, world, UnsupportedValue, bad)

    assert "callbacks" in str(err)
    assert "fn" in str(err)


def test_what_only_pickle_can_represent_is_kept_if_that_is_asked_for(repo: Repo, world: World, state):
    bad = {**state(1), "scheduler": {"lr": np.random.default_rng}}

    receipt = repo.commit(bad, allow_pickle=True)

    encodings = {c.name: c.encoding for c in receipt.manifest.components}
    assert encodings == {"model": "tree", "optimizer": "tree", "scheduler": "pickle", "extra": "tree"}
    with pytest.raises(Refused, match="pickle"):
        repo.load("HEAD")["scheduler"]
    assert repo.load("HEAD", allow_pickle=True)["scheduler"] == {"lr": np.random.default_rng}


@pytest.mark.parametrize("path", ["missing.pt", "loop.pt", "empty.pt"])
def test_a_file_that_is_none_is_refused(repo: Repo, world: World, tmp_path: Path, path: str):
    (tmp_path / "loop.pt").symlink_to("loop.pt")
    (tmp_path / "empty.pt").touch()

    err = refused(repo, world, (UsageError, FormatError), tmp_path / path)

    assert path in str(err)


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), "0.3", None, True, [1], torch.tensor(float("nan")), np.float32("inf")]
)
def test_a_metric_that_is_no_finite_number_is_refused(repo: Repo, world: World, state, value: Any):
    assert "loss" in str(refused(repo, world, UsageError, state(1), metrics={"loss": value}))


@pytest.mark.parametrize("value", [torch.ones(2), np.ones(2), torch.ones(0)])
def test_a_metric_of_several_numbers_is_refused(repo: Repo, world: World, state, value: Any):
    refused(repo, world, UsageError, state(1), metrics={"loss": value})


@pytest.mark.parametrize("value", [1, 1.5, -0.0, 5e-324, 10**30, torch.tensor(2.5), np.float32(0.5), np.int64(7)])
def test_a_metric_of_any_kind_of_number_is_kept(repo: Repo, state, value: Any):
    plain = value.item() if hasattr(value, "item") else value

    repo.commit(state(1), metrics={"loss": value})

    kept = repo.show("HEAD").manifest.metrics["loss"]
    assert (type(kept), repr(kept)) == (type(plain), repr(plain))


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"a": {"b": [1, 2.5, None, True, "x"]}}, {"a": {"b": [1, 2.5, None, True, "x"]}}),
        ({"lr": float("nan"), "x": float("-inf")}, {"lr": "nan", "x": "-inf"}),
        ({1: (1, 2), "t": torch.float16}, {"1": [1, 2], "t": "torch.float16"}),
        ({"big": 10**40, "é\n\0": "\u2028"}, {"big": 10**40, "é\n\0": "\u2028"}),
        ({"same": 1, "Same": 2, "": 3}, {"same": 1, "Same": 2, "": 3}),
    ],
)
def test_hyperparameters_are_values_of_json(repo: Repo, state, params: dict[Any, Any], expected: dict[str, Any]):
    repo.commit(state(1), params=params)

    assert repo.show("HEAD").manifest.params == expected


@pytest.mark.parametrize(
    "options",
    [
        {"params": {"x": "\udcff"}},
        {"params": {"\udcff": 1}},
        {"metrics": {"\udcff": 1.0}},
        {"reason": "\udcff"},
        {"message": "\udcff"},
        {"run": "r\udcff", "branch": "main"},
        {"command": ["train.py", "\udcff"]},
        {"step": 2**70},
        {"epoch": 2**70},
        {"params": {"x" * 10_000: "y" * 10_000}},
    ],
    ids=lambda options: repr(options)[:40],
)
def test_whatever_is_committed_can_be_read_again(repo: Repo, state, options: dict[str, Any]):
    receipt = repo.commit(state(1), **options)

    assert repo.show("HEAD").manifest == receipt.manifest
    assert_same(dict(repo.load("HEAD")), state(1))


@pytest.mark.parametrize(
    "options",
    [
        {"step": "10"},
        {"step": 10.5},
        {"step": True},
        {"epoch": "1"},
        {"epoch": True},
        {"epoch": float("nan")},
        {"epoch": float("inf")},
        {"seeds": {"torch": 1.5}},
    ],
    ids=repr,
)
def test_a_value_of_another_kind_is_a_mistake_of_the_caller(repo: Repo, world: World, state, options: dict[str, Any]):
    refused(repo, world, (UsageError, TypeError), state(1), **options)


@pytest.mark.parametrize(
    "options",
    [
        {"step": np.int64(10)},
        {"step": torch.tensor(10)},
        {"epoch": np.float64(10)},
        {"epoch": np.float32(10)},
        {"seeds": {"numpy": np.int64(1)}},
    ],
    ids=repr,
)
def test_a_whole_number_of_any_kind_is_a_number(repo: Repo, state, options: dict[str, Any]):
    receipt = repo.commit(state(1), **options)

    assert 10 in (receipt.manifest.step, receipt.manifest.epoch, 10 if options.get("seeds") else None)


@pytest.mark.parametrize("kind", ["a loop", "deep"])
def test_hyperparameters_without_end_are_refused(repo: Repo, world: World, state, kind: str):
    params: dict[str, Any] = {}
    inner = params
    for _ in range(5000):
        inner["a"] = {}
        inner = inner["a"]
    if kind == "a loop":
        inner["a"] = params

    refused(repo, world, UsageError, state(1), params=params)


def test_an_option_that_there_is_not_is_a_mistake_of_the_caller(repo: Repo, state):
    with pytest.raises(TypeError, match="colour"):
        repo.commit(state(1), colour="red")


@pytest.mark.parametrize("track", ["../x", "a/b", "yes", "a b", "1", "x" * 65, "é"])
def test_a_name_that_is_none_for_a_track_is_refused(repo: Repo, world: World, state, track: str):
    refused(repo, world, UsageError, state(1), track=track)


@pytest.mark.parametrize("branch", ["a..b", "main@latest", "-x", "HEAD", "a b"])
def test_a_name_that_is_none_for_a_branch_is_refused(repo: Repo, world: World, state, branch: str):
    refused(repo, world, UsageError, state(1), branch=branch)
    refused(repo, world, UsageError, state(1), run=branch)


def test_data_that_is_not_there_is_refused(repo: Repo, world: World, state):
    refused(repo, world, UsageError, state(1), data=["missing.csv"])


def test_who_is_nobody_to_git_commits_nothing(world: World, state):
    (Path(os.environ["HOME"]) / ".gitconfig").unlink()

    with world.repo() as repo:
        refused(repo, world, UsageError, state(1))


@pytest.mark.parametrize("known", [True, False])
def test_a_file_whose_name_is_no_text_does_not_spoil_a_checkpoint(repo: Repo, world: World, state, *, known: bool):
    path = os.fsencode(world.root) + b"/\xff.py"
    Path(os.fsdecode(path)).write_text("one")
    if known:
        world.git("add", "-A")
        world.git("commit", "-qm", "code")
        Path(os.fsdecode(path)).write_text("two")

    repo.commit(state(1))

    assert_same(dict(repo.load("HEAD")), state(1))


# ------------------------------------------------------------------------------------------------- plans and interruptions


def test_a_plan_changes_nothing(repository: Repository, world: World, state, everything):
    before = everything(world)

    planned = plan(repository, state(1), step=1)

    assert everything(world) == before
    assert planned.new_bytes == planned.nbytes > 0
    assert "model/tree.json" in {file.path for file in planned.files}


def test_a_plan_says_what_is_there_already(repo: Repo, repository: Repository, state):
    repo.commit(state(1))

    planned = plan(repository, state(1))

    assert {path for path in planned.known if path.endswith(".safetensors")} == {
        file.path for file in planned.files if file.path.endswith(".safetensors")
    }
    assert planned.new_bytes < planned.nbytes


def test_a_file_that_changes_between_plan_and_commit_is_noticed(repository: Repository, world: World, tmp_path, state):
    torch.save(state(1), tmp_path / "x.pt")
    what = incoming.from_path(tmp_path / "x.pt")
    planned = commit.plan(repository, what, Options(run_id="r"))
    before = world.git("for-each-ref")

    torch.save(state(2), tmp_path / "x.pt")

    with pytest.raises(Conflict, match=r"x\.pt"):
        commit.execute(repository, planned)
    assert world.git("for-each-ref") == before


def test_a_branch_that_moved_since_the_plan_is_extended(repo: Repo, repository: Repository, world: World, state):
    planned = plan(repository, state(2), step=2)
    meanwhile = repo.commit(state(1), step=1)

    receipt = commit.execute(repository, planned)

    assert world.git("rev-parse", "HEAD~1") == meanwhile.commit
    assert receipt.manifest.parents == (meanwhile.id,)


def test_objects_that_dvc_took_away_since_the_plan_are_written_again(repo: Repo, repository: Repository, world, state):
    repo.commit(state(1))
    planned = plan(repository, state(1))
    assert planned.known

    for path in world.objects().values():
        path.unlink()
    commit.execute(repository, planned)

    assert_same(dict(repo.load("HEAD")), state(1))


HOLD = (
    "import fcntl, sys\nf = open(sys.argv[1], 'a')\nfcntl.flock(f, fcntl.LOCK_EX)\nprint('ready', flush=True)\ninput()"
)


@pytest.mark.parametrize("name", [".git/ckptvcs/lock", ".dvc/tmp/lock"])
def test_a_lock_that_another_process_holds_stops_a_commit(
    repo: Repo, repository: Repository, world: World, state, python, name: str
):
    repo.commit(state(1))
    holder = python(HOLD, world.root / name)
    before = world.git("rev-parse", "HEAD")

    with pytest.raises(LockHeld):
        commit.execute(repository, plan(repository, state(2)))

    assert world.git("rev-parse", "HEAD") == before
    holder.communicate("\n")
    commit.execute(repository, plan(repository, state(2)))


def test_a_stage_that_writes_our_folder_stops_a_commit(repo: Repo, world: World, state, python):
    writer = python("print('ready', flush=True); input()")
    held = {"write": {str(world.root / "checkpoints"): {"pid": writer.pid, "cmd": "dvc repro"}}}
    (world.root / ".dvc/tmp/rwlock").write_text(json.dumps(held))

    with pytest.raises(Conflict, match="dvc repro"):
        repo.commit(state(1))

    writer.kill()
    writer.wait()
    repo.commit(state(1))


def test_an_index_that_git_holds_stops_a_commit_before_the_branch_moves(repo: Repo, world: World, state):
    (world.root / ".git/index.lock").touch()
    before = world.git("rev-parse", "HEAD")

    with pytest.raises((Conflict, StorageError)):
        repo.commit(state(1))

    assert world.git("rev-parse", "HEAD") == before


def test_after_an_index_that_was_held_the_next_commit_puts_everything_right(repo: Repo, world: World, state):
    (world.root / ".git/index.lock").touch()
    with pytest.raises((Conflict, StorageError)):
        repo.commit(state(1))
    (world.root / ".git/index.lock").unlink()

    repo.commit(state(2))

    assert world.git("status", "--porcelain") == ""
    oracle.check(world.root)


def test_a_cache_that_cannot_be_written_stops_a_commit(repo: Repo, world: World, state, without_privilege: None):
    repo.commit(state(1))
    for folder in (*world.cache.iterdir(), world.cache):
        folder.chmod(0o555)

    refused(repo, world, TierReadOnly, state(2))

    assert_same(dict(repo.load("HEAD")), state(1))


def test_a_full_disk_stops_a_commit_and_leaves_nothing_behind(repo: Repo, world: World, state, small_files: int):
    refused(repo, world, StorageError, {"model": {"w": torch.randn(small_files)}})

    assert world.temporaries() == []
    repo.commit(state(1))


def test_what_a_dead_process_left_in_the_cache_is_swept_by_a_later_commit(repo: Repo, world: World, state):
    repo.commit(state(1))
    left = world.cache / ".ckptvcs-0123456789abcdef.tmp"
    left.write_bytes(b"half")
    os.utime(left, (1, 1))

    repo.commit(state(2))

    assert world.temporaries() == []


# --------------------------------------------------------------------------------------------------------- many at once

SAVE = """
import sys, numpy as np
from ckptvcs import Repo
with Repo(sys.argv[1]) as repo:
    print("ready", flush=True)
    input()
    for n in range(int(sys.argv[3])):
        repo.commit({"model": {"w": np.full(5, n), "name": sys.argv[2]}}, step=n, params={"who": sys.argv[2]})
"""


def test_eight_processes_that_commit_to_one_branch_lose_nothing(world: World, python):
    writers = [python(SAVE, world.root, f"w{n}", 3) for n in range(8)]

    for writer in writers:
        writer.stdin.write("\n")
        writer.stdin.flush()
    assert [writer.wait(120) for writer in writers] == [0] * 8

    found = oracle.check(world.root).values()
    assert sorted((m["params"]["who"], m["step"]) for m in found) == [(f"w{w}", n) for w in range(8) for n in range(3)]
    assert world.git("rev-list", "--count", "main") == "25"
    assert world.git("status", "--porcelain") == ""


def test_a_step_is_a_whole_number_from_0_on(repo: Repo, state):
    with pytest.raises(UsageError, match="from 0 on"):
        repo.commit(state(1), step=-1)
