"""The files of an artifact: any program reads the shards, and what does not change is the same file."""

from __future__ import annotations

import json
from typing import Any

import pytest
import safetensors.torch
import torch
from blake3 import blake3

from ckptvcs.formats import artifact, hints
from tests.support.same import assert_same
from tests.support.states import training_state
from tests.unit.formats.makers import components_of, read, write

KIB = 1 << 10


def big(seed: int, size: int = 128 * KIB) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def shards(files: dict[str, bytes], component: str = "model") -> dict[str, list[str]]:
    """Shard -> names of its tensors, by the official library."""
    return {
        path: sorted(safetensors.torch.load(data))
        for path, data in files.items()
        if path.startswith(f"{component}/") and path.endswith(".safetensors")
    }


def test_the_official_library_reads_every_shard():
    state = training_state(1)

    files = write(state)

    found = {name: t for path in shards(files) for name, t in safetensors.torch.load(files[path]).items()}
    assert_same(dict(sorted(state["model"].items())), dict(sorted(found.items())))


def test_the_index_names_the_shard_of_each_tensor():
    files = write({"model": {f"layers.{i}.w": big(i) for i in range(4)}})

    index = json.loads(files["model/model.safetensors.index.json"])

    by_shard: dict[str, list[str]] = {}
    for name, file in index["weight_map"].items():
        by_shard.setdefault(f"model/{file}", []).append(name)
    assert by_shard == shards(files)
    assert index["metadata"]["total_size"] == 4 * 4 * 128 * KIB


def test_only_weights_have_an_index():
    files = write({**training_state(1), "ema": {"w": torch.ones(1)}})

    assert {p.split("/")[0] for p in files if p.endswith(artifact.INDEX)} == {"ema", "model"}


def test_the_table_names_the_digest_of_the_bytes_of_each_tensor():
    files = write({"model": {"a": torch.arange(5), "t": torch.arange(6.0).view(2, 3).t()}})

    table = json.loads(files["model/tree.json"])["tensors"]

    assert {entry["name"]: entry["blake3"] for entry in table} == {
        "a": blake3(torch.arange(5).numpy().tobytes()).hexdigest(),
        "t": blake3(torch.arange(6.0).view(2, 3).t().contiguous().numpy().tobytes()).hexdigest(),
    }


def test_a_planned_file_says_its_size_and_gives_its_bytes_again_and_again():
    components = components_of(training_state(2))

    for file in artifact.plan_files(components, artifact.digests(components), parent={}, hints=hints.Hints()):
        first = b"".join(bytes(chunk) for chunk in file.chunks())
        assert len(first) == file.nbytes
        assert first == b"".join(bytes(chunk) for chunk in file.chunks())


def keys(state: Any) -> dict[str, Any]:
    components = components_of(state)
    planned = artifact.plan_files(components, artifact.digests(components), parent={}, hints=hints.Hints())
    return {file.path: file.key for file in planned if file.path.endswith(".safetensors")}


def test_the_key_of_a_shard_changes_with_its_bytes_and_only_then():
    state = {"model": {"a": torch.ones(4), "b": torch.zeros(4)}}
    (key,) = keys(state).values()

    assert list(keys({"model": {"b": torch.zeros(4), "a": torch.ones(4)}}).values()) == [key]
    for other in ({"a": torch.ones(4), "b": torch.ones(4)}, {"a": torch.ones(4), "c": torch.zeros(4)}):
        assert list(keys({"model": other}).values()) != [key]
    assert list(keys({"model": {"a": torch.ones(4), "b": torch.zeros(4).view(2, 2)}}).values()) != [key]


def test_shards_without_tensors_are_not_written():
    assert list(write({"scheduler": {"step": 1}})) == ["scheduler/tree.json"]


# ----------------------------------------------------------------------------------------------------------- a line


def lora(step: int) -> dict[str, Any]:
    base = {f"layers.{i}.base": big(i) for i in range(3)}
    return {"model": {**base, **{f"layers.{i}.lora": big(100 * step + i, 8 * KIB) for i in range(3)}}}


def changed(before: dict[str, bytes], after: dict[str, bytes]) -> set[str]:
    return {path for path in after if after[path] not in before.values() and path.endswith(".safetensors")}


def test_an_unchanged_state_has_the_same_files():
    state = training_state(3)
    first = write(state)

    assert write(state, parent=first) == first


def test_what_is_frozen_is_the_same_file_from_the_second_change_on():
    first = write(lora(1))
    second = write(lora(2), parent=first)
    third = write(lora(3), parent=second)

    new = sum(len(third[path]) for path in changed(second, third))
    assert new < 3 * 8 * KIB * 4 + 3 * KIB
    assert_same(lora(3), read(third))


def test_where_it_is_known_what_is_trained_the_second_checkpoint_costs_no_more():
    trainable = {("model", name): "lora" in name for name in lora(1)["model"]}
    known = hints.Hints(trainable=trainable)
    first = write(lora(1), known=known)

    second = write(lora(2), parent=first, known=known)

    assert sum(len(second[path]) for path in changed(first, second)) < 3 * 8 * KIB * 4 + 3 * KIB


def test_a_tensor_of_another_shape_or_type_under_an_old_name_is_a_new_one():
    first = write({"model": {"a": big(1), "b": big(2)}})

    second = write({"model": {"a": big(1).half(), "b": big(2)}}, parent=first)

    assert sorted(map(tuple, shards(second).values())) == [("a",), ("b",)]


def test_the_layout_of_a_parent_is_followed_whatever_the_hints_say():
    first = write({"model": {"a": big(1), "b": big(2)}})
    known = hints.Hints(trainable={("model", "a"): True, ("model", "b"): False})

    assert write({"model": {"a": big(1), "b": big(2)}}, parent=first, known=known) == first


@pytest.mark.parametrize("frozen", [0, 3, 8])
def test_moments_lie_as_the_layers_that_they_belong_to(frozen: int):
    model = torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(8)))
    optimizer = torch.optim.AdamW(model[frozen:].parameters() if frozen < 8 else [torch.nn.Parameter(torch.ones(3))])
    model(torch.ones(1, 64)).sum().backward()
    optimizer.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}

    assert_same(state, read(write(state)))
