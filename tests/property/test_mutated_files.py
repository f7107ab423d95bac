"""A file with a flipped bit or a lost end is refused, or read as another state: never another exception, never much memory."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ckptvcs.errors import FormatError, IntegrityError
from ckptvcs.formats import tree_file
from ckptvcs.formats.foreign import detect
from ckptvcs.formats.reading import NeutralBuilder, build
from tests.unit.formats.makers import MIB, components_in, opened, peak, records, saved, write, zipped

STATE = {
    "model": {"w": torch.arange(4.0), "t": torch.arange(6, dtype=torch.int16).view(2, 3).t(), "tied": torch.ones(2)},
    "rest": [1, 2.5, "x", None, (True,), {3: b"y"}, np.arange(2), np.float32(1), 2**70, torch.Size([1])],
    "step": 3,
}
WHOLE = saved(STATE)
# Without padding, so that most bits mean something.
SMALL = zipped({n: d for n, d in records(WHOLE).items() if n.endswith(("data.pkl", "data/0", "data/1", "data/2"))})
PICKLE = records(SMALL)
WEIGHTS = safetensors.torch.save({"a": torch.ones(2), "b": torch.zeros(3, dtype=torch.bfloat16)}, {"format": "pt"})
ARTIFACT = write({"model": {**STATE["model"], "view": torch.arange(9.0)[3:]}, "rest": STATE["rest"]})
TREES = [path for path in ARTIFACT if path.endswith(tree_file.NAME)]


def harmless(act: Callable[[], Any]) -> None:
    """Run something: it works, or it is refused, and takes little memory."""

    def run() -> None:
        with contextlib.suppress(FormatError, IntegrityError):
            act()

    if peak(run) >= 8 * MIB:  # the first of its kind in a process imports what it needs
        assert peak(run) < 8 * MIB


def read(data: bytes) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(data)
        return components_in(path)


def flipped(data: bytes, bits: list[int]) -> bytes:
    changed = bytearray(data)
    for bit in bits:
        changed[bit // 8 % len(data)] ^= 1 << bit % 8
    return bytes(changed)


MANY = settings(max_examples=3 * settings().max_examples)
_bits = st.lists(st.integers(0, 1 << 16), min_size=1, max_size=3)


@MANY
@given(_bits)
def test_a_torch_file_with_flipped_bits_is_harmless(bits: list[int]):
    harmless(lambda: read(flipped(SMALL, bits)))


@MANY
@given(_bits)
def test_a_pickle_with_flipped_bits_is_harmless(bits: list[int]):
    name = next(n for n in PICKLE if n.endswith("data.pkl"))
    spoiled = {**PICKLE, name: flipped(PICKLE[name], bits)}

    harmless(lambda: read(zipped(spoiled)))


@MANY
@given(st.integers(0, 255), st.integers(0, 4096), st.binary(max_size=6))
def test_a_pickle_with_bytes_put_in_is_harmless(byte: int, place: int, more: bytes):
    name = next(n for n in PICKLE if n.endswith("data.pkl"))
    place %= len(PICKLE[name])
    spoiled = {**PICKLE, name: PICKLE[name][:place] + bytes([byte]) + more + PICKLE[name][place:]}

    harmless(lambda: read(zipped(spoiled)))


@MANY
@given(_bits)
def test_a_safetensors_file_with_flipped_bits_is_harmless(bits: list[int]):
    harmless(lambda: read(flipped(WEIGHTS, bits)))


@given(st.sampled_from([WHOLE, SMALL, WEIGHTS]), st.floats(0, 1, exclude_max=True))
@example(WHOLE, 0.0)
def test_a_file_that_lost_its_end_is_refused(data: bytes, part: float):
    def check() -> None:
        with pytest.raises(FormatError):
            read(data[: int(len(data) * part)])

    assert peak(check) < 8 * MIB


@MANY
@given(st.sampled_from(TREES), _bits)
def test_a_tree_file_with_flipped_bits_is_harmless(path: str, bits: list[int]):
    spoiled = {**ARTIFACT, path: flipped(ARTIFACT[path], bits)}

    harmless(lambda: build(opened(spoiled), NeutralBuilder))


@MANY
@given(st.sampled_from(sorted(set(ARTIFACT) - set(TREES))), _bits)
def test_a_shard_with_flipped_bits_is_harmless(path: str, bits: list[int]):
    spoiled = {**ARTIFACT, path: flipped(ARTIFACT[path], bits)}

    harmless(lambda: build(opened(spoiled), NeutralBuilder))


@MANY
@given(st.binary(max_size=200), st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", WEIGHTS[:9], SMALL[:100]]))
def test_any_bytes_are_harmless(data: bytes, head: bytes):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.pt"
        path.write_bytes(head + data)

        harmless(lambda: detect.open_source(path))
