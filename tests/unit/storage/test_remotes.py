"""Remotes: what arrives is checked, what fails for a moment is tried again, what comes is whole or has no name."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from ckptvcs.errors import IntegrityError, MissingObject, StorageError, WrongDigest
from ckptvcs.progress import silent
from ckptvcs.storage import downloads, patience, remotes
from ckptvcs.storage.folder_remote import FolderRemote
from ckptvcs.storage.index import LocalIndex
from ckptvcs.storage.ingest import NewObject
from ckptvcs.storage.names import DIR_SUFFIX, ObjectName, ObjectRef
from ckptvcs.storage.objects import LocalStore
from ckptvcs.storage.remotes import FilesystemRemote, Remote
from ckptvcs.storage.verified import VerifiedStore

DATA = [random.Random(n).randbytes(size) for n, size in enumerate([0, 1, 5000, 70_000])]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience.time, "sleep", lambda _: None)


@pytest.fixture
def here(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "here")


def _known(store: LocalStore) -> VerifiedStore:
    return VerifiedStore(store, LocalIndex(store.root.with_name("index")))


@pytest.fixture
def refs(here: LocalStore) -> list[ObjectRef]:
    return here.put([NewObject(lambda data=data: [data], len(data)) for data in DATA])


@pytest.fixture
def fs() -> MemoryFileSystem:
    found = MemoryFileSystem(skip_instance_cache=True)
    found.store.clear()
    found.pseudo_dirs[:] = [""]  # the store of all tests, as its files are
    return found


@pytest.fixture(params=["folder", "filesystem"])
def remote(request: pytest.FixtureRequest, tmp_path: Path, fs: MemoryFileSystem) -> Remote:
    if request.param == "folder":
        return FolderRemote("r", LocalStore(tmp_path / "there"))
    return FilesystemRemote("r", fs, "/there")


def test_what_was_uploaded_comes_back(remote: Remote, here: LocalStore, refs: list[ObjectRef], tmp_path: Path):
    assert remote.sizes([ref.name for ref in refs]) == {}
    told: list[int] = []

    remote.upload(refs, _known(here), told.append)
    back = LocalStore(tmp_path / "back")
    downloads.download(remote, refs, back, silent)
    downloads.verify(remote, refs, silent)

    assert remote.sizes([ref.name for ref in refs]) == {ref.name: ref.nbytes for ref in refs}
    assert sum(told) == sum(map(len, DATA))
    assert {name: b"".join(back.read(name)) for name in back.names()} == {
        ref.name: data for ref, data in zip(refs, DATA, strict=True)
    }


def test_pieces_come_in_order(remote: Remote, here: LocalStore, refs: list[ObjectRef], tmp_path: Path, monkeypatch):
    monkeypatch.setattr(downloads, "PIECE", 1000)
    remote.upload(refs, _known(here), silent)

    downloads.download(remote, refs, LocalStore(tmp_path / "back"), silent)


def test_of_many_the_folders_are_listed(fs: MemoryFileSystem, here: LocalStore, refs: list[ObjectRef], monkeypatch):
    remote = FilesystemRemote("r", fs, "/there")
    remote.upload(refs, _known(here), silent)
    monkeypatch.setattr(remotes, "_FEW", 2)

    wanted = [*(ref.name for ref in refs), ObjectName("0" * 32)]

    assert remote.sizes(wanted) == {ref.name: ref.nbytes for ref in refs}


def test_the_list_of_files_goes_last(fs: MemoryFileSystem, here: LocalStore, refs: list[ObjectRef]):
    (directory,) = here.put([NewObject(lambda: [b"[]"], 2, DIR_SUFFIX)])
    order: list[str] = []
    moved = fs.mv

    def mv(source: str, target: str, **options: Any) -> None:
        order.append(target)
        moved(source, target, **options)

    fs.mv = mv
    FilesystemRemote("r", fs, "/there").upload([directory, *refs], _known(here), silent)

    assert order[-1].endswith(".dir")


def test_what_fails_for_a_moment_is_tried_again(fs: MemoryFileSystem, here: LocalStore, refs: list[ObjectRef]):
    failures = iter([True, True, True, False] * 100)
    put = fs.put_file

    def put_file(*args: Any, **options: Any) -> None:
        if next(failures):
            raise ConnectionResetError("gone")
        put(*args, **options)

    fs.put_file = put_file
    FilesystemRemote("r", fs, "/there").upload(refs[:1], _known(here), silent)


@pytest.mark.parametrize(
    ("err", "next_step"), [(TimeoutError("slow"), "goes on where it was"), (PermissionError("no"), "credentials")]
)
def test_what_fails_for_good_is_told(
    fs: MemoryFileSystem, here: LocalStore, refs: list[ObjectRef], err: Exception, next_step: str
):
    def put_file(*_: Any, **__: Any) -> None:
        raise err

    fs.put_file = put_file

    with pytest.raises(StorageError, match=r"cannot upload object .* at remote 'r'") as caught:
        FilesystemRemote("r", fs, "/there").upload(refs, _known(here), silent)

    assert next_step in caught.value.next_step
    assert not fs.find("/there")


def test_what_arrives_short_is_noticed(fs: MemoryFileSystem, here: LocalStore, refs: list[ObjectRef]):
    def put_file(local: str, target: str, **_: Any) -> None:
        fs.pipe_file(target, Path(local).read_bytes()[:-1])

    fs.put_file = put_file

    with pytest.raises(IntegrityError, match="did not arrive at remote 'r'"):
        FilesystemRemote("r", fs, "/there").upload(refs[-1:], _known(here), silent)


@pytest.mark.parametrize("tag", ["", "0" * 32, "x-2"])
def test_a_digest_of_the_store_that_is_another_is_answered_by_reading_back(
    fs: MemoryFileSystem, here: LocalStore, refs: list[ObjectRef], tag: str
):
    """A bucket that encrypts with keys of its own has ETags that look like MD5, and are none."""
    remote = FilesystemRemote("r", as_s3(fs, tag), "/there")
    remote.upload(refs, _known(here), silent)

    other = FilesystemRemote("r", as_s3(fs, tag, keep=lambda data: bytes(len(data))), "/other")
    if tag == "0" * 32:
        with pytest.raises(IntegrityError, match="did not arrive"):
            other.upload(refs[-1:], _known(here), silent)


def test_what_arrives_short_is_noticed_where_the_answer_does_not_tell(
    fs: MemoryFileSystem, here: LocalStore, refs: list[ObjectRef]
):
    remote = FilesystemRemote("r", as_s3(fs, "x-2", keep=lambda data: data[:-1]), "/there")

    with pytest.raises(IntegrityError, match="did not arrive at remote 'r'"):
        remote.upload(refs[-1:], _known(here), silent)


def as_s3(fs: MemoryFileSystem, tag: str, keep: Callable[[bytes], bytes] = bytes) -> Any:
    """A file system that calls itself S3, and answers with a tag."""
    info = fs.info

    def call_s3(_: str, *, Key: str, Body: bytes, **__: Any) -> dict[str, str]:
        fs.pipe_file(f"/{Key}", keep(Body))
        return {"ETag": f'"{tag}"'}

    fs.info = lambda path: {**info(path), "ETag": f'"{tag}"'}
    fs.protocol = "s3"
    fs.split_path = lambda path: ("bucket", path.strip("/"), None)
    fs.call_s3 = call_s3
    return fs


@pytest.mark.parametrize("harm", ["flip", "short", "long", "empty"])
def test_what_is_wrong_there_gets_no_name_here(
    fs: MemoryFileSystem, here: LocalStore, refs: list[ObjectRef], tmp_path: Path, harm: str
):
    remote, bad = FilesystemRemote("r", fs, "/there"), refs[2]
    remote.upload(refs, _known(here), silent)
    path = f"/there/{bad.name[:2]}/{bad.name[2:]}"
    data = fs.cat_file(path)
    fs.pipe_file(
        path, {"flip": bytes([data[0] ^ 1]) + data[1:], "short": data[:-1], "long": data + b"x", "empty": b""}[harm]
    )
    back = LocalStore(tmp_path / "back")

    with pytest.raises(WrongDigest, match=f"what remote 'r' has as object {bad.name[:10]} is something else") as caught:
        downloads.download(remote, refs, back, silent)

    assert caught.value.facts["object"] == bad.name
    assert bad.name not in set(back.names())
    assert not list(back.root.glob(".ckptvcs-*.tmp"))
    with pytest.raises(WrongDigest):
        downloads.verify(remote, refs, silent)


def test_what_is_not_there_is_missing(remote: Remote, refs: list[ObjectRef], tmp_path: Path):
    with pytest.raises(MissingObject):
        downloads.download(remote, refs, LocalStore(tmp_path / "back"), silent)


def test_what_a_store_can_do_is_seen_and_leaves_nothing(remote: Remote, fs: MemoryFileSystem, tmp_path: Path):
    probe = remote.probe(time.time())

    assert (probe.ranges, probe.listing) == (True, True)
    assert probe.clock_s is None or abs(probe.clock_s) < 60
    assert not fs.find("/there")
    assert not [p for p in (tmp_path / "there").rglob("*") if p.is_file()]


@pytest.mark.parametrize("is_s3", [False, True])
@pytest.mark.parametrize("kind", ["folder", "filesystem"])
def test_what_is_something_else_is_replaced_and_kept_aside(
    fs: MemoryFileSystem, here: LocalStore, refs: list[ObjectRef], tmp_path: Path, kind: str, is_s3: bool
):
    if kind == "folder":
        remote: Remote = FolderRemote("r", LocalStore(tmp_path / "there"))
    else:
        remote = FilesystemRemote("r", as_s3(fs, "x-2") if is_s3 else fs, "/there")
    remote.upload(refs, _known(here), silent)
    bad, wrong = refs[2], bytes(refs[2].nbytes)
    if kind == "folder":
        path = tmp_path / "there" / bad.name[:2] / bad.name[2:]
        path.chmod(0o644)
        path.write_bytes(wrong)
    else:
        fs.pipe_file(f"/there/{bad.name[:2]}/{bad.name[2:]}", wrong)

    assert [ref for ref, _ in downloads.unsound(remote, refs, silent)] == [bad]
    remote.replace(bad, _known(here))

    downloads.verify(remote, refs, silent)
    found = (
        fs.find("/there") if kind == "filesystem" else [str(p) for p in (tmp_path / "there").iterdir() if p.is_file()]
    )
    aside = [path for path in found if ".ckptvcs-damaged-" in path]
    assert len(aside) == 1
    assert (fs.cat_file(aside[0]) if kind == "filesystem" else Path(aside[0]).read_bytes()) == wrong


@pytest.mark.parametrize("is_s3", [False, True])
def test_a_store_without_objects_is_empty_as_far_as_that_can_be_told(
    fs: MemoryFileSystem, here: LocalStore, refs: list[ObjectRef], is_s3: bool
):
    remote = FilesystemRemote("r", as_s3(fs, "x-2") if is_s3 else fs, "/there")
    assert remote.is_empty()
    remote.upload(refs, _known(here), silent)
    assert not remote.is_empty()

    def ls(*_: Any, **__: Any) -> None:
        raise PermissionError("no listing")

    fs.rm("/there", recursive=True)
    fs.ls = ls
    assert not remote.is_empty(), "who may not list cannot tell"
