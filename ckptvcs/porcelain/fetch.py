"""Fetch and pull: refs and the ledger of the others, and the objects of what is wanted here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckptvcs.domain import events
from ckptvcs.errors import IntegrityError, NotFound, Refused, StorageError
from ckptvcs.paths import printable
from ckptvcs.porcelain import account, checkout, obstacles
from ckptvcs.porcelain.checkpoints import checkpoint_at, locate, require_checkpoint, tracks_at
from ckptvcs.porcelain.describe import ref_of
from ckptvcs.porcelain.following import locked
from ckptvcs.porcelain.gone import refuse_gone
from ckptvcs.porcelain.ledger import growth_flaw
from ckptvcs.porcelain.push import ORIGIN, directory_of
from ckptvcs.porcelain.remotes import known, open_remote
from ckptvcs.progress import Progress, silent
from ckptvcs.storage import downloads
from ckptvcs.storage.history import commits, ledger, worktree
from ckptvcs.storage.history.repository import HEADS, TAGS, CommitId
from ckptvcs.storage.history.transport import Git
from ckptvcs.storage.ingest import NewObject
from ckptvcs.storage.names import DIR_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ckptvcs.domain.checkpoint import Checkpoint
    from ckptvcs.porcelain.repo import Repository
    from ckptvcs.storage.names import ObjectRef


# -------------------------------------------------------------------------------------------------------------- refs


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What a fetch brought."""

    moved: tuple[str, ...]
    """Refs that are new, or somewhere else than before."""
    notes: tuple[str, ...]
    """What the user should know."""


def fetch(repo: Repository, to: str = ORIGIN) -> Fetched:
    """Bring the branches and tags of a git remote, as `git fetch` does, and the ledger.

    Raises:
        NotFound: git knows no such remote.
        StorageError: it does not answer.
    """
    before = _all_refs(repo)
    git = Git(repo.history, repo.around.variables)
    git.fetch_ledger(to, f"+{ledger.LEDGER}*:{_theirs(to)}*")
    moved_there = git.fetch(to)
    after = _all_refs(repo)
    notes = [*(_refused(to, one) for one in moved_there), *_gone_back(repo, to, before, after), *_join(repo, to)]
    after = _all_refs(repo)
    moved = sorted(ref for ref, oid in after.items() if before.get(ref) != oid and not ref.startswith(_theirs(to)))
    return Fetched(moved=tuple(moved), notes=tuple(notes))


def _refused(to: str, what: str) -> str:
    return (
        f"'{to}' has moved what does not move: {what}; what is here stays: find out who did that, before you believe it"
    )


def _gone_back(repo: Repository, to: str, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    """What a remote had when it was last fetched from, and has no more: it was rewritten, or an old state of it is served."""
    for ref, old in sorted(before.items()):
        new = after.get(ref)
        if ref.startswith(f"refs/remotes/{to}/") and new not in (None, old) and not _is_behind(repo, old, new):
            where = "went back" if _is_behind(repo, str(new), old) else "was rewritten"
            yield (
                f"branch '{printable(ref.split('/', 3)[3])}' {where} at '{to}': it was at {old[:10]}, and is at {str(new)[:10]}; "
                f"'git branch NAME {old[:10]}' keeps what was there"
            )
        if ref.startswith(_theirs(to)) and (new is None or (new != old and _is_behind(repo, new, old))):
            writer = printable(ref.removeprefix(_theirs(to)))
            yield f"the chain of '{writer}' in the ledger is {'shorter' if new else 'gone'} at '{to}'; what is here stays"


def plan_fetch(repo: Repository, to: str = ORIGIN) -> Fetched:
    """Look which refs a fetch would bring; change nothing."""
    here = _all_refs(repo)
    moved = []
    for ref, oid in Git(repo.history, repo.around.variables).list_refs(to).items():
        ours = ref.replace(HEADS, f"refs/remotes/{to}/", 1) if ref.startswith(HEADS) else ref
        if (
            ref.startswith((HEADS, TAGS, ledger.LEDGER))
            and here.get(ours) != oid
            and not _is_behind(repo, oid, here.get(ours))
        ):
            moved.append(ours)
    return Fetched(moved=tuple(sorted(moved)), notes=())


def _is_behind(repo: Repository, oid: str, ours: str | None) -> bool:
    """Whether we have all of what the other side has, and more: of our own chain, say."""
    return ours is not None and oid in repo.history.repo and repo.history.is_ancestor(CommitId(oid), CommitId(ours))


def _theirs(to: str) -> str:
    """Where the chains of a remote are kept as they are there."""
    return ledger.of_remote(to)


def _all_refs(repo: Repository) -> dict[str, str]:
    references = repo.history.repo.references
    return {name: str(references[name].target) for name in references}


def _join(repo: Repository, to: str) -> list[str]:
    """Let the chains of the ledger grow by what came. A chain only grows: what would rewrite one is told, and left."""
    notes = []
    with locked(repo) as lock:
        mine = ledger.heads(repo.history)
        for writer, head in ledger.heads(repo.history, _theirs(to)).items():
            old = mine.get(writer)
            if not events.is_writer(writer) or head == old or (old and repo.history.is_ancestor(head, old)):
                continue
            if old is not None and not repo.history.is_ancestor(old, head):
                notes.append(
                    f"the chain of '{writer}' in the ledger was rewritten at '{to}'; the one that is here stays"
                )
                continue
            if (flaw := growth_flaw(repo, writer, old, head)) is not None:
                notes.append(
                    f"the chain of '{writer}' in the ledger at '{to}' is not taken over: entry {flaw.n}: {flaw.what}"
                )
                continue
            commits.move_ref(repo.history, ledger.LEDGER + writer, old=old, new=head, reason="ckpt fetch", lock=lock)
    return notes


# ----------------------------------------------------------------------------------------------------------- objects


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectsPlan:
    """Objects that are to be fetched."""

    checkpoints: tuple[Checkpoint, ...]
    missing: tuple[ObjectRef, ...]

    @property
    def nbytes(self) -> int:
        """Bytes to be downloaded."""
        return sum(ref.nbytes for ref in self.missing)


def plan_objects(
    repo: Repository, revision: str, *, components: Sequence[str] = (), track: str | None = None
) -> ObjectsPlan:
    """Look which objects of a revision are not here, or are damaged; change nothing.

    Args:
        repo: the repository.
        revision: any revision.
        components: names or roles; all of them if there are none.
        track: the track; all that the revision has if it is None.

    Raises:
        NotFound: no such revision, component or checkpoint.
    """
    commit = locate(repo, revision, track or repo.basics.track)
    tracks = [track] if track else tracks_at(repo, commit)
    found = [require_checkpoint(repo, revision, t) if track else checkpoint_at(repo, commit, t) for t in tracks]
    checkpoints = account.with_late(repo, *(checkpoint for checkpoint in found if checkpoint is not None))
    refuse_gone(repo, *checkpoints, components=components)
    wanted = {ref.name: ref for checkpoint in checkpoints for ref in _members(checkpoint, components)}
    return ObjectsPlan(
        checkpoints=checkpoints,
        missing=tuple(ref for ref in wanted.values() if not repo.objects.is_healthy(ref)),
    )


def _members(checkpoint: Checkpoint, components: Sequence[str]) -> list[ObjectRef]:
    manifest = checkpoint.manifest
    if not components:
        return [ref_of(file) for file in checkpoint.remaining_files()]
    entries = [manifest.component(name) for name in components]
    for name, entry in zip(components, entries, strict=True):
        if entry is None:
            raise NotFound(
                f"no component '{name}' in checkpoint {checkpoint.id[:10]}",
                why=f"it has {', '.join(c.name for c in manifest.components)}",
                next_step="name one of them",
            )
    return [ref_of(file) for entry in entries if entry is not None for file in entry.files]


def fetch_objects(
    repo: Repository, plan: ObjectsPlan, *, remote: str | None = None, progress: Progress = silent
) -> tuple[str, ...]:
    """Download objects. Each is verified while it is written, and has its name only when it is right.

    Where the first remote has not all of them, or gives wrong bytes, the others are tried.

    Args:
        repo: the repository.
        plan: from `plan_objects`.
        remote: the DVC remote to begin with; None for the one that checkpoints go to.
        progress: told about bytes that came.

    Returns:
        What went wrong and was mended by another remote.

    Raises:
        IntegrityError: no remote has an object, or none has it whole.
        StorageError: one that may have it does not answer, or the disk is full.
    """
    repo.objects.store.sweep(repo.now().timestamp())
    notes: list[str] = []
    missing = list(plan.missing)
    problem: IntegrityError | StorageError | None = None
    silent_one: StorageError | None = None
    for name in _in_turn(repo, remote) if missing else ():
        try:
            missing, problem = _fetch_from(repo, name, missing, progress)
        except StorageError as err:
            missing, problem = [ref for ref in missing if not repo.objects.is_healthy(ref)], err
            silent_one = silent_one or err
        if problem is None:
            break
        notes.append(f"remote '{name}': {problem}")
    if problem is not None:  # what one that did not answer may have is not lost
        raise silent_one or problem
    for checkpoint in plan.checkpoints:
        ref, data = directory_of(repo, checkpoint)
        if all(repo.objects.store.nbytes(ref_of(f).name) is not None for f in checkpoint.manifest.all_files()):
            repo.objects.store.put([NewObject(lambda d=data: [d], len(data), DIR_SUFFIX, ref)])  # type: ignore[misc]
    return tuple(notes)


def _in_turn(repo: Repository, first: str | None) -> list[str | None]:
    """The remotes to try: that one, or the default, and then every other that is warm."""
    there = [one for one in known(repo) if one.tier == "warm"]
    begin = first or next((one.name for one in there if one.default), None)
    others = [one.name for one in there if one.name != begin]
    return [begin, *others] if begin is not None or not others else [*others]


def _fetch_from(
    repo: Repository, name: str | None, refs: Sequence[ObjectRef], progress: Progress
) -> tuple[list[ObjectRef], IntegrityError | None]:
    """Fetch what a remote has; returns what it has not, or not whole, and the first that went wrong."""
    remote = open_remote(repo, name)
    if refs and remote.is_empty():
        raise StorageError(
            f"cannot fetch from '{printable(remote.name)}'",
            why="it is empty: nothing was pushed to it, or it is not mounted",
            next_step="mount it, or look at its URL with 'ckpt remote list'; then run the command again",
            remote=remote.name,
        )
    left, bad, problem = list(refs), set[str](), None
    while todo := [ref for ref in left if ref.name not in bad]:
        try:
            downloads.download(remote, todo, repo.objects.store, progress)
        except IntegrityError as err:
            wrong = err.facts.get("object")
            problem = problem or err
            bad.update([wrong] if wrong else [ref.name for ref in todo])
        # What came was read as it came; where something went wrong, the rest is read again.
        is_whole = repo.objects.is_sound if problem is None else repo.objects.is_healthy
        left = [ref for ref in left if ref.name in bad or not is_whole(ref)]
        if problem is None:
            break
    repo.objects.note([ref for ref in refs if ref not in left])
    return left, problem


# -------------------------------------------------------------------------------------------------------------- pull


def upstream(repo: Repository, to: str = ORIGIN) -> CommitId | None:
    """Where the branch that is checked out is on a git remote, as it was last fetched; None if it is behind, or not there."""
    branch, head = repo.history.head_branch(), repo.history.head()
    there = repo.history.tip(f"refs/remotes/{to}/{branch}") if branch else None
    if there is None or there == head or (head is not None and repo.history.is_ancestor(there, head)):
        return None
    return there


def _fast_forward(repo: Repository, to: CommitId) -> None:
    history, head, branch = repo.history, repo.history.head(), repo.history.head_branch()
    if head is not None and not history.is_ancestor(head, to):
        name = printable(branch or "HEAD")
        raise Refused(
            "cannot fast-forward",
            why="both sides have commits of their own",
            next_step=f"keep yours under another name with 'git branch -m {name} {name}-2' and check theirs out, "
            "or bring them together with 'git merge' or 'git rebase'",
        )
    try:
        worktree.refuse_unless_plain(history, to)
    except Refused:  # filters, as of LFS, are git's business
        Git(history, repo.around.variables).fast_forward(to)
        return
    with locked(repo) as lock:
        checkout.bring_files(repo, to, lock)
        commits.move_ref(history, f"{HEADS}{branch}", old=head, new=to, reason="ckpt pull: Fast-forward", lock=lock)


def advance(repo: Repository, to: CommitId | None) -> None:
    """Fast-forward the branch that is checked out, and make its checkpoints appear; their objects are here.

    Args:
        repo: the repository.
        to: from `upstream`; None if the branch stays where it is.

    Raises:
        Refused: both sides have commits of their own, or something would be lost; nothing was moved.
    """
    if to is not None:
        obstacles.refuse_planted(repo, to)
        checkout.refuse_unsaved(repo, to)
        _fast_forward(repo, to)
    branch = repo.history.head_branch()
    if branch is not None and repo.history.tip(HEADS + branch) is not None:
        checkout.execute(repo, checkout.plan_checkout(repo, branch))
