"""One contract for every object store; then what only a store of files can get wrong."""

from __future__ import annotations

import hashlib
import os
import random
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from ckptvcs.errors import IntegrityError, MissingObject, StorageError, TierFull, TierReadOnly, WrongDigest
from ckptvcs.storage.ingest import NewObject
from ckptvcs.storage.names import ObjectName, is_object_name
from ckptvcs.storage.objects import LocalStore, MemoryStore, ObjectStore, check_digest, open_cache

ABSENT = ObjectName("0" * 32)


def new(data: bytes, suffix: str = "") -> NewObject:
    return NewObject(lambda: [data], len(data), suffix)


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def whole(store: ObjectStore, name: str) -> bytes:
    return b"".join(store.read(ObjectName(name)))


STORES: dict[str, Callable[[Path], ObjectStore]] = {
    "memory": lambda folder: MemoryStore(),
    "local": LocalStore,
    "local, shared by a group": lambda folder: LocalStore(folder, group=True),
}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return STORES[request.param](tmp_path / "store")


# ----------------------------------------------------------------------------------------------------- the contract


@pytest.mark.parametrize("data", [b"", b"x", b"hello" * 1000, os.urandom(3 << 20)], ids=len)
@pytest.mark.parametrize("suffix", ["", ".dir"])
def test_an_object_has_the_name_and_the_digest_of_its_bytes(store: ObjectStore, data: bytes, suffix: str):
    (ref,) = store.put([new(data, suffix)])

    assert ref.name == md5(data) + suffix
    assert ref.digest == blake3(data).hexdigest()
    assert ref.nbytes == store.nbytes(ref.name) == len(data)
    assert whole(store, ref.name) == data


def test_many_objects_come_back_in_the_order_they_were_given(store: ObjectStore):
    contents = [random.Random(n).randbytes(n * 997) for n in range(40)]

    refs = store.put([new(data) for data in contents])

    assert [ref.name for ref in refs] == [md5(data) for data in contents]
    assert [whole(store, ref.name) for ref in refs] == contents


def test_an_object_may_come_in_pieces_of_any_kind(store: ObjectStore):
    pieces = [b"", b"ab", bytearray(b"cd"), memoryview(b"-ef-")[1:3], np.arange(6, dtype="<i4").reshape(2, 3)]
    data = b"".join(bytes(piece) for piece in pieces)

    (ref,) = store.put([NewObject(lambda: iter(pieces), len(data))])

    assert whole(store, ref.name) == data


def test_putting_nothing_stores_nothing(store: ObjectStore):
    assert store.put([]) == []
    assert list(store.names()) == []


def test_putting_an_object_again_changes_nothing(store: ObjectStore):
    first = store.put([new(b"same")])

    second = store.put([new(b"same"), new(b"same")])

    assert second == first * 2
    assert list(store.names()) == [md5(b"same")]


def test_every_object_is_listed_once(store: ObjectStore):
    store.put([new(bytes([n])) for n in range(20)] + [new(b"[]", ".dir")])

    names = list(store.names())

    assert sorted(names) == sorted([md5(bytes([n])) for n in range(20)] + [md5(b"[]") + ".dir"])
    assert all(map(is_object_name, names))


def test_an_object_that_is_not_there_is_missing(store: ObjectStore):
    store.put([new(b"other")])

    assert store.nbytes(ABSENT) is None
    with pytest.raises(MissingObject) as caught:
        whole(store, ABSENT)
    assert caught.value.facts["object"] == ABSENT


def test_an_empty_store_can_be_asked(store: ObjectStore):
    assert list(store.names()) == []
    assert store.nbytes(ABSENT) is None


def test_a_removed_object_is_gone_and_the_others_stay(store: ObjectStore):
    kept, gone = store.put([new(b"kept"), new(b"gone")])

    store.delete(gone.name)
    store.delete(gone.name)
    store.delete(ABSENT)

    assert list(store.names()) == [kept.name]
    assert store.nbytes(gone.name) is None


def test_progress_is_told_about_every_byte(store: ObjectStore):
    told: list[int] = []

    store.put([new(bytes(n)) for n in (0, 1, 1 << 20, (2 << 20) + 7)], told.append)

    assert sum(told) == 1 + (1 << 20) + (2 << 20) + 7


@pytest.mark.parametrize("announced", [0, 3, 5, 1 << 20])
def test_bytes_of_another_number_than_announced_are_refused(store: ObjectStore, announced: int):
    with pytest.raises(IntegrityError, match="announced"):
        store.put([NewObject(lambda: [b"four"], announced)])

    assert list(store.names()) == []


def test_an_error_of_the_source_is_raised_and_stores_nothing_of_it(store: ObjectStore):
    def broken():
        yield b"begin"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.put([NewObject(broken, 10)])

    assert list(store.names()) == []


def test_bytes_of_another_digest_are_told_apart(store: ObjectStore):
    one, other = store.put([new(b"one"), new(b"other")])

    check_digest(one.digest, one, where="here")
    with pytest.raises(WrongDigest) as caught:
        check_digest(other.digest, one, where="here")

    facts = caught.value.facts
    assert (facts["object"], facts["expected"]) == (md5(b"one"), blake3(b"one").hexdigest())
    assert facts["found"] == blake3(b"other").hexdigest()


# --------------------------------------------------------------------------------------------------- a store of files


@pytest.fixture
def local(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def files_in(local: LocalStore) -> list[Path]:
    return [path for path in local.root.rglob("*") if path.is_file()]


def test_objects_lie_where_dvc_looks_for_them(tmp_path: Path):
    open_cache(tmp_path, group=False).put([new(b"hello")])

    path = tmp_path / "files/md5" / md5(b"hello")[:2] / md5(b"hello")[2:]
    assert path.read_bytes() == b"hello"
    assert stat.S_IMODE(path.stat().st_mode) == 0o444


@pytest.mark.parametrize(("group", "mode"), [(True, 0o2775), (False, 0o755)])
def test_folders_are_writable_for_the_group_if_the_cache_is_shared(tmp_path: Path, mode: int, *, group: bool):
    before = os.umask(0o022)
    try:
        LocalStore(tmp_path / "store", group=group).put([new(b"hello")])
    finally:
        os.umask(before)

    made = [tmp_path / "store", *(p for p in (tmp_path / "store").iterdir() if p.is_dir())]
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in made] == [mode, mode]


def test_nothing_but_objects_is_left_in_the_store(local: LocalStore):
    refs = local.put([new(random.Random(n).randbytes(n)) for n in range(300)])

    assert sorted(files_in(local)) == sorted(local.path(ref.name) for ref in refs)


def test_what_is_no_object_is_not_listed(local: LocalStore):
    (ref,) = local.put([new(b"hello")])
    (local.path(ref.name).parent / "unpacked").write_bytes(b"")
    (local.root / "zz").mkdir()
    (local.root / ".ckptvcs-damaged-0123").write_bytes(b"")

    assert list(local.names()) == [ref.name]


def test_a_damaged_object_is_healed_and_its_bytes_are_put_aside(local: LocalStore, flip):
    (ref,) = local.put([new(b"precious")])
    flip(local.path(ref.name))
    damaged = local.path(ref.name).read_bytes()

    assert local.put([new(b"precious")]) == [ref]

    assert whole(local, ref.name) == b"precious"
    aside = [path for path in files_in(local) if path.name.startswith(".ckptvcs-damaged-")]
    assert [path.read_bytes() for path in aside] == [damaged]
    assert list(local.names()) == [ref.name]


def test_a_truncated_object_is_healed(local: LocalStore):
    (ref,) = local.put([new(b"precious")])
    local.path(ref.name).unlink()
    local.path(ref.name).write_bytes(b"prec")

    local.put([new(b"precious")])

    assert whole(local, ref.name) == b"precious"
    assert stat.S_IMODE(local.path(ref.name).stat().st_mode) == 0o444


def test_a_sound_object_of_another_mode_gets_the_mode_that_dvc_trusts(local: LocalStore):
    (ref,) = local.put([new(b"hello")])
    local.path(ref.name).chmod(0o644)
    inode = local.path(ref.name).stat().st_ino

    local.put([new(b"hello")])

    assert stat.S_IMODE(local.path(ref.name).stat().st_mode) == 0o444
    assert local.path(ref.name).stat().st_ino == inode


def test_an_object_that_is_there_is_never_overwritten(local: LocalStore):
    (ref,) = local.put([new(b"hello")])
    before = local.path(ref.name).stat()

    local.put([new(b"hello")])

    after = local.path(ref.name).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


# The first two messages with one MD5 that were published (Wang, Feng, Lai, Yu, 2004).
COLLISION = bytes.fromhex(
    "d131dd02c5e6eec4693d9a0698aff95c2fcab58712467eab4004583eb8fb7f8955ad340609f4b30283e488832571415a085125e8f7cdc99f"
    "d91dbdf280373c5bd8823e3156348f5bae6dacd436c919c6dd53e2b487da03fd02396306d248cda0e99f33420f577ee8ce54b67080a80d1e"
    "c69821bcb6a8839396f9652b6ff72a70"
)
COLLIDING = bytes(b ^ 0x80 if i in (19, 45, 59, 83, 109, 123) else b for i, b in enumerate(COLLISION))


def test_bytes_that_were_made_to_collide_are_refused_and_harm_nothing(local: LocalStore):
    assert md5(COLLISION) == md5(COLLIDING)
    local.put([new(COLLISION)])

    with pytest.raises(IntegrityError, match="made to collide"):
        local.put([new(COLLIDING)])

    assert whole(local, md5(COLLISION)) == COLLISION
    assert files_in(local) == [local.path(ObjectName(md5(COLLISION)))]


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_is_no_file_is_no_object(local: LocalStore, kind: str, tmp_path: Path):
    path = local.path(ABSENT)
    path.parent.mkdir(parents=True)
    path.mkdir() if kind == "folder" else path.symlink_to(tmp_path)

    assert local.nbytes(ABSENT) is None


def test_a_store_that_cannot_be_written_says_so_and_can_still_be_read(local: LocalStore, without_privilege: None):
    (ref,) = local.put([new(b"hello")])
    for folder in (*local.root.iterdir(), local.root):
        folder.chmod(0o555)

    with pytest.raises(TierReadOnly):
        local.put([new(b"more")])
    with pytest.raises(TierReadOnly):
        local.delete(ref.name)

    assert whole(local, ref.name) == b"hello"
    assert files_in(local) == [local.path(ref.name)]


def test_a_disk_that_runs_full_leaves_whole_objects_alone(local: LocalStore, small_files: int):
    with pytest.raises(TierFull):
        local.put([new(b"fits"), new(bytes(small_files + 1)), new(bytes(4 * small_files))])

    assert all(md5(path.read_bytes()) == path.parent.name + path.name for path in files_in(local))


def test_a_file_where_the_store_should_be_is_an_error_of_storage(tmp_path: Path):
    (tmp_path / "store").write_bytes(b"")

    with pytest.raises(StorageError):
        LocalStore(tmp_path / "store").put([new(b"x")])


def test_processes_that_put_the_same_objects_at_once_agree(tmp_path: Path, python):
    code = (
        "import sys, pathlib, random\n"
        "from ckptvcs.storage.ingest import NewObject\nfrom ckptvcs.storage.objects import LocalStore\n"
        "def new(n): data = random.Random(n).randbytes(n * 1000); return NewObject(lambda: [data], len(data))\n"
        "print('ready', flush=True); input()\n"
        "LocalStore(pathlib.Path(sys.argv[1])).put([new(n) for n in range(30)])"
    )
    writers = [python(code, tmp_path / "store") for _ in range(4)]

    for writer in writers:
        writer.stdin.write("\n")
        writer.stdin.flush()
    assert [writer.wait(60) for writer in writers] == [0] * 4

    contents = [random.Random(n).randbytes(n * 1000) for n in range(30)]
    assert sorted(LocalStore(tmp_path / "store").names()) == sorted(map(md5, contents))
    assert sorted(path.read_bytes() for path in files_in(LocalStore(tmp_path / "store"))) == sorted(contents)
