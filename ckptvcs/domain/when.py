"""Times as people type them: a day, a moment, or so long from now."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Final

from ckptvcs.errors import UsageError
from ckptvcs.paths import printable

_SPAN: Final = re.compile(r"(\d{1,6})(min|h|d|w)\Z")
_UNITS: Final = {"min": "minutes", "h": "hours", "d": "days", "w": "weeks"}
SPANS: Final = "a whole number of min, h, d or w, such as 30min, 12h, 7d or 2w"
"""What can be written where a span is asked for."""


def span(text: str) -> timedelta | None:
    """How long `30min`, `12h`, `7d` or `2w` are; None for anything else."""
    found = _SPAN.match(text)
    return timedelta(**{_UNITS[found[2]]: int(found[1])}) if found is not None else None


def moment(text: str, now: datetime, *, ahead: bool) -> datetime:
    """The moment that a text means.

    Args:
        text: `2026-12-31`, `2026-12-31T18:00`, the same with an offset, or `30min`, `12h`, `7d`, `2w` from now. Without an
            offset it is the time of this place; a day begins at midnight.
        now: the time now, with the offset of this place.
        ahead: whether a span lies ahead of now; else it is past.

    Raises:
        UsageError: it means nothing.
    """
    try:
        if (length := span(text)) is not None:
            return now + length if ahead else now - length
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except (ValueError, OverflowError) as err:
        raise UsageError(
            f"cannot tell when '{printable(text)}' is",
            why="it is no date, no time, and no span",
            next_step="write 2026-12-31, 2026-12-31T18:00, or a span such as 12h, 7d, 2w",
        ) from err
    return found if found.tzinfo is not None else found.replace(tzinfo=now.tzinfo or timezone.utc)
