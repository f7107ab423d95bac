"""`WeightAverage`: the mean that it says it is, exact when it comes and goes, and saved with the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import ckptvcs
from ckptvcs.errors import FormatError, UsageError
from ckptvcs.train.averages import WeightAverage
from tests.support.same import assert_same
from tests.support.world import World


class Tied(torch.nn.Module):
    """A model with a tied weight, statistics and a counter."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(5, 3)
        self.norm = torch.nn.BatchNorm1d(3)
        self.head = torch.nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight
        self.to(dtype)


def moved(model: torch.nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """Move every number of a model; returns what it is then."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
            else:
                tensor.fill_(seed)
    return copied(model)


def copied(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def numbers(average: WeightAverage, name: str = "embed.weight") -> np.ndarray:
    return average.average()[name].double().numpy()


@pytest.mark.parametrize(
    ("start", "stays"),
    [
        ("plain", [0.9, 0.9, 0.9]),
        ("warmup", [2 / 11, 3 / 12, 4 / 13]),
        ("unbiased", [0.0, 0.9 * 0.1 / (1 - 0.9**2), 0.9 * (1 - 0.9**2) / (1 - 0.9**3)]),
    ],
)
def test_an_exponential_average_is_what_numpy_steps_through(start: Any, stays: list[float]):
    model = Tied()
    expected = moved(model, 0)["embed.weight"].double().numpy()
    average = WeightAverage(model, decay=0.9, start=start)

    for seed, stay in enumerate(stays, start=1):
        expected = stay * expected + (1 - stay) * moved(model, seed)["embed.weight"].double().numpy()
        average.update()

    np.testing.assert_allclose(numbers(average), expected, atol=1e-6)


def test_unbiased_is_the_weighted_mean_of_the_updates_alone():
    model = Tied()
    average = WeightAverage(model, decay=0.8, start="unbiased")
    seen = []
    for seed in range(4):
        seen.append(moved(model, seed)["embed.weight"].double().numpy())
        average.update()

    weights = [0.8 ** (3 - i) for i in range(4)]
    np.testing.assert_allclose(numbers(average), np.average(seen, axis=0, weights=weights), atol=1e-6)


@pytest.mark.parametrize(("last", "count"), [(3, 3), (10, 5), (1, 1), ("all", 5)])
def test_an_equal_mean_is_that_of_the_last_updates(last: Any, count: int):
    model = Tied()
    average = WeightAverage(model, last=last)
    seen = []
    for seed in range(5):
        seen.append(moved(model, seed)["embed.weight"].double().numpy())
        average.update()

    np.testing.assert_allclose(numbers(average), np.mean(seen[-count:], axis=0), atol=1e-6)


@pytest.mark.parametrize("how", [{"decay": 0.9}, {"last": 2}, {"last": "all"}], ids=str)
def test_an_average_of_equal_weights_is_those_bit_for_bit(how: dict[str, Any]):
    model = Tied()
    here = moved(model, 3)
    average = WeightAverage(model, **how)

    for _ in range(5):
        average.update()

    assert_same(dict(average.average()), average.average())
    for name, tensor in here.items():
        assert torch.equal(average.average()[name], tensor), name


def test_tied_weights_are_one_and_counters_are_those_of_the_last_update():
    model = Tied()
    average = WeightAverage(model, decay=0.5)
    moved(model, 7)
    average.update()

    found = average.average()
    assert found["head.weight"] is found["embed.weight"]
    assert found["norm.num_batches_tracked"].item() == 7


def test_buffers_can_be_copied_instead():
    model = Tied()
    average, copying = WeightAverage(model, decay=0.5), WeightAverage(model, decay=0.5, buffers="copy")
    before = model.norm.running_mean.clone()
    moved(model, 1)
    for one in (average, copying):
        one.update()

    assert torch.equal(copying.average()["norm.running_mean"], model.norm.running_mean)
    assert torch.allclose(average.average()["norm.running_mean"], (before + model.norm.running_mean) / 2)


def test_half_precision_is_averaged_in_single():
    model = Tied(torch.bfloat16)
    with torch.no_grad():
        model.embed.weight.fill_(1.0)
    average = WeightAverage(model, decay=0.999)
    with torch.no_grad():
        model.embed.weight.fill_(2.0)

    for _ in range(10):
        average.update()

    assert average.average()["embed.weight"].dtype == torch.float32
    np.testing.assert_allclose(numbers(average), 2 - 0.999**10, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("how", [{"decay": 0.5}, {"last": 2}], ids=str)
def test_applied_weights_come_and_go_bit_for_bit(how: dict[str, Any], dtype: torch.dtype):
    model = Tied(dtype)
    average = WeightAverage(model, **how)
    moved(model, 1)
    average.update()
    before = moved(model, 2)

    with pytest.raises(KeyError), average.applied_to(model) as same:
        assert same is model
        assert torch.equal(model.embed.weight, average.average()["embed.weight"].to(dtype))
        assert model.head.weight is model.embed.weight
        moved(model, 3)
        raise KeyError

    assert_same(before, copied(model))


def test_an_average_does_not_go_into_itself():
    model = Tied()
    average = WeightAverage(model, decay=0.5)

    with average.applied_to(model), pytest.raises(UsageError, match="update"):
        average.update()
    average.update()

    assert average.updates == 1


def test_it_can_be_copied_to_another_model_and_says_what_does_not_fit():
    model, other = Tied(), Tied()
    average = WeightAverage(model, decay=0.5)
    average.copy_to(other)
    assert torch.equal(other.embed.weight, model.embed.weight)

    with pytest.raises(FormatError) as caught:
        average.copy_to(
            torch.nn.ModuleDict({"embed": torch.nn.Embedding(5, 4), "more": torch.nn.Linear(1, 1, bias=False)})
        )

    found = caught.value.facts["differences"]
    assert "'embed.weight' has shape [5, 3], not [5, 4]" in found
    assert "'more.weight' is missing" in found
    assert "'head.weight' is too much" in found


@pytest.mark.parametrize(
    "how",
    [{"decay": 0.9, "start": "warmup"}, {"decay": 0.9, "start": "unbiased"}, {"last": 3}, {"last": "all"}],
    ids=str,
)
@pytest.mark.parametrize("saved_after", [0, 2, 4])
def test_saved_and_restored_it_goes_on_exactly(how: dict[str, Any], saved_after: int):
    model = Tied()
    moved(model, 100)
    straight, broken = WeightAverage(model, **how), WeightAverage(model, **how)
    for seed in range(7):
        if seed == saved_after:
            state = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in broken.state_dict().items()}
            moved(model, 200)
            broken = WeightAverage(model, **how)
            broken.load_state_dict(state)
        moved(model, seed)
        for average in (straight, broken):
            average.update()

    assert_same(straight.state_dict(), broken.state_dict())


@pytest.mark.parametrize(("before", "after"), [(4, 2), (2, 4)])
def test_another_length_keeps_the_newest(before: int, after: int):
    model = Tied()
    average = WeightAverage(model, last=before)
    seen = []
    for seed in range(6):
        seen.append(moved(model, seed)["embed.weight"].double().numpy())
        average.update()
    other = WeightAverage(model, last=after)

    other.load_state_dict(average.state_dict())

    np.testing.assert_allclose(numbers(other), np.mean(seen[-min(before, after) :], axis=0), atol=1e-6)
    for seed in (6, 7):
        seen.append(moved(model, seed)["embed.weight"].double().numpy())
        other.update()
    np.testing.assert_allclose(numbers(other), np.mean(seen[-after:], axis=0), atol=1e-6)


def test_a_state_that_does_not_fit_is_refused_with_every_difference():
    state = WeightAverage(torch.nn.Linear(2, 3), decay=0.5).state_dict()

    with pytest.raises(FormatError) as caught:
        WeightAverage(torch.nn.Linear(2, 4, bias=False), decay=0.5).load_state_dict(state)
    assert caught.value.facts["differences"] == ["'bias' is too much", "'weight' has shape [3, 2], not [4, 2]"]

    with pytest.raises(FormatError, match="average"):
        WeightAverage(torch.nn.Linear(2, 3), last=2).load_state_dict(state)


@pytest.mark.parametrize(
    "how", [{}, {"decay": 0.9, "last": 2}, {"decay": 1.0}, {"last": 0}, {"last": True}, {"decay": 0.5, "start": "x"}]
)
def test_what_makes_no_sense_is_refused(how: dict[str, Any]):
    with pytest.raises(UsageError, match="average"):
        WeightAverage(Tied(), **how)


def test_checkpointer_saves_and_restores_it_as_a_component_of_role_ema(world: World, begin: Callable[..., Any]):
    training = begin()
    average = WeightAverage(training.model, last=2)
    with ckptvcs.Checkpointer(repo=world.root, run="r", ema=average, **training.parts) as ck:
        for step in range(4):
            training.step()
            average.update()
            ck.save(step)
    expected = {name: tensor.clone() for name, tensor in average.average().items()}
    training.step()  # with the random numbers that the last save remembers
    average.update()

    again = begin(1)
    other = WeightAverage(again.model, last=2)
    with ckptvcs.Checkpointer(repo=world.root, run="r", ema=other, **again.parts) as ck:
        ck.resume()
        again.step()
        other.update()

    assert_same(average.state_dict(), other.state_dict())
    saved = ckptvcs.load("r", ["ema"], repo=world.root)["ema"]
    assert all(torch.equal(saved[name], tensor) for name, tensor in expected.items())
    assert [
        c["role"] for c in world.ckpt("show", "r", "--json").json["manifest"]["components"] if c["name"] == "ema"
    ] == ["ema"]
