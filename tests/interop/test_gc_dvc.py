"""Where `dvc gc` loses data, as its users found out, `ckpt gc` does not: shared caches, clones behind, work in progress.

The bytes that DVC tracks here are those of objects that our policy drops: nothing but what DVC's files say keeps them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy
import pytest

from ckptvcs.errors import NeedsPerson
from ckptvcs.porcelain import gc, push
from ckptvcs.porcelain.repo import Repository
from tests.support.places import Place, point_to
from tests.support.world import World

POLICY = "retain:\n  keep: [{keep_last: 1}]\n  grace: 24h\n  trash: 0d\n"
COUNT = 10


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Ten checkpoints, of which the last is kept; all are pushed."""
    found = Place.create(tmp_path_factory.mktemp("dvc") / "base")
    world = found.world
    world.dvc("config", "core.analytics", "false")
    point_to(world, "../../store", {})
    with (world.root / "ckpt.yaml").open("a") as file:
        file.write(POLICY)
    world.git("add", "ckpt.yaml", ".dvc/config")
    world.git("commit", "-qm", "a policy")
    with world.repo() as repo:
        for n in range(COUNT):
            repo.commit({"model": {"w": numpy.arange(8) + 100 * n}}, step=n)
        push.execute(repo._repo, push.plan_push(repo._repo))
    shutil.rmtree(found.folder / "store/.ckptvcs/repositories")
    return found


@pytest.fixture
def place(base: Place, tmp_path: Path) -> Place:
    found = base.copy(tmp_path / "here")
    (found.world.root / ".git/ckptvcs/writer.json").unlink()  # it is a clone of its own
    return found


def shard(world: World, step: int) -> str:
    """The name of an object that one checkpoint alone has."""
    own = json.loads(world.git("show", f"origin/main~{COUNT - 1 - step}:checkpoints/model.json"))
    return next(f["md5"] for f in own["components"][0]["files"] if f["path"].endswith(".safetensors"))


def dropped(world: World, step: int) -> tuple[str, bytes]:
    """The same, and its bytes."""
    name = shard(world, step)
    return name, world.objects()[name].read_bytes()


def collect(world: World, *places: str) -> None:
    """Both runs, with the grace between them."""
    repo = Repository.open(world.root)
    agreed = len(gc.collect(repo, gc.Options(places=places), dry_run=True).dropped)
    gc.collect(repo, gc.Options(places=places, yes_delete=agreed))
    for root in (repo.dvc_config.cache_dir, world.root.parent / "store"):
        for path in Path(root).rglob("*"):
            if path.is_file():
                os.utime(path, (path.stat().st_mtime - 25 * 3600,) * 2)
    assert any(one.objects for one in gc.collect(Repository.open(world.root), gc.Options(places=places)).swept)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_work_that_is_not_committed_is_kept(place: Place):
    """Staged, untracked, in a stash, in another worktree, in an experiment, of a stage that ran, in a folder: all stay."""
    world = place.world
    data = [dropped(world, step) for step in range(COUNT - 1)]

    def track(name: str, *, folder: bool = False, which: tuple[int, ...]) -> str:
        for n in which:
            path = world.root / (f"{name}/{n}.bin" if folder else name)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data[n][1])
        world.dvc("add", "-q", name)
        return f"{name}.dvc"

    world.git("add", track("data-stash", which=(0,)))
    world.git("stash", "-q")
    world.git("add", track("data-staged", which=(1,)))
    (world.root / "data-staged.dvc").unlink()
    track("data-untracked", which=(2,))
    world.git("add", track("data-folder", folder=True, which=(3, 4)))
    shutil.rmtree(world.root / "data-folder")
    world.git("worktree", "add", "-q", "--detach", "../tree")
    shutil.move(world.root / track("data-tree", which=(5,)), place.folder / "tree")
    source = world.root.parent / "source.bin"
    source.write_bytes(data[6][1])
    (world.root / "recipe").write_text("copy it")
    command = ("-d", "recipe", "-o", "data-out", "cp ../source.bin data-out")
    world.dvc("stage", "add", "-q", "-n", "copy", *command)
    world.dvc("repro", "-q")
    (world.root / "dvc.lock").unlink()  # what is left of it is what DVC remembers of runs

    collect(world, "hot")

    left = world.objects()
    names = dict(
        zip("stash staged untracked folder folder worktree run".split(), [name for name, _ in data], strict=False)
    )
    assert {kind: name for kind, name in names.items() if name not in left} == {}
    assert data[4][0] in left
    assert data[7][0] not in left
    assert data[8][0] not in left
    world.dvc("checkout", "-q", "data-untracked.dvc")


def test_what_an_experiment_holds_is_kept(place: Place):
    """`dvc gc` without `--all-experiments` loses it."""
    world = place.world
    name, data = dropped(world, 0)
    (world.root / ".gitignore").write_text("/data*\n")
    (world.root / "source.bin").write_bytes(data)
    world.git("add", ".gitignore", "source.bin")
    world.dvc("stage", "add", "-q", "-n", "copy", "-o", "data-out", "-d", "source.bin", "cp source.bin data-out")
    world.git("add", "dvc.yaml")
    world.git("commit", "-qm", "a stage")
    world.dvc("exp", "run", "-q", "-n", "try")
    world.git("reset", "-q", "--hard")
    shutil.rmtree(world.root / ".dvc/cache/runs", ignore_errors=True)
    assert world.git("for-each-ref", "refs/exps")

    collect(world, "hot")

    assert name in world.objects()
    assert dropped(world, COUNT - 1)[0] in world.objects()


def test_what_a_clone_pushed_with_dvc_and_we_have_not_fetched_is_kept(place: Place):
    """The case in which `dvc gc -c` of one clone takes away what another one has pushed a minute ago."""
    name, data = dropped(place.world, 0)
    other = place.make_clone("other")
    point_to(other, "../../store", {})
    (other.root / "data").write_bytes(data)
    other.dvc("add", "-q", "data")
    other.git("switch", "-q", "-c", "theirs")
    other.git("add", "data.dvc")
    other.git("commit", "-qm", "data")
    other.dvc("push", "-q", "data.dvc")
    other.git("push", "-q", "origin", "theirs")

    collect(place.world, "bucket")

    fresh = place.make_clone("fresh")
    point_to(fresh, "../../store", {})
    fresh.git("switch", "-q", "theirs")
    fresh.dvc("pull", "-q", "data.dvc")
    assert md5(fresh.root / "data") == name


def test_two_projects_with_one_cache(place: Place):
    """`dvc gc` of one removes what the other has; ours stops until it is told of the other, and then asks it."""
    shared = place.folder / "cache"
    world = place.world
    shutil.move(world.root / ".dvc/cache", shared)
    theirs = World.create(place.folder / "theirs")
    for one in (world, theirs):
        one.dvc("cache", "dir", "-q", "--local", "../cache")
    shards = [shard(world, step) for step in range(4)]
    for n, name in enumerate(["data-committed", "data-staged", "data-untracked"]):
        (theirs.root / name).write_bytes((shared / "files/md5" / shards[n][:2] / shards[n][2:]).read_bytes())
        theirs.dvc("add", "-q", name)
        if name != "data-untracked":
            theirs.git("add", f"{name}.dvc")
        if name == "data-committed":
            theirs.git("commit", "-qm", "data")

    with pytest.raises(NeedsPerson, match="other repositories may use the cache"):
        gc.collect(Repository.open(world.root), gc.Options(places=("hot",)))
    path = world.root / "ckpt.yaml"
    path.write_text(path.read_text() + "  shared_with: [../theirs]\n")
    world.git("commit", "-qam", "a policy")
    collect(world, "hot")

    left = {p.parent.name + p.name for p in (shared / "files/md5").glob("??/*")}
    assert set(shards[:3]) <= left
    assert shards[3] not in left
    for name in ("data-committed", "data-untracked"):
        (theirs.root / name).unlink()
        theirs.dvc("checkout", "-q", f"{name}.dvc")
