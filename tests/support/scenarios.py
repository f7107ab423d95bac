"""Commands to break at every system call, and what must hold of the repository afterwards, whatever happened."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from blake3 import blake3

from tests.support import oracle, strace
from tests.support.states import training_state
from tests.support.world import World

LAUNCH = str(Path(__file__).parents[1] / "fault" / "launch.py")
WORK = "the user's own, not committed"


@dataclass
class Ground:
    """A repository that is copied before each experiment."""

    folder: Path
    before: dict[str, dict] = field(default_factory=dict)

    @property
    def world(self) -> World:
        return World(self.folder / "repo")

    def copy(self, to: Path) -> Ground:
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(self.folder, to, symlinks=True)
        writer = to / "repo/.git/ckptvcs/writer.json"
        if writer.exists():  # it knows a copy of its folder from the folder itself, and here they are to be one
            writer.write_text(json.dumps({**json.loads(writer.read_bytes()), "folder": writer.parent.stat().st_ino}))
        return Ground(to, self.before)


@dataclass(frozen=True)
class Scenario:
    """A command, and what must hold of the repository after it in particular."""

    name: str
    args: tuple[str, ...]
    check: Callable[[Ground], None]

    def command(self, mutant: str = "none") -> list[str]:
        return strace.python([LAUNCH, mutant, *self.args])

    def examine(self, ground: Ground, *, done: bool, repair: bool = True) -> None:
        """Fail unless everything that was there is there, nothing is half there, and the next command works.

        Args:
            ground: where the command ran.
            done: whether it reported success.
            repair: also run the command again, and look once more.
        """
        found = oracle.check(ground.world.root)
        assert set(ground.before) <= set(found), "a checkpoint was lost"
        assert (ground.folder / "b.pt").read_bytes() == (ground.folder / "b.copy").read_bytes(), (
            "the source was changed"
        )
        assert (ground.world.root / "train.py").read_text() == WORK, "the user's work was lost"
        if done:
            self.check(ground)
        if repair:
            again = strace.subprocess.run(
                self.command(), cwd=ground.world.root, capture_output=True, text=True, check=False
            )
            assert again.returncode == 0, f"the next command failed: {again.stdout}{again.stderr}"
            oracle.check(ground.world.root)
            self.check(ground)


def ground(folder: Path) -> Ground:
    """Two checkpoints, uncommitted work, and a file that is still to be committed."""
    folder.mkdir(parents=True)
    world = World.create(folder / "repo")
    for name, seed in (("a", 1), ("b", 2)):
        torch.save(training_state(seed, width=16), folder / f"{name}.pt")
    shutil.copyfile(folder / "b.pt", folder / "b.copy")
    (world.root / "train.py").write_text("print('train')")
    world.git("add", "train.py")
    world.git("commit", "-qm", "code")
    torch.save(training_state(0, width=16), folder / "zero.pt")
    world.ckpt("commit", folder / "zero.pt")
    world.ckpt("commit", folder / "a.pt")
    world.ckpt("note", "main@step:0", "--metric", "acc=0.25")
    (world.root / "train.py").write_text(WORK)
    return Ground(folder, oracle.checkpoints(world.root))


def _tip(ground: Ground, revision: str) -> dict:
    return oracle.checkpoints(ground.world.root)[oracle.git(ground.world.root, "rev-parse", revision).strip()]


def _committed(ground: Ground) -> None:
    root = ground.world.root
    tip = _tip(ground, "main")
    assert tip["step"] == 2
    assert oracle.workspace_of(root, [tip]) == 0, "the workspace does not hold what was committed"
    assert oracle.git(root, "status", "--porcelain").split("\n") == [" M train.py", ""], (
        "index or worktree stayed behind"
    )


def _committed_elsewhere(ground: Ground) -> None:
    root = ground.world.root
    assert _tip(ground, "exp")["step"] == 2
    assert oracle.git(root, "rev-parse", "--abbrev-ref", "HEAD").strip() == "main"
    assert oracle.workspace_of(root, [_tip(ground, "main")]) == 0, "the workspace was touched"
    assert oracle.git(root, "status", "--porcelain").split("\n") == [" M train.py", ""]


def _checked_out(ground: Ground) -> None:
    root = ground.world.root
    assert oracle.git(root, "rev-parse", "HEAD") == oracle.git(root, "rev-parse", "main~1")
    assert oracle.workspace_of(root, [_tip(ground, "HEAD")]) == 0, "the workspace does not hold what is checked out"
    assert oracle.git(root, "status", "--porcelain").split("\n") == [" M train.py", ""]


def _restored(ground: Ground) -> None:
    root = ground.world.root
    assert oracle.workspace_of(root, [_tip(ground, "main~1")]) == 0
    assert oracle.git(root, "rev-parse", "--abbrev-ref", "HEAD").strip() == "main"


def _noted(ground: Ground) -> None:
    root = ground.world.root
    said = [entry["facts"] for entries in oracle.ledger(root).values() for entry in entries]
    tip = oracle.git(root, "show", "main:checkpoints/model.json").encode()
    assert {"checkpoint": blake3(tip).hexdigest(), "message": "", "metrics": {"acc": 0.5}} in said
    assert {"acc": 0.25} in [facts["metrics"] for facts in said], "the note before was lost"
    assert ground.world.ckpt("show", "--json").json["metrics"]["acc"] == 0.5
    assert oracle.git(root, "status", "--porcelain").split("\n") == [" M train.py", ""]


def _merged(ground: Ground) -> None:
    root = ground.world.root
    tip = _tip(ground, "main")
    assert len(tip["parents"]) == 2
    assert len(oracle.git(root, "log", "-1", "--format=%P", "main").split()) == 2, (
        "git does not know what it is made of"
    )
    assert oracle.workspace_of(root, [tip]) == 0, "the workspace does not hold what was merged"
    assert oracle.git(root, "status", "--porcelain").split("\n") == [" M train.py", ""]


SCENARIOS = [
    Scenario("commit", ("commit", "../b.pt"), _committed),
    Scenario("commit-elsewhere", ("commit", "../b.pt", "--branch", "exp"), _committed_elsewhere),
    Scenario("checkout", ("checkout", "main@step:0"), _checked_out),
    Scenario("restore", ("restore", "main@step:0"), _restored),
    Scenario("merge", ("merge", "main", "main@step:0"), _merged),
    Scenario("note", ("note", "main", "--metric", "acc=0.5"), _noted),
]
