"""What stands in the way of a commit: everything that could be lost, or hidden from DVC, is refused before a byte is written."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from ckptvcs.errors import HostileInput, Refused
from ckptvcs.paths import printable
from ckptvcs.storage.dvc import outputs
from ckptvcs.storage.history import worktree

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ckptvcs.porcelain.repo import Repository
    from ckptvcs.storage.history.repository import CommitId


def refuse_taken(
    repo: Repository, track: str, others: Sequence[outputs.Output], *, commits: Iterable[CommitId]
) -> None:
    """Refuse a track in whose place DVC or git has something else.

    Args:
        repo: the repository.
        track: the track.
        others: what DVC tracks beside checkpoints.
        commits: HEAD and the commit that the new one is made on.
    """
    path = repo.track_path(track)
    outputs.refuse_overlap(path, others)
    for commit in commits:
        if repo.history.is_folder(commit, repo.git_path(path)):
            raise Refused(
                f"cannot keep track '{track}' in '{path}'",
                why="git itself tracks files in that folder",
                next_step=f"run 'git rm -r --cached {path}' and commit, or set another 'directory' in ckpt.yaml",
            )
        for folder in _folders(repo):
            if repo.history.is_file(commit, repo.git_path(folder)):
                raise _in_the_way(folder, "git tracks a file or link of that name")


def refuse_planted(repo: Repository, commit: CommitId | None) -> None:
    """Refuse a commit that brings along what is the machine's own: DVC's cache and locks, or a link in their place.

    A user may link the cache to where there is room; what a stranger commits would choose where others write.

    Raises:
        HostileInput: git tracks something there.
    """
    for place in (repo.root / ".dvc/tmp", repo.dvc_config.cache_dir):
        if commit is None or not place.is_relative_to(repo.history.root):
            continue
        parts = place.relative_to(repo.history.root).parts
        prefixes = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        found = [path for path in prefixes if repo.history.is_file(commit, path)]  # a link is one, for git
        found += [path for path in prefixes[-1:] if repo.history.is_folder(commit, path)]
        if found:
            raise HostileInput(
                f"cannot work with commit {commit[:10]}",
                why=f"git tracks '{printable(found[0])}' in it, where DVC's cache and locks are: it could lead anywhere",
                next_step=f"find out who put it there; 'git rm -r --cached {printable(found[0])}' takes it out",
            )


def refuse_in_the_way(repo: Repository, track: str) -> None:
    """Refuse to write pointers where the worktree has something else: a file or link for our folder, or the reverse."""
    for folder in _folders(repo):
        mode = _mode(repo, folder)
        if mode is not None and not stat.S_ISDIR(mode):
            raise _in_the_way(folder, "it is a link or a file, and a folder is needed there")
    unmerged = [path for path in worktree.unmerged(repo.history) if repo.is_ours(path)]
    if unmerged:
        raise Refused(
            f"cannot commit to track '{track}'",
            why=f"a merge or rebase is under way, and '{printable(unmerged[0])}' is in conflict",
            next_step=f"take one side with 'git checkout --ours -- {repo.basics.directory}' (or --theirs), then 'git add' it",
        )
    base = repo.track_path(track)
    for path in (f"{base}.dvc", f"{base}.json", f"{repo.basics.directory}/.gitignore"):
        mode = _mode(repo, path)
        if mode is not None and not stat.S_ISREG(mode):
            raise _in_the_way(path, "it is no ordinary file, and a file is to be written there")


def refuse_hidden(repo: Repository, track: str, members: Iterable[str]) -> None:
    """Refuse an artifact of which a `.dvcignore` hides a file: DVC would call it complete without that file."""
    folder = repo.track_path(track)
    hidden = outputs.ignored_paths(repo.root, [f"{folder}/{member}" for member in members])
    if hidden:
        raise Refused(
            f"cannot commit to track '{track}'",
            why=f"a .dvcignore hides '{hidden[0]}'{f' and {len(hidden) - 1} more' if len(hidden) > 1 else ''} from DVC",
            next_step=f"add '!{folder}/**' to .dvcignore",
        )


def _folders(repo: Repository) -> list[str]:
    """The folder of pointers and all above it, relative to the DVC root."""
    parts = repo.basics.directory.split("/")
    return ["/".join(parts[: n + 1]) for n in range(len(parts))]


def _mode(repo: Repository, path: str) -> int | None:
    try:
        return os.lstat(repo.root / path).st_mode
    except OSError:
        return None  # what is not there, or below something that is no folder, is found elsewhere


def _in_the_way(path: str, why: str) -> Refused:
    return Refused(
        f"cannot write to '{printable(path)}'",
        why=why,
        next_step="move it away, or set another 'directory' in ckpt.yaml",
    )
