"""`Checkpointer`: a run that was stopped goes on as if it had not been, and nothing goes wrong in silence."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ckptvcs import Checkpointer, Repo
from ckptvcs.errors import (
    FormatError,
    IntegrityError,
    MissingObject,
    NoRepository,
    NotFound,
    StorageError,
    UnsupportedValue,
    UsageError,
    WrongDigest,
)
from tests.support import oracle
from tests.support.same import assert_same
from tests.support.world import World


class Part:
    """Anything with a state."""

    def __init__(self, state: Any = None) -> None:
        self.state = state

    def state_dict(self) -> Any:
        return self.state

    def load_state_dict(self, state: Any) -> None:
        self.state = state


BOTH = pytest.mark.parametrize("asynchronous", [True, False])

# --------------------------------------------------------------------------------------------------- saving and resuming


@BOTH
@pytest.mark.parametrize("stop", [0, 1, 7])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(keeper, begin, stop: int, *, asynchronous: bool):
    training = begin()
    expected = [training.step() for _ in range(20)]

    training = begin()
    losses = [training.step() for _ in range(stop)]
    first = keeper(training.parts, asynchronous=asynchronous)
    first.save(stop)
    first.close()
    training = begin(seed=99)
    resumed = keeper(training.parts).resume()
    losses += [training.step() for _ in range(20 - stop)]

    assert resumed.step == stop
    assert losses == expected


@BOTH
def test_training_may_change_everything_as_soon_as_save_returns(keeper, begin, *, asynchronous: bool):
    training = begin()
    keep = keeper(training.parts, asynchronous=asynchronous)
    losses = []

    for step in range(12):
        keep.save(step)
        losses.append(training.step())
    keep.wait_until_finished()

    again = begin(seed=99)
    reader = keeper(again.parts)
    for step in range(12):
        assert reader.resume(f"r@step:{step}").step == step
        assert again.step() == losses[step]


@BOTH
def test_what_was_saved_is_told(keeper, world: World, begin, *, asynchronous: bool):
    keep = keeper(begin().parts, asynchronous=asynchronous, params={"lr": 0.1}, data={"imagenet": "2012"})
    assert keep.last_durable_step is None

    told = keep.save(5, metrics={"loss": 0.25}, epoch=2, message="mine", reason="best")

    assert (told is None) == asynchronous
    receipt = keep.wait_until_finished()
    assert receipt == keep.last_saved
    assert keep.last_durable_step == 5
    manifest = oracle.checkpoints(world.root)[world.git("rev-parse", "r")]
    assert (manifest["step"], manifest["epoch"], manifest["reason"]) == (5, 2, "best")
    assert (manifest["metrics"], manifest["params"]) == ({"loss": 0.25}, {"lr": 0.1})
    assert {"name": "imagenet", "version": "2012"} in manifest["provenance"]["data"]
    assert manifest["grade"] == "exact"
    assert world.git("log", "-1", "--format=%s", "r") == "mine"


def test_nothing_to_wait_for_is_nothing(keeper, begin):
    assert keeper(begin().parts).wait_until_finished() is None


def test_a_save_leaves_head_index_and_worktree(keeper, world: World, begin):
    world.git("checkout", "-q", "-b", "work")
    (world.root / "train.py").write_text("mine")
    before = world.git("status", "--porcelain"), world.git("rev-parse", "HEAD"), sorted(os.listdir(world.root))

    keeper(begin().parts, asynchronous=False).save(1)
    keeper(begin().parts, asynchronous=False, branch="work").save(2)

    assert world.git("rev-parse", "HEAD~1") == before[1]
    assert world.git("status", "--porcelain") == before[0]
    assert not (world.root / "checkpoints/model").exists()


def test_a_detached_head_is_no_obstacle(keeper, world: World, begin):
    world.git("checkout", "-q", "--detach")

    keeper(begin().parts, asynchronous=False).save(1)

    assert world.git("log", "--format=%s", "-1", "r") == "ckpt: r step 1"
    assert world.git("status", "--porcelain") == ""


def test_each_run_has_a_branch_a_name_and_an_id(keeper, begin):
    first = keeper(begin().parts, asynchronous=False)
    receipts = [first.save(1), first.save(2)]
    receipts.append(keeper(begin().parts, asynchronous=False).save(3))
    receipts.append(keeper(begin().parts, asynchronous=False, run="other").save(3))

    assert [receipt.branch for receipt in receipts] == ["r", "r", "r", "other"]
    assert len({receipt.manifest.run.id for receipt in receipts[:3]}) == 1
    assert receipts[3].manifest.run.id != receipts[0].manifest.run.id


def test_parents_are_what_it_was_trained_on_from(keeper, begin):
    first = keeper(begin().parts, asynchronous=False)
    receipts = [first.save(n) for n in (1, 2, 3)]
    second = keeper(begin().parts, asynchronous=False)

    second.resume("r@step:1")
    forked = [second.save(4), second.save(5)]

    assert [receipt.manifest.parents for receipt in receipts] == [(), (receipts[0].id,), (receipts[1].id,)]
    assert forked[0].manifest.parents == (receipts[0].id,)
    assert forked[1].manifest.parents == (forked[0].id,)


@pytest.mark.parametrize("number", [np.int64(7), torch.tensor(7), 7])
def test_a_step_may_be_a_number_of_any_library(keeper, begin, number: Any):
    assert keeper(begin().parts, asynchronous=False).save(number).manifest.step == 7


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (0.5, 0.5),
        (3, 3),
        (torch.tensor(0.5), 0.5),
        (np.float32(0.5), 0.5),
        (float("nan"), "nan"),
        (torch.tensor(float("inf")), "inf"),
        (-np.inf, "-inf"),
    ],
)
def test_a_run_that_diverged_is_saved_all_the_same(keeper, begin, value: Any, kept: Any):
    receipt = keeper(begin().parts, asynchronous=False).save(1, metrics={"loss": value})

    assert receipt.manifest.metrics == {"loss": kept}


@pytest.mark.parametrize("value", ["0.5", None, True, [1]])
def test_what_is_no_number_is_no_metric(keeper, world: World, begin, value: Any):
    keep = keeper(begin().parts)

    with pytest.raises(UsageError, match="loss"):
        keep.save(1, metrics={"loss": value})

    assert "r" not in world.git("branch")


@pytest.mark.parametrize("value", [torch.ones(2), np.ones(3)])
def test_several_numbers_are_no_metric(keeper, begin, value: Any):
    with pytest.raises(UsageError):
        keeper(begin().parts).save(1, metrics={"losses": value})


# ------------------------------------------------------------------------------------------------------------ resuming


@pytest.mark.parametrize("run", ["r", "never-was"])
def test_a_run_without_checkpoints_begins_anew(keeper, begin, run: str):
    training = begin()
    before = {name: tensor.clone() for name, tensor in training.model.state_dict().items()}

    assert keeper(training.parts, run=run).resume() is None

    assert_same(dict(training.model.state_dict()), before)


def test_the_newest_checkpoint_is_where_it_goes_on(keeper, begin):
    keep = keeper(begin().parts, asynchronous=False)
    for step in (1, 5, 3):
        last = keep.save(step, epoch=step / 2, metrics={"loss": step})

    resumed = keeper(begin().parts).resume()

    assert (resumed.step, resumed.epoch, resumed.metrics, resumed.skipped) == (3, 1.5, {"loss": 3}, ())
    assert (resumed.id, resumed.commit) == (last.id, last.commit)


@pytest.mark.parametrize(("revision", "step"), [("r@step:1", 1), ("r~1", 2), ("r@best", 3), ("golden/base", 1)])
def test_a_checkpoint_that_is_named_is_where_it_goes_on(keeper, world: World, begin, revision: str, step: int):
    keep = keeper(begin().parts, asynchronous=False)
    for n in (1, 2, 3):
        keep.save(n, metrics={"loss": 1 / n})
    with Repo(world.root) as repo:
        repo.tag("base", "r@step:1", golden=True)

    assert keeper(begin().parts).resume(revision).step == step


def test_a_revision_that_there_is_not_is_not_found(keeper, begin):
    with pytest.raises(NotFound):
        keeper(begin().parts).resume("r@step:9")


def test_resuming_waits_for_the_save_under_way(keeper, begin):
    keep = keeper(begin().parts)

    keep.save(4)

    assert keep.resume().step == 4


def test_resuming_goes_back(keeper, begin):
    training = begin()
    keep = keeper(training.parts)
    keep.save(0)
    first = [training.step() for _ in range(5)]

    keep.resume()

    assert [training.step() for _ in range(5)] == first


@pytest.mark.parametrize("harm", ["damaged", "missing"])
@pytest.mark.parametrize("part", ["model", "optimizer", "rng", "dataloader"])
def test_a_newest_checkpoint_that_is_not_whole_is_skipped_and_reported(
    keeper, begin, objects_of, flip, caplog: pytest.LogCaptureFixture, harm: str, part: str
):
    training = begin()
    keep = keeper(training.parts, asynchronous=False)
    older = keep.save(1)
    expected = [training.step() for _ in range(3)]
    newest = keep.save(2)
    own = set(objects_of(newest).values()) - set(objects_of(older).values())
    path = next(p for name, p in objects_of(newest).items() if name.startswith(f"{part}/") and p in own)
    flip(path) if harm == "damaged" else path.unlink()

    again = begin(seed=99)
    resumed = keeper(again.parts).resume()

    assert resumed.step == 1
    assert len(resumed.skipped) == 1
    assert newest.id[:10] in resumed.skipped[0]
    assert newest.id[:10] in caplog.text
    assert [again.step() for _ in range(3)] == expected


def test_after_a_skipped_checkpoint_the_next_one_descends_from_the_good_one(keeper, begin, objects_of, flip):
    training = begin()
    keep = keeper(training.parts, asynchronous=False)
    good = keep.save(1)
    training.step()
    bad = keep.save(2)
    for path in set(objects_of(bad).values()) - set(objects_of(good).values()):
        flip(path)
    second = keeper(training.parts, asynchronous=False)

    second.resume()
    following = second.save(3)

    assert following.manifest.parents == (good.id,)
    assert keeper(begin().parts).resume().step == 3


def test_where_none_is_whole_it_does_not_begin_anew_in_silence(keeper, world: World, begin):
    keep = keeper(begin().parts, asynchronous=False)
    keep.save(1)
    keep.save(2)
    for path in world.objects().values():
        path.unlink()

    with pytest.raises(IntegrityError, match="not one of its checkpoints can be used") as caught:
        keeper(begin().parts).resume()

    assert len(caught.value.facts["skipped"]) == 2


@pytest.mark.parametrize(("harm", "error"), [("damaged", WrongDigest), ("missing", MissingObject)])
def test_a_checkpoint_that_is_named_is_not_exchanged_for_another(
    keeper, begin, objects_of, flip, harm: str, error: type[Exception]
):
    keep = keeper(begin().parts, asynchronous=False)
    keep.save(1)
    path = objects_of(keep.save(2))["model/tree.json"]
    flip(path) if harm == "damaged" else path.unlink()

    with pytest.raises(error):
        keeper(begin().parts).resume("r@step:2")


def test_a_checkpoint_without_one_of_the_parts_is_refused(keeper, begin):
    training = begin()
    keeper({"model": training.model}, asynchronous=False).save(1)

    with pytest.raises(FormatError, match="optimizer: the checkpoint has no such component"):
        keeper({"model": training.model, "optimizer": training.optimizer}).resume()


def test_a_part_that_the_training_does_not_have_is_missed_in_its_own_run_and_left_behind_by_a_fork(keeper, begin):
    keeper(begin().parts, asynchronous=False).save(3)
    training = begin(seed=5)

    with pytest.raises(FormatError, match="optimizer: is in the checkpoint only"):
        keeper({"model": training.model}).resume()

    assert keeper({"model": training.model}, run="tuned").resume("r").step == 3


def test_a_model_of_another_form_is_refused_with_every_difference(keeper, begin):
    keeper(begin().parts, asynchronous=False).save(1)

    with pytest.raises(FormatError, match="does not fit checkpoint") as caught:
        keeper({**begin().parts, "model": torch.nn.Linear(3, 3)}).resume()

    differences = caught.value.facts["differences"]
    assert "model: 'weight' is missing in the checkpoint" in differences
    assert "model: '0.bias' is in the checkpoint only" in differences
    assert len(differences) == 2 + len(begin().model.state_dict())


def test_weights_alone_are_enough_to_fine_tune(keeper, world: World, begin):
    training = begin()
    with Repo(world.root) as repo:
        repo.commit({"model": training.model.state_dict()}, branch="base", step=9)
    other = begin(seed=5)

    resumed = keeper({"model": other.model}, run="tuned").resume("base")

    assert resumed.step == 9
    assert_same(dict(other.model.state_dict()), dict(training.model.state_dict()))


def test_a_loaded_state_does_not_look_into_the_cache(keeper, world: World, begin):
    keeper(begin().parts, asynchronous=False).save(0)
    before = {name: path.read_bytes() for name, path in world.objects().items()}
    training = begin(seed=5)
    keeper(training.parts).resume()

    for _ in range(3):
        training.step()

    assert {name: path.read_bytes() for name, path in world.objects().items()} == before


# --------------------------------------------------------------------------------------------------------------- parts


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"position": 3},
        {"nested": {"list": [1, (2, None)], 4: "x"}},
        {"tensor": torch.arange(3), "array": np.arange(4)},
        [1, 2],
        7,
        "x",
        torch.ones(2),
    ],
    ids=repr,
)
def test_anything_with_a_state_is_a_part(keeper, begin, state: Any):
    keeper({"model": begin().model, "loader": Part(state)}, asynchronous=False).save(1)
    part = Part()

    keeper({"model": begin().model, "loader": part}).resume()

    assert_same(part.state, state)


@pytest.mark.parametrize(
    "name",
    [
        "ema",
        "second_model",
        "model2",
        "tree",
        *("extra", "_ema", "con", "Model", "x" * 65, "größe"),
    ],
)
def test_a_part_of_any_name_is_resumed_or_refused_at_once(keeper, begin, name: str):
    try:
        keep = keeper({"model": begin().model, name: Part({"v": 3})}, asynchronous=False)
    except UsageError:
        return
    keep.save(1)
    part = Part()

    keeper({"model": begin().model, name: part}).resume()

    assert part.state == {"v": 3}


@pytest.mark.parametrize("parts", [{}, {"model": None}])
def test_nothing_to_save_is_a_mistake_of_the_caller(keeper, parts: dict[str, Any]):
    with pytest.raises(UsageError, match="nothing to save"):
        keeper(parts)


@pytest.mark.parametrize(("name", "part"), [("model", object()), ("loader", {"a": 1}), ("rng", Part({}))])
def test_what_has_no_state_is_a_mistake_of_the_caller(keeper, begin, name: str, part: Any):
    with pytest.raises(UsageError, match=f"'{name}'"):
        keeper({"optimizer": begin().optimizer, name: part})


@pytest.mark.parametrize("run", ["a b", "main@latest", "-x", "HEAD"])
def test_a_run_whose_name_is_no_branch_is_refused_at_the_latest_when_it_saves(keeper, world: World, begin, run: str):
    with pytest.raises(UsageError):
        keeper(begin().parts, run=run, asynchronous=False).save(1)

    assert world.git("branch", "--format=%(refname:short)") == "main"


def test_outside_of_a_repository_it_says_so(keeper, begin, tmp_path: Path):
    with pytest.raises(NoRepository):
        keeper(begin().parts, repo=tmp_path)


@BOTH
def test_a_value_that_cannot_be_represented_is_told_by_the_save_itself(keeper, begin, *, asynchronous: bool):
    keep = keeper({"model": begin().model, "loader": Part({"deep": [object()]})}, asynchronous=asynchronous)

    with pytest.raises(UnsupportedValue, match="deep"):
        keep.save(1)


def test_frozen_parts_cost_nothing(keeper, world: World):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(800, 800), torch.nn.Linear(800, 2))
    model[0].requires_grad_(requires_grad=False)
    optimizer = torch.optim.SGD(model[1].parameters(), lr=0.1)
    keep = keeper({"model": model, "optimizer": optimizer}, asynchronous=False)
    receipts = []

    for step in range(2):
        receipts.append(keep.save(step))
        model(torch.randn(2, 800)).sum().backward()
        optimizer.step()

    assert receipts[0].new_bytes > 2_500_000
    assert receipts[1].new_bytes < 100_000


# ---------------------------------------------------------------------------------------------- errors in the background


@pytest.fixture
def broken(world: World) -> Callable[[], None]:
    """Make it impossible to save; what it gives back makes it possible again."""

    def spoil() -> Callable[[], None]:
        cache = world.root / ".dvc/cache"
        if cache.exists():
            shutil.move(cache, world.root / ".dvc/aside")
        cache.write_text("no folder")

        def repair() -> None:
            cache.unlink()
            if (world.root / ".dvc/aside").exists():
                shutil.move(world.root / ".dvc/aside", cache)

        return repair

    return spoil


@pytest.mark.parametrize("call", ["save", "wait_until_finished", "resume", "close"])
def test_an_error_in_the_background_is_raised_by_the_next_call_once(keeper, begin, broken, call: str):
    training = begin()
    keep = keeper(training.parts)
    keep.save(1)
    keep.wait_until_finished()
    repair = broken()
    keep.save(2)

    with pytest.raises(StorageError):
        getattr(keep, call)(*([3] if call == "save" else []))

    repair()
    assert keep.last_durable_step == 1
    keep.wait_until_finished()


def test_after_an_error_the_next_save_is_like_any_other(keeper, world: World, begin, broken):
    training = begin()
    keep = keeper(training.parts)
    repair = broken()
    keep.save(1)
    with pytest.raises(StorageError):
        keep.wait_until_finished()
    repair()

    training.step()
    keep.save(2)

    assert keep.wait_until_finished().manifest.step == 2
    assert [m["step"] for m in oracle.check(world.root).values()] == [2]


def test_an_error_without_a_background_is_raised_at_once(keeper, begin, broken):
    keep = keeper(begin().parts, asynchronous=False)
    broken()

    with pytest.raises(StorageError):
        keep.save(1)

    assert keep.last_durable_step is None


# --------------------------------------------------------------------------------------------------------------- closing


def test_the_end_of_a_with_block_waits_for_the_last_save(world: World, begin):
    with Checkpointer(run="r", repo=world.root, **begin().parts) as keep:
        keep.save(1)

    assert keep.last_durable_step == 1
    assert world.git("log", "-1", "--format=%s", "r") == "ckpt: r step 1"


def test_a_save_that_failed_is_raised_at_the_end_of_the_block(world: World, begin, broken):
    with pytest.raises(StorageError), Checkpointer(run="r", repo=world.root, **begin().parts) as keep:
        broken()
        keep.save(1)


def test_an_exception_of_the_loop_is_the_one_that_is_raised(
    world: World, begin, broken, caplog: pytest.LogCaptureFixture
):
    with pytest.raises(ZeroDivisionError), Checkpointer(run="r", repo=world.root, **begin().parts) as keep:
        broken()
        keep.save(1)
        raise ZeroDivisionError

    assert "a save in the background failed" in caplog.text
    assert caplog.records[-1].levelno == logging.ERROR


def test_what_was_saved_before_an_exception_is_kept(world: World, begin):
    with pytest.raises(KeyboardInterrupt), Checkpointer(run="r", repo=world.root, **begin().parts) as keep:
        keep.save(1)
        raise KeyboardInterrupt

    assert [m["step"] for m in oracle.check(world.root).values()] == [1]


def test_closing_twice_is_fine(keeper, begin):
    keep = keeper(begin().parts)

    keep.save(1)
    keep.close()
    keep.close()

    assert keep.last_durable_step == 1


def test_a_save_after_the_end_is_a_mistake_of_the_caller(keeper, begin):
    keep = keeper(begin().parts)
    keep.close()

    with pytest.raises(UsageError):
        keep.save(1)


def test_nothing_is_left_running_and_nothing_open(world: World, begin):
    import threading

    training = begin()
    gc.collect()
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))

    for step in range(3):
        with Checkpointer(run="r", repo=world.root, **training.parts) as keep:
            keep.resume()
            keep.save(step)
    del keep
    gc.collect()

    assert threading.active_count() == before[0]
    assert len(os.listdir("/proc/self/fd")) <= before[1] + 1


# ------------------------------------------------------------------------------------------------- forks and other tracks


def test_a_fork_leaves_the_line_where_it_was_resumed(keeper, world: World, begin):
    keep = keeper(begin().parts, asynchronous=False)
    receipts = [keep.save(n) for n in (1, 2, 3)]
    fork = keeper(begin().parts, asynchronous=False, run="fork")

    fork.resume("r@step:2")
    first = fork.save(3)

    assert first.manifest.parents == (receipts[1].id,)
    assert world.git("merge-base", "r", "fork") == receipts[1].commit
    assert keeper(begin().parts, run="fork").resume().step == 3


def test_a_run_begins_a_line_of_its_own_although_head_has_checkpoints(keeper, world: World, begin):
    with Repo(world.root) as repo:
        repo.commit({"model": begin().model.state_dict()}, step=100)

    first = keeper(begin().parts, asynchronous=False).save(1)

    assert first.manifest.parents == ()
    assert keeper(begin().parts).resume().step == 1


def test_two_tracks_of_a_run_are_told_apart(keeper, begin):
    teacher, student = (
        keeper(begin(seed).parts, asynchronous=False, track=t) for seed, t in enumerate(["teacher", "student"])
    )
    teacher.save(1)
    student.save(2)

    training = begin(seed=9)
    assert keeper(training.parts, track="teacher").resume().step == 1
    assert_same(dict(training.model.state_dict()), dict(begin(0).model.state_dict()))


def test_code_is_that_of_the_start_whatever_is_edited_later(keeper, world: World, begin):
    (world.root / "train.py").write_text("one\n")
    world.git("add", "train.py")
    world.git("commit", "-qm", "code")
    started = world.git("rev-parse", "HEAD")
    keep = keeper(begin().parts, asynchronous=False)

    (world.root / "train.py").write_text("two\n")
    world.git("commit", "-qam", "more code")
    receipt = keep.save(1)

    assert receipt.manifest.provenance.code.commit == started
    assert world.git("show", "r:train.py") == "one"
    assert subprocess.run(["git", "fsck", "--strict"], cwd=world.root, check=False, capture_output=True).returncode == 0
