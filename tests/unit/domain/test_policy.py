"""The values of `ckpt.yaml` check themselves, whoever makes them."""

from __future__ import annotations

import dataclasses

import pytest

from ckptvcs.domain.policy import Best, Checkout, Config


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


@pytest.mark.parametrize("cls", [Config, Best, Checkout])
def test_every_key_is_described_for_the_reference(cls: type):
    for field in dataclasses.fields(cls):
        assert field.metadata["description"], field.name


def test_a_configuration_does_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().track = "other"  # type: ignore[misc]
