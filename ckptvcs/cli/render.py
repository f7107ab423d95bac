"""Words and numbers for people and scripts: what is printed. Answers to stdout, talk to stderr."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click
import msgspec

from ckptvcs.paths import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ckptvcs.domain.checkpoint import Checkpoint
    from ckptvcs.errors import CkptvcsError

# -------------------------------------------------------------------------------------------------------------- channels


def answer(line: str = "") -> None:
    """Print to stdout. Colours are dropped where it is no terminal."""
    click.echo(line)


def answer_json(value: Any) -> None:
    """Print one JSON document to stdout."""
    text = json.dumps(plain(value), indent=2, sort_keys=True, ensure_ascii=False)
    # A name that is no UTF-8 has lone surrogates in Python; JSON can say them, a stream of UTF-8 can not.
    click.echo(re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text))


def talk(line: str) -> None:
    """Print to stderr."""
    click.echo(line, err=True)


def debugging() -> bool:
    """Whether the user wants to see where an error comes from."""
    return bool(os.environ.get("CKPT_DEBUG"))  # noqa: TID251 - a face may read the environment


def error(err: CkptvcsError, *, as_json: bool) -> None:
    """Say what failed, why, and what to do next."""
    if as_json:
        document = {"error": err.kind, "what": err.what, "why": err.why, "next": err.next_step, "facts": err.facts}
        talk(json.dumps(plain({**document, "exit": err.exit_status}), sort_keys=True))
        return
    talk(f"{click.style('error:', fg='red', bold=True)} {printable(err.what)}")
    if err.why:
        talk(f"  why:  {printable(err.why)}")
    if err.next_step:
        talk(f"  next: {printable(err.next_step)}")


def note(line: str) -> None:
    """Tell the user something that is no error."""
    talk(f"{click.style('note:', fg='yellow')} {printable(line)}")


# ---------------------------------------------------------------------------------------------------------------- values


def plain(value: Any) -> Any:  # noqa: PLR0911 - one return for each kind of value
    """A value as JSON's types."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, msgspec.Struct):
        return plain(msgspec.to_builtins(value))
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no NaN
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


def checkpoint_json(checkpoint: Checkpoint, names: Iterable[str] = ()) -> dict[str, Any]:
    """What scripts want to know of a checkpoint."""
    manifest = checkpoint.manifest
    return {
        "id": checkpoint.id,
        "commit": checkpoint.commit,
        "subject": checkpoint.subject,
        "author": checkpoint.author,
        "time": checkpoint.time,
        "names": list(names),
        "track": manifest.track,
        "run": {"id": manifest.run.id, "name": manifest.run.name},
        "step": manifest.step,
        "epoch": manifest.epoch,
        "metrics": checkpoint.metrics,
        "late_metrics": checkpoint.late,
        "params": manifest.params,
        "reason": manifest.reason,
        "grade": checkpoint.grade,
        "dropped": checkpoint.dropped,
        "bytes": manifest.nbytes,
        "parents": list(manifest.parents),
    }


def fate(checkpoint: Checkpoint) -> str:
    """What becomes of a checkpoint, in a word and a date."""
    dropped = checkpoint.dropped
    if dropped is None:
        return ""
    what = "dropped" if dropped.gone else "condemned"
    some = "" if checkpoint.is_dropped else f" {', '.join(sorted(dropped.components))}"
    return f"{what}{some} {dropped.time[:10]}"


def counted(count: int, what: str) -> str:
    """A number of things: `1 file`, `2 files`."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def size(nbytes: int) -> str:
    """Bytes for people: `271.4 MB`, with decimal units as disks have."""
    if nbytes < 1000:
        return f"{nbytes} B"
    number, unit = nbytes / 1000, "kB"
    for larger in ("MB", "GB", "TB"):
        if round(number, 1) >= 1000:
            number, unit = number / 1000, larger
    return f"{number:.1f} {unit}"


def duration(seconds: float) -> str:
    """A duration for people: `0.84 s`, `90 s`, `2.5 h`."""
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{_two_digits(seconds / length)} {unit}"
    return f"{_two_digits(seconds)} s"


def _two_digits(number: float) -> str:
    return f"{number:.2g}" if number < 10 else f"{number:.0f}"


def number(value: Any) -> str:
    """A metric for people."""
    return f"{value:.6g}" if isinstance(value, float) else printable(str(value))


def when(time_: datetime) -> str:
    """A time for people."""
    return time_.strftime("%Y-%m-%d %H:%M")


def stamp(time_: str) -> str:
    """The time of an entry of the ledger, for people, in the time of this place."""
    return when(datetime.fromisoformat(time_).astimezone())


def listed(values: dict[str, Any]) -> str:
    """`loss 0.31, acc 0.9`."""
    return ", ".join(f"{printable(name)} {number(value)}" for name, value in values.items())


def names_text(names: Iterable[str]) -> str:
    """Names that stand at a commit, as `git log` decorates."""
    shown = [click.style(printable(name), fg=_colour(name), bold=True) for name in names]
    return f"({', '.join(shown)})" if shown else ""


def _colour(name: str) -> str:
    return "yellow" if name.startswith("tag: ") else "cyan" if name.startswith("HEAD") else "green"


def text(value: object) -> str:
    """Text from outside, safe for a terminal."""
    return printable(str(value))
