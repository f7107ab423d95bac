"""Times as people type them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from ckptvcs.domain.when import moment
from ckptvcs.errors import UsageError

HERE = timezone(timedelta(hours=2))
NOW = datetime(2026, 6, 15, 12, 0, tzinfo=HERE)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2026-12-31", datetime(2026, 12, 31, tzinfo=HERE)),
        ("2026-12-31T18:00", datetime(2026, 12, 31, 18, tzinfo=HERE)),
        ("2026-12-31 18:00:05", datetime(2026, 12, 31, 18, 0, 5, tzinfo=HERE)),
        ("2026-12-31T18:00Z", datetime(2026, 12, 31, 18, tzinfo=timezone.utc)),
        ("2026-12-31T18:00-05:00", datetime(2026, 12, 31, 23, tzinfo=timezone.utc)),
        ("30min", NOW + timedelta(minutes=30)),
        ("12h", NOW + timedelta(hours=12)),
        ("7d", NOW + timedelta(days=7)),
        ("2w", NOW + timedelta(weeks=2)),
    ],
)
def test_a_date_a_time_or_a_span(text: str, found: datetime):
    assert moment(text, NOW, ahead=True) == found


def test_a_span_may_be_past():
    assert moment("7d", NOW, ahead=False) == NOW - timedelta(days=7)


@pytest.mark.parametrize("text", ["", "soon", "7", "d", "-7d", "2026-13-01", "31.12.2026", "999999w", "7 d", "1.5d"])
def test_what_means_nothing_is_refused(text: str):
    with pytest.raises(UsageError, match="cannot tell when"):
        moment(text, NOW, ahead=True)
