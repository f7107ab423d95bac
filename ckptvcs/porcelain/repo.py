"""A repository: git history, DVC cache, configuration and clock in one object. Verbs get it; they open nothing themselves."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ckptvcs.porcelain import config as configuration
from ckptvcs.storage.dvc import config as dvc
from ckptvcs.storage.history.repository import History

# The rest of storage is imported where it is first needed: a command that only looks needs none of it, and has 150 ms.
if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Any

    from ckptvcs.domain.basics import Basics
    from ckptvcs.domain.events import Head
    from ckptvcs.domain.policy import Config
    from ckptvcs.storage.directory import Directory
    from ckptvcs.storage.files import Lock
    from ckptvcs.storage.history.repository import CommitId, Identity
    from ckptvcs.storage.index import LocalIndex
    from ckptvcs.storage.verified import VerifiedStore
    from ckptvcs.storage.workspace import Placing

LOCK_WAIT_S = 30.0
"""How long a command waits for another one; a save in the background of a training waits longer."""


class Repository:
    """An open repository.

    Args:
        history: the git repository.
        root: the folder that holds `.dvc`, in it or below.
        around: what the environment says.
        lock_wait_s: how long to wait for other processes.
    """

    def __init__(
        self, history: History, root: Path, around: configuration.Surroundings, *, lock_wait_s: float = LOCK_WAIT_S
    ) -> None:
        self.history = history
        self.root = root
        self.around = around
        self.lock_wait_s = lock_wait_s
        prefix = root.relative_to(history.root).as_posix()
        self._prefix = "" if prefix == "." else f"{prefix}/"
        self.chain_ends: dict[tuple[str, CommitId], Head] = {}
        """What chains of the ledger ended with, by writer and commit, when this process last added to its own."""

    @classmethod
    def open(cls, start: Path | str = ".", *, lock_wait_s: float = LOCK_WAIT_S) -> Repository:
        """Open the repository that a path is in.

        Raises:
            NoRepository: there is no git repository, or no DVC repository in it.
        """
        start = Path(start).absolute()
        history = History.discover(start)
        inside = start if start.is_relative_to(history.root) else history.root
        root = dvc.find_root(inside, history.root)
        return cls(history, root, configuration.surroundings(), lock_wait_s=lock_wait_s)

    # ---- parts, made when they are needed

    @cached_property
    def basics(self) -> Basics:
        return configuration.read_basics(self.root, self.private / "config.json")

    @cached_property
    def config(self) -> Config:
        return configuration.read_config(self.root, self.private / "config.json")

    @cached_property
    def dvc_config(self) -> dvc.DvcConfig:
        return dvc.read_config(self.root, self.around.dvc_files)

    def forget_dvc_config(self) -> None:
        """Read DVC's configuration anew when it is next asked for: it was changed."""
        vars(self).pop("dvc_config", None)

    def forget_config(self) -> None:
        """Read `ckpt.yaml` anew when it is next asked for: it was changed."""
        for name in ("basics", "config"):
            vars(self).pop(name, None)

    @cached_property
    def index(self) -> LocalIndex:
        from ckptvcs.storage.index import LocalIndex

        return LocalIndex(self.private / "index.sqlite3")

    @cached_property
    def objects(self) -> VerifiedStore:
        """The hot tier."""
        from ckptvcs.porcelain import obstacles
        from ckptvcs.storage.objects import open_cache
        from ckptvcs.storage.verified import VerifiedStore

        obstacles.refuse_planted(self, self.history.head())
        return VerifiedStore(open_cache(self.dvc_config.cache_dir, group=self.dvc_config.shared_group), self.index)

    @property
    def identity(self) -> Identity:
        from ckptvcs.storage.history import settings

        return self.around.identity(settings.identity(self.history))

    @property
    def placing(self) -> Placing:
        from ckptvcs.storage.workspace import Placing

        return Placing(link=self.config.checkout.link, privileged=self.around.privileged)

    def close(self) -> None:
        """Let go of what is open."""
        self.index.close()

    # ---- the clock

    @staticmethod
    def now() -> datetime:
        """The time, with the offset of this place: git keeps it in commits."""
        return datetime.now(timezone.utc).astimezone()  # noqa: TID251 - this is the one clock

    # ---- paths

    @property
    def private(self) -> Path:
        """`.git/ckptvcs`: what is this clone's alone, and can be lost. The first command that writes makes it."""
        return self.history.private

    def track_path(self, track: str) -> str:
        """The artifact of a track, relative to the DVC root."""
        return f"{self.basics.directory}/{track}"

    def git_path(self, path: str) -> str:
        """A path relative to the DVC root, relative to the git root."""
        return self._prefix + path

    def pointer_path(self, track: str) -> str:
        return self.git_path(f"{self.track_path(track)}.dvc")

    def manifest_path(self, track: str) -> str:
        return self.git_path(f"{self.track_path(track)}.json")

    def ignore_path(self) -> str:
        return self.git_path(f"{self.basics.directory}/.gitignore")

    def is_ours(self, path: str) -> bool:
        """Whether a path relative to the git root is in our folder."""
        return path.startswith(f"{self.git_path(self.basics.directory)}/") or path == self.git_path(
            self.basics.directory
        )

    def workspace(self, track: str) -> Directory:
        """Where the artifact of a track lies in the workspace."""
        from ckptvcs.storage.directory import Directory

        return Directory(root=self.root, path=self.track_path(track))

    # ---- locks

    @property
    def shares_cache(self) -> bool:
        """Whether other repositories may use the same cache: it is not in this clone, or one that shares it saved there."""
        from ckptvcs.storage.dvc import locks

        cache, inside = self.dvc_config.cache_dir.resolve(), self._prefix + ".dvc"
        if locks.cache_lock_path(self.dvc_config).exists():
            return True
        if cache.is_relative_to((self.root / ".dvc").resolve()):
            return False
        from ckptvcs.storage.history import recovery

        return not any(cache.is_relative_to((tree / inside).resolve()) for tree in recovery.worktrees(self.history))

    def cache_lock(self) -> AbstractContextManager[Any]:
        """Held while what is in a cache that others use as well comes to be needed, or is swept. It is taken first."""
        from contextlib import nullcontext

        from ckptvcs.storage.dvc import locks

        return locks.cache_lock(self.dvc_config, timeout_s=self.lock_wait_s) if self.shares_cache else nullcontext()

    def lock(self) -> AbstractContextManager[tuple[Lock, dict[str, Any]]]:
        """Our own lock; see `commits.repository_lock`."""
        from ckptvcs.storage.history import commits

        return commits.repository_lock(self.history, now=time.time(), timeout_s=self.lock_wait_s)

    def dvc_lock(self) -> Lock:
        """DVC's lock, which keeps `dvc gc` away."""
        from ckptvcs.storage.dvc import locks

        return locks.lock(self.root, self.dvc_config, timeout_s=self.lock_wait_s)
