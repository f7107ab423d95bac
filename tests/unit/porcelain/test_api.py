"""`ckptvcs.Repo`: opening, closing, and the checks of what callers say."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ckptvcs
from ckptvcs import NoRepository, Repo
from ckptvcs.errors import UsageError
from ckptvcs.porcelain.user_values import check_metrics, check_params
from tests.support.world import World


@pytest.mark.parametrize("start", [".", "checkpoints", "checkpoints/model", "checkpoints/model/model"])
def test_a_repository_is_opened_from_any_folder_in_it(world: World, history, start: str):
    with Repo(world.root / start) as repo:
        assert repo.root == world.root


def test_a_repository_is_opened_through_a_link(world: World, history, tmp_path: Path):
    (tmp_path / "link").symlink_to(world.root)

    with Repo(tmp_path / "link/checkpoints") as repo:
        assert repo.root.resolve() == world.root
        assert len(repo.log()) == 3


def test_a_repository_is_opened_by_a_relative_path(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(world.root.parent)

    with Repo(world.root.name) as repo:
        monkeypatch.chdir("/")
        assert repo.root == world.root
        assert repo.status().branch == "main"


def nothing(folder: Path) -> None:
    pass


def only_git(folder: Path) -> None:
    subprocess.run(["git", "init", "-q", folder], check=True)


def bare(folder: Path) -> None:
    subprocess.run(["git", "init", "-q", "--bare", folder], check=True)


def only_dvc(folder: Path) -> None:
    (folder / ".dvc").mkdir()


def gone(folder: Path) -> None:
    folder.rmdir()


def a_file(folder: Path) -> None:
    folder.rmdir()
    folder.touch()


def a_loop(folder: Path) -> None:
    folder.rmdir()
    folder.symlink_to(folder)


@pytest.mark.parametrize("make", [nothing, only_git, bare, only_dvc, gone, a_file, a_loop])
def test_where_there_is_none_it_says_what_is_missing(tmp_path: Path, make):
    (tmp_path / "place").mkdir()
    make(tmp_path / "place")

    with pytest.raises(NoRepository, match="place") as caught:
        Repo(tmp_path / "place")

    assert caught.value.next_step


def test_closing_twice_is_fine(world: World):
    repo = Repo(world.root)

    repo.close()
    repo.close()


def test_no_descriptor_is_left_open(world: World, state):
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))

    for n in range(3):
        with Repo(world.root) as repo:
            repo.commit(state(n))
            repo.checkout("HEAD~1")
            repo.checkout("main")
            dict(repo.load("HEAD"))
    gc.collect()

    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, ckptvcs; ckptvcs.Repo, ckptvcs.load; print([m for m in ('torch', 'dvc', 'yaml') if m in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def test_every_public_name_is_there():
    assert {name for name in ckptvcs.__all__ if getattr(ckptvcs, name) is None} == set()
    assert dir(ckptvcs) == sorted(ckptvcs.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        ckptvcs.nothing  # noqa: B018


def test_verbs_take_paths_as_text_too(repo: Repo, world: World, history, tmp_path: Path, state):
    torch.save(state(4), tmp_path / "x.pt")

    repo.commit(str(tmp_path / "x.pt"))
    repo.restore("HEAD", to=str(tmp_path / "out"))
    repo.export("HEAD", str(tmp_path / "out.pt"))

    assert repo.show().manifest.step == 4
    assert (tmp_path / "out/model").is_dir()
    assert (tmp_path / "out.pt").is_file()


# ------------------------------------------------------------------------------------------------- metrics, parameters


@pytest.mark.parametrize(
    "value", [0, -1, 1.5, 2**80, np.float64(1.5), np.int8(3), torch.tensor(2), torch.tensor([1.5])]
)
def test_a_number_of_any_library_is_a_metric(value: Any):
    found = check_metrics({"m": value})["m"]

    assert type(found) in (int, float)
    assert found == value


@pytest.mark.parametrize(
    "value", [float("nan"), float("-inf"), "1", b"1", None, True, np.bool_(1), 1j, [1], {}, torch.tensor(True)]
)
def test_what_is_no_finite_number_is_no_metric(value: Any):
    with pytest.raises(UsageError, match="metric 'm' cannot be"):
        check_metrics({"m": value})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (0.5, 0.5),
        ("x", "x"),
        ([1, (2, {"a": 3})], [1, [2, {"a": 3}]]),
        ({1: {2: 3}}, {"1": {"2": 3}}),
        (float("inf"), "inf"),
        (Path("a/b"), "a/b"),
        (torch.float16, "torch.float16"),
        ({1}, "{1}"),
    ],
)
def test_a_parameter_becomes_a_value_of_json(value: Any, expected: Any):
    assert check_params({"p": value}) == {"p": expected}


@pytest.mark.parametrize("value", [np.float64(0.1), np.int64(3), np.float32(0.5), torch.tensor(0.5), np.bool_(1)])
def test_a_number_of_any_library_is_a_number_among_parameters(value: Any):
    assert check_params({"p": value}) == {"p": value.item()}
