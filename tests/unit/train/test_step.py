"""`Checkpointer.step`: the policy decides, the loop goes on, and what ends the loop loses nothing."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
import torch

from ckptvcs import Repo
from ckptvcs.errors import BadConfig, FormatError, NotFound, StorageError, UsageError
from ckptvcs.porcelain import ledger
from ckptvcs.train.preemption import Preempted
from tests.support import oracle
from tests.support.same import assert_same
from tests.support.world import World

NEVER = {"every_n_steps": 1000}


def manifests(world: World, branch: str = "r") -> list[dict[str, Any]]:
    """The manifests of a branch, oldest first, as git alone gives them."""
    found = oracle.checkpoints(world.root)
    return [found[commit] for commit in world.git("rev-list", "--reverse", branch).split() if commit in found]


def run(keep: Any, training: Any, steps: range, **facts: Any) -> None:
    for step in steps:
        training.step()
        keep.step(step, **facts)


# ---------------------------------------------------------------------------------------------------------------- policy


def test_what_the_policy_asks_for_is_saved_with_its_reasons(keeper, world: World, begin):
    training = begin()
    with keeper(training.parts, policy={"every_n_steps": 4, "on_improvement": {"monitor": "loss"}}) as keep:
        for step, loss in enumerate([5.0, 6.0, 4.0, 4.5, 4.2]):
            training.step()
            keep.step(step, metrics={"loss": loss})

    saved = [(m["step"], m["reason"]) for m in manifests(world)]
    assert [step for step, _ in saved] == [0, 2, 4]
    assert saved[2][1] == "every_n_steps: 4"
    assert all(reason.startswith("on_improvement: loss") for _, reason in saved[:2])


def test_the_policy_of_the_repository_counts_where_none_is_given(keeper, world: World, begin):
    (world.root / "ckpt.yaml").write_text("version: 1\nsave:\n  every_n_steps: 2\n")
    training = begin()

    run(keep := keeper(training.parts), training, range(6))
    keep.close()

    assert [m["step"] for m in manifests(world)] == [2, 4]


def test_without_any_policy_nothing_is_lost_at_the_end(keeper, world: World, begin):
    training = begin()

    with keeper(training.parts) as keep:
        run(keep, training, range(40))

    assert (manifests(world)[-1]["step"], manifests(world)[-1]["reason"]) == (39, "on_exit")


@pytest.mark.parametrize("policy", [{"every_n_step": 4}, {"every_n_steps": 0}, {"every_n_steps": "4"}])
def test_a_wrong_policy_is_named(keeper, begin, policy: dict[str, Any]):
    with pytest.raises(BadConfig, match="every_n_step"):
        keeper(begin().parts, policy=policy)


def test_events_are_saved_for_where_the_policy_knows_them(keeper, world: World, begin):
    training = begin()
    keep = keeper(training.parts, policy={"on_event": ["stage_change"]})

    run(keep, training, range(2))
    keep.event("stage_change")
    run(keep, training, range(2, 4))
    keep.event("something_else")
    run(keep, training, range(4, 6))
    keep.close()

    assert [(m["step"], m["reason"]) for m in manifests(world)] == [(2, "on_event: stage_change")]


def test_nan_never_counts_as_better_and_stops_nothing(keeper, world: World, begin):
    training = begin()
    with keeper(training.parts, policy={"on_improvement": {"monitor": "loss"}}) as keep:
        for step, loss in enumerate([float("nan"), 2.0, float("nan"), float("-inf"), 1.0]):
            training.step()
            keep.step(step, metrics={"loss": torch.tensor(loss)})

    assert [m["step"] for m in manifests(world)] == [1, 4]


def test_what_the_triggers_remember_survives(keeper, world: World, begin):
    policy = {"on_improvement": {"monitor": "loss"}}
    training = begin()
    first = keeper(training.parts, policy=policy)
    first.step(0, metrics={"loss": 1.0}, samples=64)
    first.close()

    second = keeper(begin(seed=5).parts, policy=policy)
    resumed = second.resume()
    worse, better = second.step(1, metrics={"loss": 1.5}), second.step(2, metrics={"loss": 0.5})

    assert resumed.samples == 64
    assert not worse
    assert better


def test_a_grade_that_the_policy_demands_is_demanded(keeper, begin):
    with pytest.raises(UsageError, match="weights-only, and the policy demands exact"):
        keeper({"model": begin().model}, policy={"grade": "exact"})

    keeper(begin().parts, policy={"grade": "exact"})


def test_a_save_that_is_skipped_is_told(keeper, world: World, begin, caplog):
    training = begin()
    keep = keeper(training.parts, policy={"every_n_steps": 1, "when_busy": "skip"})
    blocked = threading.Event()
    keep._run.saver._pool.submit(blocked.wait)  # the thread that writes has something else to do

    reasons = [keep.step(step) for step in range(1, 4)]
    blocked.set()
    keep.close()

    assert [bool(found) for found in reasons] == [True, False, False]
    assert [m["step"] for m in manifests(world)] == [1]
    assert "step 2 is not saved: the save before it is still under way" in caplog.text


def test_a_failure_in_the_background_is_raised_at_the_next_step(keeper, world: World, begin):
    training = begin()
    keep = keeper(training.parts, policy={"every_n_steps": 2})
    keep.step(1)
    (world.root / ".dvc/cache").mkdir(exist_ok=True)
    (world.root / ".dvc/cache/files").write_text("in the way")
    keep.step(2)

    with pytest.raises(StorageError):
        for step in range(3, 100):
            time.sleep(0.05)
            if step % 2:
                keep.step(step)


# ------------------------------------------------------------------------------------------------------ the end of a loop


def test_an_exception_saves_what_there_is_and_says_that_it_may_be_half_done(keeper, world: World, begin):
    training = begin()

    with pytest.raises(ZeroDivisionError), keeper(training.parts, policy={"on_exception": True}) as keep:
        run(keep, training, range(3))
        1 / 0  # noqa: B018

    (manifest,) = manifests(world)
    assert (manifest["step"], manifest["reason"], manifest["grade"]) == (
        2,
        "on_exception: ZeroDivisionError",
        "approximate",
    )


def test_an_exception_is_not_hidden_by_a_save_that_fails(keeper, world: World, begin, caplog):
    training = begin()

    with pytest.raises(ZeroDivisionError), keeper(training.parts, policy={"on_exception": True}) as keep:
        run(keep, training, range(3))
        (world.root / ".dvc/cache").mkdir(exist_ok=True)
        (world.root / ".dvc/cache/files").write_text("in the way")
        1 / 0  # noqa: B018

    assert "a save in the background failed" in caplog.text


def test_the_last_step_is_saved_once_at_the_end(keeper, world: World, begin):
    training = begin()
    with keeper(training.parts, policy={"every_n_steps": 4, "on_exit": True}) as keep:
        run(keep, training, range(6))
    with keeper(training.parts, run="s", policy={"every_n_steps": 4, "on_exit": True}) as keep:
        run(keep, training, range(5))

    assert [m["step"] for m in manifests(world)] == [4, 5]
    assert [m["step"] for m in manifests(world, "s")] == [4]


def test_a_signal_saves_at_the_next_step_and_ends_the_process(keeper, world: World, begin):
    training = begin()
    before = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(Preempted) as caught, keeper(training.parts, policy={"on_preemption": True}) as keep:
        run(keep, training, range(3))
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR1)  # schedulers and launchers both send it
        run(keep, training, range(3, 9))

    assert caught.value.code == 128 + signal.SIGUSR1
    assert caught.value.receipt.manifest.step == 3 == keep.last_durable_step
    assert signal.getsignal(signal.SIGUSR1) == before
    (manifest,) = manifests(world)
    assert (manifest["reason"], manifest["grade"]) == ("on_preemption: SIGUSR1", "exact")


def test_a_save_at_the_end_carries_the_other_reasons_too(keeper, world: World, begin):
    with pytest.raises(Preempted):
        keeper(begin().parts, policy={"every_n_steps": 2}, preempted=lambda: True).step(2)

    assert [m["reason"] for m in manifests(world)] == ["every_n_steps: 2; on_preemption: the probe"]


def test_a_failure_of_before_does_not_cost_the_save_at_the_end(keeper, world: World, begin, caplog):
    soon: list[int] = []
    keep = keeper(begin().parts, policy={"every_n_steps": 1}, preempted=lambda: bool(soon))
    (world.root / ".dvc/cache").mkdir(exist_ok=True)
    (world.root / ".dvc/cache/files").write_text("in the way")
    keep.step(1)
    while keep._run.saver.is_busy:
        time.sleep(0.01)
    (world.root / ".dvc/cache/files").unlink()
    soon.append(1)

    with pytest.raises(Preempted):
        keep.step(2)

    assert [m["step"] for m in manifests(world)] == [2]
    assert "an earlier save had failed" in caplog.text


def test_what_was_saved_by_hand_is_not_saved_again_at_the_end(keeper, world: World, begin):
    with keeper(begin().parts, policy={"on_exit": True}) as keep:
        keep.step(1)
        keep.save(1)

    assert [m["reason"] for m in manifests(world)] == ["manual"]


def test_a_probe_announces_the_end_as_well(keeper, world: World, begin):
    training, soon = begin(), []
    with pytest.raises(Preempted), keeper(training.parts, policy=NEVER, preempted=lambda: bool(soon)) as keep:
        run(keep, training, range(2))
        soon.append(True)
        run(keep, training, range(2, 4))

    assert [m["reason"] for m in manifests(world)] == ["on_preemption: the probe"]


def test_where_the_grace_is_too_short_model_and_optimizer_alone_are_saved_and_it_is_said(
    keeper, world: World, begin, caplog
):
    class Heavy:
        def state_dict(self) -> dict[str, torch.Tensor]:
            return {"average": torch.zeros(50_000_000)}

        load_state_dict = None

    training = begin()
    policy = {"on_preemption": {"grace_s": 1.0}}
    with pytest.raises(Preempted), keeper({**training.parts, "ema": Heavy()}, policy=policy) as keep:
        run(keep, training, range(2))
        os.kill(os.getpid(), signal.SIGTERM)
        run(keep, training, range(2, 4))

    (manifest,) = manifests(world)
    assert [c["name"] for c in manifest["components"] if c["role"] != "loop"] == ["model", "optimizer"]
    assert manifest["grade"] == "approximate"
    assert "model and optimizer alone: a whole save takes about 2 s, 1 s are left" in manifest["reason"]
    assert "model and optimizer alone" in caplog.text


def test_what_lacks_a_part_for_want_of_time_is_passed_over_unless_it_is_asked_for(keeper, begin):
    training, soon = begin(), []
    policy = {"on_preemption": {"grace_s": 1e-9}}
    with pytest.raises(Preempted), keeper(training.parts, policy=policy, preempted=lambda: bool(soon)) as keep:
        keep.save(1)
        soon.append(1)
        keep.step(2)

    resumed = keeper(begin(seed=3).parts).resume()
    partly = keeper(begin(seed=3).parts).resume(strict=False)

    assert resumed.step == 1
    assert "it was saved without all parts" in resumed.skipped[0]
    assert partly.step == 2
    assert partly.left == (
        "scheduler: the checkpoint has no such component",
        "dataloader: the checkpoint has no such component",
    )


def test_where_there_is_only_what_lacks_a_part_nothing_is_begun_anew_in_silence(keeper, begin):
    with pytest.raises(Preempted):
        keeper(begin().parts, policy={"on_preemption": {"grace_s": 1e-9}}, preempted=lambda: True).step(2)

    with pytest.raises(FormatError, match="not one of its checkpoints can be used") as caught:
        keeper(begin().parts).resume()

    assert "resume(strict=False)" in caught.value.next_step


def test_who_closes_after_a_signal_was_answered_is_not_sent_it_again(keeper, begin):
    keep = keeper(begin().parts, policy={"on_preemption": True})
    keep.step(1)
    os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Preempted):
        keep.step(2)
    keep.close()  # as a `finally` does: the process would end by the signal, and not with the status


def test_a_signal_after_the_last_step_is_answered_at_the_end(keeper, world: World, begin):
    told: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: told.append(number))
    try:
        with keeper(begin().parts, policy={"every_n_steps": 100, "on_preemption": True}) as keep:
            keep.step(5)
            os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert [(m["step"], m["reason"]) for m in manifests(world)] == [(5, "on_preemption: SIGUSR1")]
    assert told == [signal.SIGUSR1]


# ------------------------------------------------------------------------------------------------------ partial starts


def test_a_new_head_on_an_old_trunk(keeper, begin, caplog):
    old = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2))
    keeper({"model": old}, asynchronous=False).save(7)
    new = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 5))
    head = new[1].weight.clone()
    keep = keeper({"model": new}, run="tuned")

    with pytest.raises(FormatError, match=r"'1.weight' has shape \(2, 8\) in the checkpoint, \(5, 8\) here") as caught:
        keep.resume("r")
    resumed = keep.resume("r", strict=False)

    assert len(caught.value.facts["differences"]) == 2
    assert torch.equal(new[0].weight, old[0].weight)
    assert torch.equal(new[1].weight, head)
    assert resumed.left == tuple(caught.value.facts["differences"])
    assert "left as it is: model: '1.weight'" in caplog.text


def test_only_the_components_that_are_named_come_back(keeper, begin):
    training = begin()
    training.step()
    keeper(training.parts, asynchronous=False).save(7)
    other = begin(seed=3)
    untouched = other.loader.state_dict()

    keeper(other.parts, run="tuned").resume("r", components=["model"])

    assert_same(dict(other.model.state_dict()), dict(training.model.state_dict()))
    assert not other.optimizer.state_dict()["state"]
    assert other.loader.state_dict() == untouched


def test_a_component_that_is_no_part_is_a_mistake_of_the_caller(keeper, begin):
    keeper(begin().parts, asynchronous=False).save(7)

    with pytest.raises(UsageError, match="'head'"):
        keeper(begin().parts, run="tuned").resume("r", components=["head"])


def test_a_dtype_and_an_optimizer_that_do_not_fit_are_listed_together(keeper, begin):
    training = begin()
    training.step()
    keeper(training.parts, asynchronous=False).save(7)
    other = begin()
    sgd = torch.optim.SGD([{"params": [p]} for p in other.model.parameters()], lr=0.1)

    with pytest.raises(FormatError) as caught:
        keeper({**other.parts, "model": other.model.half(), "optimizer": sgd}).resume()

    differences = caught.value.facts["differences"]
    assert "model: '0.weight' is torch.float32 in the checkpoint, torch.float16 here" in differences
    assert "optimizer: has 1 parameter groups in the checkpoint, 6 here" in differences


def test_nothing_is_changed_where_something_does_not_fit(keeper, begin):
    training = begin()
    training.step()
    keeper(training.parts, asynchronous=False).save(7)
    other = begin(seed=3)
    before = {name: value.clone() for name, value in other.model.state_dict().items()}
    sgd = torch.optim.SGD(other.model.parameters(), lr=0.1)

    with pytest.raises(FormatError, match="is of another optimizer"):
        keeper({**other.parts, "optimizer": sgd}).resume()

    assert_same(dict(other.model.state_dict()), before)


def test_a_named_checkpoint_of_a_branch_that_went_on_is_forked(keeper, world: World, begin, caplog):
    keep = keeper(begin().parts, asynchronous=False)
    first, second = keep.save(1), keep.save(2)
    other = keeper(begin().parts, asynchronous=False)

    resumed = other.resume("r@step:1")
    forked = other.save(2)

    assert resumed.branch == "r-2"
    assert forked.manifest.run.name == "r-2"
    assert world.git("rev-parse", "r-2^") == first.commit
    assert world.git("rev-parse", "r") == second.commit
    assert list(forked.manifest.parents) == [first.id]
    assert "goes to the new branch 'r-2'" in caplog.text


def test_going_back_within_a_run_keeps_what_was_saved_since(keeper, world: World, begin):
    keep = keeper(begin().parts, asynchronous=False)
    first, second = keep.save(1), keep.save(2)

    keep.restore(1)
    third = keep.save(2)

    assert world.git("rev-parse", "r^") == second.commit
    assert list(third.manifest.parents) == [first.id]
    assert (keep.latest_step(), keeper(begin().parts, run="new").latest_step()) == (2, None)


def test_the_best_step_is_told(keeper, begin):
    keep = keeper(begin().parts, asynchronous=False)
    for step, loss in enumerate([3.0, 1.0, 2.0]):
        keep.save(step, metrics={"loss": loss})

    assert (keep.best_step(), keep.best_step("loss"), keep.latest_step()) == (1, 1, 2)


# ------------------------------------------------------------------------------------------------ files, foreign starts


def test_auxiliary_files_are_part_of_each_checkpoint(keeper, world: World, begin, tmp_path):
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text('{"a": 1}')
    keep = keeper(begin().parts, aux=[tokenizer])
    keep.save(1)
    tokenizer.write_text('{"a": 2}')
    keep.wait_until_finished()
    keep.save(2)
    keep.close()

    with Repo(world.root) as repo:
        repo.restore("r@step:1", to=tmp_path / "out")
        listed = [f.path for f in repo.show("r").manifest.files]

    assert (tmp_path / "out/auxiliary/tokenizer.json").read_text() == '{"a": 1}'
    assert "auxiliary/tokenizer.json" in listed


def test_an_auxiliary_file_that_is_not_there_is_named(keeper, begin, tmp_path):
    with pytest.raises(UsageError, match=r"none.json"):
        keeper(begin().parts, aux=[tmp_path / "none.json"]).save(1)


def test_a_start_from_a_foreign_file_is_lineage(keeper, world: World, begin, tmp_path):
    base = begin(seed=4).model
    torch.save({"state_dict": base.state_dict(), "epoch": 3}, tmp_path / "base.pt")
    training = begin()
    keep = keeper(training.parts, asynchronous=False)

    started = keep.warm_start(tmp_path / "base.pt", components=["model"])
    saved = keep.save(0)

    assert_same(dict(training.model.state_dict()), dict(base.state_dict()))
    first, second = manifests(world)
    assert (first["source"]["name"], first["reason"]) == ("base.pt", "warm_start")
    assert second["parents"] == [started.id] == list(saved.manifest.parents)
    with pytest.raises(UsageError, match="has checkpoints already"):
        keep.warm_start(tmp_path / "base.pt")


@pytest.mark.parametrize("repeat", range(4))
def test_what_changes_right_after_save_does_not_reach_the_checkpoint(keeper, world: World, repeat: int):
    """50 times in each of 4 runs: the bytes are those of the step that was saved."""
    model = torch.nn.Linear(64, 64)
    keep, expected = keeper({"model": model}, run=f"m{repeat}"), []
    for step in range(50):
        torch.nn.init.normal_(model.weight)
        expected.append(model.weight.detach().clone())
        keep.save(step)
        with torch.no_grad():
            model.weight.mul_(-1).add_(step + 1)
            model.bias.zero_()
    keep.close()

    with Repo(world.root) as repo:
        found = repo.log(f"m{repeat}")
        assert len(found) == 50
        for checkpoint in found:
            state = repo.load(checkpoint.commit)
            assert torch.equal(state["model"]["weight"], expected[checkpoint.manifest.step])


def test_the_log_is_quiet_where_nothing_is_wrong(keeper, begin, caplog):
    training = begin()
    with caplog.at_level(logging.WARNING), keeper(training.parts, policy={"every_n_steps": 2}) as keep:
        run(keep, training, range(5))

    assert not caplog.records


# ------------------------------------------------------------------------------------------------------------ the ledger


def test_metrics_that_come_late_change_what_is_best(keeper, begin):
    keep = keeper(begin().parts)
    for step in range(3):
        keep.save(step, metrics={"loss": float(step)})
    keep.note(2, {"loss": torch.tensor(-1.0), "wer": 0.2})
    keep.wait_until_finished()

    assert (keep.best_step("loss"), keep.best_step("wer")) == (2, 2)


def test_a_note_of_a_step_that_was_not_saved_is_an_error_of_the_next_call(keeper, begin):
    keep = keeper(begin().parts)
    keep.save(1)
    keep.note(5, {"loss": 1.0})

    with pytest.raises(NotFound, match="r@step:5"):
        keep.wait_until_finished()


def test_the_ledger_tells_when_the_run_began_what_its_saves_cost_and_how_it_ended(keeper, world: World, begin):
    training = begin()
    with keeper(training.parts, policy={"every_n_steps": 2}) as keep:
        run(keep, training, range(5))
    with pytest.raises(ZeroDivisionError), keeper(training.parts, policy={"every_n_steps": 2}) as keep:
        run(keep, training, range(6, 7))
        1 / 0  # noqa: B018

    with Repo(world.root) as repo:
        told = [(event.op, event.facts) for event in ledger.events(repo._repo)]
    assert [op for op, _ in told] == ["run.start", "save", "save", "run.end", "run.start", "save", "run.end"]
    assert all(facts["run"] == "r" for _, facts in told)
    assert [facts["step"] for op, facts in told if op == "save"] == [2, 4, 6]
    assert all(0 < facts["blocked_s"] <= facts["seconds"] for op, facts in told if op == "save")
    assert [facts["how"] for op, facts in told if op == "run.end"] == ["closed", "exception"]
    assert told[3][1]["step"] == 4


def test_a_ledger_that_cannot_be_written_stops_no_training(keeper, world: World, begin, caplog):
    training = begin()
    with keeper(training.parts, policy={"every_n_steps": 2}) as keep:
        run(keep, training, range(3))
        keep.wait_until_finished()
        (writer,) = (path.name for path in (world.root / ".git/refs/ckptvcs/ledger").iterdir())
        world.git("update-ref", f"refs/ckptvcs/ledger/{writer}", "HEAD")
        run(keep, training, range(3, 6))

    assert [m["step"] for m in manifests(world)] == [2, 4]
    assert "the ledger does not know of 'save'" in caplog.text


# -------------------------------------------------------------------------------------------------------------- averages


@pytest.mark.parametrize("every", ["step", "save"])
def test_an_average_goes_on_where_it_was(keeper, begin, every: str):
    def go(training: Any, steps: range, *, resumed: bool = False) -> dict[str, torch.Tensor]:
        keep = keeper(training.parts, policy={"every_n_steps": 2})
        average = keep.ema(decay=0.5, every=every)
        if resumed:
            keep.resume()
        run(keep, training, steps)
        keep.close()
        return average.average()

    training = begin()
    whole = keeper(training.parts, policy={"every_n_steps": 2}, run="whole")
    expected = whole.ema(decay=0.5, every=every)
    run(whole, training, range(1, 9))
    go(begin(), range(1, 5))
    found = go(begin(seed=9), range(5, 9), resumed=True)

    assert_same(found, expected.average())
    assert not torch.equal(found["0.weight"], training.model[0].weight)


def test_there_is_no_average_without_a_model(keeper, begin):
    with pytest.raises(UsageError, match="no weights to average"):
        keeper({"optimizer": begin().optimizer}).ema(decay=0.5)


# ------------------------------------------------------------------------------------------- what must not go wrong twice


def test_an_interrupt_while_a_save_is_waited_for_does_not_spoil_it(keeper, world: World):
    """What the background still reads is not overwritten by the next copy."""
    model = torch.nn.Linear(4, 4)
    torch.nn.init.ones_(model.weight)
    keep = keeper({"model": model}, policy={"on_exception": True})
    go = threading.Event()
    keep._run.saver._pool.submit(go.wait)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs us may have us ignore it
    with pytest.raises(KeyboardInterrupt), keep:
        keep.save(1)
        torch.nn.init.constant_(model.weight, 2.0)
        keep.step(2)
        timer = threading.Timer(0.3, lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT))
        timer.start()
        threading.Timer(1.0, go.set).start()
        keep.save(2)
    signal.signal(signal.SIGINT, before)

    with Repo(world.root) as repo:
        assert repo.load("r@step:1")["model"]["weight"].unique().tolist() == [1.0]
        assert repo.load("r@step:2")["model"]["weight"].unique().tolist() == [2.0]


def test_what_an_exception_saved_in_the_middle_of_a_step_is_not_gone_on_from(keeper, world: World, begin):
    training = begin()
    with (
        pytest.raises(ZeroDivisionError),
        keeper(training.parts, policy={"every_n_steps": 4, "on_exception": True}) as keep,
    ):
        run(keep, training, range(7))
        training.step()
        1 / 0  # noqa: B018

    resumed = keeper(begin(seed=3).parts).resume()

    assert [m["step"] for m in manifests(world)] == [4, 6]
    assert resumed.step == 4
    assert "in the middle of a step" in resumed.skipped[0]
    assert keeper(begin(seed=3).parts).resume(strict=False).step == 6


def test_after_going_back_the_old_step_is_not_saved_as_the_last_one(keeper, world: World, begin):
    training = begin()
    with keeper(training.parts, policy={"every_n_steps": 10, "on_exit": True}) as keep:
        run(keep, training, range(1, 26))
        keep.restore(10)

    assert [m["step"] for m in manifests(world)] == [10, 20]


def test_after_going_back_a_damaged_tip_leads_to_where_the_training_came_from(keeper, begin, objects_of, flip):
    training = begin()
    keep = keeper(training.parts, policy=NEVER, asynchronous=False)
    for step in (10, 20, 30):
        training.step()
        keep.save(step)
    keep.restore(10)
    training.step()
    flip(objects_of(keep.save(14))["model/tree.json"])

    assert keeper(begin(seed=3).parts).resume().step == 10


def test_a_run_that_is_begun_anew_descends_from_nothing(keeper, world: World, begin):
    old = keeper(begin().parts, asynchronous=False).save(5)

    fresh = keeper(begin(seed=3).parts, asynchronous=False).save(0)

    assert fresh.manifest.parents == ()
    assert world.git("rev-parse", "r^") == old.commit, "what the branch held stays in its history"


def test_auxiliary_files_of_one_name_are_refused(keeper, begin, tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text(folder)

    with pytest.raises(UsageError, match="two of them have one name"):
        keeper(begin().parts, aux=[tmp_path / "a/config.json", tmp_path / "b/config.json"])


def test_a_signal_that_comes_after_the_last_step_is_passed_on(keeper, begin):
    training, got = begin(), []
    before = signal.signal(signal.SIGUSR1, lambda *_: got.append(1))
    try:
        with keeper(training.parts, policy={"on_preemption": True}) as keep:
            run(keep, training, range(2))
            os.kill(os.getpid(), signal.SIGUSR1)
        assert got == [1]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_child_process_ends_when_it_is_told_to(keeper, begin):
    with keeper(begin().parts, policy={"on_preemption": True}) as keep:
        keep.step(1)
        ours, theirs = multiprocessing.Pipe()

        def live() -> None:
            theirs.send("here")
            for _ in range(600):
                time.sleep(0.1)  # a signal that comes right before a sleep is noticed after it

        child = multiprocessing.get_context("fork").Process(target=live)
        child.start()
        assert ours.recv() == "here", "Python forgets signals that come while it forks"
        child.terminate()
        child.join(10)

        assert child.exitcode == -signal.SIGTERM


def test_a_failure_of_before_does_not_cost_the_last_state(keeper, world: World, begin):
    training = begin()
    keep = keeper(training.parts, policy={"on_exit": True})
    run(keep, training, range(1, 4))
    keep.note(77, {"wer": 1.0})

    with pytest.raises(NotFound, match="step:77"):
        keep.close()

    assert [m["step"] for m in manifests(world)] == [3]


def test_a_value_whose_save_failed_still_counts_as_better(keeper, world: World, begin):
    training = begin()
    keep = keeper(training.parts, policy={"on_improvement": {"monitor": "loss"}})
    (world.root / ".dvc/cache").mkdir(exist_ok=True)
    (world.root / ".dvc/cache/files").write_text("in the way")
    keep.step(1, metrics={"loss": 1.0})
    with pytest.raises(StorageError):
        keep.wait_until_finished()
    (world.root / ".dvc/cache/files").unlink()

    assert keep.step(2, metrics={"loss": 1.0})


def test_time_goes_on_counting_after_going_back(keeper, begin):
    training = begin()
    keep = keeper(training.parts, policy={"every_n_seconds": 0.2}, asynchronous=False)
    run(keep, training, range(1, 4))
    keep.save(4)
    time.sleep(0.5)
    keep.restore(4)
    keep.save(4)
    time.sleep(0.3)

    assert keep.step(5)


def test_a_start_from_a_foreign_file_that_died_at_once_can_be_started_again(keeper, world: World, begin, tmp_path):
    torch.save(begin(seed=4).model.state_dict(), tmp_path / "base.pt")
    keeper(begin().parts).warm_start(tmp_path / "base.pt")

    again = keeper(begin().parts)

    assert again.resume() is None
    assert again.warm_start(tmp_path / "base.pt").left


def test_numbers_of_other_libraries_are_numbers(keeper, world: World, begin):
    keep = keeper(begin().parts, policy={"every_n_steps": 1})
    keep.step(np.int64(3), epoch=np.float32(0.5), samples=torch.tensor(64), metrics={"loss": np.float64(1.0)})
    keep.close()

    (manifest,) = manifests(world)
    assert (manifest["step"], manifest["epoch"], manifest["metrics"]) == (3, 0.5, {"loss": 1.0})
    with pytest.raises(UsageError, match=r"step cannot be 1\.5"):
        keeper(begin().parts).step(1.5)


def test_after_close_nothing_is_taken_for_saved(keeper, begin):
    keep = keeper(begin().parts, policy={"on_preemption": True})
    keep.close()
    keep.close()

    with pytest.raises(UsageError, match="is closed"):
        keep.step(1)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_leaving_with_exit_status_0_is_a_proper_end(keeper, world: World, begin):
    training = begin()
    with pytest.raises(SystemExit), keeper(training.parts, policy={"on_exit": True}) as keep:
        run(keep, training, range(3))
        sys.exit(0)

    assert [m["reason"] for m in manifests(world)] == ["on_exit"]


def test_sharded_parameters_are_refused_by_name(keeper):
    class DTensor(torch.nn.Parameter):
        pass

    model = torch.nn.Linear(2, 2)
    model.weight = DTensor(torch.ones(2, 2))

    with pytest.raises(UsageError, match="its parameters are sharded"):
        keeper({"model": model})
