"""`show`: one checkpoint, as it is."""

from __future__ import annotations

import pytest
import torch
from blake3 import blake3

from ckptvcs import Repo
from ckptvcs.errors import AmbiguousRevision, MissingObject, NotFound, WrongDigest
from ckptvcs.porcelain import show
from ckptvcs.porcelain.commit import Receipt
from ckptvcs.porcelain.repo import Repository
from tests.support.world import World


@pytest.mark.parametrize(
    ("revision", "step"),
    [("HEAD", 3), ("main", 3), ("HEAD~1", 2), ("main@step:1", 1), ("@latest", 3), ("@best", 3), ("@", 3)],
)
def test_the_checkpoint_of_a_revision_is_shown(
    repository: Repository, history: list[Receipt], revision: str, step: int
):
    shown = show.show(repository, revision)

    assert shown.checkpoint.id == history[step - 1].id
    assert shown.checkpoint.manifest == history[step - 1].manifest
    assert shown.tables == {}


@pytest.mark.parametrize("length", [4, 10, 63, 64])
def test_the_beginning_of_an_id_is_enough(repository: Repository, history: list[Receipt], length: int):
    for receipt in history:
        try:
            assert show.show(repository, receipt.id[:length]).checkpoint.id == receipt.id
        except AmbiguousRevision:
            assert length == 4  # four digits may begin a commit as well


@pytest.mark.parametrize("prefix", ["f" * 63, "0" * 12, "g" * 10])
def test_what_begins_no_id_is_not_found(repository: Repository, history: list[Receipt], prefix: str):
    with pytest.raises(NotFound):
        show.show(repository, prefix)


@pytest.mark.parametrize("name", ["bad", "ace", "000"])
def test_a_short_name_of_hexadecimal_letters_is_not_found_either(repository: Repository, history, name: str):
    with pytest.raises(NotFound):
        show.show(repository, name)


def test_a_commit_after_the_checkpoint_shows_the_checkpoint(repository: Repository, world: World, history):
    world.git("commit", "-q", "--allow-empty", "-m", "code")

    assert show.show(repository, "HEAD").checkpoint.id == history[-1].id


def test_names_are_those_that_stand_at_its_commit(repo: Repo, repository: Repository, history):
    repo.tag("base", golden=True)

    assert show.show(repository, "HEAD").names == ("HEAD -> main", "tag: golden/base")


def test_tensors_are_shown_if_they_are_asked_for(repository: Repository, history, state):
    tables = show.show(repository, "HEAD", tensors=True).tables

    table = tables["model"].stored
    tensors = state(3)["model"]
    assert {name: (row.dtype, tuple(row.shape)) for name, row in table.items()} == {
        name: ("F32", tuple(tensor.shape)) for name, tensor in tensors.items()
    }
    digests = {name: blake3(tensor.numpy().tobytes()).hexdigest() for name, tensor in tensors.items()}
    assert {name: row.digest for name, row in table.items()} == digests


def test_what_is_here_and_what_is_not_is_told(repository: Repository, world: World, history, objects_of):
    every = set(objects_of(history[-1]))
    assert set(show.show(repository, "HEAD").here) == every

    objects_of(history[-1])["model/tree.json"].unlink()

    assert set(show.show(repository, "HEAD").here) == every - {"model/tree.json"}


@pytest.mark.parametrize(("harm", "error"), [("flip", WrongDigest), ("unlink", MissingObject)])
def test_a_table_that_is_not_whole_is_not_shown(repository: Repository, history, objects_of, flip, harm: str, error):
    path = objects_of(history[-1])["model/tree.json"]
    flip(path) if harm == "flip" else path.unlink()

    with pytest.raises(error):
        show.show(repository, "HEAD", tensors=True)
    assert show.show(repository, "HEAD").checkpoint.id == history[-1].id


@pytest.mark.parametrize("revision", ["HEAD~3", "missing", "HEAD~9", "main@step:9", "HEAD:ckpt.yaml"])
def test_what_holds_no_checkpoint_is_not_found(repository: Repository, history, revision: str):
    with pytest.raises(NotFound):
        show.show(repository, revision)


def test_another_track_is_another_checkpoint(repo: Repo, repository: Repository, history):
    teacher = repo.commit({"model": {"w": torch.zeros(1)}}, track="teacher")

    assert show.show(repository, "HEAD", track="teacher").checkpoint.id == teacher.id
    assert show.show(repository, "HEAD").checkpoint.id == history[-1].id
    with pytest.raises(NotFound, match="track 'teacher'"):
        show.show(repository, "HEAD~1", track="teacher")


# ---------------------------------------------------------------------------------------------------------------- best


@pytest.fixture
def ranked(repo: Repo, state) -> None:
    """Checkpoints whose metrics disagree, with some that have none."""
    for n, metrics in enumerate(
        [{"loss": 3.0, "acc": 0.5}, {"loss": 1.0, "acc": 0.1}, {}, {"loss": 1.0}, {"reward": 7}]
    ):
        repo.commit(state(n), step=n, metrics=metrics)


@pytest.mark.parametrize(
    ("revision", "step"),
    [("main@best", 3), ("@best:loss", 3), ("@best:acc", 0), ("@best:reward", 4), ("HEAD", 4), ("@latest", 4)],
)
def test_the_best_is_told_by_the_metric_and_of_equals_the_newest(ranked: None, repo: Repo, revision: str, step: int):
    assert repo.show(revision).manifest.step == step


@pytest.mark.parametrize(
    ("configured", "step"),
    [("{monitor: acc, mode: min}", 1), ("{monitor: acc, mode: max}", 0), ("{monitor: loss, mode: max}", 0)],
)
def test_the_configuration_says_what_is_best(ranked: None, world: World, configured: str, step: int):
    (world.root / "ckpt.yaml").write_text(f"best: {configured}\n")

    with world.repo() as repo:
        assert repo.show("@best").manifest.step == step


def test_a_metric_that_nobody_has_has_no_best(ranked: None, repo: Repo):
    with pytest.raises(NotFound):
        repo.show("main@best:val_loss")
