"""Nodes become the values that they were made from; nodes that nobody made are refused, whatever they say."""

from __future__ import annotations

import collections
import os
from typing import Any

import numpy as np
import pytest

from ckptvcs.errors import CkptvcsError, FormatError
from ckptvcs.formats.leaf import TorchAtom
from ckptvcs.formats.tree.decode import Decoder
from ckptvcs.formats.tree.nodes import MAX_DEPTH
from tests.unit.formats.makers import read, tree


class Stub:
    """A builder that makes nothing: leaves and components are their names."""

    def tensor(self, name: str, component: str | None) -> Any:
        return f"{component}/{name}"

    def atom(self, atom: TorchAtom) -> Any:
        return atom

    def component(self, name: str) -> Any:
        return f"<{name}>"


def decode(node: Any) -> Any:
    return Decoder(Stub()).decode(node)


@pytest.mark.parametrize(
    ("node", "value"),
    [
        ({"$int": "-ff"}, -255),
        ({"$tuple": [1, {"$tuple": []}]}, (1, ())),
        ({"$dict": [[1, 2], [{"$tuple": [1]}, 3]]}, {1: 2, (1,): 3}),
        ({"$set": [1, 2]}, {1, 2}),
        ({"$frozenset": [1]}, frozenset({1})),
        ({"$odict": [["a", 1]]}, collections.OrderedDict(a=1)),
        ({"$counter": [["a", 2]]}, collections.Counter("aa")),
        ({"$bytes": "YWI="}, b"ab"),
        ({"$tensor": "w"}, "None/w"),
        ({"$tensor": "w", "in": "ema"}, "ema/w"),
        ({"$component": "model"}, "<model>"),
        ({"$torch": ["size", [1, 2]]}, TorchAtom("size", (1, 2))),
    ],
    ids=str,
)
def test_a_node_becomes_its_value(node: Any, value: Any):
    found = decode(node)

    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("node", "value"),
    [
        ({"$numpy": ["<U0", "00000000"]}, np.str_("")),  # as earlier versions wrote it
        ({"$numpy": ["<U0", ""]}, np.str_("")),
        ({"$numpy": ["|S0", "00"]}, np.bytes_(b"")),
        ({"$numpy": [">U1", "00000061"]}, np.str_("a")),
        ({"$numpy": ["|S3", "610000"]}, np.bytes_(b"a\0\0")),
        ({"$numpy": ["|V0", ""]}, np.void(b"")),
    ],
    ids=str,
)
def test_a_text_of_numpy_is_made_of_all_its_bytes(node: Any, value: Any):
    found = decode(node)

    assert type(found) is type(value)
    assert (found.dtype.str, found.tobytes()) == (value.dtype.str, value.tobytes())


def test_a_default_dict_keeps_its_factory():
    found = decode({"$defaultdict": [["a", []]], "factory": "list"})

    assert found["new"] == []
    assert decode({"$defaultdict": [], "factory": None}).default_factory is None


def test_containers_are_numbered_in_reading_order():
    found = decode({"a": [1], "b": {"$dict": [[0, {"$same": 1}]]}, "c": {"$same": 2}, "d": {"$same": 0}})

    assert found["b"][0] is found["a"]
    assert found["c"] is found["b"]
    assert found["d"] is found


def deep(depth: int, node: Any = 1) -> Any:
    for _ in range(depth):
        node = [node]
    return node


MALFORMED = {
    "unknown": {"$exec": "os.system"},
    "no number": {"$int": "xyz"},
    "number of a list": {"$int": [1]},
    "short float": {"$float": "00"},
    "no float": {"$float": "zz"},
    "no base64": {"$bytes": "%%%"},
    "bytes of a number": {"$bytes": 5},
    "tuple of a number": {"$tuple": 5},
    "lonely key": {"$dict": [[1]]},
    "list as key": {"$dict": [[[], 1]]},
    "list in a set": {"$set": [[1]]},
    "code as factory": {"$defaultdict": [], "factory": "eval"},
    "no factory": {"$defaultdict": []},
    "other namespace": {"$namespace": "os.system", "attrs": []},
    "class as namespace": {"$namespace": "subprocess.Popen", "attrs": []},
    "no attributes": {"$namespace": "argparse.Namespace"},
    "other flavour": {"$path": "x", "flavour": "__class__"},
    "flavour of io": {"$path": "x", "flavour": "io"},
    "no flavour": {"$path": "x"},
    "path of a number": {"$path": 5, "flavour": "PosixPath"},
    "objects": {"$numpy": ["|O8", "00" * 8]},
    "short scalar": {"$numpy": ["<f4", "00"]},
    "huge scalar": {"$numpy": ["|V99999999999", "00"]},
    "half a scalar": {"$numpy": ["<f4"]},
    "no such numpy type": {"$npdtype": "f99"},
    "forward": {"$same": 1},
    "beyond": {"$same": 10**30},
    "backwards": {"$same": -1},
    "true": [{"$same": True}],
    "half an atom": {"$torch": ["size"]},
    "size of text": {"$torch": ["size", 5]},
    "deep": deep(MAX_DEPTH + 5),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_node_is_refused(name: str):
    with pytest.raises(FormatError) as caught:
        decode(MALFORMED[name])

    assert caught.value.what == "cannot read a tree"
    assert caught.value.why


@pytest.mark.parametrize(
    "node",
    [
        {"$torch": ["device", "bogus"]},
        {"$torch": ["device", -5]},
        {"$numpy": ["<f4,(", "00"]},
        {"$npdtype": "f4,(f4"},
    ],
    ids=str,
)
def test_a_node_that_torch_or_numpy_cannot_make_is_refused(node: Any):
    with pytest.raises(CkptvcsError):
        read({"model/tree.json": tree([], {"x": node})})


def test_a_path_of_another_system_is_refused_and_named():
    other = "PosixPath" if os.name == "nt" else "WindowsPath"

    with pytest.raises(FormatError) as caught:
        decode({"$path": "C:\\x\x1b", "flavour": other})

    assert other in caught.value.what
    assert "'C:\\x\\x1b'" in caught.value.why


@pytest.mark.parametrize("node", [None, []], ids=str)
def test_a_numpy_type_is_made_from_text_alone(node: Any):
    with pytest.raises(FormatError):
        decode({"$npdtype": node})


def test_the_root_may_hang_itself_below_itself_without_end():
    files = {"extra/tree.json": tree([], {"a": {"$component": "extra"}}, component="extra", role="extra")}

    assert read(files) == {"a": None}


@pytest.mark.parametrize("node", [{"$component": "nope"}, {"$component": []}, {"$tensor": "nope"}, {"$tensor": []}])
def test_what_a_node_names_must_be_there(node: Any):
    with pytest.raises(CkptvcsError):
        read({"extra/tree.json": tree([], node, component="extra", role="extra")})
