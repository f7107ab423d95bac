"""DVC's locks: the repository lock that every `dvc` command takes, and the list of paths that a running stage writes."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from ckptvcs.errors import BadConfig, Conflict, from_os_error
from ckptvcs.storage import files, sidefiles

if TYPE_CHECKING:
    from pathlib import Path

    from ckptvcs.storage.dvc.config import DvcConfig


def lock(root: Path, config: DvcConfig, *, timeout_s: float) -> files.Lock:
    """DVC's own repository lock. Hold it for as short as can be: every other `dvc` command fails after 3 s of it.

    Raises:
        BadConfig: `core.hardlink_lock` is set, which needs DVC's lock program.
    """
    if config.hardlink_lock:
        raise BadConfig(
            "cannot lock the DVC repository",
            why="'core.hardlink_lock' is set, and ckptvcs uses flock",
            next_step="run 'dvc config --unset core.hardlink_lock' where the file system supports flock",
        )
    (root / ".dvc/tmp").mkdir(exist_ok=True)
    return files.Lock(root / ".dvc/tmp/lock", timeout_s=timeout_s, stamp=b" %d\n" % os.getpid())


def cache_lock(config: DvcConfig, *, timeout_s: float) -> files.Lock:
    """What keeps repositories apart that use one cache: those that come to need what is there, and those that sweep it.

    Raises:
        StorageError: the cache cannot be written to.
    """
    path = cache_lock_path(config)
    try:
        config.cache_dir.mkdir(parents=True, exist_ok=True)
        with files.open_folder(config.cache_dir) as cache, files.open_beneath(cache, sidefiles.FOLDER, make=True):
            return files.Lock(path, timeout_s=timeout_s)
    except OSError as err:
        raise from_os_error(err, doing=f"make '{path.parent}'") from err


def cache_lock_path(config: DvcConfig) -> Path:
    """Where that lock is: there is none in a cache that no second repository has saved to."""
    return config.cache_dir / sidefiles.FOLDER / "cache.lock"


def refuse_while_writing(root: Path, track_path: str) -> None:
    """Refuse to touch a path that a running DVC stage writes to.

    Raises:
        Conflict: some living process has it in `.dvc/tmp/rwlock`.
    """
    try:
        held = json.loads((root / ".dvc/tmp/rwlock").read_bytes())["write"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if not isinstance(held, dict):
        return
    for path, holder in held.items():
        if not isinstance(holder, dict):
            continue
        relative = os.path.relpath(path, root)
        near = f"{track_path}/".startswith(f"{relative}/") or f"{relative}/".startswith(f"{track_path}/")
        if near and _is_alive(holder.get("pid")):
            raise Conflict(
                f"cannot write '{track_path}'",
                why=f"'{holder.get('cmd', 'a DVC stage')}' (process {holder['pid']}) is writing '{relative}'",
                next_step="wait for it to end and run the command again",
            )


def _is_alive(pid: Any) -> bool:
    try:
        number = int(pid)
        if number <= 0:  # which would ask for whole groups of processes
            return False
        os.kill(number, 0)
    except PermissionError:  # it is alive, and somebody else's
        return True
    except (OSError, OverflowError, ValueError, TypeError):
        return False
    return True
