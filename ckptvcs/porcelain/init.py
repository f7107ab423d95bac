"""`init`: make a git, DVC and ckptvcs repository out of a folder, or complete what is missing. Safe to repeat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ckptvcs.domain import basics
from ckptvcs.errors import NoRepository, UsageError, from_os_error
from ckptvcs.porcelain import config as configuration
from ckptvcs.porcelain.following import locked
from ckptvcs.porcelain.remotes import as_dvc_writes
from ckptvcs.porcelain.repo import Repository
from ckptvcs.storage import files
from ckptvcs.storage.dvc import config as dvc
from ckptvcs.storage.history import commits, settings, worktree
from ckptvcs.storage.history.repository import History

if TYPE_CHECKING:
    from pathlib import Path

    from ckptvcs.storage.history.repository import CommitId

REMOTE: Final = "checkpoints"
"""The name of the remote that `--remote URL` makes."""

_DVC_CONFIG: Final = ".dvc/config"
_CONFIG: Final = """\
# What ckptvcs does in this repository. Every key is optional; docs/reference/configuration.md lists them all.
version: 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class InitPlan:
    """What is missing."""

    root: Path
    make_git: bool
    make_files: tuple[str, ...]
    """Paths relative to `root`."""
    remote: str | None
    """URL of a remote to be added, as DVC writes it."""
    commit_files: tuple[str, ...]
    """The files that are committed: those that are made, and DVC's configuration unless it has other changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InitReceipt:
    """What was made."""

    root: Path
    made: tuple[str, ...]
    commit: CommitId | None


def plan_init(path: Path, *, remote: str | None = None) -> InitPlan:
    """Look what is missing, change nothing.

    Args:
        path: the folder; it must exist.
        remote: URL of a DVC remote for checkpoints.

    Raises:
        UsageError: there is no such folder, the remote is no URL, or git does not know who commits.
    """
    try:
        path = path.resolve()
        is_folder = path.is_dir()
    except (OSError, RuntimeError):  # a link that leads to itself
        is_folder = False
    if not is_folder:
        raise UsageError(f"cannot make a repository in '{path}'", why="it is no folder", next_step="make it first")
    if remote is not None and (not remote or remote.startswith("-") or not remote.isprintable()):
        raise UsageError(f"{remote!r} is no URL of a remote", next_step="give a path or a URL such as s3://bucket/path")
    root, history = _find(path)
    missing = tuple(name for name in (*dvc.INIT_FILES, basics.FILE) if not (root / name).exists())
    url = as_dvc_writes(remote, root) if remote is not None else None
    wanted = url if url is not None and _remote_url(root) != url else None
    changed = wanted is not None and _DVC_CONFIG not in missing and _is_committed(history, root, _DVC_CONFIG)
    plan = InitPlan(
        root=root,
        make_git=history is None,
        make_files=missing,
        remote=wanted,
        commit_files=(*missing, *([_DVC_CONFIG] if changed else [])),
    )
    if plan.commit_files:
        configured = settings.identity(history) if history else settings.identity_of_user()
        configuration.surroundings().identity(configured)
    return plan


def _find(path: Path) -> tuple[Path, History | None]:
    """The folder of the repository, and the git repository if there is one."""
    try:
        history = History.discover(path)
    except NoRepository as err:
        if err.why:  # there is one that cannot be used
            raise
        return path, None
    try:
        return dvc.find_root(path, history.root), history
    except NoRepository:
        return history.root, history


def _remote_url(root: Path) -> str | None:
    section = dvc.read_config(root, ()).remotes.get(REMOTE)
    return None if section is None else str(section.get("url"))


def _is_committed(history: History | None, root: Path, name: str) -> bool:
    """Whether a file has no changes that are not committed."""
    head = history.head() if history else None
    if history is None or head is None:
        return False
    blob = history.blob_id(head, (root / name).relative_to(history.root).as_posix())
    return blob is not None and history.blob(blob, limit=1 << 20) == (root / name).read_bytes()


def execute(plan: InitPlan) -> InitReceipt:
    """Make what is missing.

    Raises:
        StorageError: the folder cannot be written.
    """
    history = History.create(plan.root) if plan.make_git else History.discover(plan.root)
    contents = {**dvc.INIT_FILES, basics.FILE: _CONFIG}
    try:
        for name in plan.make_files:
            (plan.root / name).parent.mkdir(exist_ok=True)
            files.write_atomic(plan.root / name, contents[name].encode("utf-8"))
        (plan.root / ".dvc/tmp").mkdir(exist_ok=True)
    except OSError as err:
        raise from_os_error(err, doing=f"write to '{plan.root}'") from err
    made = [*([".git"] if plan.make_git else []), *plan.make_files]
    if plan.remote is not None:
        default = dvc.read_config(plan.root, ()).default_remote
        dvc.add_remote(plan.root, REMOTE, plan.remote, default=default is None)
        made.append(f"remote '{REMOTE}'")
    return InitReceipt(root=plan.root, made=tuple(made), commit=_commit(history, plan))


def _commit(history: History, plan: InitPlan) -> CommitId | None:
    """Commit the new files alone; whatever else is in the worktree or staged stays as it is."""
    branch = history.head_branch()
    if branch is None or not plan.commit_files:
        return None  # on a detached HEAD a person decides where the files are committed
    repo = Repository(history, plan.root, configuration.surroundings())
    changes = {repo.git_path(path): (plan.root / path).read_bytes() for path in plan.commit_files}
    ref = f"refs/heads/{branch}"
    with locked(repo) as lock:
        tip = history.tip(ref)
        commit = commits.write_commit(
            history,
            base=tip,
            parents=(tip,) if tip else (),
            changes=changes,
            message="ckpt: init\n",
            identity=repo.identity,
            when=repo.now(),
        )
        commits.move_ref(history, ref, old=tip, new=commit, reason="ckpt init", lock=lock)
        with commits.announced(history, lock):
            worktree.stage(history, changes)
    return commit
