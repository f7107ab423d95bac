"""The documents do what they say: every command of README, tutorial, how-tos and transcripts is run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from ckptvcs.domain import policy, schema
from tests.support.transcripts import Step, differences, matches, steps

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "docs/tutorial.md",
    *sorted((ROOT / "docs/howto").glob("*.md")),
    *sorted((ROOT / "tests/e2e/transcripts").glob("*.md")),
]


LONG = ("lightning", "transformers")
"""Pages on which a framework is imported by one process after another, each of which takes seconds for it."""


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, id=page.stem, marks=[pytest.mark.long] if page.stem in LONG else []) for page in PAGES],
)
def test_a_page_tells_the_truth(page: Path, tmp_path: Path):
    text = page.read_text(encoding="utf-8")
    assert any(isinstance(step, Step) for step in steps(text)), "the page runs nothing"

    found = differences(text, tmp_path)

    assert not found, (
        "\n\n".join(found) + f"\n\nto accept: python -m tests.support.transcripts {page.relative_to(ROOT)}"
    )


def policies(page: str) -> list[str]:
    return re.findall(r"^```yaml\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("text", policies("docs/howto/retention.md"))
def test_a_policy_of_the_page_can_be_used(text: str):
    found = schema.parse(yaml.safe_load(text))

    assert isinstance(found, policy.Config)
    assert found.retain is not None


@pytest.mark.parametrize(
    ("expected", "actual", "same"),
    [
        ("checkpoint 1aba886d0b step 3", "checkpoint 49b5e1416b step 3", True),
        ("checkpoint 1aba886d0b step 3", "checkpoint 49b5e1416b step 4", False),
        ("at 2026-11-21 13:38", "at 2027-01-01 00:00", True),
        ("26.8 kB", "26.9 kB", True),
        ("1.5 kB", "2.5 kB", False),
        ("1.5 kB", "1.5 MB", False),
        ("loss 0.12345", "loss 0.12346", True),
        ("a\n...\nz", "a\nb\nc\nz", True),
        ("a\n...\nz", "a\nb", False),
    ],
)
def test_only_what_differs_from_run_to_run_may_differ(expected: str, actual: str, same: bool):
    assert matches(expected, actual) is same


def test_numbers_that_are_equal_on_the_page_must_be_equal():
    numbers: dict[str, str] = {}

    assert matches("loss 0.12345", "loss 0.12346", numbers)
    assert matches("again 0.12345", "again 0.12346", numbers)
    assert not matches("again 0.12345", "again 0.12347", numbers)
