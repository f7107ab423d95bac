"""Push and pull that are killed, run out of disk, or have bad lines: no ref names what is not there, and it can be run again."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from blake3 import blake3

from tests.support import oracle, servers, strace
from tests.support.scenarios import LAUNCH
from tests.support.states import training_state
from tests.support.world import World, run

IN_SHORT = 6


@dataclass
class Place:
    """A folder with a repository, the bare one and the store that it is shared through, and a clone."""

    folder: Path

    @property
    def world(self) -> World:
        return World(self.folder / "repo")

    @property
    def clone(self) -> World:
        return World(self.folder / "clone")

    def copy(self, to: Path) -> Place:
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(self.folder, to, symlinks=True)
        return Place(to)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """One checkpoint that both have, and one that is to be pushed; every path is relative, so that it can be copied."""
    found = Place(tmp_path_factory.mktemp("share") / "base")
    found.folder.mkdir()
    world = World.create(found.folder / "repo")
    world.git("init", "-q", "--bare", "-b", "main", "../hub.git")
    world.git("remote", "add", "origin", "../hub.git")
    world.ckpt("remote", "add", "share", "../store")
    world.git("commit", "-qam", "a remote")
    commit(world, 1)
    world.ckpt("push")
    run(["git", "clone", "-q", "hub.git", "clone"], found.folder)
    found.clone.git("remote", "set-url", "origin", "../hub.git")
    for key, value in (("user.name", "Other"), ("user.email", "other@example.com")):
        found.clone.git("config", key, value)
    found.clone.ckpt("pull")
    commit(world, 2)
    return found


def commit(world: World, seed: int) -> None:
    with world.repo() as repo:
        repo.commit(training_state(seed, width=16), step=seed)


def sound(place: Place, objects: Callable[[str], bytes | None]) -> int:
    """Fail if a branch of the shared repository names an object that the store has not, or not whole; returns how many it
    names."""
    hub, names = place.folder / "hub.git", 0
    for line in oracle.git(hub, "rev-list", "--branches").split():
        paths = oracle.git(hub, "ls-tree", "-r", "--name-only", line).split("\n")
        if "checkpoints/model.json" not in paths:
            continue
        manifest = yaml.safe_load(oracle.git(hub, "show", f"{line}:checkpoints/model.json"))
        pointer = yaml.safe_load(oracle.git(hub, "show", f"{line}:checkpoints/model.dvc"))
        for file in oracle.files(manifest):
            data = objects(file["md5"])
            assert data is not None, f"{line} names {file['md5']}, which is not there"
            assert blake3(data).hexdigest() == file["blake3"]
            names += 1
        assert objects(pointer["outs"][0]["md5"]) is not None
    return names


def in_store(place: Place) -> Callable[[str], bytes | None]:
    def read(name: str) -> bytes | None:
        path = place.folder / "store/files/md5" / name[:2] / name[2:]
        return path.read_bytes() if path.is_file() else None

    return read


def command(*args: str) -> list[str]:
    return strace.python([LAUNCH, "none", *args])


def points_of(place: Place, verb: str, tmp_path: Path) -> list[strace.Point]:
    traced = place.copy(tmp_path / "traced")
    return strace.points(strace.trace(command(verb), root_of(traced, verb), tmp_path / "log"), tmp_path / "traced")


def root_of(place: Place, verb: str) -> Path:
    return (place.world if verb == "push" else place.clone).root


@pytest.fixture(scope="module")
def pushed(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    found = place.copy(tmp_path_factory.mktemp("share") / "pushed")
    found.world.ckpt("push")
    return found


def after(place: Place, verb: str, *, done: bool) -> None:
    """What must hold, whatever happened; then the command is run again, and all of it is there."""
    sound(place, in_store(place))
    oracle.check(place.world.root)
    oracle.check(place.clone.root, complete=False)
    if not done:
        again = subprocess.run(command(verb), cwd=root_of(place, verb), capture_output=True, text=True, check=False)
        assert again.returncode == 0, f"the next {verb} failed: {again.stdout}{again.stderr}"
    if verb == "push":
        assert oracle.git(place.folder / "hub.git", "rev-parse", "main") == oracle.git(
            place.world.root, "rev-parse", "main"
        )
        leases = list((place.folder / "store/.ckptvcs/intents").rglob("*.json"))
        assert not leases, "a dead push left a lease, and the next one did not remove it"
    else:
        assert oracle.git(place.clone.root, "rev-parse", "main") == oracle.git(
            place.folder / "hub.git", "rev-parse", "main"
        )
        assert place.clone.ckpt("status").out.count("up to date") == 1
    assert sound(place, in_store(place)) > 0
    oracle.check(place.clone.root, complete=False)


@pytest.mark.parametrize("verb", ["push", "pull"])
def test_a_kill_leaves_nothing_half_there(place: Place, pushed: Place, tmp_path: Path, verb: str):
    begin = place if verb == "push" else pushed
    points = points_of(begin, verb, tmp_path)
    assert len(points) > 20, "the harness sees hardly anything"
    died = 0
    for point in strace.sample(points, IN_SHORT):
        here = begin.copy(tmp_path / "here")
        done = strace.kill(command(verb), root_of(here, verb), point)
        died += done.returncode != 0
        after(here, verb, done=done.returncode == 0)
    assert died >= IN_SHORT // 2


@pytest.mark.parametrize("verb", ["push", "pull"])
def test_a_full_disk_leaves_nothing_half_there(place: Place, pushed: Place, tmp_path: Path, verb: str):
    begin = place if verb == "push" else pushed
    points = [p for p in points_of(begin, verb, tmp_path) if p.call in strace.FAILING["ENOSPC"]]
    for point in strace.sample(points, IN_SHORT):
        here = begin.copy(tmp_path / "here")
        done = strace.fail(command(verb), root_of(here, verb), point, "ENOSPC", for_ever=True)
        assert "Traceback" not in done.stderr, done.stderr
        after(here, verb, done=done.returncode == 0)


# ------------------------------------------------------------------------------------------------------------- bad lines


@pytest.fixture(scope="module")
def s3() -> Iterator[servers.S3]:
    with servers.s3() as server:
        yield server


FAULTS = [("cut", 0), ("cut", 100), ("cut", 4000), ("cut", 9000), ("reset", 0), ("500", 0), ("stall", 0)]


@pytest.mark.parametrize(("fault", "after_bytes"), FAULTS)
def test_bad_lines_end_in_success_or_a_clear_error(
    place: Place, s3: servers.S3, tmp_path: Path, fault: str, after_bytes: int
):
    here = place.copy(tmp_path / "here")
    prefix = f"{tmp_path.name}-{random.SystemRandom().randrange(1 << 30)}"
    port = int(s3.url.rpartition(":")[2])
    client = s3.client()

    def objects(name: str) -> bytes | None:
        try:
            key = f"{prefix}/files/md5/{name[:2]}/{name[2:]}"
            return client.get_object(Bucket="bucket", Key=key)["Body"].read()
        except client.exceptions.NoSuchKey:
            return None

    def point_to(world: World, url: str) -> None:
        options = {**s3.options, "endpointurl": url, "connect_timeout": "3", "read_timeout": "3"}
        world.dvc("remote", "add", "--local", "-f", "-d", "bucket", f"s3://bucket/{prefix}")
        for name, value in options.items():
            world.dvc("remote", "modify", "--local", "bucket", name, value)

    for verb, world in (("push", here.world), ("pull", here.clone)):
        with servers.BadLine(port, fault=fault, at=set(range(0, 40, 3)), after=after_bytes) as line:
            point_to(world, f"http://127.0.0.1:{line.port}")
            args = ["push", "--full"] if verb == "push" else ["pull", "--remote", "bucket"]
            first = world.ckpt(*args, status=None)
            assert line.failed, "no connection was bad"
            assert "Traceback" not in first.err
            assert first.status in (0, 20, 30), first.err
        point_to(world, s3.url)
        if first.status:
            world.ckpt(*args)
        sound(here, objects)
        oracle.check(here.clone.root, complete=False)
    assert oracle.git(here.clone.root, "rev-parse", "main") == oracle.git(here.world.root, "rev-parse", "main")
