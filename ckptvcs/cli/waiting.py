"""What people see while they wait: a bar or a spinner on stderr, for what takes longer than a second.

Both appear late, so that quick commands neither flicker nor pay for importing rich, and leave nothing behind. Nothing is
shown where stderr is no terminal.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.paths import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ckptvcs.progress import Progress

_AFTER_S: Final = 1.0


@contextlib.contextmanager
def progress(doing: str, total: int) -> Iterator[Progress]:
    """A bar.

    Args:
        doing: what is done, such as `writing`.
        total: bytes in all.

    Yields:
        A function to be told about bytes that are done with.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    bar = _Bar(doing, total)
    try:
        yield bar.advance
    finally:
        bar.close()


class _Bar:
    def __init__(self, doing: str, total: int) -> None:
        self._doing, self._total, self._done = doing, total, 0
        self._begin = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def advance(self, nbytes: int) -> None:
        self._done += nbytes
        if self._bar is None and time.monotonic() - self._begin > _AFTER_S:
            self._show()
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done)

    def _show(self) -> None:
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn

        text = TextColumn("{task.description}", markup=False)
        self._bar = _on_stderr(text, BarColumn(), DownloadColumn(), TimeRemainingColumn())
        self._task = self._bar.add_task(self._doing, total=self._total)
        self._bar.start()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


@contextlib.contextmanager
def busy(doing: str) -> Iterator[None]:
    """A spinner with the time that has passed, for what has no measure; the block must not print.

    Args:
        doing: what is done, such as `reading`.
    """
    if not sys.stderr.isatty():
        yield
        return
    spinner = _Spinner(doing)
    try:
        yield
    finally:
        spinner.close()


class _Spinner:
    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._bar: Any = None
        self._closed = False
        self._mutex = threading.Lock()
        self._timer = threading.Timer(_AFTER_S, self._show)
        self._timer.daemon = True
        self._timer.start()

    def _show(self) -> None:
        from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

        text = TextColumn("{task.description}", markup=False)  # a file name may look like markup
        bar = _on_stderr(SpinnerColumn(), text, TimeElapsedColumn())
        bar.add_task(printable(self._doing), total=None)
        with self._mutex:
            if not self._closed:
                bar.start()
                self._bar = bar

    def close(self) -> None:
        self._timer.cancel()
        with self._mutex:
            self._closed = True
            if self._bar is not None:
                self._bar.stop()


def _on_stderr(*columns: Any) -> Any:
    from rich.console import Console
    from rich.progress import Progress

    return Progress(*columns, console=Console(stderr=True), transient=True)
