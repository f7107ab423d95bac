"""`merge`: the outcome is what NumPy computes, its parents are all of them, and what does not fit is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from ckptvcs import Repo
from tests.support import oracle
from tests.support.world import World


def tuned(n: int, *, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """A state of a small model, tuned for a task of that number from a base of number 0."""
    generator = torch.Generator().manual_seed(0)
    base = {
        name: torch.randn(shape, generator=generator)
        for name, shape in {"embed": (40, 8), "layer.weight": (8, 8)}.items()
    }
    noise = torch.Generator().manual_seed(n)
    model = {
        name: (value + n * 0.1 * torch.randn(value.shape, generator=noise)).to(dtype) for name, value in base.items()
    }
    model |= {"head": model["embed"], "frozen": torch.ones(5), "calls": torch.tensor(7)}
    moments = {0: {"exp_avg": model["embed"] / 2}}
    return {
        "model": model,
        "optimizer": {"state": moments, "param_groups": [{"params": [0]}]},
        "rng": {"torch": torch.get_rng_state()},
    }


@pytest.fixture
def family(repo: Repo) -> list[str]:
    """Branches a, b and c, each with a checkpoint that was tuned from the one on main."""
    repo.commit(tuned(0), step=0)
    for n, name in enumerate("abc", start=1):
        repo.branch(name)
        repo.commit(tuned(n), branch=name, step=n)
    return ["a", "b", "c"]


def weights(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tensor.double().numpy() for name, tensor in state["model"].items()}


def assert_merged(repo: Repo, revision: str, expected: Mapping[str, Any]) -> None:
    found = repo.load(revision)["model"]
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name].numpy(), value.astype(found[name].numpy().dtype), err_msg=name)


# ---------------------------------------------------------------------------------------------------------- the outcome


def test_the_mean_is_that_of_numpy(repo: Repo, family: list[str]):
    repo.merge(*family)

    states = [weights(repo.load(name)) for name in family]
    assert_merged(
        repo, "main", {name: np.mean([s[name] for s in states], axis=0) for name in ("embed", "layer.weight")}
    )


def test_tied_tensors_stay_tied_and_equal_ones_stay_as_they_are(repo: Repo, family: list[str]):
    repo.merge(*family)

    model = repo.load("main")["model"]
    assert model["head"] is model["embed"]
    assert torch.equal(model["frozen"], torch.ones(5))
    assert model["calls"].item() == 7


def test_all_of_them_are_parents_in_git_and_in_the_manifest(repo: Repo, world: World, family: list[str]):
    receipt = repo.merge(*family, message="soup")

    tips = [world.git("rev-parse", name) for name in family]
    assert world.git("show", "-s", "--format=%P", "main").split() == tips
    assert receipt.manifest.parents == tuple(repo.show(name).id for name in family)
    assert world.git("log", "-1", "--format=%s") == "soup"
    assert receipt.commit in oracle.check(world.root)


def test_git_ckpt_and_dvc_see_nothing_amiss(repo: Repo, world: World, family: list[str]):
    repo.merge(*family)

    assert world.git("log", "--graph", "--oneline").startswith("*-.")
    assert len(world.ckpt("log", "--graph", "--json").json["checkpoints"]) == 5
    assert world.ckpt("log", "--graph").out.count("* ") >= 5
    assert world.git("status", "--porcelain") == ""
    assert "up to date" in world.dvc("status").out
    assert world.git("fsck", "--strict") == ""
