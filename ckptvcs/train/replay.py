"""A plain `DataLoader` that can tell its place and go back there, by doing again what it did.

It remembers the random generators from which the order of this pass was drawn, and how many batches were taken. Going back
draws the same order and takes as many batches again: exact for any sampler, also with worker processes, at the price of
loading those batches once more. torchdata's `StatefulDataLoader` is faster where that matters, and is left as it is.
"""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING, Any, Final

from torch.utils.data import DataLoader

from ckptvcs.train import capture

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_log = logging.getLogger("ckptvcs")

_YIELDED: Final = "yielded"


def tells_its_place(loader: Any) -> bool:
    """Whether a loader has a state."""
    return hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")


def replaying(loader: Any) -> Any:
    """The same loader, able to tell its place, if it is a `DataLoader` that is not; else the loader itself."""
    if not isinstance(loader, DataLoader) or tells_its_place(loader):
        return loader
    able = copy.copy(loader)
    able.__class__ = type(type(loader).__name__, (_Replaying, type(loader)), {})
    return able


class _Replaying(DataLoader[Any]):  # type: ignore[misc] # mypy does not look into torch
    """What a loader is given; a mixin, so that it stays what it is for all who ask."""

    _pass: _Pass | None = None
    _place: Mapping[str, Any] | None = None

    def __iter__(self) -> Any:
        place, self._place = self._place, None
        self._pass = _Pass(self, place)
        if place is None:
            self._pass.begin(super().__iter__())
        return self._pass

    def from_the_start(self) -> Iterator[Any]:
        batches: Iterator[Any] = super().__iter__()
        return batches

    def state_dict(self) -> dict[str, Any]:
        return self._pass.state() if self._pass is not None else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state and _YIELDED not in state:
            _log.warning("the place in the data is not restored: another kind of data loader saved it")
            return
        if state:
            _set_own(self, state["own"])
        self._place = state or None


class _Pass:
    """One pass over the data.

    Args:
        loader: whose pass it is.
        place: where to go on, once the first batch is asked for; None for the start.
    """

    def __init__(self, loader: _Replaying, place: Mapping[str, Any] | None) -> None:
        self._loader = loader
        self._place = place
        self._batches: Iterator[Any] | None = None
        # The order is drawn partly when the pass begins, partly with its first batch.
        self._at_start = capture.rng_state()
        self._own_at_start = _own(loader)
        self._at_first: dict[str, Any] | None = None
        self._yielded = 0

    def begin(self, batches: Iterator[Any]) -> None:
        self._batches = batches

    def __iter__(self) -> _Pass:
        return self

    def __next__(self) -> Any:
        if self._batches is None:
            self._go_back()
        assert self._batches is not None
        if self._at_first is None:
            self._at_first = capture.rng_state()
        batch = next(self._batches)
        self._yielded += 1
        return batch

    def _go_back(self) -> None:
        """Do again what led to the place. The generators are afterwards what they were."""
        assert self._place is not None
        now, place = capture.rng_state(), self._place
        self._at_start, self._own_at_start, self._at_first = place["at_start"], place["own_at_start"], place["at_first"]
        capture.set_rng_state(self._at_start)
        _set_own(self._loader, self._own_at_start)
        self._batches = self._loader.from_the_start()
        if self._at_first is not None:
            capture.set_rng_state(self._at_first)
        for _ in range(place[_YIELDED]):
            next(self._batches)
        self._yielded = place[_YIELDED]
        capture.set_rng_state(now)

    def state(self) -> dict[str, Any]:
        if self._place is not None and self._batches is None:
            return dict(self._place)
        return {
            _YIELDED: self._yielded,
            "at_start": self._at_start,
            "at_first": self._at_first,
            "own_at_start": self._own_at_start,
            "own": _own(self._loader),
        }


def _generators(loader: DataLoader[Any]) -> list[Any]:
    """The generators that a loader and its samplers have of their own."""
    holders = (loader, loader.sampler, loader.batch_sampler, getattr(loader.batch_sampler, "sampler", None))
    found = {id(g): g for holder in holders if (g := getattr(holder, "generator", None)) is not None}
    return list(found.values())


def _own(loader: DataLoader[Any]) -> list[Any]:
    return [generator.get_state() for generator in _generators(loader)]


def _set_own(loader: DataLoader[Any], states: list[Any]) -> None:
    for generator, state in zip(_generators(loader), states, strict=True):
        generator.set_state(state)
