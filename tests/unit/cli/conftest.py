"""One repository with a short history, to look at. Who changes something takes a copy of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ckptvcs.cli.main import run
from tests.support.states import training_state
from tests.support.world import Done, World


@pytest.fixture(scope="package")
def ground(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two checkpoints on `main`, a golden mark, a fork, and a file `next.pt` beside the repository."""
    folder = tmp_path_factory.mktemp("cli")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("GIT_", "DVC_", "CKPT_", "XDG_")):
                patch.delenv(name)
        patch.setenv("HOME", str(folder))
        (folder / ".gitconfig").write_text(
            "[user]\n\tname = Test\n\temail = test@example.com\n[init]\n\tdefaultBranch = main\n"
        )
        world = World.create(folder / "repo")
        for step in (1, 2, 3):
            torch.save(training_state(step), folder / f"{step}.pt")
        with world.repo() as repo:
            repo.commit(training_state(1), step=1, metrics={"val_loss": 0.5}, message="first")
            repo.commit(training_state(2), step=2, metrics={"val_loss": 0.25}, message="second")
        world.ckpt("tag", "--golden", "base", "main@step:1")
        world.ckpt("branch", "exp-a", "main@step:1")
    return world


@pytest.fixture
def world(ground: World, tmp_path: Path) -> World:
    """A copy of the repository, to be changed."""
    shutil.copytree(ground.root, tmp_path / "repo", symlinks=True)
    return World(tmp_path / "repo")


Ckpt = Callable[..., Done]


@pytest.fixture
def ckpt(capsys: pytest.CaptureFixture[str]) -> Ckpt:
    """Run `ckpt` in this process: same answers, no start-up."""

    def act(*args: str | Path, at: World | None = None) -> Done:
        words = [*(["-C", str(at.root)] if at else []), *map(str, args)]
        capsys.readouterr()
        status = run(words, as_json="--json" in words)
        captured = capsys.readouterr()
        return Done(captured.out, captured.err, status)

    return act
