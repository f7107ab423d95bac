"""`CkptCallback`: what the Trainer of Hugging Face saves becomes commits, when a policy says so, and it goes on from them.

The Trainer itself writes and reads its folders `checkpoint-N`. It has written one when it calls `on_save`; that one is
copied into memory there and committed in the background, so that it may be rotated, uploaded or written again afterwards.
"""

from __future__ import annotations

import json
import logging
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from transformers import TrainerCallback

from ckptvcs.domain import provenance
from ckptvcs.domain.policy import Preemption, Save
from ckptvcs.errors import CkptvcsError, UsageError
from ckptvcs.porcelain.config import save_policy
from ckptvcs.train import ranks, resume
from ckptvcs.train.face import Face
from ckptvcs.train.facts import Facts
from ckptvcs.train.folders import Folders, require_file
from ckptvcs.train.losses import Losses
from ckptvcs.train.preemption import Preempted
from ckptvcs.train.run import Run
from ckptvcs.train.saver import Saver
from ckptvcs.train.step import Step
from ckptvcs.train.written import WrittenFolders

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

    from ckptvcs.train.resume import Resumed

_log = logging.getLogger("ckptvcs")

_ACCOUNT: Final = "extra/trainer_state.json"
"""What the Trainer writes last, and what it cannot go on without."""

_OWN: Final = "ckptvcs"
"""The key of `TrainerState.stateful_callbacks` under which the triggers' memory is kept."""

_BY_TRAINER: Final = "save_strategy: "
"""How the reason of a save begins that the Trainer would have taken without us."""


class CkptCallback(Face, TrainerCallback):  # type: ignore[misc]  # its base is not looked at
    """Commits the checkpoints of a Hugging Face Trainer to the branch of a run.

    Args:
        run: name of the training job; its checkpoints go to the branch of that name.
        policy: when to save, as in the section `save` of ckpt.yaml, which is used if this is None. The Trainer saves at
            those steps beside those of its own `save_strategy`. Where nobody said anything: each save of the Trainer is
            committed, and one is taken when the process is told to end; with `save_strategy="no"` the default policy of
            `Checkpointer` holds.
        repo: a folder in the repository.
        branch: another branch than that of the run.
        track: the track; the one of ckpt.yaml if it is not given.
        params: hyperparameters, for the record, beside the TrainingArguments.
        data: names and versions of data sets, for the record.
        aux: files that belong to each checkpoint; they are kept under `auxiliary/`.
        preempted: asked at every step whether the process is to end soon, where no signal says so.
        keep_folders: how many of the folders `checkpoint-N` to keep that were written because of the policy alone; a folder
            goes only when it is durable as a commit. None keeps all of them. Those of the Trainer's own `save_strategy`,
            and the best one, are its own: see `save_total_limit`.
        asynchronous: commit in the background, from a copy of the folder in memory. Otherwise the Trainer waits, and
            nothing is copied.

    At most one commit is under way. What goes wrong in the background is raised at the next step.

    Example:
        >>> cb = CkptCallback(run="bert-lr3e-4", policy={"every_n_steps": 500, "on_preemption": True})
        >>> trainer = Trainer(model, args, train_dataset=data, callbacks=[cb])
        >>> trainer.train(resume_from_checkpoint=cb.resume())
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
        keep_folders: int | None = 1,
        asynchronous: bool = True,
    ) -> None:
        saver = Saver(repo, run=run, branch=branch, track=track, asynchronous=asynchronous, params=params, data=data)
        self._has_policy = policy is not None or saver.repo.config.save is not None
        self._run = Run(saver, save_policy(saver.repo.config, policy), preempted=preempted)
        self._folders = Folders(self._run, aux)
        self._written = WrittenFolders(keep_folders, account=_ACCOUNT, others=_BY_TRAINER)
        self._args: TrainingArguments | None = None
        self._now = Step()
        self._end: tuple[str, int] | None = None
        self._grade: str | None = None
        self._losses: Losses | None = None
        self._remembered: dict[str, Any] = {}

    # ---- going on

    def resume(self, revision: str | None = None) -> str | None:
        """Make the checkpoint to go on from appear as a folder, for `trainer.train(resume_from_checkpoint=...)`.

        It is the newest one of the run that is whole, or the one that is named: that one is forked, as `Checkpointer.resume`
        does. The folder is in a private place inside `output_dir`, and is removed when the Trainer has read it.

        Args:
            revision: any revision; None for the newest checkpoint of the run.

        Returns:
            The folder; None if the run has no checkpoint yet, with which the Trainer begins anew.

        Raises:
            UsageError: no Trainer has this callback yet.
            IntegrityError, FormatError: there are checkpoints, and none can be used.
        """
        if self._args is None:
            raise UsageError(
                "cannot resume before there is a Trainer",
                why="the folder appears in its output_dir",
                next_step="pass the callback to Trainer(callbacks=[...]) first",
            )
        home = Path(self._args.output_dir)
        refuse = partial(require_file, path=_ACCOUNT, library="the Trainer")
        folder = self._folders.resume(revision, home, writes=self._args.should_save, refuse=refuse)
        if folder is None:
            return None
        self._remembered = _remembered(folder)
        self._folders.go_on(self._remembered.get("triggers"), named=revision is not None)
        if revision is None:
            self._written.know(home, resume.of_the_run(self._run.saver))
        return str(folder)

    @property
    def resumed(self) -> Resumed | None:
        """Where `resume` said that training goes on; None before it, and where the run had no checkpoint."""
        return self._folders.resumed

    # ---- what the Trainer tells

    def on_init_end(self, args: TrainingArguments, *_: Any, **__: Any) -> None:
        """Get to know where the Trainer writes."""
        self._args = args
        if not self._has_policy and str(args.save_strategy.value) != "no":
            self._run.follow(Save(on_preemption=Preemption()))

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Watch the signals; see to it that the Trainer goes on from where `resume` said."""
        if self._args is None:
            self.on_init_end(args)
        if state.is_hyper_param_search:
            raise UsageError(
                "cannot commit a hyperparameter search",
                why="its trials are runs of their own, and this callback is one run",
                next_step="train each trial with a Trainer and a callback of its own",
            )
        resumed = self.resumed
        if resumed is not None and not (self._now.step or state.global_step == resumed.step):
            raise UsageError(
                f"the Trainer does not go on from step {resumed.step}",
                why=f"it begins at step {state.global_step}, and 'resume' found another checkpoint",
                next_step="call trainer.train(resume_from_checkpoint=callback.resume())",
            )
        if resumed is None and state.global_step and not self._now.step:
            self._remembered = state.stateful_callbacks.get(_OWN) or {}
            self._folders.went_on(state.global_step, self._remembered.get("triggers"))
        if self._losses is not None:
            self._losses.go_on(self._remembered.get("losses"))
        self._remembered = {}
        self._now, self._end = Step(step=state.global_step), None
        self._run.preemption.install()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Ask the policy about the step that was made, unless what will be measured of it is still to come."""
        self._now.begin(state.global_step)
        self._end = self._run.announced()
        if not args.auto_find_batch_size and args.should_save:
            self._folders.discard_resumed()  # every rank has made a step with it
        if self._end is not None:
            control.should_evaluate = False  # there is no time for that
        self._now.awaits_log = control.should_log and not control.should_evaluate and self._end is None
        if not control.should_evaluate and not self._now.awaits_log:
            self._look(args, state, control)
        return self._note(state, control)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> TrainerControl:
        """Take down what was measured."""
        self._now.measured({name: value for name, value in (logs or {}).items() if name != "epoch"})
        if self._now.awaits_log:
            self._now.awaits_log = False
            self._look(args, state, control)
        return self._note(state, control)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> TrainerControl:
        """Ask the policy about what was evaluated."""
        if self._now.step and state.global_step == self._now.step:
            self._now.measured(metrics or {})
            self._end = self._run.announced()
            self._look(args, state, control)
        return self._note(state, control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Save what was left to the end of the epoch, and the last step of all."""
        if control.should_training_stop and self._now.saved != state.global_step:
            if self._run.policy.on_exit and self._end is None:
                self._now.want(("on_exit",))
            self._ask(control)
        elif args.save_strategy.value == "epoch":
            self._ask(control)
        return self._note(state, control)

    def _look(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
        step, new, busy = state.global_step, self._now.take_measured(), self._run.saver.is_busy
        said = self._run.watch.look(step, epoch=state.epoch, metrics=new, busy=busy)
        _, reasons = self._run.agreed(() if said and self._run.skips(step) else said)
        self._now.want(reasons)
        if self._end is not None:
            self._now.want((f"on_preemption: {self._end[0]}",))
            control.should_training_stop = True
        elif args.save_strategy.value == "epoch" and float(state.epoch or 0.5).is_integer():
            return  # the Trainer saves this very state in a moment
        self._ask(control)

    def _ask(self, control: TrainerControl) -> None:
        """Have the Trainer save, if there is a reason to."""
        if self._now.reasons and not control.should_save:
            control.should_save = self._now.ours = True

    def _note(self, state: TrainerState, control: TrainerControl) -> TrainerControl:
        """Have the triggers' memory written down in what may be saved next."""
        losses = {} if self._losses is None else {"losses": self._losses.remembered()}
        state.stateful_callbacks[_OWN] = {"triggers": self._run.watch.remembered_in_save(), **losses}
        self._now.since = time.perf_counter()
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Commit the folder that the Trainer wrote."""
        ranks.any_says(None)  # every rank has written its part
        self._wait()
        now, by_trainer = self._now, () if self._now.ours else (f"{_BY_TRAINER}{args.save_strategy.value}",)
        facts = Facts(
            step=state.global_step,
            epoch=state.epoch,
            metrics=now.metrics,
            reason="; ".join((*now.reasons, *by_trainer)),
            params=_params(args),
            grade_at_most=self._grade,
        )
        self._run.watch.saving()
        with self._run.failing():
            ranks.together(lambda: self._commit(args, state, facts))
        self._run.watch.saved(time.perf_counter() - now.since)
        self._written.add(state.global_step, ours=not by_trainer)
        now.done(state.global_step)
        if self._end is not None:
            self._leave(*self._end)
        self._tidy(args, state)

    def _commit(self, args: TrainingArguments, state: TrainerState, facts: Facts) -> None:
        if state.is_world_process_zero:
            self._written.durable(self._run.saver.receipt)
            self._folders.commit(Path(args.output_dir) / f"checkpoint-{state.global_step}", facts)

    def _wait(self) -> None:
        """Wait for the commit under way; at the end of the process, its failure must not cost the last one."""
        if self._end is None:
            ranks.together(self._run.wait)
        else:
            self._run.collect_failure()

    def _leave(self, why: str, status: int) -> NoReturn:
        """End the process, once what was saved is durable on every rank: when one ends, launchers end the others."""
        ranks.together(self._run.wait)
        self._end_run("preempted", self._now.saved)
        self._run.leave(why, status)

    def _end_run(self, how: str, step: int | None) -> None:
        """Tell the ledger that the training has ended, and give the signals back."""
        self._run.preemption.remove()
        self._run.saver.end(how, step)
        self._run.wait()

    def on_train_end(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Wait for the commit under way."""
        self._wait()
        if self._end is not None:
            self._leave(*self._end)
        self._end_run("closed", state.global_step)
        if args.should_save:
            self._folders.discard_resumed()
        self._written.durable(self._run.saver.receipt)
        self._tidy(args, state)
        if self._run.policy.on_exit and self._now.saved != state.global_step:
            _log.warning("step %s is not saved: the Trainer ended without saying so beforehand", state.global_step)
        self._run.preemption.pass_on()

    def _tidy(self, args: TrainingArguments, state: TrainerState) -> None:
        """Remove folders that are not needed any more, unless an upload in the background may still read them."""
        uploads = args.push_to_hub and args.hub_strategy.value in ("checkpoint", "all_checkpoints")
        if state.is_world_process_zero and not uploads:
            self._written.tidy(Path(args.output_dir), but=state.best_model_checkpoint)

    # ---- the whole of it

    def train(self, trainer: Trainer, revision: str | None = None, **options: Any) -> Any:
        """Train from where `resume` finds that it goes on: `trainer.train(resume_from_checkpoint=self.resume(revision))`.

        Two things the Trainer tells no callback of, and are in here: an exception that ends the training, which is answered
        as `on_exception` of the policy says; and the losses since the last log, without which the first log after a restart
        is a mean over fewer steps.

        Args:
            trainer: the one that has this callback.
            revision: as for `resume`.
            options: of `Trainer.train`.

        Returns:
            What `Trainer.train` returns.
        """
        self._losses = Losses(trainer)
        try:
            return trainer.train(resume_from_checkpoint=self.resume(revision), **options)
        except Preempted:
            raise
        except BaseException as err:
            try:
                self._save_after(err, trainer)
                self._end_run("exception", trainer.state.global_step)
            except Exception:  # noqa: BLE001 - the exception that ended the training is the one to raise
                _log.exception("the state could not be saved after %s", type(err).__name__)
            raise
        finally:
            self._losses = None
            self._run.preemption.remove()

    def _save_after(self, err: BaseException, trainer: Trainer) -> None:
        state, now, policy = trainer.state, self._now, self._run.policy
        alone = ranks.size() == 1  # the others are at another place, and would be waited for
        if alone and policy.on_exception and not isinstance(err, CkptvcsError) and now.saved != state.global_step:
            self._run.collect_failure()
            now.want((f"on_exception: {type(err).__name__}",))
            now.ours, self._grade = True, provenance.APPROXIMATE
            self._note(state, trainer.control)
            trainer._save_checkpoint(trainer.model, trial=None)  # as the Trainer's own callback for SIGTERM does
            self.on_save(trainer.args, state, trainer.control)

    def close(self) -> None:
        """Wait for the commit under way, and let go of everything.

        Raises:
            CkptvcsError: that commit failed.
        """
        self._run.preemption.remove()
        self._folders.discard_resumed()
        self._run.saver.close()


def _remembered(folder: Path) -> dict[str, Any]:
    """What this callback had written down when the Trainer wrote a folder."""
    try:
        return dict(json.loads((folder / "trainer_state.json").read_bytes())["stateful_callbacks"][_OWN])
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # a folder that was committed without this callback


def _params(args: TrainingArguments) -> dict[str, Any]:
    """The training arguments that say something; secrets are masked by the Trainer itself."""
    plain = (bool, int, float, str)
    return {name: value for name, value in args.to_dict().items() if isinstance(value, plain)}


__all__ = ["CkptCallback", "Preempted"]
