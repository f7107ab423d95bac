"""A format is told by what is in the file, never by its name."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from ckptvcs.errors import FormatError, UsageError
from ckptvcs.formats.foreign import detect
from tests.support.same import assert_same
from tests.unit.formats.makers import placed, saved, through, write

STATE = {"model": {"w": torch.arange(4.0)}}
WEIGHTS = safetensors.torch.save(STATE["model"])


def legacy(folder: Path) -> bytes:
    torch.save(STATE, folder / "legacy", _use_new_zipfile_serialization=False)
    return (folder / "legacy").read_bytes()


@pytest.mark.parametrize("name", ["x.pt", "x.pth", "x.ckpt", "x.bin", "x.safetensors", "x.txt", "x"])
def test_a_torch_file_of_any_name_is_one(name: str, tmp_path: Path):
    path = placed(tmp_path, name, STATE)

    assert detect.open_source(path).format == "pt"
    assert_same(STATE, through(path))


@pytest.mark.parametrize("name", ["x.safetensors", "x.pt", "x.ckpt", "x.bin", "x.zip", "x"])
def test_a_safetensors_file_of_any_name_is_one(name: str, tmp_path: Path):
    path = placed(tmp_path, name, WEIGHTS)

    assert detect.open_source(path).format == "safetensors"
    assert_same(STATE["model"], through(path))


@pytest.mark.parametrize(
    "name",
    [
        "x.pt",
        "x",
        "x.safetensors",
    ],
)
def test_a_torch_file_of_the_old_kind_is_one_under_any_name(name: str, tmp_path: Path):
    path = placed(tmp_path, name, legacy(tmp_path))

    assert detect.open_source(path).format == "pt-legacy"
    assert_same(STATE, through(path))


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"junk" * 1000,
        b"PK",
        b"PK\x05\x06" + bytes(18),
        b"\x89HDF\r\n\x1a\n" + bytes(600),
        b"\x1f\x8b" + bytes(600),
        b"\x80\x04}.",
        b"{}",
        bytes(1000),
        b"\x02" + bytes(7) + b"{}"[:1],
        "é".encode("utf-16") * 300,
    ],
    ids=range(11),
)
@pytest.mark.parametrize("name", ["x.pt", "x.safetensors", "x.ckpt"])
def test_what_is_no_checkpoint_is_refused_under_any_name(data: bytes, name: str, tmp_path: Path):
    with pytest.raises(FormatError) as caught:
        detect.open_source(placed(tmp_path, name, data))

    assert f"{name}'" in caught.value.what
    assert ".safetensors" in caught.value.next_step


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors", "x.ckpt", "x"])
def test_an_empty_file_is_called_empty(name: str, tmp_path: Path):
    with pytest.raises(FormatError) as caught:
        detect.open_source(placed(tmp_path, name, b""))

    assert caught.value.why == "it is empty"


def test_a_tar_archive_that_is_no_checkpoint_is_refused(tmp_path: Path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(placed(tmp_path, "y", b"x"), "../../evil")

    with pytest.raises(FormatError):
        detect.open_source(tmp_path / "x.tar")

    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.tar", "y"]


def test_a_link_to_a_file_is_followed(tmp_path: Path):
    placed(tmp_path, "real.pt", STATE)
    (tmp_path / "last.pt").symlink_to("real.pt")

    assert detect.open_source(tmp_path / "last.pt").name == "real.pt"


@pytest.mark.parametrize("make", ["missing", "dangling", "loop", "below a file"])
def test_what_is_not_there_is_a_mistake_of_usage(make: str, tmp_path: Path):
    path = tmp_path / "x.pt"
    if make == "dangling":
        path.symlink_to("nowhere")
    elif make == "loop":
        path.symlink_to("x.pt")
    elif make == "below a file":
        path = placed(tmp_path, "file", b"x") / "x.pt"

    with pytest.raises(UsageError) as caught:
        detect.open_source(path)

    assert str(path) in caught.value.what
    assert caught.value.next_step


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_a_mistake_of_usage(tmp_path: Path):
    path = placed(tmp_path, "x.pt", STATE)
    path.chmod(0)

    with pytest.raises(UsageError, match="permission denied"):
        detect.open_source(path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "x.pt")

    with pytest.raises(FormatError, match="neither a file nor a folder"):
        detect.open_source(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({}, "no safetensors file, no torch file"),
        ({"README.md": b"x"}, "no safetensors file, no torch file"),
        ({".metadata": b"x", "__0_0.distcp": b"x"}, "the pickle is damaged"),
        ({"sub/model.safetensors": WEIGHTS}, "no safetensors file, no torch file"),
    ],
    ids=["empty", "other", "DCP", "below"],
)
def test_a_folder_that_is_no_checkpoint_is_refused(files: dict[str, Any], why: str, tmp_path: Path):
    for name, content in files.items():
        placed(tmp_path, name, content)

    with pytest.raises(FormatError) as caught:
        detect.open_source(tmp_path)

    assert why in caught.value.why
    assert caught.value.next_step


def test_a_folder_of_ours_is_read(tmp_path: Path):
    for name, data in write(STATE).items():
        placed(tmp_path, name, data)
    placed(tmp_path, "model/config.json", b"{}")
    placed(tmp_path, "code.patch", b"of the last commit")

    source = detect.open_source(tmp_path)

    assert source.format == "artifact"
    assert list(source.files) == ["model/config.json"]
    assert_same(STATE, through(tmp_path))


@pytest.mark.parametrize("spoil", ["shard missing", "shard torn", "shard linked", "tree torn", "pickle"])
def test_a_folder_of_ours_that_is_damaged_is_refused(spoil: str, tmp_path: Path):
    for name, data in write(STATE).items():
        placed(tmp_path, name, data)
    shard = next(p for p in tmp_path.rglob("*.safetensors"))
    if spoil == "shard missing":
        shard.unlink()
    elif spoil == "shard torn":
        shard.write_bytes(shard.read_bytes()[:-1])
    elif spoil == "shard linked":
        shard.rename(tmp_path / "elsewhere")
        shard.symlink_to(tmp_path / "elsewhere")
    elif spoil == "tree torn":
        placed(tmp_path, "model/tree.json", b"{")
    else:
        placed(tmp_path, "model/state.pkl", saved({"x": 1}))

    with pytest.raises(FormatError):
        detect.open_source(tmp_path)


def test_a_trusted_file_is_unpickled_by_torch(tmp_path: Path):
    source = detect.open_trusted(placed(tmp_path, "x.pt", {"model": {"l": torch.nn.Linear(1, 1)}, "step": 5}))

    assert isinstance(source.state["model"]["l"], torch.nn.Linear)
    assert source.facts["step"] == 5
