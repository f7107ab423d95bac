"""Words and numbers for people, JSON for scripts; nothing from outside drives a terminal."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from ckptvcs.cli import render
from ckptvcs.domain.provenance import Code
from ckptvcs.errors import NotFound


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1550, "1.6 kB"),
        (271_400_000, "271.4 MB"),
        (10**9, "1.0 GB"),
        (10**12, "1.0 TB"),
        (10**16, "10000.0 TB"),
    ],
)
def test_sizes_have_decimal_units(nbytes: int, text: str):
    assert render.size(nbytes) == text


@pytest.mark.parametrize(("nbytes", "text"), [(999_999, "1.0 MB"), (999_950_000, "1.0 GB")])
def test_a_number_that_rounds_up_to_a_thousand_has_the_next_unit(nbytes: int, text: str):
    assert render.size(nbytes) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        (1 / 3, "0.333333"),
        (1e-9, "1e-09"),
        (3, "3"),
        (True, "True"),
        ("nan", "nan"),
        ("\x1b[31m", "\\x1b[31m"),
    ],
)
def test_metrics_are_short(value: Any, text: str):
    assert render.number(value) == text


def test_several_are_listed():
    assert render.listed({"loss": 0.31, "acc": 0.9, "n\n": 1}) == "loss 0.31, acc 0.9, n\\n 1"


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "\x07", "\u202e", "\x9b", "\udcff", "\r", "\u2028"])
def test_text_from_outside_cannot_drive_a_terminal(text: str):
    shown = render.text(text)

    assert shown.isprintable()
    shown.encode()


@pytest.mark.parametrize("text", ["naïve", "模型", "a b", "🙂"])
def test_text_that_can_be_read_is_left_alone(text: str):
    assert render.text(text) == text


@dataclass
class Plain:
    path: Path
    when: datetime
    parts: tuple[int, ...]


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None),
        (True, True),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        ({1: (2, {3})}, {"1": [2, [3]]}),
        (Path("a/b"), "a/b"),
        (Code(commit="x"), {"commit": "x", "changed": [], "patch": None, "untracked": []}),
        (
            Plain(Path("a"), datetime(2026, 1, 2, tzinfo=timezone.utc), (1,)),
            {"path": "a", "when": "2026-01-02T00:00:00+00:00", "parts": [1]},
        ),
    ],
    ids=str,
)
def test_any_value_becomes_json(value: Any, plain: Any):
    found = render.plain(value)

    assert found == plain
    assert json.loads(json.dumps(found, allow_nan=False)) == plain


def test_an_answer_in_json_is_one_sorted_document_on_stdout(capsys: pytest.CaptureFixture[str]):
    render.answer_json({"b": 1, "a": "é"})

    out, err = capsys.readouterr()
    assert out == '{\n  "a": "é",\n  "b": 1\n}\n'
    assert err == ""


def test_an_answer_may_name_any_file(capsys: pytest.CaptureFixture[str]):
    render.answer_json({"root": "/data/\udcff"})

    assert json.loads(capsys.readouterr().out) == {"root": "/data/\udcff"}


def test_answers_go_to_stdout_and_talk_to_stderr(capsys: pytest.CaptureFixture[str]):
    render.answer("answer")
    render.talk("talk")
    render.note("\x1bnote")

    out, err = capsys.readouterr()
    assert out == "answer\n"
    assert err == "talk\nnote: \\x1bnote\n"


ERROR = NotFound("no run '\x1b[31mx'", why="it\nis gone", next_step="run 'ckpt log'", path=Path("a"), n=float("nan"))


def test_an_error_says_what_why_and_next(capsys: pytest.CaptureFixture[str]):
    render.error(ERROR, as_json=False)

    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: no run '\\x1b[31mx'\n  why:  it\\nis gone\n  next: run 'ckpt log'\n"


def test_an_error_in_json_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]):
    render.error(ERROR, as_json=True)

    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert json.loads(err) == {
        "error": "not-found",
        "exit": 12,
        "what": "no run '\x1b[31mx'",
        "why": "it\nis gone",
        "next": "run 'ckpt log'",
        "facts": {"path": "a", "n": "nan"},
    }


def test_what_is_not_known_is_left_out(capsys: pytest.CaptureFixture[str]):
    render.error(NotFound("no run 'x'"), as_json=False)

    assert capsys.readouterr().err == "error: no run 'x'\n"


def test_names_are_decorated_as_git_does():
    assert render.names_text([]) == ""
    assert "HEAD -> main" in render.names_text(["HEAD -> main", "tag: v\x1b1"])
    assert "v\\x1b1" in render.names_text(["HEAD -> main", "tag: v\x1b1"])
