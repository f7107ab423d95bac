"""The lines of a commit graph in text, as `git log --graph` draws them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def draw(commits: Sequence[tuple[str, Sequence[str]]]) -> Iterator[tuple[str | None, str]]:
    """Draw a history.

    Args:
        commits: (commit, its parents), children before their parents.

    Yields:
        For each line of the drawing: the commit that stands on it or None, and the drawing.
    """
    columns: list[str] = []  # the commit that each line going down is waiting for
    for n, (commit, parents) in enumerate(commits):
        if commit not in columns:
            columns.append(commit)
        place = columns.index(commit)
        while columns.count(commit) > 1:
            other = len(columns) - 1 - columns[::-1].index(commit)
            yield None, _joining(len(columns), place, other)
            del columns[other]
        yield commit, _row(len(columns), place)
        if not parents:
            del columns[place]
            if place < len(columns):
                yield None, _shifting(len(columns) + 1, place)
            elif n + 1 < len(commits):
                yield None, _text(_blank(len(columns)))  # what comes next below must not look like its parent
            continue
        columns[place] = parents[0]
        for parent in parents[1:]:
            yield None, _forking(len(columns), place)
            columns.insert(place + 1, parent)


def _blank(count: int) -> list[str]:
    return [character for _ in range(count) for character in ("|", " ")]


def _text(characters: list[str]) -> str:
    return "".join(characters).rstrip() + " "


def _row(count: int, place: int) -> str:
    characters = _blank(count)
    characters[2 * place] = "*"
    return _text(characters)


def _joining(count: int, place: int, other: int) -> str:
    """The line of column `other` ends in that of column `place`, left of it; those right of it move one to the left."""
    characters = _blank(count)
    for k in range(other, count):
        characters[2 * k], characters[2 * k - 1] = " ", "/"
    for k in range(place, other - 1):
        characters[2 * k + 1] = "_"
    return _text(characters)


def _forking(count: int, place: int) -> str:
    """A new line begins right of column `place`; those right of it move one to the right."""
    characters = _blank(count)
    for k in range(place, count):
        characters[2 * k + 1] = "\\"
        if k > place:
            characters[2 * k] = " "
    return _text(characters)


def _shifting(count: int, place: int) -> str:
    """The line of column `place` ended; those right of it move one to the left."""
    characters = _blank(count)
    characters[2 * place] = " "
    for k in range(place + 1, count):
        characters[2 * k], characters[2 * k - 1] = " ", "/"
    return _text(characters)
