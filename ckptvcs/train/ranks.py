"""Several processes that train one model: what each of them has of its own is gathered, and one of them decides.

Where `torch.distributed` is not set up there is one process, and nothing here costs anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import torch

from ckptvcs.errors import CkptvcsError, Conflict, FormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

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
    """This rank's part of what `gathered` made, or, of a state that was not gathered, the state.

    Raises:
        FormatError: it was saved by more or fewer processes than there are now.
    """
    states = state[RANKS] if isinstance(state, dict) and set(state) == {RANKS} else [state]
    if len(states) != size():
        raise FormatError(
            "each process has a state of its own", why=f"{len(states)} processes saved it, and there are {size()} now"
        )
    return states[rank()]


def agreed(value: Any) -> Any:
    """What rank 0 says, on every rank: clocks and signals differ between processes, and a save takes all of them."""
    if size() == 1:
        return value
    said = [value]
    torch.distributed.broadcast_object_list(said)
    return said[0]


def told_by_each(value: T) -> list[T]:
    """The values of all ranks, on every rank."""
    if size() == 1:
        return [value]
    values: list[Any] = [None] * size()
    torch.distributed.all_gather_object(values, value)
    return values


def any_says(value: T | None) -> T | None:
    """The first value that is not None of any rank, on every rank."""
    return next((said for said in told_by_each(value) if said is not None), None)


def together(action: Callable[[], T]) -> T:
    """Do something on every rank; where it fails on one, it fails on all, so that none waits for another.

    Raises:
        CkptvcsError: what it raised here, else that it failed on another rank.
    """
    problem: CkptvcsError | None = None
    result: Any = None
    try:
        result = action()
    except CkptvcsError as err:
        problem = err
    raise_first(problem, told_by_each(None if problem is None else str(problem)))
    return result  # type: ignore[no-any-return]


def raise_first(own: Exception | None, told: Sequence[str | None]) -> None:
    """Raise what went wrong, if something did.

    Args:
        own: what did on this rank.
        told: what did on each of them, in words.

    Raises:
        Conflict: it is another rank that has failed.
    """
    if own is not None:
        raise own
    for number, said in enumerate(told):
        if said is not None:
            raise Conflict(f"rank {number} has failed", why=said, next_step="see what that process says")
