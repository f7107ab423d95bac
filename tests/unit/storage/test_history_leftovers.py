"""What an interrupted checkout cut short is told from what the user changed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from ckptvcs.storage.history import leftovers
from ckptvcs.storage.history.repository import History


@pytest.fixture(params=["ours", "the user's"])
def put_back(request: pytest.FixtureRequest) -> Callable[..., bool]:
    """It puts back files of ours in another way than those of the user."""
    return functools.partial(leftovers.put_back, ours=lambda _: request.param == "ours")


@pytest.fixture
def two(tmp_path: Path, git) -> History:
    """A repository at its second commit: `a` changes from one to two, `new` is only in the first."""
    git("init", "-q")
    for text in ("one one one\n", "two two two\n"):
        (tmp_path / "a").write_text(text)
        (tmp_path / "new").write_text("new in the first\n")
        if text.startswith("two"):
            (tmp_path / "new").unlink()
        git("add", "-A")
        git("commit", "-qm", text)
    return History.discover(tmp_path)


def first(history: History) -> str:
    return history.commit(history.head()).parents[0]


@pytest.mark.parametrize("left", ["", "one", "one one one\n"])
def test_the_beginning_of_the_new_file_is_put_back(two: History, put_back, left: str):
    (two.root / "a").write_text(left)

    assert put_back(two, first(two), ["a"])

    assert (two.root / "a").read_text() == "two two two\n"


def test_the_beginning_of_a_file_that_was_not_there_goes(two: History, put_back):
    (two.root / "new").write_text("new in")

    assert put_back(two, first(two), ["new"])

    assert not (two.root / "new").exists()


@pytest.mark.parametrize("mine", ["one, and mine", "two tw0", "one one one\n more"])
def test_what_the_user_wrote_stays_and_so_does_all_else(two: History, put_back, mine: str):
    (two.root / "a").write_text(mine)
    (two.root / "new").write_text("new in")

    assert not put_back(two, first(two), ["new", "a"])

    assert ((two.root / "a").read_text(), (two.root / "new").read_text()) == (mine, "new in")


def test_nothing_is_followed_through_a_link(two: History, put_back, tmp_path: Path):
    (tmp_path / "elsewhere").write_text("one")
    (two.root / "a").unlink()
    (two.root / "a").symlink_to("elsewhere")

    assert not put_back(two, first(two), ["a"])

    assert (tmp_path / "elsewhere").read_text() == "one"


def test_without_paths_there_is_nothing_to_put_back(two: History, put_back):
    assert not put_back(two, first(two), [])
