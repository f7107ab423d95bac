"""The losses that the Trainer of Hugging Face has added up since its last log, which its own checkpoints do not hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

from ckptvcs.train import ranks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import Trainer

_SUM: Final = "_tr_loss"
_LOGGED: Final = "_globalstep_last_logged"
_TOTAL: Final = "_total_loss_scalar"
"""Private names of the Trainer since transformers 5. Where they are missing, the first mean is over fewer steps."""


class Losses:
    """The sum of the losses since the last log, of one process that trains alone.

    Args:
        trainer: the Trainer.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def remembered(self) -> dict[str, Any]:
        """The sum as plain values; empty where there is none."""
        total, logged = getattr(self._trainer, _SUM, None), getattr(self._trainer, _LOGGED, None)
        if ranks.size() > 1 or not isinstance(total, torch.Tensor) or not isinstance(logged, int):
            return {}
        return {"sum": repr(total.item()), "logged": logged}  # as text: JSON has no NaN

    def go_on(self, remembered: Any) -> None:
        """Go on with a sum, once the Trainer has begun one of its own.

        Args:
            remembered: from `remembered`; None for nothing.
        """
        own = getattr(self._trainer, _SUM, None)
        if (
            ranks.size() > 1
            or not remembered
            or not isinstance(own, torch.Tensor)
            or not hasattr(self._trainer, _LOGGED)
        ):
            return
        total, logged = _plain(remembered)
        own.fill_(total)
        setattr(self._trainer, _LOGGED, logged)
        # The mean over this call of `train` is over its own steps alone.
        setattr(self._trainer, _TOTAL, getattr(self._trainer, _TOTAL, 0.0) - total)


def _plain(remembered: Mapping[str, Any]) -> tuple[float, int]:
    return float(remembered["sum"]), int(remembered["logged"])
