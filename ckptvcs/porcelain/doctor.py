"""`doctor`: what is wrong with this repository or environment, and the command that mends it. It changes nothing itself."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Final

from ckptvcs.errors import CkptvcsError, NoRepository, StorageError
from ckptvcs.paths import printable
from ckptvcs.porcelain import account, ledger
from ckptvcs.porcelain.checkpoints import all_tips, checkpoint_at, made_by, pointer_at, tracks_at
from ckptvcs.porcelain.describe import ref_of
from ckptvcs.porcelain.remotes import is_folder, known, open_remote
from ckptvcs.porcelain.replicas import refuse_emptied
from ckptvcs.porcelain.repo import Repository
from ckptvcs.storage import files
from ckptvcs.storage.dvc import outputs
from ckptvcs.storage.history import worktree
from ckptvcs.storage.history.ledger import heads, of_remote
from ckptvcs.storage.history.transport import Git

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ckptvcs.domain.checkpoint import Checkpoint
    from ckptvcs.storage.names import ObjectRef

_LOW_SPACE: Final = 0.05
"""Below this share of free space the next save may be the one that does not fit."""

_OLD_S: Final = 600.0
"""A git lock file older than this belongs to no living git command, unless an editor was left open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong: what, why it matters, and what to do."""

    what: str
    why: str
    next_step: str


def examine(start: Path) -> list[Finding]:
    """Look at everything, change nothing.

    Args:
        start: a folder in the repository.

    Returns:
        What was found, worst first; empty if all is well.
    """
    found = list(_programs())
    try:
        repo = Repository.open(start)
    except NoRepository as err:
        return [*found, Finding(what=str(err.what), why=err.why, next_step=err.next_step)]
    for check in _CHECKS:
        try:
            found.extend(check(repo))
        except CkptvcsError as err:
            found.append(Finding(what=err.what, why=err.why, next_step=err.next_step))
    return list(dict.fromkeys(found))  # two checks may come across the same thing


def _programs() -> Iterator[Finding]:
    try:
        version = metadata.version("dvc")
    except metadata.PackageNotFoundError:
        yield Finding(
            what="DVC is not installed", why="pushing and pulling needs it", next_step="pip install 'dvc>=3.50,<4'"
        )
        return
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < (3, 50):
        yield Finding(
            what=f"DVC {version} is too old", why="3.50 is the oldest that is tested", next_step="pip install -U dvc"
        )


def _identity(repo: Repository) -> Iterator[Finding]:
    repo.identity  # noqa: B018 - raises, with what to do
    yield from ()


def _configuration(repo: Repository) -> Iterator[Finding]:
    repo.config  # noqa: B018 - raises, with the line that is wrong
    config = repo.dvc_config
    if config.hardlink_lock:
        yield Finding(
            what="DVC's 'core.hardlink_lock' is set",
            why="ckptvcs uses flock and would not see DVC's locks",
            next_step="dvc config --unset core.hardlink_lock, where the file system supports flock",
        )
    name = repo.config.remote
    if name is not None and name not in config.remotes:
        yield Finding(
            what=f"ckpt.yaml names remote '{name}', which DVC does not know",
            why="'dvc push' and 'dvc pull' would fail for every checkpoint",
            next_step=f"dvc remote add {name} URL",
        )
    for remote, options in config.remotes.items():
        bad = [key for key in ("version_aware", "worktree") if str(options.get(key, "")).lower() == "true"]
        if bad:
            yield Finding(
                what=f"remote '{remote}' is {bad[0]}",
                why="'dvc push' to it rewrites pointers in a form that names no objects",
                next_step=f"dvc remote modify {remote} {bad[0]} false, or use another remote for checkpoints",
            )


def _links(repo: Repository) -> Iterator[Finding]:
    if repo.config.checkout.link == "hardlink" and repo.around.privileged:
        yield Finding(
            what="checkouts are hard-linked, and you are root",
            why="root writes through the mode of a file: a program that opens a checkpoint for writing changes the cache",
            next_step="set 'checkout: {link: auto}' in ckpt.yaml, or never work as root",
        )


def _ignored(repo: Repository) -> Iterator[Finding]:
    track = repo.track_path(repo.basics.track)
    names = [f"{track}/model/{name}" for name in ("tree.json", "a.safetensors", "config.json")]
    for path in outputs.ignored_paths(repo.root, names):
        yield Finding(
            what=f"a .dvcignore hides files such as '{path}'",
            why="DVC would leave them out of checkpoints",
            next_step=f"add '!{repo.basics.directory}/**' to .dvcignore",
        )


def _space(repo: Repository) -> Iterator[Finding]:
    cache = repo.dvc_config.cache_dir
    there = next(p for p in (cache, *cache.parents) if p.exists())
    if not os.access(there, os.W_OK):
        yield Finding(
            what=f"the cache '{there}' cannot be written",
            why="no commit can succeed",
            next_step="change its owner or mode",
        )
    usage = shutil.disk_usage(there)
    if usage.free < _LOW_SPACE * usage.total:
        yield Finding(
            what=f"{usage.free >> 20} MiB are free on the disk of the cache",
            why="the next save may not fit; it would fail cleanly, but it would fail",
            next_step="remove what is not needed, or move 'cache.dir' with 'dvc cache dir PATH'",
        )


def _stores(repo: Repository) -> Iterator[Finding]:
    """Folders that objects were pushed to, and that are not mounted. What is on the network is asked by those who use it."""
    for one in known(repo):
        if one.tier == "warm" and is_folder(repo, one.name):
            try:
                refuse_emptied(repo, open_remote(repo, one.name), doing=f"use remote '{printable(one.name)}'")
            except StorageError as err:
                yield Finding(what=err.what, why=err.why, next_step=err.next_step)


def _left_overs(repo: Repository) -> Iterator[Finding]:
    now = repo.now().timestamp()
    common = repo.history.common_dir
    candidates = [repo.history.git_dir / "index.lock", repo.history.git_dir / "HEAD.lock", common / "packed-refs.lock"]
    for path in [*candidates, *sorted((common / "refs").rglob("*.lock"))]:
        try:
            age = now - path.stat().st_mtime
        except OSError:
            continue
        if age > _OLD_S:
            yield Finding(
                what=f"'{path}' was left behind by a git program that died",
                why=f"it is {int(age / 60)} minutes old; as long as it is there, git cannot write",
                next_step=f"make sure that no git program is running, then: rm '{path}'",
            )
    damaged = sorted(repo.objects.store.root.glob(f"{files.PREFIX}damaged-*"))
    if damaged:
        yield Finding(
            what=f"{len(damaged)} damaged object{'s were' if len(damaged) > 1 else ' was'} put aside in the cache",
            why="their bytes were not what their names say; sound copies took their places",
            next_step=f"check the disk, then: rm '{damaged[0].parent}/{files.PREFIX}damaged-'*",
        )


def _head(repo: Repository) -> Iterator[Finding]:
    """The checkpoints that are checked out: pointer and manifest fit, nothing of them is unmerged."""
    head = repo.history.head()
    for track in tracks_at(repo, head) if head else ():
        if head is not None and checkpoint_at(repo, head, track) is not None:
            pointer_at(repo, head, track)
    unmerged = [path for path in worktree.unmerged(repo.history) if repo.is_ours(path)]
    if unmerged:
        yield Finding(
            what=f"'{printable(unmerged[0])}' is in conflict: a merge or rebase is under way",
            why="two lines of checkpoints cannot be merged; one of them has to be taken",
            next_step=f"git checkout --ours -- {repo.basics.directory} && git add {repo.basics.directory} (or --theirs)",
        )


def _history(repo: Repository) -> Iterator[Finding]:
    """Every checkpoint that a branch or tag leads to: are its objects as they were when last read, or in a remote?

    What was never read here, as what plain DVC brought, is read of the one that is checked out.
    """
    tips, head = all_tips(repo), repo.history.head()
    tracks = {repo.basics.track, *(tracks_at(repo, head) if head else ())}
    said = account.read(repo)
    found = [said.on(c) for track in tracks for c in made_by(repo, repo.history.newest_first(tips), track)]
    refs = {ref_of(file) for checkpoint in found for file in checkpoint.needed_files()}
    here = {ref_of(f) for c in found if c.commit == head for f in c.needed_files()}
    bad = {ref for ref in refs if not (repo.objects.is_healthy(ref) if ref in here else repo.objects.is_sound(ref))}
    damaged = {ref for ref in bad if repo.objects.store.path(ref.name).exists()}
    bad -= _in_remotes(repo, bad - damaged)
    lost = [c for c in found if any(ref_of(file) in bad for file in c.needed_files())]
    if lost:
        shown = ", ".join(map(_named, lost[:3])) + (f" and {len(lost) - 3} more" if len(lost) > 3 else "")
        yield Finding(
            what=f"{len(lost)} of {len(found)} checkpoints cannot be restored here: {shown}",
            why=f"{len(bad) - len(damaged)} of their objects are not in the cache, {len(damaged)} are damaged",
            next_step=_looking_first(repo) + _mending(repo, sorted(repo.objects.store.path(r.name) for r in damaged)),
        )


def _in_remotes(repo: Repository, refs: set[ObjectRef]) -> set[ObjectRef]:
    """Those objects that a remote has: what a clone has not fetched is not lost."""
    left, problem = set(refs), None
    for one in known(repo) if refs else ():
        if one.tier == "warm" and left:
            try:
                there = open_remote(repo, one.name).sizes([ref.name for ref in left])
            except StorageError as err:  # another one may answer, and have them
                problem = err
            else:
                left -= {ref for ref in left if there.get(ref.name) == ref.nbytes}
    if left and problem is not None:
        raise problem
    return refs - left


def _looking_first(repo: Repository) -> str:
    """What to do before anything is mended, where nobody knows yet what others dropped: that is in no cache on purpose."""
    remotes = Git(repo.history, repo.around.variables).remotes()
    known = heads(repo.history).keys() - {ledger.writer_id(repo)}
    if not remotes or known or any(heads(repo.history, of_remote(name)) for name in remotes):
        return ""
    return "ckpt fetch, which brings the ledger and with it what a policy dropped; if they are still missing: "


def _mending(repo: Repository, damaged: list[Path]) -> str:
    away = f"rm -f '{damaged[0]}', and so on; then " if damaged else ""
    if repo.dvc_config.remotes:
        return f"{away}dvc fetch --all-commits"
    folder = repo.track_path(repo.basics.track)
    return f"{away}copy the cache from a machine that has it; 'ckpt commit {folder}' keeps what the workspace still has"


def _named(checkpoint: Checkpoint) -> str:
    step = f" (step {checkpoint.manifest.step})" if checkpoint.manifest.step is not None else ""
    return f"{checkpoint.id[:10]}{step}"


def _ledger(repo: Repository) -> Iterator[Finding]:
    """The chains of the ledger: is every entry there, and the one that was written?"""
    for flaw in ledger.examine(repo):
        ref = printable(f"refs/ckptvcs/ledger/{flaw.writer}")
        wrong = "does not count" if flaw.unlisted else "is not as it was written"
        mend = f"take the chain from another clone: git fetch REMOTE +{ref}:{ref}"
        yield Finding(
            what=f"entry {flaw.n} of '{ref}' {wrong}: {printable(flaw.what)}",
            why="that chain counts only up to there",
            next_step="find out whose it is with 'ckpt audit keys'; 'ckpt audit allow' lists it"
            if flaw.unlisted
            else mend,
        )


def _shallow(repo: Repository) -> Iterator[Finding]:
    if repo.history.is_shallow():
        yield Finding(
            what="this clone is shallow",
            why="older checkpoints are not known here",
            next_step="git fetch --unshallow",
        )


_CHECKS: Final[tuple[Callable[[Repository], Iterator[Finding]], ...]] = (
    _identity,
    _configuration,
    _head,
    _stores,
    _history,
    _ledger,
    _left_overs,
    _ignored,
    _links,
    _space,
    _shallow,
)
