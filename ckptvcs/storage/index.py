"""The local index: what we hashed before, so that we need not hash or write it again. Hints only.

Two tables in one SQLite file below `.git`: objects by the digest of what they contain (a *key*), and files whose bytes
were seen to have a digest while they had certain times and size. Losing the file costs time, nothing else; a damaged one
is thrown away; each row vouches for itself, so that a flipped bit cannot send us to the wrong object.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ckptvcs.digest import Digest, digest
from ckptvcs.storage.names import ObjectName, ObjectRef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

T = TypeVar("T")

_SCHEMA: Final = """
PRAGMA journal_mode = DELETE;  -- WAL does not work on the network file systems that clusters keep homes on
PRAGMA synchronous = OFF;  -- each row vouches for itself, so a power cut costs hints and misleads nobody
CREATE TABLE IF NOT EXISTS objects (key TEXT PRIMARY KEY, name TEXT, nbytes INTEGER, digest TEXT, seal TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS seen (path TEXT PRIMARY KEY, stamp TEXT, name TEXT, digest TEXT, seal TEXT) WITHOUT ROWID;
"""


def stamp(info: os.stat_result) -> str:
    """What changes when a file does. The change time is in it, because a program can set the modification time back."""
    return f"{info.st_dev}.{info.st_ino}.{info.st_size}.{info.st_mtime_ns}.{info.st_ctime_ns}"


class LocalIndex:
    """The index of one repository; safe to use from several threads and processes.

    Args:
        path: the SQLite file; made when something is remembered.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mutex = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def close(self) -> None:
        with self._mutex:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def discard(self) -> None:
        """Forget everything, which costs time and nothing else."""
        with self._mutex:
            self._discard()

    # ---- objects by content

    def find(self, keys: Iterable[Digest]) -> dict[Digest, ObjectRef]:
        """The objects known for these keys. They may be gone: look before use."""
        found = {}
        for key in keys:
            for row in self._query("SELECT name, nbytes, digest, seal FROM objects WHERE key = ?", (key,)):
                name, nbytes, object_digest, seal = row
                if seal == _seal(key, name, nbytes, object_digest):
                    found[key] = ObjectRef(name=ObjectName(name), nbytes=nbytes, digest=Digest(object_digest))
        return found

    def remember(self, refs: Iterable[tuple[Digest, ObjectRef]]) -> None:
        """Note which object holds what a key stands for."""
        rows = [(k, r.name, r.nbytes, r.digest, _seal(k, r.name, r.nbytes, r.digest)) for k, r in refs]
        self._write("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)", rows)

    # ---- files by their stamp

    def ref_of(self, path: str, info: os.stat_result) -> ObjectRef | None:
        """What a file was seen to be, if nothing about it changed since."""
        for known, name, found, seal in self._query(
            "SELECT stamp, name, digest, seal FROM seen WHERE path = ?", (_text(path),)
        ):
            if known == stamp(info) and seal == _seal(path, known, name, found):
                return ObjectRef(name=ObjectName(name), nbytes=info.st_size, digest=Digest(found))
        return None

    def is_stale(self, path: str, info: os.stat_result) -> bool:
        """Whether a file was seen before and has changed since, whatever it holds now."""
        rows = self._query("SELECT stamp, name, digest, seal FROM seen WHERE path = ?", (_text(path),))
        return any(
            known != stamp(info) and seal == _seal(path, known, name, found) for known, name, found, seal in rows
        )

    def saw(self, files: Iterable[tuple[str, os.stat_result, ObjectRef]]) -> None:
        """Note that these files, as they were then, held these objects."""
        rows = []
        for path, info, ref in files:
            mark = stamp(info)
            rows.append((_text(path), mark, ref.name, ref.digest, _seal(path, mark, ref.name, ref.digest)))
        self._write("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?)", rows)

    # ---- SQLite

    def _query(self, sql: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        if self._connection is None and not self._path.exists():
            return []
        return self._run(lambda connection: connection.execute(sql, values).fetchall()) or []

    def _write(self, sql: str, rows: list[tuple[Any, ...]]) -> None:
        def write(connection: sqlite3.Connection) -> None:
            with connection:
                connection.executemany(sql, rows)

        if rows:
            with contextlib.suppress(OSError):  # then there is no index, and no hint
                self._path.parent.mkdir(exist_ok=True)
            self._run(write)

    def _run(self, action: Callable[[sqlite3.Connection], T]) -> T | None:
        """Do something with the database. A hint that cannot be read or written is no hint, and no error."""
        with self._mutex:
            try:
                return action(self._open())
            except sqlite3.OperationalError:  # locked by someone for long, disk full, read-only
                return None
            except sqlite3.DatabaseError:  # not a database (any more): begin a new one
                self._discard()
                return None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(self._path, timeout=2.0, check_same_thread=False)
            try:
                connection.executescript(_SCHEMA)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _discard(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        with contextlib.suppress(OSError):
            os.unlink(self._path)


def _text(path: str) -> str:
    """A path as SQLite takes it, whatever bytes are in it. Two paths that became one are told apart by their seals."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


def _seal(*values: object) -> str:
    return digest("\0".join(map(str, values)).encode("utf-8", "surrogateescape"))[:16]
