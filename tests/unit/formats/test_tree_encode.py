"""A nested state becomes JSON that says everything JSON cannot say, always in the same way."""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import math
import os
import pathlib
import subprocess
import sys
import types
from typing import Any

import pytest

from ckptvcs.errors import FormatError, UnsupportedValue
from ckptvcs.formats.leaf import Leaf, Opaque, TorchAtom
from ckptvcs.formats.tree.encode import Encoder, Ready
from ckptvcs.formats.tree.nodes import INLINE_BYTES, MAX_DEPTH, where
from tests.unit.formats.makers import read, write


def encode(value: Any) -> Any:
    encoder = Encoder(lambda v: v, lambda leaf, path: {"$tensor": ".".join(map(str, path))})
    node = encoder.encode(value, ("model",))
    assert not encoder.problems
    return node


@pytest.mark.parametrize(
    ("value", "node"),
    [
        (None, None),
        (True, True),
        ("$x", "$x"),
        (-(2**63), -(2**63)),
        (2**63, {"$int": "8000000000000000"}),
        (-(2**64), {"$int": "-10000000000000000"}),
        (1.5, 1.5),
        (math.inf, {"$float": "7ff0000000000000"}),
        (-math.inf, {"$float": "fff0000000000000"}),
        (math.nan, {"$float": "7ff8000000000000"}),
        (1 - 2j, {"$complex": ["3ff0000000000000", "c000000000000000"]}),
        (b"ab", {"$bytes": "YWI="}),
        (bytearray(b"ab"), {"$bytearray": "YWI="}),
        ([1, [2]], [1, [2]]),
        ((1, ()), {"$tuple": [1, {"$tuple": []}]}),
        ({3, 1, 2}, {"$set": [1, 2, 3]}),
        (frozenset({"b", "a"}), {"$frozenset": ["a", "b"]}),
        ({"b": 1, "a": 2}, {"b": 1, "a": 2}),
        ({1: 2, "a": 3}, {"$dict": [[1, 2], ["a", 3]]}),
        ({"$a": 1}, {"$dict": [["$a", 1]]}),
        (collections.OrderedDict(a=1), {"$odict": [["a", 1]]}),
        (collections.defaultdict(list, a=1), {"$defaultdict": [["a", 1]], "factory": "list"}),
        (collections.defaultdict(None, a=1), {"$defaultdict": [["a", 1]], "factory": None}),
        (collections.Counter("aab"), {"$counter": [["a", 2], ["b", 1]]}),
        (argparse.Namespace(lr=1), {"$namespace": "argparse.Namespace", "attrs": [["lr", 1]]}),
        (types.SimpleNamespace(lr=1), {"$namespace": "types.SimpleNamespace", "attrs": [["lr", 1]]}),
        (pathlib.PurePosixPath("a/b"), {"$path": "a/b", "flavour": "PurePosixPath"}),
        (pathlib.PureWindowsPath("a/b"), {"$path": "a\\b", "flavour": "PureWindowsPath"}),
        (TorchAtom("size", (2, 3)), {"$torch": ["size", [2, 3]]}),
        (TorchAtom("dtype", "float16"), {"$torch": ["dtype", "float16"]}),
        (Ready({"$numpy": ["<f4", "00"]}), {"$numpy": ["<f4", "00"]}),
    ],
    ids=itertools.count(),
)
def test_a_value_has_one_node(value: Any, node: Any):
    found = encode(value)

    assert repr(found) == repr(node)  # which tells 1 from True and from 1.0
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_sign_of_zero_is_kept():
    assert math.copysign(1, json.loads(json.dumps(encode(-0.0)))) == -1


def test_attributes_of_an_ordered_dict_are_kept():
    value = collections.OrderedDict(a=1)
    value._metadata = {"version": 1}  # type: ignore[attr-defined]

    assert encode(value) == {"$odict": [["a", 1]], "attrs": [["_metadata", {"version": 1}]]}


def test_a_container_that_comes_again_is_named_by_its_number():
    shared: list[Any] = [1]
    loop: dict[str, Any] = {"s": shared}
    loop["again"] = [shared, loop]

    assert encode(loop) == {"s": [1], "again": [{"$same": 1}, {"$same": 0}]}


def test_equal_containers_that_are_two_stay_two():
    assert encode([[1], [1]]) == [[1], [1]]


def test_long_byte_strings_are_leaves():
    placed: list[Leaf] = []
    encoder = Encoder(lambda v: v, lambda leaf, path: placed.append(leaf))
    values = [b"x" * INLINE_BYTES, b"x" * (INLINE_BYTES + 1), bytearray(INLINE_BYTES + 1)]

    encoder.encode(values)

    assert [(leaf.kind, leaf.dtype, leaf.shape) for leaf in placed] == [
        ("bytes", "U8", (INLINE_BYTES + 1,)),
        ("bytearray", "U8", (INLINE_BYTES + 1,)),
    ]
    assert [bytes(leaf.read()) for leaf in placed] == [bytes(value) for value in values[1:]]


class Mine(dict):  # type: ignore[type-arg]
    pass


Point = collections.namedtuple("Point", "x")


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (object(), "builtins.object"),
        (Mine(), f"{__name__}.Mine"),
        (Point(1), f"{__name__}.Point"),
        (collections.deque(), "collections.deque"),
        (range(3), "builtins.range"),
        (..., "builtins.ellipsis"),
        (len, "builtins.builtin_function_or_method"),
        (int, "builtins.type"),
        (Opaque("os.system"), "os.system"),
        (collections.defaultdict(lambda: 1), "collections.defaultdict of"),
        (collections.defaultdict(collections.OrderedDict), "collections.defaultdict of"),
    ],
    ids=itertools.count(),
)
def test_a_value_without_exact_representation_is_named_with_path_and_class(value: Any, name: str):
    with pytest.raises(UnsupportedValue) as caught:
        write({"model": {"layers": [0, {"bad": value}]}})

    (fact,) = caught.value.facts["values"]
    assert fact["path"] == "state['model']['layers'][1]['bad']"
    assert fact["class"].startswith(name)
    assert fact["path"] in str(caught.value)
    assert name in str(caught.value)


def test_all_such_values_are_named_by_one_error():
    with pytest.raises(UnsupportedValue) as caught:
        write({"model": {"w": [object()] * 7}, "extra_thing": object()})

    assert len(caught.value.facts["values"]) == 8
    assert "and 3 more" in caught.value.why


@pytest.mark.parametrize(
    "nest",
    [lambda v: [v], lambda v: (v,), lambda v: {"a": v}, lambda v: {1: v}, lambda v: collections.OrderedDict(a=v)],
    ids=["list", "tuple", "dict", "int keys", "odict"],
)
def test_the_depth_of_a_state_has_a_limit(nest: Any):
    value: Any = 1
    for _ in range(MAX_DEPTH - 1):
        value = nest(value)

    encode(value)
    with pytest.raises(FormatError) as caught:
        encode(nest(nest(value)))

    assert f"{MAX_DEPTH} levels" in caught.value.why
    assert caught.value.next_step


def test_a_tuple_that_holds_itself_many_times_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ckptvcs.formats.tree.encode.MAX_NODES", 10_000)  # of five million, which take a while
    value: Any = ()
    for _ in range(60):
        value = (value, value)

    with pytest.raises(FormatError, match="over"):
        encode(value)


def test_a_tuple_is_as_deep_in_its_second_place_as_in_its_first():
    shared: Any = 1
    for _ in range(MAX_DEPTH // 2):
        shared = (shared,)
    deeper: Any = shared
    for _ in range(MAX_DEPTH // 2):
        deeper = [deeper]

    with pytest.raises(FormatError, match=f"{MAX_DEPTH} levels"):
        encode([shared, deeper])


@pytest.mark.parametrize("item", [1, [], b"x" * 5000, {1: 2}, collections.OrderedDict()], ids=repr)
def test_a_tuple_that_comes_again_is_what_it_was(item: Any):
    shared = (item, ("x", item))

    back = read(write({"model": [shared, shared, [shared]]}))["model"]

    assert back == [shared, shared, [shared]]
    if isinstance(item, (list, dict)):
        assert back[2][0][1][1] is back[0][0]


def test_a_path_reads_as_python():
    assert where(("model", 0, (1, "a"), None)) == "state['model'][0][(1, 'a')][None]"


@pytest.mark.parametrize("name", ["items", "values"])
def test_attributes_cannot_hide_the_methods_of_a_dict(name: str):
    value = collections.OrderedDict(a=1)
    vars(value)[name] = 5

    files = write({"model": value, "rest": value})

    assert b'"$odict"' in files["model/tree.json"]


SPLIT = "\ud83d\ude00"
"""One character as two halves, which JSON cannot tell from the whole one."""


@pytest.mark.parametrize(
    "value",
    [SPLIT, [f"a{SPLIT}"], {SPLIT: 1}, {1: SPLIT}, {SPLIT}, argparse.Namespace(x=SPLIT), pathlib.PurePosixPath(SPLIT)],
    ids=itertools.count(),
)
def test_text_that_json_would_change_is_refused_with_its_path(value: Any):
    with pytest.raises(UnsupportedValue) as caught:
        write({"model": {"x": value}})

    assert "state['model']['x']" in caught.value.what
    assert str(caught.value).isascii()


@pytest.mark.parametrize("text", ["\ud800", "\ude00\ud83d", "\U0001f600", "\ud800x\udc00"], ids=ascii)
def test_other_text_comes_back_from_json_as_it_was(text: str):
    assert json.loads(json.dumps(encode({text: [text]}))) == {text: [text]}


_SCRIPT = """
from ckptvcs.formats import artifact, flatten, hints
from ckptvcs.formats.components import take_apart
import hashlib
state = {"names": {"a", "bb", "ccc", "dddd"}, "blobs": BLOBS}
components = flatten.flatten(take_apart(state, lambda v: False), lambda v: v).components
for file in artifact.plan_files(components, artifact.digests(components), parent={}, hints=hints.Hints()):
    print(file.path, hashlib.md5(b"".join(file.chunks())).hexdigest())
"""


@pytest.mark.parametrize(
    "blobs",
    [
        "[]",
        "{bytes([n]) * 5000 for n in range(6)}",
    ],
    ids=["names", "long byte strings"],
)
def test_the_order_of_a_set_does_not_show(blobs: str):
    script = _SCRIPT.replace("BLOBS", blobs)

    outputs = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2", "3")
    }

    assert len(outputs) == 1
