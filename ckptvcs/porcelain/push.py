"""Push: objects first, then refs and the ledger, all at once. No ref on the other side names what is not there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckptvcs.digest import digest
from ckptvcs.errors import NotFound, RefMoved, UsageError
from ckptvcs.paths import printable
from ckptvcs.porcelain import account, leases, ledger, neighbours, replicas, signers
from ckptvcs.porcelain.checkpoints import checkpoint_at, made_by, pointer_at, tracks_at
from ckptvcs.porcelain.describe import ref_of
from ckptvcs.porcelain.unfinished import left_behind
from ckptvcs.porcelain.writer import known_writer
from ckptvcs.progress import Progress, silent
from ckptvcs.signatures import PublicKey
from ckptvcs.storage.dvc import pointer
from ckptvcs.storage.history import ancestry
from ckptvcs.storage.history.ledger import LEDGER
from ckptvcs.storage.history.repository import HEADS, TAGS, CommitId
from ckptvcs.storage.history.transport import Git, RefUpdate
from ckptvcs.storage.names import ObjectName, ObjectRef

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from ckptvcs.domain import remote_files
    from ckptvcs.domain.checkpoint import Checkpoint
    from ckptvcs.porcelain.replicas import Copy
    from ckptvcs.porcelain.repo import Repository
    from ckptvcs.porcelain.unfinished import Left

ORIGIN = "origin"
_IDS_PER_ENTRY = 500
"""Checkpoints that one entry of the ledger names at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PushPlan:
    """What a push would do."""

    to: str
    """The git remote."""
    copies: tuple[Copy, ...]
    """The remotes that objects go to, and what each of them lacks; none if there are no objects to look at."""
    updates: tuple[RefUpdate, ...]
    checkpoints: tuple[Checkpoint, ...]
    """Those that the other side does not know yet, newest first."""
    needed: tuple[ObjectRef, ...]
    """All of their objects."""
    notes: tuple[str, ...] = ()
    left: tuple[Left, ...] = ()
    """What pushes left that died."""

    @property
    def uploads(self) -> int:
        """How many objects are to be uploaded, to all remotes together."""
        return sum(len(copy.missing) for copy in self.copies)

    @property
    def nbytes(self) -> int:
        """Bytes to be uploaded, to all remotes together."""
        return sum(copy.nbytes for copy in self.copies)

    @property
    def is_empty(self) -> bool:
        return not self.updates and not self.uploads


def plan_push(
    repo: Repository,
    names: Sequence[str] = (),
    *,
    to: str = ORIGIN,
    remote: str | None = None,
    everything: bool = False,
    full: bool = False,
    copies: int | None = None,
) -> PushPlan:
    """Look at everything, change nothing.

    What the other side has is asked there: its refs say which checkpoints it knows, its stores which objects they have.

    Args:
        repo: the repository.
        names: branches and tags; the branch that is checked out if there are none.
        to: the git remote.
        remote: the DVC remote to begin with; None for the one of ckpt.yaml, or DVC's default.
        everything: all branches and tags.
        full: look at the objects of every checkpoint, not only of those that the git remote does not know yet.
        copies: how many remotes have to have them; None for what ckpt.yaml says.

    Raises:
        UsageError: there is nothing to push, or there are not as many remotes.
        NotFound: no such branch, tag or remote.
        MissingObject: an object is neither here nor there.
        RefMoved: the other side has commits of a branch that are not here. Of all branches, such a one is left out.
    """
    git = Git(repo.history, repo.around.variables)
    theirs = git.list_refs(to)
    refs = _refs(repo, names, everything=everything)
    ahead = [ref for ref, oid in refs.items() if _is_ahead(repo, ref, oid, theirs)]
    if ahead and not everything:
        raise _ahead(repo, ahead[0], to)
    refs = {ref: oid for ref, oid in refs.items() if ref not in ahead}
    updates = [u for ref, oid in refs.items() if (u := _update(ref, oid, theirs)) is not None]
    tips = {ref: CommitId(repo.history.tip(ref) or "") for ref in refs}
    stores = replicas.chosen(repo, remote, copies)
    left = left_behind(repo, stores)
    unsure = tips if full else _without_objects(repo, tips, theirs, stores)
    begun = [tip for one in left for oid in one.tips if (tip := ancestry.commit_behind(repo.history, oid)) is not None]
    new = [tips[update.ref] for update in updates]
    found = (
        *_checkpoints(repo, [*unsure.values(), *begun], []),
        *_checkpoints(repo, new, [CommitId(oid) for oid in theirs.values()]),
    )
    checkpoints = _still_kept(repo, found, [*new, *unsure.values()])
    updates += _chain_updates(repo, theirs, to)
    needed = _needed(repo, checkpoints)
    looked = replicas.look(repo, stores, needed)
    begins = {tips[update.ref] for update in updates if update.old is None and update.ref in tips}
    lost = [c for c in _lost(repo, checkpoints, replicas.nowhere(repo, looked), theirs) if c.commit not in begins]
    if lost:
        checkpoints = tuple(checkpoint for checkpoint in checkpoints if checkpoint not in lost)
        needed = _needed(repo, checkpoints)
        looked = tuple(copy.only(needed) for copy in looked)
    return PushPlan(
        to=to,
        copies=looked,
        updates=tuple(updates),
        checkpoints=checkpoints,
        needed=needed,
        notes=(
            *(_left_out(ref, to) for ref in ahead),
            *(_incomplete(checkpoint, to) for checkpoint in lost),
            *_unheard(repo),
        ),
        left=left,
    )


def _still_kept(repo: Repository, found: Iterable[Checkpoint], tips: Sequence[CommitId]) -> tuple[Checkpoint, ...]:
    """Those that are not dropped, each once.

    Of what is held where a ref is pushed to, all is needed that is not gone for good; also if the other side has the commit:
    where a policy drops something, a collector may be about to take it away just now.
    """
    distinct = {checkpoint.id: checkpoint for checkpoint in found}
    if not distinct and not tips:
        return ()
    said = account.read(repo)
    held = {c.id: c for tip in tips for track in tracks_at(repo, tip) if (c := checkpoint_at(repo, tip, track))}
    known = [said.on(checkpoint) for checkpoint in distinct.values() if checkpoint.id not in held]
    drops = repo.config.retain is not None
    needed = [said.on(c).uncondemned() for c in held.values() if drops or c.id in distinct or said.on(c).is_dropped]
    return tuple(checkpoint for checkpoint in (*needed, *known) if not checkpoint.is_dropped)


def _left_out(ref: str, to: str) -> str:
    return f"branch '{printable(_short(ref))}' is not pushed: '{to}' has commits of it that are not here"


def _incomplete(checkpoint: Checkpoint, to: str) -> str:
    return f"checkpoint {checkpoint.id[:10]} is at '{to}', and some of its objects are neither here nor in a store"


def _unheard(repo: Repository) -> list[str]:
    """What who is not listed has to know: nobody else may tell him."""
    listed, own = signers.read(repo), known_writer(repo)
    if listed is None or own is None or listed.may_write(PublicKey(own.key), ledger.iso(repo.now())):
        return []
    return [
        "what this clone writes into the ledger does not count for others: its key is not valid in ckpt.signers; "
        "run 'ckpt audit allow', and have the file committed"
    ]


def _is_ahead(repo: Repository, ref: str, oid: str, theirs: Mapping[str, str]) -> bool:
    """Whether the other side has commits of a branch that are not here: it would have to go back."""
    there = theirs.get(ref)
    if there is None or there == oid or not ref.startswith(HEADS):
        return False
    known = ancestry.commit_behind(repo.history, there)
    return known is None or not repo.history.is_ancestor(known, CommitId(oid))


def _ahead(repo: Repository, ref: str, to: str) -> RefMoved:
    name = printable(_short(ref))
    pulled = repo.history.tip(f"refs/remotes/{to}/{_short(ref)}")
    ours = ancestry.target(repo.history, ref)
    if pulled is not None and not repo.history.is_ancestor(CommitId(ours), pulled):
        what = (
            f"both sides have commits of their own: 'git fetch {to}', then 'git merge' or 'git rebase'; or give yours another "
            f"name, as runs should have it: git branch -m {name} {name}-2"
        )
    elif _short(ref) == repo.history.head_branch():
        what = "run 'ckpt pull', then push again"
    else:
        what = f"run 'git fetch {to} {name}:{name}', which brings them, then push again"
    return RefMoved(
        f"cannot push '{name}' to '{to}'",
        why="it has commits of that branch that are not here",
        next_step=what,
        ref=ref,
    )


def _short(ref: str) -> str:
    return ref.removeprefix(HEADS).removeprefix(TAGS)


def _needed(repo: Repository, checkpoints: Sequence[Checkpoint]) -> tuple[ObjectRef, ...]:
    return tuple({ref.name: ref for c in checkpoints for ref in _objects(repo, c)}.values())


def _lost(
    repo: Repository,
    checkpoints: Sequence[Checkpoint],
    nowhere: Collection[ObjectName],
    theirs: Mapping[str, str],
) -> list[Checkpoint]:
    """Checkpoints that others see already, and that we cannot complete: no reason not to push ours."""
    incomplete = [c for c in checkpoints if any(ref.name in nowhere for ref in _objects(repo, c))] if nowhere else []
    tips = [tip for oid in theirs.values() if (tip := ancestry.commit_behind(repo.history, oid)) is not None]
    return [c for c in incomplete if any(repo.history.is_ancestor(CommitId(c.commit), tip) for tip in tips)]


def _without_objects(
    repo: Repository, tips: Mapping[str, CommitId], theirs: Mapping[str, str], stores: Sequence[str | None]
) -> dict[str, CommitId]:
    """Those refs that the git remote has, whose checkpoints nobody pushed to all stores: plain git brought them there."""
    found = {}
    for ref in tips.keys() & theirs.keys():
        there = ancestry.commit_behind(repo.history, theirs[ref])
        if there is None:
            continue
        held = [checkpoint_at(repo, there, track) for track in tracks_at(repo, there)]
        ids = {checkpoint.id for checkpoint in held if checkpoint is not None}
        if ids and not all(ledger.were_pushed(repo, ids, store) for store in stores):
            found[ref] = there
    return found


def _refs(repo: Repository, names: Sequence[str], *, everything: bool) -> dict[str, str]:
    """The refs to push, and the git objects that they name."""
    history = repo.history
    if everything:
        wanted = [HEADS + name for name in history.branches()] + [TAGS + tag.name for tag in history.tags()]
    elif names:
        wanted = [_ref(repo, name) for name in names]
    else:
        branch = history.head_branch()
        if branch is None or history.tip(HEADS + branch) is None:
            raise UsageError(
                "nothing to push", why="no branch is checked out, or it has no commit", next_step="name a branch or tag"
            )
        wanted = [HEADS + branch]
    return {ref: ancestry.target(history, ref) for ref in wanted}


def _ref(repo: Repository, name: str) -> str:
    for prefix in (HEADS, TAGS):
        if repo.history.tip(prefix + name) is not None:
            return prefix + name
    raise NotFound(
        f"no branch or tag '{printable(name)}'",
        why="what is pushed is a name, which others can fetch",
        next_step="run 'ckpt branch' and 'ckpt tag' to see which there are",
    )


def _update(ref: str, oid: str, theirs: Mapping[str, str]) -> RefUpdate | None:
    return None if theirs.get(ref) == oid else RefUpdate(ref=ref, old=theirs.get(ref), new=oid)


def _ledger(repo: Repository) -> dict[str, str]:
    """The chain of this clone. Those of others are theirs to push: nobody is in anybody's way."""
    writer = ledger.writer_id(repo)
    head = repo.history.tip(LEDGER + writer) if writer else None
    return {} if head is None else {f"{LEDGER}{writer}": head}


def _chain_updates(repo: Repository, theirs: Mapping[str, str], to: str) -> list[RefUpdate]:
    updates = [u for ref, oid in _ledger(repo).items() if (u := _update(ref, oid, theirs)) is not None]
    for update in updates:
        writer = update.ref.removeprefix(LEDGER)
        ledger.refuse_unfit(repo, writer, CommitId(update.new), there=update.old, to=to)
    return updates


def _checkpoints(repo: Repository, tips: Sequence[CommitId], known: Sequence[CommitId]) -> Iterator[Checkpoint]:
    commits = list(ancestry.between(repo.history, tips, known))
    tracks = sorted({track for tip in tips for track in tracks_at(repo, tip)})
    for track in tracks:
        yield from made_by(repo, iter(commits), track)


def _objects(repo: Repository, checkpoint: Checkpoint) -> Iterator[ObjectRef]:
    """Every object of a checkpoint, the list of its files last."""
    yield from (ref_of(file) for file in checkpoint.needed_files())
    yield directory_of(repo, checkpoint)[0]


def directory_of(repo: Repository, checkpoint: Checkpoint) -> tuple[ObjectRef, bytes]:
    """The object that DVC finds the files of a checkpoint by, and its bytes, which follow from the manifest.

    Raises:
        BadManifest: the pointer of the checkpoint names another one.
    """
    named = pointer_at(repo, CommitId(checkpoint.commit), checkpoint.manifest.track)
    data = pointer.directory_bytes({file.path: ObjectName(file.md5) for file in checkpoint.manifest.all_files()})
    return ObjectRef(name=named.directory, nbytes=len(data), digest=digest(data)), data


def execute(repo: Repository, plan: PushPlan, *, verify: bool = False, progress: Progress = silent) -> tuple[str, ...]:
    """Do what the plan says. What arrived before an interruption stays there, and need not be uploaded again.

    Args:
        repo: the repository.
        plan: from `plan_push`.
        verify: read back what was uploaded, and what was there already; what is wrong is healed from here.
        progress: told about bytes that are uploaded or read back.

    Returns:
        What was healed.

    Raises:
        MissingObject, WrongDigest: an object is missing here, or damaged; no ref was moved.
        IntegrityError: an object did not arrive as it is; no ref was moved.
        RefMoved: somebody pushed meanwhile.
        StorageError: remote or store do not answer, or are full; no ref was moved.
    """
    git = Git(repo.history, repo.around.variables)
    if not plan.copies or not plan.checkpoints:
        if plan.updates:
            git.push(plan.to, plan.updates)
        return ()
    claims = {copy.remote.name: _claim(repo, plan, copy) for copy in plan.copies}
    with replicas.held(repo, plan.copies, claims, tips=_tips(repo, plan), left=plan.left) as taken:
        for lease in taken:
            neighbours.register(repo, lease.remote, lease.side, plan.to)
        healed = replicas.bring(repo, plan.copies, plan.needed, taken, verify=verify, progress=progress)
        ledger.append_all(repo, [entry for copy in plan.copies for entry in _told(plan, copy)])
        for lease in taken:
            lease.about_to_move()
        git.push(plan.to, _with_chain(repo, plan.updates))
        replicas.settle(repo, plan.copies, plan.needed, taken)
    return healed


def _tips(repo: Repository, plan: PushPlan) -> list[CommitId]:
    """What to look at again if this push dies: the commits whose histories hold all that it is about."""
    found = {tip for update in plan.updates if (tip := ancestry.commit_behind(repo.history, update.new)) is not None}
    return [*sorted(found), *(tip for one in plan.left for tip in one.tips)]


def _with_chain(repo: Repository, updates: Sequence[RefUpdate]) -> list[RefUpdate]:
    chain = _ledger(repo)
    others = [update for update in updates if update.ref not in chain]
    return others + [RefUpdate(ref=ref, old=None, new=oid) for ref, oid in chain.items()]


def _claim(repo: Repository, plan: PushPlan, copy: Copy) -> remote_files.Lease:
    newest = CommitId(plan.checkpoints[0].commit)
    return leases.claim_of(
        repo,
        refs=[update.ref for update in plan.updates],
        repository=ancestry.first(repo.history, newest),
        objects=[ref.name for ref in plan.needed],
        nbytes=copy.nbytes,
    )


def _told(plan: PushPlan, copy: Copy) -> Iterator[ledger.Told]:
    """What the ledger is told of: which checkpoints are in a remote now."""
    ids = [checkpoint.id for checkpoint in plan.checkpoints]
    for start in range(0, len(ids), _IDS_PER_ENTRY):
        some = ids[start : start + _IDS_PER_ENTRY]
        facts = {"checkpoints": some, "objects": len(copy.missing), "bytes": copy.nbytes}
        yield ledger.PUSH, {"remote": copy.remote.name, **facts}
