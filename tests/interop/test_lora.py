"""What is frozen is stored once: the plain DVC cache of a LoRA run stays close to what really changed."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.support import lora
from tests.support.world import World


def test_through_checkpointer_at_most_17_percent(world: World, tmp_path: Path):
    lora.through_checkpointer(world.root)

    assert lora.stored(world.root) <= 0.17 * lora.raw(tmp_path)


def test_from_bare_files_at_most_29_percent(world: World, tmp_path: Path):
    lora.from_bare_files(world.root, tmp_path / "lora.pt")

    assert lora.stored(world.root) <= 0.29 * lora.raw(tmp_path)


def test_without_any_hint_the_second_checkpoint_splits_what_changes(world: World):
    torch.manual_seed(0)
    state = {"model": {f"layers.{i}.{part}": torch.randn(300, 300) for i in range(4) for part in ("a", "b")}}
    with world.repo() as repo:
        for step in range(6):
            for i in range(4):
                state["model"][f"layers.{i}.b"] = torch.randn(300, 300)
            repo.commit(state, step=step, branch="run")

    one = 300 * 300 * 4
    # First: all eight tensors. Second: all eight again, apart now. From then on: the four that change.
    assert lora.stored(world.root) < (8 + 8 + 4 * 4) * one * 1.02
