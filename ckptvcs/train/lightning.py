"""PyTorch Lightning: `CkptCallback` saves a training as commits when the policy says so, and goes on with it exactly.

A state is saved where nothing of a step is left to do: after an optimizer step, after the validation that follows it, and
between two epochs. Only from there Lightning goes on as if nothing had happened.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from ckptvcs.domain import provenance
from ckptvcs.errors import FormatError
from ckptvcs.porcelain.config import save_policy
from ckptvcs.train import capture, ranks, resume
from ckptvcs.train.face import Face
from ckptvcs.train.facts import Facts
from ckptvcs.train.flavour import ModelCheckpoint
from ckptvcs.train.lightning_io import OWN, CkptIO, Order, read_pointer, url, write_pointer
from ckptvcs.train.lightning_loop import (
    batch_size,
    begin_epoch,
    figures,
    go_on_as_ever,
    is_fetched_ahead,
    loaders_of_ranks,
    make_loaders_replay,
    unclaimed,
    use_own_loaders,
    validation_follows,
)
from ckptvcs.train.parts import RNG, own_state
from ckptvcs.train.preemption import Preempted, Preemption, expected_s
from ckptvcs.train.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ckptvcs.domain.policy import Save
    from ckptvcs.porcelain.commit import Receipt
    from ckptvcs.train.flavour import LightningModule, Trainer

__all__ = ["CkptCallback", "CkptIO"]

_log = logging.getLogger("ckptvcs")

BATCH: Final = "batch"
VALIDATION: Final = "validation"
EPOCH: Final = "epoch"
"""Where the state is whole: after a step, after the validation that follows one, between epochs."""

_HASTE: Final = 1.5
"""How many times as long as it is expected to take a save may take at the end of the grace period."""


class CkptCallback(Face, ModelCheckpoint):
    """Commits the checkpoints of a Lightning training to the branch of its run.

    `Trainer(callbacks=[CkptCallback(run=...)])` is all that it takes; `trainer.fit(..., ckpt_path="last")` then begins anew
    where the run has no checkpoint yet, and else goes on from the newest one that is whole: with the same random numbers, at
    the same place in the data. What Lightning itself saves and loads by path becomes commits as well; see `CkptIO`.

    Args:
        run: name of the training job; its checkpoints go to the branch of that name.
        policy: when to save, as in the section `save` of ckpt.yaml, which is used if this is None. Where there is neither:
            as often as costs 3.5 % of the time, when the process is told to end, and at the end.
        repo: a folder in the repository.
        branch: another branch than that of the run.
        track: the track; the one of ckpt.yaml if it is not given.
        params: hyperparameters, for the record, beside those of `save_hyperparameters`.
        data: names and versions of data sets, for the record.
        aux: files that belong to each checkpoint, such as a tokenizer.
        preempted: asked at every step whether the process is to end soon, where no signal says so.
        asynchronous: save in the background.
        allow_pickle: keep as pickle what has no exact representation; see `CkptIO`.

    What goes wrong in the background is raised at the next step.

    Example:
        >>> ck = CkptCallback(run="bert-lr3e-4", policy={"every_n_steps": 100, "on_preemption": True})
        >>> trainer = lightning.Trainer(max_epochs=3, callbacks=[ck])
        >>> trainer.fit(model, datamodule, ckpt_path="last")
    """

    def __init__(  # noqa: PLR0913 - all by keyword, and most of them seldom
        self,
        *,
        run: str,
        policy: Save | Mapping[str, Any] | None = None,
        repo: str | Path = ".",
        branch: str | None = None,
        track: str | None = None,
        params: Mapping[str, Any] | None = None,
        data: Mapping[str, str] | None = None,
        aux: Sequence[str | Path] = (),
        preempted: Callable[[], bool] | None = None,
        asynchronous: bool = True,
        allow_pickle: bool = False,
    ) -> None:
        given: dict[str, Any] = {"branch": branch, "track": track, "params": params, "data": data, "aux": aux}
        self._io = CkptIO(run=run, repo=repo, asynchronous=asynchronous, allow_pickle=allow_pickle, **given)
        saver = self._io.saver
        self._preempted = preempted
        self._run = Run(saver, save_policy(saver.repo.config, policy), preempted=preempted)
        # Where Lightning looks for `ckpt_path="last"`: all that it finds there is a note that says what that means.
        super().__init__(dirpath=saver.repo.private / "lightning" / saver.track / saver.branch, save_top_k=0)
        self._found: dict[str, Any] | None = None
        """What a checkpoint holds of ours, from when it is loaded until the training goes on."""
        self._reasons: tuple[str, ...] = ()
        self._step = 0
        self._moved = False
        """Whether an optimizer step was made since the training began or went on."""
        self._accumulating = False
        self._saved: int | None = None
        self._samples = 0
        self._loaders: list[bool] = []
        """Whether they can tell their place, one for each loader of the training."""
        self._whole: str | None = None
        """Where the state is whole that is being saved."""
        self._point_to_last(exists=resume.has_begun(saver))

    # ---- what a user asks

    def io(self) -> CkptIO:
        """The `CheckpointIO` of this run. The callback gives it to the trainer, unless `plugins=[...]` did."""
        return self._io

    def wait_until_finished(self) -> Receipt | None:
        """Wait for the save under way; as `Checkpointer.wait_until_finished`."""
        receipt = super().wait_until_finished()
        self._point_to_last(exists=receipt is not None)
        return receipt

    def _point_to_last(self, *, exists: bool) -> None:
        """Leave the note for `ckpt_path="last"`, once there is something to find."""
        branch = self._io.saver.branch
        self.best_model_path = url(f"{branch}@best")
        note = Path(str(self.dirpath)) / "last.ckpt"
        if ranks.rank() == 0 and read_pointer(note) != (f"{branch}@latest" if exists else None):
            if exists:
                write_pointer(note, f"{branch}@latest")
            else:
                note.unlink()

    # ---- what Lightning calls: the beginning

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stand between the trainer and its files, and between it and its data loaders."""
        self._io.attach(trainer.strategy)
        if stage == "fit":
            self._loaders = make_loaders_replay(trainer)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep what is ours until the training goes on: everything before may draw random numbers."""
        if trainer.state.fn == "fit":
            self._found = {RNG: checkpoint.get(RNG), **(checkpoint.get(OWN) or {})}
            use_own_loaders(checkpoint, self._found.get("loaders"))
        else:
            self._io.forget()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step, self._saved = trainer.global_step, None
        self._moved, self._accumulating, self._reasons = False, False, ()
        self._run.saver.open()
        self._run.preemption = Preemption.of(self._run.policy, probe=self._preempted, ours=unclaimed)
        self._run.preemption.install()
        if self._found is not None:
            self._go_on(trainer, self._found)

    def _go_on(self, trainer: Trainer, found: Mapping[str, Any]) -> None:
        """Put back what Lightning does not, last of all the random generators."""
        own = self._io.settle()
        self._point_to_last(exists=True)
        self._samples = found.get("samples") or 0
        trainer.callback_metrics.update(found.get("metrics") or {})
        if "triggers" in found:
            self._run.watch.go_on(found["triggers"], past=self._run.saver.past() if own else None)
        if found.get("whole") == EPOCH:
            begin_epoch(trainer)
        self._put_generators_back(found[RNG])

    def _put_generators_back(self, gathered: Any) -> None:
        try:
            if gathered is None:
                raise FormatError("no random generators", why="Lightning alone wrote it")
            capture.set_rng_state(own_state(gathered, RNG))
        except FormatError as err:
            _log.warning("the random generators are left as they are, and it is no exact start: %s", err.why)

    # ---- what Lightning calls: the training

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if self._found is not None:
            go_on_as_ever(trainer)
            self._found = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        self._samples += batch_size(batch) * trainer.world_size
        step = trainer.global_step
        self._accumulating, self._step = step == self._step, step
        if self._accumulating:
            return  # the gradients are not in a checkpoint
        self._moved = True
        self._look(trainer)
        if self._run.policy.on_exit and 0 < trainer.max_steps <= step:
            self._reasons += ("on_exit",)
        if not trainer.is_last_batch and not validation_follows(trainer):
            self._act(trainer, BATCH)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_within_epoch(trainer) and not self._accumulating:
            self._look(trainer)
            if not trainer.is_last_batch:
                self._act(trainer, VALIDATION)

    def on_validation_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Save before the validation is over, if the process is told to end and would not live to see that."""
        end = self._run.announced() if self._is_within_epoch(trainer) else None
        if end is not None and ranks.agreed(_HASTE * self._expected_s(trainer) > self._run.preemption.left_s()):
            self._save_and_leave(trainer, None, (), *end)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._moved:
            self._look(trainer)
            self._act(trainer, EPOCH)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do nothing yet: schedulers are still to step, and the state is whole when the next epoch starts."""

    def _is_within_epoch(self, trainer: Trainer) -> bool:
        return trainer.state.fn == "fit" and not trainer.sanity_checking and self._moved

    def _look(self, trainer: Trainer) -> None:
        """Ask the policy; what it says is kept until the state is whole."""
        reasons = self._run.watch.look(
            trainer.global_step, epoch=trainer.current_epoch, metrics=figures(trainer), busy=self._run.saver.is_busy
        )
        self._reasons += tuple(reason for reason in reasons if reason not in self._reasons)

    def _act(self, trainer: Trainer, whole: str) -> None:
        """Save if there are reasons; leave if the process is to end."""
        said, self._reasons = self._reasons, ()
        end, reasons = self._run.agreed(() if said and self._run.skips(trainer.global_step) else said)
        if end is not None:
            self._save_and_leave(trainer, whole, reasons, *end)
        if reasons:
            self._run.demand(
                self._grade(trainer, whole),
                why="a data loader cannot tell its place in the middle of an epoch",
                next_step="use torchdata's StatefulDataLoader, save at the end of epochs",
            )
            self._save(trainer, whole, "; ".join(reasons))

    def _grade(self, trainer: Trainer, whole: str | None) -> str:
        placed = whole is not None and all(self._loaders) and not is_fetched_ahead(trainer)
        return provenance.EXACT if placed or whole == EPOCH else provenance.APPROXIMATE

    def _save(
        self, trainer: Trainer, whole: str | None, reason: str, *, alone: bool = False, grade: str | None = None
    ) -> None:
        grade = grade or self._grade(trainer, whole)
        self._run.wait()
        self._point_to_last(exists=self.last_saved is not None or self._found is not None)
        self._run.watch.saving()
        facts = Facts(
            step=trainer.global_step,
            epoch=trainer.current_epoch,
            metrics=figures(trainer),
            reason=reason,
            grade_at_most=grade,
        )
        self._whole = whole
        try:
            with self._run.failing():
                trainer.save_checkpoint(
                    url(f"{self._io.saver.branch}@latest"),
                    weights_only=False,
                    storage_options=Order(facts=facts, alone=alone),
                )
        finally:
            self._whole = None
        self._saved = trainer.global_step
        self._run.watch.saved(self._run.saver.blocked_s)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add what Lightning leaves out, also to what others save."""
        finished = trainer.state.status == "finished" and trainer.state.fn == "fit"
        checkpoint[RNG] = ranks.gathered(capture.rng_state())
        checkpoint[OWN] = {
            "whole": EPOCH if finished else self._whole,
            "samples": self._samples,
            "loaders": loaders_of_ranks(checkpoint),
            "triggers": self._run.watch.remembered(),
            "metrics": {name: value.detach().clone() for name, value in trainer.callback_metrics.items()},
        }

    # ---- what Lightning calls: the end

    def _save_and_leave(
        self, trainer: Trainer, whole: str | None, reasons: Sequence[str], why: str, status: int
    ) -> NoReturn:
        """Save within the grace period, and end the process."""
        note, needed_s, left_s = "", self._expected_s(trainer), self._run.preemption.left_s()
        alone = bool(ranks.agreed(needed_s > left_s))
        if alone:
            note = f"; model and optimizer alone: a whole save takes about {needed_s:.0f} s, {left_s:.0f} s are left"
        self._run.collect_failure()
        grade = provenance.APPROXIMATE if alone else None
        reason = "; ".join((*reasons, f"on_preemption: {why}{note}"))
        self._save(trainer, whole, reason, alone=alone, grade=grade)
        self.wait_until_finished()
        self._run.leave(why, status, note)

    def _expected_s(self, trainer: Trainer) -> float:
        return expected_s(self._run.saver.last, [trainer.lightning_module, *trainer.optimizers])

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._moved:
            self._look(trainer)
            if self._run.policy.on_exit and self._saved != trainer.global_step:
                self._reasons += ("on_exit",)
            self._act(trainer, EPOCH)
        self._run.preemption.remove()
        self._found = None

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._found is not None:  # there was nothing left to train
            trainer.callback_metrics.update(self._found.get("metrics") or {})

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save what there is, if the policy says so. What else goes wrong is logged; this exception is the one to raise."""
        self._run.preemption.remove()
        try:
            new = self._moved and self._saved != trainer.global_step
            # One rank alone cannot save: the others are not here to give their part.
            if (
                self._run.policy.on_exception
                and new
                and trainer.world_size == 1
                and not isinstance(exception, Preempted)
            ):
                reason = f"on_exception: {type(exception).__name__}"
                self._save(trainer, None, reason, grade=provenance.APPROXIMATE)
        except Exception:  # noqa: BLE001 - it is logged
            _log.exception("the state could not be saved after %s", type(exception).__name__)
        try:
            self._finish("preempted" if isinstance(exception, Preempted) else "exception")
        except Exception:  # noqa: BLE001 - it is logged
            _log.exception("a save in the background failed")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Wait for the save under way; raise what went wrong."""
        self._finish("closed")
        self._run.preemption.pass_on()

    def _finish(self, how: str) -> None:
        self._found = None
        if self._moved:
            self._run.saver.end(how, self._step)
        try:
            self.wait_until_finished()
        finally:
            self._run.saver.close()

    # ---- what Lightning's ModelCheckpoint would keep

    @property
    def state_key(self) -> str:
        return type(self).__qualname__

    def state_dict(self) -> dict[str, Any]:
        return {}  # what is ours is added by `on_save_checkpoint`
