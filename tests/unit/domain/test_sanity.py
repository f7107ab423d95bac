"""When a collection stops for a person: each stop where it belongs, and none where all is in order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ckptvcs.domain.sanity import Facts, Going, Refs, stops

GOING = Going(place="store", objects=2, nbytes=10, total=100, skew_s=1.0)
USUAL = Facts(
    kept=9,
    dropped=2,
    refs=[Refs(where="here", count=10, before=10), Refs(where="there", count=5, before=None)],
    unreadable=(),
    policy="p",
    policy_before="p",
    policy_committed=True,
    going=[GOING],
    silent=(),
)


def kinds(facts: Facts, **agreed: Any) -> list[str]:
    return [stop.kind for stop in stops(facts, **agreed)]


def test_the_usual_goes_without_a_word():
    assert kinds(USUAL) == []
    assert kinds(replace(USUAL, policy_before=None)) == []
    assert kinds(replace(USUAL, refs=[Refs(where="here", count=8, before=10)])) == []


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"unreadable": ["a manifest"]}, "unreadable"),
        ({"silent": ["other.git"]}, "silent"),
        ({"unsaid": True}, "unsaid"),
        ({"kept": 0}, "empty"),
        ({"refs": [Refs(where="here", count=7, before=10)]}, "refs"),
        ({"policy_before": "other"}, "policy"),
        ({"policy_committed": False}, "policy"),
        ({"going": [replace(GOING, skew_s=301.0)]}, "clock"),
        ({"going": [replace(GOING, skew_s=-301.0)]}, "clock"),
        ({"going": [replace(GOING, nbytes=31)]}, "much"),
    ],
)
def test_what_is_out_of_the_ordinary_stops(changes: dict[str, Any], kind: str):
    (stop,) = stops(replace(USUAL, **changes))

    assert stop.kind == kind
    assert stop.next_step


@pytest.mark.parametrize(
    ("changes", "agreed"),
    [
        ({"refs": [Refs(where="here", count=1, before=10)]}, {"yes_delete": 2}),
        ({"going": [replace(GOING, nbytes=99)]}, {"yes_delete": 2}),
        ({"policy_before": "other"}, {"accept_policy": True}),
    ],
)
def test_what_a_person_agreed_to_goes(changes: dict[str, Any], agreed: dict[str, Any]):
    assert kinds(replace(USUAL, **changes), **agreed) == []


def test_another_number_is_no_agreement_and_some_things_cannot_be_agreed_to():
    much = replace(USUAL, going=[replace(GOING, nbytes=99)])
    assert kinds(much, yes_delete=3) == ["much"]
    worse = replace(USUAL, unreadable=["x"], silent=["y"], kept=0, policy_committed=False)
    assert kinds(worse, yes_delete=2, accept_policy=True) == ["unreadable", "silent", "empty", "policy"]


def test_refs_that_are_gone_are_no_matter_where_nothing_goes():
    few = replace(USUAL, refs=[Refs(where="here", count=1, before=10)])

    assert kinds(replace(few, going=[replace(GOING, objects=0, nbytes=0)])) == []
