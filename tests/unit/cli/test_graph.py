"""The lines of a commit graph are those that `git log --graph` draws."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ckptvcs.cli.graph import draw

History = Sequence[tuple[str, Sequence[str]]]

HISTORIES: dict[str, History] = {
    "one": [("a", "")],
    "line": [("c", "b"), ("b", "a"), ("a", "")],
    "merge": [("d", "bc"), ("c", "a"), ("b", "a"), ("a", "")],
    "two roots": [("b", ""), ("a", "")],
}


def drawn(history: History) -> list[str]:
    return [f"{drawing}{commit or ''}".rstrip() for commit, drawing in draw(history)]


@pytest.mark.parametrize("name", HISTORIES)
def test_every_commit_stands_on_a_line_of_its_own_in_its_order(name: str):
    history = HISTORIES[name]

    found = list(draw(history))

    assert [commit for commit, _ in found if commit] == [commit for commit, _ in history]
    assert all(drawing.count("*") == (commit is not None) for commit, drawing in found)


@pytest.mark.parametrize("name", ["one", "line", "merge"])
def test_the_drawing_is_that_of_git(name: str, git: Callable[..., str], tmp_path: Path):
    git("init", "-q")
    ids: dict[str, str] = {}
    tree = subprocess.run(
        ["git", "mktree"], cwd=tmp_path, input="", capture_output=True, text=True, check=True
    ).stdout.strip()
    for commit, parents in reversed(HISTORIES[name]):
        ids[commit] = git("commit-tree", tree, "-m", commit, *(w for p in parents for w in ("-p", ids[p]))).strip()

    expected = git("log", "--graph", "--topo-order", "--format=%s", ids[HISTORIES[name][0][0]])

    # git leaves room for the parents of a merge beside its star.
    assert drawn(HISTORIES[name]) == [re.sub(r"\* +", "* ", line).rstrip() for line in expected.splitlines()]


def test_two_forks_of_one_commit_meet_there():
    assert drawn([("c", "a"), ("b", "a"), ("a", "")]) == ["* c", "| * b", "|/", "* a"]
