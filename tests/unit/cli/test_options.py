"""What is typed becomes values; what makes no sense is refused before anything is touched."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import click
import pytest

from ckptvcs.cli.options import pairs
from tests.support.world import World
from tests.unit.cli.conftest import Ckpt


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ((), {}),
        (("a=1",), {"a": "1"}),
        (("a=1", "b=x=y", "c="), {"a": "1", "b": "x=y", "c": ""}),
        (("a=1", "a=2"), {"a": "2"}),
        ((" a = 1 ",), {" a ": " 1 "}),
    ],
)
def test_pairs_are_cut_at_the_first_equals_sign(values: tuple[str, ...], found: dict[str, str]):
    assert pairs(values, "--metric") == found


@pytest.mark.parametrize("text", ["", "a", "=", "=1"])
def test_what_is_no_pair_is_refused_and_named(text: str):
    with pytest.raises(click.BadParameter) as caught:
        pairs((text,), "--metric")

    assert f"'{text}'" in caught.value.message
    assert "--metric" in caught.value.format_message()


def source(ground: World) -> Path:
    return ground.root.parent / "3.pt"


def committed(ckpt: Ckpt, world: World, ground: World, *words: str) -> dict[str, Any]:
    done = ckpt("commit", source(ground), "--json", *words, at=world)
    assert done.status == 0, done.err
    return ckpt("show", "--json", at=world).json["manifest"]


def test_everything_that_is_said_of_a_commit_is_in_its_manifest(ckpt: Ckpt, world: World, ground: World):
    words = "--run bert --branch main --step 7 --epoch 1.5 --metric loss=0.5 --metric n=3 --reason eval".split()

    found = committed(ckpt, world, ground, *words)

    assert (found["run"]["name"], found["step"], found["epoch"], found["reason"]) == ("bert", 7, 1.5, "eval")
    assert found["metrics"] == {"loss": 0.5, "n": 3}
    assert type(found["metrics"]["n"]) is int


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ("12", 12),
        ("true", True),
        ("null", None),
        ('"12"', "12"),
        ("adamw", "adamw"),
        ("[1, 2]", [1, 2]),
        ('{"a": {"b": 1}}', {"a": {"b": 1}}),
        ("NaN", "nan"),
        ("1e999", "inf"),
        ("", ""),
        ("a=b", "a=b"),
        ("123456789012345678901234567890", 123456789012345678901234567890),
    ],
)
def test_a_parameter_is_json_or_text(text: str, value: Any, ckpt: Ckpt, world: World, ground: World):
    found = committed(ckpt, world, ground, "--param", f"x={text}")["params"]["x"]

    assert (type(found), found) == (type(value), value)


def test_parameters_come_from_a_file_and_single_ones_go_before_them(
    ckpt: Ckpt, world: World, ground: World, tmp_path: Path
):
    (tmp_path / "p.yaml").write_text("lr: 0.1\nopt:\n  name: adamw\n")

    found = committed(ckpt, world, ground, "--params-file", str(tmp_path / "p.yaml"), "--param", "lr=0.2")

    assert found["params"] == {"lr": 0.2, "opt": {"name": "adamw"}}


@pytest.mark.parametrize("epoch", ["3", "3.0"])
def test_a_whole_epoch_is_an_integer(epoch: str, ckpt: Ckpt, world: World, ground: World):
    assert type(committed(ckpt, world, ground, "--epoch", epoch)["epoch"]) is int


@pytest.mark.parametrize(
    "words",
    [
        ["--step", "-1"],
        ["--step", "x"],
        ["--step", "1.5"],
        ["--epoch", "-1"],
        ["--epoch", "x"],
        ["--metric", "loss"],
        ["--metric", "=1"],
        ["--metric", "loss=low"],
        ["--metric", "loss=nan"],
        ["--metric", "loss=inf"],
        ["--metric", "loss=1e999"],
        ["--param", "lr"],
        ["--params-file", "missing.yaml"],
        ["--track", "no"],
        ["--track", "a/b"],
        ["--branch", "a..b"],
        ["--bogus"],
        ["one.pt", "two.pt"],
    ],
    ids=" ".join,
)
def test_an_option_that_makes_no_sense_is_refused(words: list[str], ckpt: Ckpt, ground: World):
    before = ground.git("rev-parse", "main")

    done = ckpt("commit", source(ground), *words, at=ground)

    assert done.status == 2
    assert done.out == ""
    assert done.err
    assert ground.git("rev-parse", "main") == before


@pytest.mark.parametrize(
    "words",
    [
        ["commit", "3.pt", "--epoch", "nan"],
        ["commit", "3.pt", "--epoch", "inf"],
        ["commit", "3.pt", "--param", "x=" + "[" * 10_000],
        ["log", "-n", "\N{SUPERSCRIPT TWO}"],
    ],
    ids=["epoch nan", "epoch inf", "deep parameter", "superscript"],
)
def test_an_odd_number_is_a_mistake_of_usage_and_no_bug_of_ours(
    words: list[str], ckpt: Ckpt, ground: World, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(ground.root.parent)

    assert ckpt(*words, "--dry-run" if words[0] == "commit" else "--json", at=ground).status == 2


@pytest.mark.parametrize(
    "content",
    [
        *("[1]", "x", "a: [", "\xff"),
        "a: &x {b: *x}",
    ],
    ids=repr,
)
def test_a_file_of_parameters_that_is_none_is_refused(content: str, ckpt: Ckpt, ground: World, tmp_path: Path):
    (tmp_path / "p.yaml").write_bytes(content.encode("latin-1"))

    done = ckpt("commit", source(ground), "--params-file", tmp_path / "p.yaml", at=ground)

    assert done.status == 2
    assert "p.yaml'" in done.err


@pytest.mark.parametrize(("limit", "count"), [("1", 1), ("2", 2), ("all", 2), ("50", 2), ("0", 0)])
def test_a_log_is_cut_where_it_is_asked_for(limit: str, count: int, ckpt: Ckpt, ground: World):
    found = ckpt("log", "-n", limit, "--json", at=ground).json

    assert len(found["checkpoints"]) == count
    assert found["more"] is (count < 2)


@pytest.mark.parametrize("limit", ["x", "-1", "1.5", "", "ALL"])
def test_a_limit_that_is_none_is_refused(limit: str, ckpt: Ckpt, ground: World):
    assert ckpt("log", "-n", limit, at=ground).status == 2


def files_of(world: World) -> dict[str, str]:
    """Everything in a repository but what ckptvcs remembers for itself, and what git touches when it looks."""
    return {
        path.relative_to(world.root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in world.root.rglob("*")
        if path.is_file() and "ckptvcs" not in path.relative_to(world.root).parts and path.name != "index"
    }


@pytest.mark.parametrize(
    "words",
    [
        ["commit", "SOURCE"],
        ["commit", "SOURCE", "--branch", "new"],
        ["checkout", "exp-a"],
        ["checkout", "exp-a", "-b", "exp-b"],
        ["restore", "main@step:1"],
        ["restore", "HEAD", "--to", "elsewhere"],
        ["branch", "new"],
        ["branch", "-d", "exp-a"],
        ["tag", "v1"],
        ["tag", "--golden", "new"],
        ["export", "HEAD", "out.pt"],
        ["init", "--remote", "elsewhere"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    words: list[str], form: list[str], ckpt: Ckpt, world: World, ground: World, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(world.root)
    before = files_of(world)

    done = ckpt(*(str(source(ground)) if w == "SOURCE" else w for w in words), "--dry-run", *form, at=world)

    assert done.status == 0, done.err
    assert json.loads(done.out)["dry_run"] is True if form else "would" in done.out
    assert files_of(world) == before
