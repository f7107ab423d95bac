"""`policy simulate`: what another policy would have done here, or would do with a training to come."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

from ckptvcs.domain import events, simulation
from ckptvcs.domain.checkpoint import CheckpointId
from ckptvcs.errors import BadConfig, NotFound, UsageError
from ckptvcs.porcelain import config as configuration
from ckptvcs.porcelain import ledger, remotes, view
from ckptvcs.storage.history import recovery

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from ckptvcs.domain.keeping import Retain
    from ckptvcs.domain.simulation import Cadence, Past, Simulated, Use
    from ckptvcs.porcelain.repo import Repository
    from ckptvcs.porcelain.view import Looked

_ALWAYS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a policy does, beside what keeping everything and what the present policy does."""

    name: str
    simulated: Simulated
    cost: float | None
    """GB-months times the price, if one is known."""


def over_the_past(
    repo: Repository, policies: Mapping[str, Retain | None], *, since_s: float | None, price: float | None
) -> list[Outcome]:
    """Run policies over the history of this repository.

    Args:
        repo: the repository.
        policies: by what they are called.
        since_s: how far back, in seconds; None for all of it.
        price: of a GB for a month.

    Raises:
        NotFound: there are no checkpoints.
    """
    looked = view.look(repo)
    past = _with_remotes(repo, policies, _past(repo, looked))
    if not past.view.members:
        raise NotFound(
            "there is no past",
            why="no ref leads to a checkpoint",
            next_step="state a cadence: --every 30min --for 30d --size 4GB",
        )
    end = repo.now().timestamp()
    first = min(member.time for member in past.view.members.values())
    start = first if since_s is None else max(first, end - since_s)
    return [
        _outcome(name, simulation.simulate(past, retain, start=start, end=end), price)
        for name, retain in policies.items()
    ]


def ahead(
    repo: Repository, policies: Mapping[str, Retain | None], cadence: Cadence, *, branch: str, price: float | None
) -> list[Outcome]:
    """Run policies over a training to come; its times are seconds since it begins.

    Raises:
        UsageError: it would make more checkpoints than can be looked at.
    """
    if cadence.span_s / cadence.every_s > 100_000:
        raise UsageError(
            "that is too much to simulate",
            why="more than 100,000 checkpoints",
            next_step="state a longer --every, or less time",
        )
    past = simulation.ahead(cadence, start=0.0, branch=branch)  # whenever one asks, the answer is the same
    past = _with_remotes(repo, policies, past)
    return [
        _outcome(name, simulation.simulate(past, retain, start=0.0, end=cadence.span_s), price)
        for name, retain in policies.items()
    ]


def _with_remotes(repo: Repository, policies: Mapping[str, Retain | None], past: Past) -> Past:
    """The same, where a policy limits the local cache: what that means depends on whether there is a warm remote."""
    if all(retain is None or retain.max_bytes.hot is None for retain in policies.values()):
        return past
    has_warm = any(one.tier == "warm" for one in remotes.known(repo))
    return replace(past, view=replace(past.view, has_warm=has_warm))


def _outcome(name: str, simulated: Simulated, price: float | None) -> Outcome:
    return Outcome(name=name, simulated=simulated, cost=None if price is None else simulated.gb_months * price)


def policy_of(path: Path) -> Retain | None:
    """The policy of another file, such as a changed copy of `ckpt.yaml`.

    Raises:
        NotFound: there is no such file.
        BadConfig: it cannot be used, or has no section `retain`.
    """
    if not path.is_file():
        raise NotFound(f"no policy '{path}'", why="there is no such file", next_step="write one, as ckpt.yaml")
    retain = configuration.read_file(path).retain
    if retain is None:
        raise BadConfig(f"'{path}' has no policy", why="there is no section 'retain' in it", next_step="write one")
    return retain


# --------------------------------------------------------------------------------------------------------------- the past


def _past(repo: Repository, looked: Looked) -> Past:
    """The history with the times at which tags, holds and late metrics came, and what was done with checkpoints."""
    made = {f"tag {tag}": time for tag, time in recovery.tag_times(repo.history).items()}
    holds = {f"hold {hold.id}": _seconds(hold.time) for held in looked.account.holds.values() for hold in held}
    runs = {f"run {started.run}": _seconds(started.time) for started in looked.account.running}
    since = {**made, **holds, **runs}
    pinned_at = {
        (identifier, pin.source): since.get(pin.source, _ALWAYS)
        for identifier, pins in looked.view.pins.items()
        for pin in pins
    }
    known_at = {
        (identifier, name): _seconds(noted.time)
        for identifier, late in looked.account.late.items()
        for name, noted in late.items()
    }
    uses = [
        use for use in (*_told(repo), *_forks(looked), *_marked(looked, since)) if use.checkpoint in looked.view.members
    ]
    return simulation.Past(view=looked.view, pinned_at=pinned_at, known_at=known_at, uses=uses)


def _told(repo: Repository) -> Iterator[Use]:
    """What the ledger tells of: restores, notes, holds."""
    for event in ledger.events(repo, ops=(ledger.RESTORE, events.NOTE, "hold")):
        identifier = event.facts.get("checkpoint")
        if isinstance(identifier, str):
            what = {ledger.RESTORE: "restored", events.NOTE: "evaluated"}.get(event.op, "held")
            yield simulation.Use(time=_seconds(event.time), checkpoint=CheckpointId(identifier), what=what)


def _forks(looked: Looked) -> Iterator[Use]:
    for member in looked.view.members.values():
        for parent in member.parents:
            yield simulation.Use(time=member.time, checkpoint=parent, what="trained on from")


def _marked(looked: Looked, since: Mapping[str, float]) -> Iterator[Use]:
    for identifier, pins in looked.view.pins.items():
        for pin in pins:
            if pin.source.startswith("tag ") and pin.source in since:
                yield simulation.Use(time=since[pin.source], checkpoint=identifier, what=f"marked by {pin.text}")


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()
