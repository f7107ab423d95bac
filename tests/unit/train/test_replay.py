"""A plain `DataLoader` tells its place and goes back there."""

from __future__ import annotations

import random

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from ckptvcs.train.replay import replaying, tells_its_place


class Shuffled(torch.utils.data.Sampler):
    """A sampler that draws from Python's generator."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self):
        order = list(range(self.count))
        random.shuffle(order)
        return iter(order)

    def __len__(self) -> int:
        return self.count


class Endless(IterableDataset):
    def __iter__(self):
        return iter(torch.randperm(20))


DATA = torch.arange(20)
LOADERS = {
    "shuffle": lambda: DataLoader(DATA, batch_size=3, shuffle=True),
    "generator": lambda: DataLoader(DATA, batch_size=3, shuffle=True, generator=torch.Generator().manual_seed(1)),
    "sampler": lambda: DataLoader(DATA, batch_size=3, sampler=Shuffled(20)),
    "batch sampler": lambda: DataLoader(DATA, batch_sampler=BatchSampler(Shuffled(20), 3, drop_last=False)),
    "iterable": lambda: DataLoader(Endless(), batch_size=3),
    "workers": lambda: DataLoader(DATA, batch_size=3, shuffle=True, num_workers=1),
}


def taken(batches, count: int) -> list[list[int]]:
    """Batches, with what a training does to the generators between them."""
    found = []
    for _ in range(count):
        found.append(next(batches).tolist())
        torch.rand(3), random.random()
    return found


@pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS)
@pytest.mark.parametrize("place", [0, 1, 4])
def test_the_rest_of_a_pass_and_the_next_one_are_as_if_nothing_had_been(make, place: int):
    torch.manual_seed(5), random.seed(5)
    loader = replaying(make())
    batches = iter(loader)
    taken(batches, place)
    state = loader.state_dict()
    generators = torch.get_rng_state(), random.getstate()
    rest = [*taken(batches, 7 - place), *taken(iter(loader), 7)]

    torch.manual_seed(99), random.seed(99)
    again = replaying(make())
    again.load_state_dict(state)
    batches = iter(again)
    torch.set_rng_state(generators[0]), random.setstate(generators[1])

    assert [*taken(batches, 7 - place), *taken(iter(again), 7)] == rest


def test_a_place_that_was_loaded_is_told_again_before_the_first_batch():
    loader = replaying(LOADERS["shuffle"]())
    taken(iter(loader), 2)
    state = loader.state_dict()
    again = replaying(LOADERS["shuffle"]())
    again.load_state_dict(state)

    iter(again)

    assert again.state_dict() == state


def test_the_loader_that_was_given_stays_as_it_is():
    loader = LOADERS["shuffle"]()

    able = replaying(loader)

    assert tells_its_place(able)
    assert not tells_its_place(loader)
    assert isinstance(able, DataLoader)
    assert replaying(able) is able
    assert replaying([1, 2]) == [1, 2]
