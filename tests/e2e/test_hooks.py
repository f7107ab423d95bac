"""The hooks in `hooks/`, run by the real git."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

from tests.support.world import World

HOOKS = Path(__file__).parents[2] / "hooks"


@pytest.fixture
def hooked(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    with world.repo() as repo:
        for step in (1, 2):
            repo.commit({"model": {"w": torch.full((4,), float(step))}}, step=step)
    shutil.copy(HOOKS / "post-checkout", world.root / ".git/hooks/post-checkout")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return world


def test_git_checkout_brings_the_artifact_along(hooked: World):
    hooked.git("checkout", "-q", "main~1")

    assert "up to date" in hooked.dvc("status").out


def test_a_checkout_of_a_commit_without_checkpoints_is_left_alone(hooked: World):
    hooked.git("checkout", "-q", "main~2")

    assert not (hooked.root / "checkpoints/model.dvc").exists()


def test_files_that_are_saved_nowhere_stay(hooked: World):
    mine = hooked.root / "checkpoints/model/mine.txt"
    mine.write_text("mine")

    hooked.git("checkout", "-q", "main~1")

    assert mine.read_text() == "mine"
