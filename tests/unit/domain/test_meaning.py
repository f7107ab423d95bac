"""What two policies mean differently: not how they are written, and each thing once."""

from __future__ import annotations

import random

import pytest

from ckptvcs.domain import meaning, schema
from ckptvcs.domain.keeping import Retain
from ckptvcs.domain.meaning import Change


def retain(*keep: dict, **more) -> Retain:
    found = schema.parse({"retain": {"keep": list(keep), **more}}).retain
    assert found is not None
    return found


def words(changes: tuple[Change, ...]) -> list[tuple[str, str, str]]:
    return [
        (one.how, one.what.partition(": ")[2] if one.section == "retain" else one.what, one.before) for one in changes
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"keep_within": "7d"}, {"keep_within": "1w"}),
        ({"keep_last": 3, "max_bytes": "1TB"}, {"keep_last": 3, "max_bytes": "1000GB"}),
        ({"keep_last": 3}, {"keep_last": 3, "branches": ["*"], "tracks": ["*"]}),
        ({"keep_last": 3, "branches": ["a", "b"]}, {"keep_last": 3, "branches": ["b", "a", "a"]}),
        ({"keep_last": 3, "branches": ["a", "*"]}, {"keep_last": 3}),
        ({"keep_best": {"monitor": "val_loss"}}, {"keep_best": {"monitor": "val_loss", "mode": "min", "n": 1}}),
    ],
)
def test_what_is_written_otherwise_means_the_same(one: dict, other: dict):
    assert meaning.of_retain(retain(one), retain(other)) == ()


def test_order_and_repetition_mean_nothing():
    rules = [{"keep_last": n, "branches": [b]} for n in (1, 2) for b in ("a", "b", "c")]
    shuffled = [*rules, *rules]
    random.Random(5).shuffle(shuffled)

    assert meaning.of_retain(retain(*rules), retain(*shuffled)) == ()


def test_rules_of_one_entry_are_rules_by_themselves():
    together = retain({"keep_last": 3, "keep_every": "1d"})
    apart = retain({"keep_every": "24h"}, {"keep_last": 3})

    assert meaning.of_retain(together, apart) == ()


def test_a_rule_is_added_removed_or_changed():
    before = retain({"keep_last": 3, "keep_every": "1d"}, grace="7d")
    after = retain({"keep_last": 2, "keep_within": "30d"}, grace="3d")

    assert sorted(words(meaning.of_retain(before, after)))[:3] == [
        ("added", "those that are younger than 30d", ""),
        (
            "changed",
            "how long what nothing keeps any more is condemned before it is swept; at a remote at least 24 hours",
            "7d",
        ),
        ("changed", "the newest 2", "the newest 3"),
    ]
    assert ("removed", "the first of each 1d", "") in words(meaning.of_retain(before, after))


def test_a_condition_is_part_of_what_a_rule_means():
    before = retain({"keep_last": 3, "branches": ["exp/*"]})
    after = retain({"keep_last": 3, "branches": ["exp/*"], "ttl": "90d", "max_bytes": "5GB"})

    (change,) = meaning.of_retain(before, after)

    assert change.what == "on branches 'exp/*': the newest 3, unless older than 90d, at most 5GB of each line"
    assert change.before == "the newest 3"


def test_no_rules_at_all_is_to_keep_everything():
    first, *rules = meaning.of_retain(None, retain({"keep_last": 3}))

    assert (first.how, first.before) == ("changed", "nothing is said: everything is kept")
    assert [rule.how for rule in rules] == ["added"]
    assert meaning.of_retain(None, None) == ()
    (back,) = meaning.of_retain(retain({"keep_last": 3}), None)
    assert "everything is kept" in back.what


def test_saves_are_compared_key_by_key():
    def save(**said):
        return schema.parse({"save": said}).save

    changes = meaning.of_section(
        "save",
        save(every_n_steps=100, on_event=["b", "a"], on_exit=True, interval="auto"),
        save(every_n_steps=200, on_event=["a", "b"], on_preemption=True, interval={"overhead": 0.035}),
    )

    assert {(one.how, one.what.partition(":")[0], one.before) for one in changes} == {
        ("changed", "every_n_steps 200", "100"),
        ("added", "on_preemption.signals SIGTERM, SIGUSR1", ""),
        ("added", "on_preemption.grace_s 30.0", ""),
        ("removed", "on_exit true", ""),
    }
