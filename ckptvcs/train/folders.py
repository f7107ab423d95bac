"""Runs of libraries that write and read their checkpoints as folders: a finished folder becomes a commit, and a commit one.

What writes the folder, and what reads it, is that library alone; here it is neither imported nor imitated, and nothing in a
folder is unpickled. A folder is copied into memory before `commit` returns, so it may be changed, rotated or removed then.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.domain import provenance
from ckptvcs.errors import FormatError, UsageError
from ckptvcs.porcelain import exchange, incoming
from ckptvcs.porcelain.config import save_policy
from ckptvcs.train import capture, ranks, resume
from ckptvcs.train.preemption import Preempted, Preemption
from ckptvcs.train.saver import Facts, Saver, metric
from ckptvcs.train.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ckptvcs.domain.checkpoint import Checkpoint
    from ckptvcs.domain.policy import Save
    from ckptvcs.porcelain.commit import Receipt
    from ckptvcs.train.resume import Resumed

_log = logging.getLogger("ckptvcs")

RESUME: Final = ".ckptvcs-resume"
"""The private folder, beside the library's own ones, in which a checkpoint appears that training goes on from."""

_REMOVED: Final = ".ckptvcs-removed-"


class RunFace:
    """What every face of such a run tells its user."""

    _run: FolderRun

    def event(self, name: str) -> None:
        """Say that something happened that the policy may save for: `on_event: [NAME]`."""
        self._run.watch.event(name)

    def note(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Attach metrics to a checkpoint of this run that are known only now; `@best` and retention use them.

        Written in the background, after the commit under way; if it fails, the next step says so.

        Args:
            step: of the checkpoint.
            metrics: numbers by name.
        """
        self._run.saver.note(step, {name: metric(name, value) for name, value in metrics.items()})

    def latest_step(self) -> int | None:
        """The step of the newest checkpoint of the run; None if there is none."""
        return self._run.saver.step_at("latest")

    def best_step(self, metric: str | None = None) -> int | None:
        """The step of the best checkpoint of the run; by the metric that ckpt.yaml names, if none is given."""
        return self._run.saver.step_at(f"best:{metric}" if metric else "best")

    @property
    def last_saved(self) -> Receipt | None:
        """What the newest commit that is known to be durable did."""
        return self._run.saver.receipt

    @property
    def last_durable_step(self) -> int | None:
        """The recovery point: the step that a crash right now would not lose; None if nothing was committed yet."""
        return None if self.last_saved is None else self.last_saved.manifest.step

    @property
    def resumed(self) -> Resumed | None:
        """Where `resume` said that training goes on; None before it, and where the run had no checkpoint."""
        return self._run.resumed

    def wait_until_finished(self) -> Receipt | None:
        """Wait for the commit under way.

        Returns:
            What the last commit did, or None if there was none.

        Raises:
            CkptvcsError: it failed; nothing of it was committed.
        """
        return self._run.saver.wait()

    def close(self) -> None:
        """Wait for the commit under way, and let go of everything.

        Raises:
            CkptvcsError: that commit failed.
        """
        self._run.preemption.remove()
        self._run.discard_resumed()
        self._run.saver.close()


class FolderRun:
    """One run whose states are folders.

    Args:
        repo: a folder in the repository.
        run: name of the training job; its checkpoints go to the branch of that name.
        branch: another branch than that of the run.
        track: the track; None for the configured one.
        policy: when to save; None for that of ckpt.yaml, else the default.
        asynchronous: commit in the background, from a copy in memory.
        params: hyperparameters, for the record.
        data: names and versions of data sets, for the record.
        aux: files that belong to each checkpoint.
        preempted: asked at every step whether the process is to end soon.
    """

    def __init__(
        self,
        repo: str | Path,
        *,
        run: str,
        branch: str | None,
        track: str | None,
        policy: Save | Mapping[str, Any] | None,
        asynchronous: bool,
        params: Mapping[str, Any] | None,
        data: Mapping[str, str] | None,
        aux: Sequence[str | Path],
        preempted: Callable[[], bool] | None,
    ) -> None:
        self._aux = [Path(path) for path in aux]
        self._probe = preempted
        self.saver = Saver(
            repo, run=run, branch=branch, track=track, asynchronous=asynchronous, params=params, data=data
        )
        config = self.saver.repo.config
        self.has_policy = policy is not None or config.save is not None
        """Whether somebody said when to save."""
        self.resumed: Resumed | None = None
        """Where training goes on, if it does."""
        self._home: Path | None = None
        self.follow(save_policy(config, policy))

    def follow(self, policy: Save) -> None:
        """Save by this policy from here on."""
        self.policy = policy
        self.watch = Watch(policy)
        self.preemption = Preemption.of(policy, probe=self._probe)

    # ---- saving

    def look(self, step: int, *, epoch: float | None, metrics: Mapping[str, int | float | str]) -> tuple[str, ...]:
        """Say why the state should be saved now; empty if it should not. Every rank has to ask, and gets the same answer.

        Args:
            step: the optimizer step that was made.
            epoch: the epoch.
            metrics: what was measured of it since it was last asked.
        """
        reasons = self.watch.look(step, epoch=epoch, metrics=metrics, busy=self.saver.is_busy)
        if reasons and self.policy.when_busy == "skip" and self.saver.is_busy:
            _log.warning("step %s is not saved: the save before it is still under way", step)
            reasons = ()
        return tuple(ranks.agreed(reasons))

    def announced(self) -> tuple[str, int] | None:
        """What announced the end of the process, and the exit status that it asks for. Every rank has to ask."""
        end: tuple[str, int] | None = ranks.any_says(self.preemption.announced())
        return end

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
        _check_grade({component.role for component in what.components}, self.policy.grade)
        return self.saver.save(replace(what, files={**what.files, **capture.aux_files(self._aux)}), facts)

    def leave(self, why: str, status: int) -> None:
        """End the process, once what was saved is durable.

        Raises:
            Preempted: always.
        """
        receipt = self.saver.wait()
        ranks.any_says(None)  # on one rank alone it is durable, and when one of them ends, launchers end the others
        self.end("preempted", None if receipt is None else receipt.manifest.step)
        left_s = self.preemption.left_s()
        _log.warning(
            "%s announced the end: step %s is saved%s, the process ends",
            why,
            None if receipt is None else receipt.manifest.step,
            "" if left_s >= 0 else f", {-left_s:.0f} s after the grace period",
        )
        raise Preempted(why, receipt, status)

    def end(self, how: str, step: int | None) -> None:
        """Tell the ledger that the training has ended, and give the signals back.

        Args:
            how: `closed`, `exception` or `preempted`.
            step: the last step.
        """
        self.preemption.remove()
        self.saver.end(how, step)
        self.saver.wait()

    # ---- going on

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
        self.saver.wait()
        found = resume.find(self.saver, revision, refuse=refuse)
        if found is None:
            return None
        checkpoint = found.checkpoint
        if revision is not None:
            resume.fork_if_needed(self.saver, checkpoint)
        self._home = home / RESUME
        folder = self._home / f"checkpoint-{checkpoint.manifest.step or 0}"
        if writes:
            _remove_leftovers(home)
            self._home.mkdir(parents=True)
            plan = exchange.plan_export(
                self.saver.repo, checkpoint.commit, folder, format="hf", track=checkpoint.manifest.track
            )
            exchange.execute(self.saver.repo, plan)
        ranks.any_says(None)
        self.resumed = resume.resumed(self.saver, checkpoint, samples=None, skipped=found.skipped, left=())
        return folder

    def go_on(self, remembered: Any, *, named: bool) -> None:
        """Go on with what the triggers remembered in the checkpoint that was resumed from.

        Args:
            remembered: from `Watch.remembered_in_save`.
            named: whether the user named that checkpoint; else it is this run that goes on, and the ledger knows its past.
        """
        writes = ranks.rank() == 0  # the others do what that one decides
        self.watch.go_on(remembered, past=self.saver.past() if writes and not named else None)

    def went_on(self, step: int, remembered: Any) -> None:
        """Take down that training goes on from a folder that `resume` did not make.

        Args:
            step: of the folder.
            remembered: as for `go_on`.
        """
        known = next((c for c in resume.of_the_run(self.saver) if c.manifest.step == step), None)
        if known is None:
            _log.warning(
                "no checkpoint of run '%s' has step %s: what it goes on from is not recorded", self.saver.run, step
            )
        else:
            self.saver.descend_from(known)
        self.go_on(remembered, named=False)

    def discard_resumed(self) -> None:
        """Remove the folder that `resume` made, which has been read."""
        if self._home is not None and self._home.is_dir():
            discard(self._home)
        self._home = None


def _check_grade(roles: set[str], demanded: str | None) -> None:
    """Refuse a folder from which training could not go on as well as a policy demands."""
    grade = provenance.grade(roles)
    if demanded is not None and provenance.lower_grade(demanded, grade) != demanded:
        raise UsageError(
            f"what was written is resumable {grade}, and the policy demands {demanded}",
            why=f"it plays the roles {', '.join(sorted(roles))}",
            next_step="let the library save all of its state, not the model alone, or change 'save.grade' in ckpt.yaml",
        )


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
