"""Objects are read once and again whenever their file may have changed."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

import pytest
from blake3 import blake3

from ckptvcs.digest import Digest
from ckptvcs.errors import MissingObject, StorageError, WrongDigest
from ckptvcs.storage.index import LocalIndex
from ckptvcs.storage.ingest import NewObject
from ckptvcs.storage.names import ObjectName, ObjectRef
from ckptvcs.storage.objects import LocalStore
from ckptvcs.storage.verified import VerifiedStore, identify, verified_bytes

DATA = [random.Random(n).randbytes(5000) for n in range(5)]
ABSENT = ObjectRef(name=ObjectName("0" * 32), nbytes=3, digest=Digest(blake3(b"abc").hexdigest()))


@pytest.fixture
def verified(tmp_path: Path):
    index = LocalIndex(tmp_path / "index.sqlite3")
    yield VerifiedStore(LocalStore(tmp_path / "store"), index)
    index.close()


@pytest.fixture
def refs(verified: VerifiedStore) -> list[ObjectRef]:
    """Five objects that nobody has looked at since they were put."""
    return verified.store.put([NewObject(lambda data=data: [data], len(data)) for data in DATA])


def knows(verified: VerifiedStore, ref: ObjectRef) -> bool:
    path = verified.store.path(ref.name)
    return verified.index.ref_of(str(path), path.stat()) == ref


def test_whole_objects_pass_and_are_remembered(verified: VerifiedStore, refs: list[ObjectRef]):
    verified.check([*refs, *refs])

    assert all(knows(verified, ref) for ref in refs)


def test_a_file_that_was_read_is_not_read_again(
    verified: VerifiedStore, refs: list[ObjectRef], without_privilege: None
):
    verified.store.path(refs[0].name).chmod(0)
    with pytest.raises(StorageError):
        verified.check(refs[:1])

    verified.note(refs[:1])

    verified.check(refs[:1])


@pytest.mark.parametrize("known", [True, False])
def test_a_flipped_bit_is_found(verified: VerifiedStore, refs: list[ObjectRef], flip, *, known: bool):
    if known:
        verified.check(refs)
    flip(verified.store.path(refs[2].name))

    with pytest.raises(WrongDigest) as caught:
        verified.check(refs)

    assert caught.value.facts["object"] == refs[2].name


def test_a_flipped_bit_is_found_although_the_clock_was_set_back(verified: VerifiedStore, refs: list[ObjectRef], flip):
    verified.check(refs)
    path = verified.store.path(refs[0].name)
    before = path.stat()

    flip(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    with pytest.raises(WrongDigest):
        verified.check(refs)


@pytest.mark.parametrize("size", [0, 4999, 5001])
def test_an_object_of_the_wrong_size_is_damaged(verified: VerifiedStore, refs: list[ObjectRef], size: int):
    verified.check(refs)
    path = verified.store.path(refs[0].name)
    path.chmod(0o644)

    path.write_bytes((DATA[0] + b"x")[:size])

    with pytest.raises(WrongDigest):
        verified.check(refs)
    assert not verified.is_healthy(refs[0])


def test_another_object_under_a_name_is_damage(verified: VerifiedStore, refs: list[ObjectRef]):
    verified.check(refs)
    one, other = (verified.store.path(ref.name) for ref in refs[:2])

    one.unlink()
    other.rename(one)

    with pytest.raises(WrongDigest):
        verified.check(refs[:1])


def test_an_object_that_vanished_is_missing_whatever_is_remembered(verified: VerifiedStore, refs: list[ObjectRef]):
    verified.check(refs)
    verified.store.path(refs[1].name).unlink()

    with pytest.raises(MissingObject) as caught:
        verified.check(refs)

    assert caught.value.facts["object"] == refs[1].name
    assert not verified.is_healthy(refs[1])


def test_damage_of_one_object_does_not_forget_the_others(verified: VerifiedStore, refs: list[ObjectRef], flip):
    flip(verified.store.path(refs[-1].name))

    with pytest.raises(WrongDigest):
        verified.check(refs)

    assert [knows(verified, ref) for ref in refs] == [True, True, True, True, False]


def test_a_damaged_object_is_left_as_it_is(verified: VerifiedStore, refs: list[ObjectRef], flip, snapshot):
    flip(verified.store.path(refs[0].name))
    before = snapshot(verified.store.root)

    with pytest.raises(WrongDigest):
        verified.check(refs)

    assert snapshot(verified.store.root) == before


def test_a_wrong_note_does_not_outlive_a_change(verified: VerifiedStore, refs: list[ObjectRef], flip):
    flip(verified.store.path(refs[0].name))
    verified.note(refs[:1])
    assert verified.is_healthy(refs[0])

    os.utime(verified.store.path(refs[0].name))

    assert not verified.is_healthy(refs[0])


def test_health_is_told_without_an_error(verified: VerifiedStore, refs: list[ObjectRef], flip):
    flip(verified.store.path(refs[1].name))

    assert [verified.is_healthy(ref) for ref in (*refs[:2], ABSENT)] == [True, False, False]
    assert knows(verified, refs[0])


@pytest.mark.parametrize("known", [True, False])
def test_progress_is_told_about_every_object_once(verified: VerifiedStore, refs: list[ObjectRef], *, known: bool):
    told: list[int] = []
    if known:
        verified.check(refs)

    verified.check([*refs, *refs], told.append)

    assert sum(told) == 5 * 5000


def test_without_an_index_everything_is_read(tmp_path: Path, refs: list[ObjectRef], verified: VerifiedStore, flip):
    (tmp_path / "folder").mkdir()
    forgetful = VerifiedStore(verified.store, LocalIndex(tmp_path / "folder"))
    forgetful.check(refs)

    flip(verified.store.path(refs[0].name))

    with pytest.raises(WrongDigest):
        forgetful.check(refs)


# ------------------------------------------------------------------------------------------------------- single files


@pytest.mark.parametrize("size", [0, 1, 4096, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_a_file_is_identified_by_its_bytes(tmp_path: Path, size: int):
    data = random.Random(size).randbytes(size)
    (tmp_path / "file").write_bytes(data)

    found = identify(str(tmp_path / "file"))

    assert (found.name, found.nbytes) == (hashlib.md5(data).hexdigest(), size)
    assert found.digest == blake3(data).hexdigest()


@pytest.mark.parametrize(
    ("name", "error"), [("link", OSError), ("missing", FileNotFoundError), ("folder", IsADirectoryError)]
)
def test_what_is_no_file_is_not_identified(tmp_path: Path, name: str, error: type[OSError]):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "folder").mkdir()

    with pytest.raises(error):
        identify(str(tmp_path / name))


def test_small_objects_are_read_whole_and_checked(verified: VerifiedStore, refs: list[ObjectRef], flip):
    assert verified_bytes(verified.store, refs[0], limit=5000) == DATA[0]

    flip(verified.store.path(refs[0].name))
    with pytest.raises(WrongDigest):
        verified_bytes(verified.store, refs[0], limit=5000)
    with pytest.raises(MissingObject):
        verified_bytes(verified.store, ABSENT, limit=5000)


@pytest.mark.parametrize("limit", [0, 10, 4998])
def test_an_object_above_the_limit_is_not_believed(verified: VerifiedStore, refs: list[ObjectRef], limit: int):
    with pytest.raises(WrongDigest):
        verified_bytes(verified.store, refs[0], limit=limit)


def test_what_is_gone_is_missing_and_not_remembered(verified: VerifiedStore, refs: list[ObjectRef]):
    verified.store.path(refs[1].name).unlink()

    with pytest.raises(MissingObject):
        verified.note(refs)

    assert not knows(verified, refs[0])
