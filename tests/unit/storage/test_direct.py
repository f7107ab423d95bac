"""Files written past the page cache hold exactly the bytes that were given, on every kind of file system."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptvcs.storage import direct

STEP = direct.STEP
SIZES = [0, 1, 4095, 4096, 4097, STEP - 1, STEP, STEP + 1, 4 * STEP - 1, 4 * STEP, 4 * STEP + 1, 5 * STEP + 63]


@given(st.lists(st.binary(max_size=40)), st.integers(min_value=1, max_value=17))
def test_pieces_of_any_size_are_one_stream(pieces: list[bytes], width: int):
    source, target, found = direct.Source(pieces), memoryview(bytearray(width)), []

    while count := source.read_into(target):
        found.append(bytes(target[:count]))

    assert b"".join(found) == b"".join(pieces)
    assert {len(part) for part in found[:-1]} <= {width}, "only the last one may be short"


@pytest.fixture(params=["disk", "memory"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Where a file may go: on a disk, and on a file system in memory, which has no page cache to write past."""
    found = tmp_path / "x" if request.param == "disk" else Path(f"/dev/shm/{os.getpid()}-direct")
    if not found.parent.is_dir():
        pytest.skip("there is no file system in memory here")
    yield found
    found.unlink()


def write(path: Path, data: bytes, *, shift: int = 0) -> int:
    """Write a file; `shift` takes the alignment from the buffer. Returns the flags of its descriptor in the end."""
    source, buffer = direct.Source([data]), direct.buffer()[shift:]
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    output = direct.Output(fd, len(data))
    while count := source.read_into(buffer[:STEP]):
        output.write(buffer, count)
    output.end()
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    os.close(fd)
    return flags


@pytest.mark.parametrize("size", SIZES)
def test_a_file_holds_what_was_written(path: Path, size: int):
    data = os.urandom(size)

    write(path, data)

    assert path.read_bytes() == data


def test_only_big_files_go_past_the_page_cache(tmp_path: Path):
    assert not write(tmp_path / "small", bytes(4 * STEP - 1)) & os.O_DIRECT
    big = write(tmp_path / "big", bytes(4 * STEP)) & os.O_DIRECT
    assert big == _accepted(tmp_path)


def _accepted(folder: Path) -> int:
    """The flag, if this file system takes it."""
    try:
        fd = os.open(folder / "probe", os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
    except OSError:
        return 0
    os.close(fd)
    return os.O_DIRECT


def test_a_file_system_that_refuses_a_direct_write_gets_an_ordinary_one(tmp_path: Path):
    data = os.urandom(5 * STEP + 63)

    flags = write(tmp_path / "x", data, shift=1)  # no kernel writes directly from memory like this

    assert (tmp_path / "x").read_bytes() == data
    assert not flags & os.O_DIRECT
