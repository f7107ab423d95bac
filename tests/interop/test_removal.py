"""Taking objects away: one contract for every kind of store, looked at by other programs than ours."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from ckptvcs.storage.folder_remote import FolderRemote
from ckptvcs.storage.names import ObjectName
from ckptvcs.storage.objects import LocalStore
from ckptvcs.storage.remotes import FilesystemRemote
from ckptvcs.storage.removal import Removal

RUN = "20260101-writer00-0badcafe"
DATA = {ObjectName(hashlib.md5(bytes([n])).hexdigest()): bytes([n]) * (n + 1) for n in range(40)}
NAMES = sorted(DATA)


@dataclass
class Place:
    """A store with some objects, and another way to what is there."""

    removal: Removal
    files: Callable[[], dict[str, bytes]]


def in_folder(root: Path) -> Callable[[], dict[str, bytes]]:
    for name, data in DATA.items():
        path = root / "files/md5" / name[:2] / name[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return lambda: {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture(params=["folder", "memory", "s3", "ssh"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        files = in_folder(tmp_path / "there")
        return Place(FolderRemote("r", LocalStore(tmp_path / "there/files/md5")).removal(), files)
    if request.param == "memory":
        fs: Any = MemoryFileSystem(skip_instance_cache=True)
        fs.store.clear()
        fs.pseudo_dirs[:] = [""]
        for name, data in DATA.items():
            fs.pipe_file(f"/there/files/md5/{name[:2]}/{name[2:]}", data)
        remote = FilesystemRemote("r", fs, "/there/files/md5")
        return Place(remote.removal(), lambda: {p.removeprefix("/there/"): fs.cat_file(p) for p in fs.find("/there")})
    if request.param == "s3":
        server = request.getfixturevalue("s3_server")
        client, prefix = server.client(), f"{tmp_path.name}/there"
        for name, data in DATA.items():
            client.put_object(Bucket="bucket", Key=f"{prefix}/files/md5/{name[:2]}/{name[2:]}", Body=data)
        from s3fs import S3FileSystem

        fs = S3FileSystem(key="testing", secret="testing", endpoint_url=server.url)
        remote = FilesystemRemote("r", fs, f"bucket/{prefix}/files/md5")

        def listed() -> dict[str, bytes]:
            keys = [e["Key"] for e in client.list_objects_v2(Bucket="bucket", Prefix=f"{prefix}/").get("Contents", [])]
            return {
                k.removeprefix(f"{prefix}/"): client.get_object(Bucket="bucket", Key=k)["Body"].read() for k in keys
            }

        return Place(remote.removal(), listed)
    import getpass

    from sshfs import SSHFileSystem

    server = request.getfixturevalue("ssh_server")
    files = in_folder(tmp_path / "there")
    fs = SSHFileSystem(
        "127.0.0.1",
        port=server.port,
        username=getpass.getuser(),
        client_keys=[str(server.key)],
        known_hosts=None,
        agent_path=None,
    )
    return Place(FilesystemRemote("r", fs, f"{tmp_path}/there/files/md5").removal(), files)


def test_what_is_stored_is_told(place: Place):
    assert {(s.name, s.nbytes) for s in place.removal.stored()} == {(name, len(data)) for name, data in DATA.items()}
    absent = ObjectName("f" * 32)
    assert {s.name for s in place.removal.stored([NAMES[3], absent])} == {NAMES[3]}
    assert all(s.time_s is not None for s in place.removal.stored())


def test_what_is_removed_is_gone_and_the_rest_is_as_it_was(place: Place):
    before = place.files()
    place.removal.remove(NAMES[:5])
    place.removal.remove(NAMES[:5])  # again, as after an interruption

    gone = {f"files/md5/{name[:2]}/{name[2:]}" for name in NAMES[:5]}
    assert place.files() == {path: data for path, data in before.items() if path not in gone}


def test_the_trash_gives_back_what_it_took(place: Place):
    before = place.files()
    place.removal.trash(NAMES[:6], RUN)
    place.removal.trash(NAMES[:6], RUN)
    moved = place.files()

    assert {s.name for s in place.removal.stored()} == set(NAMES[6:])
    assert sorted(moved.values()) == sorted(before.values())
    assert place.removal.trashed(NAMES, RUN) == {name: len(DATA[name]) for name in NAMES[:6]}
    assert sorted(place.removal.bring_back(NAMES[:2], RUN)) == NAMES[:2]
    place.removal.empty(NAMES[:6], RUN)
    place.removal.empty(NAMES[:6], RUN)

    assert {s.name for s in place.removal.stored()} == {*NAMES[:2], *NAMES[6:]}
    assert not [path for path in place.files() if ".ckptvcs/trash" in path]
    assert place.removal.trashed(NAMES, RUN) == {}
    assert place.removal.bring_back(NAMES[2:4], RUN) == []


def test_nothing_that_came_meanwhile_is_overwritten(place: Place):
    place.removal.trash(NAMES[:1], RUN)
    kept = place.files()
    assert sorted(place.removal.bring_back(NAMES[:1], RUN)) == NAMES[:1]
    assert sorted(place.removal.bring_back(NAMES[:1], "20260101-writer00-0badcaff")) == []

    assert sorted(place.files().values()) == sorted(kept.values())
