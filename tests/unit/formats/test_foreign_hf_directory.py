"""Folders as Hugging Face's libraries write them: weights become components, all else is kept as it is."""

from __future__ import annotations

import collections
import hashlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from ckptvcs.errors import FormatError, HostileInput
from ckptvcs.formats.foreign import detect
from ckptvcs.formats.foreign.source import Source
from tests.support.same import assert_same
from tests.unit.formats.makers import components_in, placed, through

A, B = torch.arange(4.0), torch.arange(6, dtype=torch.bfloat16)
INDEX = "model.safetensors.index.json"


def tensors(**named: torch.Tensor) -> bytes:
    return safetensors.torch.save(named, {"format": "pt"})


def index(weight_map: Any) -> bytes:
    return json.dumps({"metadata": {}, "weight_map": weight_map}).encode()


def source_of(path: Path, files: dict[str, Any], **how: Any) -> Source:
    for name, content in files.items():
        placed(path, name, content)
    return detect.open_source(path, **how)


MODEL = {"model.safetensors": tensors(a=A, b=B), "config.json": b'{"a": 1}\n'}
CHECKPOINT = {
    **MODEL,
    "optimizer.pt": {"state": {0: {"m": A}}, "param_groups": [{"params": [0]}]},
    "scheduler.pt": {"last_epoch": 3},
    "rng_state.pth": {"cpu": torch.get_rng_state()},
    "training_args.bin": {"args": 1},
    "trainer_state.json": json.dumps(
        {
            "global_step": 500,
            "epoch": 1.5,
            "log_history": [
                {"step": 250, "loss": 1.0},
                {"step": 500, "loss": 0.5, "epoch": 1.5, "name": "x", "best": True},
                {"step": 500, "eval_loss": 0.6},
            ],
        }
    ).encode(),
    "vocab/words.txt": b"a\nb\n",
}


def test_a_model_is_read(tmp_path: Path):
    source = source_of(tmp_path, MODEL)

    assert source.format == "hf"
    assert {k: p.name for k, p in source.files.items()} == {"model/config.json": "config.json"}
    assert_same({"model": {"a": A, "b": B}}, through(tmp_path))


def test_a_checkpoint_of_the_trainer_is_read(tmp_path: Path):
    source = source_of(tmp_path, CHECKPOINT)

    assert list(source.state) == ["model", "optimizer", "rng_state", "scheduler"]
    assert sorted(source.files) == [
        "extra/trainer_state.json",
        "extra/training_args.bin",
        "model/config.json",
        "model/vocab/words.txt",
    ]
    assert source.metadata == {
        "model": "model.safetensors",
        "optimizer": "optimizer.pt",
        "rng_state": "rng_state.pth",
        "scheduler": "scheduler.pt",
    }
    assert source.facts == {"step": 500, "epoch": 1.5, "metrics": {"loss": 0.5, "eval_loss": 0.6}}
    assert source.notes == ()


def test_what_was_read_is_watched(tmp_path: Path):
    source = source_of(tmp_path, CHECKPOINT)

    assert {path.name for path in source.watched} == {
        *("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth")
    }


def test_files_are_kept_bit_for_bit(tmp_path: Path):
    source = source_of(tmp_path, {**MODEL, "tokenizer.bin": bytes(range(256)), "model/odd.txt": b"\r\n"})

    kept = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in source.files.items()}
    assert kept["model/tokenizer.bin"] == hashlib.sha256(bytes(range(256))).hexdigest()
    assert kept["model/model/odd.txt"] == hashlib.sha256(b"\r\n").hexdigest()


def test_a_model_in_shards_is_read_in_the_order_of_its_index(tmp_path: Path):
    files = {
        INDEX: index({"b": "m-2.safetensors", "a": "m-1.safetensors"}),
        "m-1.safetensors": tensors(a=A),
        "m-2.safetensors": tensors(b=B),
    }

    source = source_of(tmp_path, files)

    assert not source.files
    assert_same({"model": {"b": B, "a": A}}, through(tmp_path))


@pytest.mark.parametrize(
    "files",
    [
        {"pytorch_model.bin": {"a": A, "b": B}, "config.json": b"{}"},
        {
            "pytorch_model.bin.index.json": index({"a": "p-1.bin", "b": "p-2.bin"}),
            "p-1.bin": {"a": A},
            "p-2.bin": {"b": B},
        },
    ],
    ids=["whole", "in shards"],
)
def test_weights_in_torch_files_are_read(files: dict[str, Any], tmp_path: Path):
    source_of(tmp_path, files)

    assert_same({"model": {"a": A, "b": B}}, through(tmp_path))


def test_where_there_are_both_kinds_of_weights_safetensors_go_first(tmp_path: Path):
    source = source_of(tmp_path, {**MODEL, "pytorch_model.bin": {"a": B}})

    assert source.metadata["model"] == "model.safetensors"
    assert "model/pytorch_model.bin" in source.files


def test_an_adapter_is_a_component(tmp_path: Path):
    source = source_of(tmp_path, {"adapter_model.safetensors": tensors(a=A), "adapter_config.json": b"{}"})

    assert list(source.state) == ["adapter_model"]
    assert list(source.files) == ["adapter_model/adapter_config.json"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"x": collections.deque()}, "collections.deque"),
        (b"junk", "neither a torch checkpoint"),
        (b"", "empty"),
    ],
    ids=["opaque", "junk", "empty"],
)
def test_a_torch_file_that_cannot_be_read_stays_a_file_and_the_user_is_told(content: Any, why: str, tmp_path: Path):
    source = source_of(tmp_path, {**MODEL, "optimizer.pt": content})

    assert list(source.state) == ["model"]
    assert "model/optimizer.pt" in source.files
    (note,) = source.notes
    assert "'optimizer.pt'" in note
    assert why in note


def test_a_hostile_torch_file_is_not_kept(tmp_path: Path):
    with pytest.raises(HostileInput, match=r"optimizer\.pt"):
        source_of(tmp_path, {**MODEL, "optimizer.pt": b"PK\x03\x04junk"})


def test_what_belongs_to_git_is_left_out(tmp_path: Path):
    source = source_of(tmp_path, {**MODEL, ".gitattributes": b"x", ".git/config": b"x"})

    assert list(source.files) == ["model/config.json"]


@pytest.mark.parametrize(
    "files",
    [
        {INDEX: b""},
        {INDEX: b"{"},
        {INDEX: b"[]"},
        {INDEX: b"{}"},
        {INDEX: b"[" * 100_000},
        {INDEX: b"\xff\xfe"},
        {INDEX: index([])},
        {INDEX: index({"a": 5})},
        {INDEX: index({"a": None})},
        *({INDEX: index({"a": name})} for name in ("../m.safetensors", "/etc/passwd", "", ".", "a\\b", "x/m.safetensors")),
        {INDEX: index({"a": "missing.safetensors"})},
        {INDEX: index({"a": INDEX})},
        {INDEX: index({"a": "m.safetensors", "z": "m.safetensors"}), "m.safetensors": tensors(a=A)},
        {INDEX: index({"a": "m.safetensors"}), "m.safetensors": tensors(a=A)[:-1]},
        {INDEX: index({"a": "m.safetensors"}), "m.safetensors": b""},
        {"model.safetensors": b""},
        {"model.safetensors": tensors(a=A)[:-1]},
        {"config.json": b"{}"},
        {"pytorch_model.bin.index.json": index({"a": "p.safetensors"}), "p.safetensors": tensors(a=A)},
    ],
    ids=range(24),
)  # fmt: skip
def test_weights_that_are_damaged_or_incomplete_are_refused(files: dict[str, Any], tmp_path: Path):
    with pytest.raises(FormatError) as caught:
        source_of(tmp_path, files)

    assert str(tmp_path) in caught.value.what or ".safetensors'" in caught.value.what
    assert caught.value.next_step


@pytest.mark.parametrize("state", [[1], 5, collections.deque()], ids=str)
def test_a_shard_that_holds_no_tensors_is_refused(state: Any, tmp_path: Path):
    with pytest.raises(FormatError):
        source_of(tmp_path, {"pytorch_model.bin.index.json": index({"a": "p.bin"}), "p.bin": state})


def test_a_tensor_is_read_from_the_file_that_the_index_names_or_refused(tmp_path: Path):
    files = {
        INDEX: index({"a": "1.safetensors", "b": "2.safetensors"}),
        "1.safetensors": tensors(a=A),
        "2.safetensors": tensors(a=A + 1, b=B),
    }

    try:
        found = source_of(tmp_path, files).state["model"]["a"]
    except FormatError:
        return

    assert bytes(found.read()) == A.numpy().tobytes()


# ---------------------------------------------------------------------------------------------------------------- links


def test_a_link_within_the_folder_is_followed(tmp_path: Path):
    placed(tmp_path, "blobs/abc", MODEL["model.safetensors"])
    (tmp_path / "model.safetensors").symlink_to("blobs/abc")

    assert list(detect.open_source(tmp_path).state) == ["model"]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "optimizer.pt", "trainer_state.json"])
def test_a_link_out_of_the_folder_is_followed_only_on_demand(name: str, tmp_path: Path):
    content = CHECKPOINT[name] if name != "config.json" else b"{}"
    outside = placed(tmp_path, "outside", content)
    for other, data in CHECKPOINT.items():
        placed(tmp_path / "in", other, data)
    (tmp_path / "in" / name).unlink()
    (tmp_path / "in" / name).symlink_to(outside)

    with pytest.raises(HostileInput) as caught:
        detect.open_source(tmp_path / "in")

    assert "--follow-links" in caught.value.next_step
    assert "model" in detect.open_source(tmp_path / "in", follow_links=True).state


def test_folders_that_are_links_are_not_entered(tmp_path: Path):
    placed(tmp_path, "outside/secret", b"x")
    for name, data in MODEL.items():
        placed(tmp_path / "in", name, data)
    (tmp_path / "in" / "sub").symlink_to(tmp_path / "outside")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")

    assert list(detect.open_source(tmp_path / "in").files) == ["model/config.json"]


@pytest.mark.parametrize("name", ["a\x01b", "CON", "a ", "x\\y", "a:b", "e\u0301"])
def test_a_file_that_not_every_system_can_have_is_refused(name: str, tmp_path: Path):
    with pytest.raises(HostileInput):
        source_of(tmp_path, {**MODEL, name: b"x"})


# ---------------------------------------------------------------------------------------------------------------- facts


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", "{}", "[" * 100_000, '{"global_step": "x", "log_history": []}', '{"global_step": 1}'),
        *('{"global_step": NaN, "log_history": []}', '{"global_step": 1, "log_history": [5]}'),
    ],
    ids=range(10),
)
def test_an_account_that_cannot_be_read_is_kept_and_says_nothing(text: str, tmp_path: Path):
    source = source_of(tmp_path, {**MODEL, "trainer_state.json": text.encode()})

    assert source.facts == {}
    assert "extra/trainer_state.json" in source.files


@pytest.mark.parametrize("step", ["1e999", "Infinity"])
def test_an_account_of_an_endless_step_says_nothing(step: str, tmp_path: Path):
    text = f'{{"global_step": {step}, "log_history": []}}'

    assert source_of(tmp_path, {**MODEL, "trainer_state.json": text.encode()}).facts == {}


@pytest.mark.parametrize(
    "account",
    [{"global_step": 1, "epoch": ["x"]}, {"global_step": 1, "epoch": float("nan")}, {"global_step": -1, "epoch": 1.0}],
    ids=["no epoch", "epoch that is no number", "negative step"],
)
def test_the_facts_of_an_account_are_numbers(account: dict[str, Any], tmp_path: Path):
    text = json.dumps({**account, "log_history": []})

    facts = source_of(tmp_path, {**MODEL, "trainer_state.json": text.encode()}).facts

    assert facts.get("step", 0) >= 0
    assert type(facts.get("epoch", 0)) in (int, float)
    assert math.isfinite(facts.get("epoch") or 0)


# ----------------------------------------------------------------------------------------------------------- sameness

_ORDER = """
import sys
from pathlib import Path
from ckptvcs.formats.foreign import detect
print(list(detect.open_source(Path(sys.argv[1])).state["model"]))
"""


def test_the_same_folder_gives_the_same_order_in_every_process(tmp_path: Path):
    named = {f"w{i}": torch.ones(1) for i in range(20)}
    placed(tmp_path, INDEX, index({"w0": "m.safetensors"}))
    placed(tmp_path, "m.safetensors", safetensors.torch.save(named))

    orders = {
        subprocess.run(
            [sys.executable, "-c", _ORDER, str(tmp_path)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }

    assert len(orders) == 1


def test_components_of_a_checkpoint_have_their_roles(tmp_path: Path):
    source_of(tmp_path, CHECKPOINT)

    _, components = components_in(tmp_path)

    assert {c.name: c.role for c in components} == {
        "model": "model",
        "optimizer": "optimizer",
        "scheduler": "scheduler",
        "rng_state": "rng",
    }
