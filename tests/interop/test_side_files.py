"""Side files: one contract for every place that a remote can be in, looked at by other programs than ours."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from ckptvcs.errors import HostileInput, StorageError
from ckptvcs.storage.folder_remote import FolderRemote
from ckptvcs.storage.objects import LocalStore
from ckptvcs.storage.remotes import FilesystemRemote
from ckptvcs.storage.sidefiles import SideFiles


@dataclass
class Place:
    """Side files, and another way to what is there."""

    side: SideFiles
    put: Callable[[str, bytes], None]
    get: Callable[[str], bytes]


def in_folder(root: Path) -> dict[str, Any]:
    def put(path: str, data: bytes) -> None:
        target = root / ".ckptvcs" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    return {"put": put, "get": lambda path: (root / ".ckptvcs" / path).read_bytes()}


@pytest.fixture(params=["folder", "memory", "s3", "ssh"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return Place(
            FolderRemote("r", LocalStore(tmp_path / "there/files/md5")).side_files(), **in_folder(tmp_path / "there")
        )
    if request.param == "memory":
        fs: Any = MemoryFileSystem(skip_instance_cache=True)
        fs.store.clear()
        fs.pseudo_dirs[:] = [""]
        side = FilesystemRemote("r", fs, "/there/files/md5").side_files()
        return Place(
            side,
            lambda path, data: fs.pipe_file(f"/there/.ckptvcs/{path}", data),
            lambda path: fs.cat_file(f"/there/.ckptvcs/{path}"),
        )
    if request.param == "ssh":
        import getpass

        from sshfs import SSHFileSystem

        server = request.getfixturevalue("ssh_server")
        fs = SSHFileSystem(
            "127.0.0.1",
            port=server.port,
            username=getpass.getuser(),
            client_keys=[str(server.key)],
            known_hosts=None,
            agent_path=None,
        )
        side = FilesystemRemote("r", fs, f"{tmp_path}/there/files/md5").side_files()
        return Place(side, **in_folder(tmp_path / "there"))
    from s3fs import S3FileSystem

    server = request.getfixturevalue("s3_server")
    client, prefix = server.client(), f"{tmp_path.name}/.ckptvcs"
    fs = S3FileSystem(key="testing", secret="testing", endpoint_url=server.url)
    return Place(
        FilesystemRemote("r", fs, f"bucket/{tmp_path.name}/files/md5").side_files(),
        lambda path, data: client.put_object(Bucket="bucket", Key=f"{prefix}/{path}", Body=data),
        lambda path: client.get_object(Bucket="bucket", Key=f"{prefix}/{path}")["Body"].read(),
    )


def test_what_was_written_is_there_for_others_and_comes_back(place: Place):
    for data in (b"", b"{}\n", bytes(100_000)):
        assert place.side.write("a/b/file.json", data)

        assert place.get("a/b/file.json") == data
        assert place.side.read("a/b/file.json", limit=100_000) == data


def test_what_others_wrote_is_read(place: Place):
    place.put("gc/marks/run.json", b"of another program")

    assert place.side.read("gc/marks/run.json", limit=100) == b"of another program"
    assert [entry.name for entry in place.side.list("gc/marks")] == ["run.json"]


def test_what_is_not_there_is_nothing(place: Place):
    assert place.side.read("a/b", limit=10) is None
    assert place.side.list("a") == []
    place.side.remove("a/b")


def test_more_than_the_limit_is_refused(place: Place):
    place.put("file", bytes(101))

    with pytest.raises(HostileInput, match="more than the 100 bytes"):
        place.side.read("file", limit=100)
    assert len(place.side.read("file", limit=101) or b"") == 101


def test_only_the_first_makes_a_name(place: Place):
    assert place.side.write("store.json", b"first", exclusive=True)

    assert not place.side.write("store.json", b"second", exclusive=True)

    assert place.get("store.json") == b"first"
    assert [entry.name for entry in place.side.list("")] == ["store.json"]


def test_of_many_who_come_at_once_one_makes_a_name(place: Place, request: pytest.FixtureRequest):
    if "ssh" in request.node.callspec.id:
        pytest.skip("SFTP has no such thing: the later one counts, which the page says")
    if "memory" in request.node.callspec.id:
        pytest.skip("it is no store of several")
    made: list[int] = []

    def one(number: int) -> None:
        if place.side.write("store.json", str(number).encode(), exclusive=True):
            made.append(number)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(made) == 1
    assert place.get("store.json") == str(made[0]).encode()


def test_a_list_has_sizes_and_the_times_of_the_store(place: Place):
    before = time.time()
    place.side.write("intents/w/one.json", b"1")
    place.side.write("intents/w/two.json", b"22")
    place.side.write("intents/v/three.json", b"333")

    found = place.side.list("intents/w")
    folders = place.side.list("intents")

    assert [(entry.name, entry.nbytes, entry.is_folder) for entry in found] == [
        ("one.json", 1, False),
        ("two.json", 2, False),
    ]
    assert [(entry.name, entry.is_folder) for entry in folders] == [("v", True), ("w", True)]
    for entry in found:
        assert entry.time_s is not None
        assert before - 2 < entry.time_s < time.time() + 2


def test_what_was_removed_is_gone(place: Place):
    place.side.write("a/one", b"1")
    place.side.write("a/two", b"2")

    place.side.remove("a/one")

    assert [entry.name for entry in place.side.list("a")] == ["two"]
    assert place.side.read("a/one", limit=10) is None


def test_the_time_there_is_told_and_leaves_nothing(place: Place):
    place.side.write("a/one", b"1")

    now = place.side.now("a")

    assert now is not None
    assert abs(now - time.time()) < 5
    assert [entry.name for entry in place.side.list("a")] == ["one"]


def test_names_of_nobody_are_left_out(place: Place):
    for name in (".hidden", ".ckptvcs-0123456789abcdef.tmp", "a b", "x" * 129, "o\u0301"):
        place.put(f"a/{name}", b"1")
    place.side.write("a/one.json", b"1")

    assert [entry.name for entry in place.side.list("a")] == ["one.json"]


def test_a_listing_without_end_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch):
    from ckptvcs.storage import sidefiles

    monkeypatch.setattr(sidefiles, "MAX_ENTRIES", 3)
    for number in range(4):
        place.put(f"a/{number}", b"1")

    with pytest.raises(HostileInput, match="more than 3 entries"):
        place.side.list("a")


# --------------------------------------------------------------------------------------------------- hostile folders


@pytest.fixture
def folder(tmp_path: Path) -> SideFiles:
    (tmp_path / "there/.ckptvcs").mkdir(parents=True)
    return FolderRemote("r", LocalStore(tmp_path / "there/files/md5")).side_files()


def test_a_link_leads_nowhere(folder: SideFiles, tmp_path: Path):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/file").write_bytes(b"secret")
    (tmp_path / "there/.ckptvcs/dir").symlink_to(tmp_path / "secret")
    (tmp_path / "there/.ckptvcs/file").symlink_to(tmp_path / "secret/file")

    for act in (
        lambda: folder.read("dir/file", limit=10),
        lambda: folder.read("file", limit=10),
        lambda: folder.list("dir"),
        lambda: folder.write("dir/other", b"x"),
        lambda: folder.remove("dir/file"),
        lambda: folder.now("dir"),
        lambda: folder.write("../other", b"x"),
    ):
        with pytest.raises(HostileInput):
            act()
    folder.write("file", b"new")  # takes the name, not what it led to

    assert {p.name: p.read_bytes() for p in (tmp_path / "secret").iterdir()} == {"file": b"secret"}
    assert not (tmp_path / "there/other").exists()


def test_a_pipe_keeps_nobody_waiting(folder: SideFiles, tmp_path: Path):
    os.mkfifo(tmp_path / "there/.ckptvcs/pipe")

    with pytest.raises(HostileInput, match="it is no file"):
        folder.read("pipe", limit=10)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_what_may_not_be_written_is_told(folder: SideFiles, tmp_path: Path):
    (tmp_path / "there/.ckptvcs").chmod(0o555)

    with pytest.raises(StorageError, match="cannot write"):
        folder.write("a/b", b"x")
