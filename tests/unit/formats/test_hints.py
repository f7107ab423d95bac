"""What can be guessed about a bare state: which tensors make a layer, and which the optimizer trains."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ckptvcs.formats.hints import Hints, infer, layer_of, owner_key
from tests.unit.formats.makers import components_of


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("encoder.layer.0.attention.weight", "encoder.layer.0"),
        ("layers.11", "layers.11"),
        ("0.weight", "0"),
        ("embeddings.word.weight", "embeddings"),
        ("head", "head"),
        ("conv1.weight", "conv1"),
        ("block.1a.2.w", "block.1a.2"),
        ("", ""),
    ],
)
def test_a_layer_is_a_name_up_to_its_first_number(name: str, layer: str):
    assert layer_of(name) == layer


@pytest.mark.parametrize(
    ("path", "key"),
    [
        (("optimizer", "state", 12, "exp_avg"), (("optimizer", "state"), 12)),
        (("optimizers", 1, "state", 0, "m"), (("optimizers", 1, "state"), 0)),
        (("model", "state", "w"), None),
        (("optimizer", "state", True, "m"), None),
        (("optimizer", "state"), None),
        ((), None),
    ],
)
def test_a_moment_belongs_to_a_numbered_parameter(path: Any, key: Any):
    assert owner_key(path) == key


def trained(model: torch.nn.Module, optimizer: torch.optim.Optimizer, size: int = 4) -> Hints:
    model(torch.ones(1, size)).sum().backward()
    optimizer.step()
    return infer(components_of({"model": model.state_dict(), "optimizer": optimizer.state_dict()}))


def names(hints: Hints) -> list[str]:
    return [name for (_, name), trainable in hints.trainable.items() if trainable]


def network() -> torch.nn.Sequential:
    return torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Linear(5, 6), torch.nn.Linear(6, 6))


def test_the_parameters_of_an_optimizer_are_found_by_their_shapes():
    model = network()

    found = trained(model, torch.optim.AdamW(model.parameters()))

    expected = dict(enumerate(model.state_dict()))
    assert {number: name for (_, number), name in found.owners.items()} == expected


def test_a_frozen_part_is_told_apart():
    model = network()
    model[0].requires_grad_(False)
    model[1].requires_grad_(False)

    assert names(trained(model, torch.optim.AdamW(model[2].parameters()))) == ["2.weight", "2.bias"]


def test_of_two_layers_of_one_shape_the_last_is_taken_to_be_trained():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    model[0].requires_grad_(False)

    assert names(trained(model, torch.optim.AdamW(model[1].parameters()))) == ["1.weight", "1.bias"]


def test_groups_are_matched_each_in_its_order():
    model = network()
    decay = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() == 1]

    found = trained(model, torch.optim.AdamW([{"params": decay}, {"params": rest, "weight_decay": 0.0}]))

    assert [name for _, name in sorted(found.owners.items())] == [
        "0.weight",
        "1.weight",
        "2.weight",
        "0.bias",
        "1.bias",
        "2.bias",
    ]


@pytest.mark.parametrize(
    "state", [{"model": {"w": torch.ones(2)}}, {"optimizer": {"state": {0: {"m": torch.ones(2)}}}}]
)
def test_where_there_is_nothing_to_match_nothing_is_said(state: Any):
    assert infer(components_of(state)).trainable == {}


def strange(groups: Any) -> dict[str, Any]:
    moments = {0: {"m": torch.ones(2, 2), "step": torch.tensor(1.0)}}
    return {"model": {"w": torch.ones(2, 2)}, "optimizer": {"state": moments, "param_groups": groups}}


@pytest.mark.parametrize(
    "groups", [None, 5, [], [5], [{}], {"a": 1}, [{"params": 5}], [{"params": [7]}], [{"params": "w"}]], ids=str
)
def test_a_guess_about_strange_groups_does_no_harm(groups: Any):
    assert set(infer(components_of(strange(groups))).owners.values()) <= {"w"}


@pytest.mark.parametrize("params", [[[0]], [{"name": "w"}], [torch.ones(1)]], ids=["lists", "dicts", "tensors"])
def test_a_guess_about_groups_that_hold_no_numbers_does_no_harm(params: Any):
    found = infer(components_of(strange([{"params": params}])))

    assert set(found.owners.values()) <= {"w"}
