"""`why` says all that keeps a checkpoint, and what would follow if one of it were gone."""

from __future__ import annotations

import numpy
import pytest

from ckptvcs.errors import NotFound
from ckptvcs.porcelain import why
from ckptvcs.porcelain.repo import Repository
from tests.support.world import World


@pytest.fixture
def kept(world: World) -> World:
    """Three checkpoints, of which a policy keeps the newest and the best."""
    with (world.root / "ckpt.yaml").open("a") as file:
        file.write("retain:\n  keep: [{keep_last: 1}, {keep_best: {monitor: val_loss}}]\n")
    world.git("commit", "-qam", "a policy")
    with world.repo() as repo:
        for step, loss in ((0, 0.5), (1, 0.1), (2, 0.9), (3, 0.3)):
            repo.commit({"model": {"w": numpy.arange(8) + step}}, step=step, metrics={"val_loss": loss})
    return world


def asked(world: World, revision: str) -> why.Why:
    return why.why(Repository.open(world.root), revision)


def kinds(found: why.Why) -> list[str]:
    return sorted({reason.kind for reason in found.decision.reasons})


def test_the_newest_is_kept_by_the_floor_and_by_a_rule(kept: World):
    found = asked(kept, "main")

    assert {"newest", "keep_last", "checked out"} <= set(kinds(found))
    assert (found.kept, found.dropped) == (("model",), ())
    assert [(one.branch, one.place, one.count, one.ranks) for one in found.standings] == [
        ("main", 1, 4, {"val_loss": 2})
    ]


def test_what_nothing_keeps_has_no_reason(kept: World):
    found = asked(kept, "main@step:0")

    assert kinds(found) == []
    assert (found.kept, found.dropped, found.removals) == ((), ("model",), ())


def test_the_best_is_kept_though_a_rule_alone_would_not_matter(kept: World):
    found = asked(kept, "main@step:1")

    assert kinds(found) == ["best", "keep_best"]
    removals = {one.source: one for one in found.removals}
    assert removals["branch main"].dropped
    rule = next(one for source, one in removals.items() if source.startswith("retain.keep.1"))
    assert (rule.dropped, rule.left) == (False, ("best",))


def test_a_hold_is_a_reason_and_what_would_be_left_without_it_is_told(kept: World):
    with kept.repo() as repo:
        name = repo.hold("main@step:0", why="a paper")

    found = asked(kept, "main@step:0")

    assert [reason.text for reason in found.decision.reasons] == ["held: a paper"]
    assert [(one.source, one.dropped) for one in found.removals] == [(f"hold {name}", True)]


def test_two_names_keep_it_and_each_alone_is_enough(kept: World):
    with kept.repo() as repo:
        repo.tag("paper", "main@step:0")
        repo.tag("base", "main@step:0", golden=True)

    found = asked(kept, "main@step:0")

    assert len(found.removals) == 2
    assert not any(one.dropped for one in found.removals)


def test_a_checkpoint_that_is_not_there_is_told(kept: World):
    with pytest.raises(NotFound):
        asked(kept, "main@step:7")
