"""A directory of the workspace, and what lies in it. How files get there is `workspace`; to look, none of it is needed."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ckptvcs.errors import from_os_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HERE: Final = "."
"""What `walk` calls something that is in the place of the directory and is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """A place for a directory: `path` (POSIX, not empty) below `root`."""

    root: Path
    path: str

    @property
    def parent(self) -> str:
        return self.path.rpartition("/")[0]

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    def absolute(self, member: str) -> str:
        """The absolute path of a file in it."""
        return str(self.root / self.path / member)


def walk(where: Directory) -> Iterator[tuple[str, os.stat_result]]:
    """Every file (and link) in a directory, as (path in it, what `lstat` says). Nothing for a directory that is not there.

    A file or link in the place of the directory is `.`. A folder that cannot be listed is itself named, for what is in it.
    """
    stack = [HERE]
    while stack:
        folder = stack.pop()
        try:
            info = os.lstat(where.absolute(folder))
            entries = _entries(where.absolute(folder)) if stat.S_ISDIR(info.st_mode) else None
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as err:
            raise from_os_error(err, doing=f"look into '{where.path}'") from err
        if entries is None:
            yield folder, info
            continue
        for name, found in entries:
            member = name if folder == HERE else f"{folder}/{name}"
            if stat.S_ISDIR(found.st_mode):
                stack.append(member)
            else:
                yield member, found


def _entries(folder: str) -> list[tuple[str, os.stat_result]] | None:
    """What is in a folder, without what goes while we look; None for a folder that we may not look into."""
    found = []
    try:
        for entry in os.scandir(folder):
            with contextlib.suppress(FileNotFoundError):
                found.append((entry.name, entry.stat(follow_symlinks=False)))
    except PermissionError:
        return None
    return found
