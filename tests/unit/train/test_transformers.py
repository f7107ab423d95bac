"""`CkptCallback`: what the Trainer of Hugging Face writes is committed when it should be, and read back by it."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments

from ckptvcs.errors import BadConfig, CkptvcsError, FormatError, IntegrityError, UsageError
from ckptvcs.train.preemption import Preempted
from ckptvcs.train.transformers import CkptCallback
from tests.support import oracle
from tests.support.same import assert_same
from tests.support.world import World

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

SIZE = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8, "vocab_size": 20}


class At(TrainerCallback):
    """Does something at the end of one step, before the callback of ours or after it."""

    def __init__(self, step: int, action: Callable[[], Any]) -> None:
        self.step, self.action = step, action

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            self.action()


class Measured(TrainerCallback):
    """Has each evaluation come to the next of these values, as `eval_mine`."""

    def __init__(self, values: list[float]) -> None:
        self.values = iter(values)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **_: Any) -> None:
        metrics["eval_mine"] = next(self.values)


@pytest.fixture
def begin(world: World) -> Callable[..., tuple[Trainer, CkptCallback]]:
    """Makes a Trainer with a callback of the run `r`, in the repository; closed when the test ends."""
    made: list[CkptCallback] = []

    def make(
        steps: int = 6,
        *,
        callbacks: tuple[TrainerCallback, ...] = (),
        before: tuple[TrainerCallback, ...] = (),
        arguments: dict[str, Any] | None = None,
        **options: Any,
    ) -> tuple[Trainer, CkptCallback]:
        torch.manual_seed(0)
        model = BertForMaskedLM(BertConfig(**SIZE))
        texts = torch.randint(20, (16, 4))
        data = [{"input_ids": text, "labels": text} for text in texts]
        made.append(CkptCallback(**{"run": "r", "repo": world.root, **options}))
        told = TrainingArguments(
            **{
                "output_dir": str(world.root / "out"),
                "max_steps": steps,
                "per_device_train_batch_size": 4,
                "learning_rate": 0.01,
                "logging_steps": 1,
                "save_strategy": "no",
                "report_to": [],
                "disable_tqdm": True,
                "use_cpu": True,
                **(arguments or {}),
            }
        )
        every = [*before, made[-1], *callbacks]
        return Trainer(model, told, train_dataset=data, eval_dataset=data[:4], callbacks=every), made[-1]

    yield make
    for callback in made:
        try:
            callback.close()
        except CkptvcsError:
            continue  # what went wrong is what the test was about


def history(world: World, branch: str = "r") -> list[dict[str, Any]]:
    """The manifests of a branch, oldest first, as an independent reader sees them."""
    manifests = oracle.checkpoints(world.root)
    commits = world.git("rev-list", "--reverse", branch).split()
    return [manifests[commit] for commit in commits if commit in manifests]


def break_cache(world: World) -> None:
    """Make every commit from here on fail."""
    shutil.rmtree(world.cache, ignore_errors=True)
    world.cache.parent.mkdir(parents=True, exist_ok=True)
    world.cache.write_text("no folder")


def folders(world: World) -> list[str]:
    return sorted(path.name for path in (world.root / "out").iterdir())


# --------------------------------------------------------------------------------------------------------------- saving


def test_the_policy_decides_when_the_trainer_saves(begin, world: World):
    trainer, callback = begin(policy={"every_n_steps": 2})

    trainer.train()

    told = [(m["step"], m["reason"], m["epoch"], m["grade"]) for m in history(world)]
    assert told == [(step, "every_n_steps: 2", step / 4, "exact") for step in (2, 4, 6)]
    assert callback.last_durable_step == callback.latest_step() == 6


def test_without_a_policy_each_save_of_the_trainer_is_committed(begin, world: World):
    trainer, _ = begin(5, arguments={"save_strategy": "steps", "save_steps": 2})

    trainer.train()

    assert [(m["step"], m["reason"]) for m in history(world)] == [(n, "save_strategy: steps") for n in (2, 4, 5)]
    assert folders(world) == ["checkpoint-2", "checkpoint-4", "checkpoint-5"]


def test_without_a_policy_and_a_strategy_the_last_step_is_saved(begin, world: World):
    trainer, _ = begin(3)

    trainer.train()

    assert [(m["step"], m["reason"]) for m in history(world)] == [(3, "on_exit")]


def test_reasons_of_both_are_told(begin, world: World):
    trainer, _ = begin(4, policy={"every_n_steps": 2}, arguments={"save_strategy": "steps", "save_steps": 4})

    trainer.train()

    assert [m["reason"] for m in history(world)] == ["every_n_steps: 2", "every_n_steps: 2; save_strategy: steps"]


def test_what_is_recorded_is_what_was_measured_at_that_step(begin, world: World):
    trainer, _ = begin(
        4, policy={"every_n_steps": 3}, params={"mine": 1}, data={"texts": "v1"}, arguments={"logging_steps": 3}
    )

    trainer.train()

    manifest = history(world)[0]
    logged = next(entry for entry in trainer.state.log_history if entry["step"] == 3)
    assert manifest["metrics"] == {name: logged[name] for name in ("loss", "grad_norm", "learning_rate")}
    assert (manifest["params"]["mine"], manifest["params"]["max_steps"]) == (1, 4)
    assert manifest["params"]["learning_rate"] == 0.01
    assert {"name": "texts", "version": "v1"} in manifest["provenance"]["data"]
    assert "hub_token" not in {name for name, value in manifest["params"].items() if value != "<HUB_TOKEN>"}


def test_an_evaluation_that_is_better_is_a_reason_and_each_counts_once(begin, world: World):
    policy = {
        "on_improvement": {"monitor": "eval_mine", "mode": "min"},
        "on_plateau": {"monitor": "eval_mine", "mode": "min", "patience": 2},
    }
    trainer, _ = begin(
        8,
        policy=policy,
        before=(Measured([0.5, 0.4, 0.45, 0.45]),),
        arguments={"eval_strategy": "steps", "eval_steps": 2, "logging_steps": 1},
    )

    trainer.train()

    assert [(m["step"], m["metrics"]["eval_mine"]) for m in history(world)] == [(2, 0.5), (4, 0.4), (8, 0.45)]
    assert history(world)[1]["reason"] == "on_improvement: eval_mine 0.5 -> 0.4"
    assert history(world)[2]["reason"].startswith("on_plateau: eval_mine no better than 0.4 for 2 observations")


def test_an_event_is_a_reason(begin, world: World):
    told: list[CkptCallback] = []
    trainer, callback = begin(4, policy={"on_event": ["drift"]}, before=(At(3, lambda: told[0].event("drift")),))
    told.append(callback)

    trainer.train()

    assert [(m["step"], m["reason"]) for m in history(world)] == [(3, "on_event: drift")]


def test_the_strategy_best_does_not_swallow_a_save(begin, world: World):
    arguments = {
        "save_strategy": "best",
        "metric_for_best_model": "mine",
        "greater_is_better": False,
        "eval_strategy": "steps",
        "eval_steps": 2,
    }
    trainer, _ = begin(8, policy={"every_n_steps": 4}, before=(Measured([1, 2, 3, 4]),), arguments=arguments)

    trainer.train()

    # The Trainer takes our request back where an evaluation was not the best one: the next step is saved instead, or at
    # the end of the training the same one.
    told = [(m["step"], m["reason"]) for m in history(world)]
    assert told == [(2, "save_strategy: best"), (5, "every_n_steps: 4"), (8, "every_n_steps: 4")]


def test_at_the_end_of_an_epoch_one_save_is_enough(begin, world: World):
    trainer, _ = begin(8, policy={"every_n_steps": 4}, arguments={"save_strategy": "epoch"})

    trainer.train()

    told = [(m["step"], m["reason"]) for m in history(world)]
    assert told == [(step, "every_n_steps: 4; save_strategy: epoch") for step in (4, 8)]


def test_a_training_that_ends_early_saves_its_last_step(begin, world: World):
    stopping = EarlyStoppingCallback(early_stopping_patience=1, early_stopping_threshold=1e9)
    arguments = {
        "eval_strategy": "steps",
        "eval_steps": 2,
        "metric_for_best_model": "loss",
        "load_best_model_at_end": False,
    }
    trainer, _ = begin(20, policy={"on_exit": True}, callbacks=(stopping,), arguments=arguments)

    trainer.train()

    last = trainer.state.global_step
    assert last < 20
    assert [(m["step"], m["reason"]) for m in history(world)] == [(last, "on_exit")]


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_folder_may_be_rotated_as_soon_as_it_is_written(begin, world: World, *, asynchronous: bool):
    class Rotate(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            for folder in (world.root / "out").glob("checkpoint-*"):
                for file in folder.iterdir():
                    file.write_bytes(b"\0" * 10)
                shutil.rmtree(folder)

    trainer, _ = begin(policy={"every_n_steps": 1}, callbacks=(Rotate(),), asynchronous=asynchronous)
    trainer.train()

    again, callback = begin(9)
    again.train(resume_from_checkpoint=callback.resume())

    assert again.state.global_step == 9
    assert world.ckpt("doctor").status == 0


def test_auxiliary_files_are_kept(begin, world: World):
    (world.root / "labels.txt").write_text("a b")
    trainer, _ = begin(1, aux=[world.root / "labels.txt"])

    trainer.train()

    assert [f["path"] for f in history(world)[0]["files"]] == ["auxiliary/labels.txt"]


def test_what_fails_in_the_background_is_raised_at_the_next_step(begin, world: World):
    def harm() -> None:
        break_cache(world)

    trainer, _ = begin(policy={"every_n_steps": 2}, callbacks=(At(2, harm),))

    with pytest.raises(CkptvcsError):
        trainer.train()

    assert trainer.state.global_step in (3, 4)


def test_a_grade_that_is_demanded_and_not_given_is_refused(begin):
    trainer, _ = begin(policy={"every_n_steps": 1, "grade": "exact"}, arguments={"save_only_model": True})

    with pytest.raises(UsageError, match="resumable weights-only, and the policy demands exact"):
        trainer.train()


def test_a_policy_that_makes_no_sense_is_refused_at_once(world: World):
    with pytest.raises(BadConfig, match="every_n_steps"):
        CkptCallback(run="r", repo=world.root, policy={"every_n_steps": 0})


# ------------------------------------------------------------------------------------------------------------ the folders


@pytest.mark.parametrize(
    ("keep", "left"), [(0, []), (1, ["checkpoint-6"]), (2, ["checkpoint-4", "checkpoint-6"]), (None, [2, 4, 6])]
)
def test_folders_of_the_policy_are_left_over_when_they_are_commits(begin, world: World, keep: int | None, left: list):
    trainer, _ = begin(policy={"every_n_steps": 2}, keep_folders=keep)

    trainer.train()

    assert folders(world) == [name if isinstance(name, str) else f"checkpoint-{name}" for name in left]


def test_folders_that_the_trainer_would_have_written_anyway_are_its_own(begin, world: World):
    arguments = {"save_strategy": "steps", "save_steps": 3}
    trainer, _ = begin(7, policy={"every_n_steps": 1}, keep_folders=0, arguments=arguments)

    trainer.train()

    assert folders(world) == ["checkpoint-3", "checkpoint-6", "checkpoint-7"]


def test_folders_of_an_earlier_process_are_recognised_and_those_that_changed_are_left(begin, world: World):
    trainer, _ = begin(6, policy={"every_n_steps": 2}, keep_folders=None)
    trainer.train()
    changed = world.root / "out/checkpoint-2/trainer_state.json"
    changed.write_text(changed.read_text() + " ")

    again, callback = begin(8, policy={"every_n_steps": 2})
    again.train(resume_from_checkpoint=callback.resume())

    assert folders(world) == ["checkpoint-2", "checkpoint-8"]


def test_a_folder_that_could_not_be_committed_stays(begin, world: World):
    def harm() -> None:
        callback.wait_until_finished()
        break_cache(world)

    trainer, callback = begin(policy={"every_n_steps": 2}, keep_folders=0, callbacks=(At(4, harm),))

    with pytest.raises(CkptvcsError):
        trainer.train()

    assert "checkpoint-4" in folders(world)


def test_a_number_of_folders_below_nothing_makes_no_sense(world: World):
    with pytest.raises(UsageError, match="cannot keep -1 folders"):
        CkptCallback(run="r", repo=world.root, keep_folders=-1)


# ------------------------------------------------------------------------------------------------------------- resuming


def losses(trainer: Trainer) -> dict[int, float]:
    return {entry["step"]: entry["loss"] for entry in trainer.state.log_history if "loss" in entry}


@pytest.mark.parametrize("stop", [3, 4, 5])
@pytest.mark.parametrize("logging_steps", [1, 4])
def test_a_training_goes_on_bit_for_bit(begin, stop: int, logging_steps: int):
    arguments = {"logging_steps": logging_steps, "lr_scheduler_type": "cosine"}
    through, _ = begin(9, run="through", arguments=arguments)
    through.train()

    def fail() -> None:
        raise RuntimeError("as if killed")

    policy = {"every_n_steps": stop}
    first, callback = begin(9, arguments=arguments, policy=policy, callbacks=(At(stop + 1, fail),))
    with pytest.raises(RuntimeError, match="as if killed"):
        callback.train(first)
    again, callback = begin(9, arguments=arguments, policy=policy)
    callback.train(again)

    assert callback.resumed.step == stop
    assert losses(again) == losses(through)
    assert_same(dict(again.model.state_dict()), dict(through.model.state_dict()))


def test_a_run_without_checkpoints_begins_anew(begin):
    _, callback = begin()

    assert callback.resume() is None
    assert callback.resumed is None


def test_what_appears_is_what_the_trainer_wrote_and_goes_when_it_was_read(begin, world: World):
    trainer, _ = begin(2, keep_folders=None)
    trainer.train()
    written = world.root / "out/checkpoint-2"

    seen: list[str] = []
    again, callback = begin(3, callbacks=(At(3, lambda: seen.extend(os.listdir(world.root / "out"))),))
    folder = Path(callback.resume())

    assert sorted(os.listdir(folder)) == sorted(os.listdir(written))
    for name in ("config.json", "trainer_state.json", "training_args.bin"):
        assert (folder / name).read_bytes() == (written / name).read_bytes()
    for name in ("optimizer.pt", "scheduler.pt"):
        assert_same(torch.load(folder / name), torch.load(written / name))
    again.train(resume_from_checkpoint=str(folder))
    assert not [name for name in seen if name.startswith(".ckptvcs")]


def test_a_checkpoint_that_is_not_whole_is_skipped_and_reported(
    begin, world: World, objects_of, flip, caplog: pytest.LogCaptureFixture
):
    trainer, callback = begin(4, policy={"every_n_steps": 2}, asynchronous=False)
    trainer.train()
    flip(objects_of(callback.last_saved)["extra/trainer_state.json"])

    again, callback = begin(5)
    again.train(resume_from_checkpoint=callback.resume())

    assert callback.resumed.step == 2
    assert "step 4" in callback.resumed.skipped[0]
    assert "is skipped" in caplog.text
    ids = [m.get("parents") for m in history(world)]
    assert ids[-1] == ids[1], "what follows descends from the one that was whole, as the skipped one did"


def test_where_none_is_whole_it_does_not_begin_anew_in_silence(begin, world: World):
    trainer, _ = begin(2)
    trainer.train()
    for path in world.objects().values():
        path.unlink()
    _, callback = begin()

    with pytest.raises(IntegrityError, match="not one of its checkpoints can be used"):
        callback.resume()


def test_a_checkpoint_that_is_named_is_forked(begin, world: World):
    trainer, _ = begin(4, policy={"every_n_steps": 2})
    trainer.train()
    base = history(world)[0]

    again, callback = begin(5, run="other", policy={"every_n_steps": 5})
    again.train(resume_from_checkpoint=callback.resume("r@step:2"))
    same, callback = begin(6, policy={"every_n_steps": 6})
    same.train(resume_from_checkpoint=callback.resume("r@step:2"))

    ids = {2: world.ckpt("show", "r@step:2", "--json").json["id"]}
    assert base["step"] == 2
    assert history(world, "other")[-1]["parents"] == [ids[2]]
    assert callback.resumed.branch == "r-2"
    assert history(world, "r-2")[-1]["parents"] == [ids[2]]
    assert [m["step"] for m in history(world)] == [2, 4]


def test_a_checkpoint_of_another_loop_is_refused(begin, world: World):
    with world.repo() as repo:
        repo.commit({"model": {"w": torch.ones(2)}}, branch="r", step=1)
    _, callback = begin()

    with pytest.raises(FormatError, match="the Trainer did not write it"):
        callback.resume("r")


def test_resuming_needs_a_trainer(world: World):
    with pytest.raises(UsageError, match="before there is a Trainer"):
        CkptCallback(run="r", repo=world.root).resume()


def test_a_folder_that_was_not_passed_on_is_noticed(begin):
    trainer, _ = begin(2)
    trainer.train()
    again, callback = begin(4)
    callback.resume()

    with pytest.raises(UsageError, match="does not go on from step 2"):
        again.train()


def test_who_resumes_from_a_folder_of_his_own_has_the_right_parents(begin, world: World):
    trainer, _ = begin(4, policy={"every_n_steps": 2}, keep_folders=None)
    trainer.train()
    first = world.ckpt("show", "r@step:2", "--json").json["id"]

    again, _ = begin(3, policy={"every_n_steps": 3})
    again.train(resume_from_checkpoint=str(world.root / "out/checkpoint-2"))

    assert history(world)[-1]["step"] == 3
    assert history(world)[-1]["parents"] == [first]


def test_the_triggers_remember_what_they_saw_before(begin, world: World):
    policy = {"on_improvement": {"monitor": "eval_loss", "mode": "min"}}
    arguments = {"eval_strategy": "steps", "eval_steps": 2}
    trainer, _ = begin(4, policy=policy, arguments=arguments)
    trainer.train()
    best = history(world)[-1]["metrics"]["eval_loss"]

    again, callback = begin(6, policy=policy, arguments={**arguments, "learning_rate": 0.0})
    folder = Path(callback.resume())
    state = json.loads((folder / "trainer_state.json").read_text())

    remembered = state["stateful_callbacks"]["ckptvcs"]["triggers"]
    assert remembered["bests"] == {"min eval_loss": {"value": best, "step": 4}}
    again.train(resume_from_checkpoint=str(folder))
    assert all(" first value " not in m["reason"] for m in history(world)[1:])


# ------------------------------------------------------------------------------------------------------- being stopped


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_saves_the_step_and_ends_the_process(begin, world: World, name: str):
    number = signal.Signals[name]
    before = signal.getsignal(number)
    trainer, callback = begin(policy={"on_preemption": True}, before=(At(3, lambda: os.kill(os.getpid(), number)),))

    with pytest.raises(Preempted) as caught:
        trainer.train()

    assert caught.value.code == 128 + number
    assert caught.value.receipt.manifest.step == callback.last_durable_step == 3
    assert [(m["step"], m["reason"], m["grade"]) for m in history(world)] == [(3, f"on_preemption: {name}", "exact")]
    assert signal.getsignal(number) is before


def test_a_probe_ends_it_too_and_the_evaluation_is_left_out(begin, world: World):
    evaluated: list[int] = []

    class Seen(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            evaluated.append(state.global_step)

    step = [0]

    def probe() -> bool:
        step[0] += 1
        return step[0] == 2

    trainer, _ = begin(
        policy={"on_preemption": True},
        preempted=probe,
        callbacks=(Seen(),),
        arguments={"eval_strategy": "steps", "eval_steps": 2},
    )

    with pytest.raises(Preempted):
        trainer.train()

    assert evaluated == []
    assert [m["step"] for m in history(world)] == [2]


@pytest.mark.parametrize(("policy", "steps"), [({"on_exception": True}, [2]), ({"on_exception": False}, [])])
def test_an_exception_is_answered_as_the_policy_says(begin, world: World, policy: dict[str, Any], steps: list[int]):
    def fail() -> None:
        raise ZeroDivisionError("mine")

    trainer, callback = begin(policy=policy, callbacks=(At(2, fail),))

    with pytest.raises(ZeroDivisionError, match="mine"):
        callback.train(trainer)

    found = history(world) if steps else []
    assert [m["step"] for m in found] == steps
    assert [(m["reason"], m["grade"]) for m in found] == [("on_exception: ZeroDivisionError", "approximate")] * len(
        steps
    )


def test_what_an_exception_saved_is_not_gone_on_from(begin, world: World):
    def fail() -> None:
        raise ZeroDivisionError("mine")

    policy = {"every_n_steps": 2, "on_exception": True}
    trainer, callback = begin(policy=policy, callbacks=(At(3, fail),))
    with pytest.raises(ZeroDivisionError):
        callback.train(trainer)

    _, again = begin(policy=policy)

    assert [m["step"] for m in history(world)] == [2, 3]
    assert again.resume().endswith("checkpoint-2")
    assert "in the middle of a step" in again.resumed.skipped[0]


def test_a_hyperparameter_search_is_refused(begin, caplog: pytest.LogCaptureFixture):
    trainer, callback = begin()
    caplog.set_level(logging.ERROR)
    trainer.state.is_hyper_param_search = True

    with pytest.raises(UsageError, match="hyperparameter search"):
        callback.on_train_begin(trainer.args, trainer.state, trainer.control)
