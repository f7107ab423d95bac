"""What is frozen is stored once: the plain DVC cache of a LoRA run stays close to what really changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ckptvcs import Checkpointer
from tests.support import minilm
from tests.support.world import World

CHECKPOINTS = 8


def lora() -> tuple[Any, torch.optim.Optimizer]:
    """MiniLM with a frozen base and rank-16 adapters on its attention."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(r=16, target_modules=["query", "key", "value"], lora_alpha=32)
    model = get_peft_model(minilm.model(), config)
    return model, torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-3)


def stored(world: World) -> int:
    return sum(path.stat().st_size for path in world.objects().values())


@pytest.fixture
def raw(tmp_path: Path) -> int:
    """What as many `.pt` files take."""
    model, optimizer = lora()
    minilm.step(model, optimizer, 0)
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "raw.pt")
    return CHECKPOINTS * (tmp_path / "raw.pt").stat().st_size


def test_through_checkpointer_at_most_17_percent(world: World, raw: int):
    model, optimizer = lora()
    with Checkpointer(model=model, optimizer=optimizer, run="lora", repo=world.root) as ck:
        for step in range(CHECKPOINTS):
            minilm.step(model, optimizer, step)
            ck.save(step)

    share = stored(world) / raw
    print(f"stored / raw through Checkpointer: {share:.3f}")
    assert share <= 0.17


def test_from_bare_files_at_most_29_percent(world: World, raw: int, tmp_path: Path):
    model, optimizer = lora()
    with world.repo() as repo:
        for step in range(CHECKPOINTS):
            minilm.step(model, optimizer, step)
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "lora.pt")
            repo.commit(tmp_path / "lora.pt", step=step, branch="lora")

    share = stored(world) / raw
    print(f"stored / raw from bare .pt files: {share:.3f}")
    assert share <= 0.29


def test_without_any_hint_the_second_checkpoint_splits_what_changes(world: World, tmp_path: Path):
    torch.manual_seed(0)
    state = {"model": {f"layers.{i}.{part}": torch.randn(300, 300) for i in range(4) for part in ("a", "b")}}
    with world.repo() as repo:
        for step in range(6):
            for i in range(4):
                state["model"][f"layers.{i}.b"] = torch.randn(300, 300)
            repo.commit(state, step=step, branch="run")

    one = 300 * 300 * 4
    # First: all eight tensors. Second: all eight again, apart now. From then on: the four that change.
    assert stored(world) < (8 + 8 + 4 * 4) * one * 1.02
