"""`gc`: what no policy keeps is condemned, and what was condemned a grace ago and is still unneeded is swept.

The protocol is that of `docs/explanation/garbage-collection.md`, and its steps are cited as G1 to G8. Nothing is lost by one
run alone. Removing goes the other way than making: the ledger first, bytes last. Killed anywhere, the next run goes on.
"""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ckptvcs.domain import remote_files, sanity
from ckptvcs.domain.basics import FILE
from ckptvcs.domain.keeping import seconds
from ckptvcs.errors import BadConfig, Conflict, NeedsPerson, RefMoved, StorageError, UsageError
from ckptvcs.porcelain import asking, ballast, gc_ledger, ledger, lost, marks, places, retention, sweeping
from ckptvcs.porcelain.config import config_at
from ckptvcs.porcelain.leases import MARKS
from ckptvcs.porcelain.retention import policy_digest as digest_of
from ckptvcs.porcelain.survey import Survey, survey
from ckptvcs.storage.files import Lock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from ckptvcs.domain.checkpoint import CheckpointId
    from ckptvcs.domain.keeping import Retain
    from ckptvcs.domain.sanity import Stop
    from ckptvcs.porcelain.asking import Answers
    from ckptvcs.porcelain.places import Place
    from ckptvcs.porcelain.repo import Repository
    from ckptvcs.porcelain.retention import Verdict
    from ckptvcs.porcelain.sweeping import Swept
    from ckptvcs.storage.names import ObjectName

_TRIES: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user said."""

    places: Sequence[str] = ()
    """Their names; all of them if there are none."""
    yes_delete: int | None = None
    """So many checkpoints may be dropped, however much that is."""
    accept_policy: bool = False
    """Whether a policy that has changed is right."""
    grace_s: float | None = None
    """How long what is condemned in the local cache waits; None for what the policy says."""
    offline: bool = False
    """Whether nobody else is asked: then only the local cache can be collected."""
    now: datetime | None = None
    """The time to decide for; None for now."""
    planned: Mapping[CheckpointId, tuple[str, ...]] | None = None
    """What a plan drops that a person has looked at: then it is that, or nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condemned:
    """What was condemned in one place."""

    place: str
    objects: int
    nbytes: int
    grace_s: float
    """So long it waits at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a collection did, or would do."""

    run: str
    dropped: Mapping[CheckpointId, tuple[str, ...]]
    """The components of checkpoints that were condemned."""
    kept_again: tuple[CheckpointId, ...]
    """Those that were condemned, and that something needs again, or that are there again."""
    condemned: tuple[Condemned, ...]
    swept: tuple[Swept, ...]
    waiting: tuple[Condemned, ...]
    """What was condemned before, and still waits."""
    stops: tuple[Stop, ...] = ()
    """Why a person would have to look first."""
    notes: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there was nothing to do."""
        return not (self.condemned or self.dropped or self.kept_again or any(one.did for one in self.swept))


@dataclass(slots=True)
class _Run:
    """One collection."""

    repo: Repository
    options: Options
    retain: Retain
    places: list[Place]
    writer: str
    actor: str
    id: str
    notes: list[str] = field(default_factory=list)

    def marks(self, names: Sequence[str] = ()) -> remote_files.Marks:
        """What is written beside the objects of a place."""
        return remote_files.Marks(run=self.id, writer=self.writer, actor=self.actor, objects=tuple(names))

    def grace_s(self, place: Place) -> float:
        """How long what is condemned in a place waits at least."""
        wanted = seconds(self.retain.grace)
        if place.is_hot:
            return wanted if self.options.grace_s is None else self.options.grace_s
        return max(wanted, remote_files.GRACE_S)

    @property
    def trash_s(self) -> float | None:
        """How long what was swept from a remote can be brought back; None if not at all."""
        return None if self.retain.trash == "0d" else seconds(self.retain.trash)


def collect(repo: Repository, options: Options, *, dry_run: bool = False) -> Report:
    """Sweep what was condemned long enough ago, and condemn what nothing keeps.

    Args:
        repo: the repository.
        options: what the user said.
        dry_run: change nothing, but for what is fetched from git remotes.

    Raises:
        UsageError: there is no policy.
        NeedsPerson: something is out of the ordinary; nothing was changed.
        LockHeld: another collection is at work.
        StorageError: a git remote or a store does not answer; what was done by then is told by the next run.
    """
    retain = _policy(repo, options)
    with _alone(repo):
        opened = places.opened(repo, (places.HOT,) if options.offline and not options.places else options.places)
        if options.offline and any(not place.is_hot for place in opened):
            raise UsageError(
                "cannot collect at a remote without asking anybody",
                why="others may need what is there",
                next_step="leave out --offline",
            )
        writer, actor = ledger.this_writer(repo)
        stamp = repo.now().strftime("%Y%m%d")
        run = _Run(repo, options, retain, opened, writer, actor, f"{stamp}-{writer[:8]}-{secrets.token_hex(4)}")
        with contextlib.ExitStack() as stack:
            if not dry_run:
                for place in opened:
                    _enter(stack, run, place)  # G1
            for _ in range(_TRIES - 1):
                with contextlib.suppress(RefMoved):  # training goes on here: look again
                    return _collect(run, dry_run=dry_run)
            return _collect(run, dry_run=dry_run)


def _policy(repo: Repository, options: Options) -> Retain:
    retain = repo.config.retain
    if retain is None:
        raise UsageError(
            "there is no policy",
            why="ckpt.yaml has no section 'retain', so everything is kept",
            next_step="see docs/howto/retention.md; 'ckpt policy plan' shows what one would do",
        )
    if options.grace_s is not None and options.grace_s < 0:
        raise UsageError("a grace cannot be negative", next_step="write --grace 12h")
    return retain


@contextlib.contextmanager
def _alone(repo: Repository) -> Iterator[None]:
    repo.private.mkdir(exist_ok=True)
    with Lock(repo.private / "gc.lock", timeout_s=0):
        yield


def _collect(run: _Run, *, dry_run: bool) -> Report:
    seen = {place.name: marks.look(place) for place in run.places}  # G5: ages and leases, then the refs
    answers = asking.ask(run.repo, run.places, offline=run.options.offline)  # G2
    run.notes += answers.notes
    now = run.options.now or run.repo.now()
    verdict = retention.judge(run.repo, run.places, now=now, answers=answers)
    if run.options.planned is not None and verdict.dropped() != dict(run.options.planned):
        raise Conflict(
            "the plan was not carried out",
            why="a git remote or a neighbour has changed what is needed since it was made",
            next_step="make a new one with 'ckpt policy plan', and look at it",
        )
    surveys = [
        survey(
            place,
            verdict,
            seen[place.name],
            writer=run.writer,
            grace_s=run.grace_s(place),
            heirs=place.is_hot or run.trash_s is not None,
        )
        for place in run.places
    ]
    unneeded = gc_ledger.new_drops(verdict)
    dropped = gc_ledger.with_objects(verdict, unneeded, surveys)
    if len(dropped) < len(unneeded) and answers.theirs.answered:
        run.notes.append(_held_back(len(unneeded) - len(dropped), answers))
    if not dry_run:
        lost.note(run.repo, verdict.looked.lost)
    stops = _stops(run, verdict, answers, surveys, dropped)  # G3
    if stops and not dry_run:
        raise needs_person(stops)
    others = _elsewhere(run, verdict) if any(one.kill for one in surveys) and not dry_run else None
    swept = sweeping.sweep(run.repo, run.marks(), verdict, surveys, others=others, trash_s=run.trash_s, dry_run=dry_run)
    again = gc_ledger.needed_again(verdict, run.places)
    agreed = run.options.accept_policy and gc_ledger.accepted(verdict) not in (None, digest_of(run.retain))
    told = gc_ledger.told(verdict, surveys, dropped, again, run=run.id, policy=digest_of(run.retain), agreed=agreed)
    if told and not dry_run:
        ledger.append_all(run.repo, told)
    condemned = [_condemn(run, one, dry_run=dry_run) for one in surveys if one.fresh]  # G4
    more = (note for one in surveys for note in one.notes)
    return Report(
        run=run.id,
        dropped=dropped,
        kept_again=tuple(again),
        condemned=tuple(condemned),
        swept=tuple(swept),
        waiting=tuple(_waiting(run, one) for one in surveys if one.waiting),
        stops=tuple(stops),
        notes=tuple(dict.fromkeys((*verdict.looked.account.notes, *run.notes, *more))),
    )


def _held_back(count: int, answers: Answers) -> str:
    several = "checkpoint that no rule keeps stays" if count == 1 else "checkpoints that no rule keeps stay"
    return f"{count} {several}: other repositories that use the same stores need them ({', '.join(answers.theirs.answered[:3])})"


def _elsewhere(run: _Run, verdict: Verdict) -> dict[str, set[ObjectName]] | None:
    """What places that are not collected now have of what nobody needs; None if nobody is asked.

    Else what goes place by place would never be said to be gone, and be taken for whole.
    """
    here = {place.name for place in run.places}
    others = [name for name in places.names(run.repo) if name not in here]
    if run.options.offline and others:
        return None
    opened = places.opened(run.repo, others) if others else []
    return {place.name: {one.name for one in verdict.doomed_in(place).at(place.removal)} for place in opened}


def _stops(
    run: _Run,
    verdict: Verdict,
    answers: Answers,
    surveys: Sequence[Survey],
    dropped: Mapping[CheckpointId, tuple[str, ...]],
) -> list[Stop]:
    facts = sanity.Facts(
        kept=sum(1 for components in verdict.kept.values() if components),
        dropped=len(dropped),
        refs=_refs(run, verdict, answers),
        unreadable=verdict.foreign.unreadable,
        policy=digest_of(run.retain),
        policy_before=gc_ledger.accepted(verdict),
        policy_committed=_is_committed(run.repo),
        going=[one.going for one in surveys if one.going is not None],
        silent=answers.theirs.silent,
        unsaid=answers.unsaid,
    )
    agreed = run.options.planned is not None  # a person has looked at what goes
    return list(
        sanity.stops(
            facts,
            yes_delete=len(dropped) if agreed else run.options.yes_delete,
            accept_policy=agreed or run.options.accept_policy,
        )
    )


def _refs(run: _Run, verdict: Verdict, answers: Answers) -> list[sanity.Refs]:
    """Of all branches and tags that this clone sees, and of those at git remotes, which all clones see alike."""
    said = verdict.looked.account.collected
    mine = said[run.writer].refs if run.writer in said else None
    found = [sanity.Refs(where="here and at git remotes", count=len(verdict.looked.refs), before=mine)]
    if answers.refs:
        theirs = max(((one.time, one.remote_refs) for one in said.values() if one.remote_refs), default=(None, None))[1]
        found.append(sanity.Refs(where="at git remotes", count=len(answers.refs), before=theirs))
    return found


def needs_person(stops: Sequence[Stop]) -> NeedsPerson:
    """The error of a collection that stops."""
    more = f" (and {len(stops) - 1} more: {', '.join(stop.what for stop in stops[1:])})" if len(stops) > 1 else ""
    return NeedsPerson(
        "nothing was collected: a person has to look first",
        why=f"{stops[0].what}{more}",
        next_step="; ".join(dict.fromkeys(stop.next_step for stop in stops)),
        stops=stops_as_facts(stops),
    )


def stops_as_facts(stops: Sequence[Stop]) -> list[dict[str, str]]:
    """What a program is told of why a person has to look."""
    return [{"kind": stop.kind, "what": stop.what, "next": stop.next_step} for stop in stops]


def _is_committed(repo: Repository) -> bool:
    """Whether the policy is in git as it is here."""
    head = repo.history.head()
    try:
        return head is not None and config_at(repo.history, head, repo.git_path(FILE)).retain == repo.config.retain
    except (BadConfig, StorageError):
        return False


def _enter(stack: contextlib.ExitStack, run: _Run, place: Place) -> None:
    """Keep others away from a place. Where our disk is full, the ballast makes room for that."""

    def enter() -> None:
        stack.enter_context(marks.alone(place, run.marks()))

    if place.is_hot:
        ballast.despite_full(run.repo, enter)
    else:
        enter()


def _condemn(run: _Run, found: Survey, *, dry_run: bool) -> Condemned:
    if not dry_run:
        marks.write(found.place, MARKS, run.marks(sorted(found.fresh)))
        if found.place.is_hot:
            ballast.fill(run.repo)  # when it is swept, the disk may be full
    return Condemned(
        place=found.place.name,
        objects=len(found.fresh),
        nbytes=found.fresh_bytes,
        grace_s=run.grace_s(found.place),
    )


def _waiting(run: _Run, found: Survey) -> Condemned:
    youngest = min(marked.age_s for marked in found.waiting)
    return Condemned(
        place=found.place.name,
        objects=found.waiting_objects,
        nbytes=found.waiting_bytes,
        grace_s=max(run.grace_s(found.place) - youngest, 0.0),
    )
