"""What is about to enter git: the files of the index that the next commit is made of.

The git program is asked, because a hook may be about another index than `.git/index`: that of `git commit FILE`, say.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ckptvcs.storage.history import program
from ckptvcs.storage.history.repository import BlobId

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

_FILES: Final = ("100644", "100755")
_OTHER_SIDES: Final = ("MERGE_HEAD", "CHERRY_PICK_HEAD")


@dataclass(frozen=True, slots=True)
class Staged:
    """A file in the index."""

    path: str
    """Relative to the worktree."""
    blob: BlobId
    nbytes: int


def entering(worktree: Path, variables: Mapping[str, str]) -> list[Staged]:
    """The files whose bytes the next commit brings into git: new or changed, and in none of its parents.

    Raises:
        StorageError: git cannot be run, or fails.
    """
    bases = [_resolved(worktree, variables, name) for name in ("HEAD", *_OTHER_SIDES)]
    first = bases[0] or _empty_tree(worktree, variables)
    new = _changed(worktree, variables, first)
    for other in filter(None, bases[1:]):
        new &= _changed(worktree, variables, other)
    return _sized(worktree, variables, sorted(new))


def indexed(start: Path, worktree: Path, variables: Mapping[str, str], names: Sequence[str]) -> list[Staged]:
    """The files of the index that have these names, which are relative to `start`.

    Raises:
        StorageError: git cannot be run, or fails.
    """
    command = ("--literal-pathspecs", "ls-files", "--stage", "--full-name", "-z", "--", *names)
    found = []
    for entry in program.output(start, variables, *command).split(b"\0")[:-1]:
        facts, _, path = entry.partition(b"\t")
        mode, blob, stage = facts.decode("ascii").split(" ")
        if mode in _FILES and stage == "0":
            found.append((os.fsdecode(path), blob))
    return _sized(worktree, variables, found)


def _changed(worktree: Path, variables: Mapping[str, str], base: str) -> set[tuple[str, str]]:
    """Paths and ids of what the index has otherwise than a tree. What was only renamed is in git already."""
    command = ("diff-index", "--cached", "--raw", "-z", "--no-abbrev", "--find-renames=100%", "--diff-filter=AMT", base)
    parts = program.output(worktree, variables, *command).split(b"\0")[:-1]
    found = set()
    for facts, path in zip(parts[::2], parts[1::2], strict=True):
        _, mode, _, blob, _ = facts.decode("ascii").split(" ")
        if mode in _FILES:
            found.add((os.fsdecode(path), blob))
    return found


def _sized(worktree: Path, variables: Mapping[str, str], files: Iterable[tuple[str, str]]) -> list[Staged]:
    files = list(files)
    asked = "".join(f"{blob}\n" for _, blob in files).encode("ascii")
    lines = program.output(worktree, variables, "cat-file", "--batch-check=%(objectsize)", data=asked).splitlines()
    return [
        Staged(path, BlobId(blob), int(nbytes))
        for (path, blob), nbytes in zip(files, lines, strict=True)
        if nbytes.isdigit()
    ]


def _resolved(worktree: Path, variables: Mapping[str, str], name: str) -> str | None:
    done = program.run(worktree, variables, "rev-parse", "--quiet", "--verify", f"{name}^{{commit}}")
    return done.stdout.decode("ascii").strip() if done.returncode == 0 else None


def _empty_tree(worktree: Path, variables: Mapping[str, str]) -> str:
    return program.output(worktree, variables, "hash-object", "-t", "tree", "--stdin").decode("ascii").strip()
