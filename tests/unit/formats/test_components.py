"""Which parts of a state are components, and what role each plays."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest

from ckptvcs.formats.components import is_component_name, role_of, take_apart

T = object()
"""Stands for a tensor."""


def is_tensor(value: Any) -> bool:
    return value is T


def parts(state: Any, **how: Any) -> dict[str, str]:
    return {part.name: part.role for part in take_apart(state, is_tensor, **how).parts}


@pytest.mark.parametrize(
    ("name", "role"),
    [
        *((name, "model") for name in ("model", "state_dict", "Model", "module", "generator")),
        *((name, "optimizer") for name in ("optimizer", "optim", "optimizer_states", "optimizer_0")),
        *((name, "rng") for name in ("rng", "rng_state", "rng_state_3", "rng_state_rank12")),
        *((name, role) for name, role in {"lr_scheduler": "scheduler", "scaler": "scaler", "ema_model": "ema"}.items()),
        *((name, "extra") for name in ("extra", "my_model", "hooks", "")),
    ],
)
def test_the_usual_names_say_the_role(name: str, role: str):
    assert role_of(name) == role


@pytest.mark.parametrize(
    "name", ["extra", "", "..", ".git", "a/b", "_x", "con", "nul.x", "a" * 65, "a b", "é", "a\n", 5, None, ("a",), "a."]
)
def test_what_cannot_be_a_folder_is_no_component(name: Any):
    assert not is_component_name(name)


def test_containers_with_tensors_and_known_roles_are_components():
    state = {"model": {"w": T}, "mine": [{"deep": (T,)}], "rng": {"seed": 1}, "args": {"lr": 1}, "step": 3}

    assert parts(state) == {"model": "model", "mine": "extra", "rng": "rng"}


def test_a_flat_dict_of_tensors_is_a_model():
    found = take_apart(OrderedDict(a=T, b=T), is_tensor)

    assert [(p.name, p.role) for p in found.parts] == [("model", "model")]
    assert found.root.node == {"$component": "model"}


@pytest.mark.parametrize("state", [T, [T], (T,), 5, None], ids=["tensor", "list", "tuple", "number", "nothing"])
def test_what_is_no_dict_is_all_root(state: Any):
    found = take_apart(state, is_tensor)

    assert found.parts == ()
    assert found.has_root
    assert found.root is state


def test_parts_in_alphabetical_order_need_no_root():
    assert not take_apart({"model": {"w": T}, "optimizer": {}}, is_tensor).has_root


@pytest.mark.parametrize(
    "state",
    [
        {"optimizer": {}, "model": {"w": T}},
        {"model": {"w": T}, "step": 1},
        OrderedDict(model={"w": T}),
        {"model": {"w": T}, "Model": {"w": T}},
    ],
    ids=["order", "more", "class", "case"],
)
def test_any_other_state_has_a_root_that_says_how_it_was(state: Any):
    found = take_apart(state, is_tensor)

    assert found.has_root
    assert type(found.root) is type(state)
    assert list(found.root) == list(state)


def test_a_root_is_made_where_it_is_wanted():
    assert take_apart({"model": {"w": T}}, is_tensor, rooted=True).has_root


def test_names_that_differ_in_case_alone_are_one_component_and_a_rest():
    assert parts({"model": {"w": T}, "MODEL": {"w": T}}) == {"model": "model"}


def test_roles_that_are_known_go_before_those_of_the_names():
    assert parts({"bert": {"a": 1}, "optimizer": {"b": T}}, roles={"bert": "model", "optimizer": "extra"}) == {
        "bert": "model",
        "optimizer": "extra",
    }


def test_a_container_that_holds_itself_is_looked_into_once():
    loop: dict[str, Any] = {}
    loop["self"] = loop

    assert parts({"circle": loop, "model": {"w": T}}) == {"model": "model"}
