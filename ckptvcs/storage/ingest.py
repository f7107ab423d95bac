"""Many new objects to disk at once: each byte is copied once, hashed with BLAKE3 and MD5, and written.

A *driver* is a thread with one MD5 lane for each stream it works on. It fills a buffer of every stream, has it written by
another thread, hashes all of them together meanwhile, and goes on. Memory is bounded by the buffers: drivers x lanes x 1 MiB.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.digest import Digest, hasher
from ckptvcs.errors import IntegrityError
from ckptvcs.storage import direct, files, lanes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from typing_extensions import Buffer

    from ckptvcs.progress import Progress
    from ckptvcs.storage.names import ObjectRef

_MAX_DRIVERS: Final = 8


@dataclass(frozen=True, slots=True)
class NewObject:
    """Bytes to be stored. `chunks()` may be called more than once and gives the same bytes each time."""

    chunks: Callable[[], Iterable[Buffer]]
    nbytes: int
    suffix: str = ""
    ref: ObjectRef | None = None
    """What it has to turn out to be, where that is known: else it is not stored."""


@dataclass(frozen=True, slots=True)
class Written:
    """A temporary file that is complete and durable, but has no name yet."""

    md5: str
    digest: Digest
    nbytes: int


def other_size(nbytes: int, new: NewObject) -> IntegrityError:
    """The error of an object that turned out to have another size than it was announced with."""
    return IntegrityError("cannot store an object", why=f"it has {nbytes} bytes, {new.nbytes} were announced")


def ingest(
    objects: Sequence[NewObject],
    *,
    folder: Path,
    mode: int,
    publish: Callable[[str, NewObject, Written], Any],
    progress: Progress,
) -> list[Any]:
    """Write objects to temporary files, hash them, and hand each to `publish` when it is durable.

    Args:
        objects: what to write.
        folder: where the temporary files go; on the file system of the final names.
        mode: of the files.
        publish: gets the path of the temporary file, and gives it its name; what it returns is collected.
        progress: told about bytes as they are written.

    Returns:
        What `publish` returned, in the order of `objects`.

    Raises:
        OSError: a write failed. No temporary file is left.
    """
    drivers = min(len(objects), os.cpu_count() or 1, _MAX_DRIVERS)
    # Largest first: a driver that began a big object last would leave the others idle.
    queue = deque(sorted(range(len(objects)), key=lambda i: objects[i].nbytes))
    share = -(-len(objects) // drivers)
    with (
        ThreadPoolExecutor(direct.PARALLEL, "ckptvcs-write") as writers,
        ThreadPoolExecutor(drivers, "ckptvcs-ingest") as pool,
    ):
        work = _Work(
            objects=objects,
            queue=queue,
            results=[None] * len(objects),
            folder=folder,
            mode=mode,
            publish=publish,
            progress=progress,
            failed=threading.Event(),
            writers=writers,
        )
        futures = [pool.submit(_Driver(work, min(share, lanes.width())).run) for _ in range(drivers)]
    for future in futures:
        future.result()
    return work.results


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What the drivers share."""

    objects: Sequence[NewObject]
    queue: deque[int]
    results: list[Any]
    folder: Path
    mode: int
    publish: Callable[[str, NewObject, Written], Any]
    progress: Progress
    failed: threading.Event
    writers: ThreadPoolExecutor


class _Driver:
    """Works on up to `count` objects at a time until the queue is empty."""

    def __init__(self, work: _Work, count: int) -> None:
        self._work = work
        self._lanes = lanes.Lanes() if count > 1 else None
        self._active: list[_Stream | None] = [None] * (self._lanes.width if self._lanes else 1)
        self._count = count

    def run(self) -> None:
        try:
            while self._refill():
                self._advance()
        except BaseException:
            self._work.failed.set()  # on a full disk there is no point in the others
            raise
        finally:
            for stream in filter(None, self._active):
                stream.abandon()

    def _refill(self) -> bool:
        """Give every free lane a stream, and every stream bytes; False when there is nothing left to do."""
        for lane in range(self._count):
            stream: _Stream | None = self._active[lane]
            if stream is None and not self._work.failed.is_set():
                stream = self._active[lane] = self._next(lane)
            if stream is not None and not stream.pending:
                stream.fill()
        return any(self._active)

    def _next(self, lane: int) -> _Stream | None:
        try:
            number = self._work.queue.pop()
        except IndexError:
            return None
        if self._lanes:
            self._lanes.reset(lane)
        return _Stream(self._work, number, alone=self._lanes is None)

    def _advance(self) -> None:
        """Hash what all streams have in common, and finish those that are through."""
        if self._lanes:
            blocks = min(len(s.pending) // lanes.BLOCK for s in self._active if s)
            self._lanes.update([s.pending if s else None for s in self._active], blocks)
            for hashed in filter(None, self._active):
                hashed.consumed(blocks * lanes.BLOCK)
        for lane, stream in enumerate(self._active):
            if stream is not None and stream.is_through:
                self._active[lane] = None
                stream.finish(self._lanes.hexdigest(lane) if self._lanes else None)


class _Stream:
    """One object on its way to disk."""

    def __init__(self, work: _Work, number: int, *, alone: bool) -> None:
        self._work = work
        self._number = number
        self._new = work.objects[number]
        self._source = direct.Source(self._new.chunks())
        self._blake3 = hasher()
        self._md5 = lanes.new() if alone else None
        self._taken = 0
        self._writing: Future[None] | None = None
        self._ended = False
        self._buffer = direct.buffer()  # with room behind for the padding of MD5
        self.pending = self._buffer[:0]
        """What MD5 has still to see of the buffer."""
        self._path = str(work.folder / files.tmp_name())
        self._fd = _open_new(self._path)
        self._output = direct.Output(self._fd, self._new.nbytes)

    @property
    def is_through(self) -> bool:
        return self._ended and not self.pending

    def fill(self) -> None:
        """Fill the buffer, give it to a writer, hash it with BLAKE3."""
        self._wait()
        count = self._source.read_into(self._buffer[: direct.STEP])
        self._ended = count < direct.STEP
        data = self._buffer[:count]
        self._writing = self._work.writers.submit(self._output.write, self._buffer, count)
        self._blake3.update(data)
        self._taken += count
        self._work.progress(count)
        if self._md5 is not None:
            self._md5.update(data)
            return
        tail = lanes.padding(self._taken) if self._ended else b""
        if tail:
            self._wait()  # the buffer is the writer's until it is written, and a direct write takes whole pages of it
            self._buffer[count : count + len(tail)] = tail
        self.pending = self._buffer[: count + len(tail)]

    def _wait(self) -> None:
        """Wait until the buffer is written; raise what went wrong."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def consumed(self, count: int) -> None:
        """Say that MD5 has seen the first `count` pending bytes."""
        self.pending = self.pending[count:]

    def finish(self, md5: str | None) -> None:
        """Make the file durable and let it be given its name."""
        try:
            self._wait()
            if self._taken != self._new.nbytes:
                raise other_size(self._taken, self._new)
            self._output.end()
            os.fchmod(self._fd, self._work.mode)
            os.fsync(self._fd)  # an error here is final for this file: the kernel may have dropped its pages
            name = self._md5.hexdigest() if self._md5 is not None else md5
            done = Written(md5=name or "", digest=Digest(self._blake3.hexdigest()), nbytes=self._taken)
            self._work.results[self._number] = self._work.publish(self._path, self._new, done)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close and remove the temporary file; it may have its name by now."""
        if self._fd < 0:
            return
        with contextlib.suppress(OSError):  # the first error is on its way already
            self._wait()
        os.close(self._fd)
        self._fd = -1
        with contextlib.suppress(OSError):
            os.unlink(self._path)


def _open_new(path: str) -> int:
    """A new temporary file, locked, which says to `files.sweep_temporaries` that someone is at it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except BaseException:
        os.close(fd)
        os.unlink(path)
        raise
    return fd
