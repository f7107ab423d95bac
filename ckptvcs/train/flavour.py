"""Lightning under the name that it is installed by: `lightning`, or `pytorch_lightning` where only that is in use."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING or (
    find_spec("lightning") is not None
    and ("lightning.pytorch" in sys.modules or "pytorch_lightning" not in sys.modules)
):
    from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.plugins.io import CheckpointIO
else:
    from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
    from pytorch_lightning import LightningModule, Trainer
    from pytorch_lightning.callbacks import ModelCheckpoint
    from pytorch_lightning.plugins.io import CheckpointIO

__all__ = ["CheckpointIO", "LightningModule", "ModelCheckpoint", "TorchCheckpointIO", "Trainer"]
