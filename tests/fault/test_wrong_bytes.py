"""Remotes that serve something else: each is told by name, nothing of it gets a name here, and another remote is asked."""

from __future__ import annotations

import getpass
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from ckptvcs.errors import IntegrityError
from ckptvcs.porcelain import fetch, push
from ckptvcs.progress import silent
from ckptvcs.storage import downloads
from tests.support import oracle, servers
from tests.support.places import Place, flip, in_folder, point_to
from tests.support.world import World

Get, Put = Callable[[str], bytes], Callable[[str, bytes], None]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Two checkpoints in which each file has another size than the others, and the same in both; they are pushed to a folder."""
    found = Place.create(tmp_path_factory.mktemp("wrong") / "base")
    for seed in (1, 2):
        generator = torch.Generator().manual_seed(seed)
        state = {
            part: {"weight": torch.randint(0, 255, (size,), dtype=torch.uint8, generator=generator)}
            for part, size in (("model", 9 << 20), ("ema", 4000))
        }
        with found.world.repo() as repo:
            repo.commit(state, step=seed)
    point_to(found.world, "../../store", {})
    found.world.ckpt("push")
    point_to(found.make_clone(), "../../store", {})
    found.clone.git("fetch", "-q")
    return found


class Store:
    """One place that objects are in, and how it is looked into without us."""

    def __init__(self, place: Place, get: Get, put: Put, *, url: str, options: dict[str, str]) -> None:
        self.place, self.get, self.put, self.url, self.options = place, get, put, url, options
        point_to(place.clone, url, options)
        self.step = {n: self._objects(f"HEAD~{2 - n}" if n < 2 else "HEAD") for n in (1, 2)}

    def _objects(self, commit: str) -> dict[str, str]:
        manifest = json.loads(oracle.git(self.place.world.root, "show", f"{commit}:checkpoints/model.json"))
        return {
            file["path"].partition("/")[0]: file["md5"]
            for file in oracle.files(manifest)
            if file["path"].endswith(".safetensors")
        }

    @property
    def victim(self) -> str:
        return self.step[2]["model"]

    @property
    def small(self) -> str:
        return self.step[2]["ema"]

    @property
    def older(self) -> str:
        return self.step[1]["model"]


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


@pytest.fixture(params=["folder", "s3", "ssh"])
def store(request: pytest.FixtureRequest, base: Place, tmp_path: Path) -> Store:
    here = base.copy(tmp_path / "here")
    if request.param == "s3":
        return in_a_bucket(here, request.getfixturevalue("s3"))
    folder = here.folder / "store"

    def put(name: str, data: bytes) -> None:
        path = folder / "files/md5" / name[:2] / name[2:]
        path.unlink()
        path.write_bytes(data)
        path.chmod(0o444)

    if request.param == "folder":
        return Store(here, in_folder(folder), put, url="../../store", options={})
    server = request.getfixturevalue("sshd")
    url = f"ssh://{getpass.getuser()}@127.0.0.1:{server.port}{folder}"
    return Store(here, in_folder(folder), put, url=url, options=server.options)


def in_a_bucket(here: Place, server: servers.S3) -> Store:
    client, prefix = server.client(), f"wrong-{random.SystemRandom().randrange(1 << 30)}"

    def key(name: str) -> str:
        return f"{prefix}/files/md5/{name[:2]}/{name[2:]}"

    def put(name: str, data: bytes) -> None:
        client.put_object(Bucket="bucket", Key=key(name), Body=data)

    for path in (here.folder / "store/files/md5").glob("*/*"):
        put(path.parent.name + path.name, path.read_bytes())
    shutil.rmtree(here.folder / "store")
    return Store(
        here,
        lambda name: client.get_object(Bucket="bucket", Key=key(name))["Body"].read(),
        put,
        url=f"s3://bucket/{prefix}",
        options=server.options,
    )


def swap(store: Store) -> None:
    one, other = store.get(store.victim), store.get(store.small)
    store.put(store.victim, other)
    store.put(store.small, one)


def harm(change: Callable[[bytes], bytes]) -> Callable[[Store], None]:
    return lambda store: store.put(store.victim, change(store.get(store.victim)))


HARM: dict[str, Callable[[Store], None]] = {
    "the first bit": harm(flip),
    "the last bit": harm(lambda data: data[:-1] + bytes([data[-1] ^ 0x80])),
    "a bit of the second piece": harm(lambda data: data[: (8 << 20) + 7] + flip(data[(8 << 20) + 7 :])),
    "one byte too few": harm(lambda data: data[:-1]),
    "a piece too few": harm(lambda data: data[: 8 << 20]),
    "one byte too many": harm(lambda data: data + b"\0"),
    "twice": harm(lambda data: data * 2),
    "empty": harm(lambda data: b""),
    "as many zeros": harm(lambda data: bytes(len(data))),
    "two swapped": swap,
    "another object": lambda store: store.put(store.victim, store.get(store.small)),
    "an older version": lambda store: store.put(store.victim, store.get(store.older)),
}


def pull(world: World) -> None:
    with world.repo() as repo:
        fetch.fetch_objects(repo._repo, fetch.plan_objects(repo._repo, "origin/main"))


def test_every_kind_of_wrong_bytes_is_told_and_nothing_of_it_gets_a_name(store: Store):
    clone = store.place.clone
    was = {name: store.get(name) for name in (store.victim, store.small)}

    for kind, do in HARM.items():
        do(store)
        with pytest.raises(IntegrityError) as caught:
            pull(clone)
        for name, data in was.items():
            store.put(name, data)

        assert caught.value.facts["remote"] == "bucket", kind
        assert caught.value.facts["object"] in (
            {store.victim, store.small} if kind == "two swapped" else {store.victim}
        )
        assert caught.value.facts["object"][:10] in str(caught.value)
        assert "remote 'bucket'" in str(caught.value)
        assert caught.value.exit_status == 20
        assert store.victim not in clone.objects(), kind
        oracle.check(clone.root, complete=False)
        assert not clone.temporaries(), kind

    pull(clone)
    clone.git("merge", "-q", "--ff-only", "origin/main")
    clone.ckpt("pull")
    oracle.check(clone.root, complete=False)


def test_another_remote_is_asked_for_what_the_first_has_not_whole_and_for_nothing_else(store: Store, base: Place):
    clone = store.place.clone
    shutil.copytree(base.folder / "store", store.place.folder / "second")
    point_to(clone, "../../second", {}, "second", more=True)
    for kind in ("a bit of the second piece", "one byte too many", "an older version", "empty"):
        was = store.get(store.victim)
        HARM[kind](store)
        shutil.rmtree(clone.root / ".dvc/cache", ignore_errors=True)

        with clone.repo() as repo:
            notes = fetch.fetch_objects(repo._repo, fetch.plan_objects(repo._repo, "origin/main"))

        store.put(store.victim, was)
        assert len(notes) == 1
        assert f"what remote 'bucket' has as object {store.victim[:10]} is something else" in notes[0]
        assert set(store.step[2].values()) <= set(clone.objects())
        oracle.check(clone.root, complete=False)


def test_reading_back_finds_what_is_wrong_there(store: Store):
    point_to(store.place.world, store.url, store.options)
    was = store.get(store.victim)
    with store.place.world.repo() as repo:
        plan = push.plan_push(repo._repo, full=True)
        remote = plan.copies[0].remote
        downloads.verify(remote, plan.needed, silent)
        for kind in ("the last bit", "one byte too many", "an older version"):
            HARM[kind](store)
            with pytest.raises(IntegrityError) as caught:
                downloads.verify(remote, plan.needed, silent)
            store.put(store.victim, was)
            assert caught.value.facts["object"] == store.victim
            assert "remote 'bucket'" in str(caught.value) + caught.value.why


def test_reading_back_heals_what_is_wrong_there(store: Store):
    point_to(store.place.world, store.url, store.options)
    was = store.get(store.victim)
    for kind in ("the last bit", "one byte too many", "an older version", "empty"):
        HARM[kind](store)

        with store.place.world.repo() as repo:
            plan = push.plan_push(repo._repo, full=True)
            healed = push.execute(repo._repo, plan, verify=True)

        assert store.get(store.victim) == was
        assert plan.uploads or [text for text in healed if store.victim[:10] in text]


def test_what_is_wrong_there_and_not_whole_here_is_left(store: Store):
    point_to(store.place.world, store.url, store.options)
    was = store.get(store.victim)
    HARM["the last bit"](store)
    wrong = store.get(store.victim)
    store.place.world.objects()[store.victim].unlink()

    with store.place.world.repo() as repo, pytest.raises(IntegrityError, match=store.victim[:10]):
        push.execute(repo._repo, push.plan_push(repo._repo, full=True), verify=True)

    assert store.get(store.victim) == wrong != was
