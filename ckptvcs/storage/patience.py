"""Patience with a store over a network: what failed for no reason that stays is tried again, and no wait is without end.

How long a call may take is bounded here, by what it moves; how long a connection may be silent is said where it is opened.
"""

from __future__ import annotations

import os
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ckptvcs.errors import CkptvcsError
from ckptvcs.paths import printable
from ckptvcs.storage import store_errors

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_ATTEMPTS: Final = 4
_ENOUGH_S: Final = 60.0
"""After this long no further attempt is begun: a store that was silent for so long will be so again."""

_ANSWER_S: Final = 120.0
_SLOWEST: Final = 16 << 10
"""Bytes per second of one of many transfers at once, below which a line is taken for dead."""

_BOUNDED: Final = {"info", "ls", "makedirs", "mv", "rm_file", "cat_file", "pipe_file", "put_file", "call_s3", "find"}


class Steady:
    """A file system of fsspec that can be opened anew, and of which no call goes on for ever.

    Args:
        open_it: opens it; whatever it raises is an error of the store.
        breaks: whether its one connection is gone when it breaks, as that of SFTP; others make one for each call.
    """

    def __init__(self, open_it: Callable[[], Any], *, breaks: bool) -> None:
        self._open = open_it
        self._breaks = breaks
        self._renewing = threading.Lock()
        self._fs = open_it()
        self.opened = 1
        """How often."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._fs, name)
        return partial(_bounded, found, name) if name in _BOUNDED and self._fs.async_impl else found

    def renew(self, opened: int) -> None:
        """Open it anew, unless another thread has done so since it had been opened so often."""
        with self._renewing:
            if not self._breaks or self.opened != opened:
                return
            try:
                self._fs = self._open()
            except Exception:  # noqa: BLE001 - the next attempt fails with the broken one, and says so
                return
            self.opened += 1


def _bounded(call: Callable[..., Any], name: str, *args: Any, **options: Any) -> Any:
    """Call with a time limit, which every call of an asynchronous file system takes."""
    nbytes = 0
    if name == "put_file":
        nbytes = os.path.getsize(args[0])
    elif name == "pipe_file":
        nbytes = len(args[1])
    elif name == "call_s3":
        nbytes = len(options.get("Body", b""))
    elif name == "cat_file":
        nbytes = (options.get("end") or 0) - (options.get("start") or 0)
    return call(*args, timeout=_ANSWER_S + nbytes / _SLOWEST, **options)


class Patience:
    """Does something at a remote, again where it failed for no reason that stays.

    Args:
        name: of the remote.
        fs: its file system; renewed between two tries, if it is a `Steady` one.
    """

    def __init__(self, name: str, fs: Any) -> None:
        self._name = name
        self._fs = fs
        self._answered = False

    def __call__(self, doing: str, action: Callable[[], T]) -> T:
        """Do it.

        Args:
            doing: what is done, in the infinitive, for the error.
            action: does it.

        Raises:
            StorageError: it failed each time, or for so long that it will go on to.
        """
        begun = time.monotonic()  # how long we wait, not what time it is
        for attempt in range(_ATTEMPTS):
            opened = getattr(self._fs, "opened", 0)
            try:
                done = action()
            except CkptvcsError:
                raise
            except Exception as err:
                is_last = attempt == _ATTEMPTS - 1 or time.monotonic() - begun > _ENOUGH_S
                if is_last or not self._may_pass(err):
                    what = f"cannot {doing} at remote '{printable(self._name)}'"
                    raise store_errors.storage_error(what, self._name, err) from err
            else:
                self._answered = True
                return done
            time.sleep(0.2 * 4**attempt)
            if isinstance(self._fs, Steady):
                self._fs.renew(opened)
        raise AssertionError("unreachable")

    def _may_pass(self, err: Exception) -> bool:
        """Who never answered is not waited for: the address is wrong, or there is no network."""
        return store_errors.meaning(err).passes and (self._answered or not store_errors.is_unreachable(err))
