"""Distributed checkpoints: what torch wrote is read as torch reads it, and what lies is refused."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from ckptvcs.errors import FormatError, UnsupportedValue
from ckptvcs.formats.foreign import detect
from tests.support.same import assert_same
from tests.unit.formats.makers import components_in, peak, saved, through

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.distributed is disabled.*:UserWarning")

STATES: dict[str, Any] = {
    "training": {
        "model": {"w": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "step": 7,
        "epoch": 1,
    },
    "values": {"a": None, "b": (1, 2.5, "x"), "c": {1, 2}, "d": b"bytes", "e": {}, "f": [], "g": {"h": [1, {"i": 2}]}},
    "lists": {"l": [torch.zeros(2), [torch.ones(1), {"x": torch.ones(3)}], 5]},
    "odd tensors": {
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(1.5, dtype=torch.float64),
        "turned": torch.arange(6.0).reshape(2, 3).T,
        "bool": torch.tensor([True, False]),
        "complex": torch.ones(2, dtype=torch.complex64),
        "slice": torch.arange(100.0)[10:20],
    },
    "dots": {"a.b": {"c": torch.ones(1)}, "a": {"b.d": torch.zeros(1)}},
}


def written(folder: Path, state: dict[str, Any], **how: Any) -> Path:
    dcp.save(state, storage_writer=dcp.FileSystemWriter(folder, **how), no_dist=True)
    return folder


@pytest.mark.parametrize("state", STATES.values(), ids=list(STATES))
@pytest.mark.parametrize("how", [{}, {"single_file_per_rank": False}], ids=["one file", "a file each"])
def test_it_is_read_as_torch_reads_it(state: dict[str, Any], how: dict[str, Any], tmp_path: Path):
    folder = written(tmp_path / "d", state, **how)
    dcp_to_torch_save(str(folder), str(tmp_path / "theirs.pt"))

    assert_same(torch.load(tmp_path / "theirs.pt", weights_only=False), through(folder))


def test_it_says_what_it_says_of_itself(tmp_path: Path):
    source = detect.open_source(written(tmp_path / "step-7", STATES["training"]))

    assert (source.format, source.name) == ("dcp", "step-7")
    assert (source.facts["step"], source.facts["epoch"]) == (7, 1)
    assert {path.name for path in source.watched} == {".metadata", "__0_0.distcp"}
    assert detect.folder_format(tmp_path / "step-7") == "dcp"


def test_an_object_that_cannot_be_represented_is_named(tmp_path: Path):
    folder = written(tmp_path / "d", {"w": torch.ones(2), "odd": [random.Random(1)]})

    with pytest.raises(UnsupportedValue) as caught:
        components_in(folder)

    assert "random.Random" in caught.value.why


# -------------------------------------------------------------------------------------------------------------- pieces


def in_pieces(
    folder: Path, whole: torch.Tensor, pieces: list[tuple[tuple[int, ...], torch.Tensor]], **say: Any
) -> Path:
    """A folder as several ranks write it, made by hand: each piece in a file of its own."""
    folder.mkdir()
    chunks = [ChunkStorageMetadata(torch.Size(at), piece.size()) for at, piece in pieces]
    properties = TensorProperties(dtype=whole.dtype)
    entry = TensorStorageMetadata(properties, say.get("size", whole.size()), say.get("chunks", chunks))
    places = {}
    for rank, (at, piece) in enumerate(pieces):
        data = saved(piece.contiguous())
        (folder / f"__{rank}_0.distcp").write_bytes(data)
        places[MetadataIndex("w", torch.Size(at))] = _StorageInfo(f"__{rank}_0.distcp", 0, len(data))
    metadata = Metadata({"w": entry}, {"w": ("w",)}, {**places, **say.get("places", {})})
    (folder / ".metadata").write_bytes(pickle.dumps(replace(metadata, **say.get("metadata", {}))))
    return folder


W = torch.arange(24.0).reshape(4, 6)
ROWS = [((0, 0), W[:1]), ((1, 0), W[1:3]), ((3, 0), W[3:])]
CUTS: dict[str, Any] = {
    "whole": [((0, 0), W)],
    "rows": ROWS,
    "rows the other way round": ROWS[::-1],
    "columns": [((0, 0), W[:, :2]), ((0, 2), W[:, 2:])],
    "both": [((0, 0), W[:2, :3]), ((0, 3), W[:2, 3:]), ((2, 0), W[2:, :1]), ((2, 1), W[2:, 1:])],
    "with an empty piece": [*ROWS, ((4, 0), W[4:])],
}


@pytest.mark.parametrize("pieces", CUTS.values(), ids=list(CUTS))
def test_pieces_are_put_together(pieces: Any, tmp_path: Path):
    folder = in_pieces(tmp_path / "d", W, pieces)

    leaf = detect.open_source(folder).state["w"]

    assert bytes(memoryview(leaf.read()).cast("B")) == W.numpy().tobytes()
    assert b"".join(bytes(memoryview(piece).cast("B")) for piece in leaf.pieces()) == W.numpy().tobytes()
    assert_same({"w": W}, through(folder))


def test_rows_of_many_ranks_are_never_in_memory_together(tmp_path: Path):
    whole = torch.zeros(64, 1 << 15)
    folder = in_pieces(tmp_path / "d", whole, [((n, 0), whole[n : n + 1]) for n in range(64)])

    leaf = detect.open_source(folder).state["w"]

    assert peak(lambda: sum(memoryview(piece).nbytes for piece in leaf.pieces())) < 1 << 20


def chunk(at: tuple[int, ...], sizes: tuple[int, ...]) -> ChunkStorageMetadata:
    return ChunkStorageMetadata(torch.Size(at), torch.Size(sizes))


LIES: dict[str, tuple[dict[str, Any], str]] = {
    "a piece is missing": ({"chunks": [chunk((0, 0), (1, 6)), chunk((1, 0), (2, 6))]}, "do not make the whole"),
    "a tensor is larger": ({"size": torch.Size([5, 6])}, "do not make the whole"),
    "a tensor of terabytes": ({"size": torch.Size([1 << 40, 1 << 20])}, "do not make the whole"),
    "other dimensions": ({"size": torch.Size([24])}, "other dimensions"),
    "a negative size": ({"chunks": [chunk((0, 0), (-4, -6))]}, "negative"),
    "a piece that lies nowhere": ({"chunks": [chunk((0, 1), (4, 6))]}, "damaged"),
    "a way out": (
        {"places": {MetadataIndex("w", torch.Size((0, 0))): _StorageInfo("../x", 0, 9)}},
        "no path in the folder",
    ),
    "an absolute path": (
        {"places": {MetadataIndex("w", torch.Size((0, 0))): _StorageInfo("/etc/passwd", 0, 9)}},
        "no path in the folder",
    ),
    "a file that is missing": (
        {"places": {MetadataIndex("w", torch.Size((0, 0))): _StorageInfo("x", 0, 9)}},
        "missing",
    ),
    "beyond the file": (
        {"places": {MetadataIndex("w", torch.Size((0, 0))): _StorageInfo("__0_0.distcp", 0, 1 << 40)}},
        "ends before",
    ),
    "before the file": (
        {"places": {MetadataIndex("w", torch.Size((0, 0))): _StorageInfo("__0_0.distcp", -4, 4)}},
        "ends before",
    ),
    "compressed": (
        {"places": {MetadataIndex("w", torch.Size((0, 0))): _StorageInfo("__0_0.distcp", 0, 9, ["zstd"])}},
        "transformed",
    ),
    "no paths": ({"metadata": {"planner_data": {"w": ()}}}, "hangs nowhere"),
    "a path of odd keys": ({"metadata": {"planner_data": {"w": (1.5,)}}}, "hangs nowhere"),
    "a list with gaps": ({"metadata": {"planner_data": {"w": ("l", 3)}}}, "gaps"),
    "a path without end": ({"metadata": {"planner_data": {"w": ("a",) * 10_000}}}, "nested deeper"),
    "no places": ({"metadata": {"storage_data": None}}, "damaged"),
    "an entry of another kind": ({"metadata": {"state_dict_metadata": {"w": 5}}}, "neither a tensor nor a value"),
    "a value without a place": ({"metadata": {"state_dict_metadata": {"w": BytesStorageMetadata()}}}, "damaged"),
}


@pytest.mark.parametrize(("lie", "why"), LIES.values(), ids=list(LIES))
def test_metadata_that_lies_is_refused(lie: dict[str, Any], why: str, tmp_path: Path):
    folder = in_pieces(tmp_path / "d", W, ROWS, **lie)

    with pytest.raises(FormatError) as caught:
        components_in(folder)

    assert why in caught.value.why
    assert caught.value.next_step


@pytest.mark.parametrize(
    "pieces",
    [
        [((0, 0), W[:3]), ((1, 0), W[1:2])],
        [((0, 0), W[:, :4]), ((2, 0), W[2:, :2]), ((0, 4), W[:2, 4:])],
    ],
    ids=["rows", "boxes"],
)
def test_pieces_that_overlap_are_refused(pieces: Any, tmp_path: Path):
    with pytest.raises(FormatError) as caught:
        components_in(in_pieces(tmp_path / "d", W, pieces))

    assert "do not make the whole" in caught.value.why


@pytest.mark.parametrize(
    ("piece", "why"),
    [
        (torch.zeros(4, 6, dtype=torch.int32), "not what the metadata says"),
        (torch.zeros(6, 4), "not what the metadata says"),
        ({"w": W}, "not what the metadata says"),
        (b"", "is empty"),
        (b"x" * 400, "not in the format of torch.save"),
    ],
    ids=["type", "shape", "a dict", "empty", "other bytes"],
)
def test_a_piece_that_is_something_else_is_refused(piece: Any, why: str, tmp_path: Path):
    folder = in_pieces(tmp_path / "d", W, [((0, 0), W)])
    data = piece if isinstance(piece, bytes) else saved(piece)
    place = {MetadataIndex("w", torch.Size((0, 0))): _StorageInfo("__0_0.distcp", 0, len(data))}
    folder = in_pieces(tmp_path / "e", W, [((0, 0), W)], places=place)
    (folder / "__0_0.distcp").write_bytes(data)

    with pytest.raises(FormatError) as caught:
        components_in(folder)

    assert why in caught.value.why


def test_a_link_that_leads_out_is_refused(tmp_path: Path):
    folder = in_pieces(tmp_path / "d", W, [((0, 0), W)])
    (folder / "__0_0.distcp").rename(tmp_path / "secret")
    (folder / "__0_0.distcp").symlink_to(tmp_path / "secret")

    with pytest.raises(FormatError) as caught:
        components_in(folder)

    assert "leads out" in caught.value.why


def test_no_code_of_the_metadata_runs(tmp_path: Path):
    class Trap:
        def __reduce__(self) -> Any:
            return (tmp_path / "sprung").mkdir, ()

    for n, say in enumerate(({"planner_data": Trap()}, {"state_dict_metadata": Trap()}, {"storage_meta": Trap()})):
        folder = in_pieces(tmp_path / str(n), W, ROWS, metadata=say)
        with suppress(FormatError):
            components_in(folder)

    assert not (tmp_path / "sprung").exists()


def test_any_byte_of_the_metadata_may_be_wrong(tmp_path: Path):
    folder = in_pieces(tmp_path / "d", W, ROWS)
    honest = (folder / ".metadata").read_bytes()
    chance = random.Random(5)

    def attempt(change: Callable[[bytearray], None]) -> None:
        data = bytearray(honest)
        change(data)
        (folder / ".metadata").write_bytes(data)
        with suppress(FormatError):
            components_in(folder)

    for _ in range(300):
        at = chance.randrange(len(honest))
        attempt(lambda data, at=at: data.__setitem__(at, chance.randrange(256)))
        attempt(lambda data, at=at: data.__delitem__(slice(at, None)))
