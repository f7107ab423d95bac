"""A collection condemns what no policy keeps, and sweeps it a grace later; what is out of the ordinary stops it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy
import pytest

from ckptvcs.domain import remote_files
from ckptvcs.errors import BadConfig, LockHeld, MissingObject, NeedsPerson, NotFound, UsageError
from ckptvcs.porcelain import account, fetch, gc, push, rescue
from ckptvcs.porcelain.repo import Repository
from ckptvcs.storage.files import Lock
from tests.support import oracle
from tests.support.places import Place, point_to
from tests.support.world import World

KEEP_ONE = "retain:\n  keep: [{keep_last: 1}]\n  grace: 12h\n"
HOUR = 3600.0


def state(seed: int, size: int = 8) -> dict[str, Any]:
    return {"model": {"w": numpy.arange(size) + 100 * seed}, "optim": {"m": numpy.arange(size) - 100 * seed - 1}}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Four checkpoints on main, the newest of which is kept, and a large one, so that little of all goes."""
    found = Place.create(tmp_path_factory.mktemp("gc") / "base")
    world = found.world
    point_to(world, "../../store", {})
    policy(world, KEEP_ONE)
    with world.repo() as repo:
        repo.commit(state(90, size=20_000), branch="large", step=0)
        for n in range(4):
            repo.commit(state(n), step=n)
        push.execute(repo._repo, push.plan_push(repo._repo, everything=True))
    shutil.rmtree(found.folder / "store/.ckptvcs/repositories")  # it is where the hub of a copy is not
    return found


@pytest.fixture
def place(base: Place, tmp_path: Path) -> Place:
    found = base.copy(tmp_path / "here")
    (found.world.root / ".git/ckptvcs/writer.json").unlink()  # it is a clone of its own
    return found


def policy(world: World, text: str, *, commit: bool = True) -> None:
    path = world.root / "ckpt.yaml"
    path.write_text(path.read_text().partition("retain:")[0] + text)
    if commit:
        world.git("add", "ckpt.yaml")
        world.git("commit", "-qm", "a policy")


def objects(root: Path) -> dict[str, int]:
    return {
        p.parent.name + p.name: p.stat().st_size for p in (root / "files/md5").glob("[0-9a-f][0-9a-f]/*") if p.is_file()
    }


def cache(place: Place) -> dict[str, int]:
    return objects(place.world.root / ".dvc/cache")


def store(place: Place) -> dict[str, int]:
    return objects(place.folder / "store")


def pass_time(place: Place, hours: float) -> None:
    for root in (place.folder / "store", place.world.root / ".dvc/cache"):
        for path in root.rglob("*"):
            if path.is_file():
                os.utime(path, (path.stat().st_mtime - hours * HOUR,) * 2)


def files(place: Place) -> dict[Path, int]:
    """Everything but what git and hints are made of."""
    return {p: p.stat().st_mtime_ns for p in place.folder.rglob("*") if p.is_file() and ".git" not in p.parts}


def collect(place: Place, *names: str, dry_run: bool = False, **options: Any) -> gc.Report:
    repo = Repository.open(place.world.root)
    return gc.collect(repo, gc.Options(places=names, **options), dry_run=dry_run)


def stops(place: Place, **options: Any) -> list[str]:
    with pytest.raises(NeedsPerson, match="a person has to look first") as caught:
        collect(place, **options)
    return [stop["kind"] for stop in caught.value.facts["stops"]]


def entries(place: Place, op: str) -> list[dict]:
    said = oracle.ledger(place.world.root).values()
    return [entry["facts"] for chain in said for entry in chain if entry["op"] == op]


# ------------------------------------------------------------------------------------------------------------ two runs


def test_nothing_goes_in_one_run(place: Place):
    before = cache(place), store(place)

    report = collect(place)

    assert (cache(place), store(place)) == before
    assert len(report.dropped) == 3
    assert {one.place: one.grace_s for one in report.condemned} == {"hot": 12 * HOUR, "bucket": 24 * HOUR}
    assert [one.objects for one in report.swept] == [0, 0]
    (told,) = entries(place, "condemn")
    assert sorted(told["checkpoints"]) == sorted(report.dropped)
    assert told["components"] == ["model", "optim"]


def test_what_was_condemned_goes_a_grace_later_and_no_earlier(place: Place):
    first = collect(place)
    total = {one.place: one.nbytes for one in first.condemned}
    sizes = sum(cache(place).values()), sum(store(place).values())

    pass_time(place, 11)
    early = collect(place)
    pass_time(place, 2)
    later = collect(place)

    assert [one.objects for one in early.swept] == [0, 0]
    assert {one.place for one in early.waiting} == {"hot", "bucket"}
    hot, bucket = later.swept
    assert (hot.place, hot.nbytes, hot.into_trash) == ("hot", total["hot"], False)
    assert sum(cache(place).values()) == sizes[0] - total["hot"]
    assert (bucket.objects, sum(store(place).values())) == (0, sizes[1]), "a remote waits for 24 hours at least"
    pass_time(place, 12)
    assert collect(place).swept[1].nbytes == total["bucket"]
    assert sum(store(place).values()) == sizes[1] - total["bucket"]
    oracle.git(place.world.root, "fsck", "--strict")


def test_what_went_from_a_remote_lies_in_its_trash_until_that_is_emptied(place: Place):
    collect(place, "bucket")
    pass_time(place, 25)
    swept = collect(place, "bucket").swept[0]
    trash = place.folder / "store/.ckptvcs/trash"
    assert sum(p.stat().st_size for p in trash.rglob("*") if p.is_file()) == swept.nbytes

    pass_time(place, 13 * 24)
    assert collect(place, "bucket").swept[0].emptied == 0
    pass_time(place, 25)
    emptied = collect(place, "bucket").swept[0]

    assert (emptied.emptied, emptied.emptied_bytes) == (swept.objects, swept.nbytes)
    assert not trash.exists()
    assert collect(place, "bucket").is_empty


def test_a_dry_run_says_the_same_and_changes_nothing(place: Place):
    before = files(place)

    would = collect(place, dry_run=True)

    assert files(place) == before
    done = collect(place)
    assert would.dropped == done.dropped
    assert would.condemned == done.condemned


def test_what_is_needed_again_is_kept_and_the_ledger_says_so(place: Place):
    dropped = collect(place).dropped
    place.world.ckpt("tag", "paper", "main@step:1")
    pass_time(place, 25)
    before = cache(place)

    report = collect(place)

    (kept,) = report.kept_again
    assert kept in dropped
    assert [facts["checkpoints"] for facts in entries(place, "rescue")] == [[kept]]
    assert len(before) - len(cache(place)) == report.swept[0].objects > 0
    with place.world.repo() as repo:
        assert repo.load("paper")["model"]["w"][0] == 100


def test_components_that_no_rule_keeps_go_alone(place: Place):
    policy(place.world, "retain:\n  keep: [{keep_last: 4, components: [model]}, {keep_last: 1}]\n  grace: 12h\n")

    report = collect(place, "hot")
    pass_time(place, 25)
    collect(place, "hot")

    assert set(report.dropped.values()) == {("optim",)}
    with place.world.repo() as repo:
        assert repo.load("main@step:0", ["model"])["model"]["w"][0] == 0
        with pytest.raises((MissingObject, NotFound)):
            repo.load("main@step:0", ["optim"])["optim"]["m"]


# --------------------------------------------------------------------------------------------------------------- asking


def test_without_a_policy_nothing_is_collected(place: Place):
    policy(place.world, "")

    with pytest.raises(UsageError, match="there is no policy"):
        collect(place)


def test_a_policy_with_a_mistake_is_none(place: Place):
    policy(place.world, "retain:\n  keep: [{keep_last: 0}]\n")

    with pytest.raises(BadConfig):
        collect(place)


def test_only_what_is_named_is_collected(place: Place):
    report = collect(place, "hot", grace_s=0.0)
    swept = collect(place, "hot", grace_s=0.0)

    assert [one.place for one in report.condemned] == ["hot"]
    assert swept.swept[0].objects > 0
    assert len(store(place)) > len(cache(place))
    with pytest.raises(NotFound, match="no place 'cold'"):
        collect(place, "cold")


def test_offline_nobody_is_asked_and_no_remote_is_touched(place: Place):
    place.hub.rename(place.hub.with_name("away"))

    report = collect(place, offline=True)

    assert [one.place for one in report.condemned] == ["hot"]
    with pytest.raises(UsageError, match="without asking anybody"):
        collect(place, "bucket", offline=True)


def test_what_others_pushed_and_nobody_fetched_is_not_condemned(place: Place):
    """Another clone tagged what is dropped here."""
    other = place.make_clone("other")
    point_to(other, "../../store", {})
    with other.repo() as repo:
        fetch.fetch_objects(repo._repo, fetch.plan_objects(repo._repo, "origin/main~2"))
        repo.tag("paper", "origin/main~2")
        push.execute(repo._repo, push.plan_push(repo._repo, ["paper"]))

    assert len(collect(place).dropped) == 2


def test_one_collection_at_a_time(place: Place):
    with Lock(place.world.root / ".git/ckptvcs/gc.lock", timeout_s=0), pytest.raises(LockHeld):
        collect(place)


def test_a_collection_of_another_clone_at_the_same_store_is_waited_for(place: Place):
    path = place.folder / "store/.ckptvcs/gc/collector.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(
        remote_files.to_bytes(remote_files.Marks(run="other", writer="c0ffee00c0ffee00", actor="", objects=()))
    )

    with pytest.raises(LockHeld, match="in 'bucket'"):
        collect(place)

    os.utime(path, (path.stat().st_mtime - 2 * HOUR,) * 2)
    assert collect(place).condemned
    assert not path.exists()


# ---------------------------------------------------------------------------------------------------------------- stops


def test_much_at_once_stops_until_a_person_agrees_to_that_very_number(place: Place):
    place.world.git("branch", "-D", "large")
    for ref in ("refs/remotes/origin/large",):
        place.world.git("update-ref", "-d", ref)
    oracle.git(place.hub, "update-ref", "-d", "refs/heads/large")
    for name, path in place.world.objects().items():  # the large one is none of ours any more
        if path.stat().st_size > 10_000:
            (place.folder / "store/files/md5" / name[:2] / name[2:]).unlink()
            path.unlink()

    assert set(stops(place)) == {"much"}
    assert set(stops(place, yes_delete=2)) == {"much"}
    assert len(collect(place, yes_delete=3).dropped) == 3


def test_a_policy_that_is_not_committed_stops(place: Place):
    policy(place.world, KEEP_ONE.replace("1}", "2}"), commit=False)

    assert stops(place) == ["policy"]


def test_a_policy_that_has_changed_stops_until_it_is_accepted(place: Place):
    collect(place)
    policy(place.world, KEEP_ONE.replace("1}", "2}"))

    assert stops(place) == ["policy"]
    assert len(collect(place, accept_policy=True).kept_again) == 1
    assert collect(place).stops == ()


def test_many_refs_that_are_gone_stop(place: Place):
    for n in range(8):
        place.world.git("tag", f"t{n}", "large")
    collect(place)
    for n in range(8):
        place.world.git("tag", "-d", f"t{n}")
    assert collect(place).is_empty

    with place.world.repo() as repo:
        for n in (4, 5):
            repo.commit(state(n), step=n)

    assert "refs" in stops(place)


def test_a_manifest_that_cannot_be_read_stops(place: Place):
    path = place.world.root / "checkpoints/model.json"
    path.write_text(path.read_text().replace("ckptvcs", "ckptvcx", 1))
    place.world.git("commit", "-qam", "an editor")

    assert stops(place) == ["unreadable"]


def test_a_shallow_clone_stops(place: Place):
    """It does not know what older checkpoints share with those that are dropped."""
    place.world.git("remote", "set-url", "origin", f"file://{place.hub}")
    oracle.git(place.folder, "clone", "-q", "--depth", "2", f"file://{place.hub}", "shallow")
    shallow = World(place.folder / "shallow")
    point_to(shallow, "../../store", {})

    with pytest.raises(NeedsPerson, match="shallow"):
        gc.collect(Repository.open(shallow.root), gc.Options())


def test_a_dry_run_tells_of_stops(place: Place):
    policy(place.world, KEEP_ONE.replace("1}", "2}"), commit=False)

    assert [stop.kind for stop in collect(place, dry_run=True).stops] == ["policy"]


# --------------------------------------------------------------------------------------------------------------- rescue


def rescued(place: Place, revision: str) -> rescue.Rescued:
    repo = Repository.open(place.world.root)
    return rescue.execute(repo, rescue.plan(repo, revision))


def test_a_rescue_brings_back_what_is_in_the_trash_and_keeps_it_for_a_grace(place: Place):
    collect(place)
    pass_time(place, 25)
    collect(place)

    done = rescued(place, "main@step:1")

    assert done.brought_back > 0
    assert account.read(Repository.open(place.world.root)).rescued
    report = collect(place)
    assert not report.dropped
    assert not report.condemned
    repo = Repository.open(place.world.root)
    fetch.fetch_objects(repo, fetch.plan_objects(repo, "main@step:1"))
    with place.world.repo() as face:
        assert face.load("main@step:1")["model"]["w"][0] == 100


def test_what_is_nowhere_any_more_cannot_be_rescued(place: Place):
    for _ in range(3):
        collect(place)
        pass_time(place, 15 * 24)
    before = entries(place, "rescue")

    with pytest.raises(MissingObject, match="cannot be rescued"):
        rescued(place, "main@step:1")

    assert entries(place, "rescue") == before


def test_what_is_not_condemned_needs_no_rescue(place: Place):
    with pytest.raises(NotFound, match="is not condemned"):
        rescued(place, "main")
