"""Every text is a revision or a mistake of usage, and a selector means what its parts say."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from ckptvcs.domain.revisions import AtStep, Best, Latest, Plain, mode_of, parse
from ckptvcs.errors import UsageError

_branches = st.text(st.characters(exclude_characters="@", exclude_categories=("Cs",)), max_size=10)
_selector = re.compile(r"@(latest|best|step)(:|\Z)")
_words = st.sampled_from(["@", "latest", "best", "step", ":", "1", "main", "loss", "\n", "{", "}", "~", "é"])


@given(st.text(max_size=20) | st.lists(_words, max_size=8).map("".join))
def test_any_text_is_parsed_or_refused(text: str):
    try:
        found = parse(text)
    except UsageError:
        assert not text or _selector.search(text)
    else:
        assert isinstance(found, Plain) == (_selector.search(text) is None)


@given(_branches, st.integers(0, 10**18 - 1))
def test_a_step_is_read(branch: str, step: int):
    assert parse(f"{branch}@step:{step}") == AtStep(branch or None, step)


@given(_branches, _branches)
def test_a_metric_is_read(branch: str, metric: str):
    expected = Best(branch or None, metric or None)

    assert parse(f"{branch}@best:{metric}" if metric else f"{branch}@best") == expected


@given(_branches)
def test_the_latest_is_read(branch: str):
    assert parse(f"{branch}@latest") == Latest(branch or None)


@given(_branches.filter(bool))
def test_a_text_without_a_selector_is_left_to_git_as_it_is(text: str):
    assert parse(text) == Plain(text)


@given(st.text(max_size=20))
def test_the_mode_of_a_metric_does_not_depend_on_case_or_separators(metric: str):
    ascii_ = "".join(c for c in metric if c.isascii())

    assert mode_of(ascii_.upper()) == mode_of(ascii_.lower()) == mode_of(f"eval/{ascii_}.")
