"""What training goes on from is known to everybody before it saves anything, and is kept while it may be under way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ckptvcs import Repo
from ckptvcs.domain import calibration
from ckptvcs.domain.events import Event
from ckptvcs.porcelain import account, alerts, gc, ledger, places, retention, why
from ckptvcs.porcelain.repo import Repository
from tests.support.world import World


@pytest.fixture
def kept(world: World, keeper, begin) -> World:
    """A run `x` of steps 0 to 4, of which a policy keeps the newest alone, and which has ended."""
    with (world.root / "ckpt.yaml").open("a") as file:
        file.write("retain:\n  keep: [{keep_last: 1}]\nalerts: {save_within: 1h}\n")
    world.git("commit", "-qam", "a policy")
    training = begin()
    with keeper(training.parts, run="x") as keep:
        for step in range(5):
            training.step()
            keep.save(step)
    return world


def kinds(world: World, revision: str) -> set[str]:
    """Why a checkpoint is kept, as another process sees it."""
    return {reason.kind for reason in why.why(Repository.open(world.root), revision).decision.reasons}


def told(world: World, run: str, op: str = "run.start") -> list[Event]:
    return [e for e in ledger.events(Repository.open(world.root), ops=(op,)) if e.facts["run"] == run]


def origins(world: World, run: str) -> list[list[Any]]:
    """The steps that each start of a run says that it went on from."""
    with Repo(world.root) as repo:
        steps = {c.id: c.manifest.step for branch in repo._repo.history.branches() for c in repo.log(branch)}
    return [[steps[parent] for parent in event.facts["parents"]] for event in told(world, run)]


def collected(world: World) -> None:
    """Let two collections of no grace condemn and sweep what nothing keeps."""
    for _ in range(2):
        repo = Repository.open(world.root)
        dropped = len(retention.plan(repo, places.opened(repo)).verdict.dropped())
        gc.collect(repo, gc.Options(grace_s=0.0, yes_delete=dropped))


@contextmanager
def another_process(world: World, run: str, revision: str, *, saves: bool = False) -> Iterator[None]:
    """Another process that goes on from a checkpoint, saves once or not at all, and is killed in the end."""
    save = "ck.save(3); ck.wait_until_finished(); " if saves else ""
    code = (
        "import ckptvcs, sys\nfrom tests.unit.train.conftest import Training\n"
        f"ck = ckptvcs.Checkpointer(run='{run}', **Training.begin().parts)\n"
        f"ck.resume('{revision}'); {save}print('resumed', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code]
    path = {"PYTHONPATH": str(Path(__file__).parents[3])}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=world.root, env={**os.environ, **path}, **pipes) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "resumed\n"
        yield
        other.kill()


@pytest.fixture(params=["here", "in another process"])
def resumed(request: pytest.FixtureRequest, kept: World, keeper, begin) -> Iterator[World]:
    """A run `fork` that went on from step 2 of `x`, and saved nothing yet."""
    if request.param == "here":
        keeper(begin().parts, run="fork").resume("x@step:2")
        yield kept
        return
    with another_process(kept, "fork", "x@step:2"):
        yield kept


def test_what_a_run_went_on_from_is_kept_before_it_saves_anything(resumed: World):
    assert kinds(resumed, "x@step:2") == {"running"}
    assert kinds(resumed, "x@step:1") == set()


def test_no_collection_takes_what_a_run_went_on_from_that_has_saved_nothing(resumed: World):
    collected(resumed)

    said = account.read(Repository.open(resumed.root))
    with Repo(resumed.root) as repo:
        gone = {c.manifest.step for c in repo.log("x") if said.on(c).is_gone}
        repo.load("x@step:2")
    assert gone == {0, 1, 3}


def test_the_first_save_tells_of_no_second_start(kept: World, keeper, begin):
    with keeper(begin().parts, run="fork") as keep:
        keep.resume("x@step:2")
        before = origins(kept, "fork")
        keep.save(3)
        keep.save(4)

    assert (before, origins(kept, "fork")) == ([[2]], [[2]])


def test_a_run_that_goes_on_with_its_own_newest_says_so_once(kept: World, keeper, begin):
    with keeper(begin().parts, run="x") as keep:
        keep.resume()
        before = origins(kept, "x")
        keep.save(5)

    assert (before, origins(kept, "x")) == ([[], [4]], [[], [4]])


def test_both_are_kept_where_a_run_went_on_from_two(kept: World, keeper, begin):
    with keeper(begin().parts, run="fork") as keep:
        keep.resume("x@step:2")
        keep.resume("x@step:1")
        keep.resume("x@step:2")
        found = [kinds(kept, f"x@step:{step}") for step in (0, 1, 2)]
        keep.save(3)

    assert found == [set(), {"running"}, {"running"}]
    assert origins(kept, "fork") == [[2], [2, 1]]
    assert len({event.facts["run_id"] for event in told(kept, "fork")}) == 1


def test_what_a_run_went_back_to_is_kept_as_well(kept: World, keeper, begin):
    with keeper(begin().parts) as keep:
        for step in range(3):
            keep.save(step)
        keep.restore(1)

        assert "running" in kinds(kept, "r@step:1")
    assert origins(kept, "r") == [[], [1]]


def test_a_run_that_saved_nothing_ends_all_the_same(kept: World, keeper, begin):
    with keeper(begin().parts, run="fork") as keep:
        keep.resume("x@step:2")

    assert kinds(kept, "x@step:2") == set()
    repo = Repository.open(kept.root)
    recorded = calibration.of_events(ledger.events(repo, ops=calibration.OPS), run="fork")
    assert [life.how for life in recorded.lives] == ["closed"]
    assert alerts.look(repo).facts.runs == ()


def test_what_a_run_that_was_killed_went_on_from_is_kept_until_its_branch_is_trained_again(kept: World, keeper, begin):
    with another_process(kept, "fork", "x@step:1", saves=True), another_process(kept, "other", "x@step:3", saves=True):
        pass

    found = [kinds(kept, "x@step:1")]
    with keeper(begin().parts, run="fork") as keep:
        keep.resume()
        found.append(kinds(kept, "x@step:1"))
        keep.save(4)
        keep.wait_until_finished()
        found.append(kinds(kept, "x@step:1"))

        assert "running" in kinds(kept, "fork@step:3")
        assert "running" in kinds(kept, "x@step:3"), "of another branch nothing was heard"
    assert ["running" in reasons for reasons in found] == [True, True, False]


def test_who_has_not_saved_yet_may_be_alive_whoever_saves_to_its_branch(kept: World, keeper, begin):
    with another_process(kept, "fork", "x@step:2"), keeper(begin().parts, run="fork") as keep:
        keep.resume("x@step:1")
        keep.save(2)
        keep.wait_until_finished()

        assert "running" in kinds(kept, "x@step:2")


def test_what_went_on_from_two_was_not_broken_off(kept: World, keeper, begin):
    with keeper(begin().parts, run="fork") as keep:
        keep.resume("x@step:2")
        keep.resume("x@step:1")
        keep.save(3)

    recorded = calibration.of_events(ledger.events(Repository.open(kept.root), ops=calibration.OPS))
    assert [(life.run, life.how) for life in recorded.lives] == [("x", "closed"), ("fork", "closed")]


def test_what_a_run_that_ended_went_on_from_is_kept_anew_if_it_goes_on_from_it_again(kept: World, keeper, begin):
    for _ in range(2):
        keep = keeper(begin().parts, run="fork")
        keep.resume("x@step:2")
        keep.close()

    assert [event.facts["how"] for event in told(kept, "fork", "run.end")] == ["closed", "closed"]
    assert origins(kept, "fork") == [[2], [2]]


def test_a_ledger_that_cannot_be_written_is_no_reason_not_to_resume(kept: World, keeper, begin, caplog):
    (writer,) = (path.name for path in (kept.root / ".git/refs/ckptvcs/ledger").iterdir())
    head = kept.git("rev-parse", f"refs/ckptvcs/ledger/{writer}").strip()
    kept.git("update-ref", f"refs/ckptvcs/ledger/{writer}", "HEAD")

    keep = keeper(begin().parts, run="fork")
    resumed = keep.resume("x@step:2")
    kept.git("update-ref", f"refs/ckptvcs/ledger/{writer}", head)
    keep.save(3)
    keep.wait_until_finished()

    assert resumed.step == 2
    assert "the ledger does not know of 'run.start' of run 'fork'" in caplog.text
    assert origins(kept, "fork") == [[2]], "the first save tells what could not be told"


def test_where_nobody_may_write_a_checkpoint_can_be_looked_at(
    kept: World, keeper, begin, caplog, without_privilege: None
):
    keep = keeper(begin().parts, run="fork")
    folders = [kept.root / ".git", *(path for path in (kept.root / ".git").rglob("*") if path.is_dir())]
    modes = {folder: folder.stat().st_mode for folder in folders}
    for folder in folders:
        folder.chmod(0o555)
    try:
        resumed = keep.resume("x@step:2")
    finally:
        for folder, mode in modes.items():
            folder.chmod(mode)

    assert resumed.step == 2
    assert "the ledger does not know" in caplog.text


def test_who_looks_at_a_run_that_another_process_trains_does_not_seem_to_begin_it_again(
    kept: World, keeper, begin, caplog
):
    code = (
        "import sys\nfrom ckptvcs.porcelain.claim import claim_branch\nfrom ckptvcs.porcelain.repo import Repository\n"
        "claim_branch(Repository.open('.'), 'x', run='x', wait_s=0)\nprint('held', flush=True)\nsys.stdin.read()\n"
    )
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], cwd=kept.root, **pipes) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        resumed = keeper(begin().parts, run="x").resume("x@step:4")
        other.kill()

    assert resumed.step == 4
    assert f"process {other.pid} trains it right now" in caplog.text
    assert origins(kept, "x") == [[]]


def test_who_only_looks_at_a_checkpoint_keeps_nobody_from_training(kept: World, keeper, begin):
    keeper(begin().parts, run="fork").resume("x@step:2")

    code = (
        "from ckptvcs.porcelain.claim import claim_branch\nfrom ckptvcs.porcelain.repo import Repository\n"
        "claim_branch(Repository.open('.'), 'fork', run='fork', wait_s=0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=kept.root, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_what_is_condemned_already_is_told_by_whoever_goes_on_from_it(kept: World, keeper, begin, caplog):
    repo = Repository.open(kept.root)
    gc.collect(repo, gc.Options(yes_delete=4))
    assert account.read(repo).dropped

    keep = keeper(begin().parts, run="fork")
    keep.resume("x@step:2")
    keep.resume("x@step:2")

    with Repo(kept.root) as found:
        name = next(c.id for c in found.log("x") if c.manifest.step == 2)[:10]
    (said,) = (r.getMessage() for r in caplog.records if "condemned" in r.getMessage())
    assert said.startswith(f"checkpoint {name} of step 2 is condemned")
    assert f"ckpt hold {name}" in said
    collected(kept)
    assert kinds(kept, "x@step:2") >= {"running"}
    with Repo(kept.root) as found:
        found.load("x@step:2")


def test_what_is_kept_is_resumed_without_a_word(kept: World, keeper, begin, caplog):
    keeper(begin().parts, run="fork").resume("x@step:4")

    assert not caplog.records
