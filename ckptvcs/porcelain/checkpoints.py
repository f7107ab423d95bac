"""Finding checkpoints in history: what a commit holds, which commits made them, what a revision means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckptvcs.digest import is_digest
from ckptvcs.domain import manifest as manifests
from ckptvcs.domain import revisions
from ckptvcs.domain.checkpoint import Checkpoint
from ckptvcs.errors import AmbiguousRevision, BadManifest, NotFound, UsageError
from ckptvcs.paths import printable
from ckptvcs.porcelain import account
from ckptvcs.storage.dvc.pointer import Pointer, read_pointer
from ckptvcs.storage.history.repository import HEADS, BlobId, Commit, CommitId

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ckptvcs.domain.revisions import Mode
    from ckptvcs.porcelain.repo import Repository

DEFAULT_METRICS = ("val_loss", "eval_loss", "loss")
"""What `@best` compares where nobody says it: the first of these that a checkpoint has."""
_MIN_PREFIX = 4
_MAX_POINTER = 1 << 20


# -------------------------------------------------------------------------------------------- what a commit holds


def checkpoint_at(repo: Repository, commit: CommitId, track: str) -> Checkpoint | None:
    """The checkpoint of a track that a commit holds, or None. The commit need not be the one that made it."""
    blob = repo.history.blob_id(commit, repo.manifest_path(track))
    return None if blob is None else _checkpoint(repo, repo.history.commit(commit), blob)


def require_checkpoint(repo: Repository, revision: str, track: str) -> Checkpoint:
    """The checkpoint that a revision means.

    Raises:
        NotFound: there is no such revision, or it holds no checkpoint of that track.
        BadManifest: its manifest is damaged, or its pointer belongs to another one.
    """
    commit = locate(repo, revision, track)
    found = checkpoint_at(repo, commit, track)
    if found is None:
        raise NotFound(
            f"'{printable(revision)}' holds no checkpoint of track '{track}'",
            why=f"commit {commit[:10]} has no '{repo.manifest_path(track)}'",
            next_step="run 'ckpt log' to see which checkpoints there are",
        )
    return found


def pointer_at(repo: Repository, commit: CommitId, track: str) -> Pointer:
    """The pointer beside a manifest.

    Raises:
        BadManifest: it is missing, edited, or belongs to another manifest.
    """
    path = repo.pointer_path(track)
    blob = repo.history.blob_id(commit, path)
    if blob is None:
        raise BadManifest(
            f"no pointer '{path}' in commit {commit[:10]}", why="its manifest is there", next_step="run 'ckpt doctor'"
        )
    pointer = read_pointer(repo.history.blob(blob, limit=_MAX_POINTER), where=path)
    manifest_blob = repo.history.blob_id(commit, repo.manifest_path(track))
    data = repo.history.blob(manifest_blob, limit=manifests.MAX_BYTES) if manifest_blob else b""
    if str(pointer.manifest) != manifests.id_of(data):
        raise BadManifest(
            f"pointer and manifest of commit {commit[:10]} do not belong together",
            why=f"'{path}' names manifest {pointer.manifest[:10]}, beside it is {manifests.id_of(data)[:10]}",
            next_step="one of the two was edited or merged by hand: go back to the commit before",
        )
    return pointer


def tracks_at(repo: Repository, commit: CommitId) -> list[str]:
    """The tracks that a commit has checkpoints of."""
    folder = f"{repo.git_path(repo.basics.directory)}/"
    paths = {path for path, _ in repo.history.files(commit, (".json", ".dvc")) if path.startswith(folder)}
    names = {path.removeprefix(folder).removesuffix(".json") for path in paths if path.endswith(".json")}
    return sorted(name for name in names if "/" not in name and f"{folder}{name}.dvc" in paths)


def _checkpoint(repo: Repository, commit: Commit, blob: BlobId) -> Checkpoint:
    data = repo.history.blob(blob, limit=manifests.MAX_BYTES)
    return Checkpoint(
        id=manifests.id_of(data),
        commit=commit.id,
        manifest=manifests.from_bytes(data, where=commit.id[:10]),
        subject=commit.message.partition("\n")[0],
        author=commit.author.name,
        time=commit.authored,
    )


# -------------------------------------------------------------------------------------------- commits that made one


def made_by(repo: Repository, commits: Iterator[Commit], track: str) -> Iterator[Checkpoint]:
    """The checkpoints that these commits made: those whose manifest is that of none of their parents."""
    path = repo.manifest_path(track)
    known: dict[CommitId, BlobId | None] = {}

    def blob_of(commit: CommitId) -> BlobId | None:
        if commit not in known:
            known[commit] = repo.history.blob_id(commit, path)
        return known[commit]

    for commit in commits:
        blob = blob_of(commit.id)
        if blob is not None and all(blob_of(parent) != blob for parent in commit.parents):
            yield _checkpoint(repo, commit, blob)


def line(repo: Repository, tip: CommitId, track: str) -> Iterator[Checkpoint]:
    """The checkpoints of one line of training, newest first: along first parents, past forks, down to the beginning."""
    return made_by(repo, repo.history.first_parents(tip), track)


# ------------------------------------------------------------------------------------------------------- revisions


def locate(repo: Repository, text: str, track: str) -> CommitId:
    """The commit that a revision means.

    Raises:
        NotFound: there is none.
        AmbiguousRevision: there are several.
        UsageError: the expression is malformed.
    """
    revision = revisions.parse(text)
    if isinstance(revision, revisions.Plain):
        return _locate_plain(repo, text, track)
    tip = _tip(repo, revision.branch, text)
    if isinstance(revision, revisions.Latest):
        found = next(line(repo, tip, track), None)
    elif isinstance(revision, revisions.AtStep):
        found = next((c for c in line(repo, tip, track) if c.manifest.step == revision.step), None)
    else:
        late = account.read(repo)
        known = (late.on(checkpoint) for checkpoint in line(repo, tip, track))
        found = _best(repo, [checkpoint for checkpoint in known if not checkpoint.is_gone], revision.metric)
    if found is None:
        raise NotFound(
            f"no checkpoint '{printable(text)}'",
            why=f"no checkpoint of track '{track}' on that branch fits",
            next_step=f"run 'ckpt log {revision.branch or 'HEAD'}' to see which there are",
        )
    return CommitId(found.commit)


def _locate_plain(repo: Repository, text: str, track: str) -> CommitId:
    by_git = repo.history.resolve(text)
    looks_like_id = _MIN_PREFIX <= len(text) <= 64 and all(c in "0123456789abcdef" for c in text)
    named = by_git is not None and (repo.history.tip(HEADS + text) or repo.history.tag(text))
    by_id = _with_id(repo, text, track) if looks_like_id and not named else {}
    meanings = [f"checkpoint {identifier[:12]}" for identifier in by_id]
    if by_git and by_git not in by_id.values():
        meanings.append(f"commit {by_git[:12]}")
    if len(meanings) > 1:
        raise AmbiguousRevision(
            f"'{text}' is ambiguous",
            why=f"it is the beginning of {' and of '.join(sorted(meanings))}",
            next_step="write more of its characters",
            candidates=sorted(meanings),
        )
    found = by_git or next(iter(by_id.values()), None)
    if found is None:
        raise NotFound(
            f"no revision '{printable(text)}'",
            why="git knows no such commit, branch or tag, and no checkpoint has an id that begins so",
            next_step=_elsewhere(repo, text) or "run 'ckpt log' or 'ckpt branch' to see what there is",
        )
    return found


def _elsewhere(repo: Repository, branch: str) -> str:
    """Where a branch is that is not here."""
    names = (ref.removeprefix("refs/remotes/") for ref in repo.history.remote_tips() if ref.startswith("refs/remotes/"))
    at = sorted(name for name in names if name.partition("/")[2] == branch)
    return f"name it '{at[0]}', or bring it with 'ckpt pull {branch}' and 'ckpt checkout {branch}'" if at else ""


def _with_id(repo: Repository, prefix: str, track: str) -> dict[str, CommitId]:
    """Checkpoints whose id begins with `prefix`: id -> a commit that made it."""
    found: dict[str, CommitId] = {}
    path = repo.manifest_path(track)
    seen: set[BlobId] = set()
    for commit in repo.history.walk(all_tips(repo)):
        blob = repo.history.blob_id(commit.id, path)
        if blob is None or blob in seen:
            continue
        seen.add(blob)
        identifier = manifests.id_of(repo.history.blob(blob, limit=manifests.MAX_BYTES))
        if identifier.startswith(prefix):
            found.setdefault(identifier, _origin(repo, commit.id, blob, path))
            if is_digest(prefix):
                break
    return found


def _origin(repo: Repository, commit: CommitId, blob: BlobId, path: str) -> CommitId:
    """Follow a manifest from a commit that holds it to the commit that made it."""
    while True:
        parents = repo.history.commit(commit).parents
        older = next((parent for parent in parents if repo.history.blob_id(parent, path) == blob), None)
        if older is None:
            return commit
        commit = older


def all_tips(repo: Repository) -> list[CommitId]:
    """Every commit that a ref, or HEAD, names."""
    tips = {*repo.history.branches().values(), *(tag.commit for tag in repo.history.tags())}
    tips.update(repo.history.remote_tips().values())
    if head := repo.history.head():
        tips.add(head)
    return sorted(tips)


def _tip(repo: Repository, branch: str | None, text: str) -> CommitId:
    if branch is None:
        tip = repo.history.head()
        why = "nothing is committed yet"
    else:
        tip = repo.history.tip(HEADS + branch) or repo.history.tip(f"refs/remotes/{branch}")
        why = f"there is no branch '{printable(branch)}'"
    if tip is None:
        next_step = _elsewhere(repo, branch or "") or "run 'ckpt branch' to see the branches"
        raise NotFound(f"no checkpoint '{printable(text)}'", why=why, next_step=next_step)
    return tip


# ------------------------------------------------------------------------------------------------------------- best


def _best(repo: Repository, candidates: list[Checkpoint], metric: str | None) -> Checkpoint | None:
    """The checkpoint with the best metric, late ones included. NaN and missing ones never rank; of equals the newest wins."""
    name, mode = _monitored(repo, candidates, metric)
    sign = 1 if mode == "min" else -1
    values = [(c.metrics.get(name), i) for i, c in enumerate(candidates)]
    ranked = [(sign * value, i) for value, i in values if isinstance(value, (int, float))]
    return candidates[min(ranked)[1]] if ranked else None


def _monitored(repo: Repository, candidates: list[Checkpoint], metric: str | None) -> tuple[str, Mode]:
    configured = repo.config.best
    if metric is None:
        if configured is not None:
            return configured.monitor, configured.mode
        names = {name for c in candidates for name in c.metrics}
        metric = next((name for name in DEFAULT_METRICS if name in names), None)
    if metric is None:
        raise UsageError(
            "cannot tell which checkpoint is best",
            why="ckpt.yaml names no metric to compare, and none is called 'val_loss', 'eval_loss' or 'loss'",
            next_step="write BRANCH@best:METRIC, or 'best: {monitor: METRIC, mode: min}' in ckpt.yaml",
        )
    mode = configured.mode if configured and configured.monitor == metric else revisions.mode_of(metric)
    if mode is None:
        raise UsageError(
            f"cannot tell which '{printable(metric)}' is best",
            why="its name does not say whether less or more of it is better",
            next_step=f"write 'best: {{monitor: {printable(metric)}, mode: max}}' (or min) in ckpt.yaml",
        )
    return metric, mode
