"""A folder of thirty real checkpoints of mixed formats becomes a history whose exports equal the originals."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from tests.interop import test_round_trips
from tests.support.same import assert_same
from tests.support.world import World

RANKS = """
import sys, torch, torch.distributed as dist, torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}-meet", rank=rank, world_size=2)
mesh = init_device_mesh("cpu", (2,))
torch.manual_seed(7)
whole = {"rows": torch.randn(5, 3), "columns": torch.randn(4, 6), "both": torch.arange(4.0).to(torch.bfloat16)}
placed = [[Shard(0)], [Shard(1)], [Replicate()]]
model = {key: distribute_tensor(value, mesh, to) for (key, value), to in zip(whole.items(), placed)}
dcp.save({"model": model, "step": 40, "note": ("text", None, {1, 2})}, checkpoint_id=folder)
dist.destroy_process_group()
"""


@dataclass(frozen=True)
class Place:
    """Where thirty checkpoints lie."""

    world: World
    root: Path
    made: dict[Path, int | None]
    """Each, with its step."""


def training(seed: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.BatchNorm1d(16), torch.nn.Linear(16, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.randn(4, 8)).square().mean().backward()
    optimizer.step()
    rng = torch.get_rng_state()
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "rng": rng}


def plain_files(runs: Path) -> dict[Path, int | None]:
    made: dict[Path, int | None] = {}
    for folder in ("exp-a", "exp-b", "weights-only", "old"):
        (runs / folder).mkdir(parents=True)
    for step in (100, 200, 1000, 2000, 10000):
        torch.save(training(step), path := runs / f"exp-a/step_{step}.pt")
        made[path] = step
    for epoch in (1, 2, 10):
        torch.save({**training(epoch), "epoch": epoch, "step": 50 * epoch}, path := runs / f"exp-b/model_ep{epoch}.pth")
        made[path] = 50 * epoch
    for step in (5, 10):
        torch.save(
            training(step)["model"], path := runs / f"old/ckpt_{step:04}.pt", _use_new_zipfile_serialization=False
        )
        made[path] = step
    for step in (1, 2, 3, 20, 100):
        path = runs / f"weights-only/iter_{step:06}.safetensors"
        save_file(
            {k: v.contiguous() for k, v in training(step)["model"].items()}, path, metadata={"format": "pt", "n": "1"}
        )
        made[path] = step
    return made


def lightning_files(runs: Path) -> dict[Path, int | None]:
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(8, 1)

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            return self.layer(batch[0]).square().mean()

        def validation_step(self, batch: Any, _: int) -> None:
            self.log("val_loss", self.layer(batch[0]).square().mean())

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=0.1)

    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(8, 8)), batch_size=4)
    folder = runs / "lit/lightning_logs/version_0/checkpoints"
    save = lightning.pytorch.callbacks.ModelCheckpoint(
        folder, filename="{epoch}-{step}-{val_loss:.2f}", monitor="val_loss", save_top_k=-1
    )
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = lightning.Trainer(default_root_dir=runs, callbacks=[save], max_epochs=5, log_every_n_steps=1, **quiet)
    trainer.fit(Module(), data, data)
    return {path: torch.load(path, weights_only=False)["global_step"] for path in folder.iterdir()}


def transformers_folders(runs: Path) -> dict[Path, int | None]:
    trainer = test_round_trips.TestTrainer.trainer(runs / "bert", 12)
    trainer.train()
    trainer.save_model(str(runs / "bert"))
    made: dict[Path, int | None] = {runs / f"bert/checkpoint-{step}": step for step in (4, 8, 12)}
    made[runs / "bert"] = None
    trainer.model.save_pretrained(runs / "tuned/sharded-3", max_shard_size="20KB")
    assert (runs / "tuned/sharded-3/model.safetensors.index.json").exists()
    trainer.model.save_pretrained(runs / "tuned/whole-2")
    return {**made, runs / "tuned/sharded-3": None, runs / "tuned/whole-2": None}


def distributed_folders(runs: Path) -> dict[Path, int | None]:
    (runs / "dist").mkdir()
    made: dict[Path, int | None] = {}
    for step in (10, 20, 30):
        path = runs / f"dist/step-{step}"
        state = {**training(step), "step": step, "list": [torch.ones(2), 3]}
        dcp.save(state, checkpoint_id=path, no_dist=True)
        made[path] = step
    ranks = [
        subprocess.Popen([sys.executable, "-W", "ignore", "-c", RANKS, str(rank), str(runs / "dist/step-40")])
        for rank in (0, 1)
    ]
    assert [process.wait(120) for process in ranks] == [0, 0]
    (runs / "dist/step-40-meet").unlink(missing_ok=True)
    return {**made, runs / "dist/step-40": 40}


pytestmark = pytest.mark.filterwarnings("ignore:.*torch.distributed is disabled.*:UserWarning")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"NAME": "Test", "EMAIL": "test@example.com"}.items():
            patch.setenv(f"GIT_AUTHOR_{name}", value)
            patch.setenv(f"GIT_COMMITTER_{name}", value)
        world = World.create(tmp_path_factory.mktemp("import") / "repo")
        runs = world.root / "runs"
        made = plain_files(runs) | lightning_files(runs) | transformers_folders(runs) | distributed_folders(runs)
        assert len(made) == 30
        world.ckpt("import", "runs", "--json")
    return Place(world, runs, made)


@pytest.fixture(scope="module")
def history(place: Place) -> dict[Path, dict[str, Any]]:
    """What a second import says of each."""
    said = place.world.ckpt("import", "runs", "-n", "--json").json
    return {place.world.root / file["path"]: file for file in said["files"]}


def test_each_of_them_is_a_checkpoint_and_once(place: Place, history: dict[Path, dict[str, Any]]):
    assert set(history) == set(place.made)
    assert {file["status"] for file in history.values()} == {"there"}
    assert len({file["id"] for file in history.values()}) == 30
    with place.world.repo() as repo:
        assert {path: repo.show(file["id"]).manifest.step for path, file in history.items()} == place.made


def test_each_export_equals_the_original(place: Place, history: dict[Path, dict[str, Any]], tmp_path: Path):
    for number, (path, file) in enumerate(history.items()):
        check = {"pt": same_pt, "pt-legacy": same_pt, "lightning": same_pt, "safetensors": same_safetensors}
        check |= {"hf": same_hf, "dcp": same_dcp}
        here = tmp_path / str(number)
        here.mkdir()
        check[file["format"]](place, path, file["id"], here)


def same_pt(place: Place, path: Path, identifier: str, here: Path) -> None:
    place.world.ckpt("export", identifier, here / path.name)

    assert_same(*(torch.load(file, weights_only=False) for file in (path, here / path.name)))


def same_safetensors(place: Place, path: Path, identifier: str, here: Path) -> None:
    place.world.ckpt("export", identifier, here / path.name)

    assert_same(load_file(path), load_file(here / path.name))
    metadata = []
    for file in (path, here / path.name):
        with safetensors.safe_open(file, "pt") as opened:
            metadata.append(opened.metadata())
    assert metadata[0] == metadata[1] == {"format": "pt", "n": "1"}


def same_hf(place: Place, path: Path, identifier: str, here: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    place.world.ckpt("export", identifier, here / "out", "--format", "hf")

    names = {file.name for file in path.iterdir() if file.is_file()}
    for name in names:
        one, other = path / name, here / "out" / name
        if name.endswith((".safetensors", ".index.json")):
            continue
        if name.endswith((".pt", ".pth")):
            assert_same(*(torch.load(file, weights_only=False) for file in (one, other)))
        else:
            assert one.read_bytes() == other.read_bytes(), name
    models = [
        AutoModelForSequenceClassification.from_pretrained(folder).state_dict() for folder in (path, here / "out")
    ]
    assert_same(*models)


def same_dcp(place: Place, path: Path, identifier: str, here: Path) -> None:
    place.world.ckpt("export", identifier, here / "ours.pt")
    dcp_to_torch_save(str(path), str(here / "theirs.pt"))

    assert_same(*(torch.load(here / name, weights_only=False) for name in ("theirs.pt", "ours.pt")))


def test_each_run_is_a_branch_in_the_order_of_training(place: Place):
    steps = {}
    with place.world.repo() as repo:
        for branch in ("exp-a", "exp-b", "weights-only", "old", "lit-version_0", "bert", "tuned", "dist"):
            steps[branch] = [checkpoint.manifest.step for checkpoint in repo.log(branch)][::-1]

    assert steps["exp-a"] == [100, 200, 1000, 2000, 10000]
    assert steps["exp-b"] == [50, 100, 500]
    assert steps["lit-version_0"] == [2, 4, 6, 8, 10]
    assert steps["bert"] == [4, 8, 12, None]
    assert steps["dist"] == [10, 20, 30, 40]
    assert sum(map(len, steps.values())) == 30


def test_dates_are_those_of_the_files_and_git_never_goes_back_in_time(
    place: Place, history: dict[Path, dict[str, Any]]
):
    for path, file in history.items():
        files = [one for one in path.rglob("*") if one.is_file()] if path.name != "bert" else list(path.glob("*.*"))
        newest = max(one.stat().st_mtime for one in files) if path.is_dir() else path.stat().st_mtime
        with place.world.repo() as repo:
            checkpoint = repo.show(file["id"])
        assert abs(datetime.fromisoformat(checkpoint.manifest.created).timestamp() - newest) < 0.01
        assert checkpoint.time.timestamp() == int(newest)
        committed, parent = place.world.git("log", "-2", "--first-parent", "--format=%ct", checkpoint.commit).split()
        assert int(committed) >= int(parent)


def test_scores_come_from_the_files_themselves(place: Place, history: dict[Path, dict[str, Any]]):
    for path, file in history.items():
        if file["format"] == "lightning":
            callbacks = torch.load(path, weights_only=False)["callbacks"].values()
            scores = {Path(name).name: value for c in callbacks for name, value in c.get("best_k_models", {}).items()}
            assert file["metrics"] == {"val_loss": scores[path.name].item()}
            assert file["notes"] == [], "its name contradicts it"
        if path.name.startswith("checkpoint-"):
            assert "loss" in file["metrics"]
    assert sum(file["best"] for file in history.values()) == 1


def test_nothing_of_it_was_touched(place: Place):
    assert all(path.exists() for path in place.made)
    assert place.world.git("status", "--short") == "?? runs/"


def test_plain_git_and_dvc_have_it(place: Place, tmp_path: Path):
    clone = place.world.clone(tmp_path / "clone")
    clone.git("checkout", "-q", "weights-only")
    clone.dvc("cache", "dir", "--local", place.world.root / ".dvc/cache")

    clone.dvc("checkout")

    shards = (clone.root / "checkpoints/model/model").glob("*.safetensors")
    held = {name: tensor for shard in shards for name, tensor in load_file(shard).items()}
    original = load_file(place.root / "weights-only/iter_000100.safetensors")
    assert_same(original, {name: held[name] for name in original})
