"""The manifest: the small canonical JSON in git that describes an artifact and where it came from.

Canonical means that parsing and writing gives the same bytes: sorted keys, one blank of indentation, UTF-8, a final
newline, no NaN. Whatever is not written so is refused, which also settles duplicate keys and odd numbers.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

import msgspec

from ckptvcs.digest import digest, is_digest
from ckptvcs.domain.checkpoint import CheckpointId, check_track
from ckptvcs.domain.provenance import Entry, Provenance
from ckptvcs.errors import BadManifest, CkptvcsError, NewerVersion
from ckptvcs.paths import check_paths, printable

FORMAT: Final = "ckptvcs/1"
MAX_BYTES: Final = 8 << 20
OURS: Final = "ckptvcs:"
"""Keys of `SourceEntry.metadata` that begin so are ours, not those of a header."""
_MD5: Final = re.compile(r"[0-9a-f]{32}\Z")


class FileEntry(Entry, frozen=True):
    """One file of an artifact: its path in the artifact, its size in bytes, its name as an object, its digest."""

    path: str
    size: int
    md5: str
    blake3: str


class ComponentEntry(Entry, frozen=True):
    """One component. `encoding` is `tree`, or `pickle` for one that only pickle could represent."""

    name: str
    role: str
    encoding: str
    files: tuple[FileEntry, ...]

    @property
    def nbytes(self) -> int:
        return sum(file.size for file in self.files)


class RunEntry(Entry, frozen=True):
    """The training job that a checkpoint belongs to."""

    id: str
    name: str


class SourceEntry(Entry, frozen=True):
    """What was committed: the format, the name of the file or folder, and what its own header said."""

    format: str
    name: str
    metadata: dict[str, str]

    @property
    def header(self) -> dict[str, str]:
        """The metadata without what an import noted."""
        return {key: value for key, value in self.metadata.items() if not key.startswith(OURS)}


class Manifest(Entry, frozen=True):
    """See `docs/reference/format/manifest-1.md`. `metrics` may be `"nan"`, `"inf"`, `"-inf"` for a run that diverged."""

    track: str
    created: str
    """UTC, ISO 8601."""
    run: RunEntry
    reason: str
    grade: str
    components: tuple[ComponentEntry, ...]
    files: tuple[FileEntry, ...]
    """Files of the artifact that belong to no component."""
    source: SourceEntry
    provenance: Provenance
    parents: tuple[str, ...]
    """Ids of the checkpoints that this one was trained on from; first one first."""
    step: int | None = None
    epoch: int | float | None = None
    metrics: dict[str, int | float | str] = msgspec.field(default_factory=dict)
    params: dict[str, Any] = msgspec.field(default_factory=dict)
    format: str = FORMAT

    @property
    def nbytes(self) -> int:
        return sum(file.size for file in self.all_files())

    def all_files(self) -> tuple[FileEntry, ...]:
        """Every file of the artifact."""
        return (*(file for component in self.components for file in component.files), *self.files)

    def component(self, name: str) -> ComponentEntry | None:
        """The component of that name, else the only one of that role."""
        named = [c for c in self.components if c.name == name] or [c for c in self.components if c.role == name]
        return named[0] if len(named) == 1 else None


def expressible(manifest: Manifest) -> Manifest:
    """The manifest with every value such that JSON and UTF-8 can say it: what they cannot is escaped, or a word."""
    return msgspec.convert(sayable(msgspec.to_builtins(manifest)), Manifest)


def sayable(value: Any) -> Any:
    """A value such that JSON and UTF-8 can say it: what they cannot is escaped, or a word."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, dict):
        return {sayable(key): sayable(item) for key, item in value.items()}
    return [sayable(item) for item in value] if isinstance(value, (list, tuple)) else value


def to_bytes(manifest: Manifest) -> bytes:
    """The canonical bytes of a manifest."""
    return _canonical(msgspec.to_builtins(manifest))


def id_of(data: bytes) -> CheckpointId:
    """The id of the checkpoint that a manifest of these bytes describes."""
    return CheckpointId(digest(data))


def from_bytes(data: bytes, *, where: str) -> Manifest:
    """Read a manifest that nobody vouches for.

    Args:
        data: its bytes.
        where: which one it is, for the error.

    Raises:
        NewerVersion: a later version of ckptvcs wrote it.
        BadManifest: it is damaged, not canonical, or was made to harm.
    """
    try:
        if len(data) > MAX_BYTES:
            raise ValueError(f"it has {len(data)} bytes, at most {MAX_BYTES} are read")
        _check_version(data, where)
        manifest = _DECODER.decode(data)
        _check(manifest)
        if to_bytes(manifest) != data:
            raise ValueError("it is not in canonical form")
    except NewerVersion:
        raise
    except (ValueError, RecursionError, CkptvcsError) as err:  # msgspec's errors are ValueErrors
        raise BadManifest(
            f"cannot read the manifest of '{printable(where)}'",
            why=_reason(err),
            next_step="run 'git fsck'; if git is clean, someone edited the manifest by hand: go back to the commit before",
        ) from err
    return manifest


_DECODER: Final = msgspec.json.Decoder(Manifest)


def _canonical(document: dict[str, Any]) -> bytes:
    # `json` itself indents in Python, which is slow, and manifests are read by the thousand.
    text = json.dumps(document, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return (msgspec.json.format(text, indent=1) + "\n").encode("utf-8")


def _check_version(data: bytes, where: str) -> None:
    """Find the version without understanding the rest, which a later version may have changed."""
    found = re.search(rb'^ "format": "([^"\n]{1,64})"', data, re.MULTILINE)
    version = found[1].decode("utf-8", "replace") if found else ""
    if version != FORMAT and version.startswith("ckptvcs/"):
        raise NewerVersion(
            f"cannot read the manifest of '{printable(where)}'",
            why=f"its format is '{printable(version)}', this version of ckptvcs reads '{FORMAT}'",
            next_step="upgrade ckptvcs: pip install -U ckptvcs",
        )


def _check(manifest: Manifest) -> None:
    if manifest.format != FORMAT:
        raise ValueError(f"its format is {manifest.format!r}")
    check_track(manifest.track)
    files = manifest.all_files()
    check_paths(file.path for file in files)
    for file in files:
        if not (_MD5.match(file.md5) and is_digest(file.blake3) and 0 <= file.size < 1 << 60):
            raise ValueError(f"file {file.path!r} has no proper name, digest or size")
    names = [component.name for component in manifest.components]
    if len(set(names)) != len(names):
        raise ValueError("a component stands there twice")
    for component in manifest.components:
        check_paths([component.name])
        if any(not file.path.startswith(f"{component.name}/") for file in component.files):
            raise ValueError(f"component {component.name!r} has files outside of its folder")
    if not all(map(is_digest, manifest.parents)):
        raise ValueError("a parent is no checkpoint id")


def _reason(err: BaseException) -> str:
    return printable(err.what if isinstance(err, CkptvcsError) else str(err))[:200]
