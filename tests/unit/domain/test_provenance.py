"""How well training can go on, and what of a command line is kept."""

from __future__ import annotations

import pytest

from ckptvcs.domain.provenance import grade, without_secrets


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ({"model", "optimizer", "rng"}, "exact"),
        ({"model", "optimizer", "rng", "scheduler", "extra"}, "exact"),
        ({"model", "optimizer"}, "approximate"),
        ({"model", "optimizer", "scheduler"}, "approximate"),
        ({"model", "rng"}, "weights-only"),
        ({"optimizer", "rng"}, "weights-only"),
        ({"ema"}, "weights-only"),
        (set(), "weights-only"),
    ],
)
def test_the_grade_follows_from_the_roles(roles: set[str], expected: str):
    assert grade(roles) == expected


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (["--token", "abc"], ("--token", "***")),
        (["--token=abc"], ("--token=***",)),
        (["--hf-token=a=b"], ("--hf-token=***",)),
        (["HF_TOKEN=abc", "train.py"], ("HF_TOKEN=***", "train.py")),
        (["--api-key", "abc", "-x"], ("--api-key", "***", "-x")),
        (["--api_key=abc"], ("--api_key=***",)),
        (["--PASSWORD", "abc", "next"], ("--PASSWORD", "***", "next")),
        (["--secret", "--verbose"], ("--secret", "--verbose")),
        (["--token"], ("--token",)),
    ],
)
def test_the_values_of_secrets_are_hidden(command: list[str], shown: tuple[str, ...]):
    assert without_secrets(command) == shown


@pytest.mark.parametrize("command", [["python", "train.py", "--lr", "3e-4"], ["token"], ["a=b", "--x=y"], []])
def test_the_rest_of_a_command_is_kept_as_it_is(command: list[str]):
    assert without_secrets(command) == tuple(command)


@pytest.mark.parametrize("command", [["--tokenizer", "bert-base"], ["--max-tokens=512"], ["--author", "me"]], ids=str)
def test_options_that_only_contain_such_a_word_are_kept(command: list[str]):
    assert without_secrets(command) == tuple(command)
