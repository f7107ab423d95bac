"""What the tests of the verbs share: a small state, a repository with a short history, and ways to do harm."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ckptvcs import Repo
from ckptvcs.porcelain.commit import Receipt
from ckptvcs.porcelain.repo import Repository
from tests.support.world import World
from tests.unit.storage.conftest import (
    Snapshot,
    _libgit2_sees_this_home,
    flip,
    python,
    small_files,
    snapshot,
    without_privilege,
)

__all__ = ["_libgit2_sees_this_home", "flip", "python", "small_files", "snapshot", "without_privilege"]

State = Callable[..., dict[str, Any]]


def state_of(n: int = 0, size: int = 8) -> dict[str, Any]:
    """A small state whose tensors depend on a number."""
    weights = torch.arange(size, dtype=torch.float32) + n
    return {
        "model": {"frozen": torch.ones(4), "layer.weight": weights},
        "optimizer": {"state": {0: {"exp_avg": weights / 2}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "step": n,
    }


@pytest.fixture
def state() -> State:
    """Makes small states."""
    return state_of


@pytest.fixture(scope="session")
def patterns(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[Receipt]]:
    """What repositories of tests are copies of: an empty one, and one with a short history."""
    folder = tmp_path_factory.mktemp("patterns")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"NAME": "Test", "EMAIL": "test@example.com"}.items():
            patch.setenv(f"GIT_AUTHOR_{name}", value)
        empty = World.create(folder / "empty").root
        shutil.copytree(empty, folder / "short")
        with Repo(folder / "short") as repo:
            receipts = [repo.commit(state_of(n), metrics={"loss": 1 / n}, message=f"step {n}") for n in (1, 2, 3)]
    return empty, folder / "short", receipts


@pytest.fixture
def world(tmp_path: Path, patterns: tuple[Path, Path, list[Receipt]], request: pytest.FixtureRequest) -> World:
    """A repository, empty unless the test asks for its `history`."""
    empty, short, _ = patterns
    return World(shutil.copytree(short if "history" in request.fixturenames else empty, tmp_path / "repo"))


@pytest.fixture
def history(world: World, patterns: tuple[Path, Path, list[Receipt]]) -> list[Receipt]:
    """Checkpoints of steps 1, 2 and 3 on `main`, with a loss."""
    return patterns[2]


@pytest.fixture
def repo(world: World) -> Iterator[Repo]:
    """The repository of `world`, open."""
    with world.repo() as opened:
        yield opened


@pytest.fixture
def repository(world: World) -> Iterator[Repository]:
    """The same, as the verbs get it; it waits for nobody."""
    opened = Repository.open(world.root, lock_wait_s=0.1)
    yield opened
    opened.close()


@pytest.fixture
def everything(snapshot: Callable[[Path], Snapshot]) -> Callable[[World], Snapshot]:
    """All of a repository but our private hints, which may be lost, and what git makes of its own index by looking."""

    def look(world: World) -> Snapshot:
        return {path: what for path, what in snapshot(world.root).items() if not path.startswith(".git/ckptvcs")}

    return look


@pytest.fixture
def artifact(world: World) -> Path:
    """Where the artifact lies in the workspace."""
    return world.root / "checkpoints/model"


@pytest.fixture
def objects_of(world: World) -> Callable[[Receipt], dict[str, Path]]:
    """The objects of a checkpoint in the cache, by their path in the artifact."""

    def find(receipt: Receipt) -> dict[str, Path]:
        return {f.path: world.cache / f.md5[:2] / f.md5[2:] for f in receipt.manifest.all_files()}

    return find


@pytest.fixture
def user_work(world: World) -> Callable[[], list[str]]:
    """Leave work of every kind lying about, and tell what git says of it, now and whenever it is asked again."""
    for name in ("edited.py", "staged.py", "both.py", "removed.py", "gone.py"):
        (world.root / name).write_text("committed\n")
    world.git("add", "-A")
    world.git("commit", "-qm", "code")
    for name in ("staged.py", "both.py", "new.py"):
        (world.root / name).write_text("staged\n")
        world.git("add", name)
    world.git("rm", "-q", "--cached", "removed.py")
    (world.root / "gone.py").unlink()
    for name in ("edited.py", "both.py", "untracked.py"):
        (world.root / name).write_text("edited\n")

    def look() -> list[str]:
        outside = ("--", ".", ":!checkpoints")
        commands = (["status", "--porcelain=v2"], ["diff"], ["diff", "--cached"], ["ls-files", "-s"])
        return [world.git(*command, *outside) for command in commands]

    return look
