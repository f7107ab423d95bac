"""`Saver`: commits the states of one run, one after the other, off the training thread.

What a state is made of, and when it is saved, is for its callers to say.
"""

from __future__ import annotations

import itertools
import logging
import secrets
import sys
import time
from collections import deque
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.domain import calibration
from ckptvcs.errors import CkptvcsError, NotFound, UsageError
from ckptvcs.porcelain import claim, commit, ledger, note
from ckptvcs.porcelain.checkpoints import require_checkpoint
from ckptvcs.porcelain.describe import Options
from ckptvcs.porcelain.repo import Repository
from ckptvcs.porcelain.target import check_branch_name
from ckptvcs.porcelain.tracked import tracked
from ckptvcs.porcelain.user_values import check_params
from ckptvcs.train import capture, elsewhere, exits, ranks
from ckptvcs.train.facts import mapping_of, metrics_of, versions_of
from ckptvcs.train.snapshot import Snapshots
from ckptvcs.train.telling import Telling

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future

    from ckptvcs.domain.calibration import Recorded
    from ckptvcs.domain.checkpoint import Checkpoint, CheckpointId
    from ckptvcs.porcelain.commit import Receipt
    from ckptvcs.porcelain.incoming import Incoming
    from ckptvcs.train.facts import Facts

_log = logging.getLogger("ckptvcs")

_LOCK_WAIT_S: Final = 600.0
"""A save in the background is in no hurry, and somebody's `dvc push` may hold DVC's lock for minutes."""

_CLAIM_WAIT_S: Final = 30.0
"""How long a process may take to end that trained the run before: a scheduler starts the next one when it likes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A save that is durable."""

    receipt: Receipt
    blocked_s: float
    """How long the training thread stood still for the copy of the state."""
    seconds: float
    """From the call until the checkpoint was durable."""


class Saver(Telling):
    """Commits states to the branch of a run. At most one save is under way.

    Args:
        repo: a folder in the repository.
        run: name of the training job.
        branch: another branch than that of the run.
        track: the track; None for the configured one.
        asynchronous: `save` returns as soon as a copy of the state is taken.
        params: hyperparameters, for the record.
        data: names and versions of data sets, for the record.
    """

    def __init__(
        self,
        repo: str | Path,
        *,
        run: str,
        branch: str | None = None,
        track: str | None = None,
        asynchronous: bool = True,
        params: Mapping[str, Any] | None = None,
        data: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self._folder = Path(repo).absolute()
        self._repo: Repository | None = None
        self.run, self.branch = run, run if branch is None else branch
        check_branch_name(self.repo, self.run)
        check_branch_name(self.repo, self.branch)
        elsewhere.follow(self.repo, self.branch)
        self._claimed: str | None = None
        self.looked = False
        """Whether somebody looked for a checkpoint to go on from."""
        self.track = track or self.repo.basics.track
        self._asynchronous = asynchronous
        self._params, self._data = check_params(mapping_of("params", params)), versions_of(data)
        self._custody = commit.take_custody(self.repo)  # the code that runs is that of now, whatever is edited later
        # Who does not say what a state descends from begins anew, whatever the branch holds.
        self._parents: tuple[CheckpointId, ...] | None = ()
        self._start: str | None = None
        self._saving: Future[None] | None = None
        self._saving_since = 0.0
        self._others: deque[Future[None]] = deque()
        self._pool: ThreadPoolExecutor | None = None
        self._snapshots = Snapshots()
        self.blocked_s = 0.0
        """How long the training thread stood still for the newest save."""
        self.last: Saved | None = None
        """The newest save that is known to be durable."""
        self.durable_step: int | None = None
        """The step of that, or of the checkpoint that training goes on from."""
        self.open()

    def open(self) -> None:
        """Get ready to save. After `close`, the next state descends from the last one, as if the run had not stopped."""
        if self._pool is None:
            self.run_id = secrets.token_hex(8)
            self._pool = ThreadPoolExecutor(1, "ckptvcs-save")
            exits.wait_for(self)

    @property
    def repo(self) -> Repository:
        """The repository; it can be looked at when this is closed, too."""
        if self._repo is None:
            self._repo = Repository.open(self._folder, lock_wait_s=_LOCK_WAIT_S)
        return self._repo

    def __getstate__(self) -> dict[str, Any]:
        idle: dict[str, Any] = {
            "_repo": None,
            "_pool": None,
            "_saving": None,
            "_others": deque(),
            "_snapshots": Snapshots(),
        }
        return {**vars(self), **idle}  # a process that is spawned opens its own

    def descend_from(self, checkpoint: Checkpoint) -> None:
        """Say which checkpoint the next state was trained on from; a branch that does not exist yet leaves its line there.

        When this returns the ledger says so, too: a collection may come before the first save.
        """
        self._parents, self._start = (checkpoint.id,), checkpoint.commit
        self.durable_step = checkpoint.manifest.step
        if ranks.rank() == 0:
            self.add_origin(checkpoint)
            self._announce(checkpoint)

    def fork(self) -> None:
        """Go to a new branch from here on: the first of `BRANCH-2`, `BRANCH-3`... that is free."""
        self._release()
        taken = self.repo.history.branches()
        names = (f"{self.branch}-{number}" for number in itertools.count(2))
        name = next(name for name in names if name not in taken and tracked(self.repo, name) is None)
        self.branch = self.run = name
        self.forget_start()

    @property
    def is_busy(self) -> bool:
        """Whether a save is under way."""
        return self._saving is not None and not self._saving.done()

    def save(self, what: Incoming, facts: Facts) -> Receipt | None:
        """Commit a state.

        Args:
            what: the state; when this returns it may change.
            facts: what is said of it.

        Returns:
            What was done; None if it is done in the background.

        Raises:
            CkptvcsError: this save failed, or the one before it did in the background.
        """
        if self._pool is None:
            raise UsageError("cannot save", why="this run is closed", next_step="save before 'close'")
        self.wait()
        began = time.perf_counter()
        self._begin()
        options = self._options(facts)
        if not self._asynchronous:
            self._commit(what, options, began, None)
            self.blocked_s = time.perf_counter() - began
            return self.receipt
        copied = self._snapshots.take(what)
        self.blocked_s = time.perf_counter() - began
        self._saving_since = time.monotonic()
        self._saving = self._pool.submit(self._commit_behind, copied, options, began, self.blocked_s)
        return None

    def _commit_behind(self, *args: Any) -> None:
        try:
            self._commit(*args)
        except BaseException as err:
            # Raised by the next call; told at once, because there may be none.
            _log.error("a save in the background failed: %s", err)
            raise

    def remaining_s(self) -> float:
        """How long the save under way will take, in seconds, if it takes as long as the one before."""
        if not self.is_busy or self.last is None:
            return 0.0
        return max(0.0, self.last.seconds - (time.monotonic() - self._saving_since))

    def save_now(self, what: Incoming, facts: Facts) -> Receipt:
        """Commit a state that is not that of this process, such as one from a file, and wait for it."""
        self.wait()
        self._commit(what, self._options(facts), time.perf_counter(), None)
        assert self.last is not None
        return self.last.receipt

    def _options(self, facts: Facts) -> Options:
        return Options(
            message=facts.message,
            track=self.track,
            branch=self.branch,
            run=self.run,
            run_id=self.run_id,
            step=None if facts.step is None else int(facts.step),
            epoch=facts.epoch,
            metrics=metrics_of(facts.metrics),
            params={**check_params(facts.params), **self._params},
            versions=self._data,
            reason=facts.reason,
            seeds=capture.seeds(),
            command=sys.argv,
            parents=self._parents,
            start=self._start,
            fresh=not self._parents,
            workspace=False,
            grade_at_most=facts.grade_at_most,
        )

    def _commit(self, what: Incoming, options: Options, began: float, blocked_s: float | None) -> None:
        receipt = commit.execute(self.repo, commit.plan(self.repo, what, options, self._custody))
        seconds = time.perf_counter() - began
        self.last = Saved(receipt=receipt, blocked_s=seconds if blocked_s is None else blocked_s, seconds=seconds)
        self.durable_step = receipt.manifest.step
        self._parents = None  # from here on the parent is the last checkpoint of the branch
        self.tell(
            "save",
            checkpoint=receipt.id,
            step=options.step,
            reason=options.reason,
            seconds=round(seconds, 3),
            blocked_s=round(self.last.blocked_s, 4),
            bytes=receipt.new_bytes,
        )

    @property
    def receipt(self) -> Receipt | None:
        """What the newest save that is known to be durable did."""
        return None if self.last is None else self.last.receipt

    def later(self, action: Callable[[], object]) -> None:
        """Do something after what is under way; if it fails, the next call says so. At once, where this is closed."""

        def run() -> None:
            action()

        if self._asynchronous and self._pool is not None:
            self._others.append(self._pool.submit(run))
        else:
            run()

    def raise_failure(self) -> None:
        """Raise what went wrong in the background, without waiting for what is still under way."""
        while self._others and self._others[0].done():
            self._others.popleft().result()
        if self._saving is not None and self._saving.done():
            self._finish()

    def wait(self) -> Receipt | None:
        """Wait for what is under way.

        Returns:
            What the last save did, or None if there was none.

        Raises:
            CkptvcsError: it failed; nothing of it was committed.
        """
        if self._saving is not None:
            self._finish()
        while self._others:
            self._others.popleft().result()
        return self.receipt

    def _finish(self) -> None:
        assert self._saving is not None
        saving = self._saving
        futures.wait([saving])  # an interrupt here must not make us forget it: it still reads our buffers
        self._saving = None
        saving.result()

    def step_at(self, selector: str) -> int | None:
        """The step of what `BRANCH@selector` means on the branch of the run; None if there is no such checkpoint."""
        try:
            return require_checkpoint(self.repo, f"{self.branch}@{selector}", self.track).manifest.step
        except NotFound:
            return None

    # ---- the ledger

    def note(self, step: int, metrics: Mapping[str, int | float | str]) -> None:
        """Attach metrics to the checkpoint of a step, after what is under way."""
        revision = f"{self.branch}@step:{step}"
        self.later(lambda: note.execute(self.repo, note.plan_note(self.repo, revision, metrics, track=self.track)))

    def _begin(self) -> None:
        """Make the run that of this process, and tell the ledger that it begins, once."""
        if self._claimed is None:
            self._claim(_CLAIM_WAIT_S)
            if not self.looked and self._parents == () and (step := self.step_at("latest")) is not None:
                _log.warning(
                    "run '%s' has checkpoints up to step %s, and this training did not go on from them: call 'resume' to do "
                    "so, or give it another name",
                    self.run,
                    step,
                )
        self.tell_start()

    def _announce(self, checkpoint: Checkpoint) -> None:
        """Tell the ledger that training goes on from a checkpoint, before it saves anything; durable when this returns.

        The branch stays free until then: who only looks at a checkpoint is in nobody's way.
        """
        if self._pool is None:  # it is closed, and saves nothing
            return
        self.wait()
        try:
            if self._claimed is None:
                self._claim(0.0)  # else this would seem to be that training, begun again
                self._release()
            self.tell_start()
            self.wait()
        except (CkptvcsError, OSError) as err:
            text = "the ledger does not know yet that run '%s' goes on from checkpoint %s: %s"
            _log.warning(text, self.run, checkpoint.id[:10], err)

    def _claim(self, wait_s: float) -> None:
        claim.claim_branch(self.repo, self.branch, run=self.run, wait_s=wait_s)
        self._claimed = self.branch

    def _release(self) -> None:
        if self._claimed is not None:
            claim.release_branch(self.repo, self._claimed)
        self._claimed = None

    def past(self, checkpoint: Checkpoint | None = None) -> Recorded | None:
        """What the ledger recorded of this run until now, this start included; None if it cannot be read.

        Args:
            checkpoint: what the run is about to go on from, if `descend_from` was not told yet.
        """
        recorded: Recorded | None = ranks.agreed(self._recorded(checkpoint) if ranks.rank() == 0 else None)
        return recorded

    def _recorded(self, checkpoint: Checkpoint | None) -> Recorded | None:
        if checkpoint is not None:
            self.add_origin(checkpoint)
        self._begin()
        self.wait()
        try:
            return calibration.of_events(ledger.events(self.repo, ops=calibration.OPS), run=self.run)
        except CkptvcsError as err:
            _log.warning("the past of run '%s' cannot be read: %s", self.run, err)
            return None

    def close(self) -> None:
        """Wait for the save under way and let go of everything.

        Raises:
            CkptvcsError: that save failed.
        """
        try:
            self.wait()
        finally:
            if self._pool is not None:
                self._pool.shutdown()
            self._release()
            self.repo.close()
            self.forget()
            self._repo, self._pool, self._snapshots = None, None, Snapshots()
