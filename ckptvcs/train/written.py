"""Folders that a library wrote because a policy asked for a save. The commit is what was wanted; the folder is left over.

Nothing is removed that is not durable as a commit, nor what the library would have written without us.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ckptvcs.digest import digest
from ckptvcs.errors import UsageError
from ckptvcs.train.folders import discard

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ckptvcs.domain.checkpoint import Checkpoint
    from ckptvcs.domain.manifest import Manifest
    from ckptvcs.porcelain.commit import Receipt


class WrittenFolders:
    """The folders `checkpoint-N` of one run.

    Args:
        keep: how many of those to keep that are left over; None for all.
        account: a file of each folder that no two have alike, and that is written last, by its path in the artifact.
        others: what the reasons of those saves hold that the library would have taken without us.
    """

    def __init__(self, keep: int | None, *, account: str, others: str) -> None:
        if keep is not None and keep < 0:
            raise UsageError(
                f"cannot keep {keep} folders", why="it is a number from 0 on", next_step="give None to keep all of them"
            )
        self._keep = keep
        self._account = account
        self._others = others
        self._steps: dict[int, Manifest | None] = {}
        """The step of each, oldest first, and its checkpoint, once that is durable."""

    def know(self, home: Path, checkpoints: Iterable[Checkpoint]) -> None:
        """Recognise the folders that earlier processes left.

        Args:
            home: where they are.
            checkpoints: of this run, newest first.
        """
        there = {step: path for path in home.glob("checkpoint-*") if (step := _step(path)) is not None}
        found: dict[int, Manifest | None] = {}
        for manifest in (checkpoint.manifest for checkpoint in checkpoints):
            if not there:
                break
            path = there.pop(manifest.step, None) if manifest.step is not None else None
            if path is not None and self._others not in manifest.reason and self._is_of(manifest, path):
                found[manifest.step or 0] = manifest
        self._steps = dict(reversed(found.items()))

    def add(self, step: int, *, ours: bool) -> None:
        """Take down that a folder was written; whether because of the policy alone."""
        self._steps.pop(step, None)
        if ours:
            self._steps[step] = None

    def durable(self, receipt: Receipt | None) -> None:
        """Take down that a checkpoint is durable."""
        if receipt is not None and receipt.manifest.step in self._steps:
            self._steps[receipt.manifest.step] = receipt.manifest

    def tidy(self, home: Path, *, but: str | None) -> None:
        """Remove those that are durable as commits, but for the newest ones.

        Args:
            home: where they are.
            but: one that the library still needs.
        """
        if self._keep is None:
            return
        steps = list(self._steps.items())
        for step, manifest in steps[: max(0, len(steps) - self._keep)]:
            folder = home / f"checkpoint-{step}"
            if manifest is None or (but is not None and folder == Path(but)):
                continue
            if self._is_of(manifest, folder):
                discard(folder)
            del self._steps[step]

    def _is_of(self, manifest: Manifest, folder: Path) -> bool:
        """Whether a folder is the one that was committed: it gives the same account of itself."""
        entry = next((file for file in manifest.all_files() if file.path == self._account), None)
        try:
            return entry is not None and digest((folder / Path(self._account).name).read_bytes()) == entry.blake3
        except OSError:
            return False


def _step(folder: Path) -> int | None:
    number = folder.name.partition("-")[2]
    return int(number) if number.isdecimal() and number.isascii() else None
