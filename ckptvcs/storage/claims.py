"""Claims: a name that belongs to one process of this machine, as long as it lives."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_NO_LOCKS: Final = (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.EROFS, errno.EACCES)
"""File systems without locks, or that we may not write to: nobody can claim anything there."""


@dataclass
class _Held:
    fd: int
    count: int


_held: dict[str, _Held] = {}
"""What this process has claimed. POSIX has it that closing any descriptor of a file gives up all of its locks, so each
file is open once."""


def claim(path: Path, *, wait_s: float) -> int | None:
    """Claim a file for this process; more than once, if it likes. The kernel gives it up when the process dies.

    Args:
        path: the file, in a folder that is there.
        wait_s: how long to wait for another process that is about to end.

    Returns:
        None if it is ours, else the process that has it; 0 if that does not say who it is.
    """
    if (held := _held.get(str(path))) is not None:
        held.count += 1
        return None
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as err:
        if err.errno in _NO_LOCKS:
            return None
        raise
    other = _locked_by_another(fd, time.monotonic() + wait_s)
    if other is not None:
        os.close(fd)
        return other
    os.ftruncate(fd, 0)
    os.pwrite(fd, str(os.getpid()).encode("ascii"), 0)
    _held[str(path)] = _Held(fd, 1)
    return None


def _locked_by_another(fd: int, end: float) -> int | None:
    while True:
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            if err.errno in _NO_LOCKS and err.errno != errno.EACCES:
                return None
            if time.monotonic() >= end:
                said = os.pread(fd, 20, 0)
                return int(said) if said.isdigit() else 0
            time.sleep(0.05)
        else:
            return None


def release(path: Path) -> None:
    """Give a claim up, as often as it was made."""
    held = _held.get(str(path))
    if held is None:
        return
    held.count -= 1
    if not held.count:
        del _held[str(path)]
        os.close(held.fd)
