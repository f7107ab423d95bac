"""`commit`: a state goes in, a DVC artifact and a git commit come out.

Order of effects: objects, then the directory object, then manifest and pointer as git objects, then the branch, then index
and worktree. A name is written only after all it names is durable (inv. 1); killed anywhere in between, the next command
finds the old checkpoint or the new one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ckptvcs.domain.checkpoint import CheckpointId, check_track
from ckptvcs.domain.provenance import Code, DataEntry, Environment, Provenance, without_secrets
from ckptvcs.errors import CkptvcsError, RefMoved
from ckptvcs.formats import artifact, tree_file
from ckptvcs.paths import check_paths
from ckptvcs.porcelain import capture, checkpoints, incoming, obstacles
from ckptvcs.porcelain.describe import Description, Options, commit_message, describe, pointer_of, ref_of
from ckptvcs.porcelain.following import Following, into_workspace, locked
from ckptvcs.porcelain.target import Place, Target, find_place, find_target
from ckptvcs.progress import Progress, silent
from ckptvcs.storage.dvc import locks, pointer
from ckptvcs.storage.history import commits
from ckptvcs.storage.history.repository import CommitId
from ckptvcs.storage.ingest import NewObject
from ckptvcs.storage.names import DIR_SUFFIX, ObjectName, ObjectRef
from ckptvcs.storage.verified import verified_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from ckptvcs.domain import manifest as manifests
    from ckptvcs.porcelain.incoming import Incoming
    from ckptvcs.porcelain.repo import Repository
    from ckptvcs.storage.files import Lock

_ATTEMPTS: Final = 50
"""How often a commit is tried again because another git program moved the branch; ckptvcs itself takes turns."""

_MAX_IGNORE: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Custody:
    """Code and environment, which a training process takes down once, when it starts."""

    code: Code
    patch: bytes
    environment: Environment

    @property
    def commit(self) -> CommitId | None:
        return CommitId(self.code.commit) if self.code.commit else None


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitPlan:
    """What a commit would do."""

    target: Target
    track: str
    files: tuple[artifact.PlannedFile, ...]
    known: Mapping[str, ObjectRef]
    """Files whose object is there already and healthy, by path."""
    incoming: Incoming
    options: Options
    custody: Custody
    start: CommitId | None
    """Where the branch begins if it does not exist yet."""
    data: tuple[DataEntry, ...]

    @property
    def new_bytes(self) -> int:
        return sum(file.nbytes for file in self.files if file.path not in self.known)

    @property
    def nbytes(self) -> int:
        return sum(file.nbytes for file in self.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What a commit did."""

    id: CheckpointId
    commit: CommitId
    branch: str
    manifest: manifests.Manifest
    new_bytes: int
    """Bytes of new objects."""
    notes: tuple[str, ...]


# -------------------------------------------------------------------------------------------------------------- plan


def take_custody(repo: Repository) -> Custody:
    """Take down code and environment as they are now."""
    captured = capture.code(repo)
    return Custody(code=captured.code, patch=captured.patch, environment=capture.environment())


def plan(repo: Repository, what: Incoming, options: Options, custody: Custody | None = None) -> CommitPlan:
    """Look at everything, change nothing. `--dry-run` prints what this returns.

    Args:
        repo: the repository.
        what: the state.
        options: what the user said.
        custody: code and environment, where they were taken down before.

    Raises:
        UsageError, Refused: the request cannot be followed.
    """
    track = check_track(options.track or repo.basics.track)
    target = find_target(repo, options.branch, options.run)
    custody = custody or take_custody(repo)
    start = CommitId(options.start) if options.start else custody.commit if options.fresh else repo.history.head()
    parent = repo.history.tip(target.ref) or start
    others = capture.tracked_outputs(repo, parent)
    obstacles.refuse_taken(repo, track, others, commits=[c for c in (repo.history.head(), parent) if c])
    if target.checked_out:
        obstacles.refuse_in_the_way(repo, track)
    before = CommitId(options.merged[0]) if options.merged else parent
    files = _plan_files(what, custody, _parent_trees(repo, before, track) if before else {})
    obstacles.refuse_hidden(repo, track, [file.path for file in files])
    return CommitPlan(
        target=target,
        track=track,
        files=files,
        known=_known(repo, files),
        incoming=what,
        options=options,
        custody=custody,
        start=start,
        data=capture.data(others, options.data, dict(options.versions)),
    )


def _parent_trees(repo: Repository, commit: CommitId, track: str) -> dict[str, tree_file.TreeFile]:
    """The tables of the parent checkpoint, as far as the cache has them: they steer the layout and nothing else."""
    trees: dict[str, tree_file.TreeFile] = {}
    try:
        parent = checkpoints.checkpoint_at(repo, commit, track)
        for component in parent.manifest.components if parent else ():
            path = f"{component.name}/{tree_file.NAME}"
            entry = next((file for file in component.files if file.path == path), None)
            if entry is not None and repo.objects.store.nbytes(ObjectName(entry.md5)) is not None:
                data = verified_bytes(repo.objects.store, ref_of(entry), limit=tree_file.MAX_BYTES)
                trees[component.name] = tree_file.from_bytes(data, file=path)
    except CkptvcsError:
        # A damaged parent must not stop the next save: without its layout this one is laid out afresh.
        return trees
    return trees


def _plan_files(
    what: Incoming, custody: Custody, parent: Mapping[str, tree_file.TreeFile]
) -> tuple[artifact.PlannedFile, ...]:
    """Shards and trees; and what is no tensor: pickled components, files kept as they are, the patch of the code."""
    digests = artifact.digests(what.components)
    contents: dict[str, Path | bytes] = dict(what.files)
    contents |= {incoming.pickle_path(name): data for name, (_, data) in what.pickled.items()}
    if custody.patch:
        contents[capture.PATCH_FILE] = custody.patch
    files = artifact.plan_files(what.components, digests, parent=parent, hints=what.hints)
    for path, content in sorted(contents.items()):
        size = incoming.file_size(content)
        files.append(artifact.PlannedFile(path=path, nbytes=size, chunks=_chunks_of(content)))
    check_paths(file.path for file in files)
    return tuple(files)


def _chunks_of(content: Path | bytes) -> Callable[[], Iterator[bytes]]:
    def chunks() -> Iterator[bytes]:
        if isinstance(content, bytes):
            yield content
            return
        with content.open("rb") as file:
            while piece := file.read(1 << 20):
                yield piece

    return chunks


def _known(repo: Repository, files: Sequence[artifact.PlannedFile]) -> dict[str, ObjectRef]:
    """Files whose bytes are stored already. The index only says where to look; the object is checked."""
    found = repo.objects.index.find(file.key for file in files if file.key)
    return {
        file.path: found[file.key]
        for file in files
        if file.key in found and found[file.key].nbytes == file.nbytes and repo.objects.is_healthy(found[file.key])
    }


# --------------------------------------------------------------------------------------------------------------- act


def execute(repo: Repository, plan: CommitPlan, progress: Progress = silent) -> Receipt:
    """Do what the plan says, once.

    Args:
        repo: the repository.
        plan: from `plan`.
        progress: told about bytes that are written.

    Raises:
        StorageError: the disk is full, read-only or failing; nothing was committed.
        Conflict: another process holds a lock, or the source changed meanwhile; nothing was committed.
    """
    repo.objects.store.sweep(repo.now().timestamp())
    refs = _store(repo, plan, progress)
    directory = _store_directory(repo, refs)
    with repo.cache_lock(), repo.dvc_lock(), locked(repo) as lock:
        locks.refuse_while_writing(repo.root, repo.track_path(plan.track))
        _restore_missing(repo, plan, refs)
        commit, description = _commit(repo, plan, refs, directory, lock)
    notes = list(plan.incoming.notes)
    if plan.target.checked_out and plan.options.workspace and repo.config.checkout.on_commit:
        # A map of a file that was cut short meanwhile would kill us.
        stored_only = plan.incoming.computed or plan.incoming.changed()
        at_hand = {} if stored_only else {file.path: file.chunks for file in plan.files}
        watched = plan.incoming.watched
        notes.extend(into_workspace(repo, plan.track, commit, refs, committed=watched, at_hand=at_hand))
    return Receipt(
        id=description.id,
        commit=commit,
        branch=plan.target.branch,
        manifest=description.manifest,
        new_bytes=plan.new_bytes,
        notes=tuple(notes),
    )


def _store(repo: Repository, plan: CommitPlan, progress: Progress) -> dict[str, ObjectRef]:
    new = [file for file in plan.files if file.path not in plan.known]
    stored = repo.objects.store.put([NewObject(file.chunks, file.nbytes) for file in new], progress)
    plan.incoming.check_unchanged()
    repo.objects.note(stored)
    repo.objects.index.remember((file.key, ref) for file, ref in zip(new, stored, strict=True) if file.key)
    return {**plan.known, **{file.path: ref for file, ref in zip(new, stored, strict=True)}}


def _store_directory(repo: Repository, refs: Mapping[str, ObjectRef]) -> ObjectName:
    data = pointer.directory_bytes({path: ref.name for path, ref in refs.items()})
    return repo.objects.store.put([NewObject(lambda: [data], len(data), DIR_SUFFIX)])[0].name


def _restore_missing(repo: Repository, plan: CommitPlan, refs: Mapping[str, ObjectRef]) -> None:
    """Look once more, now that DVC is locked out: a `dvc gc` may have run since the objects were stored."""
    store = repo.objects.store
    gone = [file for file in plan.files if store.nbytes(refs[file.path].name) != refs[file.path].nbytes]
    if gone:
        store.put([NewObject(file.chunks, file.nbytes) for file in gone])
        plan.incoming.check_unchanged()
    _store_directory(repo, refs)


def _commit(
    repo: Repository, plan: CommitPlan, refs: Mapping[str, ObjectRef], directory: ObjectName, lock: Lock
) -> tuple[CommitId, Description]:
    """Write commits until one gets onto the branch: each try looks anew where the branch is."""
    for attempt in range(1, _ATTEMPTS + 1):
        merged = tuple(map(CommitId, plan.options.merged))
        place = find_place(repo, plan.target, code=plan.custody.commit, start=plan.start, merged=merged)
        description = _describe(repo, plan, refs, place)
        ours = {
            repo.pointer_path(plan.track): pointer_of(description, directory, repo.config.remote),
            repo.manifest_path(plan.track): description.data,
        }
        commit = _write(repo, plan, place, description, ours)
        try:
            with Following(repo, plan.target, track=plan.track, commit=commit, ours=ours, lock=lock):
                commits.move_ref(
                    repo.history, plan.target.ref, old=place.tip, new=commit, reason="ckpt commit", lock=lock
                )
        except RefMoved:
            if attempt == _ATTEMPTS:
                raise
        else:
            return commit, description
    raise AssertionError("unreachable")


def _describe(repo: Repository, plan: CommitPlan, refs: Mapping[str, ObjectRef], place: Place) -> Description:
    before = place.parents[0] if place.parents else None
    begins = place.tip is None and plan.options.fresh
    provenance = Provenance(
        code=plan.custody.code,
        data=plan.data,
        environment=plan.custody.environment,
        seeds=dict(plan.options.seeds),
        command=without_secrets(plan.options.command),
    )
    return describe(
        plan.incoming,
        plan.options,
        refs,
        track=plan.track,
        branch=plan.target.branch,
        provenance=provenance,
        parent=checkpoints.checkpoint_at(repo, before, plan.track) if before and not begins else None,
        now=plan.options.saved or repo.now(),
    )


def _write(
    repo: Repository, plan: CommitPlan, place: Place, description: Description, ours: Mapping[str, bytes]
) -> CommitId:
    """Write the commit object; no ref names it yet."""
    ignore = repo.ignore_path()
    blob = repo.history.blob_id(place.base, ignore) if place.base else None
    old = place.carried.get(ignore) or (repo.history.blob(blob, limit=_MAX_IGNORE) if blob else b"")
    ignored = pointer.with_ignored(old.decode("utf-8", "surrogateescape"), plan.track).encode(
        "utf-8", "surrogateescape"
    )
    return commits.write_commit(
        repo.history,
        base=place.base,
        parents=place.parents,
        changes={**place.carried, **ours, ignore: ignored},
        message=commit_message(plan.options.message, description),
        identity=repo.identity,
        when=_when(repo, plan, place),
        authored=plan.options.saved,
    )


def _when(repo: Repository, plan: CommitPlan, place: Place) -> datetime:
    """The time of the committer: never before that of a parent, or git would end its walks through history too early."""
    saved = plan.options.saved
    if saved is None:
        return repo.now()
    return max((saved, *(repo.history.commit(parent).time for parent in place.parents)))
