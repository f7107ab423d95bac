"""A hold stands until it runs out or is released, wherever it was made; none is lost by two who hold and release at once."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from ckptvcs import Repo
from ckptvcs.errors import NotFound, UsageError
from ckptvcs.porcelain import account, hold, ledger, log, show
from ckptvcs.porcelain.commit import Receipt
from ckptvcs.porcelain.repo import Repository
from tests.support import oracle
from tests.support.world import World
from tests.unit.porcelain.test_ledger import exchanged

NOW = datetime(2026, 11, 21, 10, 0, tzinfo=timezone.utc)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    """The time, to be set."""
    times = [NOW]
    monkeypatch.setattr(Repository, "now", staticmethod(lambda: times[0]))
    return times


def held(repository: Repository, revision: str = "main", **options: str) -> str:
    options = {"why": "a paper", **options}
    event = hold.hold(repository, hold.plan_hold(repository, revision, **options))
    return f"{event.writer}#{event.n}"


def standing(repository: Repository) -> list[str]:
    return [one.id for one in hold.standing(repository)[0]]


def test_a_hold_stands_until_it_runs_out(repository: Repository, history: list[Receipt], clock: list[datetime]):
    one = held(repository, until="7d")
    other = held(repository, "main@step:1")

    assert standing(repository) == [one, other]
    assert account.read(repository).holds[history[2].id][0].until == "2026-11-28T10:00:00.000000+00:00"
    clock[0] = NOW + timedelta(days=7, seconds=-1)
    assert standing(repository) == [one, other]
    clock[0] = NOW + timedelta(days=7)
    assert standing(repository) == [other]


def test_show_and_log_tell_of_it(repository: Repository, history: list[Receipt], clock: list[datetime]):
    held(repository, "main@step:1", until="2026-12-31", why="case 4711")

    (found,) = show.show(repository, "main@step:1").holds
    assert (found.why, found.until, found.checkpoint) == (
        "case 4711",
        "2026-12-31T00:00:00.000000+00:00",
        history[0].id,
    )
    assert show.show(repository, "main").holds == ()
    tip = repository.history.tip("refs/heads/main")
    assert tip is not None
    assert [entry.held for entry in log.log(repository, [tip]).entries] == [False, False, True]


def test_a_release_ends_the_holds_that_it_saw(repository: Repository, history: list[Receipt]):
    ids = [held(repository), held(repository)]
    other = held(repository, "main@step:1")

    plan = hold.plan_release(repository, "main")
    hold.release(repository, plan)

    assert [one.id for one in plan.holds] == ids
    assert standing(repository) == [other]
    with pytest.raises(NotFound, match="nobody holds"):
        hold.plan_release(repository, "main")


def test_a_hold_that_was_made_elsewhere_meanwhile_survives_a_release(world: World, history, tmp_path: Path):
    copy = World(Path(shutil.copytree(world.root, tmp_path / "copy", symlinks=True)))
    here, there = Repository.open(world.root), Repository.open(copy.root)
    first = held(here)
    exchanged(copy, world)
    hold.release(here, hold.plan_release(here, "main"))
    second = held(there)
    exchanged(copy, world)
    exchanged(world, copy)

    assert standing(here) == standing(there) == [second]
    assert first != second
    hold.release(there, hold.plan_release(there, "main"))
    exchanged(world, copy)
    assert standing(here) == []


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"why": ""}, "without saying why"),
        ({"why": " "}, "without saying why"),
        ({"why": "x" * 4097}, "without saying why"),
        ({"why": "x", "until": "2020-01-01"}, "is past|cannot hold until"),
        ({"why": "x", "until": "soon"}, "cannot tell when 'soon' is"),
        ({"why": "x", "until": "0d"}, "cannot hold until"),
    ],
)
def test_what_makes_no_sense_is_refused(repository: Repository, history, options: dict[str, str], match: str):
    with pytest.raises(UsageError, match=match):
        hold.plan_hold(repository, "main", **options)
    assert oracle.ledger(repository.root) == {}


def test_what_is_no_hold_that_we_know_counts_for_nothing(repository: Repository, history: list[Receipt]):
    known = {"checkpoint": history[0].id, "commit": "c" * 40, "why": "x"}
    for facts in ({}, {**known, "checkpoint": "x"}, {**known, "until": "soon"}, {**known, "why": 1}):
        ledger.append(repository, "hold", **facts)
    one = held(repository)
    for facts in ({}, {"holds": one}, {"holds": [1]}, {"holds": ["somebody#1"]}):
        ledger.append(repository, "release", **facts)

    assert standing(repository) == [one]


def test_holds_are_remembered_as_notes_are(repository: Repository, history: list[Receipt]):
    ids = [held(repository) for _ in range(70)]
    assert sorted(standing(repository)) == sorted(ids)
    assert (repository.private / "ledger.json").is_file()

    late = held(repository)

    assert sorted(standing(repository)) == sorted([*ids, late])


def test_the_command_line_holds_lists_and_releases(world: World, history: list[Receipt]):
    planned = world.ckpt("hold", "main", "--until", "30d", "--why", "paper", "-n").out
    assert planned.startswith(f"would hold checkpoint {history[2].id[:10]} step 3 until ")
    assert world.ckpt("hold").out == ""

    done = world.ckpt("hold", "main", "--until", "30d", "--why", "paper", "--json").json
    (listed,) = world.ckpt("hold", "--json").json
    assert (listed["hold"], listed["checkpoint"], listed["why"]) == (done["hold"], history[2].id, "paper")
    assert "  held  " in world.ckpt("log").out.splitlines()[0]
    assert "paper" in world.ckpt("show").out
    world.ckpt("release", "main", "--why", "it is out")
    assert world.ckpt("hold", "--json").json == []
    assert world.ckpt("release", "main", status=12).err.startswith("error: nobody holds")


def test_a_repository_that_is_open_in_python_sees_the_same(repo: Repo, repository: Repository, history: list[Receipt]):
    name = repo.hold("main", why="a paper", until="7d")

    assert [one.id for one in account.read(repository).holds[repo.show("main").id]] == [name]
    repo.release("main")
    assert account.read(repository).holds == {}
