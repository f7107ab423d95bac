"""What we write the official library reads, what it writes we read, and the bytes are always the same."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from ckptvcs.errors import FormatError, HostileInput
from ckptvcs.formats import dtypes
from ckptvcs.formats.safetensors_file import (
    MAX_HEADER,
    Spec,
    header,
    read_header,
    read_metadata,
    stored_spec,
    write_order,
)
from tests.support.states import DTYPES, tensor_of

OFFICIAL = [dtype for dtype in DTYPES if dtypes.BY_TORCH_NAME[str(dtype).removeprefix("torch.")] in dtypes.SAFETENSORS]


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def written(tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """A file of ours."""
    names = {name: dtypes.BY_TORCH_NAME[str(t.dtype).removeprefix("torch.")] for name, t in tensors.items()}
    specs = {name: stored_spec(names[name], tuple(t.shape)) for name, t in tensors.items()}
    return header(specs, metadata) + b"".join(raw(tensors[name]) for name in write_order(specs))


def some_tensors() -> dict[str, torch.Tensor]:
    shapes = [(), (3,), (2, 5), (0, 4), (1, 1, 7)]
    return {
        f"layer.{i}.{str(dtype).removeprefix('torch.')}": tensor_of(dtype, shapes[i % 5], i)
        for i, dtype in enumerate(OFFICIAL)
    }


def test_the_official_library_reads_what_we_write(tmp_path: Path):
    tensors = some_tensors()
    (tmp_path / "x.safetensors").write_bytes(written(tensors))

    back = safetensors.torch.load_file(tmp_path / "x.safetensors")

    assert {n: (t.dtype, tuple(t.shape)) for n, t in back.items()} == {
        n: (t.dtype, tuple(t.shape)) for n, t in tensors.items()
    }
    assert {n: raw(t) for n, t in back.items()} == {n: raw(t) for n, t in tensors.items()}


def test_we_read_what_the_official_library_writes():
    tensors = some_tensors()
    data = safetensors.torch.save(tensors, {"made": "by test"})

    slots = read_header(data, file="x")

    assert {name: data[slot.start : slot.stop] for name, slot in slots.items()} == {
        n: raw(t) for n, t in tensors.items()
    }
    assert {name: slot.spec.shape for name, slot in slots.items()} == {n: tuple(t.shape) for n, t in tensors.items()}
    assert read_metadata(data, file="x") == {"made": "by test"}


def test_the_same_tensors_have_the_same_bytes_in_any_order():
    tensors = some_tensors()
    turned = dict(reversed(tensors.items()))

    assert written(tensors) == written(turned)


def test_the_bytes_of_a_file_are_fixed():
    data = written({"b": torch.tensor([1, 2], dtype=torch.uint8), "a": torch.tensor([1.0])})

    text = (
        b'{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'"b":{"dtype":"U8","shape":[2],"data_offsets":[4,6]}}'
    )
    text += b" " * (-(8 + len(text)) % 64)
    assert data == struct.pack("<Q", len(text)) + text + b"\x00\x00\x80?\x01\x02"


@pytest.mark.parametrize("name", ["w", "ü", "\N{GRINNING FACE}", 'a"b\\c', "\n\x00", "__metadata", "x" * 5000])
def test_any_name_comes_back_through_the_official_library(name: str):
    assert list(safetensors.torch.load(written({name: torch.ones(2)}))) == [name]


def test_a_name_that_is_no_unicode_text_is_not_written():
    with pytest.raises(FormatError, match="no Unicode text"):  # the official reader refuses what we could write
        written({"\ud800": torch.ones(2)})


def test_every_tensor_is_aligned_for_its_type_and_the_first_for_any():
    tensors = {f"{i}": tensor_of(dtype, (2 * i + 1,), i) for i, dtype in enumerate(OFFICIAL)}

    slots = read_header(written(tensors), file="x")

    assert all(slot.start % tensors[name].element_size() == 0 for name, slot in slots.items())
    assert min(slot.start for slot in slots.values()) % 64 == 0


@pytest.mark.parametrize(
    ("dtype", "shape", "stored"),
    [
        ("F32", (2, 3), Spec("F32", (2, 3))),
        ("C64", (2,), Spec("C64", (2,))),
        ("C128", (2,), Spec("U8", (2, 16))),
        ("C32", (), Spec("U8", (4,))),
        ("np:<U5", (3,), Spec("U8", (3, 20))),
        ("np:>f4", (0, 2), Spec("U8", (0, 2, 4))),
    ],
)
def test_a_type_that_safetensors_has_not_is_stored_as_bytes(dtype: str, shape: tuple[int, ...], stored: Spec):
    assert stored_spec(dtype, shape) == stored
    assert stored.nbytes == dtypes.itemsize(dtype) * math.prod(shape)


def test_transformers_finds_the_format_that_it_looks_for(tmp_path: Path):
    (tmp_path / "x.safetensors").write_bytes(written({"a": torch.ones(1)}, {"step": "3"}))

    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "step": "3"}


def test_a_file_without_tensors_is_a_file():
    data = written({})

    assert safetensors.torch.load(data) == {}
    assert read_header(data, file="x") == {}


@pytest.mark.parametrize("size", range(8))
def test_less_than_a_length_is_no_file(size: int):
    with pytest.raises(HostileInput):
        read_header(b"\x00" * size, file="x")


@pytest.mark.parametrize("length", [MAX_HEADER + 1, 1 << 40, (1 << 64) - 1, 100])
def test_a_header_that_claims_too_much_is_refused_before_it_is_read(length: int):
    with pytest.raises(HostileInput) as caught:
        read_header(struct.pack("<Q", length) + b"{}", file="x.safetensors")

    assert str(length) in caught.value.why
    assert "'x.safetensors'" in caught.value.what
    assert caught.value.facts["file"] == "x.safetensors"


def test_only_the_header_is_looked_at():
    data = written({"a": torch.ones(4)})
    spoiled = data[:-16] + b"\xff" * 16

    assert read_header(spoiled, file="x") == read_header(data, file="x")


def test_names_of_hostile_files_do_not_drive_the_terminal():
    text = json.dumps({"\x1b[2J": {"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}}).encode()

    with pytest.raises(HostileInput) as caught:
        read_header(struct.pack("<Q", len(text)) + text + b"12345678", file="\x1b[31m")

    assert "\x1b" not in f"{caught.value}{caught.value.next_step}"
