"""Training states of a given size: a transformer of equal layers and its AdamW."""

from __future__ import annotations

import time
from typing import Any

import torch

LAYERS = 16


def training_state(nbytes: int) -> dict[str, Any]:
    """Weights and both moments of every parameter: 12 bytes each. `nbytes` is what they take together."""
    model = model_state(nbytes // 3)
    moments = {
        i: {"step": torch.tensor(1.0), "exp_avg": random_like(p), "exp_avg_sq": random_like(p)}
        for i, p in enumerate(model.values())
    }
    group = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01, "params": list(range(len(model)))}
    return {"model": model, "optimizer": {"state": moments, "param_groups": [group]}, "step": 0}


def model_state(nbytes: int) -> dict[str, torch.Tensor]:
    """A model of 16 equal layers with two square matrices and two vectors each."""
    width = int((nbytes / LAYERS / 4 / 2) ** 0.5)
    shapes = {
        "attention.weight": (width, width),
        "mlp.weight": (width, width),
        "norm.weight": (width,),
        "bias": (width,),
    }
    return {f"layers.{layer}.{name}": torch.randn(shape) for layer in range(LAYERS) for name, shape in shapes.items()}


class Training:
    """A training whose state, weights and both moments of AdamW, takes `nbytes`; it keeps all cores busy."""

    def __init__(self, nbytes: int) -> None:
        width = int((nbytes / 12 / LAYERS) ** 0.5)
        layers = [torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.GELU()) for _ in range(LAYERS)]
        self.model = torch.nn.Sequential(*layers)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self._batch = torch.randn(64, width)
        self.step()  # makes the moments

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.model(self._batch).square().mean().backward()
        self.optimizer.step()

    def steps_in(self, seconds: float) -> int:
        """How many steps take about so long."""
        began = time.perf_counter()
        for _ in range(5):
            self.step()
        return max(1, int(seconds * 5 / (time.perf_counter() - began)))


def random_like(tensor: torch.Tensor) -> torch.Tensor:
    return torch.randn(tensor.shape)


def tensors(state: Any) -> list[torch.Tensor]:
    """Every tensor in a state."""
    if isinstance(state, torch.Tensor):
        return [state]
    values = state.values() if isinstance(state, dict) else state if isinstance(state, (list, tuple)) else ()
    return [tensor for value in values for tensor in tensors(value)]


def train(some: list[torch.Tensor]) -> None:
    """Change these tensors everywhere, as a step of an optimizer does."""
    for tensor in some:
        tensor.mul_(1.0001).add_(1e-5)


def copy(state: Any) -> Any:
    """One copy of a state in memory, all of it new."""
    if isinstance(state, torch.Tensor):
        return state.clone()
    if isinstance(state, dict):
        return {key: copy(value) for key, value in state.items()}
    return [copy(value) for value in state] if isinstance(state, list) else state
