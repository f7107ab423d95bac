"""What the policy would do: which checkpoints, why, and what that frees, to the byte; and that it is carried out as planned."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptvcs import Repo
from ckptvcs.errors import Conflict, FormatError, NeedsPerson, NotFound, UsageError
from ckptvcs.porcelain import gc, places, plans, retention, view
from ckptvcs.porcelain.repo import Repository
from tests.support.world import World


@dataclass
class Training:
    """A repository whose policy, checkpoints and clock are at hand."""

    world: World
    now: datetime = field(default_factory=lambda: datetime.now(timezone.utc))

    def policy(self, text: str) -> None:
        path = self.world.root / "ckpt.yaml"
        path.write_text(f"version: 1\nretain:\n{text}")
        self.world.git("commit", "-qam", "policy")

    def save(self, *steps: int, run: str = "exp", parts: int = 1) -> None:
        with self.world.repo() as repo:
            for step in steps:
                torch.manual_seed(step)
                model = {"frozen": torch.ones(50, 50), **{f"w{n}": torch.randn(40, 40) for n in range(parts)}}
                state = {"model": model, "optimizer": {"m": torch.randn(30, 40)}}
                repo.commit(state, step=step, metrics={"val_loss": float(abs(step - 3))}, branch=run, run=run)

    def open(self) -> Repository:
        return Repository.open(self.world.root)

    def plan(self) -> retention.RetentionPlan:
        repo = self.open()
        return retention.plan(repo, places.opened(repo))

    def dropped(self) -> dict[int | None, tuple[str, ...]]:
        return {one.slim.step: one.dropped for one in self.plan().judged if one.dropped}

    def collect(self, **options: object) -> gc.Report:
        repo = self.open()
        wanted = {"grace_s": 0.0, **options}
        dropped = len(gc.collect(repo, gc.Options(**wanted), dry_run=True).dropped)  # type: ignore[arg-type]
        return gc.collect(repo, gc.Options(**{"yes_delete": dropped, **wanted}))  # type: ignore[arg-type]

    def nbytes(self) -> int:
        return sum(path.stat().st_size for path in self.world.objects().values())


@pytest.fixture
def training(world: World) -> Training:
    world.git("add", "-A")
    world.git("commit", "-qm", "begin", "--allow-empty")
    return Training(world)


LAST_TWO = "  keep:\n    - keep_last: 2\n  grace: 1h\n"
WEIGHTS = "  keep:\n    - keep_last: 1\n    - keep_every_n_steps: 2\n      components: [model]\n  grace: 1h\n"


def test_without_a_policy_nothing_is_dropped(training: Training):
    training.save(1, 2, 3)

    assert training.dropped() == {}
    with pytest.raises(UsageError, match="no policy"):
        gc.collect(training.open(), gc.Options())


def test_rules_and_the_floor_keep_and_the_rest_is_dropped(training: Training):
    training.save(*range(1, 9))
    training.policy(LAST_TWO)

    found = training.plan()

    assert {one.slim.step for one in found.judged if one.is_kept} == {7, 8, 3}  # 3 is the best
    kinds = {one.slim.step: {reason.kind for reason in one.decision.reasons} for one in found.judged}
    assert kinds[3] == {"best"}
    assert kinds[7] == {"keep_last"}
    assert kinds[8] == {"keep_last", "newest"}


def test_components_are_dropped_and_the_weights_stay(training: Training):
    training.save(*range(1, 7))
    training.policy(WEIGHTS)

    assert training.dropped() == {
        1: ("model", "optimizer"),
        2: ("optimizer",),
        4: ("optimizer",),
        5: ("model", "optimizer"),
    }


def test_what_is_tagged_held_forked_or_in_a_stash_is_kept(training: Training):
    training.save(*range(1, 9))
    world = training.world
    world.ckpt("tag", "milestone/one", "exp@step:1", "-m", "first")
    world.git("tag", "plain", "exp~6")
    world.ckpt("hold", "exp@step:4", "--why", "a paper")
    world.git("branch", "fork", "exp~3")
    training.save(55, run="fork")
    training.policy(LAST_TWO)

    kept = {one.slim.step: {r.kind for r in one.decision.reasons} for one in training.plan().judged if one.is_kept}

    assert {step: kept[step] & {"milestone", "tag", "hold", "fork"} for step in (1, 2, 4, 5)} == {
        1: {"milestone"},
        2: {"tag"},
        4: {"hold"},
        5: {"fork"},
    }
    assert 6 not in kept


def test_what_was_merged_and_whose_branch_is_gone_is_still_a_line(training: Training):
    training.save(1, 2, run="side")
    training.save(3, run="other")
    world = training.world
    world.git("checkout", "-q", "other")
    world.git("merge", "-q", "-s", "ours", "side", "-m", "take it in")
    world.git("branch", "-qD", "side")
    training.policy("  keep:\n    - keep_last: 1\n")

    assert training.dropped() == {1: ("model", "optimizer")}


def test_of_the_usual_metrics_one_is_enough_and_what_a_rule_compares_is_awaited(training: Training):
    training.save(1, 2, 3)
    with training.world.repo() as repo:
        for step, metrics in ((4, {"loss": 1.0}), (5, {"val_loss": 9.0}), (6, {"other": 1.0}), (7, {"val_loss": 8.0})):
            repo.commit({"model": {"w": torch.ones(step)}}, step=step, metrics=metrics, branch="exp", run="exp")
    training.policy("  keep:\n    - keep_last: 1\n  eval_deadline: 2d\n")
    awaited = {
        one.slim.step: [r.text for r in one.decision.reasons if r.kind == "evaluation"]
        for one in training.plan().judged
    }
    assert {step for step, texts in awaited.items() if texts} == {6}

    training.policy("  keep:\n    - keep_best: {monitor: val_loss, n: 1}\n  eval_deadline: 2d\n")
    awaited = {
        one.slim.step: [r.text for r in one.decision.reasons if r.kind == "evaluation"]
        for one in training.plan().judged
    }
    assert {step for step, texts in awaited.items() if texts} == {4, 6}


def test_a_limit_of_rules_is_about_what_they_keep_and_not_about_the_floor(training: Training):
    training.save(*range(1, 9))
    part = sum(nbytes for nbytes in _model_bytes(training, 8).values())
    shared_bytes = sum(n for name, n in _model_bytes(training, 8).items() if name in _model_bytes(training, 7))
    room = shared_bytes + 6 * (part - shared_bytes)
    rule = "    - {keep_every_n_steps: 1, components: [model], max_bytes: %dB}\n"
    training.policy("  keep:\n    - keep_last: 1\n" + rule % room)

    kept = {one.slim.step: one.dropped for one in training.plan().judged if one.is_kept}

    assert {step for step, dropped in kept.items() if "model" not in dropped} == {4, 5, 6, 7, 8} | {3}  # 3 is the best


def _model_bytes(training: Training, step: int) -> dict[str, int]:
    manifest = json.loads(training.world.git("show", f"exp~{8 - step}:checkpoints/model.json"))
    (model,) = [component for component in manifest["components"] if component["name"] == "model"]
    directory = yaml.safe_load(training.world.git("show", f"exp~{8 - step}:checkpoints/model.dvc"))["outs"][0]["md5"]
    found = {file["md5"]: file["size"] for file in (*model["files"], *manifest["files"])}
    return {**found, directory: training.world.objects()[directory].stat().st_size}


def test_an_evaluation_that_may_come_protects(training: Training):
    training.save(1, 2, 3)
    with training.world.repo() as repo:
        for step in (4, 5, 6):
            repo.commit({"model": {"w": torch.ones(3) * step}}, step=step, branch="exp", run="exp")
    rule = "  keep:\n    - keep_best: {monitor: val_loss}\n"
    training.policy(rule)
    assert set(training.dropped()) == {1, 2, 4, 5}

    training.policy(f"{rule}  eval_deadline: 1h\n")

    assert set(training.dropped()) == {1, 2}


def test_a_limit_of_bytes_takes_the_oldest(training: Training):
    training.save(*range(1, 11))
    training.policy("  keep:\n    - keep_last: 8\n")
    whole = training.nbytes()
    training.policy(f"  keep:\n    - keep_last: 8\n  max_bytes: {{hot: {whole // 2}B}}\n")

    found = training.plan()

    kept = sorted(one.slim.step or 0 for one in found.judged if one.is_kept)
    assert kept[0] == 3
    assert kept[1:] == list(range(kept[1], 11))
    over = next(one for one in found.judged if one.slim.step == kept[1] - 1)
    assert [one.by for one in over.decision.overruled] == ["retain.max_bytes.hot"]
    training.collect()
    training.collect()
    assert training.nbytes() <= whole // 2


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    last=st.integers(1, 3),
    every=st.none() | st.integers(2, 4),
    weights=st.booleans(),
    steps=st.lists(st.integers(1, 9), min_size=2, max_size=7, unique=True),
    seed=st.integers(0, 1 << 30),
)
def test_what_is_planned_is_what_is_freed_and_nothing_kept_is_touched(
    tmp_path_factory: pytest.TempPathFactory, last: int, every: int | None, weights: bool, steps: list[int], seed: int
):
    world = World.create(tmp_path_factory.mktemp("plan") / "r")
    world.git("add", "-A")
    world.git("commit", "-qm", "begin", "--allow-empty")
    training = Training(world)
    training.save(*sorted(steps), parts=1 + seed % 3)
    rule = f"    - keep_every_n_steps: {every}\n" if every else ""
    only = "      components: [model]\n" if every and weights else ""
    training.policy(f"  keep:\n    - keep_last: {last}\n{rule}{only}  grace: 1h\n")
    before, planned = training.nbytes(), training.plan()
    needed = {
        stored
        for one in planned.judged
        for name in one.slim.parts
        if name not in one.dropped
        for stored, _ in one.slim.parts[name].objects()
    }

    first = training.collect()
    assert training.nbytes() == before, "the first run removes nothing"
    training.collect()

    (freed,) = planned.freed
    assert before - training.nbytes() == freed.nbytes
    assert dict(first.dropped) == {one.slim.id: one.dropped for one in planned.judged if one.dropped}
    assert {name.hex() for name in needed} <= set(world.objects())


# --------------------------------------------------------------------------------------------------------- saved plans


def test_a_saved_plan_is_carried_out_as_it_is(training: Training, tmp_path: Path):
    training.save(*range(1, 7))
    training.policy(LAST_TWO)
    plan, file = training.plan(), tmp_path / "plan.json"
    plans.save(plan, file)

    report = plans.carry_out(training.open(), plans.read(file))

    assert dict(report.dropped) == plan.verdict.dropped()
    assert {one.place: one.nbytes for one in report.condemned} == {one.place: one.nbytes for one in plan.freed}


@pytest.mark.parametrize("what", ["refs", "policy", "ledger"])
def test_a_plan_that_is_stale_is_not_carried_out(training: Training, tmp_path: Path, what: str):
    training.save(*range(1, 7))
    training.policy(LAST_TWO)
    file = tmp_path / "plan.json"
    plans.save(training.plan(), file)
    if what == "refs":
        training.world.git("tag", "late", "exp~3")
    elif what == "policy":
        (training.world.root / "ckpt.yaml").write_text(f"version: 1\nretain:\n{LAST_TWO.replace('2', '3')}")
    else:
        training.world.ckpt("hold", "exp@step:1", "--why", "late")

    with pytest.raises(Conflict, match="not carried out") as caught:
        plans.carry_out(training.open(), plans.read(file))

    assert what in caught.value.why
    assert not (training.world.root / ".dvc/cache/.ckptvcs/gc/marks").exists()


@pytest.mark.parametrize("text", ["", "{}", '{"format": "ckptvcs-plan/1"}', "[" * 5000, '{"format":"ckptvcs-plan/9"}'])
def test_what_is_no_plan_is_refused(tmp_path: Path, text: str):
    path = tmp_path / "plan.json"
    path.write_text(text)

    with pytest.raises(FormatError):
        plans.read(path)
    with pytest.raises(NotFound):
        plans.read(tmp_path / "none.json")


# -------------------------------------------------------------------------------------------------------- what is lost


def test_what_a_deleted_branch_held_goes_when_it_is_lost_for_a_day(training: Training):
    training.save(1, 2, 3, run="gone")
    training.save(4, run="stays")
    training.policy(LAST_TWO)
    training.world.git("branch", "-qD", "gone")
    training.world.git("reflog", "expire", "--expire=now", "--all")
    assert training.collect().is_empty  # it may be one that is being fetched right now
    lost = training.world.root / ".git/ckptvcs/lost.json"
    lost.write_text(json.dumps({commit: since - 90_000 for commit, since in json.loads(lost.read_text()).items()}))

    promised = training.plan().freed[0].nbytes
    before = training.nbytes()
    training.collect()
    training.collect()

    assert before - training.nbytes() == promised > 0
    assert training.world.ckpt("checkout", "stays").status == 0


def test_what_a_reflog_leads_to_is_kept(training: Training):
    training.save(1, 2, 3)
    training.world.git("checkout", "-q", "exp")
    training.world.git("reset", "-q", "--hard", "exp~2")
    training.policy("  keep:\n    - keep_last: 1\n")

    kinds = {one.slim.step: {reason.kind for reason in one.decision.reasons} for one in training.plan().judged}

    assert kinds[2] == kinds[3] == {"reflog"}


# --------------------------------------------------------------------------------------------------------- the clock


def test_a_person_is_asked_where_much_would_go(training: Training):
    training.save(*range(1, 12))
    training.policy(LAST_TWO)
    repo = training.open()

    with pytest.raises(NeedsPerson) as caught:
        gc.collect(repo, gc.Options())

    assert [stop["kind"] for stop in caught.value.facts["stops"]] == ["much"]
    assert not (repo.dvc_config.cache_dir / ".ckptvcs/gc/marks").exists()
    assert view.look(repo).account.dropped == {}


def test_the_age_of_marks_is_that_of_the_store(training: Training):
    training.save(*range(1, 7))
    training.policy(LAST_TWO)
    training.collect(grace_s=None)
    before = training.nbytes()
    assert training.collect(grace_s=None).swept[0].objects == 0

    past = (datetime.now(timezone.utc) - timedelta(hours=2)).timestamp()
    for path in (training.world.root / ".dvc/cache").rglob("*"):
        os.utime(path, (past, past))
    training.collect(grace_s=None)

    assert training.nbytes() < before


def test_what_was_written_anew_after_it_was_condemned_stays(training: Training):
    training.save(*range(1, 7))
    training.policy(LAST_TWO)
    report = training.collect()
    path = training.world.root / ".dvc/cache/.ckptvcs/gc/marks" / f"{report.run}.json"
    names = sorted(set(training.world.objects()) & set(path.read_text().split('"')))
    again = training.world.objects()[names[0]]
    later = path.stat().st_mtime + 60
    os.utime(again, (later, later))

    training.collect()

    assert again.exists()
    assert not training.world.cache.joinpath(names[1][:2], names[1][2:]).exists()


def test_the_same_history_in_any_clone_is_judged_the_same(training: Training, tmp_path: Path):
    training.save(*range(1, 9))
    training.policy(LAST_TWO)
    clone = training.world.clone(tmp_path / "clone")
    with Repo(clone.root) as repo:
        there = retention.plan(repo._repo, places.opened(repo._repo))

    def reasons(plan: retention.RetentionPlan) -> dict[str, set[str]]:
        return {one.slim.id: {r.kind for r in one.decision.reasons} - {"checked out"} for one in plan.judged}

    assert reasons(there) == reasons(training.plan())
