"""File systems of fsspec as they differ: temporaries that are swept by the clock of the store."""

from __future__ import annotations

import gc
import io
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from ckptvcs.storage.filesystems import Kind, opened

LONG_AGO = 1_000_000_000.0
HOUR = 3600.0


class Timed(MemoryFileSystem):
    """A file system whose clock stands in 2001."""

    times: dict[str, float]

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        found = super().info(path, **options)
        return {**found, "created": None, "mtime": self.times.get(found["name"])}

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        found = super().ls(path, detail=True, **options)
        return [{**entry, "created": None, "mtime": self.times.get(entry["name"])} for entry in found]


@pytest.fixture
def fs() -> Timed:
    found = Timed(skip_instance_cache=True)
    found.store.clear()
    found.times = {}
    return found


def write(fs: Timed, path: str, at: float | None) -> str:
    fs.pipe_file(path, b"x")
    if at is not None:
        fs.times[path] = at
    return path


def test_the_clock_of_the_store_says_what_is_old(fs: Timed):
    newest = write(fs, "/r/ab/object", LONG_AGO)
    old = write(fs, "/r/.ckptvcs-1.tmp", LONG_AGO - 25 * HOUR)
    kept = {
        newest,
        write(fs, "/r/.ckptvcs-2.tmp", LONG_AGO - 23 * HOUR),
        write(fs, "/r/.ckptvcs-3.tmp", None),
        write(fs, "/r/other.tmp", LONG_AGO - 1000 * HOUR),
        write(fs, "/r/ab/.ckptvcs-4.tmp", LONG_AGO - 1000 * HOUR),
    }

    Kind(fs).sweep("/r", newest)

    assert not fs.exists(old)
    assert set(fs.find("/r")) == kept


def test_where_the_store_tells_no_time_nothing_is_swept(fs: Timed):
    newest = write(fs, "/r/ab/object", None)
    write(fs, "/r/.ckptvcs-1.tmp", 0.0)

    Kind(fs).sweep("/r", newest)

    assert len(fs.find("/r")) == 2


def test_a_file_whose_close_fails_is_not_closed_again_when_it_is_collected(tmp_path: Path):
    """As that of sshfs over a dead line; the second time would be as Python ends, and wait for ever."""

    class File(io.IOBase):
        closes = 0

        def close(self) -> None:
            type(self).closes += 1
            raise ConnectionResetError("gone")

        @property
        def closed(self) -> bool:
            return False

    class Files:
        def open(self, *_: str) -> File:
            return File()

    with pytest.raises(ConnectionResetError), opened(Files(), "path", "rb"):
        pass
    gc.collect()

    assert File.closes == 1
