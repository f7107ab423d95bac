"""Many files made durable in one call, where kernel and file system can be trusted with that.

`fsync` of each of thousands of small files takes longer than writing them: every one waits for the disk. `syncfs` waits once
for all of a file system (Linux, syncfs(2)). Before Linux 5.8 it did not tell of writes that failed, and what a file system
over a network or in user space makes of it is its own affair: there, files are made durable one by one.
"""

from __future__ import annotations

import ctypes
import os
import re
from functools import cache
from typing import Any, Final

_TELLS_ERRORS: Final = (5, 8)
_TRUSTED: Final = {
    0xEF53,  # ext4
    0x58465342,  # XFS
    0x9123683E,  # btrfs
    0xF2F52010,  # F2FS
    0x2FC12FC1,  # ZFS
    0x01021994,  # tmpfs
    0x794C7630,  # overlayfs, of containers: syncs what lies below
}
"""Magic numbers of local file systems, as statfs(2) gives them."""


def syncs_at_once(folder: int) -> bool:
    """Whether `sync_all` can be used on the file system of an open folder."""
    libc = _libc()
    if libc is None:
        return False
    about = (ctypes.c_long * 64)()  # struct statfs begins with the type
    return libc.fstatfs(folder, about) == 0 and about[0] & 0xFFFFFFFF in _TRUSTED


def sync_all(folder: int) -> None:
    """Make all durable that was written to a file system since one of its folders was opened.

    Args:
        folder: the open folder; opened before the writes, or their errors are not told.

    Raises:
        OSError: a write to the disk failed.
    """
    libc = _libc()
    if libc is None or libc.syncfs(folder) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


@cache
def _libc() -> Any:
    """The C library, if its `syncfs` tells of errors; None where it does not, or there is none."""
    about = os.uname()
    release = re.match(r"(\d+)\.(\d+)", about.release)
    if about.sysname != "Linux" or release is None or tuple(map(int, release.groups())) < _TELLS_ERRORS:
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    return libc if hasattr(libc, "syncfs") and hasattr(libc, "fstatfs") else None
