"""A process may end without closing anything: what is under way then is waited for."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor  # noqa: F401 - what it does at the end is registered before ours
from typing import Protocol


class Waits(Protocol):
    """Something that has work under way."""

    def wait(self) -> object:
        """Wait for it."""


_alive: weakref.WeakKeyDictionary[Waits, int] = weakref.WeakKeyDictionary()
"""What may have work under way, and the process whose threads do it."""


def wait_for(something: Waits) -> None:
    """Wait for it before this process takes its threads down, as long as it lives."""
    _alive[something] = os.getpid()


def _wait_for_all() -> None:
    for something, process in list(_alive.items()):
        if process == os.getpid():  # a child that was forked has none of our threads
            with contextlib.suppress(Exception):  # it has been logged
                something.wait()


# What is under way needs more threads, and `concurrent.futures` gives none when the main thread has ended. It is told of
# that end by this very function, and who registered last is told first; `atexit` comes later.
threading._register_atexit(_wait_for_all)  # type: ignore[attr-defined]
