"""Bad lines to a store: cut, reset, silent, refused, busy or full. In the end it is there, or the error is clear."""

from __future__ import annotations

import getpass
import os
import random
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from ckptvcs.errors import StorageError
from ckptvcs.porcelain import fetch, push
from ckptvcs.storage import patience
from tests.support import oracle, servers
from tests.support.lines import BadLine, Fault, Seen, xml
from tests.support.places import Place, Read, in_bucket, in_folder, point_to, sound
from tests.support.world import Done, World

POINTS = 20
SIZE = 3 << 20
BIG = 102 << 20
"""More than two parts of s3fs."""
PART = 50 << 20
PIECE = 8 << 20
"""What is asked for at once."""

QUICK = {"connect_timeout": "2", "read_timeout": "2"}


@pytest.fixture(scope="module")
def s3() -> Iterator[servers.S3]:
    with servers.s3() as server:
        yield server


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Ssh]:
    if not servers.has_sshd():
        pytest.skip("there is no sshd")
    with servers.ssh(tmp_path_factory.mktemp("ssh") / "server") as server:
        yield server


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A repository with one checkpoint, one object of which is large, and a clone of it before that."""
    found = Place.create(tmp_path_factory.mktemp("lines") / "base")
    world = found.world
    world.git("commit", "-q", "--allow-empty", "-m", "begin")
    world.git("push", "-q", "origin", "main")
    found.make_clone()
    commit(world, SIZE)
    return found


def commit(world: World, nbytes: int, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randint(0, 255, (nbytes,), dtype=torch.uint8, generator=generator)
    with world.repo() as repo:
        repo.commit({"model": {"weight": weight, "bias": torch.arange(10)}}, step=seed)


@dataclass
class Bucket:
    """A place whose store is a bucket."""

    place: Place
    server: servers.S3
    prefix: str

    @property
    def port(self) -> int:
        return int(self.server.url.rpartition(":")[2])

    @property
    def objects(self) -> Read:
        return in_bucket(self.server, self.prefix)

    def point(self, world: World, port: int | None = None, **options: str) -> None:
        endpoint = f"http://127.0.0.1:{port or self.port}"
        point_to(
            world, f"s3://bucket/{self.prefix}", {**self.server.options, "endpointurl": endpoint, **QUICK, **options}
        )

    def through(self, line: BadLine, verb: str, *, status: int | None = None, **options: str) -> Done:
        world = self.place.world if verb == "push" else self.place.clone
        self.point(world, line.port, **options)
        done = world.ckpt(verb, status=status)
        assert "Traceback" not in done.err
        self.point(world)
        self.sound()
        return done

    def sound(self) -> None:
        sound(self.place.hub, self.objects)
        oracle.check(self.place.clone.root, complete=False)
        for world in (self.place.world, self.place.clone):
            assert not world.temporaries()
        left = self.server.client().list_multipart_uploads(Bucket="bucket", Prefix=self.prefix).get("Uploads", [])
        assert not left, "parts of an upload were left"

    def large(self) -> str:
        """Where the largest object is."""
        name = max(self.place.world.objects().items(), key=lambda item: item[1].stat().st_size)[0]
        return f"/{name[:2]}/{name[2:]}"

    def again(self, verb: str) -> None:
        world = self.place.world if verb == "push" else self.place.clone
        world.ckpt(verb)
        self.sound()
        assert self.is_shared()

    def is_shared(self) -> bool:
        return oracle.git(self.place.world.root, "rev-parse", "main") == oracle.git(self.place.hub, "rev-parse", "main")

    def has_pulled(self) -> bool:
        clone = self.place.clone.root
        newest = oracle.check(clone, complete=False)[oracle.git(self.place.hub, "rev-parse", "main").strip()]
        return oracle.workspace_of(clone, [newest]) == 0


def bucket(base: Place, s3: servers.S3, tmp_path: Path, *, pushed: bool = False) -> Bucket:
    found = Bucket(base.copy(tmp_path / "here"), s3, f"{tmp_path.name}-{random.SystemRandom().randrange(1 << 30)}")
    found.point(found.place.world)
    found.point(found.place.clone)
    if pushed:
        found.place.world.ckpt("push")
    return found


def of_object(seen: Seen | None, method: str) -> bool:
    return seen is not None and seen.method == method and "/files/md5/" in seen.path


class First:
    """Lets the first requests of a kind for objects fail, or all of them."""

    def __init__(self, method: str, fault: Fault, times: int = 1 << 30, path: str = "/files/md5/") -> None:
        self.method, self.fault, self.times, self.path = method, fault, times, path

    def __call__(self, seen: Seen | None) -> Fault | None:
        if seen is None or seen.method != self.method or self.path not in seen.path or self.times <= 0:
            return None
        self.times -= 1
        return self.fault


def points(total: int, short: set[int]) -> list:
    """Every twentieth of a body; a few of them in the short run."""
    return [
        pytest.param(total * n // POINTS, id=f"{n}of{POINTS}", marks=[] if n in short else [pytest.mark.long])
        for n in range(POINTS)
    ]


LONG = pytest.mark.long
WAYS = ["cut", pytest.param("reset", marks=LONG)]


# ------------------------------------------------------------------------------------------------------ S3, for a moment


@pytest.mark.parametrize("kind", WAYS)
@pytest.mark.parametrize("at", points(SIZE, {0, 13}))
def test_an_upload_that_is_cut_is_done_by_the_same_command(
    base: Place, s3: servers.S3, tmp_path: Path, at: int, kind: str
):
    here = bucket(base, s3, tmp_path)

    with BadLine(here.port, First("PUT", Fault(kind, at, up=True), times=2)) as line:
        here.through(line, "push", status=0)

    assert line.failed == 2
    assert here.is_shared()


@pytest.mark.parametrize("kind", WAYS)
@pytest.mark.parametrize("at", points(SIZE, {0, 13}))
def test_a_download_that_is_cut_is_done_by_the_same_command(
    base: Place, s3: servers.S3, tmp_path: Path, at: int, kind: str
):
    here = bucket(base, s3, tmp_path, pushed=True)

    with BadLine(here.port, First("GET", Fault(kind, at), times=2)) as line:
        here.through(line, "pull", status=0)

    assert line.failed == 2
    assert here.has_pulled()


@pytest.fixture(scope="module")
def big(base: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    found = base.copy(tmp_path_factory.mktemp("big") / "base")
    commit(found.world, BIG, 2)
    return found


@pytest.mark.parametrize("at", points(PART, {13}))
def test_an_upload_in_parts_that_is_cut_sends_that_part_again_and_no_other(
    big: Place, s3: servers.S3, tmp_path: Path, at: int
):
    here = bucket(big, s3, tmp_path)
    cut = []

    def plan(seen: Seen | None) -> Fault | None:
        if seen is None or "partNumber=2" not in seen.path or cut:
            return None
        cut.append(seen)
        return Fault("cut", at, up=True)

    with BadLine(here.port, plan) as line:
        here.through(line, "push", status=0, read_timeout="60")

    assert len(cut) == 1
    parts = [seen.path.split("partNumber=")[1][0] for seen in line.requests if "partNumber=" in seen.path]
    assert sorted(parts) == ["1", "2", "2", "3"]
    assert here.is_shared()


@pytest.mark.parametrize("at", points(PIECE, {13}))
def test_a_large_download_that_is_cut_goes_on_by_ranges(big: Place, s3: servers.S3, tmp_path: Path, at: int):
    here = bucket(big, s3, tmp_path, pushed=True)
    cut = []

    def plan(seen: Seen | None) -> Fault | None:
        if seen is None or seen.start != 5 * PIECE or cut:
            return None
        cut.append(seen)
        return Fault("cut", at)

    with BadLine(here.port, plan) as line:
        here.through(line, "pull", status=0, read_timeout="60")

    assert len(cut) == 1
    assert [seen.start for seen in line.requests].count(5 * PIECE) == 2
    assert BIG <= line.down - at < BIG + SIZE + (1 << 20), "more was sent again than what was cut"
    assert here.has_pulled()


# ----------------------------------------------------------------------------------------------------------- S3, for ever

FOR_EVER = [
    Fault("cut", SIZE // 2),
    Fault("503", said=xml("SlowDown")),
    Fault("reset", SIZE // 3),
    Fault("500", said=xml("InternalError")),
    Fault("refuse"),
]
FOR_EVER_EACH = [
    pytest.param(
        verb,
        fault,
        id=f"{verb}-{fault.kind}",
        marks=[] if (verb, fault.kind) in (("push", "503"), ("pull", "cut")) else LONG,
    )
    for verb in ("push", "pull")
    for fault in FOR_EVER
]


@pytest.mark.parametrize(("verb", "fault"), FOR_EVER_EACH)
def test_what_fails_for_ever_is_told_and_what_arrived_is_not_sent_again(
    base: Place, s3: servers.S3, tmp_path: Path, verb: str, fault: Fault
):
    here = bucket(base, s3, tmp_path, pushed=verb == "pull")
    method = "PUT" if verb == "push" else "GET"
    fault = Fault(fault.kind, fault.at, up=verb == "push", said=fault.said)

    with BadLine(here.port, First(method, fault, path=here.large())) as line:
        refused = here.through(line, verb, status=30)
    assert "cannot " in refused.err
    assert "at remote 'bucket'" in refused.err
    assert here.is_shared() is (verb == "pull")
    arrived = {s.path for s in line.requests if s.method == method and "/files/md5/" in s.path and not s.failed}

    with BadLine(here.port) as line:
        here.through(line, verb, status=0)
    again = {seen.path for seen in line.requests if seen.method == method and "/files/md5/" in seen.path}

    assert arrived
    assert again
    assert not again & arrived
    assert here.is_shared()


@pytest.mark.parametrize("verb", ["push", "pull"])
def test_a_call_to_a_silent_store_ends(base: Place, s3: servers.S3, tmp_path: Path, verb: str, monkeypatch):
    monkeypatch.setattr(patience, "_ATTEMPTS", 1)
    here = bucket(base, s3, tmp_path, pushed=verb == "pull")
    method = "PUT" if verb == "push" else "GET"
    fault = Fault("stall", SIZE // 2, up=verb == "push")
    world = here.place.world if verb == "push" else here.place.clone
    begun = time.monotonic()

    with BadLine(here.port, First(method, fault, path=here.large())) as line:
        here.point(world, line.port, read_timeout="1", connect_timeout="1")
        with world.repo() as repo, pytest.raises(StorageError, match="at remote 'bucket'"):
            if verb == "push":
                push.execute(repo._repo, push.plan_push(repo._repo))
            else:
                fetch.fetch(repo._repo)
                fetch.fetch_objects(repo._repo, fetch.plan_objects(repo._repo, "origin/main"))

    assert time.monotonic() - begun < 30
    assert line.failed
    here.point(world)
    here.again(verb)


@LONG
@pytest.mark.parametrize("at", [0, SIZE // 2, SIZE - 1])
@pytest.mark.parametrize("verb", ["push", "pull"])
def test_a_store_that_falls_silent_is_given_up(base: Place, s3: servers.S3, tmp_path: Path, verb: str, at: int):
    here = bucket(base, s3, tmp_path, pushed=verb == "pull")
    method = "PUT" if verb == "push" else "GET"
    begun = time.monotonic()

    with BadLine(here.port, First(method, Fault("stall", at, up=verb == "push"), path=here.large())) as line:
        refused = here.through(line, verb, status=30, read_timeout="1", connect_timeout="1")

    assert time.monotonic() - begun < 60, "with a second of patience, 16 times"
    assert line.failed
    assert "at remote 'bucket'" in refused.err
    here.again(verb)


@LONG
def test_a_store_that_refuses_every_connection(base: Place, s3: servers.S3, tmp_path: Path):
    here = bucket(base, s3, tmp_path)
    here.point(here.place.world, servers.free_port())

    refused = here.place.world.ckpt("push", status=30)

    assert "Traceback" not in refused.err
    here.point(here.place.world)
    here.again("push")


@pytest.mark.parametrize(
    ("status", "code"), [("507", "InsufficientStorage"), pytest.param("403", "QuotaExceeded", marks=LONG)]
)
def test_a_bucket_that_is_full_is_said_to_be(base: Place, s3: servers.S3, tmp_path: Path, status: str, code: str):
    here = bucket(base, s3, tmp_path)

    with BadLine(here.port, First("PUT", Fault(status, said=xml(code)))) as line:
        refused = here.through(line, "push", status=30)

    assert line.failed
    assert "there is no room left" in refused.err
    assert "free some space there" in refused.err
    here.again("push")


# ------------------------------------------------------------------------------------------------------------------ SFTP


@dataclass
class Server:
    """A place whose store is a folder that is reached by SFTP."""

    place: Place
    server: servers.Ssh
    store: Path

    def point(self, world: World, port: int | None = None) -> None:
        url = f"ssh://{getpass.getuser()}@127.0.0.1:{port or self.server.port}{self.store}"
        point_to(world, url, self.server.options)

    def through(self, line: BadLine, verb: str, *, status: int | None = None) -> Done:
        world = self.place.world if verb == "push" else self.place.clone
        self.point(world, line.port)
        done = world.ckpt(verb, status=status)
        assert "Traceback" not in done.err
        self.point(world)
        self.sound()
        return done

    def sound(self) -> None:
        sound(self.place.hub, in_folder(self.store))
        oracle.check(self.place.clone.root, complete=False)
        for world in (self.place.world, self.place.clone):
            assert not world.temporaries()

    def is_shared(self) -> bool:
        return oracle.git(self.place.world.root, "rev-parse", "main") == oracle.git(self.place.hub, "rev-parse", "main")


def server(
    base: Place, sshd: servers.Ssh, tmp_path: Path, *, pushed: bool = False, store: Path | None = None
) -> Server:
    found = Server(base.copy(tmp_path / "here"), sshd, store or tmp_path / "store")
    found.point(found.place.world)
    found.point(found.place.clone)
    if pushed:
        found.place.world.ckpt("push")
    return found


@pytest.mark.parametrize("verb", ["push", "pull"])
@pytest.mark.parametrize("at", points(SIZE, {11}))
def test_a_line_to_a_server_that_is_cut_is_opened_anew_by_the_same_command(
    base: Place, sshd: servers.Ssh, tmp_path: Path, at: int, verb: str
):
    here = server(base, sshd, tmp_path, pushed=verb == "pull")
    cut = iter([Fault("cut", at, up=verb == "push")])

    with BadLine(sshd.port, lambda _: next(cut, None), http=False) as line:
        done = here.through(line, verb, status=None)

    assert line.failed == 1
    if at == 0:  # nobody can tell a server that is no server from a line that was cut before a word was said
        assert done.status == 30, done.err
        (here.place.world if verb == "push" else here.place.clone).ckpt(verb)
        here.sound()
    else:
        assert done.status == 0, done.err
    assert here.is_shared()


@pytest.mark.parametrize(
    ("verb", "kind"),
    [("pull", "cut"), *(pytest.param(*one, marks=LONG) for one in [("push", "cut"), ("push", "refuse")])],
)
def test_a_line_to_a_server_that_is_always_cut_is_told(
    base: Place, sshd: servers.Ssh, tmp_path: Path, verb: str, kind: str
):
    here = server(base, sshd, tmp_path, pushed=verb == "pull")

    with BadLine(sshd.port, lambda _: Fault(kind, SIZE // 2, up=verb == "push"), http=False) as line:
        refused = here.through(line, verb, status=30)

    assert line.failed
    assert "remote 'bucket'" in refused.err
    (here.place.world if verb == "push" else here.place.clone).ckpt(verb)
    here.sound()
    assert here.is_shared()


@LONG
@pytest.mark.parametrize("at", [0, SIZE // 2])
@pytest.mark.parametrize("verb", ["push", "pull"])
def test_a_server_that_falls_silent_is_given_up(base: Place, sshd: servers.Ssh, tmp_path: Path, verb: str, at: int):
    here = server(base, sshd, tmp_path, pushed=verb == "pull")
    begun = time.monotonic()

    with BadLine(sshd.port, lambda _: Fault("stall", at, up=verb == "push"), http=False) as line:
        refused = here.through(line, verb, status=30)

    assert time.monotonic() - begun < 400
    assert line.failed
    assert "remote 'bucket'" in refused.err


# ------------------------------------------------------------------------------------------------------------------ full


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, with less room than a checkpoint needs."""
    where = tmp_path / "disk"
    where.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE // 2}", "tmpfs", str(where)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root may mount a file system")
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)


def test_a_folder_that_is_full(base: Place, small_disk: Path, tmp_path: Path):
    here = base.copy(tmp_path / "here")
    point_to(here.world, str(small_disk / "store"), {})

    refused = here.world.ckpt("push", status=30)

    assert "no space left" in refused.err
    assert sound(here.hub, in_folder(small_disk / "store")) == 0
    assert not list(small_disk.rglob(".ckptvcs-*"))
    subprocess.run(["mount", "-o", f"remount,size={SIZE * 3}", str(small_disk)], check=True)
    here.world.ckpt("push")
    assert sound(here.hub, in_folder(small_disk / "store")) > 0


def test_a_server_that_is_full(base: Place, sshd: servers.Ssh, small_disk: Path, tmp_path: Path):
    here = server(base, sshd, tmp_path, store=small_disk / "store")

    refused = here.place.world.ckpt("push", status=30)

    assert "when a disk is full" in refused.err
    here.sound()
    assert not list(small_disk.rglob(".ckptvcs-*"))
    subprocess.run(["mount", "-o", f"remount,size={SIZE * 3}", str(small_disk)], check=True)
    here.place.world.ckpt("push")
    here.sound()
    assert here.is_shared()


# ------------------------------------------------------------------------------------------------------------- left behind

DAYS = 2 * 24 * 3600


@pytest.mark.parametrize("kind", ["folder", "sftp"])
def test_what_a_dead_upload_left_goes_with_a_later_push(
    base: Place, tmp_path: Path, kind: str, request: pytest.FixtureRequest
):
    store = tmp_path / "store"
    if kind == "sftp":
        here = server(base, request.getfixturevalue("sshd"), tmp_path, store=store).place
    else:
        here = base.copy(tmp_path / "here")
        point_to(here.world, str(store), {})
    root = store / "files/md5"
    root.mkdir(parents=True)
    dead, alive, other = root / f".ckptvcs-{'0' * 16}.tmp", root / f".ckptvcs-{'1' * 16}.tmp", root / "kept.txt"
    for path in (dead, alive, other):
        path.write_bytes(b"x" * 100)
    for path in (dead, other):
        os.utime(path, (time.time() - DAYS, time.time() - DAYS))

    here.world.ckpt("push")

    assert [path.exists() for path in (dead, alive, other)] == [False, True, True]


def test_a_large_object_comes_over_sftp_in_ranges(big: Place, sshd: servers.Ssh, tmp_path: Path):
    here = server(big, sshd, tmp_path, pushed=True)

    with BadLine(sshd.port, http=False) as line:
        here.through(line, "pull", status=0)

    assert BIG < line.down < BIG * 1.1
    assert here.place.clone.ckpt("status").out.count("up to date") == 1
