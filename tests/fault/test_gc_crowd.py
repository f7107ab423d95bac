"""Clones push while another one collects garbage, with clocks that run fast: nothing that a branch needs is lost."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy
import pytest
import yaml

from tests.support import oracle, servers
from tests.support.places import Place, Read, in_bucket, in_folder, point_to

SCRIPT = str(Path(__file__).parent / "gc_crowd.py")
POLICY = "retain:\n  keep: [{keep_last: 1}]\n  grace: 1min\n  trash: 0d\n"


@pytest.fixture(scope="module")
def s3_server() -> Iterator[servers.S3]:
    with servers.s3() as server:
        yield server


def crowd(place: Place, url: str, options: dict[str, Any], *, pushers: int, seconds: float, max_push_s: float) -> tuple:
    """Let them all work at once; returns what each of them printed: those who push, and the one who collects."""
    world = place.world
    point_to(world, url, options)
    with (world.root / "ckpt.yaml").open("a") as file:
        file.write(POLICY)
    world.git("add", "ckpt.yaml")
    world.git("commit", "-qm", "a policy")
    with world.repo() as repo:
        repo.commit({"model": {"w": numpy.arange(50_000)}}, branch="large", step=0)
    world.ckpt("push", "main", "large")
    names = ["gc", *(f"clone-{n}" for n in range(pushers))]
    for name in names:
        point_to(place.make_clone(name), url, options)
    times = (str(seconds), str(max_push_s))
    processes = [
        subprocess.Popen(
            [sys.executable, SCRIPT, "push" if who else "collect", str(place.folder / name), str(who), *times],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for who, name in enumerate(names)
    ]
    with ThreadPoolExecutor(len(processes)) as pool:
        told = list(pool.map(lambda process: process.communicate(), processes))
    assert not any(p.returncode for p in processes), [err for _, err in told if err]
    collected, *pushed = [out.split() for out, _ in told]
    return pushed, [int(word) for word in collected]


def whole(hub: Path, read: Read) -> int:
    """Fail if a branch needs an object that is not there, or not whole; by git, JSON and hashlib alone."""
    found = 0
    for branch in oracle.git(hub, "for-each-ref", "--format=%(refname)", "refs/heads").split():
        if branch == "refs/heads/main":  # there is no checkpoint on it
            continue
        manifest = json.loads(oracle.git(hub, "show", f"{branch}:checkpoints/model.json"))
        pointer = yaml.safe_load(oracle.git(hub, "show", f"{branch}:checkpoints/model.dvc"))
        for name in (*(file["md5"] for file in oracle.files(manifest)), pointer["outs"][0]["md5"]):
            data = read(name)
            assert data is not None, f"{branch} lost {name}"
            assert hashlib.md5(data).hexdigest() == name.removesuffix(".dir"), f"{branch} has no whole {name}"
            found += 1
    return found


def judge(place: Place, read: Read, pushed: list[list[str]], collected: list[int], *, each: int) -> None:
    assert all(len(some) >= each for some in pushed), [len(some) for some in pushed]
    assert sum(collected) > 0, "nothing was swept: nobody was in anybody's way"
    there = set(oracle.git(place.hub, "rev-list", "--branches").split())
    assert {commit for some in pushed for commit in some} <= there
    assert whole(place.hub, read) > 0
    print(f"{sum(map(len, pushed))} pushes, {len(collected)} collections, {sum(collected)} objects swept")


def test_in_a_folder_for_a_moment(tmp_path: Path):
    place = Place.create(tmp_path / "place")

    pushed, collected = crowd(place, "../../store", {}, pushers=3, seconds=20, max_push_s=3)

    judge(place, in_folder(place.folder / "store"), pushed, collected, each=1)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_eight_clones_at_a_bucket_for_ten_minutes(tmp_path: Path, s3_server: servers.S3):
    place = Place.create(tmp_path / "place")

    pushed, collected = crowd(place, "s3://bucket/crowd", s3_server.options, pushers=8, seconds=600, max_push_s=30)

    judge(place, in_bucket(s3_server, "crowd"), pushed, collected, each=5)
