"""A run goes on in another clone: where its branch is at origin, with what only the store has."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from ckptvcs import Checkpointer
from ckptvcs.errors import IntegrityError, MissingObject, StorageError
from tests.support.places import Place
from tests.unit.train.conftest import Training

STOP = 7


@pytest.fixture
def place(tmp_path: Path) -> Place:
    found = Place.create(tmp_path / "place")
    found.world.ckpt("remote", "add", "share", "../store")
    found.world.git("commit", "-qam", "a remote")
    found.world.git("push", "-q", "origin", "main")
    return found


def keeper(root: Path, training: Training, **options: Any) -> Checkpointer:
    return Checkpointer(**{"run": "r", "repo": root, "asynchronous": False, **training.parts, **options})


def train(root: Path, training: Training, steps: int) -> list[float]:
    """Train, and save twice: half way and in the end."""
    with keeper(root, training) as keep:
        losses = [training.step() for _ in range(steps - 1)]
        keep.save(steps - 1)
        losses.append(training.step())
        keep.save(steps)
    return losses


@pytest.fixture
def clone(place: Place) -> Path:
    """A new clone of what was trained for some steps and pushed."""
    train(place.world.root, Training.begin(), STOP)
    place.world.ckpt("push", "r", "main")
    return place.make_clone().root


def test_a_run_goes_on_in_a_new_clone_bit_for_bit(place: Place, clone: Path):
    whole = Training.begin()
    expected = [whole.step() for _ in range(20)]

    training = Training.begin(seed=99)
    with keeper(clone, training) as keep:
        resumed = keep.resume()
        losses = [training.step() for _ in range(20 - STOP)]
        keep.save(20)

    assert resumed is not None
    assert resumed.step == STOP
    assert losses == expected[STOP:]
    place.clone.ckpt("push", "r")
    assert place.world.git("ls-remote", "origin", "r").split()[0] == place.clone.git("rev-parse", "r")
    place.world.git("fetch", "-q")
    assert place.world.git("merge-base", "r", "origin/r") == place.world.git("rev-parse", "r")


def test_a_run_that_went_on_elsewhere_goes_on_from_there(place: Place, clone: Path):
    training = Training.begin(seed=99)
    with keeper(clone, training) as keep:
        keep.resume()
        training.step()
        keep.save(STOP + 1)
    place.clone.ckpt("push", "r")
    place.world.ckpt("fetch")

    with keeper(place.world.root, Training.begin(seed=98)) as keep:
        assert keep.resume().step == STOP + 1

    assert place.world.git("rev-parse", "r") == place.clone.git("rev-parse", "r")


def test_a_run_that_has_gone_on_here_too_says_so(place: Place, clone: Path, caplog: pytest.LogCaptureFixture):
    for root in (clone, place.world.root):
        training = Training.begin(seed=99)
        with keeper(root, training) as keep:
            keep.resume()
            keep.save(STOP + 1)
    place.clone.ckpt("push", "r")
    place.world.ckpt("fetch")
    before = place.world.git("rev-parse", "r")

    with caplog.at_level(logging.WARNING), keeper(place.world.root, Training.begin()) as keep:
        assert keep.resume().step == STOP + 1

    assert "branch 'r' has checkpoints at 'origin/r' that are not here" in caplog.text
    assert place.world.git("rev-parse", "r") == before


def test_a_branch_that_is_checked_out_stays(place: Place, clone: Path, caplog: pytest.LogCaptureFixture):
    place.clone.git("branch", "r", "origin/r~1")
    place.clone.git("checkout", "-q", "r")

    with caplog.at_level(logging.WARNING), keeper(clone, Training.begin()) as keep:
        assert keep.resume().step == STOP - 1

    assert "at 'origin/r' that are not here" in caplog.text
    assert place.clone.git("status", "--short") == ""


def test_what_is_not_fetched_is_no_damage(place: Place, clone: Path):
    shutil.move(place.folder / "store", place.folder / "unmounted")
    before = place.clone.git("rev-parse", "origin/r")

    with (
        keeper(clone, Training.begin()) as keep,
        pytest.raises(StorageError, match=f"cannot go on from step {STOP}") as err,
    ):
        keep.resume()

    assert "ckpt pull" in err.value.next_step
    shutil.move(place.folder / "unmounted", place.folder / "store")
    with keeper(clone, Training.begin()) as keep:
        assert keep.resume().step == STOP
    assert place.clone.git("rev-parse", "r") == before


def test_what_is_nowhere_is_skipped_and_what_is_damaged_here_is_healed(place: Place, clone: Path):
    with keeper(clone, Training.begin()) as keep:
        keep.resume()
    objects = sorted((clone / ".dvc/cache/files/md5").glob("??/*"), key=lambda path: path.stat().st_size)
    objects[-1].chmod(0o644)
    objects[-1].write_bytes(b"damaged")

    with keeper(clone, Training.begin()) as keep:
        assert keep.resume().step == STOP

    lose(place, clone)
    with keeper(clone, Training.begin()) as keep, pytest.raises(IntegrityError, match="cannot resume run 'r'"):
        keep.resume()


def lose(place: Place, clone: Path) -> None:
    """Remove every object but one, which tells that the store is there."""
    shutil.rmtree(clone / ".dvc/cache")
    for path in sorted((place.folder / "store/files/md5").glob("??/*"))[1:]:
        path.unlink()


def test_a_revision_that_is_named_is_fetched(place: Place, clone: Path):
    with keeper(clone, Training.begin(), run="other") as keep:
        assert keep.resume(f"origin/r@step:{STOP - 1}").step == STOP - 1

    lose(place, clone)
    with keeper(clone, Training.begin(), run="third") as keep, pytest.raises(MissingObject):
        keep.resume(f"origin/r@step:{STOP - 1}")


def test_a_new_branch_of_the_run_is_none_that_is_at_origin(place: Place, clone: Path):
    place.world.git("push", "-q", "origin", "r:r-2")
    place.clone.git("fetch", "-q")

    with keeper(clone, Training.begin()) as keep:
        keep.resume(f"r@step:{STOP - 1}")
        keep.save(STOP)

    assert place.clone.git("branch", "--format=%(refname:short)").split() == ["main", "r", "r-3"]


def test_a_branch_that_only_origin_has_is_checked_out_as_git_does(place: Place, clone: Path):
    place.clone.ckpt("pull", "origin/r")

    assert "switched to new branch 'r'" in place.clone.ckpt("checkout", "r").out
    assert place.clone.git("symbolic-ref", "--short", "HEAD") == "r"
    assert place.clone.git("rev-parse", "r") == place.clone.git("rev-parse", "origin/r")


def test_who_names_a_branch_that_only_origin_has_is_told_where_it_is(place: Place, clone: Path):
    for args in (["log", "r"], ["show", "r@step:6"], ["restore", "r"]):
        assert "origin/r" in place.clone.ckpt(*args, status=None).err


def test_a_mirror_that_lacks_the_newest_does_not_make_it_lost(place: Place, clone: Path):
    """The store that has it does not answer, and another one has only older ones: no reason to go on from those."""
    place.world.ckpt("remote", "add", "mirror", "../mirror")
    place.world.git("commit", "-qam", "a mirror")
    place.world.ckpt("push", "--full", "--replicas", "2", "r", "main")
    training = Training.begin()
    with keeper(place.world.root, training) as keep:
        keep.resume()
        training.step()
        keep.save(STOP + 1)
    place.world.ckpt("push", "r", "--remote", "share")
    place.clone.ckpt("pull")
    (place.folder / "store").rename(place.folder / "unmounted")

    with keeper(clone, Training.begin()) as keep, pytest.raises(StorageError, match=f"from step {STOP + 1}"):
        keep.resume()

    (place.folder / "unmounted").rename(place.folder / "store")
    with keeper(clone, Training.begin()) as keep:
        assert keep.resume().step == STOP + 1


def test_who_pulls_where_no_checkpoints_are_is_told_where_they_are(place: Place, clone: Path):
    told = place.clone.ckpt("pull")

    assert "'origin' has some on r" in told.err
    place.clone.ckpt("pull", "r")
    place.clone.ckpt("checkout", "r")
    assert place.clone.git("rev-parse", "r") == place.clone.git("rev-parse", "origin/r")


def test_a_run_that_is_behind_is_told_how_to_go_on(place: Place, clone: Path):
    with keeper(clone, Training.begin()) as keep:
        keep.resume()
        keep.save(STOP + 1)
    place.clone.ckpt("push", "r")

    refused = place.world.ckpt("push", "r", status=11)
    assert "git fetch origin r:r" in refused.err
    place.world.git("fetch", "origin", "r:r")
    place.world.ckpt("push", "r")

    for world in (place.world, place.clone):
        with keeper(world.root, Training.begin()) as keep:
            keep.resume()
            keep.save(STOP + 2)
    place.clone.ckpt("push", "r")
    refused = place.world.ckpt("push", "r", status=11)
    assert "git branch -m r r-2" in refused.err
    place.world.git("branch", "-m", "r", "r-2")
    place.world.ckpt("push", "r-2")
