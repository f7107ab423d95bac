"""Several processes that train together: one of them writes, and each of them gets back what is its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ckptvcs import Repo
from ckptvcs.errors import FormatError
from ckptvcs.porcelain import ledger
from ckptvcs.train import ranks
from tests.support.world import World

STEPS = 11


def ended(world: World, *args: int, count: int = 2, of: str = "ranks_loop") -> list[tuple[int, str, str]]:
    """Run the training in several processes; returns status, output and errors of each."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    path = f"{Path(__file__).parents[3]}:{os.environ.get('PYTHONPATH', '')}"
    started = [
        subprocess.Popen(
            [sys.executable, "-m", f"tests.support.{of}", *map(str, args)],
            cwd=world.root,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    told = [process.communicate(timeout=120) for process in started]
    return [(process.returncode, *said) for process, said in zip(started, told, strict=True)]


def together(world: World, *args: int, of: str = "ranks_loop") -> list[list[str]]:
    """Run the training in two processes; returns the lines that each told."""
    told = ended(world, *args, of=of)
    assert {status for status, _, _ in told} in ({0}, {9}), [errors for _, _, errors in told]
    return [[line for line in out.splitlines() if line.startswith(("step", "end"))] for _, out, _ in told]


def test_a_run_of_two_ranks_that_was_stopped_goes_on_bit_for_bit(world: World, tmp_path: Path):
    expected = together(World.create(tmp_path / "other"), STEPS)

    before = together(world, STEPS, 7)
    after = together(world, STEPS)

    assert [lines[0] for lines in expected] != [expected[0][0]] * 2, "the ranks do the same, so that nothing is shown"
    for rank in range(2):
        assert before[rank] == expected[rank][:7]
        assert after[rank] == expected[rank][7:], "from the save at step 6 on"
    with Repo(world.root) as repo:
        saved = {c.manifest.step: c.id for c in repo.log("ranks")}
        starts = [e.facts["parents"] for e in ledger.events(repo._repo, ops=("run.start",))]
        assert (list(saved), starts) == ([9, 6, 3], [[], [saved[6]]]), "one rank tells of what all of them went on from"
        assert set(repo.load("ranks")["rng"]) == {ranks.RANKS}


def test_two_ranks_that_accelerate_trains_go_on_bit_for_bit(world: World, tmp_path: Path):
    expected = together(World.create(tmp_path / "other"), STEPS, of="ranks_accelerate")

    before = together(world, STEPS, 7, of="ranks_accelerate")
    after = together(world, STEPS, of="ranks_accelerate")

    assert expected[0][0] != expected[1][0], "the ranks do the same, so that nothing is shown"
    for rank in range(2):
        assert before[rank] == expected[rank][:7]
        assert after[rank] == expected[rank][6:], "from the save at step 6 on"
    with Repo(world.root) as repo:
        assert [c.manifest.step for c in repo.log("ranks")] == [9, 6, 3]


def test_what_goes_wrong_on_one_rank_is_raised_on_all(world: World):
    world.cache.parent.mkdir(parents=True, exist_ok=True)
    world.cache.write_text("no folder")

    (first, _, why), (second, _, told) = ended(world, STEPS)

    assert first == second == 1
    assert "StorageError" in why
    assert "Conflict: rank 0 has failed" in told


def test_one_process_has_nothing_to_gather():
    state = {"a": torch.ones(2)}

    assert ranks.gathered(state) is state
    assert ranks.own(state) is state
    assert ranks.agreed("x") == ranks.any_says("x") == "x"
    assert (ranks.rank(), ranks.size()) == (0, 1)


def test_another_number_of_ranks_than_saved_is_no_exact_resume():
    with pytest.raises(FormatError, match="2 processes saved it, and there are 1 now"):
        ranks.own({ranks.RANKS: [1, 2]})
