"""A value of a class that is not allowed is found wherever it hides."""

from __future__ import annotations

import types
from collections import OrderedDict
from typing import Any

import pytest

from ckptvcs.formats.leaf import Leaf, Opaque, find_opaque

BAD = Opaque("os.system")


def with_attribute(**attributes: Any) -> OrderedDict[str, Any]:
    value: OrderedDict[str, Any] = OrderedDict()
    vars(value).update(attributes)
    return value


@pytest.mark.parametrize(
    "value",
    [
        *(BAD, [1, BAD], (BAD,), {BAD}, frozenset({BAD}), {"a": {"b": [(BAD,)]}}, {BAD: 1}),
        types.SimpleNamespace(a=[BAD]),
        with_attribute(items=BAD),
    ],
    ids=["alone", "list", "tuple", "set", "frozenset", "deep", "key", "namespace", "attribute"],
)
def test_it_is_found_in_every_container(value: Any):
    assert find_opaque(value) is BAD


def test_a_state_without_one_has_none():
    assert find_opaque({"a": [1, "x", (None, {2.0})]}) is None


def test_a_container_that_holds_itself_is_looked_into_once():
    loop: list[Any] = []
    loop.append(loop)

    assert find_opaque(loop) is None


def test_a_tuple_that_holds_itself_many_times_is_looked_into_once():
    value: Any = ()
    for _ in range(100):
        value = (value, value)

    assert find_opaque(value) is None


def test_a_leaf_knows_its_size():
    leaf = Leaf(dtype="BF16", shape=(3, 5), read=lambda: bytes(30))

    assert leaf.nbytes == len(bytes(leaf.read()))
