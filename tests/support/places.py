"""A repository, the bare one and the store that it is shared through, and a clone: to be copied, and then to be broken."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from blake3 import blake3

from tests.support import oracle, servers
from tests.support.world import World, run

Read = Callable[[str], "bytes | None"]


@dataclass
class Place:
    """A folder with a repository, the bare one that it is shared through, and a clone; every path in it is relative."""

    folder: Path

    @classmethod
    def create(cls, folder: Path) -> Place:
        folder.mkdir(parents=True)
        found = cls(folder)
        world = World.create(folder / "repo")
        world.git("init", "-q", "--bare", "-b", "main", "../hub.git")
        world.git("remote", "add", "origin", "../hub.git")
        return found

    @property
    def world(self) -> World:
        return World(self.folder / "repo")

    @property
    def clone(self) -> World:
        return World(self.folder / "clone")

    @property
    def hub(self) -> Path:
        return self.folder / "hub.git"

    def copy(self, to: Path) -> Place:
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(self.folder, to, symlinks=True)
        return Place(to)

    def make_clone(self, name: str = "clone") -> World:
        run(["git", "clone", "-q", "hub.git", name], self.folder)
        made = World(self.folder / name)
        made.git("remote", "set-url", "origin", "../hub.git")
        for key, value in (("user.name", "Other"), ("user.email", "other@example.com")):
            made.git("config", key, value)
        return made


def point_to(world: World, url: str, options: dict[str, Any], name: str = "bucket", *, more: bool = False) -> None:
    """Give a clone a remote in `.dvc/config.local`, as `dvc remote add --local -d` does, in place of what is there."""
    path = world.root / ".dvc/config.local"
    lines = "".join(f"    {key} = {value}\n" for key, value in {"url": url, **options}.items())
    before = path.read_text() if more else f"[core]\n    remote = {name}\n"
    path.write_text(f"{before}['remote \"{name}\"']\n{lines}")


def sound(hub: Path, objects: Read) -> int:
    """Fail if a branch of a shared repository names an object that the store has not, or not whole; returns how many."""
    names = 0
    for commit in oracle.git(hub, "rev-list", "--branches").split():
        done = subprocess.run(
            ["git", "show", f"{commit}:checkpoints/model.json"], cwd=hub, capture_output=True, check=False
        )
        if done.returncode:
            continue
        pointer = yaml.safe_load(oracle.git(hub, "show", f"{commit}:checkpoints/model.dvc"))
        for file in oracle.files(yaml.safe_load(done.stdout)):
            data = objects(file["md5"])
            assert data is not None, f"{commit} names {file['md5']}, which is not there"
            assert blake3(data).hexdigest() == file["blake3"], f"{commit} names {file['md5']}, which is not whole"
            names += 1
        assert objects(pointer["outs"][0]["md5"]) is not None
    return names


def in_folder(folder: Path) -> Read:
    """The objects of a store in a folder."""

    def read(name: str) -> bytes | None:
        path = folder / "files/md5" / name[:2] / name[2:]
        return path.read_bytes() if path.is_file() else None

    return read


def in_bucket(server: servers.S3, prefix: str) -> Read:
    """The objects of a store in a bucket."""
    client = server.client()

    def read(name: str) -> bytes | None:
        try:
            key = f"{prefix}/files/md5/{name[:2]}/{name[2:]}"
            return client.get_object(Bucket="bucket", Key=key)["Body"].read()
        except client.exceptions.NoSuchKey:
            return None

    return read


def flip(data: bytes) -> bytes:
    return bytes([data[0] ^ 1, *data[1:]])
