"""A safetensors file that lies is refused before anything is made of it: what the official reader refuses, and more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch

from ckptvcs.errors import FormatError
from ckptvcs.formats.foreign import detect
from tests.unit.formats.makers import MIB, components_in, peak, placed, slot, through
from tests.unit.formats.makers import safetensors as made

ONE = b"\x00\x00\x80?"

LIES: dict[str, bytes] = {
    "a length of 2**63": made({"a": slot()}, ONE, length=1 << 63),
    "a length of 2**64 - 1": made({"a": slot()}, ONE, length=(1 << 64) - 1),
    "a length beyond the file": made({"a": slot()}, ONE, length=1000),
    "a length of nothing": made({"a": slot()}, ONE, length=0),
    "a length within the header": made({"a": slot()}, ONE, length=20),
    "a length into the data": made({"a": slot()}, ONE, length=len(json.dumps({"a": slot()})) + 4),
    "overlapping tensors": made({"a": slot(), "b": slot()}, ONE),
    "partly overlapping tensors": made({"a": slot(shape=[2], offsets=[0, 8]), "b": slot(offsets=[4, 8])}, ONE * 2),
    "a gap before": made({"a": slot(offsets=[4, 8])}, ONE * 2),
    "a gap between": made({"a": slot(), "b": slot(offsets=[8, 12])}, ONE * 3),
    "bytes behind": made({"a": slot()}, ONE + b"x"),
    "bytes missing": made({"a": slot()}, ONE[:3]),
    "no bytes": made({"a": slot()}),
    "negative offsets": made({"a": slot(offsets=[-4, 0])}, ONE),
    "offsets turned round": made({"a": slot(offsets=[4, 0])}, ONE),
    "one offset": made({"a": slot(offsets=[0])}, ONE),
    "three offsets": made({"a": slot(offsets=[0, 4, 8])}, ONE),
    "fractional offsets": made({"a": slot(offsets=[0.0, 4.0])}, ONE),
    "offsets beyond the file": made({"a": slot(shape=[100], offsets=[0, 400])}, ONE),
    "offsets beyond 64 bits": made({"a": slot(shape=[1 << 70], offsets=[0, 1 << 72])}, ONE),
    "a shape that is smaller": made({"a": slot(shape=[])}, ONE + ONE),
    "a shape that is larger": made({"a": slot(shape=[2])}, ONE),
    "a negative shape": made({"a": slot(shape=[-1])}, ONE),
    "two negative sizes": made({"a": slot(shape=[-1, -1])}, ONE),
    "a shape of text": made({"a": slot(shape="1")}, ONE),
    "a fractional shape": made({"a": slot(shape=[1.0])}, ONE),
    "a boolean shape": made({"a": slot(shape=[True])}, ONE),
    "a nested shape": made({"a": slot(shape=[[1]])}, ONE),
    "no shape": made({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, ONE),
    "an unknown type": made({"a": slot("F7")}, ONE),
    "a type in small letters": made({"a": slot("f32")}, ONE),
    "a type of ours": made({"a": slot("np:<f4")}, ONE),
    "a list of types": made({"a": slot(["F32"])}, ONE),
    "no type": made({"a": {"shape": [1], "data_offsets": [0, 4]}}, ONE),
    "nothing for a tensor": made({"a": None}),
    "a list": made(b"[1, 2, 3]"),
    "a list behind a brace": made(b"{[1]}"),
    "text": made(b'"{}"'),
    "an open brace": made(b"{"),
    "open braces": made(b'{"a":' * 100_000),
    "open lists": made(b'{"a":' + b"[" * 100_000),
    "deep lists": made(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "a long number": made(b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,4]}}', ONE),
    "a number that is none": made(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}', ONE),
    "no UTF-8": made(b'{"\xff\xfe":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', ONE),
    "half a character": made(b'{"a\xc3":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', ONE),
    "metadata that is a list": made({"__metadata__": [1], "a": slot()}, ONE),
}
STRICT = {
    "UTF-16": made('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.encode("utf-16-le"), ONE),
    "minus nothing": made(b'{"a":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}'),
    "not a number": made(b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0],"x":NaN}}'),
    "half a surrogate pair in metadata": made(b'{"__metadata__":{"a":"\\udc00"}}'),
    "half a surrogate pair": made(b'{"\\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', ONE),
    "nested metadata": made({"__metadata__": {"a": {"b": 1}}, "a": slot()}, ONE),
    "numbers in metadata": made({"__metadata__": {"a": 1}, "a": slot()}, ONE),
    "an empty tensor that is too large": made({"a": slot(shape=[1 << 40, 1 << 40, 0], offsets=[0, 0])}),
}


def refuse(data: bytes, folder: Path) -> None:
    with pytest.raises((safetensors.SafetensorError, KeyError)):
        safetensors.torch.load(data)
    path = placed(folder, "x.safetensors", data)
    with pytest.raises(FormatError) as caught:
        detect.open_source(path)

    assert "x.safetensors'" in caught.value.what
    assert caught.value.next_step
    assert peak(lambda: detect.open_source(path)) < 5 * MIB


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_refused_with_little_memory(name: str, tmp_path: Path):
    refuse(LIES[name], tmp_path)


@pytest.mark.parametrize("name", STRICT)
def test_what_the_official_reader_refuses_is_refused(name: str, tmp_path: Path):
    refuse(STRICT[name], tmp_path)


@pytest.mark.parametrize(
    "header",
    [
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","dtype":"I32","shape":[1],"data_offsets":[0,4]}}',
        b'{"__metadata__":{"a":"1","a":"2"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
    ],
    ids=["tensors", "keys of a tensor", "metadata"],
)
def test_what_stands_there_twice_is_refused(header: bytes, tmp_path: Path):
    with pytest.raises(FormatError, match="twice"):
        detect.open_source(placed(tmp_path, "x.safetensors", made(header, ONE)))


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "$tensor", "", "a\x00b", "\x1b[2J", "__proto__", "con", "."]
)
def test_a_tensor_of_any_name_stays_a_name(name: str, tmp_path: Path):
    source, (model, *_) = components_in(placed(tmp_path, "x.safetensors", made({name: slot()}, ONE)))

    assert list(source.state) == [name]
    assert list(model.leaves) == [name or "tensor"]


def test_a_large_header_that_is_true_is_read(tmp_path: Path):
    tensors = {f"layers.{i}.weight": torch.zeros(1) for i in range(5000)}

    source, _ = components_in(placed(tmp_path, "x.safetensors", safetensors.torch.save(tensors)))

    assert sorted(source.state) == sorted(tensors)


def test_a_file_with_metadata_is_read(tmp_path: Path):
    data = safetensors.torch.save(
        {"b": torch.ones(2), "a": torch.zeros(2, dtype=torch.bfloat16)}, {"format": "pt", "x": "ü"}
    )
    path = placed(tmp_path, "weights", data)

    source, (model, *_) = components_in(path)

    assert (source.format, source.name, source.metadata) == ("safetensors", "weights", {"format": "pt", "x": "ü"})
    assert (model.name, model.role) == ("model", "model")
    back: Any = through(path)
    assert {n: (t.dtype, t.tolist()) for n, t in back.items()} == {
        "a": (torch.bfloat16, [0, 0]),
        "b": (torch.float32, [1, 1]),
    }
