"""Noticing that this process is to end soon: by a signal, or by what a probe of the user says."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.domain import policy
from ckptvcs.errors import UsageError
from ckptvcs.train import capture, ranks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ckptvcs.porcelain.commit import Receipt
    from ckptvcs.train.parts import Parts
    from ckptvcs.train.saver import Saved

_log = logging.getLogger("ckptvcs")

ALONE: Final = " alone: a whole save"
"""In the reason of a save for which there was no time to save all."""

_ASSUMED_BYTES_PER_S: Final = 100e6
"""What a save is taken to write in a second as long as none was measured: a slow disk."""


class Preempted(SystemExit):
    """Raised by `Checkpointer.step` when the state was saved because the process is to end; it ends the process.

    Args:
        why: what announced it.
        receipt: what was saved; None on the ranks that do not write.
        status: the exit status: 128 and the number of the signal, as shells have it.
    """

    def __init__(self, why: str, receipt: Receipt | None, status: int) -> None:
        super().__init__(status)
        self.why = why
        self.receipt = receipt


class Preemption:
    """Watches for the announcement. The signal handlers are those of before when the block ends.

    Args:
        signals: names of signals, such as `SIGTERM`.
        grace_s: seconds from the announcement until the process is killed.
        probe: asked at every step; true means that the process is to end.
    """

    def __init__(self, signals: Sequence[str], *, grace_s: float, probe: Callable[[], bool] | None = None) -> None:
        self._signals = [signal.Signals[name] for name in signals]
        self._grace_s = grace_s
        if probe is not None and not callable(probe):
            raise UsageError(
                f"'preempted' cannot be {probe!r}",
                why="it is asked at every step, so it must be something that can be called",
                next_step="pass a function without arguments that returns whether the process is to end",
            )
        self._probe = probe
        self._before: dict[int, Any] = {}
        self._process = os.getpid()
        self._announced: tuple[str, int, float] | None = None
        self._unanswered: int | None = None

    @classmethod
    def of(
        cls,
        save: policy.Save,
        *,
        probe: Callable[[], bool] | None,
        ours: Callable[[Sequence[str]], Sequence[str]] = tuple,
    ) -> Preemption:
        """What a policy of saves says of it; a probe counts in any case.

        Args:
            save: the policy.
            probe: asked at every step.
            ours: those of its signals that are not somebody else's to handle.
        """
        said = save.on_preemption
        grace_s = (said or policy.Preemption()).grace_s
        return cls(ours(said.signals) if said else (), grace_s=grace_s, probe=probe)

    def install(self) -> None:
        """Handle the signals. Only the main thread may; elsewhere a note says that they are not watched."""
        if self._before or not self._signals:
            return
        if threading.current_thread() is not threading.main_thread():
            _log.warning("signals are not watched: only the main thread may do so")
            self._signals = []
            return
        for number in self._signals:
            self._before[number] = signal.signal(number, self._handle)

    def remove(self) -> None:
        """Give the signals back to whoever handled them before."""
        if threading.current_thread() is not threading.main_thread():
            return  # only the main thread may
        while self._before:
            number, before = self._before.popitem()
            signal.signal(number, signal.SIG_DFL if before is None else before)

    def pass_on(self) -> None:
        """Send a signal that nobody has answered yet to whoever handles it now."""
        if self._unanswered is not None and not self._before:
            signal.raise_signal(self._unanswered)

    def answered(self) -> None:
        """Take down that the process ends because of the announcement."""
        self._unanswered = None

    def _handle(self, number: int, _: object) -> None:
        if os.getpid() != self._process:  # a child of ours, which is to end as children do
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        # Noted down only: a state is whole between two steps alone. Later ones change nothing: schedulers and launchers
        # both send them, and the second must not end the save.
        if self._announced is None:
            self._announced, self._unanswered = (signal.Signals(number).name, 128 + number, time.monotonic()), number

    def announced(self) -> tuple[str, int] | None:
        """What announced the end, and the exit status that it asks for; None while nothing did."""
        if self._announced is None and self._probe is not None and self._probe():
            self._announced = ("the probe", 128 + signal.SIGTERM, time.monotonic())
        return None if self._announced is None else self._announced[:2]

    def left_s(self) -> float:
        """Seconds of grace that are left."""
        return self._grace_s - (time.monotonic() - self._announced[2]) if self._announced else self._grace_s


def expected_s(last: Saved | None, parts: Iterable[Any]) -> float:
    """How long a whole save will take, in seconds: as the last one did, else by the size of the states of its parts."""
    if last is not None:
        return last.seconds
    return sum(capture.nbytes(part.state_dict()) for part in parts) / _ASSUMED_BYTES_PER_S


def within_grace(parts: Parts, last: Saved | None, left_s: float) -> tuple[Mapping[str, Any], str]:
    """The parts that can be saved in the time that is left, and, if those are not all, what to say about it.

    Args:
        parts: all of them.
        last: the last save, which tells how long one takes; else that is guessed from the size of the state.
        left_s: seconds until the process is killed.
    """
    # The same on every rank first: only rank 0 knows of saves, and to ask for a state may take all ranks.
    last = ranks.agreed(last)
    needed_s, left_s = ranks.agreed((expected_s(last, parts.by_name.values()), left_s))
    if needed_s <= left_s:
        return parts.by_name, ""
    some = parts.with_roles("model", "optimizer")
    return some, f"; {' and '.join(some)}{ALONE} takes about {needed_s:.0f} s, {left_s:.0f} s are left"
