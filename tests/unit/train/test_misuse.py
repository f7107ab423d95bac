"""What users do that nobody means: it is said at once, in words, and costs nothing that was saved."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptvcs
from ckptvcs.errors import CkptvcsError, FormatError, LockHeld, UsageError
from tests.support import oracle
from tests.support.world import World

ROOT = Path(__file__).parents[3]
HEAD = """
import sys, time, torch, ckptvcs
m = torch.nn.Linear(4, 1)
o = torch.optim.AdamW(m.parameters())
ck = ckptvcs.Checkpointer(run="r", model=m, optimizer=o, policy={"every_n_steps": 5})
"""


def manifests(world: World) -> list[dict[str, Any]]:
    """The manifests of the run, oldest first, as git alone gives them."""
    found = oracle.checkpoints(world.root)
    return [found[commit] for commit in world.git("rev-list", "--reverse", "r").split() if commit in found]


def start(world: World, script: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HEAD + textwrap.dedent(script)],
        cwd=world.root,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("end", ["", "raise ZeroDivisionError", "sys.exit(3)"])
def test_what_is_under_way_is_committed_though_nobody_closes_anything(world: World, end: str):
    process = start(world, f"for step in range(6): ck.step(step)\n{end}")
    _, errors = process.communicate(timeout=120)

    assert process.returncode == (1 if "raise" in end else 3 if end else 0), errors
    assert [m["step"] for m in manifests(world)] == [5]


def test_two_processes_do_not_make_one_line_of_two_trainings(world: World, begin, keeper, monkeypatch):
    from ckptvcs.train import saver

    monkeypatch.setattr(saver, "_CLAIM_WAIT_S", 0.2)
    other = start(world, "ck.save(1); ck.wait_until_finished(); print('saved', flush=True); sys.stdin.read()")
    assert other.stdout is not None
    assert other.stdout.readline() == "saved\n"

    with pytest.raises(LockHeld, match=f"process {other.pid} trains it right now"):
        keeper(begin().parts).save(2)
    keeper(begin().parts, run="other").save(2)
    other.kill()
    other.communicate()
    with keeper(begin().parts) as keep:
        keep.save(3)

    assert [m["step"] for m in manifests(world)] == [1, 3]


def test_one_process_may_have_a_run_twice(begin, keeper, world):
    first, second = keeper(begin().parts), keeper(begin().parts)
    first.save(1)
    second.save(2)
    first.close()
    second.save(3)
    second.close()

    saved = [m["step"] for m in manifests(world)]
    assert sorted(saved) == [1, 2, 3]  # the first two were under way at once
    assert saved[2] == 3


def test_a_training_that_forgot_to_go_on_is_told(begin, keeper, caplog):
    with keeper(begin().parts) as keep:
        keep.save(40)
    assert not caplog.text

    keeper(begin().parts).save(5)

    assert "has checkpoints up to step 40, and this training did not go on from them" in caplog.text


@pytest.mark.parametrize("name", ["my run", "", "a@b", "x" * 300, 5, None, "a..b"])
def test_a_name_that_no_branch_can_have_is_refused_at_once(begin, keeper, name: Any):
    with pytest.raises(UsageError, match="cannot be the name of a branch"):
        keeper(begin().parts, run=name)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"policy": "auto"}, "no mapping of keys to values"),
        ({"policy": {"every_n_step": 1}}, "did you mean 'every_n_steps'"),
        ({"policy": {"on_improvement": {"monitr": "loss"}}}, "did you mean 'monitor'"),
        ({"data": ["a.txt"]}, "no mapping"),
        ({"data": {"a": 1}}, "are texts"),
        ({"params": 3}, "no mapping"),
        ({"preempted": True}, "must be something that can be called"),
        ({"polcy": {}}, "did you mean 'policy='"),
    ],
)
def test_what_is_of_the_wrong_kind_is_named(begin, keeper, options: dict[str, Any], what: str):
    with pytest.raises(CkptvcsError) as caught:
        keeper(
            {**begin().parts, **{k: v for k, v in options.items() if k == "polcy"}},
            **{k: v for k, v in options.items() if k != "polcy"},
        )

    assert what in f"{caught.value} {caught.value.next_step}"


@pytest.mark.parametrize("metrics", [0.5, {3: 1.0}, {"loss": "low"}])
def test_metrics_that_are_none_are_refused_before_anything_is_saved(begin, keeper, world, metrics: Any):
    keep = keeper(begin().parts)
    for call in (keep.save, keep.step):
        with pytest.raises(UsageError, match="metric"):
            call(1, metrics=metrics)
    with pytest.raises(UsageError, match="from 0 on"):
        keep.save(-1)

    assert not world.git("branch", "--list", "r")


def test_a_plain_loader_is_answered_with_one_that_knows_its_place(keeper):
    with pytest.raises(UsageError) as caught:
        keeper({"model": torch.nn.Linear(2, 2), "dataloader": torch.utils.data.DataLoader([1, 2])})

    assert "StatefulDataLoader" in caught.value.next_step


def test_one_auxiliary_file_needs_no_list(begin, keeper, world, tmp_path: Path):
    (tmp_path / "tok.txt").write_text("x")
    with keeper(begin().parts, aux=str(tmp_path / "tok.txt")) as keep:
        keep.save(1)

    assert "auxiliary/tok.txt" in [file["path"] for file in manifests(world)[0]["files"]]


def test_a_start_from_a_file_of_which_nothing_fits_is_refused(keeper, tmp_path: Path):
    model = torch.nn.Linear(4, 4)
    torch.save({"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "ddp.pt")
    before = model.weight.clone()

    with pytest.raises(FormatError, match="nothing of checkpoint") as caught:
        keeper({"model": model}).warm_start(tmp_path / "ddp.pt")

    assert torch.equal(model.weight, before)
    assert "names begin with 'module.'" in caught.value.next_step


def test_what_the_training_has_and_the_newest_checkpoint_has_not_does_not_lead_far_back(begin, keeper):
    training = begin()
    with keeper(training.parts) as keep:
        keep.save(10)
    with keeper({"model": training.model, "optimizer": training.optimizer}) as less:
        less.resume(strict=False)
        less.save(1000)

    with pytest.raises(FormatError, match="scheduler: the checkpoint has no such component"):
        keeper(begin().parts).resume()


@pytest.mark.parametrize(("components", "what"), [(["modl"], "'modl'"), ([], "names no part")])
def test_components_that_are_none_are_a_mistake_of_the_caller(begin, keeper, components: list[str], what: str):
    keeper(begin().parts, asynchronous=False).save(1)

    with pytest.raises(UsageError, match=what):
        keeper(begin().parts).resume(components=components)


def test_one_component_needs_no_list(begin, keeper):
    keeper(begin().parts, asynchronous=False).save(1)

    assert keeper(begin().parts, run="tuned").resume("r", components="model").step == 1


def test_how_far_it_is_safe_is_known_right_after_a_resume(begin, keeper):
    with keeper(begin().parts) as keep:
        keep.save(7)

    again = keeper(begin().parts)
    assert again.last_durable_step is None
    again.resume()

    assert again.last_durable_step == 7


def test_a_traceback_tells_the_next_step(begin, keeper):
    if not hasattr(BaseException, "add_note"):
        pytest.skip("notes are of Python 3.11")
    with pytest.raises(UsageError) as caught:
        ckptvcs.Checkpointer(run="r", model=None)

    assert caught.value.__notes__ == ["next: pass model=, optimizer=..."]
