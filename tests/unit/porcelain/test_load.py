"""`load`: what was committed comes back bit for bit, straight from the cache, or not at all."""

from __future__ import annotations

import shutil
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ckptvcs
from ckptvcs import Repo
from ckptvcs.errors import BadManifest, IntegrityError, MissingObject, NoRepository, NotFound, Refused, WrongDigest
from ckptvcs.porcelain import load
from ckptvcs.porcelain.repo import Repository
from tests.support.same import assert_same
from tests.support.states import training_state
from tests.support.world import World


def test_a_state_of_training_comes_back_bit_for_bit(repo: Repo):
    repo.commit(training_state(3))

    assert_same(dict(repo.load("HEAD")), training_state(3))


def test_no_file_of_the_workspace_is_needed(repo: Repo, world: World, history, state):
    shutil.rmtree(world.root / "checkpoints")

    assert_same(dict(repo.load("HEAD~1")), state(2))


def test_keys_come_in_the_order_they_were_committed_in(repo: Repo):
    state = {"step": 1, "optimizer": {"b": torch.ones(1), "a": torch.ones(2)}, "model": {"w": torch.ones(3)}, "z": [1]}
    repo.commit(state)

    loaded = repo.load("HEAD")

    assert list(loaded) == list(state)
    assert (len(loaded), "model" in loaded, "x" in loaded, loaded.get("x")) == (4, True, False, None)
    assert_same(dict(loaded), state)


@pytest.mark.parametrize(
    "state",
    [
        [torch.ones(2), {"a": (1, None)}],
        {"w": torch.ones(2), "b": torch.zeros(1)},
        {"model": {"w": np.arange(3)}, "notes": {"text": "é", "bytes": b"\0", "float": -0.0}},
        {1: torch.ones(1), "model": {"w": torch.ones(2)}},
        torch.ones(3),
    ],
    ids=["a list", "a flat dict", "mixed", "odd keys", "a tensor"],
)
def test_a_state_of_any_form_comes_back_in_it(repo: Repo, state: Any):
    repo.commit(state)

    loaded = repo.load("HEAD")

    assert_same(dict(loaded) if isinstance(state, dict) else loaded, state)


# ----------------------------------------------------------------------------------------------------------- components


@pytest.mark.parametrize("wanted", [["model"], ["optimizer", "model"], ["extra"], []])
def test_only_the_components_that_are_wanted_are_loaded(repo: Repo, history, state, wanted: list[str]):
    loaded = repo.load("HEAD", components=wanted)

    expected = {"extra": {"step": 3}, **state(3)}
    assert list(loaded) == wanted
    assert_same(dict(loaded), {name: expected[name] for name in wanted})


def test_a_component_may_be_named_by_its_role(repo: Repo):
    repo.commit({"net": {"w": torch.ones(1)}, "opt": {"state": {}, "param_groups": []}})

    assert_same(dict(repo.load("HEAD", ["model"])), {"net": {"w": torch.ones(1)}})


def test_a_role_that_several_play_is_no_name(repo: Repo):
    repo.commit({"net": {"w": torch.ones(1)}, "generator": {"w": torch.ones(1)}})

    with pytest.raises(NotFound):
        repo.load("HEAD", ["model"])
    assert list(repo.load("HEAD", ["net"])) == ["net"]


def test_a_component_that_there_is_not_is_named_with_those_that_there_are(repo: Repo, history):
    with pytest.raises(NotFound, match="'ema'") as caught:
        repo.load("HEAD", ["ema"])

    assert "model (model)" in caught.value.why


def test_a_component_that_nobody_asks_for_is_not_read(repo: Repo, history, state, objects_of):
    for path, place in objects_of(history[-1]).items():
        if path.startswith("optimizer/"):
            place.unlink()

    loaded = repo.load("HEAD")

    assert_same(loaded["model"], state(3)["model"])
    with pytest.raises(MissingObject):
        loaded["optimizer"]


# -------------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("copy", [True, False])
def test_writing_to_a_tensor_does_not_reach_the_cache(repository: Repository, history, state, *, copy: bool):
    loaded = load.load(repository, "HEAD", copy=copy)

    loaded["model"]["layer.weight"].fill_(7)

    assert_same(dict(load.load(repository, "HEAD")), state(3))
    repository.objects.check([])


def test_a_loaded_state_outlives_its_repository(world: World, history, state):
    with world.repo() as repo:
        loaded = repo.load("HEAD")["model"]

    shutil.rmtree(world.root)

    assert_same(loaded, state(3)["model"])


def test_what_was_one_tensor_is_one_tensor(repo: Repo):
    shared = torch.arange(6.0)
    repo.commit({"model": {"a": shared, "b": shared, "part": shared[2:4]}, "ema": {"a": shared}})

    loaded = repo.load("HEAD")
    loaded["model"]["a"][2] = 100

    assert loaded["model"]["b"][2] == loaded["model"]["part"][0] == loaded["ema"]["a"][2] == 100


def test_tensors_go_to_the_device_that_is_asked_for(repo: Repo, history, state):
    loaded = repo.load("HEAD", ["model"], map_location="meta")

    assert {tensor.device.type for tensor in loaded["model"].values()} == {"meta"}
    assert loaded["model"]["layer.weight"].shape == state(3)["model"]["layer.weight"].shape


# -------------------------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize(("harm", "error"), [("damaged", WrongDigest), ("missing", MissingObject)])
def test_no_object_that_is_not_whole_is_ever_handed_out(
    repo: Repo, world: World, history, objects_of, flip, harm: str, error: type[Exception]
):
    for path, place in objects_of(history[-1]).items():
        saved = place.read_bytes()
        flip(place) if harm == "damaged" else place.unlink()

        with pytest.raises(error) as caught:
            dict(repo.load("HEAD"))

        assert caught.value.facts["object"] == place.parent.name + place.name, path
        place.unlink(missing_ok=True)
        place.write_bytes(saved)


def test_damage_after_a_good_look_is_found_all_the_same(repo: Repo, history, objects_of, flip):
    dict(repo.load("HEAD"))

    flip(objects_of(history[-1])["model/tree.json"])

    with pytest.raises(WrongDigest):
        repo.load("HEAD")["model"]


def test_the_bytes_of_another_checkpoint_are_not_taken_for_these(repo: Repo, history, objects_of):
    old, new = (objects_of(receipt)["model/tree.json"] for receipt in (history[0], history[-1]))
    new.unlink()
    shutil.copyfile(old, new)

    with pytest.raises(IntegrityError):
        repo.load("HEAD")["model"]


@pytest.mark.parametrize("revision", ["missing", "HEAD~3", "HEAD~9", "main@step:9"])
def test_a_revision_without_a_checkpoint_is_not_found(repo: Repo, history, revision: str):
    with pytest.raises(NotFound):
        repo.load(revision)


def test_a_manifest_that_was_edited_is_not_believed(repo: Repo, world: World, history):
    path = world.root / "checkpoints/model.json"
    path.write_text(path.read_text().replace('"step": 3', '"step":  3'))
    world.git("commit", "-qam", "edited")

    with pytest.raises(BadManifest):
        repo.load("HEAD")


def test_a_manifest_that_its_pointer_does_not_name_is_not_believed(repo: Repo, world: World, history):
    path = world.root / "checkpoints/model.json"
    path.write_text(path.read_text().replace('"step": 3', '"step": 4'))
    world.git("commit", "-qam", "edited")

    with pytest.raises(BadManifest):
        repo.load("HEAD")


# ------------------------------------------------------------------------------------------------------- in a function


def test_a_function_is_enough(world: World, history, state, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(world.root / "checkpoints")

    assert_same(dict(ckptvcs.load("main@step:2")), state(2))
    assert_same(dict(ckptvcs.load("HEAD", ["model"], repo=world.root)), {"model": state(3)["model"]})


def test_outside_of_a_repository_it_says_so(tmp_path: Path):
    with pytest.raises(NoRepository):
        ckptvcs.load("HEAD", repo=tmp_path)


def test_a_pickle_is_loaded_if_that_is_asked_for(repo: Repo, world: World):
    repo.commit({"model": {"w": torch.ones(1)}, "scheduler": {"fn": np.random.default_rng}}, allow_pickle=True)

    with pytest.raises(Refused, match="pickle"):
        dict(ckptvcs.load("HEAD", repo=world.root))
    loaded = ckptvcs.load("HEAD", repo=world.root, allow_pickle=True)
    assert loaded["scheduler"] == {"fn": np.random.default_rng}
    assert_same(ckptvcs.load("HEAD", ["model"], repo=world.root)["model"], {"w": torch.ones(1)})


def test_parts_in_an_ordered_dict_are_read(repo: Repo):
    state = OrderedDict(model={"w": torch.ones(2)}, step=3, optimizer={"lr": 0.1})
    repo.commit(state)

    assert_same(dict(repo.load("HEAD")), dict(state))
