"""What the ledger is told of one training: that it began, what it went on from, that it has ended.

What it goes on from is kept while it may be under way, so it is told before anything is saved.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from ckptvcs.errors import CkptvcsError
from ckptvcs.porcelain import account, ledger

if TYPE_CHECKING:
    from collections.abc import Callable

    from ckptvcs.domain.checkpoint import Checkpoint, CheckpointId
    from ckptvcs.porcelain.repo import Repository

_log = logging.getLogger("ckptvcs")


class Telling(ABC):
    """Tells the ledger of a run. That it cannot be written is no reason to stop training, and is logged."""

    run: str
    branch: str
    run_id: str

    def __init__(self) -> None:
        self._began: float | None = None
        self._origins: tuple[CheckpointId, ...] = ()
        """All that training went on from since it began."""
        self._told: tuple[CheckpointId, ...] | None = None
        """Those of them that the ledger knows; None until it knows that the run began."""

    @property
    @abstractmethod
    def repo(self) -> Repository:
        """The repository."""

    @abstractmethod
    def later(self, action: Callable[[], object]) -> None:
        """Do something after what is under way."""

    def tell(self, op: str, **facts: Any) -> bool:
        """Add an event of this run to the ledger; returns whether that was done."""
        try:
            ledger.append(self.repo, op, run=self.run, run_id=self.run_id, branch=self.branch, **facts)
        except CkptvcsError as err:
            _log.warning("the ledger does not know of '%s' of run '%s': %s", op, self.run, err)
            return False
        return True

    def add_origin(self, checkpoint: Checkpoint) -> None:
        """Take down what training goes on from, for `tell_start`; where that is condemned, say so."""
        if checkpoint.id not in self._origins:
            _warn_of_condemned(self.repo, checkpoint)
            self._origins += (checkpoint.id,)

    def tell_start(self) -> None:
        """Tell that the run begins: once, and once more where it goes on from more than was told."""
        self._began = time.monotonic() if self._began is None else self._began
        origins = self._origins

        def tell() -> None:
            if self.tell("run.start", parents=list(origins)):
                self._told = origins

        if self._told is None or not set(origins) <= set(self._told):
            self.later(tell)

    def end(self, how: str, step: int | None) -> None:
        """Tell that the run has ended, if it began.

        Args:
            how: `closed`, `exception` or `preempted`.
            step: the last step.
        """
        if self._began is None:
            return
        seconds = round(time.monotonic() - self._began, 3)

        def tell() -> None:
            self.tell("run.end", step=step, seconds=seconds, how=how)
            self._told = self._origins = ()  # what it goes on from after this is told anew

        self.later(tell)

    def forget_start(self) -> None:
        """Take down that what follows is another run, of this same process."""
        self._began = self._told = None

    def forget(self) -> None:
        """Take down that what follows is another training, which goes on from nothing that this one did."""
        self.forget_start()
        self._origins = ()


def _warn_of_condemned(repo: Repository, checkpoint: Checkpoint) -> None:
    name = checkpoint.id[:10]
    try:
        dropped = account.read(repo).on(checkpoint).dropped
    except CkptvcsError as err:
        _log.warning("the ledger does not tell whether checkpoint %s is condemned: %s", name, err)
        return
    if dropped is not None:
        _log.warning(
            "checkpoint %s of step %s is condemned: that training goes on from it keeps it until this has ended; to keep it "
            "longer, run 'ckpt hold %s'",
            name,
            checkpoint.manifest.step,
            name,
        )
