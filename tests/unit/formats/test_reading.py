"""The files of an artifact become the state again; files that contradict each other become an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from ckptvcs.errors import CkptvcsError, FormatError, NotFound
from ckptvcs.formats import torch_state
from ckptvcs.formats.reading import NeutralBuilder, build, named_leaves
from tests.support.same import assert_same
from tests.support.states import training_state
from tests.unit.formats.makers import MIB, opened, read, tree, write

ZERO = "0" * 64
SHARD = {"model/s.safetensors": safetensors.torch.save({"w": torch.arange(4.0)})}
W = {"name": "w", "dtype": "F32", "shape": [4], "shard": "s.safetensors", "blake3": ZERO}


def files(*table: dict[str, Any], node: Any = None, shard: dict[str, bytes] | None = None) -> dict[str, bytes]:
    return {
        "model/tree.json": tree(list(table), node or {"w": {"$tensor": "w"}}),
        **(SHARD if shard is None else shard),
    }


def view(name: str = "w", of: str = "base", offset: int = 0, strides: Any = (1,), **rest: Any) -> dict[str, Any]:
    entry = {"name": name, "dtype": "F32", "shape": [4], **rest}
    return {**entry, "view": {"of": of, "offset": offset, "strides": list(strides)}}


BASE = {**W, "name": "base"}
BASE_SHARD = {"model/s.safetensors": safetensors.torch.save({"base": torch.arange(4.0)})}


def test_a_state_comes_back():
    state = training_state(1)

    assert_same(state, read(write(state)))


def test_wanted_components_come_as_a_dict_of_them():
    state = training_state(1)
    artifact = opened(write(state))

    found = torch_state.load(artifact, ["model", "rng"])

    assert_same({"model": state["model"], "rng": state["rng"]}, found)


def test_only_the_shards_that_are_wanted_are_opened():
    written = write(training_state(1))
    asked: list[str] = []
    artifact = opened(written)
    artifact._open_file = lambda path: asked.append(path) or bytearray(written[path])  # type: ignore[method-assign]

    torch_state.load(artifact, ["model"])

    assert {path.split("/")[0] for path in asked} == {"model"}
    assert len(asked) == len(set(asked))


def test_what_is_shared_between_components_is_one_memory():
    weight = torch.ones(4)

    back = read(write({"model": {"w": weight}, "ema": {"w": weight}}))
    back["model"]["w"][0] = 7

    assert back["ema"]["w"][0] == 7


def test_a_copy_has_memory_of_its_own():
    written = write({"model": {"w": torch.zeros(4)}})
    memory = {path: bytearray(data) for path, data in written.items()}
    artifact = opened(written)
    artifact._open_file = lambda path: memory[path]  # type: ignore[method-assign]

    back = torch_state.load(artifact, copy=True)
    for data in memory.values():
        data[:] = b"\xff" * len(data)

    assert back["model"]["w"].tolist() == [0] * 4


def test_a_component_that_is_not_there_is_not_found():
    with pytest.raises(NotFound) as caught:
        opened(files(W)).tree("ema")

    assert "model" in caught.value.why


@pytest.mark.parametrize(
    "spoil",
    [
        lambda f: f | {"model/s.safetensors": safetensors.torch.save({"other": torch.arange(4.0)})},
        lambda f: f | {"model/s.safetensors": safetensors.torch.save({"w": torch.arange(5.0)})},
        lambda f: f | {"model/s.safetensors": safetensors.torch.save({"w": torch.arange(4.0).view(2, 2)})},
        lambda f: f | {"model/s.safetensors": safetensors.torch.save({"w": torch.arange(4, dtype=torch.int32)})},
        lambda f: f | {"model/s.safetensors": f["model/s.safetensors"][:-1]},
        lambda f: f | {"model/s.safetensors": b""},
        lambda f: f | {"model/tree.json": f["model/tree.json"][:-1]},
        lambda f: f | {"model/tree.json": b""},
    ],
    ids=["name", "size", "shape", "type", "torn shard", "empty shard", "torn tree", "empty tree"],
)
def test_files_that_contradict_each_other_are_refused(spoil: Callable[[dict[str, bytes]], dict[str, bytes]]):
    with pytest.raises(FormatError):
        read(spoil(files(W)))


def test_a_tensor_that_the_table_does_not_list_is_refused():
    with pytest.raises(FormatError, match="'x'"):
        read(files(W, node={"$tensor": "x"}))


def test_a_view_is_made_over_the_memory_of_what_is_stored():
    back = read(files(BASE, view(offset=4, shape=[3]), node=[{"$tensor": "w"}, {"$tensor": "base"}], shard=BASE_SHARD))

    back["model"][1][1] = 7

    assert back["model"][0].tolist() == [7, 2, 3]


@pytest.mark.parametrize("kind", ["ndarray", "bytes", "bytearray"])
def test_a_view_of_what_is_no_tensor_is_refused(kind: str):
    table = [{**BASE, "dtype": "U8", "shape": [16], "kind": kind}, view()]
    shard = {"model/s.safetensors": safetensors.torch.save({"base": torch.arange(16, dtype=torch.uint8)})}

    for how in (read, lambda f: build(opened(f), NeutralBuilder)):
        with pytest.raises(FormatError, match="no tensor"):
            how(files(*table, shard=shard))


def test_a_view_of_an_impossible_shape_is_refused():
    with pytest.raises(FormatError):
        read(files(BASE, view(shape=[1 << 61, 1 << 61, 0], strides=[0, 0, 0]), shard=BASE_SHARD))


@pytest.mark.parametrize("how", [{}, {"copy": True}], ids=["mapped", "copied"])
@pytest.mark.parametrize(
    "entry",
    [
        view(of="nope"),
        view(offset=2),
        view(shape=[1 << 61]),
        view(dtype="F64"),
        view(strides=[1 << 61]),
    ],
    ids=["of nothing", "within an element", "huge", "wider", "far"],
)
def test_a_view_that_cannot_be_is_refused(entry: dict[str, Any], how: dict[str, Any]):
    with pytest.raises(FormatError):
        read(files(BASE, entry, shard=BASE_SHARD), **how)


def test_a_view_does_not_reach_beyond_a_copied_tensor():
    with pytest.raises(FormatError):
        read(files(BASE, view(shape=[400]), shard=BASE_SHARD), copy=True)


@pytest.mark.parametrize("of", [("w", "w"), ("x", "w")], ids=["itself", "each other"])
def test_views_that_look_at_each_other_are_refused(of: tuple[str, str]):
    table = [view("w", of=of[0]), view("x", of=of[1])]

    with pytest.raises(FormatError):
        read(files(*table))


def test_without_torch_a_view_of_a_view_is_refused():
    table = [BASE, view("x"), view("w", of="x")]

    with pytest.raises(FormatError, match="in no shard"):
        build(opened(files(*table, shard=BASE_SHARD)), NeutralBuilder)


@pytest.mark.parametrize(
    "attrs",
    [
        {"stride": [-1]},
        {"stride": [MIB]},
        {"stride": [1 << 40]},
        {"stride": [1, 2]},
        {"stride": [0]},
        {"expand": [5]},
        {"expand": [-2, 4]},
    ],
    ids=str,
)
def test_attributes_that_do_not_fit_their_tensor_are_refused(attrs: dict[str, Any]):
    with pytest.raises(FormatError):
        read(files({**W, "attrs": attrs}))


@pytest.mark.parametrize("attrs", [{"requires_grad": True}, {"parameter": True, "requires_grad": True}], ids=str)
def test_integers_have_no_gradient(attrs: dict[str, Any]):
    shard = {"model/s.safetensors": safetensors.torch.save({"w": torch.arange(4)})}

    with pytest.raises(FormatError):
        read(files({**W, "dtype": "I64", "attrs": attrs}, shard=shard))


def test_without_torch_a_state_is_leaves_and_arrays():
    state = {"model": {"t": torch.ones(2, 3), "n": np.arange(3)}}

    found = build(opened(write(state)), NeutralBuilder)

    assert (found["model"]["t"].dtype, found["model"]["t"].shape) == ("F32", (2, 3))
    assert bytes(found["model"]["t"].read()) == torch.ones(2, 3).numpy().tobytes()
    assert found["model"]["n"].tolist() == [0, 1, 2]


def test_the_leaves_of_a_component_are_named_as_their_paths():
    weight = torch.ones(2)
    found = build(
        opened(write({"model": {"a": {"w": weight}, "b": [1, weight[:1]], "c": (np.ones(1),)}})), NeutralBuilder
    )

    assert [(name, leaf.shape) for name, leaf in named_leaves(found["model"])] == [
        ("a.w", (2,)),
        ("b.1", (1,)),
        ("c.0", (1,)),
    ]


def test_a_component_named_by_the_tree_of_another_must_be_there():
    with pytest.raises(CkptvcsError):
        read(files(W, node={"$tensor": "w", "in": "ema"}))
