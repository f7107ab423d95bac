"""What the tests of training share: a training that draws random numbers everywhere, and a repository for it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ckptvcs import Checkpointer
from ckptvcs.errors import CkptvcsError
from tests.support.world import World
from tests.unit.storage.conftest import _libgit2_sees_this_home, flip, without_privilege

__all__ = ["_libgit2_sees_this_home", "flip", "without_privilege"]


@dataclass
class Training:
    """A small training whose losses depend on every generator, the moments, the schedule and the place in the data."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    loader: Loader

    @classmethod
    def begin(cls, seed: int = 0) -> Training:
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        model = torch.nn.Sequential(
            torch.nn.Linear(6, 12), torch.nn.BatchNorm1d(12), torch.nn.Dropout(0.3), torch.nn.Linear(12, 1)
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50)
        return cls(model, optimizer, scheduler, Loader())

    @property
    def parts(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
            "dataloader": self.loader,
        }

    def step(self) -> float:
        noise = random.random() + float(np.random.rand())
        batch = torch.randn(8, 6) * noise + self.loader.next()
        loss = self.model(batch).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        return loss.item()


class Loader:
    """A data loader that knows where it is."""

    def __init__(self) -> None:
        self.position = 0

    def next(self) -> float:
        self.position += 1
        return self.position / 10

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]


@pytest.fixture
def keeper(world: World) -> Callable[..., Checkpointer]:
    """Makes checkpointers of the run `r`; they are closed when the test ends."""
    made: list[Checkpointer] = []

    def make(parts: dict[str, Any], **options: Any) -> Checkpointer:
        made.append(Checkpointer(**{"run": "r", "repo": world.root, **parts, **options}))
        return made[-1]

    yield make
    for checkpointer in made:
        try:
            checkpointer.close()
        except CkptvcsError:
            continue  # what went wrong is what the test was about


@pytest.fixture
def begin() -> Callable[..., Training]:
    """Begins a training; of the same seed always the same."""
    return Training.begin


@pytest.fixture
def objects_of(world: World) -> Callable[[Any], dict[str, Path]]:
    """The objects of a checkpoint in the cache, by their path in the artifact."""

    def find(receipt: Any) -> dict[str, Path]:
        return {f.path: world.cache / f.md5[:2] / f.md5[2:] for f in receipt.manifest.all_files()}

    return find
