"""The page on policies of saves: its examples can be used, and what it says of numbers is so."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from ckptvcs.cli import policy
from ckptvcs.domain import schema
from ckptvcs.domain.calibration import Life, Recorded, proposal
from ckptvcs.domain.cost import best_interval_s
from ckptvcs.domain.policy import Save
from ckptvcs.porcelain.calibrate import Calibration

PAGE = (Path(__file__).parents[2] / "docs/howto/save-policy.md").read_text(encoding="utf-8")
EXAMPLES = [block for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "margin" not in block]


@pytest.mark.parametrize("block", EXAMPLES)
def test_the_examples_can_be_used(block: str):
    assert schema.parse(yaml.safe_load(block)).save is not None


def test_every_key_has_an_example():
    named = {key for block in EXAMPLES for key in yaml.safe_load(block)["save"]}

    assert named == {field.name for field in dataclasses.fields(Save)}


def test_the_interval_of_the_page_is_that_of_the_formula():
    assert "a cost of 10 s and a failure every 6 hours, a save every 11 minutes" in " ".join(PAGE.split())
    assert best_interval_s(10, 6 * 3600, 0.035) / 60 == pytest.approx(11, abs=0.5)


def test_the_calibration_of_the_page_is_what_the_verb_says(capsys: pytest.CaptureFixture[str]):
    recorded = Recorded(
        costs_s=[2.4] * 2100 + [3.1] * 300,
        durations_s=[21.0] * 2100 + [26.0] * 300,
        gaps_s=[150.0] * 2380,
        lives=[
            *[Life(run=f"run {n % 3}", uptime_s=6 * 3600.0, how="exception") for n in range(14)],
            *[Life(run=f"run {n}", uptime_s=16 * 3600.0 / 3, how="closed") for n in range(3)],
        ],
    )
    (example,) = re.findall(r"<!-- example: calibrate -->\n```text\n(.*?)```", PAGE, re.DOTALL)

    policy._say(Calibration(proposal=proposal(recorded, overhead=0.035), source="ledger"))

    assert capsys.readouterr().out == example
