"""What `CkptCallback` has to know of the inside of Lightning's training loop, and nothing else does."""

from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING, Any, Final

import torch

from ckptvcs.errors import FormatError
from ckptvcs.train import ranks
from ckptvcs.train.facts import metric
from ckptvcs.train.replay import replaying, tells_its_place

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ckptvcs.train.flavour import Trainer

_log = logging.getLogger("ckptvcs")


def make_loaders_replay(trainer: Trainer) -> list[bool]:
    """Let every data loader for training be one that can tell its place, where it is a `DataLoader`.

    The strategy is what sees each loader last, before the first batch is taken.

    Returns:
        Grows with each loader that is made ready: whether it can tell its place.
    """
    strategy, told = trainer.strategy, list[bool]()
    process = type(strategy).process_dataloader

    def prepared(loader: Any) -> Any:
        loader = process(strategy, loader)
        if trainer.training:
            loader = replaying(loader)
            told.append(tells_its_place(loader))
        return loader

    vars(strategy)["process_dataloader"] = prepared
    return told


def loaders_of_ranks(checkpoint: Mapping[str, Any]) -> Any:
    """The places of the data loaders of every rank, where there are several: Lightning keeps those of rank 0 alone."""
    return ranks.gathered(_places(checkpoint).get(_LOADERS)) if ranks.size() > 1 else None


def use_own_loaders(checkpoint: Mapping[str, Any], gathered: Any) -> None:
    """Let this rank go on at its own place in the data, where as many ranks saved theirs as there are now."""
    try:
        own = ranks.own(gathered) if gathered else None
    except FormatError as err:
        _log.warning("the data begins where Lightning has it: %s", err.why)
        return
    if own:
        _places(checkpoint)[_LOADERS] = own


def _places(checkpoint: Mapping[str, Any]) -> Any:
    return checkpoint["loops"]["fit_loop"]["state_dict"]


_LOADERS: Final = "combined_loader"


def validation_follows(trainer: Trainer) -> bool:
    """Whether the loop is about to validate, after the batch that just ended.

    Lightning has no public word for it. A state that is saved before a validation is not gone on from as it went: the
    validation would be left out.
    """
    loop: Any = trainer.fit_loop
    return bool(trainer.enable_validation and loop.epoch_loop._should_check_val_fx(loop._data_fetcher))


def begin_epoch(trainer: Trainer) -> None:
    """Make a loop that was put back to a place between two epochs begin the next one as any other.

    Lightning takes every restart for one in the middle of an epoch: it would not make a new pass over the data.
    """
    go_on_as_ever(trainer)
    trainer.fit_loop._resuming_from_checkpoint = False


def go_on_as_ever(trainer: Trainer) -> None:
    """Make a loop forget that it was put back.

    It would leave out the step of a ReduceLROnPlateau at the end of this epoch. `fit_loop.restarting = False` alone does not
    do it: where `max_steps` is given, that sets it to true.
    """
    trainer.fit_loop._restarting = False
    trainer.fit_loop.epoch_loop.restarting = False


def is_fetched_ahead(trainer: Trainer) -> bool:
    """Whether the trainer took a batch that it did not train on, as it does where a loader does not know its length."""
    fetcher: Any = trainer.fit_loop._data_fetcher
    return bool(getattr(fetcher, "batches", None))


def unclaimed(signals: Sequence[str]) -> list[str]:
    """The signals that are ours to handle: not those with which SLURM tells Lightning to requeue the job."""
    return [
        name
        for name in signals
        if name == "SIGTERM" or not type(signal.getsignal(signal.Signals[name])).__module__.endswith("signal_connector")
    ]


def figures(trainer: Trainer) -> dict[str, int | float | str]:
    """The metrics that were logged, those that are numbers."""
    metrics = trainer.callback_metrics.items()
    return {name: metric(name, value) for name, value in metrics if torch.as_tensor(value).numel() == 1}


def batch_size(batch: Any) -> int:
    """How many samples a batch holds: the length of its first tensor; 0 if there is none."""
    if isinstance(batch, torch.Tensor):
        return batch.shape[0] if batch.ndim else 1
    inner = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, (list, tuple)) else ()
    return next((size for item in inner if (size := batch_size(item))), 0)
