"""A LoRA run on MiniLM: how much of it a plain DVC cache holds, against as many `.pt` files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ckptvcs import Checkpointer, Repo
from tests.support import minilm

CHECKPOINTS = 8


def lora() -> tuple[Any, torch.optim.Optimizer]:
    """MiniLM with a frozen base and rank-16 adapters on its attention."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(r=16, target_modules=["query", "key", "value"], lora_alpha=32)
    model = get_peft_model(minilm.model(), config)
    return model, torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-3)


def stored(root: Path) -> int:
    """Bytes in the cache of a repository."""
    return sum(path.stat().st_size for path in (root / ".dvc/cache/files/md5").glob("??/*"))


def raw(folder: Path) -> int:
    """Bytes of as many `.pt` files as there are checkpoints."""
    model, optimizer = lora()
    minilm.step(model, optimizer, 0)
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, folder / "raw.pt")
    return CHECKPOINTS * (folder / "raw.pt").stat().st_size


def through_checkpointer(root: Path) -> None:
    """Train, and save with `Checkpointer`."""
    model, optimizer = lora()
    with Checkpointer(model=model, optimizer=optimizer, run="lora", repo=root) as ck:
        for step in range(CHECKPOINTS):
            minilm.step(model, optimizer, step)
            ck.save(step)


def from_bare_files(root: Path, file: Path) -> None:
    """Train, save with `torch.save`, and commit the file."""
    model, optimizer = lora()
    with Repo(root) as repo:
        for step in range(CHECKPOINTS):
            minilm.step(model, optimizer, step)
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
            repo.commit(file, step=step, branch="lora")
