"""Every checkpoint of a history, as little of each as retention and garbage collection need: there may be very many.

What other files of DVC name is told as well: nobody may take that away.
"""

from __future__ import annotations

import contextlib
import gc
import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from sys import intern
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from ckptvcs.digest import digest
from ckptvcs.domain import manifest as manifests
from ckptvcs.domain.checkpoint import CheckpointId
from ckptvcs.errors import CkptvcsError
from ckptvcs.paths import printable
from ckptvcs.storage.dvc.pointer import read_pointer
from ckptvcs.storage.history.blobs import read_all
from ckptvcs.storage.history.census import census
from ckptvcs.storage.history.repository import CommitId  # noqa: TC001 - msgspec looks types up when it runs
from ckptvcs.storage.names import DIR_SUFFIX, ObjectName

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ckptvcs.storage.dvc.pointer import Pointer
    from ckptvcs.storage.history.census import Counted
    from ckptvcs.storage.history.repository import BlobId, History

_MAX_FOREIGN: Final = 16 << 20
_TOKEN: Final = re.compile(rb"(?<![0-9a-f])[0-9a-f]{32}(?:\.dir)?(?![0-9a-f])")
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./=-]*\Z")
Sizes = dict[tuple[int, ...], tuple[int, ...]]


class Part(msgspec.Struct, frozen=True, gc=False):
    """The objects of one component."""

    names: bytes
    """16 bytes for each object."""
    sizes: tuple[int, ...]
    """Bytes of each."""

    def objects(self) -> Iterator[tuple[bytes, int]]:
        """Each object: its 16 bytes, and how many bytes it has."""
        return ((self.names[16 * n : 16 * n + 16], size) for n, size in enumerate(self.sizes))


class Brief(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A checkpoint, without its objects."""

    id: CheckpointId
    commit: CommitId
    """The first one that holds it."""
    track: str
    run: str
    time: float
    """When it was saved, in seconds since the epoch."""
    step: int | None
    metrics: dict[str, float]
    grade: str
    reason: str
    parents: tuple[CheckpointId, ...]
    roles: dict[str, str]
    """Of its components, by name."""


class Slim(Brief, frozen=True, gc=False, array_like=True):
    """A checkpoint."""

    parts: dict[str, Part]
    """Its components, by name."""
    files: Part
    """Its files that belong to no component."""
    directory: bytes
    """The name of the list of its files, 16 bytes."""
    directory_nbytes: int

    def objects(self, components: Iterable[str]) -> Iterator[tuple[bytes, int]]:
        """The objects of some components, and those of none, but for the list of files."""
        for name in components:
            yield from self.parts[name].objects()
        yield from self.files.objects()


@dataclass(slots=True)
class Inventory:
    """What a history holds."""

    checkpoints: dict[CheckpointId, Brief] = field(default_factory=dict)
    """Each is a `Slim`, where its objects are known."""
    parents: dict[CommitId, tuple[CommitId, ...]] = field(default_factory=dict)
    """Of every commit."""
    held: dict[CommitId, tuple[CheckpointId, ...]] = field(default_factory=dict)
    """The checkpoints that a commit holds, one of each track, where there are some."""
    made: dict[CommitId, tuple[CheckpointId, ...]] = field(default_factory=dict)
    """Those of them that none of its parents holds."""
    foreign: set[str] = field(default_factory=set)
    """Names of objects that other files of DVC name."""
    unreadable: list[str] = field(default_factory=list)
    """What cannot be read, in words."""

    def slim(self, identifier: CheckpointId) -> Slim:
        """A checkpoint whose objects are known."""
        found = self.checkpoints[identifier]
        assert isinstance(found, Slim)
        return found

    def slims(self) -> Iterator[Slim]:
        """All of them."""
        return map(self.slim, self.checkpoints)

    def line(self, tip: CommitId) -> Iterator[CheckpointId]:
        """What is held at a commit, then the checkpoints that its first parents made, newest first."""
        yield from self.held.get(tip, ())
        at: CommitId | None = tip
        while at is not None:
            yield from self.made.get(at, ())
            parents = self.parents.get(at, ())
            at = parents[0] if parents else None


def take(
    history: History, variables: Mapping[str, str], tips: Sequence[str], *, onto: Inventory | None = None
) -> Inventory:
    """Look at everything that can be reached from some commits.

    Args:
        history: the repository.
        variables: the environment of git.
        tips: git ids of commits, or of tags of them.
        onto: what is known already, of commits and all that is behind them; it grows.

    Raises:
        StorageError: git cannot read its history.
    """
    inventory = onto or Inventory()
    with undisturbed():
        counted = list(census(history, tips, _tells_of_data, known=inventory.parents.keys()))
        reader = _Reader(history, variables, counted)
        inventory.foreign |= reader.foreign
        inventory.unreadable += reader.unreadable
        for one in counted:
            _enter(inventory, one, reader)
    return inventory


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Python looks for garbage ever more often among millions of things of which none is any; that took a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _enter(inventory: Inventory, counted: Counted, reader: _Reader) -> None:
    inventory.parents[counted.commit] = counted.parents
    held = tuple(slim.id for slim in reader.checkpoints_of(counted))
    if not held:
        return
    for slim in reader.checkpoints_of(counted):
        inventory.checkpoints.setdefault(slim.id, slim)
    above = {one for parent in counted.parents for one in inventory.held.get(parent, ())}
    inventory.held[counted.commit] = held
    made = tuple(one for one in held if one not in above)
    if made:
        inventory.made[counted.commit] = made


def tokens(data: bytes) -> set[str]:
    """Everything in a file of DVC that can be the name of an object."""
    return {found.decode("ascii") for found in _TOKEN.findall(data)}


def tells_of_dvc(name: str) -> bool:
    """Whether a file of that name is one of DVC that names objects."""
    return name.endswith(".dvc") or name.rpartition("/")[2] == "dvc.lock"


def _tells_of_data(name: str) -> bool:
    return tells_of_dvc(name) or name.endswith(".json")  # which may be a manifest


class _Reader:
    """Reads every file that tells of data, once: those of ours become checkpoints, of others the names count."""

    def __init__(self, history: History, variables: Mapping[str, str], counted: Sequence[Counted]) -> None:
        self.foreign: set[str] = set()
        self.unreadable: list[str] = []
        self._slims: dict[tuple[BlobId, BlobId], Slim] = {}
        self._sizes: Sizes = {}
        first: dict[tuple[BlobId, BlobId | None], tuple[CommitId, str]] = {}
        for one in counted:
            for path, pointer, manifest in _pairs(one):
                first.setdefault((pointer, manifest), (one.commit, path))
        pointers = list(dict.fromkeys(pointer for pointer, _ in first))
        ours = self._pointers(read_all(history.root, variables, pointers, limit=_MAX_FOREIGN), first)
        wanted = {pair: named for pair in first if pair[1] is not None and (named := ours.get(pair[0])) is not None}
        by_manifest: dict[BlobId, list[tuple[BlobId, Pointer]]] = {}
        for (pointer, manifest), named in wanted.items():
            by_manifest.setdefault(cast("BlobId", manifest), []).append((pointer, named))
        manifest_blobs = list(by_manifest)
        for blob, data in read_all(history.root, variables, manifest_blobs, limit=manifests.MAX_BYTES):
            for pointer, named in by_manifest[blob]:
                self._take(first[pointer, blob], (pointer, blob), named, data)

    def _pointers(
        self,
        read: Iterable[tuple[BlobId, bytes | None]],
        first: Mapping[tuple[BlobId, BlobId | None], tuple[CommitId, str]],
    ) -> dict[BlobId, Pointer]:
        """Those that are ours; what others name is noted."""
        where = {pointer: (commit, path, manifest) for (pointer, manifest), (commit, path) in first.items()}
        found = {}
        for blob, data in read:
            commit, path, manifest = where[blob]
            if data is None:
                self._cannot(commit, path, "git cannot read it, or it is too large")
            elif b"ckptvcs:" in data and manifest is not None:
                try:
                    found[blob] = read_pointer(data, where=path)
                except CkptvcsError as err:
                    self._cannot(commit, path, str(err))
            else:
                self.foreign |= tokens(data)
        return found

    def _take(
        self, where: tuple[CommitId, str], pair: tuple[BlobId, BlobId], named: Pointer, data: bytes | None
    ) -> None:
        try:
            if data is None:
                raise ValueError("git cannot read its manifest, or it is too large")
            slim = _slim(where[0], data, named.directory, self._sizes)
            if slim.id != str(named.manifest):
                raise ValueError("pointer and manifest do not belong together")
            self._slims[pair] = slim
        except ValueError as err:  # msgspec's errors are such
            self._cannot(*where, str(err))

    def _cannot(self, commit: CommitId, path: str, why: str) -> None:
        self.unreadable.append(f"'{printable(path)}' of commit {commit[:10]}: {printable(why)}")

    def checkpoints_of(self, counted: Counted) -> Iterator[Slim]:
        """The checkpoints that a commit holds."""
        for _, pointer, manifest in _pairs(counted):
            slim = self._slims.get((pointer, manifest)) if manifest is not None else None
            if slim is not None:
                yield slim


def _pairs(counted: Counted) -> Iterator[tuple[str, BlobId, BlobId | None]]:
    """The files of DVC in a commit, and what may be the manifest beside each."""
    beside = {path: blob for path, blob in counted.files if path.endswith(".json")}
    for path, blob in counted.files:
        if not path.endswith(".json"):
            yield path, blob, beside.get(f"{path[:-4]}.json") if path.endswith(".dvc") else None


# ------------------------------------------------------------------------------------------------------------ manifests


class _File(msgspec.Struct):
    path: str
    size: int
    md5: str


class _Component(msgspec.Struct):
    name: str
    role: str
    files: list[_File]


class _Run(msgspec.Struct):
    name: str


class _Manifest(msgspec.Struct):
    """As much of a manifest as is needed; `manifest.from_bytes` reads one in full, with all that may be wrong with it."""

    format: str
    track: str
    created: str
    run: _Run
    reason: str
    grade: str
    components: list[_Component]
    files: list[_File]
    parents: tuple[str, ...]
    step: int | None = None
    metrics: dict[str, Any] = msgspec.field(default_factory=dict)


_DECODER: Final = msgspec.json.Decoder(_Manifest)


def _slim(commit: CommitId, data: bytes, directory: ObjectName, known: Sizes) -> Slim:
    """A checkpoint. Of most of a line, sizes are the same, and are kept once; so are words."""
    manifest = _DECODER.decode(data)
    if manifest.format != manifests.FORMAT:
        raise ValueError(f"its format is '{printable(manifest.format)[:40]}'")
    files = [file for component in manifest.components for file in component.files] + manifest.files
    return Slim(
        id=CheckpointId(intern(digest(data))),
        commit=commit,
        track=intern(manifest.track),
        run=intern(manifest.run.name),
        time=datetime.fromisoformat(manifest.created.replace("Z", "+00:00")).timestamp(),
        step=manifest.step,
        metrics={name: float(v) for name, v in manifest.metrics.items() if isinstance(v, (int, float))},
        grade=intern(manifest.grade),
        reason=intern(manifest.reason),
        parents=tuple(CheckpointId(intern(parent)) for parent in manifest.parents),
        roles={intern(c.name): intern(c.role) for c in manifest.components},
        parts={intern(c.name): _part(c.files, known) for c in manifest.components},
        files=_part(manifest.files, known),
        directory=bytes.fromhex(directory.removesuffix(DIR_SUFFIX)),
        directory_nbytes=_directory_nbytes(files),
    )


def _part(files: Sequence[_File], known: Sizes) -> Part:
    names = bytes.fromhex("".join([file.md5 for file in files]))
    if len(names) != 16 * len(files):
        raise ValueError("a file has no proper name")
    sizes = tuple([file.size for file in files])
    return Part(names, known.setdefault(sizes, sizes))


def _directory_nbytes(files: Sequence[_File]) -> int:
    """How long the list of files is, as DVC writes it: `[{"md5": "...", "relpath": "..."}, ...]`."""
    paths = [file.path for file in files]
    plain = _PLAIN.match("".join(paths)) is not None
    written = sum(map(len, paths)) if plain else sum(len(json.dumps(path)) - 2 for path in paths)
    return written + (26 + 32) * len(files) + 2 * max(len(files) - 1, 0) + 2
