"""How work under way is told to whoever wants to know: a function that is given the bytes that are done with."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int], object]


def silent(nbytes: int) -> None:
    """Tell nobody."""
    del nbytes
