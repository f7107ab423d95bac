"""The values of `ckpt.yaml` check themselves, whoever makes them."""

from __future__ import annotations

import dataclasses

import pytest

from ckptvcs.domain.policy import (
    BadValue,
    Best,
    Checkout,
    Config,
    Improvement,
    Interval,
    Plateau,
    Preemption,
    Save,
)


def test_the_defaults_can_be_used():
    config = Config()

    assert (config.directory, config.track, config.remote) == ("checkpoints", "model", None)
    assert config.checkout == Checkout(link="auto", on_commit=True)


@pytest.mark.parametrize(
    "changes", [{"directory": "a/../b"}, {"directory": ""}, {"track": "2"}, {"remote": "a/b"}], ids=str
)
def test_values_that_cannot_be_used_are_refused(changes: dict[str, str]):
    with pytest.raises(ValueError, match="cannot"):
        Config(**changes)


@pytest.mark.parametrize("cls", [Config, Best, Checkout, Save, Improvement, Plateau, Preemption, Interval])
def test_every_key_is_described_for_the_reference(cls: type):
    for field in dataclasses.fields(cls):
        assert field.metadata["description"], field.name


def test_a_configuration_does_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().track = "other"  # type: ignore[misc]


# ----------------------------------------------------------------------------------------------------------------- save


def test_a_policy_that_says_nothing_saves_nothing():
    assert Save() == Save(on_event=(), on_preemption=None, on_exception=False, on_exit=False, interval=None)
    assert (Save().when_busy, Save().grade) == ("wait", None)


@pytest.mark.parametrize(
    ("make", "changes", "key"),
    [
        (Save, {"every_n_steps": 0}, "every_n_steps"),
        (Save, {"every_n_steps": -3}, "every_n_steps"),
        (Save, {"every_n_epochs": 0}, "every_n_epochs"),
        (Save, {"every_n_seconds": 0.0}, "every_n_seconds"),
        (Save, {"every_n_seconds": float("nan")}, "every_n_seconds"),
        (Save, {"every_n_seconds": float("inf")}, "every_n_seconds"),
        (Save, {"on_event": ("drift", "a b")}, "on_event"),
        (Save, {"on_event": ("",)}, "on_event"),
        (Improvement, {"monitor": ""}, "monitor"),
        (Improvement, {"monitor": "loss", "min_delta": -0.1}, "min_delta"),
        (Improvement, {"monitor": "loss", "min_delta": float("nan")}, "min_delta"),
        (Improvement, {"monitor": "loss", "min_interval": -1}, "min_interval"),
        (Improvement, {"monitor": "gap"}, "mode"),
        (Plateau, {"monitor": "gap"}, "mode"),
        (Plateau, {"monitor": "loss", "patience": 0}, "patience"),
        (Plateau, {"monitor": "loss", "min_delta": float("inf")}, "min_delta"),
        (Preemption, {"signals": ("SIGKILL",)}, "signals"),
        (Preemption, {"signals": ("SIGSTOP",)}, "signals"),
        (Preemption, {"signals": ("term",)}, "signals"),
        (Preemption, {"grace_s": 0.0}, "grace_s"),
        (Interval, {"overhead": 0.0}, "overhead"),
        (Interval, {"overhead": 1.5}, "overhead"),
        (Interval, {"mtbf_s": -1.0}, "mtbf_s"),
    ],
)
def test_a_policy_of_saves_that_cannot_be_used_is_refused(make: type, changes: dict, key: str):
    with pytest.raises(BadValue) as caught:
        make(**changes)

    assert caught.value.key == key


@pytest.mark.parametrize("make", [Improvement, Plateau])
def test_the_mode_may_be_left_out_where_the_name_of_the_metric_tells(make: type):
    assert make(monitor="val_loss").direction == "min"
    assert make(monitor="val_acc").direction == "max"
    assert make(monitor="gap", mode="max").direction == "max"
    assert make(monitor="val_loss", mode="max").direction == "max"
