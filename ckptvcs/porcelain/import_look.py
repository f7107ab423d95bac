"""Looking at a checkpoint that lies around: format, step, epoch, metrics, parts, date, and a digest where it is asked for.

Nothing is unpickled and no tensor is read; one checkpoint is open at a time. What cannot be read says why, and stops no other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.digest import Digest, digest_of_parts
from ckptvcs.domain.import_names import Facts
from ckptvcs.errors import CkptvcsError, Conflict, UnsupportedValue, UsageError
from ckptvcs.formats.foreign import detect
from ckptvcs.paths import printable
from ckptvcs.porcelain import incoming
from ckptvcs.storage.index import stamp
from ckptvcs.storage.names import ObjectName, ObjectRef

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from ckptvcs.porcelain.gathering import Found
    from ckptvcs.porcelain.repo import Repository

DIGEST: Final = "ckptvcs:digest"
"""Key of the metadata of a source: `blake3:` and the digest of its bytes."""
NBYTES: Final = "ckptvcs:bytes"
_PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What was seen of one."""

    found: Found
    stamps: Mapping[Path, str]
    """Its files as they were."""
    date: datetime
    format: str = ""
    held: Facts = field(default_factory=Facts)
    """What it says of itself."""
    roles: Mapping[str, str] = field(default_factory=dict)
    best: str = ""
    """The name of the checkpoint that was best so far, as its trainer says."""
    notes: tuple[str, ...] = ()
    failure: CkptvcsError | None = None
    """Why it cannot be imported."""


def look(found: Found, *, now: datetime, allow_pickle: bool = False, follow_links: bool = False) -> Looked:
    """Look at one checkpoint.

    Args:
        found: where it is.
        now: the time; nothing is younger.
        allow_pickle: whether what has no exact representation will be kept as a pickle. Nothing is unpickled here.
        follow_links: also read links that lead out of a folder.
    """
    stamps: dict[Path, str] = {}
    date, notes = now, list[str]()
    try:
        stamps = stamps_of(found)
        date, notes = _date(found, now)
        source = detect.open_source(found.path, follow_links=follow_links, leave_out=found.left_out)
        roles, more = _roles(source, tolerate=allow_pickle and not found.is_folder)
    except CkptvcsError as err:
        return Looked(found=found, stamps=stamps, date=date, failure=err)
    facts = source.facts
    return Looked(
        found=found,
        stamps=stamps,
        date=date,
        format=source.format,
        held=Facts(step=facts.get("step"), epoch=facts.get("epoch"), metrics=facts.get("metrics", {})),
        roles=roles,
        best=str(facts.get("best", "")).replace("\\", "/").rstrip("/").rpartition("/")[2],
        notes=(*notes, *source.notes, *more),
    )


def _roles(source: Any, *, tolerate: bool) -> tuple[dict[str, str], tuple[str, ...]]:
    """The parts it would have as a checkpoint."""
    try:
        return {c.name: c.role for c in incoming.from_source(source).components}, ()
    except UnsupportedValue as err:
        if not tolerate:
            raise
        return {}, (f"a part of it will be kept as a pickle: {err.why}",)


def stamps_of(found: Found) -> dict[Path, str]:
    """How its files are now.

    Raises:
        UsageError: one cannot be looked at.
    """
    try:
        return {file: stamp(file.stat()) for file in found.files}
    except OSError as err:
        why = (err.strerror or str(err)).lower()
        raise UsageError(f"cannot read '{err.filename or found.path}'", why=why, next_step="check it") from err


def check_as_seen(looked: Looked) -> None:
    """Raise `Conflict` if it is no longer what was looked at."""
    if stamps_of(looked.found) != dict(looked.stamps):
        raise Conflict(
            f"cannot import '{looked.found.path}'",
            why="it was changed since it was looked at",
            next_step="wait until the program that writes it is done, then run the command again",
        )


def _date(found: Found, now: datetime) -> tuple[datetime, list[str]]:
    """When it was written: the time of its youngest file. A clock that was wrong makes nothing younger than now."""
    newest = max((file.stat().st_mtime for file in found.files), default=now.timestamp())
    if newest > now.timestamp():
        return now, ["its date lies in the future: it counts as of now"]
    return datetime.fromtimestamp(max(newest, 0), timezone.utc).astimezone(), []


def about(failure: CkptvcsError, found: Found, shown: str) -> CkptvcsError:
    """The same failure, with the name of what failed: of many files, one has to be found.

    Args:
        failure: what went wrong.
        found: with which one.
        shown: its path as a user types it.
    """
    told = f"{failure.what} {failure.why}"
    if any(f"'{name}" in told for name in (found.path.as_posix(), str(found.path), shown, printable(shown))):
        return failure
    return type(failure)(
        f"cannot import '{printable(shown)}'", why=str(failure), next_step=failure.next_step, **failure.facts
    )


# -------------------------------------------------------------------------------------------------------------- digests


def digest_of(found: Found, repo: Repository, *, hints: bool) -> Digest:
    """The digest of all its bytes: of the file, or of the paths and digests of the files of a folder.

    Args:
        found: where it is.
        repo: the repository, whose index remembers what files held.
        hints: believe the index where nothing about a file changed since; else read it, and tell the index.

    Raises:
        UsageError: a file cannot be read.
    """
    try:
        if not found.is_folder:
            return _digest_of_file(found.path, repo, hints=hints)
        lines = (
            f"{file.relative_to(found.path).as_posix()}\0{_digest_of_file(file, repo, hints=hints)}\n"
            for file in sorted(found.files)
        )
        return digest_of_parts(line.encode("utf-8", "surrogateescape") for line in lines)
    except OSError as err:
        why = (err.strerror or str(err)).lower()
        raise UsageError(f"cannot read '{err.filename or found.path}'", why=why, next_step="check it") from err


def _digest_of_file(path: Path, repo: Repository, *, hints: bool) -> Digest:
    info = path.stat()
    known = repo.index.ref_of(str(path), info) if hints else None
    if known is not None:
        return known.digest
    digest = digest_of_parts(_pieces(path))
    if not hints:
        ref = ObjectRef(name=ObjectName(""), nbytes=info.st_size, digest=digest)
        repo.index.saw([(str(path), info, ref)])
    return digest


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece
