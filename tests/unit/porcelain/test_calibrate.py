"""`policy show` says what the configuration means, `policy calibrate` what past training tells of the best interval."""

from __future__ import annotations

import dataclasses
import itertools
import shlex
import statistics

import pytest
import yaml

from ckptvcs import Repo
from ckptvcs.cli import render
from ckptvcs.domain import schema
from ckptvcs.domain.policy import Config, Interval, Save
from ckptvcs.errors import NotFound
from ckptvcs.porcelain import ledger
from ckptvcs.porcelain.calibrate import calibrate
from ckptvcs.porcelain.commit import Receipt
from ckptvcs.porcelain.repo import Repository
from tests.support.world import World


def record(
    repository: Repository, *, run: str = "a", starts: int = 1, cost_s: float = 2.0, how: str | None = "closed"
) -> None:
    """Write down a run that was started so often, with two saves each time."""
    for n in range(starts):
        ledger.append(repository, "run.start", run=run, run_id=f"id-{run}", branch=run, step=n)
        for blocked_s in (cost_s, cost_s):
            ledger.append(
                repository,
                "save",
                run_id=f"id-{run}",
                checkpoint="0" * 64,
                step=n,
                seconds=3 * cost_s,
                blocked_s=blocked_s,
                bytes=1,
            )
    if how:
        ledger.append(repository, "run.end", run_id=f"id-{run}", step=starts, seconds=7200.0, how=how)


def test_the_ledger_tells_costs_and_failures(repository: Repository):
    record(repository, starts=4)

    found = calibrate(repository)

    numbers = found.proposal
    assert found.source == "ledger"
    assert (numbers.saves, numbers.runs, numbers.starts, numbers.failures) == (8, 1, 4, 3)
    assert (numbers.cost_median_s, numbers.duration_median_s) == (2.0, 6.0)
    assert numbers.uptime_s == pytest.approx(7200, abs=60)
    assert numbers.interval_s == max(numbers.daly_s, numbers.budget_s, 6.0)


def test_what_is_proposed_can_be_written_into_the_configuration(repository: Repository, world: World):
    record(repository, starts=4)

    found = calibrate(repository)

    config = schema.parse(yaml.safe_load(found.yaml))
    assert config.save == Save(interval=found.interval)
    assert config.save.interval.mtbf_s == round(found.proposal.mtbf_s)


def test_with_few_failures_the_time_between_them_is_left_to_be_observed(repository: Repository):
    record(repository, starts=2)

    assert calibrate(repository).yaml == "save:\n  interval: auto\n"


def test_the_overhead_of_the_configuration_is_kept(repository: Repository, world: World):
    (world.root / "ckpt.yaml").write_text("save: {interval: {overhead: 0.01}}\n")
    record(repository)

    found = calibrate(repository)

    assert found.proposal.budget_s == 200.0
    assert schema.parse(yaml.safe_load(found.yaml)).save.interval == Interval(overhead=0.01)


def test_one_run_is_looked_at_alone(repository: Repository):
    record(repository, run="a", cost_s=2.0)
    record(repository, run="b", cost_s=8.0)

    assert calibrate(repository, run="b").proposal.cost_median_s == 8.0
    assert calibrate(repository).proposal.saves == 4


def test_notes_alone_are_no_training(repository: Repository, repo: Repo, history: list[Receipt]):
    repo.note("HEAD", {"loss": 0.1})

    assert calibrate(repository).source == "checkpoints"


def test_without_a_ledger_checkpoints_tell_the_times_between_them(
    repository: Repository, repo: Repo, history: list[Receipt]
):
    found = calibrate(repository)

    times = sorted(checkpoint.time.timestamp() for checkpoint in repo.log())
    assert found.source == "checkpoints"
    assert found.proposal.now_s == statistics.median(b - a for a, b in itertools.pairwise(times))
    assert (found.proposal.saves, found.proposal.interval_s) == (0, None)
    assert found.yaml == "save:\n  interval: auto\n"


@pytest.mark.parametrize("run", [None, "none\n"])
def test_where_nothing_is_known_it_says_so(repository: Repository, run: str | None):
    with pytest.raises(NotFound, match="nothing is known") as caught:
        calibrate(repository, run=run)

    assert "interval: auto" in caught.value.next_step


def test_looking_changes_nothing(repository: Repository, world: World, everything):
    record(repository, starts=3)
    before = everything(world)

    calibrate(repository)

    assert everything(world) == before


# ------------------------------------------------------------------------------------------------------------- the verbs


def test_the_verb_says_the_numbers_and_what_to_write(repository: Repository, world: World):
    record(repository, starts=4)

    said = world.ckpt("policy", "calibrate").out

    numbers, proposed = said.split("\n\n")
    titles = [line.split(":")[0] for line in numbers.splitlines()]
    assert titles == ["recorded", "failures", "cost", "durable", "Young", "Daly", "budget", "until now", "proposed"]
    assert "8 saves of 1 run with 4 starts, up for 2 h" in numbers
    assert "cost:       2 s of training (nine of ten: 2 s)" in numbers
    assert schema.parse(yaml.safe_load(proposed)).save.interval == calibrate(repository).interval


def test_the_verb_answers_in_json(repository: Repository, world: World):
    record(repository, starts=4, run="my run")

    said = world.ckpt("policy", "calibrate", "--run", "my run", "--json").json

    assert said["failures"] == 3
    assert said["save"]["interval"] == dataclasses.asdict(calibrate(repository).interval)


def test_the_verb_says_where_it_had_to_guess(world: World, history: list[Receipt]):
    done = world.ckpt("policy", "calibrate")

    assert "pauses between checkpoints are taken for failures" in done.err
    assert done.out.endswith("\n\nsave:\n  interval: auto\n")


def test_nothing_known_is_an_error_with_a_status(world: World):
    assert "nothing is known of run 'x'" in world.ckpt(*shlex.split("policy calibrate --run x"), status=12).err


@pytest.mark.parametrize(
    "text",
    [
        "",
        "save: {}\n",
        "save: {every_n_steps: 5, interval: auto, on_preemption: true, on_event: [drift]}\n",
        "best: {monitor: loss, mode: min}\nsave: {on_improvement: {monitor: loss}, grade: exact}\n",
    ],
)
def test_show_writes_a_configuration_that_means_the_same(world: World, text: str):
    (world.root / "ckpt.yaml").write_text(text)
    meant = schema.parse(yaml.safe_load(text) or {})

    shown = yaml.safe_load(world.ckpt("policy", "show").out)

    assert schema.parse(shown) == meant
    assert set(shown) == {field.name for field in dataclasses.fields(Config)}
    assert schema.parse(world.ckpt("policy", "show", "--json").json) == meant


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0363, "0.036 s"),
        (2.4, "2.4 s"),
        (9.99, "10 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7100, "118 min"),
        (9000, "2.5 h"),
        (1e6, "12 days"),
    ],
)
def test_durations_are_said_for_people(seconds: float, text: str):
    assert render.duration(seconds) == text


def test_show_names_a_mistake(world: World):
    (world.root / "ckpt.yaml").write_text("save:\n  interval: soon\n")

    assert "line 2" in world.ckpt("policy", "show", status=2).err
