"""A `.pt` file, read without torch, is what `torch.load` makes of it: bit for bit, with the same sharing."""

from __future__ import annotations

import argparse
import collections
import io
import itertools
import pathlib
import pickle
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ckptvcs.errors import FormatError, UnsupportedValue
from ckptvcs.formats.foreign import detect
from tests.support.same import assert_same
from tests.support.states import DTYPES, tensor_of, training_state
from tests.unit.formats.makers import components_in, placed, read, records, saved, through, write, zipped

WHOLE = torch.arange(24.0)
RNG = np.random.default_rng(1)


def loaded(path: Path) -> Any:
    """The oracle."""
    return torch.load(path, weights_only=False)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_any_element_type_is_read(dtype: torch.dtype, tmp_path: Path):
    path = placed(tmp_path, "x.pt", {"model": {"a": tensor_of(dtype, (3, 5), 1), "b": tensor_of(dtype, (), 2)}})

    assert_same(loaded(path), through(path))


def test_half_complex_numbers_are_read(tmp_path: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = placed(tmp_path, "x.pt", {"model": {"a": torch.tensor([1 + 2j, -0.5j]).to(torch.complex32)}})
        back = through(path)

    assert back["model"]["a"].dtype is torch.complex32
    assert back["model"]["a"].view(torch.float16).tolist() == [1, 2, -0.0, -0.5]


TENSORS = {
    "permuted": WHOLE.view(2, 3, 4).permute(2, 0, 1),
    "channels last": torch.ones(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
    "gaps": WHOLE.view(4, 6)[::2, 1::2],
    "slice": WHOLE[3:7],
    "expanded": WHOLE[:3].expand(4, 3),
    "scalar": torch.tensor(3),
    "empty": torch.zeros(0, 3),
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "frozen parameter": torch.nn.Parameter(torch.ones(2), requires_grad=False),
    "gradient": torch.ones(2, requires_grad=True),
    "not a number": torch.tensor([float("nan"), float("inf"), -0.0]),
}


@pytest.mark.parametrize("name", TENSORS)
def test_any_tensor_is_read(name: str, tmp_path: Path):
    path = placed(tmp_path, "x.pt", {"model": {"w": TENSORS[name]}})

    assert_same(loaded(path), through(path))


@pytest.mark.parametrize(
    "tensor",
    [torch.tensor([1 + 2j]).conj(), torch.tensor([1 + 2j]).conj().imag, torch.tensor([[1j, 2]]).mH],
    ids=["conjugate", "negative", "adjoint"],
)
def test_a_tensor_that_torch_conjugates_lazily_has_its_own_values(tensor: torch.Tensor, tmp_path: Path):
    path = placed(tmp_path, "x.pt", {"model": {"w": tensor}})

    assert_same(loaded(path), through(path))


COMPLEX = torch.tensor([1 + 2j, complex(float("nan"), -0.0), -3j])


@pytest.mark.parametrize(
    "tensor",
    [
        COMPLEX.conj(),
        COMPLEX.conj()[1:],
        COMPLEX.conj()[::2],
        COMPLEX.conj()[:0],
        COMPLEX.conj().real,
        COMPLEX.conj().imag,
        COMPLEX.to(torch.complex128).conj(),
        COMPLEX[0].conj().expand(4),
        torch.nn.Parameter(COMPLEX.conj()),
        torch._neg_view(COMPLEX.conj()),
        torch._neg_view(COMPLEX),
        torch._neg_view(torch.tensor([1.0, -0.0]).to(torch.bfloat16)),
    ],
    ids=range(12),
)
def test_a_lazy_tensor_of_a_file_and_in_memory_is_read_alike(tensor: torch.Tensor, tmp_path: Path):
    path = placed(tmp_path, "x.pt", {"model": {"w": tensor}})

    assert_same({"model": {"w": tensor}}, through(path))
    assert_same({"model": {"w": tensor}}, read(write({"model": {"w": tensor}})))


def test_lazy_tensors_that_share_memory_have_their_own_values(tmp_path: Path):
    lazy = COMPLEX.conj()
    state = {"model": {"plain": COMPLEX, "lazy": lazy, "again": lazy, "part": lazy[1:]}}

    back = through(placed(tmp_path, "x.pt", state))["model"]

    assert {name: str(tensor) for name, tensor in back.items()} == {
        name: str(tensor.resolve_conj()) for name, tensor in state["model"].items()
    }
    assert back["again"] is back["lazy"]


def test_an_integer_that_is_negated_when_it_is_read_is_refused(tmp_path: Path):
    state = {"model": {"w": torch._neg_view(torch.ones(2, dtype=torch.int64))}}

    for act in (lambda: components_in(placed(tmp_path, "x.pt", state)), lambda: write(state)):
        with pytest.raises(UnsupportedValue, match=r"state\['model'\]\['w'\]"):
            act()


SHARED = [1, 2]
STATES = {
    "tied": {"ema": {"w": WHOLE}, "model": {"a": WHOLE, "b": WHOLE}},
    "views": {"model": {"first": WHOLE[:10], "all": WHOLE, "last": WHOLE[4:].view(4, 5)}},
    "overlapping": {"model": {"a": WHOLE[:10], "b": WHOLE[5:15]}},
    "shared list": {"model": {"w": WHOLE}, "a": SHARED, "b": SHARED},
    "training": training_state(1),
    "list": [WHOLE, {"a": 1}],
    "tensor": WHOLE,
    "number": 5,
    "empty": {},
    "flat": collections.OrderedDict(a=WHOLE, b=WHOLE[:1]),
}


@pytest.mark.parametrize("name", STATES)
def test_any_state_is_read_with_its_sharing(name: str, tmp_path: Path):
    path = placed(tmp_path, "x.pt", STATES[name])

    assert_same(loaded(path), through(path))


def test_a_model_with_its_versions_is_read(tmp_path: Path):
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.LSTM(3, 4))
    path = placed(tmp_path, "x.pt", {"model": model.state_dict()})

    back = through(path)

    assert_same(loaded(path), back)
    assert back["model"]._metadata["0"] == {"version": 2}


VALUES = [
    *(None, True, 0, -1, 255, 65536, 2**31, -(2**63), 2**100, -(2**2000)),
    *(0.1, -0.0, float("nan"), float("-inf"), 1 + 2j, "", "é\n\x00", "x" * 300, b"", b"ab" * 200, b"x" * 5000),
    *((), (1,), (1, 2, 3, 4), [[]], {1: 2, None: (3,)}, {1, 2}, frozenset({"a"})),
    *(bytearray(b""), bytearray(b"ab"), bytearray(5000)),
    collections.Counter("aab"),
    collections.defaultdict(list, a=[1]),
    collections.defaultdict(None),
    collections.OrderedDict([(1, 2), ("a", 3)]),
    argparse.Namespace(lr=1e-3, layers=[1]),
    types.SimpleNamespace(a=1),
    pathlib.PurePosixPath("a/b"),
    pathlib.Path("/tmp/x"),
    torch.Size([1, 2]),
    torch.float16,
    torch.device("cuda:3"),
    torch.strided,
    RNG.normal(size=(3, 4)).astype("<f4"),
    np.asfortranarray(RNG.normal(size=(3, 4))),
    np.array(["a", "bc"]),
    np.array(["2020"], dtype="<M8[Y]"),
    np.array(3.5),
    np.zeros((0, 2), dtype="<i2"),
    np.float32(1.5),
    np.float64("nan"),
    np.int64(-1),
    np.bool_(True),
    np.str_("é"),
    np.datetime64("2020-01-01", "25s"),
]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_any_plain_value_is_read_in_any_protocol(protocol: int, tmp_path: Path):
    state = {"values": VALUES, "model": {"w": WHOLE}}
    torch.save(state, tmp_path / "x.pt", pickle_protocol=protocol)

    assert_same(state, through(tmp_path / "x.pt"))


@pytest.mark.parametrize("type_string", ["<f4", "<M8[ns]", "<U3"])
def test_a_numpy_type_is_read(type_string: str, tmp_path: Path):
    path = placed(tmp_path, "x.pt", {"x": np.dtype(type_string)})

    assert_same(loaded(path), through(path))


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))), ids=str)
def test_the_axes_of_an_array_keep_their_order(axes: tuple[int, ...], protocol: int, tmp_path: Path):
    array = np.arange(24).reshape(2, 3, 4).transpose(axes)
    torch.save({"x": array}, tmp_path / "x.pt", pickle_protocol=protocol)

    assert (through(tmp_path / "x.pt")["x"] == array).all()


@pytest.mark.parametrize("value", [np.str_("a\0"), np.bytes_(b"a\0"), np.str_(""), np.zeros(2, "S0")], ids=repr)
def test_texts_of_numpy_are_read(value: Any, tmp_path: Path):
    assert_same({"x": value}, through(placed(tmp_path, "x.pt", {"x": value})))


@pytest.mark.parametrize("protocol", [0, 1])
def test_old_protocols_are_read(protocol: int, tmp_path: Path):
    state = {"a": [1, 2.5, "x", "a\n\\", None, True, (1,), {"b": 2**70}, -5], "e": (), "d": {1: [2]}, "l": [[], {}]}
    parts = {"x/data.pkl": pickle.dumps(state, protocol=protocol), "x/version": b"3\n"}

    assert_same(state, through(placed(tmp_path, "x.pt", zipped(parts))))


@pytest.mark.parametrize("text", ["é", "Ã©", "\u20ac\xff"])
def test_text_of_protocol_0_is_read(text: str, tmp_path: Path):
    parts = {"x/data.pkl": pickle.dumps({"a": text}, protocol=0), "x/version": b"3\n"}

    assert_same({"a": text}, through(placed(tmp_path, "x.pt", zipped(parts))))


def test_big_endian_arrays_keep_their_byte_order(tmp_path: Path):
    array = np.arange(3, dtype=">f4")

    assert_same({"x": array}, through(placed(tmp_path, "x.pt", {"x": array})))


def test_where_tensors_were_is_kept_and_they_come_to_the_cpu(tmp_path: Path):
    data = records(saved({"model": {"w": torch.ones(2)}}))
    name = next(n for n in data if n.endswith("data.pkl"))
    data[name] = data[name].replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:1")
    path = placed(tmp_path, "x.pt", zipped(data))

    leaf = detect.open_source(path).state["model"]["w"]

    assert leaf.attrs == {"device": "cuda:1"}
    assert through(path)["model"]["w"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (torch.eye(2).to_sparse(), "torch._utils._rebuild_sparse_tensor"),
        (torch.empty(2, device="meta"), "torch._utils._rebuild_meta_tensor_no_storage"),
        (torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
        (collections.deque([1]), "collections.deque"),
        (range(3), "__builtin__.xrange"),
        (len, "__builtin__.len"),
        (np.random.default_rng(1), "numpy.random._pickle.__generator_ctor"),
        (collections.defaultdict(collections.OrderedDict), "collections.defaultdict"),
        (np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f4")]), "numpy.dtype"),
        (np.array([1, "a"], dtype=object), "numpy.dtype"),
        (torch.qint8, "torch.qint8"),
    ],
    ids=str,
)  # fmt: skip
def test_what_has_no_exact_representation_is_named_with_its_path(value: Any, name: str, tmp_path: Path):
    path = placed(tmp_path, "x.pt", {"model": {"a": [WHOLE, {"bad": value}]}})

    with pytest.raises(UnsupportedValue) as caught:
        components_in(path)

    (fact,) = caught.value.facts["values"]
    assert fact["path"] == "state['model']['a'][1]['bad']"
    assert fact["class"].startswith(name)


def quantized() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)


def test_a_quantised_tensor_is_refused(tmp_path: Path):
    path = placed(tmp_path, "x.pt", {"model": {"q": quantized()}})

    with pytest.raises(FormatError):
        components_in(path)


@pytest.mark.parametrize(
    ("value", "name"),
    [(quantized(), "QInt8Storage"), (torch.UntypedStorage(4), "torch.UntypedStorage")],
    ids=["quantised", "storage"],
)
def test_what_torch_alone_knows_is_named_as_torch_names_it(value: Any, name: str, tmp_path: Path):
    path = placed(tmp_path, "x.pt", {"model": {"bad": value}})

    with pytest.raises(UnsupportedValue) as caught:
        components_in(path)

    assert name in str(caught.value)


class Hooked:
    """A subclass of a tensor, a tensor with attributes, a parameter with hooks: each has more than its bytes."""

    @staticmethod
    def subclass() -> torch.Tensor:
        return torch.ones(2).as_subclass(Sub)

    @staticmethod
    def attribute() -> torch.Tensor:
        tensor = torch.ones(2)
        tensor.tag = "x"  # type: ignore[attr-defined]
        return tensor

    @staticmethod
    def buffer() -> torch.Tensor:
        return torch.nn.Buffer(torch.ones(2))

    @staticmethod
    def parameter() -> torch.Tensor:
        parameter = torch.nn.Parameter(torch.ones(2))
        parameter.tag = "x"  # type: ignore[attr-defined]
        return parameter


class Sub(torch.Tensor):
    pass


@pytest.mark.parametrize(
    "make", [Hooked.subclass, Hooked.attribute, Hooked.buffer, Hooked.parameter], ids=lambda f: f.__name__
)
def test_a_tensor_that_is_more_than_its_bytes_is_refused(make: Any, tmp_path: Path):
    path = placed(tmp_path, "x.pt", {"model": {"w": make()}})

    with pytest.raises(UnsupportedValue, match=r"state\['model'\]\['w'\]"):
        components_in(path)


def test_notes_of_the_compiler_are_no_part_of_a_tensor(tmp_path: Path):
    tensor, parameter = torch.ones(2), torch.nn.Parameter(torch.ones(2))
    tensor._dynamo_static_input_type = parameter._dynamo_static_input_type = "guarded"  # type: ignore[attr-defined]
    state = {"optimizer": {"exp_avg": tensor, "p": parameter}}

    assert_same(state, through(placed(tmp_path, "x.pt", state)))
    assert_same(state, read(write(state)))


def test_lightning_is_told_apart_and_its_facts_are_read(tmp_path: Path):
    state = {
        "pytorch-lightning_version": "2.4.0",
        "epoch": 3,
        "global_step": 1200,
        "state_dict": collections.OrderedDict(w=WHOLE),
        "optimizer_states": [{"state": {0: {"exp_avg": WHOLE}}, "param_groups": [{"lr": 0.1, "params": [0]}]}],
        "lr_schedulers": [],
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {},
        "hyper_parameters": {"lr": 0.1, "name": "x", "layers": [1]},
    }
    path = placed(tmp_path, "last.ckpt", state)

    source, components = components_in(path)

    assert (source.format, source.name) == ("lightning", "last.ckpt")
    assert source.facts == {"step": 1200, "epoch": 3, "metrics": {}, "params": {"lr": 0.1, "name": "x"}}
    assert {c.name: c.role for c in components} == {
        "state_dict": "model",
        "optimizer_states": "optimizer",
        "lr_schedulers": "scheduler",
        "extra": "extra",
    }
    assert_same(state, through(path))


def test_the_file_is_not_copied(tmp_path: Path):
    path = placed(tmp_path, "x.pt", {"model": {"w": WHOLE}})
    leaf = detect.open_source(path).state["model"]["w"]
    data = path.read_bytes()

    with path.open("r+b") as file:
        file.seek(data.index(WHOLE.numpy().tobytes()))
        file.write(b"\xff" * 4)

    assert bytes(leaf.read())[:4] == b"\xff" * 4


@pytest.mark.parametrize(
    ("state", "facts"),
    [
        ({"step": 3, "global_step": 4}, {"step": 3}),
        ({"iteration": 7}, {"step": 7}),
        ({"step": -1}, {}),
        ({"step": True, "epoch": False}, {}),
        ({"step": 1.0}, {}),
        ({"epoch": 2, "metrics": {"loss": 0.5, "name": "x", 5: 1}}, {"epoch": 2, "metrics": {"loss": 0.5}}),
        ({"hyper_parameters": [1]}, {}),
    ],
    ids=str,
)
def test_a_state_says_what_it_knows_of_itself(state: dict[Any, Any], facts: dict[str, Any], tmp_path: Path):
    path = placed(tmp_path, "x.pt", {**state, "model": {"w": WHOLE}})

    assert detect.open_source(path).facts == {"metrics": {}, "params": {}, **facts}


def test_a_file_written_to_memory_is_the_same(tmp_path: Path):
    buffer = io.BytesIO()
    torch.save(STATES["training"], buffer)

    assert_same(STATES["training"], through(placed(tmp_path, "x.pt", buffer.getvalue())))
