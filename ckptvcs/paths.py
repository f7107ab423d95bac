"""Relative paths that mean the same file, below the same folder, on every file system.

Manifests and foreign files name paths; none of them is believed. A path passes here before anything is opened: POSIX
separators, no `.` or `..`, nothing absolute, no control characters, no name that a case-folding or normalising file
system (or git) would take for another one, nothing that Windows reserves.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from ckptvcs.errors import HostileInput

if TYPE_CHECKING:
    from collections.abc import Iterable

_SEGMENT: Final = re.compile(r"[^\x00-\x1f\x7f/\\:]{1,255}\Z")
_WINDOWS: Final = {"con", "prn", "aux", "nul", *(f"{n}{i}" for n in ("com", "lpt") for i in range(1, 10))}
_MAX_LENGTH: Final = 1024
_PLAIN: Final = re.compile(r"[^A-Za-z0-9._+-]+")


def check_path(path: str) -> str:
    """Return `path` if it is safe.

    Raises:
        HostileInput: it is not; the facts hold the path.
    """
    why = "" if len(path) <= _MAX_LENGTH else "it is too long"
    for segment in path.split("/"):
        why = why or _fault(segment)
    if why:
        raise HostileInput(f"cannot use path '{printable(path)}'", why=why, path=path)
    return path


def check_paths(paths: Iterable[str]) -> None:
    """Check each path, and that no two of them meet on any file system.

    Raises:
        HostileInput: a path is unsafe, stands twice, or is both a file and a folder.
    """
    files: set[str] = set()
    folders: set[str] = set()
    for path in paths:
        folded = check_path(path).casefold()
        if folded in files:
            raise HostileInput(f"cannot use path '{printable(path)}'", why="it stands there twice", path=path)
        files.add(folded)
        segments = folded.split("/")
        folders.update("/".join(segments[:i]) for i in range(1, len(segments)))
    if both := files & folders:
        path = min(both)
        raise HostileInput(f"cannot use path '{printable(path)}'", why="it is both a file and a folder", path=path)


def is_segment(name: str) -> bool:
    """Whether `name` may be one part of a path."""
    return not _fault(name)


def file_name(text: str) -> str:
    """A file name made from any text, of plain characters only and at most 100 long."""
    name = _PLAIN.sub("_", text).strip("._")[:100].rstrip("._")
    return name if name and is_segment(name) else f"_{name}"


def printable(text: str) -> str:
    """Text with its control characters escaped: names from strangers must not drive a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


@lru_cache(maxsize=4096)  # the same few stand in thousands of manifests
def _fault(segment: str) -> str:  # noqa: PLR0911 - a list of refusals, each with its reason
    """Why a segment is unsafe, or the empty string."""
    if segment in ("", ".", ".."):
        return "it has an empty, '.' or '..' part"
    if not _SEGMENT.match(segment):
        return "it has a part that is too long or holds a separator or control character"
    if not _is_text(segment) or unicodedata.normalize("NFC", segment) != segment:
        return "it is not in Unicode normal form C"
    if segment != segment.strip(" ") or segment.endswith("."):
        return "a part begins or ends with a blank or a dot"
    # What HFS+ and NTFS would read: compatibility forms folded, invisible characters gone.
    seen = "".join(c for c in unicodedata.normalize("NFKC", segment) if unicodedata.category(c) != "Cf").casefold()
    if seen in (".", "..") or "/" in seen or re.match(r"\.(git|dvc|hg)|git~\d", seen):
        return "git, DVC or a file system would take it for something else"
    if seen.split(".")[0].rstrip(" ") in _WINDOWS:
        return "Windows reserves the name"
    return ""


def _is_text(segment: str) -> bool:
    try:
        segment.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
