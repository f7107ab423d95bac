"""Alerts are rules over facts: what is told, how bad it is, and what is said to do; and the forecast."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from ckptvcs.domain import alerts, exposition, schema
from ckptvcs.domain.alerting import Alerts
from ckptvcs.domain.alerts import Alert, Facts, Filled, Golden, Restored, RunUnderWay
from ckptvcs.domain.exposition import Metric, Sample

HOUR, DAY = 3600.0, 86400.0
NOW = 100 * DAY


def limits(**said) -> Alerts:
    found = schema.parse({"alerts": said}).alerts
    assert found is not None
    return found


def kinds(found: tuple[Alert, ...]) -> list[tuple[str, str]]:
    return [(one.kind, one.severity) for one in found]


def test_without_limits_nothing_is_told():
    full = Facts(now=NOW, added={7 * DAY: 10**15}, silent={"store": "gone"})

    assert alerts.found(full, None) == ()


def test_growth_is_told_when_it_is_more_than_the_limit_and_not_at_it():
    wanted = limits(growth={"max_bytes": "1GB", "period": "1w"})

    assert alerts.found(Facts(now=NOW, added={7 * DAY: 10**9}), wanted) == ()
    (told,) = alerts.found(Facts(now=NOW, added={7 * DAY: 10**9 + 1}), wanted)

    assert (told.kind, told.value, told.limit) == ("growth", 10**9 + 1, 10**9)


@pytest.mark.parametrize(
    ("nbytes", "limit", "rate", "left"),
    [(0, 100, 10, 10), (100, 100, 10, 0), (101, 100, 0, 0), (50, 100, 0, math.inf), (90, 100, 0.5, 20)],
)
def test_the_forecast_is_a_straight_line(nbytes: int, limit: int, rate: float, left: float):
    assert alerts.full_in_s(nbytes, limit, rate) == left


def test_what_is_younger_than_the_period_grew_in_less_time_but_not_less_than_a_day():
    assert alerts.rate(700, 7 * DAY, age_s=100 * DAY) == 100 / DAY
    assert alerts.rate(700, 7 * DAY, age_s=2 * DAY) == 350 / DAY
    assert alerts.rate(700, 7 * DAY, age_s=60) == 700 / DAY
    assert alerts.rate(-5, 7 * DAY, age_s=60) == 0


def test_a_place_is_told_when_it_is_full_within_the_span():
    wanted = limits(quota={"places": {"hot": "1kB", "store": "1kB"}, "within": "10d", "period": "1d"})

    def told(nbytes: int, added: int) -> tuple[Alert, ...]:
        place = Filled(place="store", nbytes=nbytes, objects=1, added={DAY: added})
        return alerts.found(Facts(now=NOW, oldest=0.0, places=[place]), wanted)

    assert told(500, 49) == ()
    (soon,) = told(500, 50)
    (full,) = told(1000, 0)
    assert (soon.severity, soon.facts["full_in_s"]) == ("warning", 10 * DAY)
    assert "10 days" in soon.what
    assert (full.severity, full.facts["full_in_s"]) == ("critical", 0.0)
    assert told(999, 0) == ()


def test_a_run_would_lose_what_it_did_since_its_last_save_or_since_it_began():
    wanted = limits(save_within="2h")

    def told(began: float, newest: float | None) -> list[tuple[str, str]]:
        run = RunUnderWay(run="a", branch="a", began=NOW - began, newest=None if newest is None else NOW - newest)
        return kinds(alerts.found(Facts(now=NOW, runs=[run]), wanted))

    assert told(10 * HOUR, 2 * HOUR) == []
    assert told(10 * HOUR, 2 * HOUR + 1) == [("save", "critical")]
    assert told(HOUR, 50 * HOUR) == []  # it goes on from an old one, and has worked for an hour
    assert told(3 * HOUR, 50 * HOUR) == [("save", "critical")]
    assert told(3 * HOUR, None) == [("save", "critical")]


def test_a_restore_is_told_that_took_too_long():
    wanted = limits(restore_within="10min")
    last = Restored(checkpoint="c", by="restore", time=NOW, seconds=600.0)

    assert alerts.found(Facts(now=NOW, restored=last), wanted) == ()
    (told,) = alerts.found(Facts(now=NOW, restored=replace(last, seconds=601.0)), wanted)

    assert "restore took 10" in told.what


def test_checkpoints_that_are_nowhere_else_are_told_at_once_not_one_by_one():
    wanted = limits(push_within="12h")
    facts = Facts(now=NOW, unpushed=[("a", NOW - DAY), ("b", NOW - 13 * HOUR), ("c", NOW - HOUR)])

    (told,) = alerts.found(facts, wanted)

    assert told.facts == {"checkpoints": ["a", "b"], "count": 2}
    assert told.value == DAY


def test_a_golden_mark_wants_a_proof_now_and_then():
    wanted = limits(proof_within="30d")

    def told(**facts: float) -> list[tuple[str, str]]:
        mark = Golden(tag="golden/a", checkpoint="c", **{"since": NOW - 90 * DAY, **facts})
        return kinds(alerts.found(Facts(now=NOW, golden=[mark]), wanted))

    assert told() == [("proof", "warning")]
    assert told(since=NOW - 29 * DAY) == []
    assert told(proved=NOW - 29 * DAY) == []
    assert told(proved=NOW - 31 * DAY) == [("proof", "warning")]
    assert told(failed=NOW - DAY) == [("proof", "critical")]


def test_the_worst_comes_first_and_a_silent_place_is_bad():
    wanted = limits(growth={"max_bytes": "1B"})

    found = alerts.found(Facts(now=NOW, added={7 * DAY: 5}, silent={"store": "connection refused"}), wanted)

    assert kinds(found) == [("place", "critical"), ("growth", "warning")]


def test_names_from_outside_do_no_harm():
    mark = Golden(tag="golden/$(rm -rf .);\x1b[2J", checkpoint="c", since=0.0)
    run = RunUnderWay(run="\x1b[2J", branch="b", began=0.0, newest=None)

    found = alerts.found(Facts(now=NOW, golden=[mark], runs=[run]), limits(proof_within="1d", save_within="1h"))

    assert all("\x1b" not in one.what + one.next_step for one in found)
    assert any("restore 'golden/$(rm -rf .);" in one.next_step for one in found)


@pytest.mark.parametrize(
    ("said", "key"),
    [
        ({"growth": {"max_bytes": "1 potato"}}, ("alerts", "growth", "max_bytes")),
        ({"growth": {"max_bytes": "1GB", "period": "0d"}}, ("alerts", "growth", "period")),
        ({"quota": {"places": {}}}, ("alerts", "quota", "places")),
        ({"quota": {"places": {"hot": "big"}}}, ("alerts", "quota", "places")),
        ({"save_within": "soon"}, ("alerts", "save_within")),
        ({"command": ["", "x"]}, ("alerts", "command")),
        ({"command": "curl"}, ("alerts", "command")),
        ({"timeout_s": 0}, ("alerts", "timeout_s")),
        ({"grow": {}}, ("alerts", "grow")),
    ],
)
def test_a_mistake_is_told_with_its_key(said: dict, key: tuple[str, ...]):
    with pytest.raises(schema.Malformed) as caught:
        schema.parse({"alerts": said})

    assert caught.value.location == key


# ---------------------------------------------------------------------------------------------------------- prometheus


def test_the_text_is_what_the_format_wants():
    metric = Metric(
        name="a_bytes",
        what="Back\\slash\nand line.",
        samples=(Sample(value=5, labels={"x": 'q"\\\n'}), Sample(value=0.5)),
    )

    text = exposition.text_of([metric, Metric(name="none", what="", samples=())])

    assert text == (
        '# HELP a_bytes Back\\\\slash\\nand line.\n# TYPE a_bytes gauge\na_bytes{x="q\\"\\\\\\n"} 5\na_bytes 0.5\n'
    )


def test_an_independent_parser_reads_back_what_was_said():
    parser = pytest.importorskip("prometheus_client.parser", reason="prometheus_client is in the extra 'dev'")
    labels = ["plain", 'q"uote', "back\\slash", "line\nbreak", "ünïcode", "a,b={}", ""]
    values = [0.0, 1.0, -2.5, 1e300, 123456789012345678, math.inf, -math.inf]
    samples = tuple(Sample(value=v, labels={"name": name}) for v, name in zip(values, labels, strict=True))

    text = exposition.text_of([Metric(name="m", what="What it is.", samples=samples)], labels={"repository": "r"})

    (family,) = parser.text_string_to_metric_families(text)
    assert (family.name, family.type, family.documentation) == ("m", "gauge", "What it is.")
    assert [(s.value, s.labels["name"], s.labels["repository"]) for s in family.samples] == [
        (value, name, "r") for value, name in zip(values, labels, strict=True)
    ]


@pytest.mark.parametrize(("name", "label"), [("a-b", "x"), ("", "x"), ("1a", "x"), ("a", "x-y"), ("a", "__x")])
def test_what_cannot_be_a_name_is_refused(name: str, label: str):
    with pytest.raises(ValueError, match="cannot be the name"):
        exposition.text_of([Metric(name=name, what="", samples=(Sample(value=1, labels={label: ""}),))])


def test_a_name_that_is_no_utf8_can_be_written():
    text = exposition.text_of([Metric(name="a", what="", samples=(Sample(value=1, labels={"b": "x\udcff"}),))])

    assert text.encode("utf-8").endswith(b'{b="x?"} 1\n')
