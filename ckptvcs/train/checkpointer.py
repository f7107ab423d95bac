"""`Checkpointer`: saves the state of a training loop as commits, off the training thread, and goes on where it stopped."""

from __future__ import annotations

import logging
import math
import secrets
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.errors import FormatError, IntegrityError, UsageError
from ckptvcs.formats.components import is_component_name
from ckptvcs.paths import printable
from ckptvcs.porcelain import commit, incoming
from ckptvcs.porcelain.api import check_params, unwrapped
from ckptvcs.porcelain.checkpoints import line, require_checkpoint
from ckptvcs.porcelain.describe import Options, ref_of
from ckptvcs.porcelain.load import load
from ckptvcs.porcelain.repo import Repository
from ckptvcs.train import capture
from ckptvcs.train.snapshot import Snapshots

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from ckptvcs.domain.checkpoint import Checkpoint, CheckpointId
    from ckptvcs.porcelain.commit import Receipt

_log = logging.getLogger("ckptvcs")

_LOCK_WAIT_S: Final = 600.0
"""A save in the background is in no hurry, and somebody's `dvc push` may hold DVC's lock for minutes."""

_RNG: Final = "rng"
_BARE: Final = "$bare"
"""Marks the state of a part whose `state_dict` gives something else than a container."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """Where training goes on."""

    id: CheckpointId
    commit: str
    step: int
    epoch: int | float | None
    metrics: Mapping[str, int | float | str]
    skipped: tuple[str, ...]
    """Newer checkpoints that could not be used, and why."""


class Checkpointer:
    """Commits the state of a training loop to the branch of its run.

    Args:
        model: the model; anything with `state_dict` and `load_state_dict`, as all the parts.
        optimizer: the optimizer.
        scheduler: the learning rate scheduler.
        run: name of the training job; its checkpoints go to the branch of that name.
        repo: a folder in the repository.
        branch: another branch than that of the run.
        track: the track; the one of ckpt.yaml if it is not given.
        asynchronous: save in the background. `save` then returns as soon as a copy of the state is taken.
        params: hyperparameters, for the record.
        data: names and versions of data sets, for the record.
        parts: more parts by name: `dataloader=...`, `scaler=...`, `ema=...`, a second model.

    The state of Python's, NumPy's and torch's random generators is always saved and restored. At most one save is under
    way; the next one waits for it. What goes wrong in the background is raised by the next call.

    Example:
        >>> with Checkpointer(model=model, optimizer=optimizer, run="bert-lr3e-4") as ck:
        ...     start = ck.resume()
        ...     for step in range(start.step + 1 if start else 0, total):
        ...         loss = train_step()
        ...         if step % 100 == 0:
        ...             ck.save(step, metrics={"loss": loss})
    """

    def __init__(
        self,
        *,
        run: str,
        model: Any = None,
        optimizer: Any = None,
        scheduler: Any = None,
        repo: str | Path = ".",
        branch: str | None = None,
        track: str | None = None,
        asynchronous: bool = True,
        params: Mapping[str, Any] | None = None,
        data: Mapping[str, str] | None = None,
        **parts: Any,
    ) -> None:
        given = {"model": model, "optimizer": optimizer, "scheduler": scheduler, **parts}
        self._parts = {name: part for name, part in given.items() if part is not None}
        _check_parts(self._parts)
        self._repo = Repository.open(repo, lock_wait_s=_LOCK_WAIT_S)
        self._run, self._branch = run, branch or run
        self._track = track or self._repo.config.track
        self._asynchronous = asynchronous
        self._params, self._data = check_params(params or {}), dict(data or {})
        self._custody = commit.take_custody(self._repo)  # the code that runs is that of now, whatever is edited later
        self._run_id = secrets.token_hex(8)
        self._parents: tuple[CheckpointId, ...] | None = None
        self._start: str | None = None
        self._snapshots = Snapshots()
        self._pool = ThreadPoolExecutor(1, "ckptvcs-save")
        self._pending: Future[Receipt] | None = None
        self._closed = False
        self.last_saved: Receipt | None = None
        """What the newest save that is known to be durable did."""

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except Exception:
            if kind is None:
                raise
            _log.exception("a save in the background failed")  # the exception that ended the loop is the one to raise

    # ---- saving

    def save(
        self,
        step: int,
        *,
        metrics: Mapping[str, Any] | None = None,
        epoch: float | None = None,
        message: str | None = None,
        reason: str = "manual",
    ) -> Receipt | None:
        """Commit the state as it is now.

        Args:
            step: the optimizer step.
            metrics: numbers that say how good it is; NaN is kept as a word and never ranks.
            epoch: the epoch.
            message: the commit message.
            reason: why it is saved.

        Returns:
            What was done; None if it is done in the background, where `wait_until_finished` tells.

        Raises:
            CkptvcsError: this save failed, or the one before it did in the background.
        """
        if self._closed:
            raise UsageError("cannot save", why="this Checkpointer is closed", next_step="save before 'close'")
        self.wait_until_finished()
        state = {name: _state_of(part) for name, part in self._parts.items()} | {_RNG: capture.rng_state()}
        what = incoming.from_state(
            dict(sorted(state.items())),
            roles={name: capture.role(name, part) for name, part in self._parts.items()},
            known=capture.hints(self._parts),
            files=capture.model_files(self._parts),
        )
        options = self._options(step, metrics or {}, epoch=epoch, message=message, reason=reason)
        if not self._asynchronous:
            return self._commit(what, options)
        self._pending = self._pool.submit(self._commit, self._snapshots.take(what), options)
        return None

    def _options(
        self, step: int, metrics: Mapping[str, Any], *, epoch: float | None, message: str | None, reason: str
    ) -> Options:
        return Options(
            message=message,
            track=self._track,
            branch=self._branch,
            run=self._run,
            run_id=self._run_id,
            step=int(step),
            epoch=epoch,
            metrics={name: _metric(name, value) for name, value in metrics.items()},
            params=self._params,
            versions=self._data,
            reason=reason,
            seeds=capture.seeds(),
            command=sys.argv,
            parents=self._parents,
            start=self._start,
            fresh=self._parents is None,
            workspace=False,
        )

    def _commit(self, what: incoming.Incoming, options: Options) -> Receipt:
        receipt = commit.execute(self._repo, commit.plan(self._repo, what, options, self._custody))
        self.last_saved = receipt
        self._parents = None  # from here on the parent is the last checkpoint of the branch
        return receipt

    @property
    def last_durable_step(self) -> int | None:
        """The step that a crash right now would not lose; None if nothing was saved yet."""
        return None if self.last_saved is None else self.last_saved.manifest.step

    def wait_until_finished(self) -> Receipt | None:
        """Wait for the save under way.

        Returns:
            What the last save did, or None if there was none.

        Raises:
            CkptvcsError: it failed; nothing of it was committed.
        """
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()
        return self.last_saved

    def close(self) -> None:
        """Wait for the save under way and let go of everything.

        Raises:
            CkptvcsError: that save failed.
        """
        self._closed = True
        try:
            self.wait_until_finished()
        finally:
            self._pool.shutdown()
            self._repo.close()

    # ---- resuming

    def resume(self, revision: str | None = None) -> Resumed | None:
        """Put every part back to a checkpoint: the newest one of the branch that verifies, or the one that is named.

        Where the branch of the run does not exist yet, it will leave the line of that checkpoint there: a fork.

        Args:
            revision: any revision; None for the newest checkpoint of the run.

        Returns:
            Where training goes on; None if the run has no checkpoint yet.

        Raises:
            IntegrityError: there are checkpoints, and not one of them is whole.
            FormatError: the checkpoint lacks a part, or a part does not accept its state.
        """
        self.wait_until_finished()
        skipped: list[str] = []
        for checkpoint in self._candidates(revision):
            try:
                self._repo.objects.check(ref_of(file) for file in checkpoint.manifest.all_files())
            except IntegrityError as err:
                if revision is not None:
                    raise
                skipped.append(f"step {checkpoint.manifest.step} ({checkpoint.id[:10]}): {err}")
                _log.warning("checkpoint %s cannot be used and is skipped: %s", checkpoint.id[:10], err)
                continue
            return self._restore(checkpoint, tuple(skipped))
        if skipped:
            raise IntegrityError(
                f"cannot resume run '{self._run}'",
                why=f"not one of its checkpoints is whole: {skipped[0]}",
                next_step="fetch the objects again with 'dvc fetch', or begin anew under another name",
                skipped=skipped,
            )
        return None

    def _candidates(self, revision: str | None) -> Iterator[Checkpoint]:
        if revision is not None:
            yield require_checkpoint(self._repo, revision, self._track)
            return
        tip = self._repo.history.tip(f"refs/heads/{self._branch}")
        if tip is None:
            return
        for checkpoint in line(self._repo, tip, self._track):
            yield checkpoint
            if not checkpoint.manifest.parents:
                return  # here this line of training began; what is older belongs to another one

    def _restore(self, checkpoint: Checkpoint, skipped: tuple[str, ...]) -> Resumed:
        manifest = checkpoint.manifest
        missing = [name for name in self._parts if all(c.name != name for c in manifest.components)]
        if missing:
            raise FormatError(
                f"cannot resume from checkpoint {checkpoint.id[:10]}",
                why=f"it has no component '{missing[0]}', only {', '.join(c.name for c in manifest.components)}",
                next_step="give Checkpointer the parts that the checkpoint has",
            )
        wanted = [name for name in (*self._parts, _RNG) if any(c.name == name for c in manifest.components)]
        # Copied, because some optimizers keep the tensors they are given, and those must not be a map of a file.
        state = load(self._repo, checkpoint.commit, wanted, copy=True, track=self._track)
        for name, part in self._parts.items():
            _load_part(name, part, state[name], checkpoint)
        if _RNG in wanted:
            capture.set_rng_state(state[_RNG])  # last: loading may draw random numbers
        self._parents, self._start = (checkpoint.id,), checkpoint.commit
        return Resumed(
            id=checkpoint.id,
            commit=checkpoint.commit,
            step=manifest.step or 0,
            epoch=manifest.epoch,
            metrics=manifest.metrics,
            skipped=skipped,
        )


def _check_parts(parts: Mapping[str, Any]) -> None:
    if not parts:
        raise UsageError("nothing to save", why="no part was given", next_step="pass model=, optimizer=...")
    folded = [name.casefold() for name in parts]
    for name, part in parts.items():
        if name == _RNG or not hasattr(part, "state_dict") or not hasattr(part, "load_state_dict"):
            raise UsageError(
                f"cannot save '{name}'",
                why="'rng' is saved by itself" if name == _RNG else "it has no state_dict and load_state_dict",
                next_step="pass an object that has both",
            )
        if not is_component_name(name) or folded.count(name.casefold()) > 1:
            raise UsageError(
                f"a part cannot be named '{printable(name)}'",
                why="the name of a part is that of a folder, and no two may differ in case alone",
                next_step="use letters, digits, '-', '_' and '.', a letter or digit first",
            )


def _state_of(part: Any) -> Any:
    """The state of a part, in a container: a part is a folder, which a bare number cannot be."""
    state = part.state_dict()
    return state if isinstance(state, (dict, list, tuple)) else (_BARE, state)


def _load_part(name: str, part: Any, state: Any, checkpoint: Checkpoint) -> None:
    bare = isinstance(state, tuple) and len(state) == 2 and state[0] == _BARE
    try:
        part.load_state_dict(state[1] if bare else state)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as err:
        raise FormatError(
            f"'{name}' does not accept its state from checkpoint {checkpoint.id[:10]}",
            why=str(err),
            next_step="make the same model and optimizer as when it was saved",
        ) from err


def _metric(name: str, value: Any) -> int | float | str:
    """A metric for the manifest. A diverged run must still be saved, so NaN is no error here; it is kept as a word."""
    value = unwrapped(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UsageError(f"metric '{name}' cannot be {value!r}", why="a metric is a number", next_step="leave it out")
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value
