"""`ckptvcs.Repo` and `ckptvcs.load`: the verbs as Python methods."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckptvcs.porcelain import (
    account,
    checkout,
    commit,
    compare,
    exchange,
    hold,
    incoming,
    load,
    log,
    note,
    refs,
    status,
)
from ckptvcs.porcelain.checkpoints import locate, require_checkpoint
from ckptvcs.porcelain.describe import Options
from ckptvcs.porcelain.init import execute as execute_init
from ckptvcs.porcelain.init import plan_init
from ckptvcs.porcelain.repo import Repository
from ckptvcs.porcelain.sharing import Sharing
from ckptvcs.porcelain.user_values import check_metrics, check_numbers, check_params

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from ckptvcs.domain.checkpoint import Checkpoint
    from ckptvcs.porcelain.commit import Receipt


class Repo(Sharing):
    """A ckptvcs repository.

    Args:
        path: a folder in it.

    Raises:
        NoRepository: there is none; see `Repo.init`.

    Example:
        >>> repo = ckptvcs.Repo(".")
        >>> repo.commit({"model": model.state_dict()}, step=100, metrics={"loss": 0.3})
        >>> state = repo.load("HEAD")
    """

    def __init__(self, path: str | Path = ".") -> None:
        self._repo = Repository.open(path)

    @classmethod
    def init(cls, path: str | Path = ".", *, remote: str | None = None) -> Repo:
        """Make a repository out of a folder, or complete what is missing."""
        execute_init(plan_init(Path(path), remote=remote))
        return cls(path)

    @property
    def root(self) -> Path:
        """The folder that holds `.dvc` and `ckpt.yaml`."""
        return self._repo.root

    def close(self) -> None:
        """Let go of what is open."""
        self._repo.close()

    def __enter__(self) -> Repo:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- writing

    def commit(
        self,
        state: Any,
        *,
        allow_pickle: bool = False,
        metrics: Mapping[str, float] | None = None,
        params: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Receipt:
        """Commit a state, or a file or folder that holds one.

        Args:
            state: what `torch.save` would be given; or the path of a file or folder in any known format.
            allow_pickle: keep as pickle what has no exact representation.
            metrics: numbers that say how good it is.
            params: hyperparameters, of JSON's types.
            options: `message`, `track`, `branch`, `run`, `step`, `epoch`, `data`, `reason`, `seeds`, `workspace`: as on
                the command line.

        Raises:
            UnsupportedValue: the state holds values without exact representation.
            StorageError: the disk is full or failing; nothing was committed.
        """
        if isinstance(state, (str, Path)):
            what = incoming.from_path(Path(state), allow_pickle=allow_pickle)
        else:
            what = incoming.from_state(state, allow_pickle=allow_pickle)
        chosen = Options(
            run_id=secrets.token_hex(8),
            metrics=check_metrics(metrics or {}),
            params=check_params(params or {}),
            **check_numbers(options),
        )
        return commit.execute(self._repo, commit.plan(self._repo, what, chosen))

    def note(self, revision: str, metrics: Mapping[str, float], *, message: str | None = None) -> None:
        """Note metrics of a checkpoint that come late; `@best` counts them, and the checkpoint does not change.

        Args:
            revision: which checkpoint.
            metrics: numbers that say how good it is; they go before those that it was made with.
            message: where they come from.

        Raises:
            UsageError: there is no metric, or a value is no finite number.
        """
        note.execute(self._repo, note.plan_note(self._repo, revision, check_metrics(metrics), message=message))

    def hold(self, revision: str, *, why: str, until: str | None = None) -> str:
        """Hold a checkpoint: it is kept whatever the policy says.

        Args:
            revision: which checkpoint.
            why: for people.
            until: when it runs out: `2026-12-31`, or `30d` from now; None for no end.

        Returns:
            What a release calls the hold.

        Raises:
            UsageError: no reason is given, or the end is past.
        """
        event = hold.hold(self._repo, hold.plan_hold(self._repo, revision, why=why, until=until))
        return f"{event.writer}#{event.n}"

    def release(self, revision: str, *, why: str = "") -> None:
        """End the holds that a checkpoint has, as far as this clone knows them.

        Raises:
            NotFound: nobody holds it.
        """
        hold.release(self._repo, hold.plan_release(self._repo, revision, why=why))

    def merge(
        self,
        *revisions: str,
        metrics: Mapping[str, float] | None = None,
        message: str | None = None,
        branch: str | None = None,
        track: str | None = None,
        step: int | None = None,
        **recipe: Any,
    ) -> Receipt:
        """Make one checkpoint of several, whose git parents they all are; tensors are computed while they are written.

        Args:
            revisions: the checkpoints.
            metrics: numbers that say how good the outcome is.
            message: the commit message.
            branch: the branch; the one that is checked out if it is not given.
            track: the track; the one of ckpt.yaml if it is not given.
            step: the step of the outcome.
            recipe: `method` (`mean`, `weighted`, `ema`, `slerp` or `ties`) and what it takes: `weights`; `decay`; `t`;
                `base`, `density` and `scale` (lambda); `components` to merge; `rest` (`none` or `first`).

        Raises:
            FormatError: the models do not match; `error.facts["differences"]` has every difference.
            Refused: the branch has a checkpoint that would be left behind.
        """
        from ckptvcs.domain.recipe import Recipe
        from ckptvcs.porcelain import merge  # and NumPy with it, which a commit can do without

        chosen = Options(
            run_id=secrets.token_hex(8),
            message=message,
            branch=branch,
            track=track,
            metrics=check_metrics(metrics or {}),
            reason="merge",
            **check_numbers({"step": step}),
        )
        return merge.execute(self._repo, merge.plan(self._repo, revisions, Recipe(**recipe), chosen))

    def checkout(self, revision: str, *, new_branch: str | None = None) -> None:
        """Move HEAD to a revision and make its artifact appear in the workspace."""
        checkout.execute(self._repo, checkout.plan_checkout(self._repo, revision, new_branch=new_branch))

    def restore(self, revision: str, *, components: Sequence[str] = (), to: str | Path | None = None) -> None:
        """Make the artifact of a revision appear, in the workspace or in a folder; HEAD stays."""
        where = None if to is None else Path(to)
        checkout.execute(self._repo, checkout.plan_restore(self._repo, revision, components=components, to=where))

    def branch(self, name: str, revision: str = "HEAD") -> str:
        """Make a branch at a revision; returns its commit."""
        return refs.create_branch(self._repo, name, revision)

    def tag(
        self,
        name: str,
        revision: str = "HEAD",
        *,
        golden: bool = False,
        milestone: bool = False,
        message: str | None = None,
    ) -> str:
        """Tag a revision; returns the whole name of the tag."""
        name = refs.marked_name(name, golden=golden, milestone=milestone)
        return refs.create_tag(self._repo, name, revision, message=message).name

    def export(self, revision: str, destination: str | Path, **options: Any) -> None:
        """Write a checkpoint for other programs; `options` as for `plan_export`."""
        exchange.execute(self._repo, exchange.plan_export(self._repo, revision, Path(destination), **options))

    # ---- looking

    def load(self, revision: str, components: Collection[str] | None = None, **options: Any) -> Any:
        """Read a checkpoint into torch; see `ckptvcs.load`."""
        return load.load(self._repo, revision, components, told=True, **options)

    def log(self, revision: str = "HEAD", *, limit: int | None = None, track: str | None = None) -> list[Checkpoint]:
        """The checkpoints that can be reached from a revision, newest first."""
        tip = locate(self._repo, revision, track or self._repo.basics.track)
        return [entry.checkpoint for entry in log.log(self._repo, [tip], track=track, limit=limit).entries]

    def show(self, revision: str = "HEAD", *, track: str | None = None) -> Checkpoint:
        """The checkpoint that a revision means."""
        found = require_checkpoint(self._repo, revision, track or self._repo.basics.track)
        return account.with_late(self._repo, found)[0]

    def diff(self, before: str, after: str, *, values: bool = False) -> compare.Compared:
        """What changed between two checkpoints."""
        return compare.diff(self._repo, before, after, values=values)

    def status(self) -> status.Status:
        """How the workspace stands to HEAD."""
        return status.status(self._repo)


def load_from(
    revision: str,
    components: Collection[str] | None = None,
    *,
    map_location: Any = None,
    allow_pickle: bool = False,
    repo: str | Path = ".",
) -> Any:
    """Read a checkpoint into torch, straight from the cache: memory-mapped, verified, without any workspace files.

    Args:
        revision: a branch, tag, commit, checkpoint id, `BRANCH@latest`, `BRANCH@best[:METRIC]` or `BRANCH@step:N`.
        components: names or roles of the components that are wanted; None for the whole state.
        map_location: the device for tensors; None for the CPU.
        allow_pickle: unpickle components that only pickle could represent, which runs whatever code they contain.
        repo: a folder in the repository.

    Returns:
        What was committed. A dict comes back as a mapping whose components are read when they are asked for.

    Raises:
        NotFound: no such revision or component.
        IntegrityError: an object is missing or damaged.
    """
    repository = Repository.open(repo)
    return load.load(repository, revision, components, map_location=map_location, allow_pickle=allow_pickle, told=True)
