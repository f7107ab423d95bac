"""What is said of a checkpoint that was dropped: log shows it, checkout offers what is near, and nothing else trips over it."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import ckptvcs
from ckptvcs.cli import render
from ckptvcs.errors import Conflict, MissingObject, NeedsPerson, NotFound, StorageError
from ckptvcs.porcelain import checkout, gc, gone, marks, places, push, rescue, view
from tests.support.world import World, run
from tests.unit.porcelain.test_retention import LAST_TWO, WEIGHTS, Training, training

__all__ = ["training"]


def swept(training: Training, policy: str = LAST_TWO) -> None:
    training.save(*range(1, 8))
    training.policy(policy)
    training.collect()
    training.collect()


def test_log_tells_of_it_and_checkout_offers_what_is_near(training: Training):
    swept(training)
    world = training.world

    lines = {line.split("step ")[1][0]: line for line in world.ckpt("log", "exp").out.splitlines()}
    assert "dropped 20" in lines["5"]
    assert "dropped" not in lines["7"]
    entry = next(c for c in world.ckpt("log", "exp", "--json").json["checkpoints"] if c["step"] == 5)
    assert entry["grade"] == "dropped"
    assert set(entry["dropped"]["gone"]) == {"model", "optimizer"}

    done = world.ckpt("checkout", "exp@step:5", status=20)
    assert "was dropped" in done.err
    assert "step 3" in done.err
    assert "step 6" in done.err
    assert world.ckpt("checkout", "exp@step:6").status == 0
    assert world.ckpt("doctor").status == 0


def test_without_its_optimizer_it_is_weights_only(training: Training):
    swept(training, WEIGHTS)
    world = training.world

    done = world.ckpt("checkout", "exp@step:4")
    assert "optimizer of checkpoint" in done.err
    assert sorted(os.listdir(world.root / "checkpoints/model")) == ["model"]
    status = world.ckpt("status").out
    assert "weights-only" in status
    assert "up to date" in status
    with world.repo() as repo:
        assert set(repo.load("exp@step:4", ["model"])["model"]) == {"frozen", "w0"}
        with pytest.raises(MissingObject, match="has no optimizer any more"):
            repo.load("exp@step:4")["optimizer"]
    with pytest.raises(MissingObject, match="has no optimizer"):
        checkout.plan_restore(training.open(), "exp@step:4", components=["optimizer"])


def test_a_part_that_another_checkpoint_shares_can_be_had_all_the_same(training: Training, tmp_path: Path):
    world, same = training.world, torch.ones(30, 40)
    with world.repo() as repo:
        for step in range(1, 6):
            state = {"model": {"w": torch.full((40, 40), float(step))}, "optimizer": {"m": same}}
            repo.commit(state, step=step, metrics={"val_loss": 1.0 / step}, branch="exp", run="exp")
    training.policy(WEIGHTS)
    training.collect()
    training.collect()
    entry = next(c for c in world.ckpt("log", "exp", "--json").json["checkpoints"] if c["step"] == 3)
    assert set(entry["dropped"]["gone"]) == {"model", "optimizer"}

    world.ckpt("restore", "exp@step:3", "--component", "optimizer", "--to", tmp_path / "part")

    assert sorted(os.listdir(tmp_path / "part")) == ["optimizer"]
    (tensors,) = (tmp_path / "part/optimizer").glob("m*.safetensors")
    assert torch.equal(load_file(tensors)["m"], same)
    done = world.ckpt("restore", "exp@step:3", "--component", "model", "--to", tmp_path / "none", status=20)
    assert "was dropped" in done.err
    world.ckpt("checkout", "exp@step:3", status=20)


def test_what_was_dropped_is_not_compared_and_not_counted_as_nothing(training: Training):
    swept(training)
    world = training.world

    done = world.ckpt("diff", "exp@step:5", "exp@step:6")
    assert "model, optimizer of checkpoint" in done.err
    assert "were dropped on 20" in done.err
    assert "~ model (model): tensors not compared, " in done.out
    assert "val_loss" in done.out, "what the manifests say is compared"
    found = world.ckpt("diff", "exp@step:5", "exp@step:6", "--json").json["difference"]["components"]
    assert [component["tensors"] for component in found] == [None, None]
    assert "tensors not" not in world.ckpt("diff", "exp@step:6", "exp@step:7").out
    for option in ("--tensors", "--values"):
        done = world.ckpt("diff", "exp@step:6", "exp@step:5", option, status=20)
        assert "was dropped" in done.err
        assert "near it there is step 3" in done.err


def test_what_is_left_of_it_is_compared(training: Training):
    swept(training, WEIGHTS)

    done = training.world.ckpt("diff", "exp@step:4", "exp@step:7", "--values")

    assert "optimizer of checkpoint" in done.err
    assert "~ model (model): 1 tensor, " in done.out
    assert "~ optimizer (optimizer): tensors not compared, " in done.out
    assert "model/w0  largest" in done.out


def test_where_it_is_checked_out_status_says_so(training: Training):
    swept(training)
    world = training.world
    world.git("checkout", "-q", "exp~2", status=None)

    shutil.rmtree(world.root / "checkpoints/model", ignore_errors=True)
    said = world.ckpt("status").out
    assert "step 5, dropped\n  dropped 20" in said
    assert "ckpt gc --rescue" in said
    assert "restore HEAD" not in said
    (world.root / "checkpoints/model").mkdir()
    (world.root / "checkpoints/model/mine").touch()
    said = world.ckpt("status").out
    assert "trash; 1 file in the workspace ('ckpt commit'" in said
    assert "restore HEAD" not in said


def test_what_is_put_there_is_what_is_told(training: Training):
    swept(training, WEIGHTS)
    world = training.world

    whole, part = (world.ckpt("checkout", f"exp@step:{n}", "--dry-run").out.split(", ")[-1] for n in (7, 4))

    nbytes = world.ckpt("restore", "exp@step:4", "--to", "x", "--json").json["bytes"]
    assert part.strip() == render.size(nbytes)
    assert part != whole


def test_no_branch_begins_at_it_and_at_code_above_it_one_may(training: Training):
    swept(training)
    world = training.world

    assert "was dropped" in world.ckpt("branch", "fork", "exp@step:5", status=20).err
    assert "was dropped" in world.ckpt("branch", "fork", "exp@step:5", "--dry-run", status=20).err
    assert world.git("branch", "--list", "fork") == ""
    world.git("checkout", "-q", "exp~2", status=None)
    (world.root / "code.py").touch()
    world.git("add", "code.py")
    world.git("commit", "-qm", "code")
    world.ckpt("branch", "code")
    world.ckpt("branch", "begin", "main")
    world.ckpt("branch", "left", "exp@step:6")


def test_what_is_condemned_is_still_there(training: Training):
    training.save(*range(1, 8))
    training.policy(LAST_TWO)
    training.collect()
    world = training.world

    assert "condemned 20" in world.ckpt("log", "exp").out
    assert world.ckpt("restore", "exp@step:5", "--to", "x").status == 0
    assert set(ckptvcs.load("exp@step:4", repo=world.root)) == {"model", "optimizer"}
    world.git("tag", "needed", "exp~2")
    assert len(training.collect().kept_again) == 1

    assert world.ckpt("restore", "needed", "--to", "y").status == 0


def test_a_rescue_takes_a_condemnation_back(training: Training):
    training.save(*range(1, 8))
    training.policy(LAST_TWO)
    training.collect()
    repo = training.open()

    rescue.execute(repo, rescue.plan(repo, "exp@step:5"))
    training.collect()

    assert training.world.ckpt("restore", "exp@step:5", "--to", "x").status == 0
    assert training.world.ckpt("restore", "exp@step:4", "--to", "y", status=20).status == 20
    with pytest.raises(NotFound, match="not condemned"):
        rescue.plan(repo, "exp")
    with pytest.raises(MissingObject, match="cannot be rescued"):
        rescue.execute(repo, rescue.plan(repo, "exp@step:4"))


# -------------------------------------------------------------------------------------------------------- at a remote


def aged(folder: Path, days: float) -> None:
    past = time.time() - days * 86_400
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (path.stat().st_mtime - days * 86_400,) * 2 if path.stat().st_mtime < past else (past, past))


@pytest.fixture
def shared(training: Training, tmp_path: Path) -> tuple[Training, Path]:
    world = training.world
    run(["git", "init", "-q", "--bare", "-b", "main", str(tmp_path / "hub.git")], tmp_path)
    world.git("remote", "add", "origin", tmp_path / "hub.git")
    world.ckpt("remote", "add", "store", tmp_path / "store", "--default")
    world.git("commit", "-qam", "store")
    return training, tmp_path / "store"


def pushed(training: Training, store: Path, policy: str = LAST_TWO, *, days: float) -> None:
    """Seven checkpoints that are in the store since some days, and a policy that everybody knows."""
    training.save(*range(1, 8))
    training.world.ckpt("push", "exp", "main")
    training.policy(policy)
    training.world.git("push", "-q", "origin", "main")
    aged(store, days)


def test_what_is_left_of_a_checkpoint_is_pushed_where_a_ref_stands_at_it(shared: tuple[Training, Path]):
    training, store = shared
    training.save(*range(1, 8))
    training.policy(WEIGHTS)
    training.collect(places=("hot",))
    training.collect()
    world = training.world
    assert "weights-only" in world.ckpt("log", "exp").out

    world.git("tag", "weights", "exp~3")
    world.git("tag", "nothing", "exp~2")
    world.ckpt("push", "exp", "main", "weights", "nothing")

    clone = World(store.parent / "other")
    run(["git", "clone", "-q", str(store.parent / "hub.git"), str(clone.root)], store.parent)
    clone.ckpt("fetch")
    assert clone.ckpt("pull", "weights").status == 0
    assert "was dropped" in clone.ckpt("pull", "nothing", status=20).err


def test_what_was_dropped_is_not_pushed_and_what_a_ref_stands_at_is(shared: tuple[Training, Path]):
    training, _ = shared
    training.save(*range(1, 8))
    training.policy(LAST_TWO)
    training.collect(places=("hot",))

    repo = training.open()
    plan = push.plan_push(repo, ["exp", "main"])
    push.execute(repo, plan)

    assert {checkpoint.manifest.step for checkpoint in plan.checkpoints} == {3, 6, 7}
    training.world.git("branch", "old", "exp~2")
    training.world.ckpt("push", "old")
    clone = training.world.root.parent / "clone"
    run(["git", "clone", "-q", str(training.world.root.parent / "hub.git"), str(clone)], clone.parent)
    assert World(clone).ckpt("pull", "origin/old").status == 0, "what a ref stands at is there"


def test_the_trash_of_a_remote_gives_back_what_is_rescued(shared: tuple[Training, Path]):
    training, store = shared
    pushed(training, store, days=10)
    training.collect()
    aged(store, 3)
    report = training.collect()
    assert {swept.place: swept.into_trash for swept in report.swept} == {"hot": False, "store": True}
    assert list((store / ".ckptvcs/trash").rglob("*.dir"))
    repo = training.open()
    with pytest.raises(MissingObject, match="was dropped"):
        checkout.plan_restore(repo, "exp@step:5")

    done = rescue.execute(repo, rescue.plan(repo, "exp@step:5"))

    assert done.brought_back
    world = training.world
    world.ckpt("pull", "exp@step:5")
    assert world.ckpt("restore", "exp@step:5", "--to", "x").status == 0
    aged(store, 20)
    report = training.collect()
    assert report.swept[1].emptied
    assert not list((store / ".ckptvcs/trash").rglob("*.dir"))
    assert gone.near_by(repo, rescue.plan(repo, "exp@step:4").checkpoint)[0].manifest.step == 3


def test_another_clone_knows_what_was_dropped(shared: tuple[Training, Path], tmp_path: Path):
    training, store = shared
    pushed(training, store, days=10)
    training.collect()
    aged(store, 3)
    training.collect()
    training.world.ckpt("push")
    clone = World(tmp_path / "clone")
    run(["git", "clone", "-q", str(tmp_path / "hub.git"), str(clone.root)], tmp_path)
    told = clone.ckpt("doctor", status=1).out
    assert "checkpoints cannot be restored here" in told
    assert "  next: ckpt fetch, which brings the ledger" in told
    assert "dvc fetch --all-commits" in told
    clone.ckpt("fetch")

    assert "dropped 20" in clone.ckpt("log", "origin/exp").out
    done = clone.ckpt("pull", "origin/exp@step:5", status=20)
    assert "was dropped" in done.err
    assert clone.ckpt("pull", "origin/exp").status == 0
    assert clone.ckpt("doctor").status == 0


def test_what_a_push_brought_meanwhile_is_not_swept(shared: tuple[Training, Path]):
    training, store = shared
    pushed(training, store, days=10)
    training.collect()
    aged(store, 3)
    training.world.git("branch", "saved", "exp~2")  # step 5, condemned
    training.world.git("push", "-q", "origin", "saved")
    training.world.git("branch", "-qD", "saved")
    training.world.git("update-ref", "-d", "refs/remotes/origin/saved")

    report = training.collect()

    assert [one[:1] for one in report.kept_again] != []
    repo = training.open()
    assert gc.collect(repo, gc.Options(grace_s=0.0)).run
    training.world.ckpt("pull", "exp~2")
    assert training.world.ckpt("restore", "exp~2", "--to", "x").status == 0


def clone_of(training: Training, where: Path) -> Training:
    run(["git", "clone", "-q", str(training.world.root.parent / "hub.git"), str(where)], where.parent)
    world = World(where)
    for key, value in (("user.name", "Night"), ("user.email", "night@example.com")):
        world.git("config", key, value)
    world.git("branch", "-q", "exp", "origin/exp")
    return Training(world)


@pytest.mark.parametrize("trash", ["14d", "0d"])
def test_what_a_clone_of_one_night_condemned_is_swept_by_the_next(
    shared: tuple[Training, Path], tmp_path: Path, trash: str
):
    training, store = shared
    pushed(training, store, f"{LAST_TWO}  trash: {trash}\n", days=20)
    before = {path.name for path in (store / "files").rglob("*") if path.is_file()}
    first = clone_of(training, tmp_path / "first")
    assert first.collect().condemned
    aged(store, 1.5)

    unknown = clone_of(training, tmp_path / "unknown").collect()
    assert unknown.swept[1].objects == 0, "its ledger was not pushed: nobody knows whose marks these are"
    first.world.ckpt("push")
    second = clone_of(training, tmp_path / "second")
    second.world.ckpt("fetch")
    assert second.collect().swept[1].objects == 0, "it is left to the first one for a day more"
    aged(store, 3)
    report = clone_of(training, tmp_path / "third").collect()

    left = {path.name for path in (store / "files").rglob("*") if path.is_file()}
    if trash == "0d":  # nothing would heal what a collector that stood still takes away late
        assert left == before
    else:
        assert report.swept[1].objects == len(before - left) > 0
        assert not list((store / ".ckptvcs/gc/marks").glob("*.json"))


def test_a_collector_that_stood_still_stops_when_its_marks_are_gone(shared: tuple[Training, Path]):

    training, store = shared
    pushed(training, store, days=20)
    training.collect()
    place = places.opened(training.open(), ["store"])[0]
    mine = marks.read(place, marks.MARKS)
    marks.refuse_inherited(place, mine)
    marks.forget(place, mine)

    with pytest.raises(Conflict, match="any further"):
        marks.refuse_inherited(place, mine)


def test_what_goes_place_by_place_is_gone_when_the_last_copy_went(shared: tuple[Training, Path]):
    training, store = shared
    world = training.world
    pushed(training, store, days=10)
    training.collect()
    aged(store, 3)
    training.collect(places=("hot",))
    assert "dropped" not in world.ckpt("log", "exp").out, "the remote has it still"
    assert world.ckpt("pull", "exp@step:5").status == 0
    training.collect(places=("hot",))
    training.collect(places=("store",))
    training.collect()

    world.ckpt("note", "exp@step:5", "--metric", "val_loss=-1")

    kept = {one.slim.step for one in training.plan().judged if one.is_kept}
    assert kept == {3, 6, 7}, "what is not there is not the best, and takes nobody's place"
    assert "step 3" in world.ckpt("show", "exp@best").out.replace("step:        ", "step ")
    for command in (("tag", "--golden", "x", "exp@step:5"), ("hold", "exp@step:5", "--why", "x")):
        assert "was dropped" in world.ckpt(*command, status=20).err


def test_a_store_that_is_not_mounted_is_not_taken_for_an_empty_one(shared: tuple[Training, Path]):
    training, store = shared
    world = training.world
    pushed(training, store, days=0)
    store.rename(store.with_name("elsewhere"))

    done = world.ckpt("gc", "--yes-delete", "4", status=30)

    assert "may not be mounted" in done.err
    assert not store.exists()
    assert "condemned" not in world.ckpt("log", "exp").out
    store.mkdir()
    assert world.ckpt("policy", "apply", status=30).status == 30
    assert not list(store.iterdir())


def test_a_policy_is_accepted_once_also_where_nothing_goes(training: Training):
    training.save(*range(1, 8))
    training.policy(LAST_TWO)
    training.collect()
    training.policy("  keep:\n    - keep_last: 7\n")
    assert training.world.ckpt("gc", status=50).status == 50

    training.world.ckpt("gc", "--accept-policy")

    assert training.world.ckpt("gc").status == 0


def test_a_new_clone_knows_how_many_refs_the_hub_had(shared: tuple[Training, Path], tmp_path: Path):
    training, store = shared
    for number in range(12):
        training.world.git("tag", f"t{number}")
    training.world.git("push", "-q", "origin", "--tags")
    pushed(training, store, days=10)
    training.collect()
    training.save(8, 9, 10)
    training.world.ckpt("push", "exp")
    for number in range(12):
        training.world.git("push", "-q", "origin", f":t{number}")

    clone = clone_of(training, tmp_path / "clone")
    clone.world.ckpt("fetch")

    done = clone.world.ckpt("gc", "--place", "store", status=50)
    assert "branches and tags at git remotes" in done.err


def test_what_a_locked_worktree_holds_stays_and_stops_a_collection_while_its_folder_is_away(
    training: Training, tmp_path: Path
):
    training.save(*range(1, 8))
    training.policy(LAST_TWO)
    training.world.git("worktree", "add", "-q", "--detach", tmp_path / "wt", "exp~3")
    training.world.git("worktree", "lock", tmp_path / "wt")
    kept = training.dropped()
    (tmp_path / "wt").rename(tmp_path / "away")

    assert training.dropped() == kept
    with pytest.raises(NeedsPerson, match="locked and away"):
        training.collect()

    training.world.git("worktree", "unlock", tmp_path / "wt")
    assert training.dropped() == kept, "git still knows what is checked out there"
    training.collect()
    training.collect()
    training.world.ckpt("restore", "exp~3", "--to", tmp_path / "out")


@pytest.mark.parametrize("text", ["outs: [", "", "\x00\x01"], ids=["cut", "empty", "binary"])
def test_a_file_of_dvc_that_cannot_be_read_stops_a_collection(training: Training, text: str):
    training.save(*range(1, 8))
    training.policy(LAST_TWO)
    (training.world.root / "data.dvc").write_text(text)

    with pytest.raises(NeedsPerson, match=r"data\.dvc"):
        training.collect()

    (training.world.root / "data.dvc").write_text("outs: [{path: data}]\n")  # nothing of it is stored yet
    assert training.collect().condemned


def test_the_hub_by_another_address_is_no_neighbour(shared: tuple[Training, Path], tmp_path: Path):
    training, store = shared
    pushed(training, store, days=10)
    run(["git", "clone", "-q", f"file://{tmp_path / 'hub.git'}", str(tmp_path / "ci")], tmp_path)
    ci = Training(World(tmp_path / "ci"))

    report = ci.collect(places=("store",))

    assert report.condemned[0].objects
    assert len(report.dropped) == 4


def test_what_a_neighbour_needs_is_not_condemned_and_it_is_said_who_needs_it(
    shared: tuple[Training, Path], tmp_path: Path
):
    training, store = shared
    pushed(training, store, days=10)
    hub, fork = tmp_path / "hub.git", tmp_path / "fork.git"
    run(["git", "clone", "-q", "--mirror", str(hub), str(fork)], tmp_path)
    theirs = clone_of(training, tmp_path / "theirs")
    theirs.world.git("remote", "set-url", "origin", fork)
    theirs.save(50)
    theirs.world.ckpt("push", "exp")

    report = training.collect(places=("store",))

    assert not report.condemned
    assert not report.dropped
    assert any("need them" in note and "fork.git" in note for note in report.notes)
    assert view.look(training.open()).account.dropped == {}


def test_a_tag_at_what_was_condemned_today_can_be_pushed_and_keeps_it(shared: tuple[Training, Path], tmp_path: Path):
    training, store = shared
    pushed(training, store, f"{LAST_TWO}  trash: 0d\n", days=10)
    training.collect(places=("store",))
    other = clone_of(training, tmp_path / "other").world

    other.ckpt("tag", "--golden", "ship", "origin/exp~3")
    other.ckpt("push", "golden/ship")
    aged(store, 3)
    training.collect(places=("store",))

    other.ckpt("pull", "golden/ship")
    other.ckpt("restore", "golden/ship", "--to", tmp_path / "out")


def test_a_tag_at_what_is_about_to_be_swept_waits_and_one_at_what_is_nowhere_is_not_pushed(
    shared: tuple[Training, Path], tmp_path: Path
):
    training, store = shared
    pushed(training, store, f"{LAST_TWO}  trash: 0d\n", days=10)
    training.collect()
    aged(store, 0.8)
    other = clone_of(training, tmp_path / "other").world
    other.ckpt("tag", "ship", "origin/exp~3")

    assert "or later" in other.ckpt("push", "ship", status=11).err
    aged(store, 3)
    training.collect()
    training.collect()

    assert "ship" not in other.git("ls-remote", "origin")
    other.ckpt("push", "ship", status=20)
    assert "ship" not in other.git("ls-remote", "origin")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # pygit2 lets go of what it never had
@pytest.mark.parametrize("name", ["HEAD", "index"])
def test_what_git_cannot_read_of_a_worktree_stops_a_collection(training: Training, tmp_path: Path, name: str):
    training.save(*range(1, 8))
    training.policy(LAST_TWO)
    training.world.git("worktree", "add", "-q", "--detach", tmp_path / "wt", "exp~3")
    before = training.world.objects().keys()
    (training.world.root / ".git/worktrees/wt" / name).write_bytes(b"zz" * 40)

    with pytest.raises(StorageError, match="wt"):
        training.collect()

    assert training.world.objects().keys() == before


def test_what_is_left_of_a_worktree_that_was_taken_away_is_in_nobodys_way(training: Training, tmp_path: Path):
    training.save(*range(1, 8))
    training.policy(LAST_TWO)
    training.world.git("worktree", "add", "-q", "--detach", tmp_path / "wt")
    World(tmp_path / "wt").git("switch", "-q", "--orphan", "new")  # a branch without a commit
    (training.world.root / ".git/worktrees/stale").mkdir()

    assert training.collect().condemned
