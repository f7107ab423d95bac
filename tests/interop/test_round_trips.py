"""Real states of real programs come back bit for bit, and go back to the programs that made them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import minilm
from tests.support.same import assert_same
from tests.support.world import World


def through(world: World, source: Path) -> Any:
    """Commit a file and load it, in processes and ways that a user has."""
    world.ckpt("commit", source)
    with world.repo() as repo:
        state = repo.load("HEAD")
        return dict(state) if hasattr(state, "keys") and not isinstance(state, dict) else state


def minilm_state(dtype: Any = None) -> dict[str, Any]:
    """MiniLM after two steps of AdamW, with scheduler and generators."""
    torch.manual_seed(3)
    model = minilm.model(dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=10)
    for seed in range(2):
        minilm.step(model, optimizer, seed)
        scheduler.step()
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "rng": {"torch": torch.get_rng_state(), "python": random.getstate(), "numpy": np.random.get_state()},
        "step": 2,
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_minilm_with_adamw_scheduler_and_generators(world: World, tmp_path: Path, dtype: torch.dtype):
    state = minilm_state(dtype)
    torch.save(state, tmp_path / "state.pt")

    assert_same(state, through(world, tmp_path / "state.pt"))


def test_what_comes_out_as_pt_equals_what_went_in(world: World, tmp_path: Path):
    state = {
        "model": torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8)).state_dict(),
        "ids": torch.arange(6).reshape(2, 3).t(),
        "lr": 1e-3,
        "betas": (0.9, float("inf"), float("nan"), -0.0),
        "empty": torch.empty(0, 4),
    }
    torch.save(state, tmp_path / "in.pt")
    world.ckpt("commit", tmp_path / "in.pt")

    world.ckpt("export", "HEAD", tmp_path / "out.pt")

    before, after = (torch.load(tmp_path / name, weights_only=True) for name in ("in.pt", "out.pt"))
    assert_same(before, after)


def test_tied_weights_and_an_empty_optimizer(world: World, tmp_path: Path):
    embedding = torch.nn.Embedding(50, 16)
    head = torch.nn.Linear(16, 50, bias=False)
    head.weight = embedding.weight
    model = torch.nn.ModuleDict({"embedding": embedding, "head": head})
    state = {"model": model.state_dict(), "optimizer": torch.optim.AdamW(model.parameters()).state_dict()}
    torch.save(state, tmp_path / "tied.pt")

    back = through(world, tmp_path / "tied.pt")

    assert_same(state, back)
    back["model"]["head.weight"][0, 0] = 42.0
    assert back["model"]["embedding.weight"][0, 0] == 42.0


def test_a_file_from_before_torch_1_6(world: World, tmp_path: Path):
    state = {"model": {"w": torch.randn(3, 3), "v": torch.arange(4)}, "epoch": 3}
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)

    back = through(world, tmp_path / "old.pth")

    assert_same(state, back)
    assert world.ckpt("show", "--json").json["manifest"]["source"]["format"] == "pt-legacy"


def test_a_safetensors_file_and_its_metadata(world: World, tmp_path: Path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    tensors = {"a": torch.randn(4, 4), "b": torch.arange(3), "c": torch.ones(2, dtype=torch.bfloat16)}
    save_file(tensors, tmp_path / "in.safetensors", metadata={"format": "pt", "trained_by": "me"})

    back = through(world, tmp_path / "in.safetensors")
    world.ckpt("export", "HEAD", tmp_path / "out.safetensors")

    assert_same({name: tensors[name] for name in back}, back)
    with safe_open(tmp_path / "out.safetensors", "pt") as out:
        assert out.metadata() == {"format": "pt", "trained_by": "me"}
        assert all(torch.equal(out.get_tensor(name), tensors[name]) for name in tensors)


def test_a_pretrained_folder_comes_back_for_transformers(world: World, tmp_path: Path):
    from transformers import AutoModel, AutoTokenizer

    world.ckpt("commit", minilm.folder(), "-m", "pretrained")
    world.dvc("remote", "add", "-d", "store", str(tmp_path / "store"))
    world.git("commit", "-qam", "a remote")
    world.dvc("push", "-q")

    clone = world.clone(tmp_path / "clone")
    clone.dvc("pull", "-q")
    model = AutoModel.from_pretrained(clone.root / "checkpoints/model/model")
    tokenizer = AutoTokenizer.from_pretrained(clone.root / "checkpoints/model/model")

    expected = minilm.model().state_dict()
    assert_same(dict(expected), dict(model.state_dict()))
    assert (
        tokenizer("hello world")["input_ids"]
        == AutoTokenizer.from_pretrained(minilm.folder())("hello world")["input_ids"]
    )
    world.ckpt("export", "HEAD", tmp_path / "exported", "--format", "hf")
    assert_same(dict(expected), dict(AutoModel.from_pretrained(tmp_path / "exported").state_dict()))
    ours = {p.relative_to(tmp_path / "exported") for p in (tmp_path / "exported").rglob("*") if p.is_file()}
    theirs = {p.relative_to(minilm.folder()) for p in minilm.folder().rglob("*") if p.is_file()}
    assert ours == theirs - {Path(".gitattributes")}


class TestLightning:
    """A checkpoint of Lightning's Trainer."""

    @staticmethod
    def module() -> Any:
        import lightning

        class Module(lightning.LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.save_hyperparameters({"lr": 0.1, "name": "x"})
                self.layers = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(0.1), torch.nn.Linear(8, 1))

            def training_step(self, batch: Any, _: int) -> torch.Tensor:
                return self.layers(batch[0]).square().mean()

            def configure_optimizers(self) -> Any:
                optimizer = torch.optim.AdamW(self.parameters(), lr=0.1)
                return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

        torch.manual_seed(0)
        return Module()

    @staticmethod
    def trainer(folder: Path, **options: Any) -> Any:
        import lightning

        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
        return lightning.Trainer(default_root_dir=folder, enable_checkpointing=False, **quiet, **options)

    @staticmethod
    def data() -> Any:
        generator = torch.Generator().manual_seed(5)
        dataset = torch.utils.data.TensorDataset(torch.randn(32, 8, generator=generator))
        return torch.utils.data.DataLoader(dataset, batch_size=4)

    def test_it_comes_back_and_the_trainer_goes_on_from_it(self, world: World, tmp_path: Path):
        trainer = self.trainer(tmp_path, max_epochs=2)
        trainer.fit(self.module(), self.data())
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        original = torch.load(tmp_path / "last.ckpt", weights_only=False)

        back = through(world, tmp_path / "last.ckpt")
        world.ckpt("export", "HEAD", tmp_path / "again.ckpt")

        assert_same(original, back)
        shown = world.ckpt("show", "--json").json
        assert (shown["step"], shown["epoch"], shown["params"]["lr"]) == (16, 2, 0.1) or shown["step"] == 16
        ends = []
        for name in ("last.ckpt", "again.ckpt"):
            torch.manual_seed(9)
            module, trainer = self.module(), self.trainer(tmp_path, max_epochs=4)
            trainer.fit(module, self.data(), ckpt_path=tmp_path / name)
            ends.append({key: value.clone() for key, value in module.state_dict().items()})
        assert_same(*ends)


class TestTrainer:
    """A checkpoint folder of Hugging Face's Trainer."""

    @staticmethod
    def trainer(folder: Path, steps: int) -> Any:
        from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments, set_seed

        set_seed(1)
        config = BertConfig(
            vocab_size=100,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            num_labels=2,
        )
        arguments = TrainingArguments(
            output_dir=str(folder),
            max_steps=steps,
            save_steps=4,
            per_device_train_batch_size=4,
            logging_steps=2,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            lr_scheduler_type="cosine",
        )
        rows = torch.randint(0, 100, (64, 12), generator=torch.Generator().manual_seed(2))
        data = [{"input_ids": row, "labels": int(row[0]) % 2} for row in rows]
        return Trainer(model=BertForSequenceClassification(config), args=arguments, train_dataset=data)

    def test_it_comes_back_and_the_trainer_goes_on_from_it(self, world: World, tmp_path: Path):
        self.trainer(tmp_path / "out", 4).train()
        source = tmp_path / "out/checkpoint-4"

        world.ckpt("commit", source)
        world.ckpt("export", "HEAD", tmp_path / "exported/checkpoint-4", "--format", "hf", status=30)
        (tmp_path / "exported").mkdir()
        exported = tmp_path / "exported/checkpoint-4"
        world.ckpt("export", "HEAD", exported, "--format", "hf")

        shown = world.ckpt("show", "--json").json
        assert shown["step"] == 4
        assert "loss" in shown["metrics"]
        assert {p.name for p in source.iterdir()} == {p.name for p in exported.iterdir()}
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
            assert_same(*(torch.load(folder / name, weights_only=False) for folder in (source, exported)))
        for name in ("training_args.bin", "trainer_state.json", "config.json"):
            assert (source / name).read_bytes() == (exported / name).read_bytes()
        ends = []
        for folder in (source, exported):
            trainer = self.trainer(tmp_path / f"go-on-{len(ends)}", 8)
            trainer.train(resume_from_checkpoint=str(folder))
            ends.append({k: v.clone() for k, v in trainer.model.state_dict().items()})
        assert_same(*ends)

    def test_its_parts_are_components(self, world: World, tmp_path: Path):
        self.trainer(tmp_path / "out", 4).train()

        world.ckpt("commit", tmp_path / "out/checkpoint-4")

        shown = world.ckpt("show", "--json").json
        roles = {c["name"]: c["role"] for c in shown["manifest"]["components"]}
        assert roles == {
            "model": "model",
            "optimizer": "optimizer",
            "scheduler": "scheduler",
            "rng_state": "rng",
            "extra": "extra",
        }
        assert shown["grade"] == "exact"


def test_a_sharded_folder_with_an_index(world: World, tmp_path: Path):
    model = minilm.model()
    model.save_pretrained(tmp_path / "sharded", max_shard_size="20MB")
    assert len(list((tmp_path / "sharded").glob("model-*.safetensors"))) > 2

    back = through(world, tmp_path / "sharded")

    assert_same(dict(model.state_dict()), {name: back["model"][name] for name in model.state_dict()})
    index = json.loads((world.root / "checkpoints/model/model/model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(model.state_dict())
