"""A state on its way in: whatever it is, it is taken exactly or refused with the place where it cannot be."""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ckptvcs import Repo
from ckptvcs.errors import Conflict, FormatError, UnsupportedValue, UsageError
from ckptvcs.porcelain import incoming
from tests.support.same import assert_same
from tests.support.world import World, run


class Custom:
    """A class that nobody else knows."""


# -------------------------------------------------------------------------------------------------------- from memory


@pytest.mark.parametrize("state", [{}, [], ()])
def test_an_empty_state_is_refused(state: Any):
    with pytest.raises(FormatError, match="empty"):
        incoming.from_state(state)


UNSUPPORTED: dict[str, tuple[Callable[[], Any], str]] = {
    "an object": (Custom, "Custom"),
    "a function": (lambda: print, "builtin_function"),
    "a class": (lambda: Custom, "type"),
    "a lock": (threading.Lock, "lock"),
    "a generator": (lambda: random.Random(0), "Random"),
    "a sparse tensor": (lambda: torch.eye(2).to_sparse(), "Tensor"),
    "a module": (lambda: torch.nn.Linear(1, 1), "Linear"),
    "an array of objects": (lambda: np.array([Custom()], dtype=object), "ndarray"),
    "a tensor without memory": (lambda: torch.empty(2, device="meta"), "Tensor"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_a_value_without_exact_representation_is_named_by_its_path(name: str):
    make, cls = UNSUPPORTED[name]
    state = {"model": {"w": torch.ones(1)}, "extra": {"callbacks": [{}, {"deep": (1, make())}]}}

    with pytest.raises(UnsupportedValue) as caught:
        incoming.from_state(state)

    (fact,) = caught.value.facts["values"]
    assert cls in fact["class"]
    assert all(part in fact["path"] for part in ("extra", "callbacks", "1", "deep"))
    assert fact["path"] in str(caught.value)


def test_all_that_cannot_be_represented_is_told_at_once():
    state = {"model": {"w": torch.ones(1), "a": Custom()}, "extra": [Custom() for _ in range(9)]}

    with pytest.raises(UnsupportedValue, match="and 5 more") as caught:
        incoming.from_state(state)

    assert len(caught.value.facts["values"]) == 10


def test_a_loop_comes_back_as_a_loop(repo: Repo):
    state: dict[str, Any] = {"model": {"w": torch.ones(1)}, "extra": {"list": []}}
    state["extra"]["self"] = state["extra"]
    state["extra"]["list"].append(state["extra"]["list"])

    repo.commit(state)

    assert_same(dict(repo.load("HEAD")), state)


def test_a_very_deep_state_is_taken_or_refused():
    state: Any = torch.ones(1)
    for _ in range(50_000):
        state = [state]

    with pytest.raises(FormatError):
        incoming.from_state({"model": state})


def test_only_the_component_that_needs_it_is_pickled():
    state = {"model": {"w": torch.ones(1)}, "scheduler": {"lambda": Custom()}, "step": 3}

    what = incoming.from_state(state, allow_pickle=True)

    assert set(what.pickled) == {"scheduler"}
    assert {component.name for component in what.components} == {"model", "extra"}


def test_roles_that_are_known_go_before_names():
    what = incoming.from_state({"head": {"w": torch.ones(1)}, "tail": {}}, roles={"head": "model", "tail": "scheduler"})

    assert {c.name: c.role for c in what.components} == {"head": "model", "tail": "scheduler"}


def test_without_torch_arrays_are_tensors_enough(world: World):
    code = (
        "import sys, numpy as np; from ckptvcs import Repo\n"
        "with Repo('.') as repo: repo.commit({'model': {'w': np.arange(6.0).reshape(2, 3)}, 'step': 7})\n"
        "assert 'torch' not in sys.modules"
    )

    run([sys.executable, "-c", code], world.root)

    with world.repo() as repo:
        assert_same(dict(repo.load("HEAD")), {"model": {"w": np.arange(6.0).reshape(2, 3)}, "step": 7})


# ----------------------------------------------------------------------------------------------------------- from files


@pytest.fixture
def saved(tmp_path: Path, state) -> Path:
    """A file of torch."""
    torch.save(state(1), tmp_path / "saved.pt")
    return tmp_path / "saved.pt"


@pytest.mark.parametrize("by", ["name", "link", "link to a link"])
def test_a_file_is_read_by_any_name_that_leads_to_it(saved: Path, repo: Repo, state, by: str):
    path = saved
    for n in range(by.count("link")):
        path.with_name(f"link{n}").symlink_to(path)
        path = path.with_name(f"link{n}")

    repo.commit(path)

    assert_same(dict(repo.load("HEAD")), state(1))


def missing(folder: Path) -> None:
    pass


def loop(folder: Path) -> None:
    (folder / "input").symlink_to("other")
    (folder / "other").symlink_to("input")


def link_to_nowhere(folder: Path) -> None:
    (folder / "input").symlink_to("nowhere")


def below_a_file(folder: Path) -> None:
    (folder / "input").symlink_to("file/below")
    (folder / "file").write_bytes(b"x")


@pytest.mark.parametrize("make", [missing, loop, link_to_nowhere, below_a_file])
def test_a_path_that_leads_nowhere_is_a_mistake_of_the_caller(tmp_path: Path, make):
    make(tmp_path)

    with pytest.raises(UsageError, match="input"):
        incoming.from_path(tmp_path / "input")


def empty_file(path: Path) -> None:
    path.touch()


def text_file(path: Path) -> None:
    path.write_text("no checkpoint")


def empty_folder(path: Path) -> None:
    path.mkdir()


def folder_of_code(path: Path) -> None:
    path.mkdir()
    (path / "train.py").write_text("x")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def distributed(path: Path) -> None:
    path.mkdir()
    (path / ".metadata").write_bytes(b"x")


def truncated(path: Path) -> None:
    torch.save({"w": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[:-500])


@pytest.mark.parametrize("make", [empty_file, text_file, empty_folder, folder_of_code, pipe, distributed, truncated])
def test_what_is_no_checkpoint_is_refused_with_its_name(tmp_path: Path, make):
    make(tmp_path / "input")

    with pytest.raises(FormatError, match="input") as caught:
        incoming.from_path(tmp_path / "input")

    assert caught.value.why


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_may_not_be_read_is_a_mistake_of_the_caller(
    saved: Path, tmp_path: Path, without_privilege: None, kind: str
):
    (tmp_path / "folder").mkdir()
    path = saved if kind == "file" else tmp_path / "folder"
    path.chmod(0)

    with pytest.raises(UsageError, match="permission"):
        incoming.from_path(path)
    path.chmod(0o700)


def test_code_in_a_file_does_not_run(tmp_path: Path):
    torch.save({"model": {"w": torch.ones(1)}, "extra": Touch(tmp_path / "ran")}, tmp_path / "evil.pt")

    with pytest.raises(UnsupportedValue):
        incoming.from_path(tmp_path / "evil.pt")

    assert not (tmp_path / "ran").exists()


class Touch:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mknod, (str(self.path),)


def test_code_in_a_file_runs_if_that_is_asked_for(tmp_path: Path):
    torch.save({"model": {"w": torch.ones(1)}, "extra": Touch(tmp_path / "ran")}, tmp_path / "mine.pt")

    incoming.from_path(tmp_path / "mine.pt", allow_pickle=True)

    assert (tmp_path / "ran").exists()


# ------------------------------------------------------------------------------------------- files that change meanwhile


def rewrite(path: Path) -> None:
    torch.save({"w": torch.zeros(1000)}, path)


def rewrite_in_place(path: Path) -> None:
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(-2000, os.SEEK_END)
        file.write(b"\1")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [rewrite, rewrite_in_place, Path.unlink])
def test_a_file_that_changed_since_it_was_opened_is_noticed(tmp_path: Path, change):
    torch.save({"w": torch.ones(1000)}, tmp_path / "saved.pt")
    what = incoming.from_path(tmp_path / "saved.pt")
    what.check_unchanged()

    change(tmp_path / "saved.pt")

    with pytest.raises(Conflict, match=r"saved\.pt"):
        what.check_unchanged()


def test_a_file_of_safetensors_is_watched_too(tmp_path: Path):
    save_file({"w": torch.ones(1000)}, tmp_path / "w.safetensors")
    what = incoming.from_path(tmp_path / "w.safetensors")

    save_file({"w": torch.zeros(1000)}, tmp_path / "w.safetensors")

    with pytest.raises(Conflict):
        what.check_unchanged()
