"""`import`: checkpoints that lie around become commits, in the order in which they became, each with its own date.

Nothing is moved, changed or deleted. What a file held is known by a digest of its bytes in the manifest of its checkpoint:
so an import that was interrupted goes on with what is missing, and one that is run again does nothing.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ckptvcs.digest import digest
from ckptvcs.domain.checkpoint import check_track
from ckptvcs.domain.import_names import read_name, settled
from ckptvcs.domain.import_order import run_names
from ckptvcs.domain.manifest import OURS, SourceEntry
from ckptvcs.domain.provenance import Code, Environment
from ckptvcs.errors import CkptvcsError, Conflict, FormatError, LockHeld, StorageError
from ckptvcs.paths import printable
from ckptvcs.porcelain import capture, commit, import_look, incoming, remotes
from ckptvcs.porcelain.claim import claim_branch, release_branch
from ckptvcs.porcelain.describe import Options
from ckptvcs.porcelain.gathering import gather
from ckptvcs.porcelain.import_kept import Would, as_it_is, would_keep
from ckptvcs.porcelain.import_line import BranchPlan, Item, plan_branch
from ckptvcs.porcelain.target import find_target
from ckptvcs.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ckptvcs.digest import Digest
    from ckptvcs.domain.import_names import Template
    from ckptvcs.domain.import_order import Parts
    from ckptvcs.porcelain.gathering import Found
    from ckptvcs.porcelain.import_look import Looked
    from ckptvcs.porcelain.repo import Repository

_CLAIM_WAIT_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the user says of an import. None means: not said."""

    branch: str | None = None
    """Where all of it goes; else that of the run, else one branch for each folder."""
    run: str | None = None
    track: str | None = None
    templates: tuple[Template, ...] = ()
    allow_pickle: bool = False
    follow_links: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportPlan:
    """What an import would do."""

    wanted: Wanted
    track: str
    branches: tuple[BranchPlan, ...]
    others: tuple[Path, ...]
    """Files that fit a pattern and are no checkpoints."""
    has_policy: bool
    """Whether `ckpt.yaml` says what is kept."""
    notes: tuple[str, ...]

    @property
    def items(self) -> tuple[Item, ...]:
        return tuple(item for branch in self.branches for item in branch.items)

    @property
    def new(self) -> tuple[Item, ...]:
        return tuple(item for branch in self.branches for item in branch.new)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one that was to be imported."""

    item: Item
    receipt: commit.Receipt | None
    failure: CkptvcsError | None = None


class Watcher:
    """Who wants to see an import at work. This one does not look."""

    def reading(self, item: Item) -> AbstractContextManager[object]:
        """Be there while one is read and hashed."""
        del item
        return nullcontext()

    def writing(self, item: Item, nbytes: int) -> AbstractContextManager[Progress]:
        """Be there while so many bytes of one are written, and take the news of it."""
        del item, nbytes
        return nullcontext(silent)

    def told(self, outcome: Outcome) -> None:
        """Hear what became of one, as soon as it is known."""


# --------------------------------------------------------------------------------------------------------------- plan


def plan(repo: Repository, patterns: Sequence[str], wanted: Wanted) -> ImportPlan:
    """Look at everything, change nothing. `--dry-run` prints what this returns.

    Args:
        repo: the repository.
        patterns: paths, or patterns with `*`, `?`, `[...]` and `**`.
        wanted: what the user said.

    Raises:
        UsageError: a path does not exist, nothing was found, or there can be no such branch.
        Refused: there can be no such branch.
    """
    track = check_track(wanted.track or repo.basics.track)
    gathered = gather(patterns, root=repo.root, directory=repo.basics.directory)
    runs = run_names({_parts(repo, found.home) for found in gathered.found})
    now = repo.now()
    by_branch: dict[str, list[Item]] = {}
    for found in gathered.found:
        looked = import_look.look(found, now=now, allow_pickle=wanted.allow_pickle, follow_links=wanted.follow_links)
        item = _item(looked, wanted, runs[_parts(repo, found.home)])
        by_branch.setdefault(item.branch, []).append(item)
    branches = [plan_branch(repo, items, branch=branch, track=track) for branch, items in sorted(by_branch.items())]
    return ImportPlan(
        wanted=wanted,
        track=track,
        branches=tuple(_with_kept(repo, branches, track)),
        others=gathered.others,
        has_policy=repo.config.retain is not None,
        notes=gathered.notes,
    )


def _parts(repo: Repository, folder: Path) -> Parts:
    """The parts of the path of a folder, from the root of the repository if it is in it."""
    for root in (repo.root, Path(os.path.realpath(repo.root))):
        if folder.is_relative_to(root):
            return folder.relative_to(root).parts
    return folder.parts


def _item(looked: Looked, wanted: Wanted, run: str) -> Item:
    shown = Path(os.path.relpath(looked.found.path)).as_posix()
    shown = looked.found.path.as_posix() if shown.startswith("../../../") else shown
    if looked.failure is not None:
        looked = replace(looked, failure=import_look.about(looked.failure, looked.found, shown))
    named = read_name(looked.found.path.as_posix(), wanted.templates)
    facts = settled(named, looked.held)
    if wanted.templates and not named.told:
        facts = replace(facts, notes=(*facts.notes, "its name does not fit --names: it is read as names commonly are"))
    return Item(
        looked=looked,
        shown=shown,
        facts=facts,
        branch=wanted.branch or wanted.run or run,
        run=wanted.run,
        status="failed" if looked.failure else "new",
    )


def _with_kept(repo: Repository, branches: Sequence[BranchPlan], track: str) -> list[BranchPlan]:
    """The same, with what `retain` would keep of the history that would be."""
    lines = {
        one.branch: [*(as_it_is(c) for c in one.history if not c.is_gone), *map(_as_it_would_be, one.new)]
        for one in branches
    }
    has_warm = any(one.tier == "warm" for one in remotes.known(repo))
    kept = would_keep(lines, repo.config.retain, track=track, has_warm=has_warm, now=repo.now())
    if kept is None:
        return list(branches)
    return [
        replace(one, items=tuple(replace(item, kept=kept.get(item.checkpoint or _key(item))) for item in one.items))
        for one in branches
    ]


def _as_it_would_be(item: Item) -> Would:
    facts, looked = item.facts, item.looked
    return Would(
        key=_key(item),
        date=looked.date,
        step=facts.step,
        metrics=facts.metrics,
        roles=looked.roles or {"": "model"},
        nbytes=item.nbytes,
    )


def _key(item: Item) -> str:
    return digest(f"{item.branch}\0{item.shown}".encode("utf-8", "surrogateescape"))


# ---------------------------------------------------------------------------------------------------------------- act


def execute(
    repo: Repository,
    plan: ImportPlan,
    watcher: Watcher | None = None,
) -> tuple[Outcome, ...]:
    """Commit what is new, branch by branch, in order. What cannot be read after all stops no other.

    Args:
        repo: the repository.
        plan: from `plan`.
        watcher: who wants to see it at work.

    Raises:
        StorageError: the disk is full, read-only or failing; what was told stands.
        Conflict: another process commits to one of the branches.
    """
    outcomes: list[Outcome] = []
    watcher = watcher or Watcher()
    with ExitStack() as claims:
        for one in plan.branches:
            if one.new:
                _claim(repo, one, claims)
        start = capture.code(repo).code.commit
        for one in plan.branches:
            for item in one.new:
                outcome = _attempt(repo, plan, one, item, start=start, watcher=watcher)
                outcomes.append(outcome)
                watcher.told(outcome)
    return tuple(outcomes)


def _claim(repo: Repository, one: BranchPlan, claims: ExitStack) -> None:
    """Keep other imports and trainings away from a branch, and see that none was there since we looked."""
    try:
        claim_branch(repo, one.branch, run=one.branch, wait_s=_CLAIM_WAIT_S)
    except LockHeld as err:
        raise LockHeld(
            f"cannot import to branch '{one.branch}'",
            why="another import, or a training, commits to it right now",
            next_step="wait until it has ended, or name another branch with --branch",
        ) from err
    claims.callback(release_branch, repo, one.branch)
    if repo.history.tip(find_target(repo, one.branch, None).ref) != one.tip:
        raise Conflict(
            f"cannot import to branch '{one.branch}'",
            why="somebody committed to it meanwhile",
            next_step="run the command again: it looks anew what is missing",
        )


def _attempt(
    repo: Repository, plan: ImportPlan, one: BranchPlan, item: Item, *, start: str | None, watcher: Watcher
) -> Outcome:
    try:
        return Outcome(item=item, receipt=_import(repo, plan, one, item, start=start, watcher=watcher))
    except (StorageError, LockHeld):
        raise  # they are not about this one, and would stop the next one too
    except CkptvcsError as err:
        return Outcome(item=item, receipt=None, failure=import_look.about(err, item.looked.found, item.shown))


def _import(
    repo: Repository, plan: ImportPlan, one: BranchPlan, item: Item, *, start: str | None, watcher: Watcher
) -> commit.Receipt:
    with watcher.reading(item):
        prepared = _prepared(repo, plan, one, item, start)
    with watcher.writing(item, prepared.new_bytes) as progress:
        return commit.execute(repo, prepared, progress)


def _prepared(repo: Repository, plan: ImportPlan, one: BranchPlan, item: Item, start: str | None) -> commit.CommitPlan:
    looked, found, wanted = item.looked, item.looked.found, plan.wanted
    import_look.check_as_seen(looked)
    content = import_look.digest_of(found, repo, hints=False)
    what = incoming.from_path(
        found.path, allow_pickle=wanted.allow_pickle, follow_links=wanted.follow_links, leave_out=found.left_out
    )
    what = replace(what, source=_source(what, found, content), facts=_facts(what), watched=dict(looked.stamps))
    options = Options(
        message=f"Import {printable(found.path.name)}",
        track=plan.track,
        branch=item.branch,
        run=item.run,
        run_id=digest(f"{item.run or item.branch}\0{content}".encode())[:16],
        step=item.facts.step,
        epoch=item.facts.epoch,
        metrics=item.facts.metrics,
        reason="import",
        start=start,
        fresh=True,
        saved=looked.date,
        workspace=item == one.new[-1],
    )
    nothing = commit.Custody(code=Code(), patch=b"", environment=Environment())  # those of now did not make it
    return replace(commit.plan(repo, what, options, nothing), data=())


def _source(what: incoming.Incoming, found: Found, content: Digest) -> SourceEntry:
    """What the manifest says of the source, with what it is known by later."""
    source = what.source
    if any(key.startswith(OURS) for key in source.metadata):
        raise FormatError(
            f"cannot import '{found.path}'",
            why=f"its header has a key that begins with '{OURS}', which says what an import noted",
            next_step="commit it by itself with 'ckpt commit'",
        )
    noted = {import_look.DIGEST: f"blake3:{content}", import_look.NBYTES: str(found.nbytes)}
    return SourceEntry(format=source.format, name=source.name, metadata={**source.metadata, **noted})


def _facts(what: incoming.Incoming) -> dict[str, object]:
    """What the state says of itself, without what was settled between it and its name."""
    return {key: value for key, value in what.facts.items() if key == "params"}
