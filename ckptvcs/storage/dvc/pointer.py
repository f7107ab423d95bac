"""The files by which DVC names a directory: the `.dvc` pointer, the `.dir` object, the line in `.gitignore`."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ckptvcs.digest import Digest
from ckptvcs.errors import BadManifest
from ckptvcs.storage.names import ObjectName

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointer:
    """A `.dvc` file of ours: which directory object an artifact is, and which manifest describes it."""

    directory: ObjectName
    nbytes: int
    nfiles: int
    track: str
    manifest: Digest
    remote: str | None = None


_POINTER: Final = re.compile(
    r"outs:\n- md5: (?P<directory>[0-9a-f]{32}\.dir)\n  size: (?P<nbytes>[0-9]{1,19})\n  nfiles: (?P<nfiles>[0-9]{1,9})\n"
    r"  hash: md5\n  path: (?P<track>[A-Za-z0-9_-]{1,64})\n"
    r"  meta:\n    ckptvcs:\n      v: 1\n      manifest: (?P<manifest>[0-9a-f]{64})\n"
    r"(  remote: (?P<remote>[A-Za-z0-9._-]{1,64})\n)?\Z"
)


def reads_as_number(digest: Digest) -> bool:
    """Whether YAML would take a digest for a number, such as `12345...` or `1e5...`; about one in 10^12 is such.

    DVC would write it back as that number. A digest with a prefix would be safe but longer than DVC's 80 columns, and
    DVC would break the line.
    """
    return re.fullmatch(r"\d+(e\d+)?", digest) is not None


def pointer_bytes(pointer: Pointer) -> bytes:
    """The `.dvc` file, as DVC itself would write it: `dvc add` of the same directory changes no byte of it."""
    text = (
        f"outs:\n- md5: {pointer.directory}\n  size: {pointer.nbytes}\n  nfiles: {pointer.nfiles}\n"
        f"  hash: md5\n  path: {pointer.track}\n"
        f"  meta:\n    ckptvcs:\n      v: 1\n      manifest: {pointer.manifest}\n"
    )
    return (text + (f"  remote: {pointer.remote}\n" if pointer.remote else "")).encode("ascii")


def read_pointer(data: bytes, *, where: str) -> Pointer:
    """Read a `.dvc` file of ours. No YAML parser sees it: the grammar is all that we ever write.

    Raises:
        BadManifest: it is not one of ours, or was edited.
    """
    match = _POINTER.match(data.decode("utf-8", "replace"))
    if match is None:
        raise BadManifest(
            f"cannot read pointer '{where}'",
            why="it is not in the form that ckptvcs writes",
            next_step="restore it from git: git checkout HEAD -- " + where,
        )
    return Pointer(
        directory=ObjectName(match["directory"]),
        nbytes=int(match["nbytes"]),
        nfiles=int(match["nfiles"]),
        track=match["track"],
        manifest=Digest(match["manifest"]),
        remote=match["remote"],
    )


def directory_bytes(members: Mapping[str, ObjectName]) -> bytes:
    """The `.dir` object of a directory: path -> object name, byte for byte as DVC writes it."""
    entries = [{"md5": members[path], "relpath": path} for path in sorted(members)]
    return json.dumps(entries, sort_keys=True).encode("utf-8")


def with_ignored(text: str, name: str) -> str:
    """The content of a `.gitignore` with an entry for `name` beside it; unchanged if it has one."""
    entry = f"/{name}"
    if entry in text.splitlines():
        return text
    return f"{text}{'' if not text or text.endswith(chr(10)) else chr(10)}{entry}\n"
