"""Objects from one folder to another: whole, durable and right before they have a name; hashlib and blake3 are the oracles."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import stat
from pathlib import Path

import pytest
from blake3 import blake3

from ckptvcs.errors import HostileInput, MissingObject, WrongDigest
from ckptvcs.progress import silent
from ckptvcs.storage import copies, durability
from ckptvcs.storage.index import LocalIndex
from ckptvcs.storage.ingest import NewObject
from ckptvcs.storage.names import DIR_SUFFIX, ObjectRef
from ckptvcs.storage.objects import LocalStore
from ckptvcs.storage.verified import VerifiedStore

MIB = 1 << 20
SIZES = [0, 1, 63, 4096, 50_000, MIB - 1, MIB, MIB + 1, 2 * MIB + 5]


def content(number: int, size: int) -> bytes:
    return random.Random(f"{number} {size}").randbytes(size)


@pytest.fixture
def source(tmp_path: Path) -> VerifiedStore:
    return VerifiedStore(LocalStore(tmp_path / "here"), LocalIndex(tmp_path / "index"))


@pytest.fixture
def target(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "there/files/md5")


def put(source: VerifiedStore, data: list[bytes], suffix: str = "") -> list[ObjectRef]:
    return source.store.put([NewObject(lambda d=d: [d], len(d), suffix) for d in data])


def check(target: LocalStore, data: list[bytes]) -> None:
    there = {path.parent.name + path.name: path for path in target.root.glob("??/*")}
    assert sorted(there) == sorted(hashlib.md5(d).hexdigest() for d in data)
    for d in data:
        path = there[hashlib.md5(d).hexdigest()]
        assert blake3(path.read_bytes()).digest() == blake3(d).digest()
        assert stat.S_IMODE(path.stat().st_mode) == 0o444
        assert path.stat().st_nlink == 1
    assert not list(target.root.glob(".ckptvcs-*"))


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("count", [1, 5, 200])
def test_objects_arrive(source: VerifiedStore, target: LocalStore, count: int, at_once: bool, monkeypatch):
    if not at_once:
        monkeypatch.setattr(durability, "syncs_at_once", lambda _: False)
    data = [content(n, SIZES[n % 5 if count > 50 else n % len(SIZES)]) for n in range(count)]
    data = list({d: d for d in data}.values())
    told: list[int] = []

    copies.copy(put(source, data), source, target, told.append)

    check(target, data)
    assert sum(told) == sum(map(len, data))


def test_big_ones_and_small_ones(source: VerifiedStore, target: LocalStore, monkeypatch):
    monkeypatch.setattr(copies, "_BATCH_BYTES", 3 * MIB)
    data = [content(n, size) for n, size in enumerate(SIZES * 3) if size]

    copies.copy(put(source, data), source, target, silent)

    check(target, data)


def test_the_list_of_files_goes_last(source: VerifiedStore, target: LocalStore, monkeypatch):
    refs = put(source, [content(n, 1000) for n in range(30)])
    (directory,) = put(source, [b"[]"], DIR_SUFFIX)
    order: list[str] = []
    adopt = LocalStore.adopt

    def watched(store: LocalStore, some: list[ObjectRef], folder: int) -> None:
        order.extend(ref.name for ref in some)
        adopt(store, some, folder)

    monkeypatch.setattr(LocalStore, "adopt", watched)

    copies.copy([directory, *refs], source, target, silent)

    assert order[-1] == directory.name
    assert len(order) == 31


def test_what_is_there_already_stays_or_is_healed(source: VerifiedStore, target: LocalStore):
    data = [content(n, 5000) for n in range(40)]
    refs = put(source, data)
    copies.copy(refs[:20], source, target, silent)
    whole, damaged = target.path(refs[0].name), target.path(refs[1].name)
    inode = whole.stat().st_ino
    damaged.chmod(0o644)
    damaged.write_bytes(b"damaged")

    copies.copy(refs, source, target, silent)

    assert whole.stat().st_ino == inode
    aside = list(target.root.glob(".ckptvcs-damaged-*"))
    assert [path.read_bytes() for path in aside] == [b"damaged"]
    aside[0].unlink()
    check(target, data)


@pytest.mark.parametrize("count", [3, 40])
@pytest.mark.parametrize("harm", ["flip", "short", "long", "empty", "gone"])
def test_what_is_damaged_here_gets_no_name_there(source: VerifiedStore, target: LocalStore, harm: str, count: int):
    data = [content(n, 5000) for n in range(count)]
    refs = put(source, data)
    path = source.store.path(refs[1].name)
    path.chmod(0o644)
    harmed = {
        "flip": bytes([data[1][0] ^ 1]) + data[1][1:],
        "short": data[1][:-1],
        "long": data[1] + b"x",
        "empty": b"",
    }
    path.write_bytes(harmed.get(harm, b""))
    if harm == "gone":
        path.unlink()

    with pytest.raises(MissingObject if harm == "gone" else WrongDigest, match=refs[1].name[:10]):
        copies.copy(refs, source, target, silent)

    assert refs[1].name not in set(target.names())
    for name in target.names():
        assert hashlib.md5(target.path(name).read_bytes()).hexdigest() == name
    assert not list(target.root.glob(".ckptvcs-*"))


def test_a_file_system_without_hard_links(source: VerifiedStore, target: LocalStore, monkeypatch):
    def link(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    data = [content(n, 5000) for n in range(40)]
    refs = put(source, data)
    monkeypatch.setattr(os, "link", link)

    copies.copy(refs[:30], source, target, silent)
    copies.copy(refs, source, target, silent)

    check(target, data)


def test_a_store_that_is_reached_through_a_link(source: VerifiedStore, target: LocalStore, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    target.root.parent.mkdir(parents=True)
    target.root.symlink_to(tmp_path / "elsewhere")
    data = [content(n, 5000) for n in range(20)]

    copies.copy(put(source, data), source, target, silent)

    check(LocalStore(tmp_path / "elsewhere"), data)


def test_a_folder_of_names_that_is_a_link_is_not_followed(source: VerifiedStore, target: LocalStore, tmp_path: Path):
    refs = put(source, [content(n, 5000) for n in range(20)])
    (tmp_path / "elsewhere").mkdir()
    target.root.mkdir(parents=True)
    (target.root / refs[0].name[:2]).symlink_to(tmp_path / "elsewhere")

    with pytest.raises(HostileInput):
        copies.copy(refs, source, target, silent)

    assert not list((tmp_path / "elsewhere").iterdir())
    assert not list(target.root.glob(".ckptvcs-*"))


def test_a_group_shares_the_folders(source: VerifiedStore, tmp_path: Path):
    target = LocalStore(tmp_path / "there", group=True)
    mask = os.umask(0o077)
    try:
        copies.copy(put(source, [content(n, 5000) for n in range(20)]), source, target, silent)
    finally:
        os.umask(mask)

    folders = list(target.root.glob("??"))
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o2775}
    assert {stat.S_IMODE(path.stat().st_mode) for path in target.root.glob("??/*")} == {0o444}


def test_only_local_file_systems_are_synced_at_once(tmp_path: Path):
    for folder, trusted in ((tmp_path, None), (Path("/dev/shm"), True), (Path("/proc"), False)):
        fd = os.open(folder, os.O_RDONLY)
        try:
            found = durability.syncs_at_once(fd)
            assert trusted is None or found is trusted
            if found:
                durability.sync_all(fd)
        finally:
            os.close(fd)
