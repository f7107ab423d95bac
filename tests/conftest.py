"""A world of its own for every test: no configuration of the user, no clock that matters, no network."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import hypothesis
import pygit2
import pytest
from pygit2.enums import ConfigLevel

from tests.support.world import World

hypothesis.settings.register_profile("default", deadline=None, derandomize=True, max_examples=60, print_blob=True)
hypothesis.settings.register_profile("deep", deadline=None, max_examples=2000, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

SLOWEST_FIRST = ("e2e", "fault", "interop", "property", "unit/train")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A worker takes a file as a whole: those that take minutes come first, so that nobody waits for one at the end."""
    folders = [Path(__file__).parent / name for name in SLOWEST_FIRST]

    def rank(item: pytest.Item) -> int:
        return next((n for n, folder in enumerate(folders) if item.path.is_relative_to(folder)), len(folders))

    items.sort(key=rank)


@pytest.fixture(autouse=True)
def _isolated(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's configuration reaches a test, and nothing of a test's reaches the machine."""
    home = tmp_path_factory.mktemp("home")
    for name in list(os.environ):
        if name.startswith(("GIT_", "DVC_", "CKPT_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(home / "dvc-site"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (home / ".gitconfig").write_text(
        "[user]\n\tname = Test\n\temail = test@example.com\n[init]\n\tdefaultBranch = main\n"
    )
    for level in (
        ConfigLevel.GLOBAL,
        ConfigLevel.XDG,
        ConfigLevel.SYSTEM,
    ):  # libgit2 looked for HOME when it was loaded
        pygit2.settings.search_path[level] = str(home if level == ConfigLevel.GLOBAL else home / "none")


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A repository with git, DVC and ckptvcs, and the programs to look at it with."""
    return World.create(tmp_path / "repo")


@pytest.fixture
def git(tmp_path: Path):
    """Run git in a folder."""

    def run(*args: str, cwd: Path = tmp_path) -> str:
        return subprocess.run(["git", *args], cwd=cwd, check=True, capture_output=True, text=True).stdout

    return run
