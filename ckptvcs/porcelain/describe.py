"""Writing down a checkpoint: its manifest, its pointer, its commit message. Values in, values out."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import msgspec

from ckptvcs.digest import Digest
from ckptvcs.domain import manifest as manifests
from ckptvcs.domain import provenance as custody
from ckptvcs.errors import UsageError
from ckptvcs.storage.dvc.pointer import Pointer, pointer_bytes, reads_as_number
from ckptvcs.storage.names import ObjectName, ObjectRef

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from ckptvcs.domain.checkpoint import Checkpoint, CheckpointId
    from ckptvcs.porcelain.incoming import Incoming


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user says about a checkpoint beside its state. None means: not said."""

    message: str | None = None
    track: str | None = None
    branch: str | None = None
    run: str | None = None
    run_id: str
    """Id of the run, if it has none yet."""
    step: int | None = None
    epoch: int | float | None = None
    metrics: Mapping[str, int | float | str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    data: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    reason: str = "manual"
    seeds: Mapping[str, int] = field(default_factory=dict)
    command: Sequence[str] = ()
    parents: tuple[CheckpointId, ...] | None = None
    """The checkpoints it was trained on from, where that is not simply the last one of the branch."""
    start: str | None = None
    """The commit at which a branch begins that does not exist yet; HEAD if it is not given."""
    fresh: bool = False
    """Whether the state descends from no checkpoint: then a branch that does not exist yet begins at the code, not at HEAD."""
    merged: tuple[str, ...] = ()
    """The commits that a merge is of: all of them are git parents, in this order, before any other."""
    grade_at_most: str | None = None
    """What the grade is at most, where the components alone would say too much."""
    saved: datetime | None = None
    """When it was saved, where that was not now."""
    workspace: bool = True
    """Whether the artifact may be put into the workspace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A manifest with what is derived from it."""

    manifest: manifests.Manifest
    data: bytes
    """Its canonical bytes."""
    id: CheckpointId

    @classmethod
    def of(cls, manifest: manifests.Manifest) -> Description:
        data = manifests.to_bytes(manifest)
        if len(data) > manifests.MAX_BYTES:
            raise UsageError(
                "cannot write a manifest",
                why=f"it would have {len(data)} bytes, and at most {manifests.MAX_BYTES} are ever read",
                next_step="leave large values out of the hyperparameters: keep them in a file, and name it with --data",
            )
        return cls(manifest=manifest, data=data, id=manifests.id_of(data))


def describe(
    what: Incoming,
    options: Options,
    refs: Mapping[str, ObjectRef],
    *,
    track: str,
    branch: str,
    provenance: custody.Provenance,
    parent: Checkpoint | None,
    now: datetime,
) -> Description:
    """Write the manifest of a checkpoint.

    Args:
        what: the state.
        options: what the user said; it goes before what the state says of itself.
        refs: every file of the artifact.
        track: the track.
        branch: the branch, whose name the run has if it has no other.
        provenance: where it comes from.
        parent: the last checkpoint of the branch.
        now: the time.
    """
    name = options.run or branch
    run = manifests.RunEntry(id=options.run_id, name=name)
    if parent is not None and parent.manifest.run.name == name:
        run = parent.manifest.run
    roles = roles_of(what)
    facts = what.facts
    manifest = manifests.Manifest(
        track=track,
        created=_iso(now),
        run=run,
        reason=options.reason,
        grade=custody.grade(set(roles.values()), at_most=options.grade_at_most),
        components=tuple(_component(name, role, what, refs) for name, role in roles.items()),
        files=tuple(_entry(path, ref) for path, ref in sorted(refs.items()) if not _is_within(path, roles)),
        source=what.source,
        provenance=provenance,
        parents=options.parents if options.parents is not None else ((parent.id,) if parent else ()),
        step=options.step if options.step is not None else facts.get("step"),
        epoch=options.epoch if options.epoch is not None else facts.get("epoch"),
        metrics={**facts.get("metrics", {}), **options.metrics},
        params={**facts.get("params", {}), **options.params},
    )
    manifest = manifests.expressible(manifest)
    while reads_as_number(Digest(Description.of(manifest).id)):
        now += timedelta(microseconds=1)
        manifest = msgspec.structs.replace(manifest, created=_iso(now))
    return Description.of(manifest)


def _iso(time: datetime) -> str:
    return time.astimezone(timezone.utc).isoformat(timespec="microseconds")


def roles_of(what: Incoming) -> dict[str, str]:
    """The role of each component, by name."""
    return {c.name: c.role for c in what.components} | {name: role for name, (role, _) in what.pickled.items()}


def pointer_of(description: Description, directory: ObjectName, remote: str | None) -> bytes:
    """The `.dvc` file beside a manifest."""
    manifest = description.manifest
    return pointer_bytes(
        Pointer(
            directory=directory,
            nbytes=manifest.nbytes,
            nfiles=len(manifest.all_files()),
            track=manifest.track,
            manifest=Digest(description.id),
            remote=remote,
        )
    )


def commit_message(message: str | None, description: Description) -> str:
    """The message of the commit: the user's, or one that says run, step and metrics; the id of the checkpoint below."""
    if message is None:
        manifest = description.manifest
        step = f" step {manifest.step}" if manifest.step is not None else ""
        shown = ", ".join(f"{name} {_short(value)}" for name, value in sorted(manifest.metrics.items())[:3])
        message = f"ckpt: {manifest.run.name}{step}{f' ({shown})' if shown else ''}"
    readable = message.rstrip().encode("utf-8", "backslashreplace").decode("utf-8")
    return f"{readable}\n\nCheckpoint: {description.id}\n"


def ref_of(entry: manifests.FileEntry) -> ObjectRef:
    """The object of a file of a manifest."""
    return ObjectRef(name=ObjectName(entry.md5), nbytes=entry.size, digest=Digest(entry.blake3))


def _is_within(path: str, components: Collection[str]) -> bool:
    folder, slash, _ = path.partition("/")
    return bool(slash) and folder in components


def _component(name: str, role: str, what: Incoming, refs: Mapping[str, ObjectRef]) -> manifests.ComponentEntry:
    files = tuple(_entry(path, ref) for path, ref in sorted(refs.items()) if path.startswith(f"{name}/"))
    encoding = "pickle" if name in what.pickled else "tree"
    return manifests.ComponentEntry(name=name, role=role, encoding=encoding, files=files)


def _entry(path: str, ref: ObjectRef) -> manifests.FileEntry:
    return manifests.FileEntry(path=path, size=ref.nbytes, md5=ref.name, blake3=ref.digest)


def _short(value: float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
