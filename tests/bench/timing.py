"""Wall times that can be compared: the candidates take turns, on equal ground, and medians are told."""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROUNDS = 5
ROUNDS_OF_BIG = 3
BIG = 1 << 30
"""Bytes that a candidate writes at most, from which on fewer rounds do: a round takes a minute, and little of it is chance."""


def nothing() -> None:
    """Nothing to prepare."""


@dataclass
class Candidate:
    """One way to do a thing. Only `run` is timed."""

    name: str
    run: Callable[[], object]
    before: Callable[[], object] = nothing
    after: Callable[[], object] = nothing
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def race(candidates: list[Candidate], *, scratch: Path, nbytes: int, rounds: int | None = None) -> None:
    """Let the candidates take turns.

    Args:
        candidates: their `seconds` are filled.
        scratch: a folder on the file system that is written to.
        nbytes: what a candidate writes at most; that much page cache is made warm before each turn, because a virtual
            machine gives out memory that was never used before several times slower than other memory.
        rounds: turns of each; as many as are usual for that size, if it is not given.
    """
    rounds = rounds or (ROUNDS if nbytes < BIG else ROUNDS_OF_BIG)
    for turn in range(rounds):
        order = candidates[turn % len(candidates) :] + candidates[: turn % len(candidates)]
        for candidate in order:
            candidate.before()
            warm(scratch, nbytes)
            gc.collect()
            began = time.perf_counter()
            candidate.run()
            candidate.seconds.append(time.perf_counter() - began)
            candidate.after()


def warm(scratch: Path, nbytes: int) -> None:
    """Have the machine give us memory for `nbytes` of page cache, and let all earlier writes reach the disk."""
    junk, block = scratch / "junk", bytes(1 << 20)
    with junk.open("wb") as file:
        for _ in range(nbytes >> 20):
            file.write(block)
    junk.unlink()
    os.sync()
