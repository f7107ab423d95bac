"""SIGKILL and SIGSTOP at every step of a collection: nothing that is needed is lost, and the next one finishes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy
import pytest
import yaml

from ckptvcs.errors import Conflict
from ckptvcs.porcelain import fetch, gc, push
from ckptvcs.porcelain.repo import Repository
from ckptvcs.storage import files
from tests.support import oracle
from tests.support.gc_world import state
from tests.support.places import Place, point_to
from tests.support.world import run

STEPS = str(Path(__file__).parent / "steps.py")
POLICY = "retain:\n  keep: [{keep_last: 1}]\n  grace: 24h\n  trash: 1d\n"
IN_SHORT = 4
HOURS = 25


def objects(root: Path) -> dict[str, Path]:
    return {p.parent.name + p.name: p for p in (root / "files/md5").glob("[0-9a-f][0-9a-f]/*")}


def pass_time(place: Place) -> None:
    for root in (place.folder / "store", place.clone.root / ".dvc/cache"):
        for path in root.rglob("*"):
            if path.is_file():
                os.utime(path, (path.stat().st_mtime - HOURS * 3600,) * 2)


def copy(place: Place, to: Path) -> Place:
    found = place.copy(to)
    for name in ("repo", "clone"):
        writer = to / name / ".git/ckptvcs/writer.json"
        if writer.exists():  # it knows a copy of its folder from the folder itself, and here they are to be one
            writer.write_text(json.dumps({**json.loads(writer.read_bytes()), "folder": writer.parent.stat().st_ino}))
    return found


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Place]:
    """What a collection finds: nothing condemned yet; some of it due; some of it in the trash for long enough."""
    folder = tmp_path_factory.mktemp("gc")
    found = Place.create(folder / "condemn")
    world = found.world
    point_to(world, "../../store", {})
    with (world.root / "ckpt.yaml").open("a") as file:
        file.write(POLICY)
    world.git("add", "ckpt.yaml")
    world.git("commit", "-qm", "a policy")
    with world.repo() as repo:
        repo.commit({"model": {"w": numpy.arange(30_000)}}, branch="large", step=0)
        for n in range(4):
            repo.commit(state(n, n), step=n)
    world.ckpt("push", "--all")
    shutil.rmtree(found.folder / "store/.ckptvcs/repositories")
    clone = found.make_clone()
    point_to(clone, "../../store", {})
    with clone.repo() as repo:
        for revision in ("origin/large", "main", "main~1", "main~2", "main~3"):
            fetch.fetch_objects(repo._repo, fetch.plan_objects(repo._repo, revision))
    clone.ckpt("restore", "main")
    places = {"condemn": found}
    for name, earlier in (("sweep", "condemn"), ("empty", "sweep")):
        places[name] = copy(places[earlier], folder / name)
        places[name].clone.ckpt("gc")
        pass_time(places[name])
    return places


def command(signum: str, at: int, *args: str) -> list[str]:
    return [sys.executable, "-B", STEPS, signum, str(at), *args]


def steps_of(place: Place, tmp_path: Path) -> int:
    done = run(command("SIGKILL", 0, "gc"), copy(place, tmp_path / "counted").clone.root)
    return int(done.err.split()[-1])


def sample(count: int, *, full: bool) -> list[int]:
    """Numbers of steps: all of them, or some that are spread over all."""
    every = range(1, count + 1)
    return list(every) if full else sorted({every[round(n * (count - 1) / (IN_SHORT - 1))] for n in range(IN_SHORT)})


def needed(root: Path, revision: str) -> dict[str, str]:
    """What a checkpoint needs, by git, YAML and JSON alone; of the list of its files the MD5 without what it ends in."""
    manifest = json.loads(oracle.git(root, "show", f"{revision}:checkpoints/model.json"))
    pointer = yaml.safe_load(oracle.git(root, "show", f"{revision}:checkpoints/model.dvc"))
    names = [file["md5"] for file in oracle.files(manifest)] + [pointer["outs"][0]["md5"]]
    return {name: name.removesuffix(".dir") for name in names}


def nothing_is_lost(place: Place, revisions: Sequence[str]) -> None:
    """Fail unless the store has what the hub needs, and the clone what it has checked out, and all of it whole."""
    for root, where, some in (
        (place.folder / "store", place.hub, revisions),
        (place.clone.root / ".dvc/cache", place.clone.root, ("HEAD",)),
    ):
        there = objects(root)
        for revision in some:
            for name, md5 in needed(where, revision).items():
                assert name in there, f"{root.name} lost {name}, which {revision} needs"
                assert hashlib.md5(there[name].read_bytes()).hexdigest() == md5
    oracle.check(place.clone.root, complete=False)


def collect(place: Place) -> None:
    gc.collect(Repository.open(place.clone.root), gc.Options())


def pushes(place: Place, name: str) -> bool:
    """Push from the other clone; False if that has to wait for a collection."""
    repo = Repository.open(place.world.root)
    try:
        push.execute(repo, push.plan_push(repo, [name]))
    except Conflict:
        return False
    return True


def finishes(place: Place) -> None:
    """The next collections do what is left: nothing is left of what nobody needs, nor of the book-keeping."""
    for _ in range(4):
        collect(place)
        pass_time(place)
    kept = {name for revision in ("main", "large") for name in needed(place.hub, revision)}
    assert set(objects(place.folder / "store")) == kept
    left = [p for p in (place.folder / "store/.ckptvcs").rglob("*") if p.is_file()]
    assert not [p for p in left if p.parent.name != "repositories" and not p.name.startswith(files.PREFIX)]
    assert not list((place.clone.root / ".dvc/cache/.ckptvcs/gc").rglob("*.json"))
    assert set(objects(place.clone.root / ".dvc/cache")) == kept


WHAT = ["condemn", "sweep", "empty"]
LENGTHS = [False, pytest.param(True, marks=[pytest.mark.long, pytest.mark.timeout(7200)])]


@pytest.mark.parametrize("full", LENGTHS, ids=["some", "every"])
@pytest.mark.parametrize("what", WHAT)
def test_a_kill_loses_nothing_and_the_next_collection_finishes(
    before: dict[str, Place], tmp_path: Path, what: str, full: bool
):
    count = steps_of(before[what], tmp_path)
    assert count > 15, "the harness sees hardly anything"

    died = 0
    for at in sample(count, full=full):
        here = copy(before[what], tmp_path / "here")
        done = run(command("SIGKILL", at, "gc"), here.clone.root, status=None)
        died += done.status == -signal.SIGKILL
        nothing_is_lost(here, ["main", "large"])
        finishes(here)
        nothing_is_lost(here, ["main", "large"])

    assert died >= (count * 0.9 if full else IN_SHORT - 1)


# ---------------------------------------------------------------------------------------------------------------- stops


def push_what_is_dropped(place: Place) -> None:
    """Another clone makes again, on a branch of its own, what nobody needed so far; it may be told to wait."""
    with place.world.repo() as repo:
        repo.commit(state(1, 1), branch="again", step=10, workspace=False)
    pushes(place, "again")


def tag_what_is_dropped(place: Place) -> None:
    """Another clone gives a name to what nobody needed so far; it may be told to wait."""
    with place.world.repo() as repo:
        repo.tag("again", "main~2")
    pushes(place, "again")


@pytest.mark.parametrize("full", LENGTHS, ids=["some", "every"])
@pytest.mark.parametrize(
    ("what", "act"),
    [("sweep", push_what_is_dropped), ("sweep", tag_what_is_dropped), ("empty", push_what_is_dropped)],
    ids=["sweep-push", "sweep-tag", "empty-push"],
)
def test_who_pushes_while_a_collection_stands_still_loses_nothing(
    before: dict[str, Place], tmp_path: Path, what: str, full: bool, act: Callable[[Place], None]
):
    stood = 0
    for at in sample(steps_of(before[what], tmp_path), full=full):
        here = copy(before[what], tmp_path / "here")
        process = subprocess.Popen(
            command("SIGSTOP", at, "gc"), cwd=here.clone.root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), "it ended before that step"
        stood += 1
        act(here)
        process.send_signal(signal.SIGCONT)
        process.wait(timeout=120)
        collect(here)
        if "again" not in names_at(here.hub):  # who was told to wait has only to wait
            pass_time(here)
            collect(here)
            assert pushes(here, "again")
        assert "again" in names_at(here.hub)
        nothing_is_lost(here, names_at(here.hub))
    assert stood >= IN_SHORT - 1


def names_at(hub: Path) -> list[str]:
    return oracle.git(hub, "for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads", "refs/tags").split()
