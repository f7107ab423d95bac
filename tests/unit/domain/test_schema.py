"""`ckpt.yaml` becomes values, or a complaint that names the key."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import yaml

from ckptvcs.domain.policy import Best, Checkout, Config, Improvement, Interval, Plateau, Preemption, Save
from ckptvcs.domain.schema import Malformed, parse, parse_save
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
        ("save: auto", ("save",)),
        ("save: {nope: 1}", ("save", "nope")),
        ("save: {every_n_steps: 1.5}", ("save", "every_n_steps")),
        ("save: {every_n_steps: true}", ("save", "every_n_steps")),
        ("save: {every_n_steps: 0}", ("save", "every_n_steps")),
        ("save: {every_n_epochs: '1'}", ("save", "every_n_epochs")),
        ("save: {every_n_seconds: .inf}", ("save", "every_n_seconds")),
        ("save: {every_n_seconds: 10m}", ("save", "every_n_seconds")),
        ("save: {on_improvement: val_loss}", ("save", "on_improvement")),
        ("save: {on_improvement: {mode: min}}", ("save", "on_improvement", "monitor")),
        ("save: {on_improvement: {monitor: gap}}", ("save", "on_improvement", "mode")),
        ("save: {on_improvement: {monitor: loss, mode: lowest}}", ("save", "on_improvement", "mode")),
        ("save: {on_improvement: {monitor: loss, min_interval: -1}}", ("save", "on_improvement", "min_interval")),
        ("save: {on_plateau: {monitor: loss, patience: 0}}", ("save", "on_plateau", "patience")),
        ("save: {on_event: drift}", ("save", "on_event")),
        ("save: {on_event: [drift, 3]}", ("save", "on_event", 1)),
        ("save: {on_event: ['a b']}", ("save", "on_event")),
        ("save: {on_preemption: 'yes'}", ("save", "on_preemption")),
        ("save: {on_preemption: 1}", ("save", "on_preemption")),
        ("save: {on_preemption: {signals: [SIGKILL]}}", ("save", "on_preemption", "signals")),
        ("save: {on_preemption: {grace_s: -1}}", ("save", "on_preemption", "grace_s")),
        ("save: {on_exit: 1}", ("save", "on_exit")),
        ("save: {interval: 600}", ("save", "interval")),
        ("save: {interval: never}", ("save", "interval")),
        ("save: {interval: {overhead: 3.5}}", ("save", "interval", "overhead")),
        ("save: {when_busy: queue}", ("save", "when_busy")),
        ("save: {grade: perfect}", ("save", "grade")),
        ("[1]", ()),
        ("text", ()),
    ],
)
def test_a_wrong_key_or_value_is_named(text: str, location: tuple[str, ...]):
    with pytest.raises(Malformed) as caught:
        parse(yaml.safe_load(text))

    assert caught.value.location == location
    assert caught.value.why


EVERY_TRIGGER = """
save:
  every_n_steps: 1000
  every_n_epochs: 1
  every_n_seconds: 900
  on_improvement: {monitor: val_acc, mode: max, min_delta: 0.001, min_interval: 500}
  on_plateau: {monitor: val_loss, mode: min, patience: 3, min_delta: 0.01}
  on_event: [stage_change, drift]
  on_preemption: {signals: [SIGUSR1], grace_s: 90}
  on_exception: true
  on_exit: true
  interval: {overhead: 0.02, mtbf_s: 7200}
  when_busy: skip
  grade: exact
"""


def test_every_key_of_the_policy_of_saves_may_be_given():
    assert parse(yaml.safe_load(EVERY_TRIGGER)).save == Save(
        every_n_steps=1000,
        every_n_epochs=1,
        every_n_seconds=900.0,
        on_improvement=Improvement(monitor="val_acc", mode="max", min_delta=0.001, min_interval=500),
        on_plateau=Plateau(monitor="val_loss", mode="min", patience=3, min_delta=0.01),
        on_event=("stage_change", "drift"),
        on_preemption=Preemption(signals=("SIGUSR1",), grace_s=90.0),
        on_exception=True,
        on_exit=True,
        interval=Interval(overhead=0.02, mtbf_s=7200.0),
        when_busy="skip",
        grade="exact",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("save:", None),
        ("save: {}", Save()),
        ("save: {on_preemption: true}", Save(on_preemption=Preemption())),
        ("save: {on_preemption: {}}", Save(on_preemption=Preemption())),
        ("save: {on_preemption: false}", Save()),
        ("save: {on_preemption:}", Save()),
        ("save: {interval: auto}", Save(interval=Interval(overhead=0.035, mtbf_s=None))),
        ("save: {interval: {mtbf_s: 60}}", Save(interval=Interval(overhead=0.035, mtbf_s=60.0))),
    ],
)
def test_what_is_said_in_short_means_the_same(text: str, expected: Save | None):
    assert parse(yaml.safe_load(text)).save == expected


def test_a_policy_of_saves_may_be_given_without_a_file():
    assert parse_save({"every_n_steps": 5, "interval": "auto"}) == Save(every_n_steps=5, interval=Interval())

    with pytest.raises(Malformed) as caught:
        parse_save({"on_improvement": {"monitor": "gap"}})
    assert caught.value.location == ("on_improvement", "mode")


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
        ("save:\n  interval: auto\n  on_plateau:\n    monitor: loss\n    patience: 0\n", 5, "save.on_plateau.patience"),
        ("save:\n  every_n_steps: 100\n  every_n_epochs: 0\n", 3, "save.every_n_epochs"),
        ("save:\n  on_improvement:\n    monitor: gap\n", 2, "save.on_improvement.mode"),
        ("save:\n  on_event:\n    - drift\n    - 7\n", 4, "save.on_event.1"),
        ("save:\n  on_preemption: maybe\n", 2, "save.on_preemption"),
    ],
)
def test_the_file_and_the_line_of_a_mistake_are_named(text: str, line: int, key: str, tmp_path: Path):
    (tmp_path / "ckpt.yaml").write_text(text)

    with pytest.raises(BadConfig) as caught:
        read_config(tmp_path, tmp_path / "none" / "config.json")

    assert f"ckpt.yaml', line {line}" in caught.value.what
    assert f"'{key}'" in caught.value.why
    assert caught.value.facts == {"key": key, "line": line}
