"""A Lightning training whose every number depends on all that a resume must restore; run as a program, or in a test.

usage: python -m tests.support.lit FOLDER LOADER LOG [PAUSE]    train in the repository FOLDER, write losses to LOG
"""

from __future__ import annotations

import random
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ckptvcs.train.lightning import CkptCallback

SAMPLES, BATCH, EPOCHS = 44, 4, 4
"""11 batches in an epoch, 6 steps: the last one of an epoch takes what one batch gives."""


class Noisy(Dataset):
    """Samples that are changed by every random generator when they are loaded."""

    def __init__(self) -> None:
        self.data = torch.linspace(-1, 1, SAMPLES * 6).reshape(SAMPLES, 6)

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.data[index] * (1 + 0.1 * random.random() + 0.1 * float(np.random.rand()) + 0.1 * torch.rand(()))


class Net(lightning.LightningModule):
    """Dropout, batch norm, three schedulers, a validation that draws random numbers; tells `log` every loss."""

    def __init__(self, log: Any, pause: float = 0.0, lr: float = 0.05) -> None:
        super().__init__()
        self.save_hyperparameters("lr")
        self.net = torch.nn.Sequential(
            torch.nn.Linear(6, 12), torch.nn.BatchNorm1d(12), torch.nn.Dropout(0.3), torch.nn.Linear(12, 1)
        )
        self.record, self.pause = log, pause

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        time.sleep(self.pause)
        loss = (self.net(batch) - batch.sum(1, keepdim=True)).square().mean()
        self.record(f"train {self.current_epoch} {index} {loss.item().hex()}")
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: torch.Tensor, index: int) -> None:
        time.sleep(self.pause)
        loss = (self.net(batch) - batch.sum(1, keepdim=True)).square().mean() * (1 + torch.rand(()))
        if not self.trainer.sanity_checking:
            self.record(f"val {self.current_epoch} {self.global_step} {index} {loss.item().hex()}")
        self.log("val_loss", loss)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams["lr"])
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)
        exponential = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.2)
        return [optimizer], [
            {"scheduler": cosine, "interval": "step"},
            {"scheduler": exponential, "interval": "epoch"},
            {"scheduler": plateau, "interval": "epoch", "monitor": "val_loss", "strict": False},
        ]


def loader_of(kind: str) -> Any:
    if kind == "stateful":
        from torchdata.stateful_dataloader import StatefulDataLoader

        return StatefulDataLoader(Noisy(), batch_size=BATCH, shuffle=True)
    if kind == "generator":
        return DataLoader(Noisy(), batch_size=BATCH, shuffle=True, generator=torch.Generator().manual_seed(3))
    return DataLoader(Noisy(), batch_size=BATCH, shuffle=True, num_workers=2 if kind == "workers" else 0)


def fit(
    callback: CkptCallback,
    kind: str,
    log: Any,
    *,
    pause: float = 0.0,
    path: str | None = "last",
    safe: bool = False,
    extra: Sequence[Any] = (),
    **options: Any,
) -> lightning.Trainer:
    """Train to the end from wherever the run stands."""
    warnings.simplefilter("ignore")
    lightning.seed_everything(7, verbose=False)
    trainer = lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=callback.dirpath,
        **{"max_epochs": EPOCHS, "accumulate_grad_batches": 2, "val_check_interval": 6, **options},
        callbacks=[callback, *extra],
    )
    data = loader_of(kind), DataLoader(Noisy(), batch_size=22)
    trainer.fit(Net(log, pause), *data, ckpt_path=path, **({"weights_only": True} if safe else {}))
    return trainer


def parameters(trainer: lightning.Trainer) -> bytes:
    state = trainer.lightning_module.state_dict()
    return b"".join(value.numpy().tobytes() for value in state.values())


def main(folder: str, kind: str, log: str, pause: str = "0") -> None:
    with Path(log).open("a", encoding="ascii") as file:

        def record(line: str) -> None:
            file.write(line + "\n")
            file.flush()

        policy = {"every_n_steps": 2, "on_preemption": True, "on_exit": True}
        trainer = fit(CkptCallback(run="lit", repo=folder, policy=policy), kind, record, pause=float(pause))
        record(f"end {parameters(trainer).hex()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
