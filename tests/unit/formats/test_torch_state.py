"""Tensors come back bit for bit: type, shape, memory order, gradients, parameters, and torch's small values."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ckptvcs.errors import FormatError
from ckptvcs.formats import torch_state
from ckptvcs.formats.leaf import TorchAtom
from tests.support.same import assert_same
from tests.support.states import DTYPES, tensor_of
from tests.unit.formats.makers import read, write

GRAD = torch.ones(2, requires_grad=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 5)], ids=str)
def test_any_element_type_comes_back(dtype: torch.dtype, shape: tuple[int, ...]):
    state = {"model": {"w": tensor_of(dtype, shape, 1)}}

    assert_same(state, read(write(state)))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(24.0).view(2, 3, 4).permute(2, 0, 1),
        torch.ones(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        torch.arange(24.0).view(4, 6)[::2, 1::2],
        torch.arange(3.0).expand(4, 3),
        torch.arange(3.0).view(3, 1).expand(3, 4),
        torch.zeros(3, 0, 2).permute(2, 1, 0),
        torch.nn.Parameter(torch.ones(2)),
        torch.nn.Parameter(torch.ones(2), requires_grad=False),
        torch.nn.Parameter(torch.arange(3), requires_grad=False),
        GRAD,
        torch.tensor([1 + 2j]).conj(),
        torch.tensor([1 + 2j]).conj().imag,
        torch.view_as_real(torch.tensor([1 + 2j])),
    ],
    ids=[
        "permuted",
        "channels last",
        "gaps",
        "expanded",
        "expanded column",
        "empty",
        "parameter",
        "frozen parameter",
        "integer parameter",
        "gradient",
        "conjugate",
        "negative",
        "real view",
    ],
)
def test_any_tensor_comes_back(tensor: torch.Tensor):
    assert_same({"model": {"w": tensor}}, read(write({"model": {"w": tensor}})))


@pytest.mark.parametrize(
    "value",
    [
        torch.Size([2, 3]),
        torch.Size([]),
        torch.bfloat16,
        torch.complex32,
        torch.device("cuda:1"),
        torch.device("meta"),
        torch.strided,
        torch.channels_last,
    ],
    ids=str,
)
def test_the_small_values_of_torch_come_back(value: Any):
    back = read(write({"x": [value]}))["x"][0]

    assert type(back) is type(value)
    assert back == value


@pytest.mark.parametrize(
    "atom", [TorchAtom("dtype", "float77"), TorchAtom("dtype", "load"), TorchAtom("layout", "float32")], ids=str
)
def test_a_small_value_that_torch_has_not_is_refused(atom: TorchAtom):
    with pytest.raises(FormatError, match=torch.__version__.replace("+", r"\+")):
        torch_state.real_atom(atom)


def test_states_that_share_nothing_do_not_share_after_a_step():
    state = {"model": {"a": torch.zeros(4), "b": torch.zeros(4)}}

    back = read(write(state))["model"]
    back["a"] += 1

    assert back["b"].tolist() == [0] * 4


def test_reading_a_leaf_does_not_copy_the_tensor():
    tensor = torch.zeros(4)
    leaf = torch_state.adapt(tensor)

    tensor[0] = 1.0

    assert bytes(leaf.read())[:4] == b"\x00\x00\x80?"


LEGACY = {"model": {"w": torch.arange(4.0)}, "step": 3}


def test_a_file_from_before_torch_1_6_is_read(tmp_path: Path):
    torch.save(LEGACY, tmp_path / "x.pt", _use_new_zipfile_serialization=False)

    assert_same(LEGACY, torch_state.read_legacy(tmp_path / "x.pt"))


@pytest.mark.parametrize("part", range(16))
def test_a_torn_file_from_before_torch_1_6_is_refused(part: int, tmp_path: Path):
    torch.save(LEGACY, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    data = (tmp_path / "x.pt").read_bytes()
    (tmp_path / "x.pt").write_bytes(data[: len(data) * part // 16])

    with pytest.raises(FormatError) as caught:
        torch_state.read_legacy(tmp_path / "x.pt")

    assert str(tmp_path / "x.pt") in caught.value.what


class Touch:
    """Unpickling this makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


def test_code_in_a_file_from_before_torch_1_6_does_not_run(tmp_path: Path):
    state = {"x": Touch(tmp_path / "marker")}
    torch.save(state, tmp_path / "x.pt", _use_new_zipfile_serialization=False)

    with pytest.raises(FormatError):
        torch_state.read_legacy(tmp_path / "x.pt")

    assert not (tmp_path / "marker").exists()


def test_a_trusted_file_runs_what_it_says_and_what_goes_wrong_is_an_error_of_ours(tmp_path: Path):
    torch.save({"x": Touch(tmp_path / "marker")}, tmp_path / "x.pt")
    torch_state.read_trusted(tmp_path / "x.pt")
    (tmp_path / "bad.pt").write_bytes(b"junk")

    with pytest.raises(FormatError) as caught:
        torch_state.read_trusted(tmp_path / "bad.pt")

    assert (tmp_path / "marker").exists()
    assert "bad.pt" in caught.value.what


def test_the_formats_need_no_torch():
    modules = "artifact, components, flatten, hints, layout, numpy_values, reading, safetensors_file, tree_file"
    script = f"""
from ckptvcs.formats import {modules}
from ckptvcs.formats.foreign import detect, hf_directory, zip_pt
import sys
print([name for name in ("torch", "numpy", "pickle", "dvc", "pygit2") if name in sys.modules])
"""

    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)

    assert done.stdout == "[]\n"
