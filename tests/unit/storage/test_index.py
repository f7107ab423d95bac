"""The index is a hint: absent, damaged, locked or out of date, it costs time and never gives a wrong answer."""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path

import pytest
from blake3 import blake3

from ckptvcs.digest import Digest
from ckptvcs.storage.index import LocalIndex
from ckptvcs.storage.names import ObjectName, ObjectRef


def key(n: int) -> Digest:
    return Digest(blake3(b"key %d" % n).hexdigest())


def ref(n: int) -> ObjectRef:
    return ObjectRef(name=ObjectName(f"{n:032x}"), nbytes=n, digest=Digest(blake3(b"%d" % n).hexdigest()))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "private/index.sqlite3"


@pytest.fixture
def index(path: Path):
    index = LocalIndex(path)
    yield index
    index.close()


@pytest.fixture
def filled(index: LocalIndex, path: Path) -> Path:
    """The file of an index that knows ten objects."""
    index.remember((key(n), ref(n)) for n in range(10))
    index.close()
    return path


# --------------------------------------------------------------------------------------------------------- objects


def test_what_was_remembered_is_found_and_nothing_else(index: LocalIndex):
    index.remember([(key(1), ref(1)), (key(2), ref(2))])

    assert index.find([key(1), key(2), key(3)]) == {key(1): ref(1), key(2): ref(2)}


def test_the_last_word_counts(index: LocalIndex):
    index.remember([(key(1), ref(1))])
    index.remember([(key(1), ref(2))])

    assert index.find([key(1)]) == {key(1): ref(2)}


def test_another_process_finds_it_too(filled: Path, index: LocalIndex, python):
    code = (
        "import sys, pathlib; from ckptvcs.storage.index import LocalIndex\n"
        "print('ready', flush=True); input(); print(len(LocalIndex(pathlib.Path(sys.argv[1])).find(sys.argv[2:])))"
    )
    reader = python(code, filled, *(key(n) for n in range(20)))

    assert reader.communicate("\n", timeout=30)[0] == "10\n"


def test_asking_makes_no_file(index: LocalIndex, tmp_path: Path):
    assert index.find([key(1)]) == {}
    assert index.ref_of("path", tmp_path.stat()) is None

    assert os.listdir(tmp_path) == []


def test_it_can_be_used_again_after_it_was_closed(index: LocalIndex):
    index.remember([(key(1), ref(1))])
    index.close()
    index.close()

    assert index.find([key(1)]) == {key(1): ref(1)}


def test_threads_share_one_index(index: LocalIndex):
    def work(start: int) -> None:
        for n in range(start, start + 25):
            index.remember([(key(n), ref(n))])
            assert index.find([key(n)]) == {key(n): ref(n)}

    threads = [threading.Thread(target=work, args=(start,)) for start in range(0, 200, 25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert index.find(map(key, range(200))) == {key(n): ref(n) for n in range(200)}


def test_processes_share_one_file(index: LocalIndex, path: Path, python):
    code = (
        "import sys, pathlib; from ckptvcs.storage.index import LocalIndex\n"
        "from ckptvcs.storage.names import ObjectRef\n"
        "index, start = LocalIndex(pathlib.Path(sys.argv[1])), int(sys.argv[2])\n"
        "print('ready', flush=True); input()\n"
        "for n in range(start, start + 20): index.remember([(f'{n:064x}', ObjectRef(name='n', nbytes=n, digest='d'))])"
    )
    writers = [python(code, path, start) for start in range(0, 80, 20)]

    for writer in writers:
        writer.stdin.write("\n")
        writer.stdin.flush()
    assert [writer.wait(60) for writer in writers] == [0] * 4

    assert len(index.find(Digest(f"{n:064x}") for n in range(80))) == 80


# ------------------------------------------------------------------------------------------------------------ files


@pytest.fixture
def seen(index: LocalIndex, tmp_path: Path) -> Path:
    """A file that the index has seen."""
    file = tmp_path / "file"
    file.write_bytes(b"content")
    index.saw([(str(file), file.stat(), ref(7))])
    return file


def test_a_file_that_did_not_change_is_known(index: LocalIndex, seen: Path):
    assert index.ref_of(str(seen), seen.stat()) == ref(7)


def rewrite(file: Path) -> None:
    file.write_bytes(b"CONTENT")


def rewrite_and_set_the_clock_back(file: Path) -> None:
    before = file.stat()
    file.write_bytes(b"CONTENT")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(file: Path) -> None:
    file.with_name("other").write_bytes(b"content")
    file.with_name("other").rename(file)


def touch(file: Path) -> None:
    os.utime(file, ns=(1, 1))


@pytest.mark.parametrize("change", [rewrite, rewrite_and_set_the_clock_back, replace, touch])
def test_a_file_that_may_have_changed_is_not_known(index: LocalIndex, seen: Path, change):
    change(seen)

    assert index.ref_of(str(seen), seen.stat()) is None


def test_another_path_of_the_same_file_is_not_known(index: LocalIndex, seen: Path):
    assert index.ref_of(f"{seen}2", seen.stat()) is None


@pytest.mark.parametrize("ask", [True, False])
def test_a_path_that_is_no_text_is_no_error(index: LocalIndex, seen: Path, *, ask: bool):
    if ask:
        assert index.ref_of("\udcff", seen.stat()) is None
    else:
        index.saw([("\udcff", seen.stat(), ref(1))])


# ----------------------------------------------------------------------------------------------------------- damage


def test_no_flipped_bit_gives_a_wrong_answer(filled: Path):
    data = filled.read_bytes()
    truth = {key(n): ref(n) for n in range(10)}

    for position in range(0, len(data), len(data) // 150):
        filled.write_bytes(bytes([*data[:position], data[position] ^ 0x04, *data[position + 1 :]]))
        index = LocalIndex(filled)
        assert index.find(truth).items() <= truth.items(), f"byte {position}"
        index.close()


@pytest.mark.parametrize("size", [1, 100, 4096, 9000])
def test_a_truncated_index_is_begun_anew(filled: Path, index: LocalIndex, size: int):
    filled.write_bytes(filled.read_bytes()[:size])

    assert index.find([key(1)]).items() <= {key(1): ref(1)}.items()
    for _ in range(2):  # the first write may be the one that finds the damage
        index.remember([(key(3), ref(3))])

    assert index.find([key(3)]) == {key(3): ref(3)}


def test_a_file_that_is_no_database_is_begun_anew(index: LocalIndex, path: Path):
    path.parent.mkdir()
    path.write_bytes(b"this is no database" * 100)

    assert index.find([key(1)]) == {}
    index.remember([(key(1), ref(1))])

    assert index.find([key(1)]) == {key(1): ref(1)}


@pytest.mark.parametrize("column", ["name", "nbytes", "digest", "seal"])
def test_a_row_that_was_edited_does_not_count(filled: Path, index: LocalIndex, column: str):
    connection = sqlite3.connect(filled)
    connection.execute(f"UPDATE objects SET {column} = (SELECT {column} FROM objects WHERE key = ?)", (key(5),))
    connection.commit()
    connection.close()

    assert index.find(map(key, range(10))) == {key(5): ref(5)}


def test_a_database_with_other_tables_is_no_error(index: LocalIndex, path: Path):
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE objects (something TEXT)")
    connection.commit()
    connection.close()

    index.remember([(key(1), ref(1))])

    assert index.find([key(1)]) == {}


def test_a_folder_in_its_place_is_no_error(index: LocalIndex, path: Path):
    path.mkdir(parents=True)

    index.remember([(key(1), ref(1))])

    assert index.find([key(1)]) == {}


def test_a_folder_that_cannot_be_written_is_no_error(index: LocalIndex, path: Path, without_privilege: None):
    path.parent.mkdir()
    path.parent.chmod(0o555)

    index.remember([(key(1), ref(1))])

    assert index.find([key(1)]) == {}


def test_an_index_that_is_removed_under_our_hands_is_no_error(index: LocalIndex, path: Path):
    index.remember([(key(1), ref(1))])
    path.unlink()

    index.remember([(key(2), ref(2))])

    assert index.find([key(3)]) == {}


def test_an_index_that_somebody_locks_for_long_is_no_error(filled: Path, index: LocalIndex, python):
    code = (
        "import sqlite3, sys; connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('BEGIN EXCLUSIVE'); print('ready', flush=True); input()"
    )
    holder = python(code, filled)

    assert index.find([key(1)]) == {}

    holder.communicate("\n", timeout=30)
    assert index.find([key(1)]) == {key(1): ref(1)}
