"""The bytes that `plan` promises are those that `gc` frees, to the byte, in a folder and in a bucket."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

from ckptvcs.porcelain import gc, places, push, retention
from ckptvcs.porcelain.repo import Repository
from tests.support import servers
from tests.support.places import Place, point_to

FROZEN = numpy.arange(4000)
POLICY = "retain:\n  keep: [{keep_last: 1}, {keep_last: 3, components: [model]}]\n  grace: 24h\n  trash: %s\n"


@pytest.fixture(scope="module")
def s3_server() -> Iterator[servers.S3]:
    with servers.s3() as server:
        yield server


def made(place: Place, url: str, options: dict[str, str], trash: str) -> None:
    """Checkpoints with a part that all share, of which some are kept, some in part, and some not at all."""
    world = place.world
    point_to(world, url, options)
    with (world.root / "ckpt.yaml").open("a") as file:
        file.write(POLICY % trash)
    world.git("add", "ckpt.yaml")
    world.git("commit", "-qm", "a policy")
    with world.repo() as repo:
        for n in range(6):
            head = numpy.arange(500) + n // 2
            state = {"model": {"frozen": FROZEN, "head": head}, "optim": {"m": numpy.arange(900 + n)}}
            repo.commit(state, step=n)
        push.execute(repo._repo, push.plan_push(repo._repo))


def in_folder(root: Path) -> dict[str, tuple[int, int]]:
    """Bytes and links of every file below a folder that is an object."""
    found = {}
    for path in (root / "files/md5").rglob("*"):
        if path.is_file():
            info = path.stat()
            found[path.parent.name + path.name] = (info.st_size, info.st_nlink)
    return found


def disk(root: Path) -> int:
    return sum(size for size, _ in in_folder(root).values())


def promised(place: Place) -> dict[str, int]:
    repo = Repository.open(place.world.root)
    plan = retention.plan(repo, places.opened(repo))
    return {freed.place: freed.nbytes for freed in plan.freed}


def collect(place: Place) -> gc.Report:
    repo = Repository.open(place.world.root)
    agreed = len(gc.collect(repo, gc.Options(), dry_run=True).dropped)
    return gc.collect(repo, gc.Options(yes_delete=agreed))


def age(root: Path, hours: float) -> None:
    for path in root.rglob("*"):
        if path.is_file():
            os.utime(path, (path.stat().st_mtime - 3600 * hours,) * 2)


@pytest.mark.parametrize("trash", ["0d", "14d"])
def test_on_disk(tmp_path: Path, trash: str):
    place = Place.create(tmp_path / "place")
    made(place, "../../store", {}, trash)
    hot, warm = place.world.root / ".dvc/cache", place.folder / "store"
    before = {"hot": disk(hot), "bucket": disk(warm)}

    promise = promised(place)
    collect(place)
    for root in (hot, warm):
        age(root, 25)
    swept = {one.place: one for one in collect(place).swept}

    freed = {"hot": before["hot"] - disk(hot), "bucket": before["bucket"] - disk(warm)}
    assert promise == freed
    assert promise == {name: one.nbytes for name, one in swept.items()}
    assert 0 < freed["bucket"] < before["bucket"]
    trashed = sum(p.stat().st_size for p in (warm / ".ckptvcs/trash").rglob("*") if p.is_file())
    assert trashed == (0 if trash == "0d" else promise["bucket"])
    if trash != "0d":
        age(warm, 15 * 24)
        (_, emptied) = collect(place).swept
        assert emptied.emptied_bytes == promise["bucket"]
        assert sum(p.stat().st_size for p in warm.rglob("*") if p.is_file() and "files" not in p.parts) < 1000


@pytest.mark.parametrize("trash", ["0d", "14d"])
def test_in_a_bucket(tmp_path: Path, s3_server: servers.S3, trash: str, monkeypatch: pytest.MonkeyPatch):
    """What time it is only the server knows: what waits, waits for no time here."""
    monkeypatch.setattr(gc._Run, "grace_s", lambda self, place: 0.0)
    place = Place.create(tmp_path / "place")
    prefix = f"freed-{trash}"
    made(place, f"s3://bucket/{prefix}", s3_server.options, trash)

    def listed(part: str) -> int:
        pages = s3_server.client().get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix=f"{prefix}/{part}")
        return sum(one["Size"] for page in pages for one in page.get("Contents", []))

    before: dict[str, Any] = {"hot": disk(place.world.root / ".dvc/cache"), "bucket": listed("files/md5")}

    promise = promised(place)
    collect(place)
    collect(place)

    assert promise["bucket"] == before["bucket"] - listed("files/md5") > 0
    assert promise["hot"] == before["hot"] - disk(place.world.root / ".dvc/cache") > 0
    assert listed(".ckptvcs/trash") == (0 if trash == "0d" else promise["bucket"])
