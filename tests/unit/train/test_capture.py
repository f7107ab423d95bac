"""What a process must remember beside its tensors."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ckptvcs import Repo
from ckptvcs.train import capture
from tests.support.world import World, run

DRAWS: dict[str, Callable[[], Any]] = {
    "python": lambda: [random.random() for _ in range(5)],
    "python, normal": lambda: [random.gauss(0, 1) for _ in range(3)],
    "numpy": lambda: np.random.rand(5).tolist(),
    "numpy, normal": lambda: np.random.randn(3).tolist(),
    "torch": lambda: torch.rand(5).tolist(),
    "torch, shuffled": lambda: torch.randperm(20).tolist(),
}


def draw() -> dict[str, Any]:
    return {name: make() for name, make in DRAWS.items()}


@pytest.mark.parametrize("before", [0, 1, 3, 1000])
def test_every_generator_goes_on_where_it_was(before: int):
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    for _ in range(before):
        random.gauss(0, 1), np.random.randn(), torch.randn(1)
    state = capture.rng_state()
    expected = draw()

    random.seed(9), np.random.seed(9), torch.manual_seed(9)
    capture.set_rng_state(state)

    assert draw() == expected


def test_looking_at_generators_does_not_move_them():
    capture.set_rng_state(capture.rng_state())
    state = capture.rng_state()
    expected = draw()

    capture.set_rng_state(state)
    capture.rng_state()

    assert draw() == expected


def test_generators_go_on_after_a_commit(world: World):
    with Repo(world.root) as repo:
        random.gauss(0, 1)
        np.random.randn()
        repo.commit({"rng": capture.rng_state()})
        expected = draw()

        capture.set_rng_state(repo.load("HEAD")["rng"])

    assert draw() == expected


def test_generators_go_on_in_another_process(world: World):
    with Repo(world.root) as repo:
        repo.commit({"rng": capture.rng_state()})
    expected = [random.random(), float(np.random.rand()), torch.rand(1).item()]
    code = (
        "import ckptvcs, json, random, numpy as np, torch; from ckptvcs.train import capture\n"
        "capture.set_rng_state(ckptvcs.load('HEAD')['rng'])\n"
        "print(json.dumps([random.random(), float(np.random.rand()), torch.rand(1).item()]))"
    )

    done = run([sys.executable, "-c", code], world.root)

    assert json.loads(done.out) == expected


def test_the_seed_of_torch_is_known():
    torch.manual_seed(1234)

    assert capture.seeds() == {"torch": 1234}


# --------------------------------------------------------------------------------------------------------------- roles

LINEAR = torch.nn.Linear(1, 1)
SGD = torch.optim.SGD(LINEAR.parameters(), lr=1)


@pytest.mark.parametrize(
    ("name", "part", "expected"),
    [
        ("model", LINEAR, "model"),
        ("anything", LINEAR, "model"),
        ("ema", LINEAR, "ema"),
        ("ema_model", LINEAR, "ema"),
        ("anything", SGD, "optimizer"),
        ("anything", torch.optim.lr_scheduler.ConstantLR(SGD), "scheduler"),
        ("anything", torch.amp.GradScaler("cpu"), "scaler"),
        ("dataloader", object(), "dataloader"),
        ("scheduler", object(), "scheduler"),
        ("anything", object(), "extra"),
    ],
)
def test_a_role_is_told_by_what_a_thing_is_else_by_its_name(name: str, part: Any, expected: str):
    assert capture.role(name, part) == expected


# --------------------------------------------------------------------------------------------------------------- hints


def test_it_is_known_what_is_trained():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 2))
    model[0].requires_grad_(requires_grad=False)

    trainable = capture.hints({"model": model, "other": object()}).trainable

    assert set(trainable) == {("model", name) for name in model.state_dict()}
    frozen = {name for (_, name), trained in trainable.items() if not trained}
    assert frozen == {"0.weight", "0.bias"}


def test_it_is_known_which_number_of_an_optimizer_is_which_parameter():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    groups = [{"params": [model[1].bias, model[0].weight]}, {"params": [model[1].weight]}]
    optimizer = torch.optim.SGD(groups, lr=1)

    owners = capture.hints({"model": model, "opt": optimizer}).owners

    assert owners == {
        (("opt", "state"), 0): "1.bias",
        (("opt", "state"), 1): "0.weight",
        (("opt", "state"), 2): "1.weight",
    }


def test_the_configuration_of_a_model_is_kept_beside_it():
    model = torch.nn.Linear(1, 1)
    model.config = SimpleNamespace(to_json_string=lambda: '{"a": "é"}')

    files = capture.model_files({"model": model, "optimizer": SGD, "plain": torch.nn.Linear(1, 1)})

    assert files == {"model/config.json": '{"a": "é"}'.encode()}
