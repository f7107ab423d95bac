"""Real pushes and real collections that stop before each step of the protocol, so that a test says whose step is next."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from ckptvcs.errors import CkptvcsError
from ckptvcs.porcelain import asking, gc, leases, marks, replicas, sweeping
from ckptvcs.storage.history.transport import Git
from ckptvcs.storage.removal import FolderRemoval

PUSH = ("begin", "lease", "look", "send", "in time", "move", "settle")
COLLECT = ("begin", "leases", "refs", "survey", "empty", "sweep", "forget", "mark", "end")

_PLACES: list[tuple[Any, str, str]] = [
    (leases.Lease, "take", "lease"),
    (leases.Lease, "obey", "look"),
    (replicas, "_send", "send"),
    (leases.Lease, "is_young", "in time"),
    (Git, "push", "move"),
    (replicas, "settle", "settle"),
    (marks, "look", "leases"),
    (asking, "ask", "refs"),
    (gc, "survey", "survey"),
    (sweeping, "_empty", "empty"),
    (FolderRemoval, "trash", "sweep"),
    (FolderRemoval, "remove", "sweep"),
    (marks, "forget", "forget"),
    (gc, "_condemn", "mark"),
]

_here = threading.local()


class Killed(BaseException):
    """The process is gone."""


class Actor:
    """Something that is done step by step, in a thread of its own."""

    def __init__(self, act: Callable[[], object], steps: tuple[str, ...]) -> None:
        self._act, self._steps = act, steps
        self._may_go, self._stands = threading.Semaphore(0), threading.Semaphore(0)
        self.at = "begin"
        """What it does next."""
        self.ended = self._inside = self._dies = False
        self.error: BaseException | None = None
        self.done: list[str] = []
        threading.Thread(target=self._run, daemon=True).start()
        self._wait()

    def _run(self) -> None:
        _here.actor = self
        try:
            self._stop("begin")
            self._act()
        except Killed:
            pass
        except CkptvcsError as err:
            self.error = err
        except BaseException as err:  # noqa: BLE001 - told to whoever waits
            self.error = err
            self.done.append("failed")
        finally:
            self.ended = True
            self._stands.release()

    def _stop(self, at: str) -> None:
        self.at = at
        self._stands.release()
        self._may_go.acquire()
        if self._dies:
            raise Killed
        self.done.append(at)

    def gate(self, at: str, real: Callable[[], Any]) -> Any:
        if self._inside:
            return real()
        self._stop(at)
        self._inside = True
        try:
            return real()
        finally:
            self._inside = False

    def _wait(self) -> None:
        assert self._stands.acquire(timeout=120), f"it hangs at '{self.at}'"
        if self.done[-1:] == ["failed"]:
            raise AssertionError(f"it failed at '{self.at}'") from self.error

    def step(self) -> None:
        """Do what is next."""
        self._may_go.release()
        self._wait()

    def until(self, act: str) -> None:
        """Go on until a step is done; what never comes to it stops before the next one."""
        last = self._steps.index(act)
        while not self.ended and self._steps.index(self.at) <= last:
            self.step()
            if self.done[-1] == act:
                return

    def finish(self) -> None:
        while not self.ended:
            self.step()

    def die(self) -> None:
        if not self.ended:
            self._dies = True
            self.step()


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make threads that are actors stop before each step; others go on as ever."""
    for owner, name, at in _PLACES:
        monkeypatch.setattr(owner, name, _gated(getattr(owner, name), at))


def _gated(real: Callable[..., Any], at: str) -> Callable[..., Any]:
    def act(*args: Any, **options: Any) -> Any:
        actor = getattr(_here, "actor", None)
        return real(*args, **options) if actor is None else actor.gate(at, lambda: real(*args, **options))

    return act
