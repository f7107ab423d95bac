"""`note`: metrics that come late count, and the checkpoint stays as it is."""

from __future__ import annotations

import json
import math

import numpy
import pytest
import torch

from ckptvcs import Repo
from ckptvcs.domain.events import Event
from ckptvcs.errors import NotFound, UsageError
from ckptvcs.porcelain import account, ledger, note, show
from ckptvcs.porcelain.commit import Receipt
from ckptvcs.porcelain.repo import Repository
from tests.support.world import World


def test_a_late_metric_decides_what_is_best(repo: Repo, history: list[Receipt]):
    assert repo.show("main@best").id == history[2].id

    repo.note("main@step:1", {"loss": 0.01})

    assert repo.show("main@best").id == history[0].id
    assert repo.show("main@best:loss").metrics == {"loss": 0.01}


def test_a_late_metric_can_make_a_checkpoint_worse(repo: Repo, history: list[Receipt]):
    repo.note("main", {"loss": 9})

    assert repo.show("main@best").id == history[1].id


def test_a_metric_that_no_checkpoint_was_made_with_can_be_the_best(repo: Repo, history: list[Receipt]):
    repo.note("main@step:2", {"bleu": 27})
    repo.note("main@step:1", {"bleu": 28.5})

    assert repo.show("main@best:bleu").id == history[0].id


def test_the_checkpoint_stays_as_it_is(repo: Repo, world: World, history: list[Receipt]):
    before = world.git("for-each-ref", "refs/heads", "refs/tags"), world.git("status", "--porcelain")

    repo.note("HEAD", {"loss": 0.5, "acc": 0.9}, message="on all of it")

    found = repo.show("HEAD")
    assert (found.id, found.commit, found.manifest) == (history[2].id, history[2].commit, history[2].manifest)
    assert found.metrics == {"loss": 0.5, "acc": 0.9}
    assert {name: noted.message for name, noted in found.late.items()} == dict.fromkeys(("loss", "acc"), "on all of it")
    assert (world.git("for-each-ref", "refs/heads", "refs/tags"), world.git("status", "--porcelain")) == before


def test_the_newest_note_wins_for_each_metric(repo: Repo, history: list[Receipt]):
    repo.note("HEAD", {"loss": 0.5, "acc": 0.9})
    repo.note("HEAD", {"acc": 0.8})

    assert repo.show("HEAD").metrics == {"loss": 0.5, "acc": 0.8}


def test_log_show_and_branches_tell_the_same(repo: Repo, repository: Repository, history: list[Receipt]):
    repo.note("main@step:2", {"loss": 7})

    assert [checkpoint.metrics["loss"] for checkpoint in repo.log()] == [1 / 3, 7, 1]
    assert show.show(repository, "HEAD~1").checkpoint.metrics == {"loss": 7}
    assert show.show(repository, "HEAD~1").checkpoint.manifest.metrics == {"loss": 0.5}


@pytest.mark.parametrize("value", [3, 0.25, numpy.float32(0.5), torch.tensor(2.0), numpy.int64(4)])
def test_numbers_of_any_library_are_noted(repo: Repo, history: list[Receipt], value):
    repo.note("HEAD", {"x": value})

    assert repo.show("HEAD").metrics["x"] == value


@pytest.mark.parametrize("value", [math.nan, math.inf, "good", True, None, [1.0]])
def test_what_is_no_finite_number_is_refused(repo: Repo, repository: Repository, history: list[Receipt], value):
    with pytest.raises(UsageError, match="metric 'x'"):
        repo.note("HEAD", {"x": value})
    assert list(ledger.events(repository)) == []


def test_a_word_that_training_noted_is_kept_and_never_ranks(repo: Repo, repository: Repository, history: list[Receipt]):
    note.execute(repository, note.plan_note(repository, "HEAD", {"loss": "nan"}))

    assert repo.show("HEAD").metrics == {"loss": "nan"}
    assert repo.show("main@best").id == history[1].id


@pytest.mark.parametrize(
    ("metrics", "message", "error"), [({}, None, "nothing to note"), ({"x": 1}, "m" * 4097, "such a message")]
)
def test_a_note_says_something_and_not_too_much(repository: Repository, history, metrics, message, error: str):
    with pytest.raises(UsageError, match=error):
        note.plan_note(repository, "HEAD", metrics, message=message)


def test_far_too_many_metrics_are_refused_before_anything_is_written(repository: Repository, history):
    plan = note.plan_note(repository, "HEAD", {f"metric {n}": n for n in range(5000)})

    with pytest.raises(UsageError, match="cannot write down a 'note'"):
        note.execute(repository, plan)
    assert list(ledger.events(repository)) == []


@pytest.mark.parametrize("revision", ["missing", "main@step:9"])
def test_what_is_no_checkpoint_has_no_note(repository: Repository, history, revision: str):
    with pytest.raises(NotFound):
        note.plan_note(repository, revision, {"x": 1})


def test_planning_writes_nothing(repository: Repository, world: World, history, everything):
    before = everything(world)

    plan = note.plan_note(repository, "HEAD", {"loss": 0.2}, message="why")

    assert plan.checkpoint.metrics == {"loss": 1 / 3}
    assert everything(world) == before


def test_the_event_says_which_checkpoint_and_what(repository: Repository, history: list[Receipt]):
    event = note.execute(repository, note.plan_note(repository, "HEAD", {"loss": 0.2}, message="why"))

    assert isinstance(event, Event)
    assert (event.op, event.n) == ("note", 1)
    assert event.facts == {"checkpoint": history[2].id, "metrics": {"loss": 0.2}, "message": "why"}


def test_a_note_of_another_track_is_about_that_track(repo: Repo, repository: Repository, history: list[Receipt]):
    teacher = repo.commit({"model": {"w": torch.zeros(1)}}, track="teacher")

    note.execute(repository, note.plan_note(repository, "HEAD", {"acc": 1}, track="teacher"))

    assert repo.show("HEAD", track="teacher").metrics == {"acc": 1}
    assert repo.show("HEAD").metrics == {"loss": 1 / 3}
    assert set(account.late_metrics(repository)) == {teacher.id}


# -------------------------------------------------------------------------------------------------------------- the verb


def test_the_verb_says_what_it_noted_and_what_was_there_before(world: World, history: list[Receipt]):
    assert world.ckpt("note", "main@step:2", "--metric", "loss=0.1", "--metric", "acc=3").out == (
        f"noted of checkpoint {history[1].id[:10]} step 2: loss 0.1, acc 3 (before: loss 0.5)\n"
    )


def test_the_verb_answers_in_json(world: World, history: list[Receipt]):
    said = world.ckpt("note", "HEAD", "--metric", "loss=0.1", "-m", "again", "--json").json

    assert said["id"] == history[2].id
    assert (said["metrics"], said["before"]) == ({"loss": 0.1}, {"loss": 1 / 3})
    assert (said["n"], said["message"], said["dry_run"]) == (1, "again", False)


def test_a_dry_run_notes_nothing(world: World, history: list[Receipt]):
    assert "would have noted" in world.ckpt("note", "HEAD", "--metric", "loss=0.1", "--dry-run").out

    assert world.git("for-each-ref", "refs/ckptvcs") == ""


def test_show_tells_late_metrics_apart_and_log_shows_those_that_count(world: World, history: list[Receipt]):
    world.ckpt("note", "HEAD", "--metric", "loss=0.125", "-m", "the full test set")

    shown = world.ckpt("show").out
    assert "metrics:     loss 0.333333\n" in shown
    assert "late:        loss 0.125 (noted " in shown
    assert " UTC, the full test set)\n" in shown
    document = world.ckpt("show", "--json").json
    assert document["metrics"] == {"loss": 0.125}
    assert document["manifest"]["metrics"] == {"loss": 1 / 3}
    assert document["late_metrics"]["loss"]["value"] == 0.125
    assert "loss 0.125  " in world.ckpt("log", "-n", "1").out
    assert world.ckpt("log", "--json").json["checkpoints"][0]["metrics"] == {"loss": 0.125}
    assert "loss 0.125" in world.ckpt("branch").out


@pytest.mark.parametrize(
    ("line", "keys"),
    [
        ("show", ()),
        ("log", ("checkpoints", 0)),
        ("branch", (0, "checkpoint")),
        ("tag", (0, "checkpoint")),
        ("status", ("tracks", "model", "checkpoint")),
        ("diff HEAD~1 HEAD", ("after",)),
        ("checkout main -n", ("checkpoints", 0)),
        ("restore HEAD -n", ("checkpoint",)),
    ],
)
def test_every_verb_that_tells_of_a_checkpoint_tells_what_counts(world: World, history, line: str, keys):
    world.ckpt("tag", "here")
    world.ckpt("note", "HEAD", "--metric", "loss=0.125")

    document = world.ckpt(*line.split(), "--json").json
    for key in keys:
        document = document[key]

    assert document["metrics"] == {"loss": 0.125}
    assert document["late_metrics"]["loss"]["n"] == 1


def test_a_difference_is_that_of_the_metrics_that_count(world: World, history):
    world.ckpt("note", "HEAD", "--metric", "loss=0.125")

    assert "~ loss  0.5 -> 0.125" in world.ckpt("diff", "HEAD~1", "HEAD").out


@pytest.mark.parametrize("value", ["nan", "inf", "good", ""])
def test_the_verb_refuses_what_is_no_finite_number(world: World, history, value: str):
    said = world.ckpt("note", "HEAD", "--metric", f"loss={value}", "--json", status=2).err

    assert json.loads(said)["error"] == "usage-error"
