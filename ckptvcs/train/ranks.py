"""Several processes that train one model: what each of them has of its own is gathered, and one of them decides.

Where `torch.distributed` is not set up there is one process, and nothing here costs anything.
"""

from __future__ import annotations

from typing import Any, Final

import torch

RANKS: Final = "$ranks"
"""Marks a state that holds one of each rank."""


def size() -> int:
    """How many processes train together."""
    return torch.distributed.get_world_size() if _is_distributed() else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    return torch.distributed.get_rank() if _is_distributed() else 0


def _is_distributed() -> bool:
    return bool(torch.distributed.is_available() and torch.distributed.is_initialized())


def gathered(value: Any) -> Any:
    """The value of each rank as one state, on rank 0; the value itself where there is one process.

    Every rank has to call it; on the others it returns None.
    """
    count = size()
    if count == 1:
        return value
    values: list[Any] | None = [None] * count if rank() == 0 else None
    torch.distributed.gather_object(value, values)
    return None if values is None else {RANKS: values}


def own(state: Any) -> Any:
    """This rank's part of what `gathered` made; None if there was no such rank when it was saved."""
    if not (isinstance(state, dict) and set(state) == {RANKS}):
        return state if rank() == 0 else None
    states = state[RANKS]
    return states[rank()] if rank() < len(states) else None


def agreed(value: Any) -> Any:
    """What rank 0 says, on every rank: clocks and signals differ between processes, and a save takes all of them."""
    if size() == 1:
        return value
    said = [value]
    torch.distributed.broadcast_object_list(said)
    return said[0]


def any_says(value: Any) -> Any:
    """The first value that is not None of any rank, on every rank."""
    if size() == 1:
        return value
    values: list[Any] = [None] * size()
    torch.distributed.all_gather_object(values, value)
    return next((said for said in values if said is not None), None)
