"""What two policies mean differently, in words. How they are written does not matter: `7d` is `1w`, rules have no order.

What follows for checkpoints is not said here: that takes the checkpoints.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from ckptvcs.domain.keeping import Keep, size
from ckptvcs.domain.rules import RULES
from ckptvcs.domain.when import span

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ckptvcs.domain.keeping import Retain

How = Literal["added", "removed", "changed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing that means something else than before."""

    section: str
    how: How
    what: str
    """In words; of what is removed, what was."""
    before: str = ""
    """What was, where it is changed."""


@dataclass(frozen=True, slots=True)
class _Item:
    """One thing that a policy says."""

    meaning: Any
    """Equal for what means the same."""
    words: str
    value: str = ""
    """What of it can change."""


_Items = dict[tuple[Any, ...], _Item]


def of_retain(before: Retain | None, after: Retain | None) -> tuple[Change, ...]:
    """What the rules of retention mean differently."""
    if before is None or after is None:
        return _whole("retain", before, after)
    rules = _changes("retain", _rules(before), _rules(after))
    others = _changes("retain", _values(before, without=("keep",)), _values(after, without=("keep",)))
    return (*rules, *others)


def _whole(section: str, before: Any, after: Any) -> tuple[Change, ...]:
    if before is None and after is None:
        return ()
    nothing = "nothing is said: everything is kept"
    if after is None:
        return (Change(section=section, how="changed", what=nothing, before="rules"),)
    rules = _changes(section, {}, _rules(after))
    return (Change(section=section, how="changed", what="rules say what is kept", before=nothing), *rules)


def of_section(section: str, before: Any, after: Any) -> tuple[Change, ...]:
    """What the values of any other section mean differently.

    Args:
        section: its name.
        before: its values, with what holds where nothing is said; None for a section that says nothing then.
        after: likewise.
    """
    empty: _Items = {}
    was = _values(before) if before is not None else empty
    return _changes(section, was, _values(after) if after is not None else empty)


def _changes(section: str, before: _Items, after: _Items) -> tuple[Change, ...]:
    found = []
    for key in (*after, *(key for key in before if key not in after)):
        new, old = after.get(key), before.get(key)
        if new is None:
            assert old is not None
            found.append(Change(section=section, how="removed", what=old.words))
        elif old is None:
            found.append(Change(section=section, how="added", what=new.words))
        elif old.meaning != new.meaning:
            found.append(Change(section=section, how="changed", what=new.words, before=old.value or old.words))
    return tuple(found)


# --------------------------------------------------------------------------------------------------------------- rules


def _rules(retain: Retain) -> _Items:
    """Each rule, by whom it is about, what it is, and, of several of one kind, which of them."""
    count: Counter[tuple[Any, ...]] = Counter()
    found: _Items = {}
    said = sorted(
        ((_about(keep), kind, _meaning(keep, kind), keep) for keep in retain.keep for kind in _kinds(keep)),
        key=lambda one: repr(one[:3]),
    )
    for about, kind, meaning, keep in said:
        if any(item.meaning == meaning for key, item in found.items() if key[:2] == (about, kind)):
            continue  # said twice, it means no more
        words = f"{_words(keep, kind)}{_conditions(keep)}"
        found[about, kind, count[about, kind]] = _Item(meaning, f"{_whom(keep)}: {words}", words)
        count[about, kind] += 1
    return found


def _kinds(keep: Keep) -> Iterator[str]:
    return (kind for kind in RULES if getattr(keep, kind) is not None)


def _about(keep: Keep) -> tuple[Any, ...]:
    return _patterns(keep.branches), _patterns(keep.tracks), tuple(sorted(set(keep.components)))


def _patterns(patterns: Sequence[str]) -> tuple[str, ...]:
    return ("*",) if "*" in patterns else tuple(sorted(set(patterns)))


def _meaning(keep: Keep, kind: str) -> Any:
    value = getattr(keep, kind)
    if kind == "keep_best":
        value = (value.monitor, value.direction, value.n)
    return _plain(value), _plain(keep.ttl), _plain(keep.max_bytes)


def _plain(value: Any) -> Any:
    """A value in which what means the same is equal: spans as seconds, sizes as bytes."""
    if isinstance(value, str):
        length, nbytes = span(value), size(value)
        return length.total_seconds() if length is not None else nbytes if nbytes is not None else value
    return value


def _whom(keep: Keep) -> str:
    branches, tracks = _patterns(keep.branches), _patterns(keep.tracks)
    where = "on every branch" if branches == ("*",) else f"on branches {_listed(branches)}"
    return where if tracks == ("*",) else f"{where}, tracks {_listed(tracks)}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _words(keep: Keep, kind: str) -> str:
    best = keep.keep_best
    if kind == "keep_best" and best is not None:
        return f"the best {best.n} by {best.monitor} ({best.direction})"
    return _WORDS[kind].format(getattr(keep, kind))


_WORDS: Final = {
    "keep_last": "the newest {}",
    "keep_every_n_steps": "those at multiples of {} steps",
    "keep_every": "the first of each {}",
    "keep_within": "those that are younger than {}",
}


def _conditions(keep: Keep) -> str:
    parts = ""
    if keep.components:
        parts += f", of them {_listed(sorted(set(keep.components)))} alone"
    if keep.ttl is not None:
        parts += f", unless older than {keep.ttl}"
    if keep.max_bytes is not None:
        parts += f", at most {keep.max_bytes} of each line"
    return parts


# -------------------------------------------------------------------------------------------------------------- values


def _values(section: Any, *, without: Sequence[str] = (), prefix: str = "") -> _Items:
    """The values of a section and of those in it that say something."""
    found: _Items = {}
    for field in dataclasses.fields(section):
        value, key = getattr(section, field.name), f"{prefix}{field.name}"
        if field.name in without or value is None:
            continue
        if dataclasses.is_dataclass(value):
            inner = _values(value, prefix=f"{key}.")
            found.update(inner or {(key,): _Item("said", f"{key}: {field.metadata['description']}")})
        elif value != () and value is not False:
            shown = ", ".join(map(str, value)) if isinstance(value, tuple) else _shown(value)
            meaning = tuple(sorted(value)) if isinstance(value, tuple) else _plain(value)
            found[(key,)] = _Item(meaning, f"{key} {shown}: {field.metadata['description']}", shown)
    return found


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
