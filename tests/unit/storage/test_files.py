"""Atomic writes, folders without links, temporaries of the dead, locks."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ckptvcs.errors import HostileInput, LockHeld, StorageError, TierFull, TierReadOnly
from ckptvcs.storage import files

HOLD = (
    "import fcntl, sys\nf = open(sys.argv[1], 'r+')\nfcntl.flock(f, fcntl.LOCK_EX)\nprint('ready', flush=True)\ninput()"
)


# ------------------------------------------------------------------------------------------------------ atomic writes


@pytest.mark.parametrize("data", [b"", b"new", bytes(range(256)) * 12_345], ids=len)
def test_a_file_is_replaced_by_its_new_bytes_and_nothing_else_is_left(tmp_path: Path, data: bytes):
    (tmp_path / "name").write_bytes(b"old")

    files.write_atomic(tmp_path / "name", data)

    assert (tmp_path / "name").read_bytes() == data
    assert os.listdir(tmp_path) == ["name"]


@pytest.mark.parametrize(("mode", "expected"), [(0o666, 0o640), (0o444, 0o440)])
def test_the_mode_of_a_new_file_obeys_the_umask(tmp_path: Path, mode: int, expected: int):
    before = os.umask(0o026)
    try:
        files.write_atomic(tmp_path / "name", b"x", mode=mode)
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "name").stat().st_mode) == expected


def test_a_reader_sees_the_old_bytes_or_the_new_ones(tmp_path: Path):
    versions = [bytes([n]) * 300_000 for n in range(20)]
    files.write_atomic(tmp_path / "name", versions[0])
    writer = threading.Thread(target=lambda: [files.write_atomic(tmp_path / "name", v) for v in versions])

    writer.start()
    seen = [(tmp_path / "name").read_bytes()]
    while writer.is_alive():
        seen.append((tmp_path / "name").read_bytes())

    assert set(seen) <= set(versions)


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, small_files: int):
    (tmp_path / "name").write_bytes(b"old")

    with pytest.raises(TierFull):
        files.write_atomic(tmp_path / "name", bytes(small_files + 1))

    assert (tmp_path / "name").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["name"]


def test_a_read_only_folder_is_named_in_the_error(tmp_path: Path, without_privilege: None):
    tmp_path.chmod(0o555)

    with pytest.raises(TierReadOnly) as caught:
        files.write_atomic(tmp_path / "name", b"x")

    assert str(tmp_path / "name") in caught.value.what


def test_a_link_is_replaced_and_its_target_stays(tmp_path: Path):
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "name").symlink_to("target")

    files.write_atomic(tmp_path / "name", b"new")

    assert (tmp_path / "target").read_bytes() == b"precious"
    assert not (tmp_path / "name").is_symlink()


@pytest.mark.parametrize("parent", ["missing", "link", "file"])
def test_a_folder_that_is_none_is_refused(tmp_path: Path, parent: str):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(StorageError):
        files.write_atomic(tmp_path / parent / "name", b"x")

    assert os.listdir(tmp_path / "real") == []


# -------------------------------------------------------------------------------------- folders, never through a link


def test_a_deep_folder_is_made_and_entered(tmp_path: Path):
    with files.open_folder(tmp_path) as root, files.open_beneath(root, "a/b/c", make=True) as folder:
        files.replace_in(folder, "name", b"x")

    assert (tmp_path / "a/b/c/name").read_bytes() == b"x"


def test_the_empty_path_is_the_root(tmp_path: Path):
    with files.open_folder(tmp_path) as root, files.open_beneath(root, "") as folder:
        assert os.fstat(folder).st_ino == tmp_path.stat().st_ino


def test_a_folder_that_is_missing_is_not_made_unasked(tmp_path: Path):
    with files.open_folder(tmp_path) as root, pytest.raises(FileNotFoundError), files.open_beneath(root, "a/b"):
        pass

    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("path", ["link", "link/inner", "inside/link", "file"])
@pytest.mark.parametrize("make", [True, False])
def test_a_link_or_file_on_the_way_is_hostile(tmp_path: Path, path: str, *, make: bool):
    (tmp_path / "elsewhere/inner").mkdir(parents=True)
    (tmp_path / "root/inside").mkdir(parents=True)
    for link in ("root/link", "root/inside/link"):
        (tmp_path / link).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root/file").write_bytes(b"")

    with (
        files.open_folder(tmp_path / "root") as root,
        pytest.raises(HostileInput),
        files.open_beneath(root, path, make=make),
    ):
        pass


@pytest.mark.parametrize("path", ["..", "../outside", "a/../../outside"])
def test_a_path_that_climbs_out_is_hostile(tmp_path: Path, path: str):
    (tmp_path / "root/a").mkdir(parents=True)
    (tmp_path / "outside").mkdir()

    with files.open_folder(tmp_path / "root") as root, pytest.raises(HostileInput), files.open_beneath(root, path):
        pass


def test_an_absolute_path_stays_beneath_the_root(tmp_path: Path):
    with files.open_folder(tmp_path) as root, files.open_beneath(root, "/etc", make=True) as folder:
        assert os.fstat(folder).st_ino == (tmp_path / "etc").stat().st_ino


def test_no_descriptor_is_left_open(tmp_path: Path):
    (tmp_path / "link").symlink_to("elsewhere")
    before = len(os.listdir("/proc/self/fd"))

    with files.open_folder(tmp_path) as root, files.open_beneath(root, "a/b/c", make=True):
        pass
    with pytest.raises(HostileInput), files.open_folder(tmp_path) as root, files.open_beneath(root, "link"):
        pass

    assert len(os.listdir("/proc/self/fd")) == before


def test_a_tree_is_removed_and_links_in_it_are_not_followed(tmp_path: Path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_bytes(b"precious")
    (tmp_path / "tree/deep").mkdir(parents=True)
    (tmp_path / "tree/deep/file").write_bytes(b"x")
    (tmp_path / "tree/link").symlink_to(tmp_path / "kept")

    with files.open_folder(tmp_path) as folder:
        files.remove_tree(folder, "tree")
        files.remove_tree(folder, "never was there")

    assert os.listdir(tmp_path) == ["kept"]
    assert (tmp_path / "kept/file").read_bytes() == b"precious"


# ------------------------------------------------------------------------------------------------------- temporaries

LATER = 61.0


def test_the_temporary_file_of_a_dead_process_is_swept(tmp_path: Path, python):
    left = tmp_path / files.tmp_name()
    left.write_bytes(b"half")
    writer = python(HOLD, left)

    writer.kill()
    writer.wait()

    assert files.sweep_temporaries(tmp_path, time.time() + LATER) == [left.name]
    assert os.listdir(tmp_path) == []


def test_the_temporary_file_of_a_living_process_stays(tmp_path: Path, python):
    left = tmp_path / files.tmp_name()
    left.write_bytes(b"half")
    python(HOLD, left)

    assert files.sweep_temporaries(tmp_path, time.time() + LATER) == []
    assert left.read_bytes() == b"half"


def test_a_temporary_folder_goes_with_all_it_holds_and_no_more(tmp_path: Path):
    (tmp_path / "kept").write_bytes(b"kept")
    (tmp_path / "kept folder").mkdir()
    left = tmp_path / files.tmp_name()
    left.mkdir()
    (left / "half").write_bytes(b"half")
    (left / "link").symlink_to(tmp_path / "kept")
    (left / "way").symlink_to(tmp_path / "kept folder")

    with open_locked(left):
        assert files.sweep_temporaries(tmp_path, time.time() + LATER) == []
    assert files.sweep_temporaries(tmp_path, time.time() + LATER) == [left.name]
    assert sorted(os.listdir(tmp_path)) == ["kept", "kept folder"]


@contextlib.contextmanager
def open_locked(folder: Path) -> Iterator[None]:
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def test_a_young_temporary_file_stays(tmp_path: Path):
    left = tmp_path / files.tmp_name()
    left.write_bytes(b"half")

    assert files.sweep_temporaries(tmp_path, time.time() + 50) == []
    assert left.exists()


def test_only_files_of_ours_are_swept(tmp_path: Path):
    for name in ("model.tmp", ".ckptvcs-damaged-0123", ".tmp", "deep/.ckptvcs-0123.tmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / ".ckptvcs-link.tmp").symlink_to("model.tmp")
    (tmp_path / ".ckptvcs-way.tmp").symlink_to("folder")
    before = sorted(tmp_path.rglob("*"))

    assert files.sweep_temporaries(tmp_path, time.time() + LATER) == []
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["missing", "file"])
def test_sweeping_where_no_folder_is_does_nothing(tmp_path: Path, name: str):
    (tmp_path / "file").write_bytes(b"")

    assert files.sweep_temporaries(tmp_path / name, time.time()) == []


# ------------------------------------------------------------------------------------------------------------ locks


def test_a_lock_that_another_process_holds_is_reported_after_the_wait(tmp_path: Path, python):
    (tmp_path / "lock").write_text(" 4711\n")
    python(HOLD, tmp_path / "lock")
    start = time.monotonic()

    with pytest.raises(LockHeld, match="process 4711") as caught, files.Lock(tmp_path / "lock", timeout_s=0.2):
        pass

    assert 0.2 <= time.monotonic() - start < 5
    assert caught.value.facts == {"path": str(tmp_path / "lock"), "holder": "4711"}


def test_a_lock_is_taken_as_soon_as_its_holder_lets_go(tmp_path: Path, python):
    (tmp_path / "lock").touch()
    holder = python(HOLD, tmp_path / "lock")
    threading.Timer(0.2, lambda: holder.stdin.write("\n") and holder.stdin.flush()).start()

    with files.Lock(tmp_path / "lock", timeout_s=30):
        assert holder.wait(30) == 0


def test_the_lock_of_a_killed_process_is_free_although_its_number_still_stands_there(tmp_path: Path, python):
    (tmp_path / "lock").touch()
    holder = python(HOLD, tmp_path / "lock")
    (tmp_path / "lock").write_text(f" {holder.pid}\n")

    holder.kill()
    holder.wait()

    with files.Lock(tmp_path / "lock", timeout_s=0, stamp=b" 1\n"):
        assert (tmp_path / "lock").read_text() == " 1\n"


def test_two_locks_of_one_process_exclude_each_other(tmp_path: Path):
    lock, other = (files.Lock(tmp_path / "lock", timeout_s=0) for _ in range(2))

    with lock, pytest.raises(LockHeld, match="another process"), other:
        pass

    with files.Lock(tmp_path / "lock", timeout_s=0):
        pass


def test_a_lock_is_released_when_the_block_fails(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), files.Lock(tmp_path / "lock", timeout_s=0):
        raise ZeroDivisionError

    with files.Lock(tmp_path / "lock", timeout_s=0):
        pass


def test_the_note_of_a_killed_process_is_there_for_the_next_one(tmp_path: Path, python):
    code = (
        "import sys, pathlib; from ckptvcs.storage.files import Lock\n"
        "with Lock(pathlib.Path(sys.argv[1]), timeout_s=0) as lock:\n"
        "    lock.write_note({'doing': ['a', 1]}); print('ready', flush=True); input()"
    )
    holder = python(code, tmp_path / "lock")

    holder.kill()
    holder.wait()

    with files.Lock(tmp_path / "lock", timeout_s=0) as lock:
        assert lock.read_note() == {"doing": ["a", 1]}
        assert 0 <= lock.note_age_s(time.time()) < 60


def test_a_shorter_note_replaces_a_longer_one_and_an_empty_one_takes_it_back(tmp_path: Path):
    with files.Lock(tmp_path / "lock", timeout_s=0) as lock:
        lock.write_note({"long": "x" * 5000})
        lock.write_note({"short": 1})
        assert lock.read_note() == {"short": 1}
        lock.write_note({})
        assert lock.read_note() == {}

    assert (tmp_path / "lock").read_bytes().strip() == b""


def test_a_note_is_written_over_the_last_one_and_tells_its_own_time(tmp_path: Path):
    """The file keeps its size, so that its time need not reach the disk; the note has it."""
    with files.Lock(tmp_path / "lock", timeout_s=0) as lock:
        lock.write_note({"n": 1})
        size = (tmp_path / "lock").stat().st_size
        lock.write_note({"n": 22})
        assert (tmp_path / "lock").stat().st_size == size == 4096
        os.utime(tmp_path / "lock", (0, 0))
        assert 0 <= lock.note_age_s(time.time()) < 60


@pytest.mark.parametrize("left", [b"", b" 123\n", b"{", b"[1]", b"\xff\xfe", b'"text"'])
def test_what_is_no_note_is_no_note(tmp_path: Path, left: bytes):
    (tmp_path / "lock").write_bytes(left)

    with files.Lock(tmp_path / "lock", timeout_s=0) as lock:
        assert lock.read_note() == {}


@pytest.mark.parametrize("name", ["link", "missing/lock", "folder"])
def test_a_lock_file_that_cannot_be_opened_is_an_error_of_storage(tmp_path: Path, name: str):
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "folder").mkdir()

    with pytest.raises(StorageError), files.Lock(tmp_path / name, timeout_s=0):
        pass

    assert (tmp_path / "target").read_bytes() == b"precious"


def test_processes_that_take_turns_lose_no_update(tmp_path: Path, python):
    code = (
        "import sys, pathlib; from ckptvcs.storage.files import Lock\n"
        "count = pathlib.Path(sys.argv[1]) / 'count'; print('ready', flush=True); input()\n"
        "for _ in range(50):\n"
        "    with Lock(count.with_name('lock'), timeout_s=60): count.write_text(str(int(count.read_text()) + 1))"
    )
    (tmp_path / "count").write_text("0")
    writers = [python(code, tmp_path) for _ in range(4)]

    for writer in writers:
        writer.communicate("\n", timeout=60)

    assert (tmp_path / "count").read_text() == "200"


def test_who_holds_the_lock_removes_every_temporary_file(tmp_path: Path):
    kept = ["model.tmp", ".ckptvcs-stage-x", "model.dvc"]
    for name in [*kept, ".ckptvcs-young.tmp"]:
        (tmp_path / name).write_bytes(b"")

    with files.open_folder(tmp_path) as folder:
        files.remove_temporaries(folder)

    assert sorted(os.listdir(tmp_path)) == sorted(kept)
