"""`ckpt import` at the command line: what it says, to whom, and how it ends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tests.support.world import World
from tests.unit.cli.conftest import Ckpt


@pytest.fixture
def runs(world: World, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three checkpoints, one of them twice, and a file that is none."""
    monkeypatch.chdir(world.root)
    folder = world.root / "runs/exp"
    folder.mkdir(parents=True)
    for step in (5, 10, 20):
        path = folder / f"step={step}-val_loss=0.{step}.pt"
        torch.save({"model": {"w": torch.full((64,), float(step))}}, path)
        os.utime(path, (1.6e9 + step, 1.6e9 + step))
    (folder / "best.pt").write_bytes((folder / "step=10-val_loss=0.10.pt").read_bytes())
    (folder / "log.txt").write_text("x")
    return folder


def test_a_dry_run_takes_stock_and_does_nothing(runs: Path, world: World, ckpt: Ckpt):
    done = ckpt("import", "runs/**", "-n")

    lines = done.out.splitlines()
    assert done.status == 0
    assert lines[0] == "branch 'exp': 3 checkpoints to import"
    assert [line.split()[:3] for line in lines[1:4]] == [["new", "step", n] for n in ("5", "10", "20")]
    assert "val_loss 0.05" not in done.out
    assert "val_loss 0.1" in lines[2]
    assert "same bytes as runs/exp/step=10-val_loss=0.10.pt" in lines[4]
    assert "3 checkpoints to import" in lines[5]
    assert "1 with the bytes of another" in lines[5]
    assert "1 other file left out" in lines[5]
    assert lines[6] == "all of them would be kept: ckpt.yaml has no section 'retain'"
    assert "exp" not in world.git("branch", "--list", "exp")


def test_it_says_each_one_as_it_goes_and_the_sum(runs: Path, ckpt: Ckpt):
    done = ckpt("import", "runs/**/*.pt")

    *each, total = done.out.splitlines()
    assert [line.split("step ")[1].split()[0] for line in each] == ["5", "10", "20"]
    assert all(line.startswith("[exp ") for line in each)
    assert total.startswith("3 checkpoints imported, ")
    again = ckpt("import", "runs/**/*.pt")
    assert again.out.startswith("0 checkpoints imported, 0 B new of")
    assert "4 there already" in again.out


def test_json_has_all_of_it(runs: Path, ckpt: Ckpt):
    (runs / "broken.pt").write_bytes(b"PK\x03\x04")

    done = ckpt("import", "runs/**", "--json")

    said = done.json
    assert done.status == 1
    assert done.err == ""
    files = {Path(file["path"]).name: file for file in said["files"]}
    assert {name: file["status"] for name, file in files.items()} == {
        "step=5-val_loss=0.5.pt": "imported",
        "step=10-val_loss=0.10.pt": "imported",
        "step=20-val_loss=0.20.pt": "imported",
        "best.pt": "same",
        "broken.pt": "failed",
    }
    assert files["best.pt"]["same_as"] == "runs/exp/step=10-val_loss=0.10.pt"
    assert files["step=20-val_loss=0.20.pt"]["metrics"] == {"val_loss": 0.2}
    assert files["broken.pt"]["error"]["error"] == "hostile-input"
    assert files["broken.pt"]["error"]["next"]
    assert said["bytes"] == sum(file["bytes"] for file in said["files"])
    assert said["new_bytes"] == sum(file["new_bytes"] or 0 for file in said["files"])
    assert [Path(path).name for path in said["others"]] == ["log.txt"]


def test_what_fails_is_told_and_the_status_is_1(runs: Path, ckpt: Ckpt):
    (runs / "broken.pt").write_bytes(b"PK\x03\x04")

    for words in (["-n"], []):
        done = ckpt("import", "runs", *words)
        assert done.status == 1
        assert "error: cannot read" in done.err
        assert "  next: " in done.err
        assert "1 cannot be imported" in done.out
    assert "3 there already" not in done.out


def test_the_policy_is_asked(runs: Path, world: World, ckpt: Ckpt):
    (world.root / "ckpt.yaml").write_text("version: 1\nretain: {keep: [{keep_last: 1}]}\n")

    done = ckpt("import", "runs/exp/step*", "-n")

    assert [line.rpartition("; ")[2] for line in done.out.splitlines()[1:4]] == ["not kept", "not kept", "kept"]
    assert done.out.endswith("'retain' of ckpt.yaml would keep 1 of them\n")


def test_names_are_read_as_the_user_says(runs: Path, ckpt: Ckpt):
    done = ckpt("import", "runs/exp/step*", "-n", "--json", "--names", "step={epoch}-val_loss={acc}.pt", "--run", "r")

    assert {(file["branch"], file["epoch"], file["step"]) for file in done.json["files"]} == {
        *(("r", n, None) for n in (5, 10, 20)),
    }
    assert ckpt("import", "runs", "--names", "step").status == 2


@pytest.mark.parametrize("words", [["nowhere.pt"], ["*.ckpt"], []])
def test_nothing_to_import_is_a_matter_of_usage(words: list[str], runs: Path, ckpt: Ckpt):
    done = ckpt("import", *words)

    assert done.status == 2
    assert "next: " in done.err


def test_names_from_strangers_do_not_drive_the_terminal(runs: Path, ckpt: Ckpt):
    torch.save({"w": torch.ones(2)}, runs / "x\x1b[31m_step_7.pt")
    (runs / "y\x1b[31m.pt").write_bytes(b"")

    for words in (["-n"], []):
        done = ckpt("import", "runs", *words)
        assert "\x1b[31m_" not in done.out + done.err
        assert "\x1b[31m." not in done.out + done.err
