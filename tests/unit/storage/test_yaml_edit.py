"""One value of the user's file is changed, and nothing else of it."""

from __future__ import annotations

import pytest
import yaml

from ckptvcs.storage.yaml_edit import with_value

TEXT = """\
# how we keep checkpoints
version: 1   # of the schema
track: 'teacher'

save:
    every_n_steps: 1000  # measured
    on_event: [a, "b"]
"""


def test_comments_order_quotes_and_indents_stay():
    changed = with_value(TEXT, ["remotes", "archive", "tier"], "cold")

    assert changed == TEXT + "remotes:\n    archive:\n        tier: cold\n"


def test_what_was_put_in_is_taken_out_with_what_is_empty_then():
    changed = with_value(TEXT, ["remotes", "archive", "tier"], "cold")

    assert with_value(changed, ["remotes", "archive", "tier"], None) == TEXT
    assert with_value(TEXT, ["remotes", "archive", "tier"], None) == TEXT


def test_others_stay():
    text = "remotes:\n  a: {tier: cold}   # far away\n"

    changed = with_value(text, ["remotes", "b", "tier"], "cold")

    assert yaml.safe_load(changed) == {"remotes": {"a": {"tier": "cold"}, "b": {"tier": "cold"}}}
    assert "# far away" in changed
    assert yaml.safe_load(with_value(changed, ["remotes", "a", "tier"], None)) == {"remotes": {"b": {"tier": "cold"}}}


@pytest.mark.parametrize("text", ["", "# nothing yet", "\n", "---\n"])
def test_where_there_is_nothing_something_begins(text: str):
    changed = with_value(text, ["remotes", "a", "tier"], "cold")

    assert yaml.safe_load(changed) == {"remotes": {"a": {"tier": "cold"}}}
    assert changed.startswith(text.partition("-")[0])


@pytest.mark.parametrize("text", ["[1]", "remotes: 3", "a: &x 1\nb: *x", "a: [", "a: 1\n---\nb: 2"])
def test_what_cannot_be_changed_alone_is_refused(text: str):
    with pytest.raises(ValueError):  # noqa: PT011 - why is YAML's to say
        with_value(text, ["remotes", "a", "tier"], "cold")
