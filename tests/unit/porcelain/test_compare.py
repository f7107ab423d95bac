"""`diff`: what changed between two checkpoints; torch is the oracle for values."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from ckptvcs import Repo
from ckptvcs.errors import IntegrityError, NotFound
from ckptvcs.porcelain import compare
from ckptvcs.porcelain.repo import Repository
from tests.support.world import World


def tensors(compared: compare.Compared) -> dict[tuple[str, str], tuple[Any, ...]]:
    return {
        (component.name, change.key): (change.kind, change.before, change.after)
        for component in compared.difference.components
        for change in component.tensors or ()
    }


def test_what_changed_is_told_part_by_part(repo: Repo, history):
    compared = repo.diff("HEAD~1", "HEAD")

    assert compared.difference.step == (2, 3)
    assert tensors(compared) == {
        ("model", "layer.weight"): ("changed", "F32 [8]", "F32 [8]"),
        ("optimizer", "state.0.exp_avg"): ("changed", "F32 [8]", "F32 [8]"),
    }
    assert [(c.key, c.before, c.after) for c in compared.difference.metrics] == [("loss", 0.5, 1 / 3)]
    assert (compared.before.id, compared.after.id) == (history[1].id, history[2].id)


def test_a_checkpoint_does_not_differ_from_itself(repo: Repo, history):
    difference = repo.diff("HEAD", "main", values=True).difference

    assert (difference.components, difference.metrics, difference.params, difference.code) == ((), (), (), ())


def test_the_same_state_committed_twice_differs_in_nothing_that_matters(repo: Repo, state):
    repo.commit(state(1))
    repo.commit(state(1))

    compared = repo.diff("HEAD~1", "HEAD", values=True)

    assert compared.difference.components == ()
    assert compared.distances == ()


def test_tensors_that_came_went_or_became_others_are_named(repo: Repo):
    one = {"a": torch.ones(2), "b": torch.ones(3), "c": torch.ones(4), "same": torch.ones(5)}
    other = {"a": torch.ones(2, dtype=torch.float16), "b": torch.ones(1, 3), "d": torch.ones(4), "same": torch.ones(5)}
    repo.commit({"model": one})
    repo.commit({"model": other})

    assert tensors(repo.diff("HEAD~1", "HEAD")) == {
        ("model", "a"): ("changed", "F32 [2]", "F16 [2]"),
        ("model", "b"): ("changed", "F32 [3]", "F32 [1, 3]"),
        ("model", "c"): ("removed", "F32 [4]", None),
        ("model", "d"): ("added", None, "F32 [4]"),
    }


def test_components_that_came_or_went_are_named(repo: Repo, state):
    repo.commit({"model": state(1)["model"], "ema": state(1)["model"]})
    repo.commit({"model": state(1)["model"], "optimizer": state(1)["optimizer"]})

    found = {c.name: c.kind for c in repo.diff("HEAD~1", "HEAD").difference.components}
    assert found["ema"] == "removed"
    assert found["optimizer"] == "added"


def test_bytes_that_stayed_are_told_from_those_that_changed(repo: Repo):
    frozen = {f"layers.{n}.w": torch.full((1 << 18,), float(n)) for n in range(4)}
    repo.commit({"model": {**frozen, "head.w": torch.zeros(1 << 18)}})
    repo.commit({"model": {**frozen, "head.w": torch.ones(1 << 18)}})

    (model,) = repo.diff("HEAD~1", "HEAD").difference.components

    assert model.same_bytes >= 4 << 20 > 2 << 20 > model.changed_bytes


def test_hyperparameters_are_compared_key_by_key(repo: Repo, state):
    repo.commit(state(1), params={"lr": 0.1, "net": {"width": 1, "depth": 2}, "gone": 1, "type": 1})
    repo.commit(state(1), params={"lr": 0.2, "net": {"width": 1, "depth": 3}, "new": 1, "type": "1"})

    found = {c.key: (c.kind, c.before, c.after) for c in repo.diff("HEAD~1", "HEAD").difference.params}
    assert found == {
        "gone": ("removed", 1, None),
        "lr": ("changed", 0.1, 0.2),
        "net.depth": ("changed", 2, 3),
        "new": ("added", None, 1),
        "type": ("changed", 1, "1"),
    }


def test_other_code_is_told(repo: Repo, world: World, state):
    repo.commit(state(1))
    (world.root / "train.py").write_text("x")
    world.git("add", "train.py")
    world.git("commit", "-qm", "code")
    code = world.git("rev-parse", "HEAD")
    (world.root / "train.py").write_text("y")
    repo.commit(state(1))

    found = {c.key: c.after for c in repo.diff("HEAD~2", "HEAD").difference.code}
    assert found["commit"] == code
    assert found["patch"]


# -------------------------------------------------------------------------------------------------------------- values


def distance(repo: Repo, one: torch.Tensor, other: torch.Tensor) -> compare.Distance:
    repo.commit({"model": {"w": one}})
    repo.commit({"model": {"w": other}})
    (found,) = repo.diff("HEAD~1", "HEAD", values=True).distances
    return found


KINDS = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.complex64]


@pytest.mark.parametrize("dtype", KINDS, ids=str)
@pytest.mark.parametrize("count", [1, 1000, (1 << 20) + 3])
def test_how_far_two_tensors_are_apart_is_what_torch_says(repo: Repo, dtype: torch.dtype, count: int):
    generator = torch.Generator().manual_seed(count)
    one = (torch.randn(count, generator=generator) * 50 + 100).to(dtype)
    other = one.clone()
    other[::3] = (torch.randn(len(other[::3]), generator=generator) * 50 + 100).to(dtype)

    found = distance(repo, one, other)

    wide = torch.complex128 if dtype.is_complex else torch.float64
    a, b = one.to(wide), other.to(wide)
    assert (found.count, found.equal) == (count, int((a == b).sum()))
    assert found.largest == pytest.approx(float((a - b).abs().max()), rel=1e-9)
    assert found.relative == pytest.approx(float((a - b).norm() / a.norm()), rel=1e-6)


@pytest.mark.parametrize(
    ("one", "other", "largest", "relative"),
    [
        ([0.0, 0.0], [0.0, 1.0], 1.0, math.inf),
        ([1.0, 2.0], [1.0, math.nan], math.nan, math.nan),
        ([1.0, math.nan], [2.0, math.nan], math.nan, math.nan),
        ([1.0, math.inf], [1.0, 5.0], math.inf, math.nan),
    ],
)
def test_what_is_no_number_is_not_smoothed_over(repo: Repo, one, other, largest: float, relative: float):
    found = distance(repo, torch.tensor(one), torch.tensor(other))

    assert (found.largest, found.relative) == pytest.approx((largest, relative), nan_ok=True)


def test_minus_zero_is_another_value_of_distance_zero(repo: Repo):
    found = distance(repo, torch.tensor([0.0, 1.0]), torch.tensor([-0.0, 1.0]))

    assert (found.largest, found.relative, found.equal) == (0.0, 0.0, 2)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_values_of_any_kind_are_no_obstacle(repo: Repo, dtype: torch.dtype):
    repo.commit({"model": {"w": torch.zeros(4).to(dtype), "x": torch.zeros(1)}})
    repo.commit({"model": {"w": torch.ones(4).to(dtype), "x": torch.ones(1)}})

    compared = repo.diff("HEAD~1", "HEAD", values=True)

    assert {key for _, key in tensors(compared)} == {"w", "x"}
    assert "x" in {d.name for d in compared.distances}


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(("before", "after"), [("missing", "HEAD"), ("HEAD", "HEAD~3"), ("HEAD~9", "HEAD")])
def test_what_there_is_not_cannot_be_compared(repo: Repo, history, before: str, after: str):
    with pytest.raises(NotFound):
        repo.diff(before, after)


@pytest.mark.parametrize("harm", ["damaged", "missing"])
def test_tables_that_are_not_whole_are_noted_and_the_rest_is_compared(
    repository: Repository, history, objects_of, flip, harm: str
):
    path = objects_of(history[0])["model/tree.json"]
    flip(path) if harm == "damaged" else path.unlink()

    compared = compare.diff(repository, "HEAD~2", "HEAD")

    assert history[0].id[:10] in compared.notes[0]
    assert {c.name for c in compared.difference.components} >= {"model", "optimizer"}


def test_values_that_are_not_whole_are_an_error(repository: Repository, history, objects_of, flip):
    old, new = objects_of(history[0]), objects_of(history[-1])
    flip(next(p for path, p in old.items() if path.endswith(".safetensors") and p not in new.values()))

    with pytest.raises(IntegrityError):
        compare.diff(repository, "HEAD~2", "HEAD", values=True)


def test_without_tensors_nothing_is_read(repository: Repository, history, world: World):
    for path in world.objects().values():
        path.unlink()

    compared = compare.diff(repository, "HEAD~1", "HEAD", tensors=False)

    assert compared.notes == ()
    assert {c.name for c in compared.difference.components} >= {"model", "optimizer"}


def test_looking_changes_nothing(repo: Repo, world: World, history, everything):
    before = everything(world)

    repo.diff("HEAD~1", "HEAD", values=True)

    assert everything(world) == before
