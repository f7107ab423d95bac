"""A push and a collector at one store: the push shows what it needs, obeys what is condemned, and heals what was taken."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ckptvcs.errors import Conflict, HostileInput, NewerVersion, StorageError
from ckptvcs.porcelain import leases, push, remotes, replicas, stores
from ckptvcs.porcelain.repo import Repository
from ckptvcs.storage.folder_remote import FolderRemote
from tests.support import oracle, servers
from tests.support.collector import Collector
from tests.support.states import training_state
from tests.support.world import World, run

OLD = 7 * 3600


@pytest.fixture
def shared(world: World, tmp_path: Path) -> World:
    world.git("init", "-q", "--bare", "-b", "main", tmp_path / "hub.git")
    world.git("remote", "add", "origin", tmp_path / "hub.git")
    repo = Repository.open(world.root)
    remotes.add(repo, remotes.plan_add(repo, "team", str(tmp_path / "store")))
    world.git("commit", "-qam", "a remote")
    commit(world, 1)
    return world


@pytest.fixture
def collector(tmp_path: Path) -> Collector:
    return Collector(tmp_path / "store")


def commit(world: World, seed: int) -> None:
    with world.repo() as repo:
        repo.commit(training_state(seed, width=16), step=seed)


def needed(world: World, revision: str = "HEAD") -> set[str]:
    """Names of the objects of a checkpoint, by git and YAML alone."""
    manifest = yaml.safe_load(world.git("show", f"{revision}:checkpoints/model.json"))
    pointer = yaml.safe_load(world.git("show", f"{revision}:checkpoints/model.dvc"))
    return {file["md5"] for file in oracle.files(manifest)} | {pointer["outs"][0]["md5"]}


def pushed(world: World) -> None:
    repo = Repository.open(world.root)
    push.execute(repo, push.plan_push(repo))


def published(tmp_path: Path) -> str:
    return oracle.git(tmp_path / "hub.git", "for-each-ref", "--format=%(refname)")


def records(world: World) -> list[Path]:
    folder = world.root / ".git/ckptvcs/leases"
    return sorted(folder.iterdir()) if folder.is_dir() else []


def during_upload(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Let something happen when the objects have arrived, once."""
    real, done = FolderRemote.upload, []

    def upload(self: FolderRemote, *args: object) -> None:
        real(self, *args)  # type: ignore[arg-type]
        if not done:
            done.append(1)
            act()

    monkeypatch.setattr(FolderRemote, "upload", upload)


# --------------------------------------------------------------------------------------------------------------- leases


def test_a_push_names_what_it_needs_while_it_runs_and_nothing_is_left(
    shared: World, collector: Collector, monkeypatch: pytest.MonkeyPatch
):
    seen: list[dict] = []
    during_upload(monkeypatch, lambda: seen.extend(json.loads(path.read_bytes()) for path in collector.leases()))

    pushed(shared)

    (lease,) = seen
    (chain,) = oracle.ledger(shared.root)
    entry = oracle.ledger(shared.root)[chain][-1]
    assert lease["writer"] == chain.rpartition("/")[2]
    assert lease["actor"] == entry["actor"]
    assert lease["repository"] == shared.git("rev-list", "--max-parents=0", "HEAD")
    assert set(lease["objects"]) == needed(shared)
    assert lease["refs"] == ["refs/heads/main"]
    assert lease["bytes"] == sum(path.stat().st_size for path in collector.objects().values())
    assert collector.leases() == []
    left = [path for path in (collector.store / ".ckptvcs").rglob("*") if path.is_file()]
    assert [path.parent.name for path in left] == ["repositories"], "only who uses the store stays known there"
    assert records(shared) == []


def test_a_push_with_nothing_new_changes_nothing_in_the_store(shared: World, collector: Collector):
    pushed(shared)
    before = {path: path.lstat().st_ctime_ns for path in [collector.store, *collector.store.rglob("*")]}

    assert shared.ckpt("push").out == "everything is up to date\n"

    assert {path: path.lstat().st_ctime_ns for path in [collector.store, *collector.store.rglob("*")]} == before


def test_others_see_a_push_that_is_under_way(shared: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    told: list[dict] = []
    during_upload(monkeypatch, lambda: told.append(shared.ckpt("remote", "show", "team", "--json").json))

    pushed(shared)

    (one,) = told[0]["pushes"]
    assert (one["objects"], one["refs"], one["counts"]) == (len(needed(shared)), ["refs/heads/main"], True)
    assert 0 <= one["age_s"] < 60
    assert shared.ckpt("remote", "show", "team", "--json").json["pushes"] == []


def test_ages_are_by_the_clock_of_the_store(shared: World, collector: Collector, monkeypatch: pytest.MonkeyPatch):
    told: list[str] = []

    def age() -> None:
        (path,) = collector.leases()
        os.utime(path, (time.time() - OLD,) * 2)
        told.append(shared.ckpt("remote", "show", "team").out)

    during_upload(monkeypatch, age)
    pushed(shared)

    assert "7 h old, does not count any more" in told[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_who_may_not_say_so_uploads_nothing(shared: World, collector: Collector, tmp_path: Path):
    (collector.store / ".ckptvcs").mkdir(parents=True)
    (collector.store / ".ckptvcs").chmod(0o555)

    with pytest.raises(StorageError, match=r"cannot write '.ckptvcs/intents/"):
        pushed(shared)

    assert not collector.objects()
    assert published(tmp_path) == ""


def test_who_cannot_write_the_lease_uploads_nothing(shared: World, collector: Collector, tmp_path: Path):
    """As root too: where the folder should be, there is a file."""
    collector.store.mkdir(exist_ok=True)
    (collector.store / ".ckptvcs").write_bytes(b"")

    with pytest.raises(HostileInput, match="cannot go through"):
        pushed(shared)

    assert not collector.objects()
    assert published(tmp_path) == ""


# --------------------------------------------------------------------------------------------------------------- marks


def test_what_is_condemned_is_not_pushed(shared: World, collector: Collector, tmp_path: Path):
    victim = max(needed(shared))
    collector.mark({victim, "0" * 32})

    with pytest.raises(Conflict) as caught:
        pushed(shared)

    assert victim[:10] in caught.value.why
    assert "garbage collection 'collector-1' of writer 'c0ffee00c0ffee00' condemned at 20" in caught.value.why
    assert caught.value.facts["objects"] == [victim]
    assert not collector.objects(), "nothing is uploaded under a condemned name"
    assert published(tmp_path) == ""
    assert collector.leases() == []
    collector.done()
    pushed(shared)
    assert set(collector.objects()) == needed(shared)


def test_what_is_condemned_and_still_there_is_not_relied_upon(shared: World, collector: Collector, tmp_path: Path):
    """The objects are in the store already; a push of refs alone would have nothing to upload."""
    shared.dvc("push")
    collector.mark(set(collector.objects()))

    with pytest.raises(Conflict, match="cannot push to 'team'"):
        pushed(shared)

    assert published(tmp_path) == ""


@pytest.mark.parametrize(("hours", "passes"), [(0, True), (17, True), (18, False), (25, False), (-1, False)])
def test_what_was_condemned_so_short_a_time_ago_that_nobody_sweeps_it_meanwhile_is_pushed(
    shared: World, collector: Collector, tmp_path: Path, hours: float, passes: bool
):
    """A mark of the future is one that somebody's clock is wrong about."""
    shared.dvc("push")
    collector.mark(set(collector.objects()), hours_ago=hours)

    if passes:
        pushed(shared)
    else:
        with pytest.raises(Conflict, match="cannot push to 'team'"):
            pushed(shared)

    assert bool(published(tmp_path)) is passes


@pytest.mark.parametrize(
    ("data", "error"),
    [(b"garbage", HostileInput), (b'{"format":"ckptvcs-marks/2"}', NewerVersion)],
    ids=["garbage", "newer"],
)
def test_marks_that_nobody_can_read_stop_a_push(
    shared: World, collector: Collector, tmp_path: Path, data: bytes, error: type[Exception]
):
    folder = collector.store / ".ckptvcs/gc/marks"
    folder.mkdir(parents=True)
    (folder / "x.json").write_bytes(data)

    with pytest.raises(error, match=r"gc/marks/x\.json"):
        pushed(shared)

    assert not collector.objects()
    (folder / "x.json").rename(folder / "x.bak")
    pushed(shared)


def test_a_collector_that_comes_later_spares_what_is_leased(
    shared: World, collector: Collector, monkeypatch: pytest.MonkeyPatch
):
    """It marked without having seen the lease; its second run sees it, and later the refs."""
    swept: list[set[str]] = []

    def collect() -> None:
        collector.mark(set(collector.objects()))
        swept.append(collector.sweep(live=set()))

    during_upload(monkeypatch, collect)
    pushed(shared)

    assert swept == [set()]
    assert set(collector.objects()) == needed(shared)


# ----------------------------------------------------------------------------------------------------------- slow pushes


STOPS_ITSELF = """
import os, signal, sys
from ckptvcs.storage.folder_remote import FolderRemote
from ckptvcs.storage.history.transport import Git

def stop_after(cls, name):
    real, done = getattr(cls, name), []
    def act(self, *args):
        real(self, *args)
        if not done:
            done.append(1)
            os.kill(os.getpid(), signal.SIGSTOP)
    setattr(cls, name, act)

stop_after(*{"upload": (FolderRemote, "upload"), "move": (Git, "push")}[sys.argv[1]])
from ckptvcs.cli.main import main
main(["push"])
"""


def stopped(world: World, where: str) -> subprocess.Popen[str]:
    """A push that is stopped, as by a closed lid, when objects have arrived or refs have moved."""
    process = subprocess.Popen(
        [sys.executable, "-c", STOPS_ITSELF, where],
        cwd=world.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    return process


def go_on(process: subprocess.Popen[str]) -> tuple[int, str]:
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=120)
    return process.returncode, out + err


def grow_old(collector: Collector) -> list[str]:
    for path in collector.leases():
        os.utime(path, (time.time() - OLD,) * 2)
    return [path.name for path in collector.leases()]


def test_a_push_whose_lease_got_too_old_starts_again_instead_of_moving_refs(
    shared: World, collector: Collector, tmp_path: Path
):
    process = stopped(shared, "upload")
    grow_old(collector)
    collector.mark(set(collector.objects()))
    swept = collector.sweep(live=set())
    assert swept == needed(shared), "nothing protects what a dead push uploaded"
    assert published(tmp_path) == ""

    status, said = go_on(process)

    assert status == 0, said
    assert set(collector.objects()) == needed(shared)
    assert collector.leases() == []


def test_a_push_that_wakes_up_while_a_collector_is_at_work_moves_nothing(
    shared: World, collector: Collector, tmp_path: Path
):
    process = stopped(shared, "upload")
    grow_old(collector)
    collector.mark(set(collector.objects()))

    status, said = go_on(process)

    assert status == 11, said
    assert "condemned" in said
    assert published(tmp_path) == ""
    collector.sweep(live=set())
    shared.ckpt("push")
    assert set(collector.objects()) == needed(shared)


def test_a_lease_that_somebody_removed_is_made_again(
    shared: World, collector: Collector, monkeypatch: pytest.MonkeyPatch
):
    removed: list[Path] = []

    def remove() -> None:
        removed.extend(collector.leases())
        for path in removed:
            path.unlink()

    during_upload(monkeypatch, remove)
    pushed(shared)

    assert removed
    assert set(collector.objects()) == needed(shared)


def test_a_push_that_never_gets_done_in_time_says_so(
    shared: World, collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(leases.Lease, "is_young", lambda self: False)

    with pytest.raises(Conflict, match="cannot push in time"):
        pushed(shared)

    assert published(tmp_path) == ""


def test_after_a_stall_at_the_refs_what_was_taken_is_healed(shared: World, collector: Collector, tmp_path: Path):
    """The collector read the refs before they moved, and removes after that."""
    process = stopped(shared, "move")
    grow_old(collector)
    collector.mark(set(collector.objects()))
    collector.sweep(live=set())
    assert "refs/heads/main" in published(tmp_path)

    status, said = go_on(process)

    assert status == 0, said
    assert set(collector.objects()) == needed(shared)
    assert (collector.leases(), records(shared)) == ([], [])


def test_after_a_stall_at_the_refs_nothing_is_acknowledged_while_a_collector_is_at_work(
    shared: World, collector: Collector
):
    process = stopped(shared, "move")
    grow_old(collector)
    collector.mark(set(collector.objects()))
    process.send_signal(signal.SIGCONT)
    time.sleep(2)
    assert process.poll() is None, "it waits"
    threading.Timer(1, lambda: collector.sweep(live=set())).start()

    status, said = go_on(process)

    assert status == 0, said
    assert set(collector.objects()) == needed(shared)


def test_who_gives_up_waiting_says_so_and_the_next_push_heals(
    shared: World, collector: Collector, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(replicas, "PATIENCE_S", 0.0)
    real = leases.Lease.about_to_move

    def about_to_move(self: leases.Lease) -> None:
        real(self)
        grow_old(collector)
        collector.mark(set(collector.objects()))

    monkeypatch.setattr(leases.Lease, "about_to_move", about_to_move)
    with pytest.raises(Conflict, match="too slow for its lease"):
        pushed(shared)
    monkeypatch.undo()
    collector.sweep(live=set())
    assert not collector.objects()
    assert [path.suffix for path in records(shared)] == [".json", ".lock"]

    told = shared.ckpt("push").out

    assert f"{len(needed(shared))} of {len(needed(shared))} objects" in told
    assert set(collector.objects()) == needed(shared)
    assert (collector.leases(), records(shared)) == ([], [])
    assert shared.ckpt("push").out == "everything is up to date\n"


# ------------------------------------------------------------------------------------------------------------- crashes


@pytest.mark.parametrize("where", ["upload", "move"])
def test_what_a_killed_push_left_is_removed_by_the_next(shared: World, collector: Collector, where: str):
    process = stopped(shared, where)
    process.kill()
    process.communicate()
    assert len(collector.leases()) == 1

    shared.ckpt("push")

    assert (collector.leases(), records(shared)) == ([], [])
    assert shared.ckpt("push").out == "everything is up to date\n"


def test_two_pushes_of_one_clone_leave_each_others_leases_alone(shared: World, collector: Collector):
    shared.git("branch", "other")
    process = stopped(shared, "upload")
    (lease,) = collector.leases()

    shared.ckpt("push", "other")

    assert collector.leases() == [lease]
    status, said = go_on(process)
    assert status == 0, said
    assert collector.leases() == []


def test_what_a_dead_push_claimed_does_not_count_for_ever(shared: World, collector: Collector):
    process = stopped(shared, "upload")
    process.kill()
    process.communicate()
    assert collector.leased() == needed(shared)

    grow_old(collector)

    assert collector.leased() == set()


def test_leases_of_later_versions_are_told_and_passed_over(shared: World, collector: Collector):
    folder = collector.store / ".ckptvcs/intents/0123456789abcdef"
    folder.mkdir(parents=True)
    (folder / "a.json").write_bytes(b'{"format":"ckptvcs-intent/2"}')
    (folder / "b.json").write_bytes(b"\xff")
    (collector.store / ".ckptvcs/intents/..up").mkdir()

    shown = stores.show(Repository.open(shared.root), "team")

    assert shown.pushes == ()
    assert len(shown.notes) == 2
    pushed(shared)


def test_clones_push_at_once_and_nobody_waits(shared: World, collector: Collector, tmp_path: Path):
    pushed(shared)
    worlds = []
    for number in range(3):
        where = tmp_path / f"clone-{number}"
        run(["git", "clone", "-q", str(tmp_path / "hub.git"), str(where)], tmp_path)
        worlds.append(World(where))
        for key, value in (("user.name", "O"), ("user.email", f"{number}@x")):
            worlds[-1].git("config", key, value)
        worlds[-1].git("switch", "-q", "-c", f"exp-{number}")
        commit(worlds[-1], 10 + number)

    processes = [
        subprocess.Popen([sys.executable, "-m", "ckptvcs", "push"], cwd=world.root, stderr=subprocess.PIPE)
        for world in worlds
    ]
    ended = [(process.communicate(timeout=300)[1], process.returncode) for process in processes]

    assert [status for _, status in ended] == [0, 0, 0], ended
    assert set(collector.objects()) >= set().union(*(needed(world) for world in worlds))
    assert collector.leases() == []


# ---------------------------------------------------------------------------------------------------- other stores


def test_over_ssh_it_is_the_same(shared: World, ssh_server: servers.Ssh, tmp_path: Path):
    there = Collector(tmp_path / "elsewhere")
    shared.dvc("remote", "add", "-d", "far", ssh_server.url(there.store))
    for option, value in ssh_server.options.items():
        shared.dvc("remote", "modify", "far", option, value)
    there.mark({max(needed(shared))})

    refused = shared.ckpt("push", status=11)

    assert "cannot push to 'far'" in refused.err
    assert not there.objects()
    there.done()
    shared.ckpt("push")
    assert set(there.objects()) == needed(shared)
    assert there.leases() == []


def test_on_s3_a_lease_costs_a_handful_of_requests_however_many_objects_there_are(
    shared: World, s3_server: servers.S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from s3fs import S3FileSystem

    shared.dvc("remote", "add", "-d", "bucket", f"s3://bucket/{tmp_path.name}")
    for option, value in s3_server.options.items():
        shared.dvc("remote", "modify", "bucket", option, value)
    real, calls = S3FileSystem._call_s3, list[tuple[str, str]]()

    async def call(self: S3FileSystem, method: str, *args: Any, **options: Any) -> Any:
        calls.append((method, str(options.get("Key") or options.get("Prefix") or args)))
        return await real(self, method, *args, **options)

    monkeypatch.setattr(S3FileSystem, "_call_s3", call)
    pushed(shared)
    few = [method for method, key in calls if ".ckptvcs" in key and "/repositories/" not in key]  # that is once
    for seed in range(2, 6):
        commit(shared, seed)
    calls.clear()
    pushed(shared)
    many = [method for method, key in calls if ".ckptvcs" in key]

    keys = [o["Key"] for o in s3_server.client().list_objects_v2(Bucket="bucket", Prefix=tmp_path.name)["Contents"]]
    assert 0 < len(few) == len(many) <= 12, many
    assert len([key for key in keys if "/files/md5/" in key]) > 3 * len(needed(shared))
    assert [key.split("/")[-2] for key in keys if ".ckptvcs" in key] == ["repositories"]
    calls.clear()
    pushed(shared)
    assert calls == []
