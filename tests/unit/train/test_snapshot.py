"""A snapshot is what the state was when it was taken, whatever happens to the state afterwards."""

from __future__ import annotations

import copy
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from ckptvcs import Repo
from ckptvcs.errors import Conflict
from ckptvcs.porcelain import commit, incoming
from ckptvcs.porcelain.describe import Options
from ckptvcs.porcelain.repo import Repository
from ckptvcs.train.snapshot import Snapshots
from tests.support.same import assert_same
from tests.support.states import DTYPES, tensor_of, training_state
from tests.support.world import World


def committed(world: World, what: incoming.Incoming) -> Any:
    """Commit something and load it again."""
    repository = Repository.open(world.root)
    commit.execute(repository, commit.plan(repository, what, Options(run_id="r")))
    repository.close()
    with Repo(world.root) as repo:
        loaded = repo.load("HEAD")
        return dict(loaded)


def spoil(value: Any) -> None:
    """Change everything in a state in place."""
    if isinstance(value, torch.Tensor):
        raw = torch.empty(0, dtype=torch.uint8).set_(value.untyped_storage())
        raw.bitwise_xor_(0xFF)
    elif isinstance(value, np.ndarray):
        value.view(np.uint8)[...] ^= 0xFF
    elif isinstance(value, bytearray):
        value[:] = bytes(len(value))
    elif isinstance(value, dict):
        for inner in list(value.values()):
            spoil(inner)
        value["added"] = 1
    elif isinstance(value, list):
        for inner in value:
            spoil(inner)
        value.clear()


def odd_state() -> dict[str, Any]:
    weights = torch.arange(24.0).reshape(4, 6)
    return {
        "model": {
            "flipped": weights.T,
            "part": torch.arange(10)[2:7],
            "repeated": torch.ones(1).expand(4),
            "none": torch.ones(0),
        },
        "optimizer": {"state": {0: {"step": torch.tensor(3.0), "long": bytearray(b"x" * 5000)}}, "list": [1, 2, [3]]},
        "rng": {"numpy": np.arange(7, dtype=">i4"), "text": "x", "bytes": b"y" * 5000},
    }


@pytest.mark.parametrize("make", [lambda: training_state(1), odd_state], ids=["training", "odd"])
def test_what_is_committed_is_what_was_when_the_copy_was_taken(world: World, make):
    state, expected = make(), make()

    what = Snapshots().take(incoming.from_state(state))
    spoil(state)

    assert_same(committed(world, what), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_element_type_is_copied(world: World, dtype: torch.dtype):
    tensor = tensor_of(dtype, (3, 5), 1)
    expected = tensor.clone()

    what = Snapshots().take(incoming.from_state({"model": {"w": tensor, "x": tensor.t()[::2]}}))
    spoil(tensor)

    assert_same(committed(world, what), {"model": {"w": expected, "x": expected.t()[::2]}})


def test_tied_tensors_stay_tied_and_are_copied_once(world: World):
    shared = torch.arange(1000.0)
    state = {"model": {"a": shared, "b": shared, "part": shared[10:20]}, "ema": {"a": shared}}
    expected = copy.deepcopy(state)

    what = Snapshots().take(incoming.from_state(state))
    shared.zero_()

    assert sum(len(component.leaves) for component in what.components) == 1
    loaded = committed(world, what)
    assert_same(loaded, expected)
    loaded["model"]["a"][10] = -1
    assert loaded["model"]["part"][0] == loaded["ema"]["a"][10] == -1


def addresses(what: incoming.Incoming) -> dict[tuple[str, str], int]:
    return {
        (component.name, name): torch.frombuffer(leaf.read(), dtype=torch.uint8).data_ptr()
        for component in what.components
        for name, leaf in component.leaves.items()
        if leaf.nbytes
    }


def test_the_memory_of_the_last_copy_is_used_again():
    snapshots = Snapshots()

    first = addresses(snapshots.take(incoming.from_state(training_state(1))))
    second = addresses(snapshots.take(incoming.from_state(training_state(2))))

    assert first == second


def test_the_memory_of_the_state_is_never_that_of_the_copy():
    state = training_state(1)

    taken = addresses(Snapshots().take(incoming.from_state(state)))

    assert not set(taken.values()) & set(addresses(incoming.from_state(state)).values())


@pytest.mark.parametrize(("before", "after"), [((4,), (8,)), ((8,), (4,)), ((2, 3), (3, 2)), ((0,), (5,))])
def test_a_tensor_of_another_size_gets_memory_of_its_own(before: tuple[int, ...], after: tuple[int, ...]):
    snapshots = Snapshots()
    snapshots.take(incoming.from_state({"model": {"w": torch.zeros(before)}}))

    what = snapshots.take(incoming.from_state({"model": {"w": torch.ones(after), "new": torch.ones(2)}}))

    (model,) = what.components
    assert bytes(model.leaves["w"].read()) == torch.ones(after).numpy().tobytes()
    assert bytes(model.leaves["new"].read()) == torch.ones(2).numpy().tobytes()


def test_a_copy_can_be_read_by_several_threads_while_the_state_changes():
    state = {"model": {f"w{n}": torch.full((10_000,), float(n)) for n in range(8)}}
    (model,) = Snapshots().take(incoming.from_state(state)).components
    found: dict[str, set[float]] = {}

    def read(name: str) -> None:
        found[name] = {float(v) for _ in range(20) for v in np.frombuffer(model.leaves[name].read(), "f4")[::999]}

    threads = [threading.Thread(target=read, args=(name,)) for name in model.leaves]
    for thread in threads:
        thread.start()
    spoil(state)
    for thread in threads:
        thread.join()

    assert found == {f"w{n}": {float(n)} for n in range(8)}


def test_what_is_no_tensor_is_passed_on():
    before = incoming.from_state({"model": {"w": torch.ones(1)}, "step": 3}, files={"model/config.json": b"{}"})

    what = Snapshots().take(before)

    assert (what.files, what.source, what.hints, what.facts) == (
        before.files,
        before.source,
        before.hints,
        before.facts,
    )


def folder(tmp_path: Path) -> Path:
    """A folder as Hugging Face's libraries write them."""
    path = tmp_path / "folder"
    path.mkdir()
    safetensors.torch.save_file({"w": torch.arange(1000.0)}, path / "model.safetensors")
    torch.save({"m": torch.ones(3)}, path / "optimizer.pt")
    (path / "config.json").write_text('{"a": 1}')
    return path


def test_a_folder_may_be_emptied_and_removed_as_soon_as_the_copy_is_taken(world: World, tmp_path: Path):
    path = folder(tmp_path)

    what = Snapshots().take(incoming.from_path(path))
    for file in path.iterdir():
        file.write_bytes(b"")
    shutil.rmtree(path)

    loaded = committed(world, what)
    assert torch.equal(loaded["model"]["w"], torch.arange(1000.0))
    assert torch.equal(loaded["optimizer"]["m"], torch.ones(3))
    assert (world.root / "checkpoints/model/model/config.json").read_text() == '{"a": 1}'


def test_a_folder_that_changes_while_the_copy_is_taken_is_no_state(tmp_path: Path):
    what = incoming.from_path(folder(tmp_path))
    safetensors.torch.save_file({"w": torch.zeros(2000)}, tmp_path / "folder/model.safetensors")

    with pytest.raises(Conflict, match="changed or removed while it was read"):
        Snapshots().take(what)
