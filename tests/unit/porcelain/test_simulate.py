"""What another policy would have done to a real history."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckptvcs.domain.simulation import Cadence
from ckptvcs.errors import BadConfig, NotFound, UsageError
from ckptvcs.porcelain import simulate
from tests.unit.porcelain.test_retention import LAST_TWO, Training, training

__all__ = ["training"]


def test_the_past_is_run_by_every_policy(training: Training, tmp_path: Path):
    training.save(*range(1, 9))
    training.policy(LAST_TWO)
    repo = training.open()
    other = tmp_path / "other.yaml"
    other.write_text("retain:\n  keep:\n    - keep_last: 1\n  grace: 30min\n")
    policies = {"everything": None, "here": repo.config.retain, "other": simulate.policy_of(other)}

    found = simulate.over_the_past(repo, policies, since_s=None, price=1.0)

    assert [one.name for one in found] == ["everything", "here", "other"]
    everything = found[0].simulated
    assert everything.nbytes[-1] == training.nbytes()
    assert (everything.kept, everything.dropped) == (8, 0)
    assert all(one.cost == one.simulated.gb_months for one in found)
    assert found[2].simulated.nbytes[-1] <= found[1].simulated.nbytes[-1] <= everything.nbytes[-1]


def test_a_training_to_come_needs_no_past(training: Training):
    cadence = Cadence(every_s=1800, span_s=86_400 * 10, components={"model": 10**9, "optimizer": 2 * 10**9})
    found = simulate.ahead(training.open(), {"everything": None}, cadence, branch="main", price=None)

    assert found[0].simulated.nbytes[-1] == 480 * 3 * 10**9
    assert found[0].cost is None
    with pytest.raises(NotFound, match="no past"):
        simulate.over_the_past(training.open(), {"everything": None}, since_s=None, price=None)
    with pytest.raises(UsageError, match="too much"):
        often = Cadence(every_s=1, span_s=86_400 * 10, components={"model": 1})
        simulate.ahead(training.open(), {"everything": None}, often, branch="main", price=None)


def test_a_policy_that_cannot_be_used_is_told_by_its_line(tmp_path: Path):
    path = tmp_path / "p.yaml"
    path.write_text("retain:\n  keep:\n    - keep_last: 0\n")
    with pytest.raises(BadConfig, match="line 3"):
        simulate.policy_of(path)
    path.write_text("version: 1\n")
    with pytest.raises(BadConfig, match="no policy"):
        simulate.policy_of(path)
    with pytest.raises(NotFound):
        simulate.policy_of(tmp_path / "none.yaml")
