"""`CkptAccelerate`: what Accelerate saves is committed when it should be, and the loop goes on where it was."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, ProjectConfiguration, set_seed

from ckptvcs.errors import CkptvcsError, FormatError, UsageError
from ckptvcs.train.accelerate import CkptAccelerate
from ckptvcs.train.preemption import Preempted
from tests.support import oracle
from tests.support.world import World

pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.filterwarnings("ignore::FutureWarning")]

BATCHES = 6


class Thing:
    """An object of the user's whose state only pickle can represent."""

    def __init__(self) -> None:
        self.state: Any = {"a set": {1, 2}, "a slice": slice(1, 2)}

    def state_dict(self) -> Any:
        return self.state

    def load_state_dict(self, state: Any) -> None:
        self.state = state


class Loop:
    """A training with Accelerate that draws random numbers for the order of its data and for dropout."""

    def __init__(self, **options: Any) -> None:
        set_seed(0)
        self.accelerator = Accelerator(cpu=True, **options)
        model: Any = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1))
        optimizer: Any = torch.optim.AdamW(model.parameters(), lr=0.01)
        loader = torch.utils.data.DataLoader(torch.randn(4 * BATCHES, 4), batch_size=4, shuffle=True)
        self.model, self.optimizer, self.loader = self.accelerator.prepare(model, optimizer, loader)
        self.thing = Thing()
        self.accelerator.register_for_checkpointing(self.thing)
        self.losses: dict[int, float] = {}

    def train(self, keep: CkptAccelerate, epochs: int = 3, at: dict[int, Callable[[], Any]] | None = None) -> None:
        with keep:
            start = keep.resume()
            step = start.step if start else 0
            for epoch in range(keep.first_epoch, epochs):
                for batch in keep.batches(self.loader, epoch):
                    loss = self.model(batch).square().mean()
                    self.accelerator.backward(loss)
                    self.optimizer.step()
                    self.optimizer.zero_grad()
                    step += 1
                    self.losses[step] = loss.item()
                    (at or {}).get(step, int)()
                    keep.step(step, metrics={"loss": loss})


def history(world: World, branch: str = "r") -> list[dict[str, Any]]:
    """The manifests of a branch, oldest first, as an independent reader sees them."""
    manifests = oracle.checkpoints(world.root)
    commits = world.git("rev-list", "--reverse", branch).split()
    return [manifests[commit] for commit in commits if commit in manifests]


def fail() -> None:
    raise ZeroDivisionError("mine")


@pytest.mark.parametrize("every", [4, BATCHES, 2 * BATCHES - 1])
@pytest.mark.parametrize("seedable", [False, True])
def test_a_loop_goes_on_bit_for_bit_in_the_middle_of_an_epoch_and_between_two(
    world: World, every: int, *, seedable: bool
):
    options = {"dataloader_config": DataLoaderConfiguration(use_seedable_sampler=seedable)}
    policy = {"every_n_steps": every}
    through = Loop(**options)
    through.train(CkptAccelerate(through.accelerator, run="through", repo=world.root, policy=policy))

    first = Loop(**options)
    with pytest.raises(ZeroDivisionError):
        keep = CkptAccelerate(first.accelerator, run="r", repo=world.root, policy=policy)
        first.train(keep, at={every + 2: fail})
    again = Loop(**options)
    keep = CkptAccelerate(again.accelerator, run="r", repo=world.root, policy=policy)
    again.train(keep)

    assert keep.resumed.step == every
    assert again.losses == {step: loss for step, loss in through.losses.items() if step > every}
    assert not world.temporaries()


@pytest.mark.parametrize("asynchronous", [True, False])
def test_the_policy_decides_and_what_is_known_is_recorded(world: World, *, asynchronous: bool):
    loop = Loop()
    keep = CkptAccelerate(
        loop.accelerator,
        run="r",
        repo=world.root,
        policy={"every_n_steps": 5, "on_exit": True},
        params={"lr": 0.01},
        asynchronous=asynchronous,
    )

    loop.train(keep, epochs=2)

    found = history(world)
    assert [(m["step"], m["epoch"], m["reason"], m["grade"]) for m in found] == [
        (5, 0, "every_n_steps: 5", "exact"),
        (10, 1, "every_n_steps: 5", "exact"),
        (12, 1, "on_exit", "exact"),
    ]
    assert [m["metrics"]["loss"] for m in found] == [loop.losses[step] for step in (5, 10, 12)]
    assert found[0]["params"] == {"lr": 0.01}
    assert keep.last_durable_step == 12


class Trap:
    """Whoever unpickles it makes a folder."""

    def __init__(self, where: Path) -> None:
        self.where = where

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.where),)


def test_registered_objects_come_back_and_are_never_unpickled_by_us(world: World, tmp_path: Path):
    loop = Loop()
    loop.thing.state = {"a set": {7}, "a slice": slice(3, 4), "a trap": Trap(tmp_path / "sprung")}
    with CkptAccelerate(loop.accelerator, run="r", repo=world.root) as keep:
        keep.save(1)
    world.ckpt("export", "r", tmp_path / "out", "--format", "hf")
    assert not (tmp_path / "sprung").exists()

    again = Loop()
    with CkptAccelerate(again.accelerator, run="r", repo=world.root) as keep:
        assert keep.resume().step == 1

    assert (tmp_path / "sprung").exists(), "Accelerate itself does, and so the object came back"
    assert again.thing.state == {"a set": {7}, "a slice": slice(3, 4), "a trap": None}


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_saves_the_step_and_ends_the_process(world: World, name: str):
    loop = Loop()
    keep = CkptAccelerate(loop.accelerator, run="r", repo=world.root, policy={"on_preemption": True})

    with pytest.raises(Preempted) as caught:
        loop.train(keep, at={3: lambda: os.kill(os.getpid(), signal.Signals[name])})

    assert caught.value.code == 128 + signal.Signals[name]
    assert [(m["step"], m["reason"]) for m in history(world)] == [(3, f"on_preemption: {name}")]


def test_an_exception_saves_the_last_step(world: World):
    loop = Loop()
    keep = CkptAccelerate(loop.accelerator, run="r", repo=world.root, policy={"on_exception": True})

    with pytest.raises(ZeroDivisionError, match="mine"):
        loop.train(keep, at={3: fail})

    told = [(m["step"], m["reason"], m["grade"]) for m in history(world)]
    assert told == [(2, "on_exception: ZeroDivisionError", "approximate")]


def test_what_an_exception_saved_is_not_gone_on_from(world: World):
    policy = {"every_n_steps": 2, "on_exception": True}
    loop = Loop()
    with pytest.raises(ZeroDivisionError):
        loop.train(CkptAccelerate(loop.accelerator, run="r", repo=world.root, policy=policy), at={4: fail})

    again = Loop()
    with CkptAccelerate(again.accelerator, run="r", repo=world.root, policy=policy) as keep:
        resumed = keep.resume()

    assert [m["step"] for m in history(world)] == [2, 3]
    assert resumed.step == 2
    assert "in the middle of a step" in resumed.skipped[0]


def test_a_failure_of_before_does_not_cost_the_save_at_the_end(world: World):
    def fail_first_save() -> None:
        world.cache.parent.mkdir(parents=True, exist_ok=True)
        world.cache.write_text("no folder")

    def mend_and_end() -> None:
        while keep._run.saver.is_busy:
            time.sleep(0.01)
        world.cache.unlink()
        os.kill(os.getpid(), signal.SIGTERM)

    loop = Loop()
    keep = CkptAccelerate(
        loop.accelerator, run="r", repo=world.root, policy={"every_n_steps": 2, "on_preemption": True}
    )

    with pytest.raises(Preempted):
        loop.train(keep, at={2: fail_first_save, 3: mend_and_end})

    assert [(m["step"], m["reason"]) for m in history(world)] == [(3, "on_preemption: SIGTERM")]


def test_leaving_with_exit_status_0_is_a_proper_end_and_after_it_nothing_is_taken_for_saved(world: World):
    loop = Loop()
    keep = CkptAccelerate(loop.accelerator, run="r", repo=world.root, policy={"on_exit": True})

    with pytest.raises(SystemExit):
        loop.train(keep, at={3: lambda: sys.exit(0)})

    assert [(m["step"], m["reason"]) for m in history(world)] == [(2, "on_exit")]
    with pytest.raises(UsageError, match="is closed"):
        keep.step(4)


def test_numbers_of_other_libraries_are_numbers_and_samples_come_back(world: World):
    loop = Loop()
    with CkptAccelerate(loop.accelerator, run="r", repo=world.root, policy={"every_n_steps": 1}) as keep:
        keep.step(np.int64(3), epoch=np.float32(0.5), samples=torch.tensor(64), metrics={"loss": np.float64(1.0)})

    (manifest,) = history(world)
    assert (manifest["step"], manifest["epoch"], manifest["metrics"]) == (3, 0.5, {"loss": 1.0})
    with CkptAccelerate(Loop().accelerator, run="r", repo=world.root, policy={}) as keep:
        assert keep.resume().samples == 64


def test_a_place_in_the_data_that_nobody_told_of_is_no_exact_start(world: World):
    loop = Loop()
    with CkptAccelerate(loop.accelerator, run="r", repo=world.root, policy={}) as keep:
        for _ in loop.loader:
            keep.save(1)
            break

    assert [m["grade"] for m in history(world)] == ["approximate"]


def test_a_checkpoint_that_is_named_is_forked(world: World):
    loop = Loop()
    loop.train(CkptAccelerate(loop.accelerator, run="r", repo=world.root, policy={"every_n_steps": 5}), epochs=2)
    base = world.ckpt("show", "r@step:5", "--json").json["id"]

    again = Loop()
    with CkptAccelerate(again.accelerator, run="other", repo=world.root, policy={"every_n_steps": 100}) as keep:
        assert keep.resume("r@step:5").step == 5
        keep.save(6)

    assert history(world, "other")[-1]["parents"] == [base]


def test_folders_that_accelerate_names_itself_stay(world: World):
    project = ProjectConfiguration(str(world.root / "project"), automatic_checkpoint_naming=True, total_limit=1)
    loop = Loop(project_config=project)

    loop.train(CkptAccelerate(loop.accelerator, run="r", repo=world.root, policy={"every_n_steps": 5}), epochs=2)

    assert [m["step"] for m in history(world)] == [5, 10]
    assert [path.name for path in (world.root / "project/checkpoints").iterdir()] == ["checkpoint_1"]


def test_a_folder_that_was_committed_by_hand_is_gone_on_from(world: World, tmp_path: Path):
    loop = Loop()
    loop.accelerator.save_state(str(tmp_path / "saved"))
    world.ckpt("commit", tmp_path / "saved", "--branch", "r", "--step", "9")

    again = Loop()
    with CkptAccelerate(again.accelerator, run="r", repo=world.root) as keep:
        assert (keep.resume().step, keep.first_epoch) == (9, 0)


def test_a_checkpoint_of_another_loop_is_refused(world: World):
    with world.repo() as repo:
        repo.commit({"model": {"w": torch.ones(2)}}, branch="r", step=1)
    keep = CkptAccelerate(Loop().accelerator, run="r", repo=world.root)

    with pytest.raises(FormatError, match="Accelerate did not write it"):
        keep.resume()


def test_a_grade_that_is_demanded_and_not_given_is_refused(world: World):
    accelerator = Accelerator(cpu=True)
    accelerator.prepare(torch.nn.Linear(2, 2))
    keep = CkptAccelerate(accelerator, run="r", repo=world.root, policy={"grade": "exact"})

    with pytest.raises(UsageError, match="the policy demands exact"):
        keep.save(1)


def test_what_fails_in_the_background_is_raised_at_the_next_step(world: World):
    loop = Loop()
    keep = CkptAccelerate(loop.accelerator, run="r", repo=world.root, policy={"every_n_steps": 2})
    world.cache.parent.mkdir(parents=True, exist_ok=True)
    world.cache.write_text("no folder")

    with pytest.raises(CkptvcsError):
        loop.train(keep)

    assert len(loop.losses) <= 4
