"""Writing down a checkpoint."""

from __future__ import annotations

import pytest

from ckptvcs import Repo
from ckptvcs.porcelain import describe
from tests.support.world import World


def test_an_id_that_yaml_would_take_for_a_number_is_made_anew(world: World, monkeypatch: pytest.MonkeyPatch):
    """No state is known whose id does that, so that it is said of the first one here."""
    looked_at: list[str] = []

    def is_the_first(digest: str) -> bool:
        looked_at.append(digest)
        return len(looked_at) == 1

    monkeypatch.setattr(describe, "reads_as_number", is_the_first)
    with Repo(world.root) as repo:
        receipt = repo.commit({"model": {"bias": [1.0]}, "step": 3}, step=3)

        assert [receipt.id] == looked_at[1:]
        assert receipt.id != looked_at[0]
        assert repo.show().id == receipt.id
