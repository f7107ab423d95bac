"""`CkptIO`: what Lightning saves and loads by path goes to and comes from the commits of a run."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.domain import provenance
from ckptvcs.errors import FormatError, NotFound, UsageError
from ckptvcs.paths import printable
from ckptvcs.porcelain import incoming
from ckptvcs.porcelain.load import load
from ckptvcs.train import capture, resume
from ckptvcs.train.facts import Facts
from ckptvcs.train.flavour import CheckpointIO, TorchCheckpointIO
from ckptvcs.train.parts import RNG
from ckptvcs.train.saver import Saver

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ckptvcs.domain.checkpoint import Checkpoint
    from ckptvcs.porcelain.commit import Receipt
    from ckptvcs.porcelain.incoming import Incoming
    from ckptvcs.train.resume import Found

_log = logging.getLogger("ckptvcs")

OWN: Final = "ckptvcs"
"""The key of a Lightning checkpoint under which the callback keeps what Lightning leaves out."""

_SCHEME: Final = re.compile(r"ckpt:/{1,2}(?=[^/])")  # `Path` makes one slash of two
_POINTER_BYTES: Final = 1000
_NEEDED: Final = ("state_dict", "optimizer_states")
"""Components without which a training cannot go on."""
_BY_PATH: Final = "manual"
"""The reason of a save that was not the callback's."""
_ENOUGH: Final = ("epoch", "global_step", "pytorch-lightning_version", "loops", "lr_schedulers", RNG, OWN, *_NEEDED)
"""The entries of a checkpoint that are saved where there is no time for the others; the first ones are small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """How the callback wants a checkpoint saved: the `storage_options` of `Trainer.save_checkpoint`."""

    facts: Facts
    alone: bool = False
    """Only the model and the optimizer: there is no time for more."""


def url(revision: str) -> str:
    """What Lightning is given as `ckpt_path` for a revision."""
    return f"ckpt://{revision}"


class CkptIO(CheckpointIO):
    """Saves and loads the checkpoints of Lightning as commits to the branch of a run.

    What is saved under a path is committed before `save_checkpoint` returns, and a file of one line at that path says which
    checkpoint it is. `ckpt_path` may be such a path, `ckpt://REV` or just `REV` with any revision, or a `.ckpt` file that
    Lightning wrote. Nothing that was committed is ever removed.

    Args:
        run: name of the training job; its checkpoints go to the branch of that name.
        repo: a folder in the repository.
        branch: another branch than that of the run.
        track: the track; the one of ckpt.yaml if it is not given.
        params: hyperparameters, for the record, beside those of `save_hyperparameters`.
        data: names and versions of data sets, for the record.
        aux: files that belong to each checkpoint, such as a tokenizer; they are kept under `auxiliary/`.
        asynchronous: what the callback saves is saved in the background.
        allow_pickle: keep as pickle what has no exact representation, such as an object among the hyperparameters. Loading
            it runs whatever code is in it.
    """

    def __init__(
        self,
        *,
        run: str,
        repo: str | Path = ".",
        branch: str | None = None,
        track: str | None = None,
        params: Mapping[str, Any] | None = None,
        data: Mapping[str, str] | None = None,
        aux: Sequence[str | Path] = (),
        asynchronous: bool = True,
        allow_pickle: bool = False,
    ) -> None:
        super().__init__()
        self.saver = Saver(
            repo, run=run, branch=branch, track=track, asynchronous=asynchronous, params=params, data=data
        )
        """What commits; it is closed between two trainings."""
        self._aux = capture.aux_paths(aux)
        self._allow_pickle = allow_pickle
        self._loaded: tuple[Found, bool] | None = None
        self.skipped: tuple[str, ...] = ()
        """Newer checkpoints that the last load could not use, and why."""

    def attach(self, strategy: Any) -> None:
        """Become what a trainer saves and loads with.

        Raises:
            UsageError: that is the one of another run already.
        """
        if isinstance(strategy.checkpoint_io, CkptIO) and strategy.checkpoint_io is not self:
            raise UsageError(
                "a trainer can have one CkptIO",
                why="the one that it has is not that of this CkptCallback",
                next_step="pass plugins=[callback.io()], or no plugin at all",
            )
        strategy.checkpoint_io = self

    # ---- saving

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Commit a checkpoint of Lightning.

        Args:
            checkpoint: what `Trainer.save_checkpoint` made.
            path: where to leave a note of it; of no meaning where the callback saves.
            storage_options: an `Order` of the callback; None from everybody else.

        Raises:
            CkptvcsError: it could not be committed.
            UsageError: there are other storage options.
        """
        if isinstance(storage_options, Order):
            self._commit(checkpoint, storage_options)
            return
        if storage_options is not None:
            raise UsageError(
                f"cannot save '{path}'", why="a commit knows no storage_options", next_step="leave them out"
            )
        own = checkpoint.get(OWN) or {}
        grade = provenance.EXACT if own.get("whole") else provenance.APPROXIMATE
        metrics = {name: value for name, value in (own.get("metrics") or {}).items() if value.numel() == 1}
        facts = Facts(step=None, metrics=metrics, reason=_BY_PATH, grade_at_most=grade)
        self._commit(checkpoint, Order(facts=facts))
        receipt = self.saver.wait()
        assert receipt is not None
        write_pointer(Path(path), receipt.id)

    def _commit(self, checkpoint: dict[str, Any], order: Order) -> Receipt | None:
        self.saver.open()
        self.settle()
        state = checkpoint
        if order.alone:
            state = {key: checkpoint[key] for key in checkpoint if key in _ENOUGH} | {"callbacks": {}}
        return self.saver.save(self._incoming(state), order.facts)

    def _incoming(self, state: dict[str, Any]) -> Incoming:
        return incoming.from_state(state, allow_pickle=self._allow_pickle, files=capture.aux_files(self._aux))

    # ---- loading

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load a checkpoint, verified.

        Args:
            path: of a note that `save_checkpoint` left, `ckpt://REV`, `REV`, or a file that Lightning wrote.
            map_location: the device for tensors; None for the CPU.
            weights_only: refuse what only unpickling could read, whatever `allow_pickle` says.

        Raises:
            NotFound: there is no such file or revision.
            IntegrityError: the checkpoint is damaged; for the newest one of the run: not one of them is whole.
            FormatError: it is no checkpoint of Lightning.
        """
        revision = self._revision(path)
        if revision is None:
            options = {} if map_location is None else {"map_location": map_location}
            loaded: dict[str, Any] = TorchCheckpointIO().load_checkpoint(path, weights_only=weights_only, **options)
            return loaded
        self.saver.wait()
        found, named = self._find(revision)
        pickles = self._allow_pickle and not weights_only
        state = load(
            self.saver.repo,
            found.checkpoint.commit,
            map_location=map_location,
            allow_pickle=pickles,
            copy=True,
            track=self.saver.track,
        )
        if "pytorch-lightning_version" not in state:
            raise FormatError(
                f"checkpoint {found.checkpoint.id[:10]} is none of Lightning's",
                why=f"it has only {', '.join(map(str, state))}",
                next_step=f"run 'ckpt export {found.checkpoint.id[:10]} FILE --format lightning' and load that",
            )
        self._loaded, self.skipped = (found, named), found.skipped
        return dict(state)

    def _revision(self, path: str | Path) -> str | None:
        """The revision that a path means; None if it is a file of somebody else."""
        text = os.fspath(path)
        if match := _SCHEME.match(text):
            return text[match.end() :]
        if not os.path.exists(text):
            return text
        return read_pointer(Path(text))

    def _find(self, revision: str) -> tuple[Found, bool]:
        if revision == f"{self.saver.branch}@latest":
            found = self._find_newest()
            if found is None:
                raise NotFound(
                    f"run '{self.saver.run}' has no checkpoint",
                    why=f"branch '{self.saver.branch}' does not exist, or holds nothing to go on from",
                    next_step="begin without ckpt_path",
                )
            return found, False
        found = resume.find(self.saver, revision)
        assert found is not None
        return found, True

    def _find_newest(self) -> Found | None:
        """The newest checkpoint of the run to go on from: exactly, where there is one.

        What others saved by path, as `ModelCheckpoint` does, was mostly taken where Lightning does not go on from exactly.
        """

        def refuse(checkpoint: Checkpoint) -> None:
            resume.require_components(checkpoint, _NEEDED)
            if checkpoint.manifest.reason == _BY_PATH and checkpoint.manifest.grade != provenance.EXACT:
                raise FormatError(
                    "it was saved where no training goes on from exactly",
                    why=f"it is {checkpoint.manifest.grade}",
                    next_step="name it to go on from it all the same",
                )

        try:
            return resume.find_whole(self.saver, None, refuse=refuse)
        except FormatError:  # there is nothing better
            return resume.find_whole(self.saver, None, refuse=lambda c: resume.require_components(c, _NEEDED))

    def settle(self) -> bool:
        """Let what is saved from here on descend from what was loaded: on a new branch, if the run went on from there.

        Returns:
            Whether it is the run itself that goes on, and not another one that begins where it was.
        """
        if self._loaded is None:
            return False
        (found, named), self._loaded = self._loaded, None
        if named:
            resume.fork_if_needed(self.saver, found.checkpoint)
        self.saver.descend_from(found.checkpoint)
        return not named

    def forget(self) -> None:
        """Take down that what was loaded is not trained on."""
        self._loaded = None

    # ---- the end

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove the note at a path. The commit stays, and so does a file that is no note."""
        if read_pointer(Path(path)) is not None:
            Path(path).unlink()
            _log.debug("removed '%s'; its checkpoint stays", path)

    def teardown(self) -> None:
        """Wait for the save under way."""
        self.saver.wait()

    def close(self) -> None:
        """Wait for the save under way and let go of everything, until it is needed again.

        Raises:
            CkptvcsError: that save failed.
        """
        self.saver.close()


# ----------------------------------------------------------------------------------------------------------- pointers


def write_pointer(path: Path, revision: str) -> None:
    """Leave a note at a path of which checkpoint it stands for; whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.with_name(f".{path.name}.tmp")
    tmp.write_text(f"{url(revision)}\n", encoding="utf-8")
    os.replace(tmp, path)


def read_pointer(path: Path) -> str | None:
    """The revision that a note names; None if there is no note."""
    try:
        with path.open("rb") as file:
            text = file.read(_POINTER_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    match = _SCHEME.match(text)
    return printable(text[match.end() :].strip()) if match else None
