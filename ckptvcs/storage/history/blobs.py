"""Many files of a history at once, read by the git program while we look at those that came before."""

from __future__ import annotations

import subprocess
import threading
from typing import TYPE_CHECKING, BinaryIO, cast

from ckptvcs.errors import StorageError
from ckptvcs.storage.history import program

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from ckptvcs.storage.history.repository import BlobId


def read_all(
    folder: Path, variables: Mapping[str, str], blobs: Sequence[BlobId], *, limit: int
) -> Iterator[tuple[BlobId, bytes | None]]:
    """The bytes of files, in the order in which they are named; None for one that git cannot read, or that is too large.

    Args:
        folder: of the repository.
        variables: the environment of git.
        blobs: the files.
        limit: bytes of the largest that is read.

    Raises:
        StorageError: there is no git, or it ends early.
    """
    if not blobs:
        return
    command, pipe = ["git", "cat-file", "--batch", "--buffer"], subprocess.PIPE
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(variables),
            stdin=pipe,
            stdout=pipe,
            stderr=subprocess.DEVNULL,
            bufsize=1 << 20,
        )
    except FileNotFoundError as err:
        raise program.no_git() from err
    feeder = threading.Thread(target=_feed, args=(process.stdin, blobs), daemon=True)
    with process:
        feeder.start()
        try:
            for blob in blobs:
                yield blob, _next(cast("BinaryIO", process.stdout), limit)
        finally:
            process.kill()
            feeder.join()


def all_commits(folder: Path, variables: Mapping[str, str]) -> set[str]:
    """Every commit that git has, whether or not anything leads to it.

    Raises:
        StorageError: there is no git, or it fails.
    """
    command = ("cat-file", "--batch-all-objects", "--unordered", "--batch-check=%(objecttype) %(objectname)")
    lines = program.output(folder, variables, *command).splitlines()
    return {line[7:].decode("ascii") for line in lines if line.startswith(b"commit ")}


def _feed(to: BinaryIO, blobs: Sequence[BlobId]) -> None:
    try:
        with to:
            for start in range(0, len(blobs), 1000):
                to.write("".join(f"{blob}\n" for blob in blobs[start : start + 1000]).encode("ascii"))
    except (OSError, ValueError):  # nobody reads any more
        return


def _next(stream: BinaryIO, limit: int) -> bytes | None:
    words = stream.readline().split()
    if not words:
        raise StorageError("cannot read the history", why="git ended early", next_step="run 'git fsck'")
    if len(words) != 3:  # `ID missing`
        return None
    kind, size = words[1], int(words[2])
    if kind != b"blob" or size > limit:
        left = size + 1
        while left:
            left -= len(stream.read(min(left, 1 << 20))) or left
        return None
    data = stream.read(size)
    stream.read(1)
    if len(data) != size:
        raise StorageError("cannot read the history", why="git ended early", next_step="run 'git fsck'")
    return data
