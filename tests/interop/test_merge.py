"""Merges of three real fine-tunes of one base: NumPy agrees with every number, git and DVC with the rest."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ckptvcs
from tests.support import minilm, oracle
from tests.support.world import World, run

NAMES = ("math", "code", "chat")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A repository with MiniLM on `main`, and three fine-tunes of two steps each on branches."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"NAME": "Test", "EMAIL": "test@example.com"}.items():
            patch.setenv(f"GIT_AUTHOR_{name}", value)
            patch.setenv(f"GIT_COMMITTER_{name}", value)
        world = World.create(tmp_path_factory.mktemp("tuned") / "repo")
        with world.repo() as repo:
            repo.commit(minilm.folder(), step=0, workspace=False)
            for n, name in enumerate(NAMES):
                repo.branch(name)
                torch.manual_seed(n)
                model = minilm.model()
                optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
                for step in range(2):
                    minilm.step(model, optimizer, seed=10 * n + step)
                folder = tmp_path_factory.mktemp(name) / "model"
                model.save_pretrained(folder)
                repo.commit(folder, branch=name, step=2)
        yield world


def weights(world: World, revision: str) -> dict[str, np.ndarray]:
    state = ckptvcs.load(revision, ["model"], repo=world.root)["model"]
    return {name: tensor.numpy().copy() for name, tensor in state.items()}


def mean(values: list[np.ndarray], weights: tuple[float, ...]) -> np.ndarray:
    return np.average(values, axis=0, weights=weights)


def slerp(values: list[np.ndarray], t: float) -> np.ndarray:
    a, b = values
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    cosine = float(a.ravel() @ b.ravel() / norms) if norms else 1.0
    if abs(cosine) > 0.9995:
        return (1 - t) * a + t * b
    angle = math.acos(cosine)
    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)


def ties(values: list[np.ndarray], base: np.ndarray, density: float, scale: float) -> np.ndarray:
    vectors = []
    for value in values:
        vector = value - base
        edge = np.sort(np.abs(vector), axis=None)[-max(1, math.ceil(density * vector.size))]
        vectors.append(np.where(np.abs(vector) >= edge, vector, 0))
    sign = np.sign(np.sum(vectors, axis=0))
    agree = [(np.sign(v) == sign) & (v != 0) for v in vectors]
    total = np.sum([np.where(a, v, 0) for a, v in zip(agree, vectors, strict=True)], axis=0)
    return base + scale * (total / np.maximum(np.sum(agree, axis=0), 1))


METHODS: list[tuple[str, tuple[str, ...], dict[str, Any], Any]] = [
    ("mean", NAMES, {}, lambda v, _: mean(v, (1, 1, 1))),
    ("weighted", NAMES, {"weights": (5, 2, 1)}, lambda v, _: mean(v, (5, 2, 1))),
    ("ema", NAMES, {"decay": 0.75}, lambda v, _: mean(v, (0.5625, 0.1875, 0.25))),
    ("slerp", NAMES[:2], {"t": 0.3}, lambda v, _: slerp(v, 0.3)),
    ("ties", NAMES, {"density": 0.2, "scale": 0.7}, lambda v, base: ties(v, base, 0.2, 0.7)),
]


@pytest.mark.parametrize(("method", "names", "numbers", "expected"), METHODS, ids=[m[0] for m in METHODS])
def test_every_tensor_is_what_numpy_computes(
    tuned: World, method: str, names: tuple[str, ...], numbers: dict[str, Any], expected: Any
):
    with tuned.repo() as repo:
        repo.merge(*names, method=method, branch=f"by-{method}", **numbers)

    found, base = weights(tuned, f"by-{method}"), weights(tuned, "main")
    models = [weights(tuned, name) for name in names]
    assert set(found) == set(models[0])
    for name, value in found.items():
        values = [model[name].astype(np.float64) for model in models]
        want = expected(values, base[name].astype(np.float64)) if value.dtype.kind == "f" else models[0][name]
        np.testing.assert_array_equal(value, want.astype(value.dtype), err_msg=name)
    assert any((value != models[0][name]).any() for name, value in found.items())


def test_git_and_dvc_agree_and_transformers_loads_the_export(tuned: World, tmp_path: Path):
    from transformers import AutoModel

    tuned.ckpt("merge", *NAMES, "-m", "soup")

    parents = tuned.git("show", "-s", "--format=%P", "main").split()
    assert parents == tuned.git("rev-parse", *NAMES).split("\n")
    assert "up to date" in tuned.dvc("status").out
    assert tuned.git("status", "--porcelain") == ""
    assert parents[0] in oracle.check(tuned.root)
    graph = tuned.git("log", "--graph", "--oneline", "main").split("\n")
    assert graph[0].startswith("*-.")
    assert "\\" in tuned.ckpt("log", "--graph", "main").out
    assert (tuned.root / "checkpoints/model/model/config.json").is_file()

    tuned.ckpt("export", "main", tmp_path / "soup", "--format", "hf")
    found = AutoModel.from_pretrained(tmp_path / "soup").state_dict()
    expected = weights(tuned, "main")
    assert all(torch.equal(found[name], torch.from_numpy(value)) for name, value in expected.items() if name in found)
    hidden = AutoModel.from_pretrained(tmp_path / "soup")(input_ids=minilm.batch(0)).last_hidden_state
    assert torch.isfinite(hidden).all()


def test_training_goes_on_from_a_merge(tuned: World):
    with tuned.repo() as repo:
        receipt = repo.merge(*NAMES, branch="soup")
    model = minilm.model()

    with ckptvcs.Checkpointer(run="onwards", model=model, repo=tuned.root) as ck:
        start = ck.resume("soup")
        assert start is not None
        expected = weights(tuned, "soup")
        assert all(torch.equal(t.detach(), torch.from_numpy(expected[n])) for n, t in model.state_dict().items())
        minilm.step(model, torch.optim.SGD(model.parameters(), lr=0.1), seed=1)
        ck.save(1)

    assert tuned.git("rev-parse", "onwards~1") == receipt.commit


def test_a_clone_with_plain_dvc_gets_the_merge(tuned: World, tmp_path: Path):
    with tuned.repo() as repo:
        repo.merge("math", "code", branch="shared")
    clone = tuned.clone(tmp_path / "clone")
    clone.git("checkout", "-q", "shared")
    clone.dvc("remote", "add", "-d", "cache", str(tuned.root / ".dvc/cache"))
    run(["cp", "-r", str(tuned.root / ".dvc/cache"), str(clone.root / ".dvc/cache")], clone.root)

    clone.dvc("checkout")

    found = ckptvcs.load("HEAD", ["model"], repo=clone.root)["model"]
    expected = weights(tuned, "shared")
    assert all(torch.equal(found[name], torch.from_numpy(value)) for name, value in expected.items())
