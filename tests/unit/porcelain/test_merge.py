"""`merge`: the outcome is what NumPy computes, its parents are all of them, and what does not fit is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from ckptvcs import Repo
from ckptvcs.errors import FormatError, IntegrityError, NotFound, Refused, UsageError
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


def test_weights_given_with_the_checkpoints_in_another_order_give_the_same_bytes(repo: Repo, family: list[str]):
    one = repo.merge("a", "b", "c", weights=[1, 2, 4], branch="one")
    other = repo.merge("c", "a", "b", weights=[4, 1, 2], branch="other")

    files = [{f.path: f.blake3 for f in r.manifest.all_files() if r} for r in (one, other)]
    assert files[0] == files[1]
    assert one.new_bytes > 0


def test_ties_are_to_the_nearest_common_ancestor(repo: Repo, family: list[str]):
    named = repo.merge(*family, method="ties", density=0.5, base="main", branch="named")
    found = repo.merge(*family, method="ties", density=0.5, branch="found")

    assert found.manifest.params["merge"] == named.manifest.params["merge"]
    assert found.manifest.params["merge"]["base"] == repo.show("main").id
    assert found.manifest.all_files() == named.manifest.all_files()


def test_the_recipe_is_written_down(repo: Repo, family: list[str]):
    manifest = repo.merge("a", "b", weights=[3, 1], metrics={"loss": 0.5}, step=9).manifest

    assert manifest.params["merge"] == {
        "method": "weighted",
        "weights": [3, 1],
        "components": ["model"],
        "of": [repo.show("a").id, repo.show("b").id],
    }
    assert (manifest.reason, manifest.step, manifest.metrics) == ("merge", 9, {"loss": 0.5})
    assert manifest.source.name.startswith("weighted of ")


# ------------------------------------------------------------------------------------------------------------ the rest


def test_an_optimizer_that_never_saw_these_weights_is_left_out(repo: Repo, family: list[str]):
    receipt = repo.merge(*family)

    assert list(repo.load("main")) == ["model"]
    assert receipt.manifest.grade == "weights-only"


def test_the_rest_of_the_first_can_be_asked_for_and_is_not_called_exact(repo: Repo, family: list[str]):
    receipt = repo.merge(*family, rest="first")

    state, first = repo.load("main"), repo.load("a")
    assert list(state) == list(first)
    assert torch.equal(state["optimizer"]["state"][0]["exp_avg"], first["optimizer"]["state"][0]["exp_avg"])
    assert repo.show("a").manifest.grade == "exact"
    assert (receipt.manifest.grade, receipt.manifest.step) == ("approximate", 1)


def test_a_bare_model_stays_bare(repo: Repo):
    for n, name in enumerate("ab"):
        repo.commit({"w": torch.full((3,), float(n)), "v": torch.ones(2)}, branch=name)

    repo.merge("a", "b", branch="c")

    assert {name: t.tolist() for name, t in repo.load("c").items()} == {"w": [0.5] * 3, "v": [1.0] * 2}


def test_buffers_that_are_no_floats_are_those_of_the_first_and_noted(repo: Repo):
    for n, name in enumerate("ab"):
        repo.commit({"model": {"w": torch.full((3,), float(n)), "calls": torch.tensor(n + 5)}}, branch=name)

    receipt = repo.merge("a", "b", branch="c")

    assert repo.load("c")["model"]["calls"].item() == 5
    assert receipt.notes[0].startswith("state['model']['calls'] differ")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.complex64])
def test_every_floating_point_type_stays_what_it_is(repo: Repo, dtype: torch.dtype):
    values = [torch.randn(100, generator=torch.Generator().manual_seed(n)).to(dtype) for n in range(3)]
    for value, name in zip(values, "abc", strict=True):
        repo.commit({"model": {"w": value}}, branch=name)

    repo.merge("a", "b", "c", branch="d")

    wide = torch.complex128 if dtype.is_complex else torch.float64
    mean = torch.stack([v.to(wide) for v in values]).mean(dim=0).to(dtype)
    found = repo.load("d")["model"]["w"]
    assert found.dtype == dtype
    assert torch.equal(found.view(torch.uint8), mean.view(torch.uint8))


def test_averages_of_weights_are_merged_too_and_ties_between_components_hold(repo: Repo):
    for n, name in enumerate("ab"):
        weight = torch.full((4,), float(n))
        repo.commit({"ema": {"w": weight, "own": weight + 1}, "model": {"w": weight}}, branch=name)

    repo.merge("a", "b", branch="both")
    repo.merge("a", "b", branch="model", components=["model"], rest="first")

    assert {k: v.tolist() for k, v in repo.load("both")["ema"].items()} == {"w": [0.5] * 4, "own": [1.5] * 4}
    assert repo.load("both")["model"]["w"].tolist() == [0.5] * 4
    assert repo.load("model")["model"]["w"].tolist() == [0.5] * 4
    assert repo.load("model")["ema"]["own"].tolist() == [1.0] * 4


def test_what_is_frozen_is_the_same_object(repo: Repo):
    frozen = torch.randn(1_000_000)
    for n, name in enumerate(["main", "a", "b"]):
        if n:
            repo.branch(name)
        head = torch.full((250_000,), float(n))
        repo.commit({"model": {"layers.0.w": frozen, "layers.1.w": head}}, branch=name)

    assert repo.merge("a", "b", branch="c").new_bytes < 1_100_000


# ------------------------------------------------------------------------------------------------------------- branches


def test_a_new_branch_begins_at_the_merge_and_nothing_else_moves(repo: Repo, world: World, family: list[str]):
    before = world.git("rev-parse", "main", "a", "b", "c")

    repo.merge(*family, branch="soup")

    assert world.git("rev-parse", "main", "a", "b", "c") == before
    assert world.git("show", "-s", "--format=%P", "soup").split() == before.split("\n")[1:]


def test_code_that_moved_on_is_a_further_parent_and_its_tree_is_kept(repo: Repo, world: World, family: list[str]):
    (world.root / "train.py").write_text("print()\n")
    world.git("add", "train.py")
    world.git("commit", "-qm", "code")
    code = world.git("rev-parse", "HEAD")

    repo.merge(*family)

    tips = world.git("rev-parse", *family).split("\n")
    assert world.git("show", "-s", "--format=%P", "main").split() == [*tips, code]
    assert world.git("show", "main:train.py") == "print()"
    assert world.git("status", "--porcelain") == ""


def test_a_checkpoint_of_the_branch_is_not_left_behind(repo: Repo, family: list[str]):
    repo.commit(tuned(9), step=9)

    with pytest.raises(Refused, match="branch 'main'") as caught:
        repo.merge(*family)

    assert "--branch" in caught.value.next_step
    repo.merge("main", *family)


def test_checkpoints_of_one_run_can_be_averaged(repo: Repo, world: World):
    for n in (1, 2, 3):
        repo.commit(tuned(n), step=n)

    receipt = repo.merge("main@step:1", "main@step:2", "main@step:3", method="ema", decay=0.5)

    assert len(world.git("show", "-s", "--format=%P", "main").split()) == 3
    w = [repo.load(c)["model"]["embed"].double().numpy() for c in receipt.manifest.parents]
    assert_merged(repo, "main", {"embed": 0.25 * w[0] + 0.25 * w[1] + 0.5 * w[2]})
    assert world.ckpt("log", "--graph").status == 0


# -------------------------------------------------------------------------------------------------------------- refused


def test_every_difference_is_in_one_error(repo: Repo, everything: Any, world: World):
    w = torch.ones(2, 3)
    repo.commit({"model": {"w": w, "tied": w, "only": torch.ones(1), "t": torch.ones(2)}}, branch="a")
    repo.commit({"model": {"w": w.T.clone(), "tied": torch.ones(3, 2), "t": torch.ones(2)}}, branch="b")
    repo.commit(
        {"model": {"w": w, "tied": w, "only": torch.ones(1), "t": torch.ones(2).half(), "new": w.clone()}}, branch="c"
    )
    before = everything(world)

    with pytest.raises(FormatError) as caught:
        repo.merge("a", "b", "c", branch="d")

    assert caught.value.facts["differences"] == [
        "state['model']['w'] is F32 [2, 3] in a, F32 [3, 2] in b",
        "state['model']['w'] is tied to state['model']['tied'] in a, and not in b",
        "state['model']['tied'] is F32 [2, 3] in a, F32 [3, 2] in b",
        "state['model']['only'] is only in a",
        "state['model']['t'] is F32 [2] in a, F16 [2] in c",
        "state['model']['new'] is only in c",
    ]
    assert all(difference in caught.value.why for difference in caught.value.facts["differences"])
    assert everything(world) == before


def test_a_component_that_one_lacks_is_named(repo: Repo):
    repo.commit({"ema": {"w": torch.ones(1)}, "model": {"w": torch.ones(1)}}, branch="a")
    repo.commit({"model": {"w": torch.ones(1)}}, branch="b")

    with pytest.raises(FormatError, match="model") as caught:
        repo.merge("a", "b", branch="c")
    assert caught.value.facts["differences"] == ["component 'ema' is only in a"]

    repo.merge("a", "b", components=["model"], branch="c")


def test_overlapping_memory_that_is_no_tensor_cannot_be_merged(repo: Repo):
    for n, name in enumerate("ab"):
        whole = torch.arange(9.0) + n
        repo.commit({"model": {"left": whole[:6], "right": whole[3:]}}, branch=name)

    with pytest.raises(FormatError, match="overlaps in memory"):
        repo.merge("a", "b", branch="c")


@pytest.mark.parametrize(
    ("revisions", "recipe", "error", "problem"),
    [
        (["a"], {}, UsageError, "one checkpoint"),
        (["a", "b", "a"], {}, UsageError, "with itself"),
        (["a", "nowhere"], {}, NotFound, "nowhere"),
        (["a", "b"], {"components": ["optimizer"]}, UsageError, "component 'optimizer'"),
        (["a", "main"], {"method": "ties"}, UsageError, "'main'"),
        (["a", "b"], {"branch": "no@name"}, UsageError, "no@name"),
    ],
)
def test_what_makes_no_sense_is_refused(
    repo: Repo, family: list[str], revisions: list[str], recipe: dict[str, Any], error: type[Exception], problem: str
):
    with pytest.raises(error, match=problem):
        repo.merge(*revisions, **recipe)


def test_ties_without_a_common_ancestor_needs_a_base(repo: Repo, world: World):
    repo.commit(tuned(1), branch="a")
    repo.commit(
        tuned(2), branch="b"
    )  # they have the first commit of the repository in common, which holds no checkpoint

    with pytest.raises(NotFound, match="no base") as caught:
        repo.merge("a", "b", method="ties", branch="c")

    assert "--base" in caught.value.next_step


def test_a_damaged_object_is_found_before_anything_is_written(
    repo: Repo, world: World, family: list[str], objects_of: Any, flip: Any
):
    files = {f.path: f for f in repo.show("b").manifest.all_files()}
    shard = next(
        path for path in files if path.startswith("model/") and path.endswith(".safetensors") and "index" not in path
    )
    flip(world.cache / files[shard].md5[:2] / files[shard].md5[2:])

    with pytest.raises(IntegrityError):
        repo.merge(*family)

    assert world.git("log", "-1", "--format=%s") == "ckpt: main step 0"


# --------------------------------------------------------------------------------------------------------- command line


def test_the_command_says_what_it_did(world: World, repo: Repo, family: list[str]):
    done = world.ckpt("merge", *family, "-m", "soup", "--metric", "loss=0.5", "--step", "7")

    assert "merged: model; left out: optimizer, rng" in done.out
    assert "mean of 3" in done.out
    assert "resumable: weights-only" in done.out


def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    world: World, repo: Repo, family: list[str], everything: Any
):
    before = everything(world)

    done = world.ckpt("merge", *family, "--method", "ties", "-n")
    told = world.ckpt("merge", *family, "--weights", "1,2,3", "-n", "--json").json

    assert f"base {repo.show('main').id[:10]}" in done.out
    assert (told["dry_run"], told["method"], told["merged"], told["weights"]) == (
        True,
        "weighted",
        ["model"],
        [1, 2, 3],
    )
    assert everything(world) == before


def test_numbers_that_are_none_are_a_usage_error(world: World, repo: Repo, family: list[str]):
    assert "no numbers" in world.ckpt("merge", *family, "--weights", "1,x", status=2).err
    assert "needs --decay" in world.ckpt("merge", *family, "--method", "ema", status=2).err
