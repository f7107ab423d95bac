"""Lightning: saved where the state is whole, and gone on with as if nothing had been."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from ckptvcs.errors import CkptvcsError, NotFound, UsageError
from ckptvcs.train.lightning import CkptCallback, CkptIO
from ckptvcs.train.preemption import Preempted
from tests.support import lit
from tests.support.world import World

pytestmark = pytest.mark.filterwarnings("ignore")
EACH = {"every_n_steps": 1, "on_exit": True}


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


def callback(world: World, run: str = "lit", policy: Any = EACH, **options: Any) -> CkptCallback:
    return CkptCallback(run=run, repo=world.root, policy=policy, **{"asynchronous": False, **options})


def fit(ck: CkptCallback, log: list[str] | None = None, kind: str = "plain", **options: Any) -> lightning.Trainer:
    return lit.fit(ck, kind, ([] if log is None else log).append, **{"max_epochs": 1, **options})


def history(world: World, revision: str = "lit") -> dict[int, Any]:
    """The manifests of a branch by their step."""
    with world.repo() as repo:
        return {found.manifest.step: found.manifest for found in repo.log(revision)}


class Stop(Callback):
    """Raises at a batch."""

    def __init__(self, at: int, error: BaseException) -> None:
        self.at, self.error = at, error

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        if index == self.at:
            raise self.error


# ------------------------------------------------------------------------------------------------------------ exactness


@pytest.mark.parametrize("kind", ["plain", "stateful"])
def test_from_every_place_training_goes_on_to_the_same_bits(world: World, kind: str):
    if kind == "stateful":
        pytest.importorskip("torchdata")
    whole: list[str] = []
    through = fit(callback(world), whole, kind, max_epochs=2)
    # 1: within an epoch, 3: after the validation in its middle, 6: between epochs, 7: after that
    for step in (1, 3, 6, 7):
        told: list[str] = []

        again = fit(
            callback(world, f"from-{step}"), told, kind, max_epochs=2, path=f"ckpt://lit@step:{step}", safe=True
        )

        assert lit.parameters(again) == lit.parameters(through)
        assert told == whole[len(whole) - len(told) :]
        assert 0 < len(told) < len(whole)
    assert {manifest.grade for manifest in history(world).values()} == {"exact"}


def test_where_steps_are_counted_and_not_epochs_it_is_the_same(world: World):
    options: dict[str, Any] = {"max_epochs": -1, "max_steps": 9, "accumulate_grad_batches": 3}
    whole: list[str] = []
    fit(callback(world), whole, **options)
    told: list[str] = []

    fit(callback(world, "again"), told, path="ckpt://lit@step:4", **options)

    assert history(world)[9].reason.startswith("every_n_steps")
    assert told == whole[-len(told) :]


def test_last_begins_where_there_is_nothing_goes_on_where_there_is_and_does_nothing_where_all_is_done(world: World):
    first, second, third = [], [], []

    fit(callback(world), first)
    fit(callback(world), second, max_epochs=2)
    trainer = fit(callback(world), third, max_epochs=2)

    assert first[0].startswith("train 0 0")
    assert second[0].startswith("train 1 0")
    assert third == []
    assert trainer.global_step == 12
    assert "val_loss" in trainer.callback_metrics
    assert list(history(world)) == list(range(12, 0, -1))


def test_a_branch_that_was_deleted_is_nothing_to_go_on_with(world: World):
    fit(callback(world))
    world.git("branch", "-D", "lit")
    log: list[str] = []

    fit(callback(world), log)

    assert log[0].startswith("train 0 0")


def test_a_damaged_checkpoint_is_passed_over(world: World, flip):
    ck = callback(world)
    fit(ck)
    newest, before = (history(world)[step] for step in (6, 5))
    old = {file.md5 for file in before.all_files()}
    file = next(file for file in newest.all_files() if file.md5 not in old)
    flip(world.cache / file.md5[:2] / file.md5[2:])
    log: list[str] = []
    again = callback(world)

    fit(again, log, max_epochs=2)

    assert log[0].startswith("train 0 10"), "from step 5"
    assert "step 6" in again.io().skipped[0]


def test_a_fork_leaves_the_branch_alone(world: World):
    fit(callback(world))
    tip = world.git("rev-parse", "lit")
    ck = callback(world)

    fit(ck, path="ckpt://lit@step:2")

    assert world.git("rev-parse", "lit") == tip
    assert ck.last_saved is not None
    assert ck.last_saved.branch == "lit-2"
    assert history(world, "lit-2")[3].parents == (history_id(world, "lit", 2),)


def history_id(world: World, revision: str, step: int) -> str:
    with world.repo() as repo:
        return next(found.id for found in repo.log(revision) if found.manifest.step == step)


# --------------------------------------------------------------------------------------------------------- what is saved


def test_a_checkpoint_tells_what_it_is(world: World):
    (world.root / "words.txt").write_text("a b c")

    ck = callback(world, data={"corpus": "v3"}, aux=[world.root / "words.txt"], params={"team": "a"})
    fit(ck)

    found = history(world)[6]
    assert found.params == {"lr": 0.05, "team": "a"}
    assert set(found.metrics) == {"loss", "val_loss"}
    assert (found.epoch, found.grade, found.reason) == (1, "exact", "every_n_steps: 1; on_exit")
    assert found.provenance.environment.packages["lightning"] == lightning.__version__
    assert found.files[0].path == "auxiliary/words.txt"
    roles = {component.name: component.role for component in found.components}
    assert roles["state_dict"], roles["rng"] == ("model", "rng")
    assert ck.last_durable_step == 6


def test_in_the_background_it_is_the_same(world: World):
    fit(callback(world, asynchronous=True))

    assert list(history(world)) == [6, 5, 4, 3, 2, 1]


def test_events_and_metrics_are_reasons(world: World):
    policy = {"on_event": ["warm"], "on_improvement": {"monitor": "val_loss", "mode": "min"}}
    ck = callback(world, policy=policy)
    log: list[str] = []

    def record(line: str) -> None:
        log.append(line)
        if line.startswith("train 0 3"):
            ck.event("warm")

    lit.fit(ck, "plain", record, max_epochs=1)

    reasons = {step: found.reason for step, found in history(world).items()}
    assert "on_event: warm" in reasons[2]
    assert "on_improvement: val_loss" in reasons[3], "after the validation, with what it found"


def test_a_loader_that_cannot_tell_its_place_makes_approximate_checkpoints_within_epochs(world: World):
    policy = {"every_n_steps": 1}

    plain_trainer(callback(world, policy=policy)).fit(lit.Net([].append), Batches())

    assert {step: found.grade for step, found in history(world).items()} == {
        1: "approximate",
        2: "approximate",
        3: "exact",
    }
    with pytest.raises(UsageError, match="the policy demands exact"):
        plain_trainer(callback(world, "b", {**policy, "grade": "exact"})).fit(lit.Net([].append), Batches())


class Batches:
    """Something that gives batches, and is no `DataLoader`."""

    def __iter__(self):
        return iter(torch.ones(3, 4, 6))

    def __len__(self) -> int:
        return 3


def plain_trainer(*callbacks: Callback, **options: Any) -> lightning.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return lightning.Trainer(**quiet, **{"max_epochs": 1, **options}, callbacks=list(callbacks))


# ---------------------------------------------------------------------------------------------------------------- endings


def test_a_probe_ends_the_process_with_a_whole_checkpoint(world: World):
    log: list[str] = []
    ck = callback(world, policy={"on_preemption": True}, preempted=lambda: len(log) > 3)

    with pytest.raises(Preempted) as ended:
        fit(ck, log)

    assert ended.value.code == 143
    found = history(world)[2]
    assert (found.reason, found.grade) == ("on_preemption: the probe", "exact")


def test_without_time_for_all_of_it_model_and_optimizer_are_saved_and_it_is_said(world: World):
    policy = {"on_preemption": {"grace_s": 1e-6}}

    with pytest.raises(Preempted):
        fit(callback(world, policy=policy, preempted=lambda: True))

    found = history(world)[1]
    assert "model and optimizer alone" in found.reason
    assert found.grade == "approximate"
    log: list[str] = []
    fit(callback(world), log)
    assert log[0].startswith("train 0 2")


def test_an_exception_is_raised_and_what_there_is_saved(world: World):
    ck = callback(world, policy={"on_exception": True})
    trainer = plain_trainer(Stop(2, ArithmeticError("mine")), ck)

    with pytest.raises(ArithmeticError, match="mine"):
        trainer.fit(lit.Net([].append), lit.loader_of("plain"), lit.loader_of("plain"))

    found = history(world)[2]
    assert (found.reason, found.grade) == ("on_exception: ArithmeticError", "approximate")


def test_what_an_exception_saved_is_not_gone_on_from(world: World):
    def fail(ck: CkptCallback, at: int) -> None:
        with pytest.raises(ArithmeticError):
            plain_trainer(Stop(at, ArithmeticError("mine")), ck).fit(
                lit.Net([].append), lit.loader_of("plain"), lit.loader_of("plain")
            )

    fail(callback(world, "only", policy={"on_exception": True}), 2)
    fail(callback(world, policy={"every_n_steps": 2, "on_exception": True}), 3)
    anew: list[str] = []
    after: list[str] = []

    fit(callback(world, "only"), anew)
    ck = callback(world)
    fit(ck, after, accumulate_grad_batches=1)

    assert anew[0].startswith("train 0 0")
    assert after[0].startswith("train 0 2")
    assert "in the middle of a step" in ck.io().skipped[0]


def test_a_second_fit_of_one_callback_goes_on_where_the_first_one_ended(world: World):
    """Both are one process of the run, though all that a save needs is let go of in between."""
    ck, net, data = callback(world, policy={"on_exit": True}), lit.Net([].append), lit.loader_of("plain")
    for epochs in (1, 2):
        plain_trainer(ck, max_epochs=epochs).fit(net, data, data)

    told = history(world)
    newest, first = told[max(told)], told[min(told)]
    with world.repo() as repo:
        assert newest.parents == (repo.log("lit")[-1].id,)
    assert first.parents == ()
    assert ck.latest_step() == max(told) == ck.last_durable_step


def test_metrics_that_come_late_can_be_noted_after_the_fit(world: World):
    ck = callback(world, asynchronous=True)
    fit(ck)

    ck.note(3, {"wer": 0.5})

    assert world.ckpt("show", "lit@best:wer", "--json").json["step"] == 3
    assert ck.best_step("wer") == 3


def test_of_more_ranks_than_there_are_the_weights_are_gone_on_with(world: World, tmp_path: Path, caplog):
    fit(callback(world))
    with world.repo() as repo:
        state = dict(repo.load("lit@step:2"))
    both = {"$ranks": [state["rng"], state["rng"]]}
    torch.save({**state, "rng": both, "ckptvcs": {**state["ckptvcs"], "loaders": {"$ranks": [{}, {}]}}}, tmp_path / "x")
    world.ckpt("commit", str(tmp_path / "x"), "--branch", "two", "--allow-pickle")
    log: list[str] = []

    fit(callback(world, "one"), log, path="ckpt://two", safe=True)

    assert log[0].startswith("train 0 4")
    assert "2 processes saved it, and there are 1 now" in caplog.text


def test_what_fails_in_the_background_is_raised_at_the_next_batch(world: World):
    ck = callback(world, asynchronous=True)
    (world.root / ".dvc/cache").parent.mkdir(exist_ok=True)
    (world.root / ".dvc/cache").write_text("in the way")

    with pytest.raises((CkptvcsError, OSError)):
        fit(ck)

    assert ck.last_durable_step is None


# ----------------------------------------------------------------------------------------------------------------- paths


def test_a_path_is_a_note_of_a_commit(world: World, tmp_path: Path):
    trainer = fit(callback(world, policy={}))
    path = tmp_path / "a" / "here.ckpt"

    trainer.save_checkpoint(path)
    trainer.save_checkpoint(tmp_path / "weights.ckpt", weights_only=True)
    state = trainer.strategy.checkpoint_io.load_checkpoint(path, weights_only=True)
    trainer.strategy.remove_checkpoint(path)

    assert not path.exists()
    assert state["global_step"] == 6
    assert all(torch.equal(state["state_dict"][k], v) for k, v in trainer.lightning_module.state_dict().items())
    grades = [line.split()[5] for line in world.ckpt("log", "lit").out.splitlines()]
    assert {"exact", "weights-only"} <= set(" ".join(world.ckpt("log", "lit").out.split()).split()), grades


def test_what_is_no_note_is_left_alone_and_read_as_ever(world: World, tmp_path: Path):
    io = CkptIO(run="lit", repo=world.root)
    torch.save({"pytorch-lightning_version": "2.6.6", "global_step": 3}, tmp_path / "old.ckpt")

    io.remove_checkpoint(tmp_path / "old.ckpt")

    assert io.load_checkpoint(tmp_path / "old.ckpt")["global_step"] == 3
    with pytest.raises(NotFound):
        io.load_checkpoint("ckpt://lit@latest")
    with pytest.raises(NotFound):
        io.load_checkpoint(tmp_path / "none.ckpt")
    with pytest.raises(UsageError, match="storage_options"):
        io.save_checkpoint({}, tmp_path / "x.ckpt", storage_options={"a": 1})


def test_lightnings_own_callback_works_on_commits(world: World, tmp_path: Path):
    keeps = ModelCheckpoint(tmp_path, monitor="val_loss", save_top_k=1, save_last=True)
    io = CkptIO(run="lit", repo=world.root)
    data = lit.loader_of("plain")

    trainer = plain_trainer(keeps, plugins=[io], max_epochs=2)
    trainer.fit(lit.Net([].append), data, data)
    io.close()
    again = plain_trainer(
        ModelCheckpoint(tmp_path, save_last=True), plugins=[CkptIO(run="lit", repo=world.root)], max_epochs=3
    )
    again.fit(lit.Net([].append), data, data, ckpt_path="last")

    assert Path(keeps.best_model_path).read_text().startswith("ckpt://")
    assert again.global_step == 33
    assert {found.grade for found in history(world).values()} == {"approximate"}


def test_what_others_save_by_path_is_not_in_the_way_of_an_exact_start(world: World, tmp_path: Path):
    """They save where Lightning does not go on from exactly, and after the callback."""
    whole: list[str] = []
    fit(callback(world, "whole"), whole, max_epochs=2)
    keeps = ModelCheckpoint(tmp_path, every_n_train_steps=4, save_last=True)
    ck = callback(world, policy={"every_n_steps": 3})
    with pytest.raises(ArithmeticError):
        lit.fit(ck, "plain", [].append, max_epochs=2, extra=[keeps, Stop(10, ArithmeticError())])
    told: list[str] = []

    again = callback(world, policy={"every_n_steps": 3})
    fit(again, told, max_epochs=2)

    assert told == whole[-len(told) :]
    assert "where no training goes on from exactly" in again.io().skipped[0]


def test_the_best_of_the_run_is_what_best_means(world: World):
    (world.root / "ckpt.yaml").write_text("version: 1\nbest: {monitor: val_loss, mode: min}\n")
    ck = callback(world)
    trainer = fit(ck)
    best = min((f for f in history(world).values() if "val_loss" in f.metrics), key=lambda f: f.metrics["val_loss"])

    result = trainer.validate(dataloaders=torch.utils.data.DataLoader(lit.Noisy()), ckpt_path="best", verbose=False)

    assert "val_loss" in result[0]
    assert ck.last_saved is not None
    assert best.metrics["val_loss"] <= ck.last_saved.manifest.metrics["val_loss"]
    assert "lit-2" not in world.git("branch"), "to look at a checkpoint is no fork"


def test_one_trainer_has_one_run(world: World):
    with pytest.raises(UsageError, match="one CkptIO"):
        plain_trainer(callback(world), plugins=[CkptIO(run="other", repo=world.root)]).fit(
            lit.Net([].append), lit.loader_of("plain")
        )
