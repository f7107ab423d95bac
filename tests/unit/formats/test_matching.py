"""Whether states can be combined: everything that differs is named, and nothing else."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch

from ckptvcs.formats.matching import Layout, differences
from tests.unit.formats.makers import components_of


def layout(model: Any) -> Layout:
    return Layout.of({c.name: c for c in components_of({"model": model, "n": 0})}, ["model"])


def told(one: Any, other: Any) -> list[str]:
    return list(differences(layout(one), layout(other), ("a", "b")))


W = torch.ones(2, 3)


def test_equal_shapes_match_whatever_the_values_and_the_order():
    assert told({"w": W, "v": W[0].clone()}, {"v": torch.zeros(3), "w": W * 2}) == []


def test_a_plain_dict_matches_an_ordered_one():
    assert told({"w": W}, OrderedDict(w=W)) == []


def test_what_only_one_has_is_named_with_its_path():
    assert told({"w": W, "layers": [{"x": W.clone()}]}, {"w": W, "y": W.clone()}) == [
        "state['model']['layers'][0]['x'] is only in a",
        "state['model']['y'] is only in b",
    ]


def test_shape_and_type_are_told_together():
    assert told({"w": W, "v": W.clone()}, {"w": W.half(), "v": W.T.contiguous()}) == [
        "state['model']['w'] is F32 [2, 3] in a, F16 [2, 3] in b",
        "state['model']['v'] is F32 [2, 3] in a, F32 [3, 2] in b",
    ]


def test_ties_are_told_from_both_sides():
    tied, apart = {"e": W, "head": W}, {"e": W, "head": W.clone()}

    assert told(tied, apart) == ["state['model']['head'] is tied to state['model']['e'] in a, and not in b"]
    assert told(apart, tied) == ["state['model']['head'] is tied to state['model']['e'] in b, and not in a"]


def test_ties_in_another_order_are_the_same_ties():
    assert told({"e": W, "head": W}, {"head": W, "e": W}) == []


def test_a_view_that_looks_elsewhere_is_named():
    whole = torch.arange(10.0)

    assert told({"w": whole, "v": whole[:4]}, {"w": whole, "v": whole[4:8]}) == [
        "state['model']['v'] shares memory in another way in a than in b"
    ]
