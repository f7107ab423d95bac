"""Libraries that write and read their checkpoints as folders: a finished folder becomes a commit, and a commit one.

What writes the folder, and what reads it, is that library alone; here it is neither imported nor imitated, and nothing in a
folder is unpickled. A folder is copied into memory before `commit` returns, so it may be changed, rotated or removed then.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.domain import provenance
from ckptvcs.errors import FormatError
from ckptvcs.porcelain import exchange, incoming
from ckptvcs.train import capture, ranks, resume

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ckptvcs.domain.checkpoint import Checkpoint
    from ckptvcs.porcelain.commit import Receipt
    from ckptvcs.train.facts import Facts
    from ckptvcs.train.resume import Resumed
    from ckptvcs.train.run import Run

_log = logging.getLogger("ckptvcs")

RESUME: Final = ".ckptvcs-resume"
"""The private folder, beside the library's own ones, in which a checkpoint appears that training goes on from."""

_REMOVED: Final = ".ckptvcs-removed-"


class Folders:
    """The folders of one run.

    Args:
        run: the training.
        aux: files that belong to each checkpoint.
    """

    def __init__(self, run: Run, aux: Sequence[str | Path]) -> None:
        self._run = run
        self._aux = capture.aux_paths(aux)
        self._home: Path | None = None
        self.resumed: Resumed | None = None
        """Where training goes on, if it does."""

    def commit(self, folder: Path, facts: Facts) -> Receipt | None:
        """Commit a folder that is finished.

        Args:
            folder: as `ckpt commit` takes it; when this returns it is not needed any more.
            facts: what is said of it.

        Returns:
            What was done; None if it is done in the background.

        Raises:
            FormatError: it cannot be read.
            UsageError: the policy demands a better grade.
            CkptvcsError: this commit failed, or the one before it did in the background.
        """
        what = incoming.from_path(folder)
        for note in what.notes:
            _log.debug("%s", note)
        roles = {component.role for component in what.components}
        self._run.demand(
            provenance.grade(roles),
            why=f"what was written plays the roles {', '.join(sorted(roles))}",
            next_step="let the library save all of its state, not the model alone",
        )
        return self._run.saver.save(replace(what, files={**what.files, **capture.aux_files(self._aux)}), facts)

    def resume(
        self, revision: str | None, home: Path, *, writes: bool, refuse: Callable[[Checkpoint], None]
    ) -> Path | None:
        """Find the checkpoint to go on from, and make its folder appear. Every rank has to call it.

        Args:
            revision: any revision; None for the newest checkpoint of the run that is whole.
            home: where the library writes its folders.
            writes: whether this process writes the folder; the others wait for it.
            refuse: raises `FormatError` for a checkpoint that the library cannot read.

        Returns:
            The folder, which `discard_resumed` removes; None if the run has no checkpoint yet.

        Raises:
            IntegrityError, FormatError: there are checkpoints, and none can be used.
        """
        self._run.wait()
        saver = self._run.saver
        found = resume.find_whole(saver, revision, refuse=refuse)
        if found is None:
            return None
        checkpoint = found.checkpoint
        if revision is not None:
            resume.fork_if_needed(saver, checkpoint)
        self._home = home / RESUME
        folder = self._home / f"checkpoint-{checkpoint.manifest.step or 0}"
        if writes:
            _remove_leftovers(home)
            self._home.mkdir(parents=True)
            plan = exchange.plan_export(
                saver.repo, checkpoint.commit, folder, format="hf", track=checkpoint.manifest.track
            )
            exchange.execute(saver.repo, plan)
        ranks.any_says(None)
        self.resumed = resume.resumed(saver, checkpoint, samples=None, skipped=found.skipped, left=())
        return folder

    def go_on(self, remembered: Any, *, named: bool) -> None:
        """Go on with what the triggers remembered in the checkpoint that was resumed from.

        Args:
            remembered: from `Watch.remembered_in_save`.
            named: whether the user named that checkpoint; else it is this run that goes on, and the ledger knows its past.
        """
        self._run.watch.go_on(remembered, past=None if named else self._run.saver.past())

    def went_on(self, step: int, remembered: Any) -> None:
        """Take down that training goes on from a folder that `resume` did not make.

        Args:
            step: of the folder.
            remembered: as for `go_on`.
        """
        saver = self._run.saver
        known = next((c for c in resume.of_the_run(saver) if c.manifest.step == step), None)
        if known is None:
            _log.warning("no checkpoint of run '%s' has step %s: what it goes on from is not recorded", saver.run, step)
        else:
            saver.descend_from(known)
        self.go_on(remembered, named=False)

    def discard_resumed(self) -> None:
        """Remove the folder that `resume` made, which has been read."""
        if self._home is not None and self._home.is_dir():
            discard(self._home)
        self._home = None


def discard(folder: Path) -> None:
    """Remove a folder so that nobody ever sees half of it."""
    aside = folder.with_name(f"{_REMOVED}{secrets.token_hex(6)}")
    try:
        os.rename(folder, aside)
    except FileNotFoundError:
        return  # somebody else removed it
    shutil.rmtree(aside, ignore_errors=True)


def _remove_leftovers(home: Path) -> None:
    """Remove what a process that was killed left in the library's folder."""
    for leftover in [home / RESUME, *home.glob(f"{_REMOVED}*")]:
        shutil.rmtree(leftover, ignore_errors=True)


def require_file(checkpoint: Checkpoint, path: str, library: str) -> None:
    """Refuse a checkpoint that a library did not write.

    Raises:
        FormatError: it lacks the file that all of that library's checkpoints have.
    """
    if all(file.path != path for file in checkpoint.manifest.all_files()):
        raise FormatError(
            f"cannot resume from checkpoint {checkpoint.id[:10]}",
            why=f"{library} did not write it: it has no '{path}'",
            next_step="resume from one that it wrote, or load the weights with 'ckptvcs.load'",
        )
