"""What the patterns of an import mean: files, checkpoint folders, and what in a folder is none of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch

from ckptvcs.errors import UsageError
from ckptvcs.porcelain.gathering import Gathered, gather

PT = {"w": torch.ones(2)}
WEIGHTS = safetensors.torch.save(PT)


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith((".pt", ".pth", ".ckpt", ".bin")):
            torch.save(PT, path)
        elif name.endswith(".safetensors"):
            path.write_bytes(WEIGHTS)
        else:
            path.write_text(json.dumps({}))


def found(at: Path, *patterns: str) -> list[str]:
    return shown(gather(patterns, root=at / "repo", directory="checkpoints"), at)


def shown(gathered: Gathered, at: Path) -> list[str]:
    return [one.path.relative_to(at).as_posix() for one in gathered.found]


HF = ("hf/checkpoint-5/model.safetensors", "hf/checkpoint-5/optimizer.pt", "hf/checkpoint-5/rng_state_0.pth")


@pytest.mark.parametrize(
    ("pattern", "means"),
    [
        ("*.pt", ["a.pt"]),
        ("runs/**/*.pt", ["runs/b.pt", "runs/x/c.pt", "runs/x/y/d.pt"]),
        ("**/*.pt", ["a.pt", "runs/b.pt", "runs/x/c.pt", "runs/x/y/d.pt"]),
        ("runs/*/*.pt", ["runs/x/c.pt"]),
        ("runs/x/**", ["runs/x/c.pt", "runs/x/y/d.pt"]),
        ("**/y/*", ["runs/x/y/d.pt"]),
        ("runs/[bx]*", ["runs/b.pt", "runs/x/c.pt", "runs/x/y/d.pt"]),
        ("runs/?.pt", ["runs/b.pt"]),
        ("runs", ["runs/b.pt", "runs/x/c.pt", "runs/x/y/d.pt"]),
        ("./runs/../runs/b.pt", ["runs/b.pt"]),
        ("runs/.h/*.pt", ["runs/.h/e.pt"]),
    ],
)
def test_a_pattern_means_what_a_shell_would_take_it_for(pattern: str, means: list[str], at: Path):
    put(at, "a.pt", "runs/b.pt", "runs/x/c.pt", "runs/x/y/d.pt", "runs/x/log.txt", "runs/.h/e.pt", "runs/.f.pt")

    assert found(at, pattern) == means


def test_a_name_with_brackets_is_taken_as_it_is(at: Path):
    put(at, "m[1].pt", "m1.pt")

    assert found(at, "m[1].pt") == ["m[1].pt"]


def test_a_path_with_a_root_is_a_pattern_too(at: Path):
    put(at, "a.pt")

    assert found(at, f"{at}/*.pt") == ["a.pt"]


def test_what_several_patterns_mean_counts_once(at: Path):
    put(at, "a.pt", "b.pt")

    assert found(at, "a.pt", "*.pt", str(at)) == ["a.pt", "b.pt"]


@pytest.mark.parametrize(
    "pattern", ["hf/**/*.pt", "hf/checkpoint-*", "hf", "**/optimizer.pt", HF[0], "hf/*/rng_state*"]
)
def test_a_part_of_a_checkpoint_folder_stands_for_the_folder(pattern: str, at: Path):
    put(at, *HF, "hf/checkpoint-5/config.json")

    (one,) = gather([pattern], root=at / "repo", directory="checkpoints").found

    assert one.path == at / "hf/checkpoint-5"
    assert one.is_folder
    assert {file.name for file in one.files} == {"model.safetensors", "optimizer.pt", "rng_state_0.pth", "config.json"}
    assert one.nbytes == sum(file.stat().st_size for file in one.files)
    assert one.home == at / "hf"


def test_what_is_deep_in_a_checkpoint_folder_is_a_part_of_it(at: Path):
    put(at, *HF, "hf/checkpoint-5/global_step5/mp_rank_00_states.pt")

    assert found(at, "**/mp_*.pt") == ["hf/checkpoint-5"]


def test_a_folder_of_a_run_is_a_checkpoint_without_those_that_lie_in_it(at: Path):
    put(at, *HF, "hf/model.safetensors", "hf/config.json", "hf/logs/events", "hf/step_7.pt")

    for pattern in ("hf", "hf/**", "hf/model.safetensors"):
        outer = {one.path: one for one in gather([pattern], root=at / "repo", directory="checkpoints").found}[at / "hf"]
        assert {file.name for file in outer.files} == {"model.safetensors", "config.json", "events"}
        assert set(outer.left_out) == {at / "hf/checkpoint-5", at / "hf/step_7.pt"}
        assert outer.home == at / "hf"
    assert found(at, "hf") == ["hf", "hf/checkpoint-5", "hf/step_7.pt"]


def test_a_folder_with_a_config_beside_files_of_a_series_is_no_checkpoint(at: Path):
    put(at, "exp/config.json", "exp/step_1.pt", "exp/step_2.pt")

    assert found(at, "exp") == ["exp/step_1.pt", "exp/step_2.pt"]


def test_what_is_no_checkpoint_is_told(at: Path):
    put(at, "runs/a.pt", "runs/log.txt", "runs/tokenizer.json")
    (at / "runs/vocab.bin").write_bytes(b"words")

    gathered = gather(["runs/*"], root=at / "repo", directory="checkpoints")

    assert shown(gathered, at) == ["runs/a.pt"]
    assert [path.name for path in gathered.others] == ["log.txt", "tokenizer.json", "vocab.bin"]


def test_a_pattern_that_nothing_fits_is_told(at: Path):
    put(at, "a.pt")

    assert gather(["*.pt", "*.ckpt"], root=at / "repo", directory="checkpoints").notes == ("nothing fits '*.ckpt'",)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("x.pt", "no such file"),
        ("*.ckpt", "no checkpoint fits"),
        ("*.txt", "1 files fit"),
        ("empty", "no checkpoint fits"),
    ],
)
def test_nothing_to_import_is_an_error(pattern: str, why: str, at: Path):
    (at / "empty").mkdir()
    (at / "a.txt").write_text("x")

    with pytest.raises(UsageError) as caught:
        gather([pattern], root=at / "repo", directory="checkpoints")

    assert why in caught.value.why
    assert caught.value.next_step


def test_links_to_folders_are_not_followed_on_the_way(at: Path):
    put(at, "runs/a.pt")
    (at / "runs/again").symlink_to(at / "runs")
    (at / "runs/gone.pt").symlink_to(at / "nowhere")

    assert found(at, "runs/**/*.pt") == ["runs/a.pt", "runs/gone.pt"]
    assert found(at, "runs") == ["runs/a.pt", "runs/gone.pt"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_cannot_be_listed_holds_nothing(at: Path):
    put(at, "runs/a.pt", "runs/secret/b.pt")
    (at / "runs/secret").chmod(0)

    assert found(at, "runs/**/*.pt") == ["runs/a.pt"]


def test_a_folder_of_a_step_that_holds_its_parts_is_a_checkpoint(at: Path):
    put(
        at, "exp/step_10/model.pt", "exp/step_10/optimizer.pt", "exp/step_20/weights.safetensors", "exp/step_20/log.txt"
    )

    gathered = gather(["exp/**/*.pt", "exp/*"], root=at / "repo", directory="checkpoints")

    assert shown(gathered, at) == ["exp/step_10", "exp/step_20"]
    assert {one.home for one in gathered.found} == {at / "exp"}


def test_a_folder_of_a_run_whose_name_has_a_number_is_no_checkpoint(at: Path):
    put(at, "train-epochs-100/best.pt", "train-epochs-100/last.pt")

    assert found(at, "train-epochs-100") == ["train-epochs-100/best.pt", "train-epochs-100/last.pt"]


def test_a_model_in_a_folder_above_takes_nothing_in(at: Path):
    put(at, "home/model.safetensors", "home/runs/a/x.pt")

    assert found(at, "home/runs/**/*.pt") == ["home/runs/a/x.pt"]


def test_the_root_of_the_repository_is_no_checkpoint(at: Path):
    put(at, "repo/model.safetensors", "repo/config.json", "repo/x.pt")

    assert found(at, "repo") == ["repo/model.safetensors", "repo/x.pt"]
    assert found(at, "repo/*.safetensors") == ["repo/model.safetensors"]
