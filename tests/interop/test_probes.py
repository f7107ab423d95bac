"""What `ckpt remote add` says of a store is what the store does, and what killed uploads left in it is swept."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ckptvcs.porcelain.repo import Repository
from ckptvcs.storage import store_errors
from ckptvcs.storage.dvc import remotes as door
from ckptvcs.storage.filesystems import Kind
from tests.support import proxy, servers, sharing, webdav
from tests.support.proxy import Proxy, Request
from tests.support.sharing import Store, commit
from tests.support.world import World

LONG = {"ceph", "azure"}
KINDS = [pytest.param(kind, marks=pytest.mark.long if kind in LONG else ()) for kind in sharing.STORES]
WITHOUT_FOLDER = [param for param in KINDS if param.values != ("folder",)]
ALL = {"ranges": True, "listing": True, "exclusive": True}


def added(world: World, store: Store) -> Any:
    sharing.add_store(world, store)
    can = world.ckpt("remote", "add", "share", store.url, "--json").json["can"]
    return {what: can[what] for what in ALL}


def filesystem(world: World) -> tuple[Any, str]:
    """The file system of the remote, past our remotes."""
    return door.open_filesystem(world.root, Repository.open(world.root).dvc_config, "share")


@pytest.mark.parametrize("kind", KINDS)
def test_each_store_can_all_of_it_and_nothing_is_left(
    request: pytest.FixtureRequest, world: World, tmp_path: Path, kind: str
):
    store = sharing.store(request, kind, tmp_path)

    assert added(world, store) == ALL

    if kind == "folder":
        assert [path.name for path in Path(store.url).rglob("*") if path.is_file()] == ["store.json"]
    else:
        fs, root = filesystem(world)
        assert fs.find(root) == []


@pytest.mark.parametrize("kind", WITHOUT_FOLDER)
def test_where_a_name_is_made_only_once_one_of_many_at_once_makes_it(
    request: pytest.FixtureRequest, world: World, tmp_path: Path, kind: str
):
    sharing.add_store(world, sharing.store(request, kind, tmp_path))
    fs, root = filesystem(world)
    made = Kind(fs)
    if not made.appears_whole:
        fs.makedirs(root, exist_ok=True)

    for round_number in range(5):
        path = f"{root}/one-{round_number}"

        with ThreadPoolExecutor(8) as pool:
            tries = [pool.submit(made.create, path, bytes([writer]) * 1000) for writer in range(8)]
        errors = [attempt.exception() for attempt in tries]

        winners = [writer for writer, err in enumerate(errors) if err is None]
        assert len(winners) == 1
        assert all(store_errors.says_exists(err) for err in errors if err is not None), errors
        assert fs.cat_file(path) == bytes(winners) * 1000


# ------------------------------------------------------------------------------------------ stores with other manners


def conditional(request: Request) -> bool:
    """Whether an object, or one to try it with, is to be made only once."""
    return "/files/md5/" in request.path and any(name.lower() == "if-none-match" for name in request.headers)


def ignoring(request: Request) -> None:
    request.headers = {name: value for name, value in request.headers.items() if name.lower() != "if-none-match"}


def not_implemented(request: Request) -> tuple[int, str] | None:
    return (501, "NotImplemented") if conditional(request) else None


class SecondFails:
    """The second one who wants to make a name is turned away, for a reason that has nothing to do with the name."""

    def __init__(self, status: int, code: str) -> None:
        self.refusal = (status, code)
        self.seen = 0

    def __call__(self, request: Request) -> tuple[int, str] | None:
        self.seen += conditional(request)
        return self.refusal if conditional(request) and self.seen > 1 else None


def no_deletes(request: Request) -> tuple[int, str] | None:
    return (403, "AccessDenied") if request.method == "DELETE" else None


MANNERS = {
    "ignores the condition": (ignoring, {"exclusive": False}),
    "does not know the condition": (not_implemented, {"exclusive": False}),
    "denies the second": (SecondFails(403, "AccessDenied"), {"exclusive": False}),
    "fails at the second": (SecondFails(400, "AccountProblem"), {"exclusive": False}),
    "lets nobody delete": (no_deletes, {}),
}


@pytest.fixture
def behind(s3_server: servers.S3) -> Iterator[Any]:
    running = []

    def start(rule: proxy.Rule) -> Proxy:
        context = proxy.proxy(int(s3_server.url.rpartition(":")[2]), rule)
        running.append(context)
        return context.__enter__()

    yield start
    for context in running:
        context.__exit__(None, None, None)


@pytest.mark.parametrize("manners", MANNERS)
def test_what_a_store_cannot_do_is_seen(behind: Any, s3_server: servers.S3, world: World, tmp_path: Path, manners: str):
    rule, but = MANNERS[manners]
    server = behind(rule)

    can = added(world, Store(f"s3://bucket/{tmp_path.name}", {**s3_server.options, "endpointurl": server.url}))

    assert can == ALL | but
    left = filesystem(world)[0].find(f"bucket/{tmp_path.name}/files")
    assert len(left) == (1 if rule is no_deletes else 0)


def unconditional_puts(request: Request) -> tuple[int, str] | None:
    """What a bucket says whose policy denies s3:PutObject where the key s3:if-none-match is null."""
    writes = request.method == "PUT" and "/files/md5/" in request.path
    return (403, "AccessDenied") if writes and not conditional(request) else None


@pytest.mark.parametrize("rule", [unconditional_puts, not_implemented, ignoring], ids=lambda rule: rule.__name__)
def test_a_push_works_whatever_a_store_makes_of_the_condition(
    behind: Any, s3_server: servers.S3, world: World, tmp_path: Path, rule: proxy.Rule
):
    server = behind(rule)
    hub = sharing.hub_at(world, tmp_path)
    store = Store(f"s3://bucket/{tmp_path.name}", {**s3_server.options, "endpointurl": server.url})
    shared = sharing.share(world, hub, store)
    commit(world, 1)

    world.ckpt("push", "--verify")

    shared.clone(tmp_path / "other").ckpt("pull")
    assert any(conditional(request) for request in server.seen)


def test_an_object_that_is_whole_is_not_written_over_and_a_damaged_one_is(
    behind: Any, s3_server: servers.S3, world: World, tmp_path: Path
):
    """Two who push the same at once: the second finds it there. What is there may be damaged, and is mended."""
    server = behind(lambda _: None)
    store = Store(f"s3://bucket/{tmp_path.name}", {**s3_server.options, "endpointurl": server.url})
    sharing.share(world, sharing.hub_at(world, tmp_path), store)
    commit(world, 1)
    client, prefix = s3_server.client(), f"{tmp_path.name}/files/md5"
    (small, large) = sorted(world.objects().items(), key=lambda item: item[1].stat().st_size)[
        :: len(world.objects()) - 1
    ]
    client.put_object(Bucket="bucket", Key=f"{prefix}/{large[0][:2]}/{large[0][2:]}", Body=b"cut short")

    world.ckpt("push", "--verify")

    damaged = f"/bucket/{prefix}/{large[0][:2]}/{large[0][2:]}"
    puts = [conditional(r) for r in server.seen if r.method == "PUT" and r.path.split("?")[0] == damaged]
    assert puts == [True, False]
    whole = f"/bucket/{prefix}/{small[0][:2]}/{small[0][2:]}"
    assert [conditional(r) for r in server.seen if r.method == "PUT" and r.path.split("?")[0] == whole] == [True]


# -------------------------------------------------------------------------------------------------------- temporaries


@pytest.fixture(params=["ssh", "webdav"])
def left(request: pytest.FixtureRequest, world: World, tmp_path: Path) -> Path:
    """Where the objects of a store are on this machine, that was pushed to once."""
    store = sharing.store(request, request.param, tmp_path)
    sharing.share(world, sharing.hub_at(world, tmp_path), store)
    commit(world, 1)
    world.ckpt("push")
    if request.param == "ssh":
        return tmp_path / "store/files/md5"
    server: webdav.WebDav = request.getfixturevalue("webdav_server")
    return server.folder / tmp_path.name / "files/md5"


def leave(folder: Path, name: str, *, hours: float) -> Path:
    path = folder / name
    path.write_bytes(b"half of it")
    then = time.time() - hours * 3600
    os.utime(path, (then, then))
    return path


def test_what_killed_uploads_left_is_swept_after_a_day_by_the_next_push(world: World, left: Path):
    old = leave(left, ".ckptvcs-0123456789abcdef.tmp", hours=25)
    young = leave(left, ".ckptvcs-fedcba9876543210.tmp", hours=23)
    others = [leave(left, "notes.txt", hours=1000), leave(left / next(iter(os.listdir(left / "."))), "x", hours=1000)]
    objects = {path for path in left.rglob("*") if path.is_file()} - {old}

    assert world.ckpt("push").out == "everything is up to date\n"
    assert old.exists(), "a push with nothing new looks at nothing"
    commit(world, 2)
    world.ckpt("push")

    assert not old.exists()
    assert young.exists()
    assert all(path.exists() for path in [*others, *objects])
