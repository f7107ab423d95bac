"""`ckpt.yaml` becomes values, or a complaint that names the key."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import yaml

from ckptvcs.domain.policy import Best, Checkout, Config
from ckptvcs.domain.schema import Malformed, parse
from ckptvcs.errors import BadConfig
from ckptvcs.porcelain.config import read_config


def test_an_empty_document_gives_the_defaults():
    assert parse({}) == Config(
        version=1, directory="checkpoints", track="model", remote=None, best=None, checkout=Checkout()
    )


def test_every_key_may_be_given():
    text = """
        version: 1
        directory: runs/ckpt
        track: teacher
        remote: s3-fast
        best: {monitor: val_loss, mode: min}
        checkout: {link: copy, on_commit: false}
    """

    assert parse(yaml.safe_load(text)) == Config(
        directory="runs/ckpt",
        track="teacher",
        remote="s3-fast",
        best=Best(monitor="val_loss", mode="min"),
        checkout=Checkout(link="copy", on_commit=False),
    )


@pytest.mark.parametrize(
    ("text", "location"),
    [
        ("nope: 1", ("nope",)),
        ("1: 2", ("1",)),
        ("version: 2", ("version",)),
        ("version: '1'", ("version",)),
        ("directory: 5", ("directory",)),
        ("track: yes", ("track",)),
        ("remote: [a]", ("remote",)),
        ("best: loss", ("best",)),
        ("best: {monitor: loss}", ("best", "mode")),
        ("best: {monitor: loss, mode: lowest}", ("best", "mode")),
        ("best: {monitor: 2020-01-01, mode: 1}", ("best", "mode")),
        ("checkout:", ("checkout",)),
        ("checkout: {link: softlink}", ("checkout", "link")),
        ("checkout: {on_commit: 'yes'}", ("checkout", "on_commit")),
        ("checkout: {nope: 1}", ("checkout", "nope")),
        ("[1]", ()),
        ("text", ()),
    ],
)
def test_a_wrong_key_or_value_is_named(text: str, location: tuple[str, ...]):
    with pytest.raises(Malformed) as caught:
        parse(yaml.safe_load(text))

    assert caught.value.location == location
    assert caught.value.why


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({"directory": "../x"}, "../x"),
        ({"directory": "/abs"}, "/abs"),
        ({"directory": "."}, "."),
        ({"directory": ".git"}, ".git"),
        ({"track": "a b"}, "a b"),
        ({"track": "no"}, "no"),
        ({"remote": "a b"}, "a b"),
        ({"remote": "x\n[core]"}, "x\n[core]"),
    ],
)
def test_a_value_that_types_allow_and_we_cannot_use_is_named(document: dict[str, Any], named: str):
    with pytest.raises(Malformed) as caught:
        parse(document)

    assert f"'{named}'" in caught.value.why


@pytest.mark.parametrize("name", ["", "-x", "1st", "no", "true", "x" * 65, "é", "a/b"])
def test_a_remote_has_a_name_that_yaml_takes_for_text(name: str):
    with pytest.raises(Malformed, match="name of a remote"):
        parse({"remote": name})


@pytest.mark.parametrize(
    "text",
    ["2020-01-01: x", "!!binary aGk=: 1", "a: &x {b: *x}", "&a [*a]", "a: " + "[" * 3000],
    ids=["date", "bytes", "loop", "loop of lists", "deep"],
)
def test_a_document_that_json_has_not_is_a_mistake_too(text: str, tmp_path: Path):
    (tmp_path / "ckpt.yaml").write_text(text)

    with pytest.raises(BadConfig):
        read_config(tmp_path, tmp_path / "none" / "config.json")


def test_aliases_are_not_multiplied(tmp_path: Path):
    levels = "\n".join(f"l{n + 1}: &l{n + 1} [{', '.join([f'*l{n}'] * 8)}]" for n in range(6))
    (tmp_path / "ckpt.yaml").write_text(f"l0: &l0 x\n{levels}\n")

    tracemalloc.start()
    with pytest.raises(BadConfig):
        read_config(tmp_path, tmp_path / "none" / "config.json")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 1 << 20


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("version: 1\nnope: 1\n", 2, "nope"),
        ("# a\n\ncheckout:\n  on_commit: true\n  link: softlink\n", 5, "checkout.link"),
        ("best:\n  monitor: a\n", 1, "best.mode"),
    ],
)
def test_the_file_and_the_line_of_a_mistake_are_named(text: str, line: int, key: str, tmp_path: Path):
    (tmp_path / "ckpt.yaml").write_text(text)

    with pytest.raises(BadConfig) as caught:
        read_config(tmp_path, tmp_path / "none" / "config.json")

    assert f"ckpt.yaml', line {line}" in caught.value.what
    assert f"'{key}'" in caught.value.why
    assert caught.value.facts == {"key": key, "line": line}
