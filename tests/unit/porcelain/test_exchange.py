"""`export`: other programs read what we write, and what they read is what was committed."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ckptvcs import Repo
from ckptvcs.errors import (
    FormatError,
    MissingObject,
    NotFound,
    Refused,
    StorageError,
    TierFull,
    WouldOverwrite,
    WrongDigest,
)
from ckptvcs.porcelain import exchange
from ckptvcs.porcelain.repo import Repository
from tests.support.same import assert_same
from tests.support.states import training_state
from tests.support.world import World

SUFFIXES = {"pt": ".pt", "safetensors": ".safetensors", "hf": "", "lightning": ".ckpt"}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder to export to."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


# ----------------------------------------------------------------------------------------------------------- with torch


@pytest.mark.parametrize("name", ["x.pt", "x.pth"])
def test_a_file_of_torch_holds_the_whole_state(repo: Repo, out: Path, name: str):
    repo.commit(training_state(1))

    repo.export("HEAD", out / name)

    assert_same(torch.load(out / name, weights_only=False), training_state(1))
    assert os.listdir(out) == [name]


@pytest.mark.parametrize("parts", [False, True], ids=["a model alone", "several parts"])
def test_a_file_of_torch_has_the_type_that_was_committed(repo: Repo, out: Path, parts: bool):
    weights = torch.nn.Linear(2, 2).state_dict()
    state = OrderedDict(model=weights, step=3) if parts else weights
    repo.commit(state)

    repo.export("HEAD", out / "x.pt")

    assert_same(torch.load(out / "x.pt", weights_only=False), state)


def test_what_lightning_looks_for_is_where_it_looks(repo: Repo, out: Path, state):
    repo.commit(state(1), step=7, epoch=2)

    repo.export("HEAD", out / "x.ckpt")

    found = torch.load(out / "x.ckpt", weights_only=False)
    assert (found["global_step"], found["epoch"]) == (7, 2)
    assert_same(dict(found["state_dict"]), state(1)["model"])
    assert_same(found["optimizer_states"], [state(1)["optimizer"]])


def test_a_checkpoint_of_lightning_is_given_back_as_it_was(repo: Repo, out: Path, tmp_path: Path):
    theirs = {
        "epoch": 1,
        "global_step": 5,
        "pytorch-lightning_version": "2.1.0",
        "state_dict": {"w": torch.ones(2)},
        "optimizer_states": [{"state": {}, "param_groups": []}],
        "hyper_parameters": {"lr": 0.1},
    }
    torch.save(theirs, tmp_path / "theirs.ckpt")
    repo.commit(tmp_path / "theirs.ckpt")

    repo.export("HEAD", out / "x.ckpt")

    assert_same(torch.load(out / "x.ckpt", weights_only=False), theirs)


def test_without_a_model_there_is_nothing_for_lightning(repo: Repo, out: Path, state):
    repo.commit({"optimizer": state(1)["optimizer"]})

    with pytest.raises(FormatError, match="no model"):
        repo.export("HEAD", out / "x.ckpt")


# -------------------------------------------------------------------------------------------------------- safetensors


def test_a_file_of_safetensors_holds_one_component(repo: Repo, out: Path, history, state):
    repo.export("HEAD", out / "x.safetensors")
    repo.export("HEAD", out / "o.safetensors", component="optimizer")

    assert_same(load_file(out / "x.safetensors"), state(3)["model"])
    assert_same(load_file(out / "o.safetensors"), {"state.0.exp_avg": state(3)["optimizer"]["state"][0]["exp_avg"]})


def test_tied_tensors_are_written_under_both_names(repo: Repo, out: Path):
    shared = torch.arange(4.0)
    repo.commit({"model": {"a": shared, "b": shared, "part": shared[1:3], "flipped": shared.reshape(2, 2).T}})

    repo.export("HEAD", out / "x.safetensors")

    found = load_file(out / "x.safetensors")
    assert_same(found["a"], shared)
    assert_same(found["b"], shared)
    assert found["part"].tolist() == [1.0, 2.0]
    assert found["flipped"].tolist() == [[0.0, 2.0], [1.0, 3.0]]


KINDS = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int8, torch.int64, torch.uint16, torch.bool]


@pytest.mark.parametrize("dtype", KINDS, ids=str)
def test_every_element_type_of_safetensors_is_kept(repo: Repo, out: Path, dtype: torch.dtype):
    tensors = {
        "w": torch.arange(6).reshape(2, 3).to(dtype),
        "scalar": torch.ones((), dtype=dtype),
        "none": torch.ones(0),
    }
    repo.commit({"model": tensors})

    repo.export("HEAD", out / "x.safetensors")

    found = load_file(out / "x.safetensors")
    assert_same({name: found[name] for name in tensors}, tensors)


@pytest.mark.parametrize(
    "tensor", [torch.zeros(2, dtype=torch.complex128), torch.ones(1).expand(5)], ids=["type", "repeat"]
)
def test_what_safetensors_cannot_hold_is_named(repo: Repo, out: Path, tensor: torch.Tensor):
    repo.commit({"model": {"fine": torch.ones(1), "odd": tensor}})

    with pytest.raises(FormatError, match="'odd'"):
        repo.export("HEAD", out / "x.safetensors")

    assert os.listdir(out) == []


def test_words_of_the_header_come_back(repo: Repo, out: Path, tmp_path: Path):
    save_file({"w": torch.ones(1)}, tmp_path / "theirs.safetensors", metadata={"format": "pt", "who": "é"})
    repo.commit(tmp_path / "theirs.safetensors")

    repo.export("HEAD", out / "x.safetensors")

    with safe_open(out / "x.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "who": "é"}


# ----------------------------------------------------------------------------------------------------------------- hf


def test_a_folder_has_weights_and_the_other_parts_beside_them(repo: Repo, out: Path, history, state):
    repo.export("HEAD", out / "folder")

    assert sorted(os.listdir(out / "folder")) == ["extra.pt", "model.safetensors", "optimizer.pt"]
    assert_same(load_file(out / "folder/model.safetensors"), state(3)["model"])
    assert_same(torch.load(out / "folder/optimizer.pt", weights_only=True), state(3)["optimizer"])


def test_large_weights_are_split_with_an_index(repo: Repo, out: Path, monkeypatch: pytest.MonkeyPatch):
    tensors = {f"layer.{n}": torch.full((1000,), float(n)) for n in range(10)}
    repo.commit({"model": tensors})
    monkeypatch.setattr(exchange, "_MAX_SHARD", 9000)

    repo.export("HEAD", out / "folder", format="hf")

    index = json.loads((out / "folder/model.safetensors.index.json").read_text())
    found = {name: load_file(out / "folder" / file)[name] for name, file in index["weight_map"].items()}
    assert_same(found, dict(sorted(tensors.items())))
    assert index["metadata"]["total_size"] == 40_000
    sizes = [(out / "folder" / file).stat().st_size for file in set(index["weight_map"].values())]
    assert len(sizes) == 5
    assert max(sizes) < 10_000


@pytest.mark.parametrize("name", ["adapter_model", "model_1", "vision_tower"])
def test_weights_under_another_name_come_back_as_safetensors(repo: Repo, out: Path, tmp_path: Path, name: str):
    folder = tmp_path / "folder"
    folder.mkdir()
    save_file({"w": torch.arange(4.0)}, folder / f"{name}.safetensors")
    torch.save({"m": torch.ones(3)}, folder / "optimizer.pt")
    receipt = repo.commit(folder)

    repo.export("HEAD", out / "folder", format="hf")

    assert torch.equal(load_file(out / "folder" / f"{name}.safetensors")["w"], torch.arange(4.0))
    assert receipt.manifest.grade == ("weights-only" if name == "vision_tower" else "approximate")


def test_files_beside_the_weights_come_back(repo: Repo, out: Path, tmp_path: Path):
    theirs = tmp_path / "theirs"
    (theirs / "sub").mkdir(parents=True)
    save_file({"w": torch.ones(2)}, theirs / "model.safetensors")
    for name, text in {"config.json": '{"model_type": "x"}', "tokenizer.json": "{}", "sub/notes.txt": "x"}.items():
        (theirs / name).write_text(text)
    repo.commit(theirs)

    repo.export("HEAD", out / "folder")

    for name in ("config.json", "tokenizer.json"):
        assert (out / "folder" / name).read_text() == (theirs / name).read_text()
    assert_same(load_file(out / "folder/model.safetensors"), {"w": torch.ones(2)})


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("kind_of_file", SUFFIXES)
@pytest.mark.parametrize("kind", ["file", "folder", "link to nowhere"])
def test_what_is_there_is_not_overwritten(repo: Repo, out: Path, history, snapshot, kind_of_file: str, kind: str):
    place = out / f"x{SUFFIXES[kind_of_file]}"
    if kind == "file":
        place.write_text("mine")
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to("nowhere")
    before = snapshot(out)

    with pytest.raises(WouldOverwrite):
        repo.export("HEAD", place, format=kind_of_file)

    assert snapshot(out) == before


def test_what_appears_between_plan_and_export_is_not_overwritten(repository: Repository, out: Path, history):
    planned = exchange.plan_export(repository, "HEAD", out / "x.pt")
    (out / "x.pt").write_text("mine")

    with pytest.raises(WouldOverwrite, match="meanwhile"):
        exchange.execute(repository, planned)

    assert (out / "x.pt").read_text() == "mine"
    assert os.listdir(out) == ["x.pt"]


@pytest.mark.parametrize("kind_of_file", SUFFIXES)
def test_a_folder_that_is_not_there_is_an_error_of_storage(repo: Repo, out: Path, history, kind_of_file: str):
    with pytest.raises(StorageError):
        repo.export("HEAD", out / f"missing/x{SUFFIXES[kind_of_file]}", format=kind_of_file)


@pytest.mark.parametrize("kind_of_file", SUFFIXES)
def test_a_folder_that_may_not_be_written_is_an_error_of_storage(
    repo: Repo, out: Path, history, without_privilege: None, kind_of_file: str
):
    out.chmod(0o555)

    with pytest.raises(StorageError):
        repo.export("HEAD", out / f"x{SUFFIXES[kind_of_file]}", format=kind_of_file)

    assert os.listdir(out) == []


@pytest.mark.parametrize("kind_of_file", SUFFIXES)
def test_a_full_disk_leaves_nothing_behind(repo: Repo, out: Path, request: pytest.FixtureRequest, kind_of_file: str):
    repo.commit({"model": {"w": torch.zeros(1 << 18)}})
    request.getfixturevalue("small_files")

    with pytest.raises(TierFull):
        repo.export("HEAD", out / f"x{SUFFIXES[kind_of_file]}", format=kind_of_file)

    assert os.listdir(out) == []


@pytest.mark.parametrize("kind_of_file", SUFFIXES)
@pytest.mark.parametrize(("harm", "error"), [("damaged", WrongDigest), ("missing", MissingObject)])
def test_what_is_not_whole_is_not_exported(
    repo: Repo, out: Path, history, objects_of, flip, kind_of_file: str, harm: str, error: type[Exception]
):
    path = next(p for name, p in objects_of(history[-1]).items() if name.startswith("model/") and "layer" in name)
    flip(path) if harm == "damaged" else path.unlink()

    with pytest.raises(error):
        repo.export("HEAD", out / f"x{SUFFIXES[kind_of_file]}", format=kind_of_file)

    assert os.listdir(out) == []


@pytest.mark.parametrize(("revision", "options"), [("missing", {}), ("HEAD~3", {}), ("HEAD", {"component": "ema"})])
def test_what_there_is_not_is_not_exported(repo: Repo, out: Path, history, revision: str, options: dict[str, Any]):
    with pytest.raises(NotFound):
        repo.export(revision, out / "x.safetensors", **options)

    assert os.listdir(out) == []


def test_a_pickle_is_exported_if_that_is_asked_for(repo: Repo, out: Path):
    repo.commit({"model": {"w": torch.ones(1)}, "scheduler": {"fn": np.random.default_rng}}, allow_pickle=True)

    with pytest.raises(Refused, match="pickle"):
        repo.export("HEAD", out / "x.pt")
    assert os.listdir(out) == []
    repo.export("HEAD", out / "x.pt", allow_pickle=True)

    assert torch.load(out / "x.pt", weights_only=False)["scheduler"] == {"fn": np.random.default_rng}


@pytest.mark.parametrize("kind_of_file", SUFFIXES)
def test_a_plan_changes_nothing(
    repository: Repository, world: World, out: Path, history, everything, kind_of_file: str
):
    before = everything(world)

    planned = exchange.plan_export(repository, "HEAD", out / f"x{SUFFIXES[kind_of_file]}")

    assert planned.format == kind_of_file
    assert everything(world) == before
    assert os.listdir(out) == []


def test_an_export_leaves_the_repository_as_it_is(repo: Repo, world: World, out: Path, history, everything):
    (world.root / "ckpt.yaml").write_text("audit: {restores: off}\n")  # else the ledger is told
    before = everything(world)

    for kind_of_file, suffix in SUFFIXES.items():
        repo.export("HEAD~1", out / f"x{suffix}", format=kind_of_file)

    assert everything(world) == before
    assert sorted(os.listdir(out)) == ["x", "x.ckpt", "x.pt", "x.safetensors"]
