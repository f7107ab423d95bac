"""What retention decides by, found in this repository: the checkpoints of every ref, their lines, and who needs which."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ckptvcs.domain import remote_files
from ckptvcs.domain.checkpoint import mark_of
from ckptvcs.domain.keeping import seconds
from ckptvcs.domain.reasons import Line, Member, Pin, View
from ckptvcs.domain.revisions import mode_of
from ckptvcs.paths import printable
from ckptvcs.porcelain import account, inventory, lost, remembered
from ckptvcs.porcelain.checkpoints import DEFAULT_METRICS
from ckptvcs.storage.history import recovery
from ckptvcs.storage.history.repository import HEADS, TAGS, CommitId

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from ckptvcs.domain.checkpoint import CheckpointId
    from ckptvcs.domain.events import Noted
    from ckptvcs.domain.policy import Config
    from ckptvcs.domain.revisions import Mode
    from ckptvcs.porcelain.account import Account
    from ckptvcs.porcelain.inventory import Brief, Inventory, Slim
    from ckptvcs.porcelain.repo import Repository

_INEXACT: Final = "on_exception"
"""How the reason of a save begins that training does not go on from by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What was found."""

    inventory: Inventory
    view: View
    account: Account
    lost: set[str]
    """Commits that nothing leads to."""
    refs: Mapping[str, str]
    """Every ref that was looked at, those of remotes under `REMOTE:REF`, and what it names."""
    again: frozenset[CheckpointId] = frozenset()
    """Checkpoints of which something is gone, as the ledger says, and that a ref or a hold names: what there is of it stays."""


def look(repo: Repository, elsewhere: Mapping[str, str] | None = None, *, briefly: bool = False) -> Looked:
    """Look at everything that any ref leads to; change nothing.

    Args:
        repo: the repository.
        elsewhere: refs of git remotes as they are there right now, under `REMOTE:REF`; their objects are here.
        briefly: without the objects of checkpoints, and with what was remembered of those that were looked at before.

    Raises:
        StorageError: git cannot read its history.
    """
    refs = {**refs_here(repo), **(elsewhere or {})}
    heads = recovery.heads(repo.history)
    left = recovery.logged(repo.history)
    tips = [*refs.values(), *heads.values(), *left]
    every = sorted(set(tips))
    found = remembered.take(repo, every) if briefly else inventory.take(repo.history, repo.around.variables, every)
    said = account.read(repo)
    view, again = _view(repo, found, said, refs, heads)
    nothing_leads_to = set[str]() if briefly else lost.add(repo, found)
    return Looked(inventory=found, view=view, account=said, refs=refs, again=again, lost=nothing_leads_to)


def refs_here(repo: Repository) -> dict[str, str]:
    """Every ref of this clone but those of our own book-keeping, and what it names."""
    history = repo.history
    here = {f"{HEADS}{name}": str(tip) for name, tip in history.branches().items()}
    tags = {f"{TAGS}{tag.name}": str(tag.commit) for tag in history.tags()}
    return {**here, **tags, **{ref: str(tip) for ref, tip in history.remote_tips().items()}}


def _objects(slim: Slim, components: Collection[str]) -> Iterator[tuple[bytes, int]]:
    if components:
        yield from slim.objects(components)
        yield slim.directory, slim.directory_nbytes


def _view(
    repo: Repository, found: Inventory, said: Account, refs: Mapping[str, str], heads: Mapping[str, CommitId]
) -> tuple[View, frozenset[CheckpointId]]:
    gone = {i: said.dropped[i].gone for i in said.dropped.keys() & found.checkpoints.keys()}
    members = {i: _member(slim, said, gone.get(i, frozenset())) for i, slim in found.checkpoints.items()}
    members = {identifier: member for identifier, member in members.items() if member.components}
    commits = {ref: CommitId(tip) for ref, tip in refs.items() if CommitId(tip) in found.parents}
    lines = list(_lines(found, commits, members))
    named = _reachable(found, [*commits.values(), *heads.values()])
    lines += _rest(found, named, members, lines)
    pins = _Pins(members, gone)
    pins.refs(found, commits, heads)
    pins.people(said)
    pins.rescued(repo, said)
    pins.logged(found, named)
    again = frozenset(pins.again)
    seen = View(
        members=members,
        lines=lines,
        pins=pins.found,
        compared=compared(repo.config, members.values()),
        says_best=repo.config.best is not None,
        objects=lambda identifier, components: _objects(found.slim(identifier), components),
        has_warm=_has_warm(repo),
    )
    return seen, again


def _has_warm(repo: Repository) -> bool:
    """Whether there is a warm remote, where that makes a difference."""
    retain = repo.config.retain
    if retain is None or retain.max_bytes.hot is None:
        return True
    from ckptvcs.porcelain.remotes import known  # takes a time that `why` need not take

    return any(one.tier == "warm" for one in known(repo))


def _member(slim: Brief, said: Account, gone: frozenset[str]) -> Member:
    late = said.late.get(slim.id)
    whole = not gone and slim.grade != "weights-only" and not slim.reason.startswith(_INEXACT)
    return Member(
        id=slim.id,
        time=slim.time,
        step=slim.step,
        metrics=_metrics(slim, late) if late else slim.metrics,
        components={name: role for name, role in slim.roles.items() if name not in gone} if gone else slim.roles,
        parents=slim.parents,
        complete=whole,
    )


def _metrics(slim: Brief, late: Mapping[str, Noted]) -> Mapping[str, float]:
    """Its metrics that are numbers: those that it was saved with, and those that were noted since, which override them."""
    noted = {name: float(n.value) for name, n in late.items() if isinstance(n.value, (int, float))}
    words = {name for name, n in late.items() if not isinstance(n.value, (int, float))}  # a note may say "nan"
    return {**{name: value for name, value in slim.metrics.items() if name not in words}, **noted}


def compared(config: Config, members: Iterable[Member]) -> tuple[tuple[str, Mode], ...]:
    """By what `@best` compares; see `checkpoints.locate`."""
    if config.best is not None:
        return ((config.best.monitor, config.best.mode),)
    there = {name for member in members for name in DEFAULT_METRICS if name in member.metrics}
    found = ((name, mode_of(name)) for name in DEFAULT_METRICS if name in there)
    return tuple((name, mode) for name, mode in found if mode is not None)


# --------------------------------------------------------------------------------------------------------------- lines


def branch_of(ref: str) -> str | None:
    """The name that policies know a branch by: `origin/exp` is `exp`, too; None if a ref is no branch."""
    remote, _, name = ref.rpartition(":")
    if remote:
        return name.removeprefix(HEADS) if name.startswith(HEADS) else None
    if ref.startswith(HEADS):
        return ref.removeprefix(HEADS)
    if ref.startswith("refs/remotes/"):
        return ref.removeprefix("refs/remotes/").partition("/")[2] or None
    return None


def _lines(found: Inventory, commits: Mapping[str, CommitId], members: Mapping[CheckpointId, Member]) -> Iterator[Line]:
    tips = sorted({(branch, tip) for ref, tip in commits.items() if (branch := branch_of(ref)) is not None})
    for branch, tip in tips:
        by_track: dict[str, dict[CheckpointId, None]] = {}
        for identifier in found.line(tip):
            if identifier in members:
                by_track.setdefault(found.checkpoints[identifier].track, {})[identifier] = None
        for track, ids in sorted(by_track.items()):
            yield Line(branch=branch, track=track, members=tuple(ids))


def _reachable(found: Inventory, tips: Iterable[CommitId]) -> set[CommitId]:
    seen, left = set(tips), list(set(tips))
    while left:
        for parent in found.parents.get(left.pop(), ()):
            if parent not in seen:
                seen.add(parent)
                left.append(parent)
    return seen


def _rest(
    found: Inventory, named: Collection[CommitId], members: Mapping[CheckpointId, Member], lines: Iterable[Line]
) -> Iterator[Line]:
    """What refs lead to along no branch, such as what was merged and whose branch is gone: lines by the names of runs."""
    on_lines = set(itertools.chain.from_iterable(line.members for line in lines))
    by_run: dict[tuple[str, str], list[CheckpointId]] = {}
    for commit, ids in found.made.items():  # parents first
        for identifier in ids if commit in named else ():
            if identifier in members and identifier not in on_lines:
                slim = found.checkpoints[identifier]
                by_run.setdefault((slim.run, slim.track), []).insert(0, identifier)
    for (run, track), some in sorted(by_run.items()):
        yield Line(branch=run, track=track, members=tuple(dict.fromkeys(some)))


# ---------------------------------------------------------------------------------------------------------------- pins


class _Pins:
    """Who needs which checkpoint, whatever rules say."""

    def __init__(self, members: Mapping[CheckpointId, Member], gone: Mapping[CheckpointId, frozenset[str]]) -> None:
        self._members = members
        self._gone = {identifier for identifier, components in gone.items() if components}
        self.again: set[CheckpointId] = set()
        """Those that are named though something of them is gone."""
        self.found: dict[CheckpointId, list[Pin]] = {}

    def _pin(self, identifiers: Iterable[CheckpointId], kind: str, text: str, source: str) -> None:
        pin = Pin(kind=kind, text=text, source=source)
        for identifier in identifiers:
            if identifier in self._gone and kind != "reflog":
                self.again.add(identifier)
            if identifier in self._members and pin not in self.found.setdefault(identifier, []):
                self.found[identifier].append(pin)

    def refs(self, found: Inventory, commits: Mapping[str, CommitId], heads: Mapping[str, CommitId]) -> None:
        """Tags of any kind, other refs such as a stash, and what is checked out."""
        for ref, commit in sorted(commits.items()):
            held, name = found.held.get(commit, ()), ref.rpartition(":")[2]
            if name.startswith(TAGS):
                tag = name.removeprefix(TAGS)
                self._pin(held, mark_of(tag) or "tag", f"tag '{printable(tag)}'", f"tag {tag}")
            elif branch_of(ref) is not None:
                self.again.update(self._gone.intersection(held))
            else:
                self._pin(held, "ref", f"'{printable(ref)}' holds it", f"ref {ref}")
        for where, commit in sorted(heads.items()):
            name = Path(where).name
            text = "it is checked out" + (f" in worktree '{printable(name)}'" if where else " here")
            self._pin(found.held.get(commit, ()), "checked out", text, f"HEAD {where}".strip())

    def people(self, said: Account) -> None:
        """Holds, and training that went on from it and may still run."""
        for identifier, holds in said.holds.items():
            for hold in holds:
                until = f" until {hold.until[:16].replace('T', ' ')}" if hold.until else ""
                self._pin([identifier], "hold", f"held{until}: {printable(hold.why)}", f"hold {hold.id}")
        for started in said.running:
            began = datetime.fromisoformat(started.time).strftime("%Y-%m-%d %H:%M")
            text = f"run '{printable(started.run)}' went on from it at {began} UTC, and has not ended"
            self._pin(started.parents, "running", text, f"run {started.run}")

    def rescued(self, repo: Repository, said: Account) -> None:
        """What somebody rescued: it waits its grace anew."""
        retain = repo.config.retain
        grace = (
            timedelta(seconds=max(seconds(retain.grace), remote_files.GRACE_S)) if retain is not None else timedelta()
        )
        for identifier, time in said.rescued.items():
            at = datetime.fromisoformat(time)
            if at + grace > repo.now():
                self._pin([identifier], "rescued", f"it was rescued at {at:%Y-%m-%d %H:%M} UTC", "rescue")

    def logged(self, found: Inventory, named: Collection[CommitId]) -> None:
        """What only a reflog leads to: git keeps it for who moved a branch by mistake, and so do we."""
        for commit, ids in found.made.items():
            if commit not in named:
                self._pin(ids, "reflog", "git's reflog still leads to it", "reflog")
