"""`policy check`: ckpt.yaml can be used or not, means something else or not, and for which checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ckptvcs import Repo
from ckptvcs.errors import BadConfig, NotFound
from ckptvcs.porcelain import policy_check, retention
from ckptvcs.porcelain.policy_check import Checked
from ckptvcs.porcelain.repo import Repository
from tests.support.world import World


def write(world: World, retain: dict | None, *, commit: bool = False, **more) -> None:
    document = {"version": 1, **({"retain": retain} if retain is not None else {}), **more}
    (world.root / "ckpt.yaml").write_text(yaml.safe_dump(document))
    if commit:
        world.git("add", "ckpt.yaml")
        world.git("commit", "-qm", "policy")


def checked(world: World, against: str = "HEAD") -> Checked:
    return policy_check.check(Repository.open(world.root), against)


def steps(effects) -> list[int | None]:
    return [one.slim.step for one in effects]


@pytest.fixture
def line(world: World, repo: Repo, state) -> list[str]:
    """Ten checkpoints on a branch; of each, the model is another one."""
    return [repo.commit(state(n), metrics={"loss": 1 / n}, step=n, branch="exp").id for n in range(1, 11)]


def test_a_file_that_means_the_same_changes_nothing(world: World, line):
    write(world, {"keep": [{"keep_last": 3, "keep_within": "7d"}]}, commit=True)
    write(world, {"grace": "168h", "keep": [{"keep_within": "1w"}, {"keep_last": 3, "branches": ["*"]}]})

    found = checked(world)

    assert (found.changes, found.dropped, found.kept, found.odd) == ((), (), (), ())


def test_what_would_be_dropped_is_told_with_why_it_was_kept(world: World, line):
    write(world, {"keep": [{"keep_last": 5}]}, commit=True)
    write(world, {"keep": [{"keep_last": 2}]})

    found = checked(world)

    assert [(one.how, one.what, one.before) for one in found.changes] == [
        ("changed", "on every branch: the newest 2", "the newest 5")
    ]
    assert steps(found.dropped) == [8, 7, 6]
    assert found.dropped[0].because == ("one of the newest 5 of branch 'exp', track 'model'",)
    assert found.dropped[0].branches == ("exp",)
    assert found.kept == ()


def test_what_would_be_kept_again_is_told_too(world: World, line):
    write(world, {"keep": [{"keep_last": 2}]}, commit=True)
    write(world, {"keep": [{"keep_last": 2}, {"keep_every_n_steps": 4}]})

    found = checked(world)

    assert (steps(found.dropped), found.dropped_bytes) == ([], 0)
    assert steps(found.kept) == [8, 4]
    assert found.kept_bytes > 0


def test_bytes_are_those_of_objects_that_nothing_else_needs(world: World, line):
    write(world, {"keep": [{"keep_last": 10}]}, commit=True)
    write(world, {"keep": [{"keep_last": 1}]})

    found = checked(world)

    def objects(repo: Repository) -> set[str]:
        verdict = retention.judge(repo, [], now=repo.now())
        kept = [verdict.looked.view.sized()(i, components) for i, components in verdict.kept.items()]
        return {name.hex() for one in kept for name, _ in one}

    needed = objects(Repository.open(world.root))
    world.git("checkout", "-q", "ckpt.yaml")
    lost = objects(Repository.open(world.root)) - needed
    sizes = {name[:32]: path.stat().st_size for name, path in world.objects().items()}
    assert found.dropped_bytes == sum(sizes[name] for name in lost)


def test_components_can_be_dropped_alone(world: World, line):
    write(world, {"keep": [{"keep_last": 3}]}, commit=True)
    write(world, {"keep": [{"keep_last": 3, "components": ["model"]}, {"keep_last": 1}]})

    found = checked(world)

    assert steps(found.dropped) == [9, 8]
    assert "model" not in found.dropped[0].components
    assert "optimizer" in found.dropped[0].components


def test_from_no_policy_at_all_everything_was_kept(world: World, line):
    write(world, {"keep": [{"keep_last": 2}]})

    found = checked(world)

    assert steps(found.dropped) == [8, 7, 6, 5, 4, 3, 2, 1]  # the best is the newest
    assert found.changes[0].before == "nothing is said: everything is kept"
    assert found.dropped[0].because == ("ckpt.yaml has no section 'retain'",)


def test_what_counts_for_the_best_is_part_of_what_is_kept(world: World, line):
    rules = {"keep": [{"keep_last": 1}]}
    write(world, rules, commit=True, best={"monitor": "loss", "mode": "max"})
    write(world, rules, best={"monitor": "loss", "mode": "min"})

    found = checked(world)

    assert [(one.section, one.how) for one in found.changes] == [("best", "changed")]
    assert steps(found.dropped) == [1]


def test_saves_are_compared_with_what_holds_where_nothing_is_said(world: World, history):
    write(world, None, commit=True)
    write(world, None, save={"interval": "auto", "on_preemption": True, "on_exit": True})
    assert checked(world).changes == ()

    write(world, None, save={"every_n_steps": 10})
    assert {one.how for one in checked(world).changes} == {"added", "removed"}


def test_any_commit_can_be_compared_with(world: World, line):
    write(world, {"keep": [{"keep_last": 5}]}, commit=True)
    world.git("tag", "five")
    write(world, {"keep": [{"keep_last": 2}]}, commit=True)

    assert checked(world).dropped == ()
    assert steps(checked(world, "five").dropped) == [8, 7, 6]
    with pytest.raises(NotFound, match="no revision 'nothing'"):
        checked(world, "nothing")


def test_a_file_that_could_not_be_used_before_is_no_reason_to_fail(world: World, line):
    (world.root / "ckpt.yaml").write_text("version: 1\nretain: {kep: []}\n")
    world.git("commit", "-qam", "broken")
    write(world, {"keep": [{"keep_last": 2}]})

    found = checked(world)

    assert found.against is None
    assert (found.changes, found.dropped) == ((), ())
    assert "ckpt.yaml', line 2" in found.notes[0]


def test_a_mistake_is_told_with_its_line(world: World):
    (world.root / "ckpt.yaml").write_text(
        "version: 1\nretain:\n  keep: [{keep_last: 3}]\nalerts:\n  save_within: soon\n"
    )

    with pytest.raises(BadConfig) as caught:
        checked(world)

    assert "line 5" in caught.value.what
    assert "alerts.save_within" in caught.value.why


def test_a_repository_without_a_commit_can_be_checked(tmp_path: Path):
    world = World(tmp_path / "new")
    world.root.mkdir()
    world.git("init", "-q")
    (world.root / ".dvc").mkdir()
    (world.root / ".dvc/config").write_text("")
    write(world, {"keep": [{"keep_last": 2}]})

    found = checked(world)

    assert (found.against, found.dropped, found.odd) == (None, (), ())


@pytest.mark.parametrize(
    ("rule", "more", "told"),
    [
        (
            {"keep_last": 1, "branches": ["exp", "experiment/*"]},
            {},
            "keep.0.branches: no branch that has checkpoints fits 'exper",
        ),
        ({"keep_last": 1, "tracks": ["teacher"]}, {}, "retain.keep.0.tracks: no track fits 'teacher'"),
        (
            {"keep_best": {"monitor": "acc"}},
            {},
            "retain.keep.0.keep_best: no checkpoint that it is about has the metric 'acc'",
        ),
        ({"keep_last": 1, "components": ["ema"]}, {}, "retain.keep.0.components: no checkpoint"),
        ({"keep_within": "30d", "ttl": "7d"}, {}, "retain.keep.0.ttl: 7d is shorter than keep_within, 30d"),
        ({"keep_last": 3, "max_bytes": "1B"}, {}, "retain.keep.0.max_bytes: 1 bytes have no room"),
        ({"keep_last": 3}, {"max_bytes": {"hot": "1kB"}}, "retain.max_bytes.hot: 1000 bytes have no room"),
        ({"keep_last": 3, "ttl": "30d", "keep_within": "7d", "max_bytes": "1GB", "branches": ["e*"]}, {}, None),
    ],
)
def test_what_is_odd_is_told(world: World, line, rule: dict, more: dict, told: str | None):
    write(world, {"keep": [rule], **more})

    odd = checked(world).odd

    assert (len(odd), told is None or told in odd[0]) == (0 if told is None else 1, True), odd


def test_a_short_grace_and_alerts_are_odd_depending_on_remotes(world: World, line):
    alerts = {"push_within": "1h", "quota": {"places": {"hot": "1TB", "store": "1TB"}}}
    write(world, {"keep": [{"keep_last": 1}], "grace": "12h"}, alerts=alerts)
    assert [text.partition(":")[0] for text in checked(world).odd] == ["alerts.quota.places", "alerts.push_within"]

    world.ckpt("remote", "add", "store", "../store")
    assert [text.partition(":")[0] for text in checked(world).odd] == ["retain.grace"]


def test_the_command_says_it_in_words_and_by_its_status(world: World, line, everything):
    write(world, {"keep": [{"keep_last": 9}]}, commit=True)
    assert world.ckpt("policy", "check", "--exit-code").out.startswith("ckpt.yaml: OK\nsince HEAD (")
    write(world, {"keep": [{"keep_last": 2}]})
    before = everything(world)

    said = world.ckpt("policy", "check")

    assert "  retain: changed: on every branch: the newest 2 (was: the newest 9)\n" in said.out
    assert "drops 7 checkpoints that were kept, " in said.out
    assert "  and 2 more\nkeeps nothing that was dropped\n" in said.out
    assert world.ckpt("policy", "check", "--exit-code", status=1).out == said.out
    answer = world.ckpt("policy", "check", "--json").json
    assert [one["step"] for one in answer["dropped"]] == [8, 7, 6, 5, 4, 3, 2]
    assert everything(world) == before
    (world.root / "ckpt.yaml").write_text("retain: 5\n")
    assert "line 1" in world.ckpt("policy", "check", status=2).err
