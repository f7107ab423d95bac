"""Many objects to disk at once, each hashed twice on the way: hashlib and blake3 are the oracles."""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import re
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from ckptvcs.errors import IntegrityError
from ckptvcs.storage.ingest import NewObject, Written, ingest
from tests.support.world import run

MIB = 1 << 20
SIZES = [0, 1, 55, 56, 63, 64, 65, 4095, 4096, 4097, MIB - 1, MIB, MIB + 1, 2 * MIB]
DIRECT = [4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 4 * MIB + 4096, 5 * MIB + 63]
"""From 4 MiB on, objects are written past the page cache."""


def content(size: int, seed: int = 0) -> bytes:
    return random.Random(f"{size} {seed}").randbytes(size)


def in_pieces(data: bytes, seed: int = 0) -> NewObject:
    """An object that comes in pieces of odd sizes, empty ones among them."""

    def chunks() -> Iterator[bytes]:
        rng, start = random.Random(seed), 0
        while start < len(data):
            size = rng.choice([0, 1, 63, 64, 4096, 100_001, MIB, 3 * MIB])
            yield data[start : start + size]
            start += size

    return NewObject(chunks, len(data))


def read(tmp: str, _: NewObject, written: Written) -> tuple[bytes, Written]:
    return Path(tmp).read_bytes(), written


def take(objects: list[NewObject], folder: Path, publish: Callable[..., Any] = read, **options: Any) -> list[Any]:
    return ingest(objects, folder=folder, publish=publish, **{"mode": 0o444, "progress": lambda _: None, **options})


def truth(data: bytes) -> tuple[bytes, Written]:
    return data, Written(md5=hashlib.md5(data).hexdigest(), digest=blake3(data).hexdigest(), nbytes=len(data))


@pytest.mark.parametrize("size", SIZES + DIRECT)
def test_one_object_is_written_and_hashed(tmp_path: Path, size: int):
    data = content(size)

    assert take([in_pieces(data)], tmp_path) == [truth(data)]

    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("sizes", [SIZES, SIZES[::-1], DIRECT, [*SIZES, *DIRECT], [0] * 9, [MIB + 1] * 21], ids=str)
def test_many_objects_are_written_and_hashed_at_once(tmp_path: Path, sizes: list[int]):
    contents = [content(size, seed) for seed, size in enumerate(sizes)]

    found = take([in_pieces(data, seed) for seed, data in enumerate(contents)], tmp_path)

    assert found == [truth(data) for data in contents]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("count", [1, 2, 3, 8, 9, 17, 33])
def test_any_number_of_objects_of_any_size_is_hashed_right(tmp_path: Path, count: int):
    rng = random.Random(count)
    contents = [content(int(10 ** rng.uniform(0, 6)), seed) for seed in range(count)]

    found = take([NewObject(lambda data=data: [data], len(data)) for data in contents], tmp_path)

    assert found == [truth(data) for data in contents]


@pytest.mark.parametrize("mode", [0o444, 0o640])
def test_a_file_has_its_mode_before_it_has_a_name(tmp_path: Path, mode: int):
    modes = take([in_pieces(b"x")], tmp_path, lambda tmp, *_: stat.S_IMODE(os.stat(tmp).st_mode), mode=mode)

    assert modes == [mode]


def test_a_file_that_was_given_a_name_stays(tmp_path: Path):
    take([in_pieces(b"x")], tmp_path, lambda tmp, *_: os.rename(tmp, tmp_path / "name"))

    assert os.listdir(tmp_path) == ["name"]


def test_a_temporary_file_is_locked_as_long_as_it_is_written(tmp_path: Path):
    def is_locked(tmp: str, *_: Any) -> bool:
        with open(tmp) as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True

    assert take([in_pieces(b"x"), in_pieces(b"y")], tmp_path, is_locked) == [True, True]


def test_progress_is_told_about_every_byte(tmp_path: Path):
    told: list[int] = []

    take([in_pieces(content(size)) for size in SIZES], tmp_path, progress=told.append)

    assert sum(told) == sum(SIZES)


# ----------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("error", [ZeroDivisionError, OSError, KeyboardInterrupt])
@pytest.mark.parametrize("others", [0, 1, 20])
def test_an_error_of_a_source_is_raised_and_no_file_is_left(tmp_path: Path, error: type[BaseException], others: int):
    def broken() -> Iterator[bytes]:
        yield content(3 * MIB)
        raise error

    with pytest.raises(error):
        take([NewObject(broken, 5 * MIB)] + [in_pieces(content(2 * MIB, n)) for n in range(others)], tmp_path)

    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("announced", "given"), [(0, 1), (10, 9), (10, 11), (4 * MIB, MIB), (MIB, 5 * MIB)])
def test_a_source_that_gives_more_or_less_than_announced_is_refused(tmp_path: Path, announced: int, given: int):
    objects = [in_pieces(b"fine"), NewObject(lambda: [content(given)], announced)]

    with pytest.raises(IntegrityError, match=f"it has {given} bytes, {announced} were announced"):
        take(objects, tmp_path)

    assert os.listdir(tmp_path) == []


def test_an_error_of_the_one_who_names_the_files_is_raised(tmp_path: Path):
    def refuse(*_: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        take([in_pieces(content(n, n)) for n in range(20)], tmp_path, refuse)

    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("size", [2 * MIB, 8 * MIB], ids=["through the page cache", "past it"])
@pytest.mark.parametrize("count", [1, 5])
def test_a_full_disk_is_raised_and_no_file_is_left(tmp_path: Path, small_files: int, size: int, count: int):
    with pytest.raises(OSError, match="File too large"):
        take([in_pieces(content(size, n)) for n in range(count)], tmp_path)

    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_not_there_is_raised(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        take([in_pieces(b"x")], tmp_path / "missing")


def test_after_an_error_no_further_object_is_begun(tmp_path: Path):
    begun = []

    def watched(n: int) -> Iterator[bytes]:
        begun.append(n)
        yield b"x"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        take([NewObject(lambda n=n: watched(n), 1) for n in range(1000)], tmp_path)

    assert len(begun) < 500


# ------------------------------------------------------------------------------------------------------------ memory

HUNGRY = """
import re, sys, pathlib
from ckptvcs.storage.ingest import NewObject, ingest
piece = bytes(1 << 20)
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
def go(count, size):
    new = NewObject(lambda: (piece for _ in range(size)), size << 20)
    ingest([new] * count, folder=pathlib.Path(sys.argv[1]), mode=0o444, publish=lambda *_: None, progress=lambda _: None)
go(2, 1)
before = peak()
go(int(sys.argv[2]), int(sys.argv[3]))
print("grew by", (peak() - before) >> 10, "MiB")
"""


@pytest.mark.parametrize(("count", "mib"), [(1, 192), (64, 3)], ids=["one large", "many small"])
def test_memory_is_bounded_whatever_is_written(tmp_path: Path, count: int, mib: int):
    done = run([sys.executable, "-c", HUNGRY, str(tmp_path), str(count), str(mib)], tmp_path)

    grown = re.fullmatch(r"grew by (\d+) MiB\n", done.out)
    assert grown is not None
    assert int(grown[1]) < 64, "a buffer of 1 MiB for each lane of each core is enough"
