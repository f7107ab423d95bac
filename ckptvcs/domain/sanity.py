"""When a collection stops and asks for a person: what is out of the ordinary may be a mistake, and bytes do not come back.

See "sanity stops" in docs/explanation/garbage-collection.md for what each of them has prevented.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MOST: Final = 0.3
"""The part of the bytes of a place that goes without a word."""
FEWER_REFS: Final = 0.2
"""The part of the refs that may be gone since the last time without a word."""
SKEW_S: Final = 300.0
"""So far the clock of a store may be from ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """A reason to stop, and what a person can do about it."""

    kind: str
    what: str
    next_step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Going:
    """What is about to be condemned in one place."""

    place: str
    objects: int
    nbytes: int
    total: int
    """Bytes of all objects there."""
    skew_s: float | None = None
    """How far the clock there is ahead of ours, if it has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refs:
    """How many branches and tags there are."""

    where: str
    count: int
    before: int | None
    """At the last collection that knows of it."""

    @property
    def are_few(self) -> bool:
        """Whether more of them are gone than is usual."""
        return self.before is not None and self.count < self.before * (1 - FEWER_REFS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is looked at before anything is condemned or swept."""

    kept: int
    """Checkpoints that are kept."""
    dropped: int
    """Those of which something goes now that was not condemned before."""
    refs: Sequence[Refs]
    unreadable: Sequence[str]
    policy: str
    """What tells one policy from another."""
    policy_before: str | None
    """The one that was accepted last."""
    policy_committed: bool
    """Whether it is in git as it is here."""
    going: Sequence[Going]
    silent: Sequence[str]
    """Repositories that use the same stores and did not answer."""
    unsaid: bool = False
    """Whether others may use the local cache, and nobody said who."""


def stops(facts: Facts, *, yes_delete: int | None = None, accept_policy: bool = False) -> Iterator[Stop]:
    """Why a person should look first; nothing if all is in order.

    Args:
        facts: what was found.
        yes_delete: so many checkpoints a person has agreed to.
        accept_policy: whether a person has agreed to the policy.
    """
    for what in facts.unreadable[:3]:
        yield Stop(kind="unreadable", what=what, next_step="mend or fetch it: nobody knows what it needs")
    for repository in facts.silent:
        yield Stop(
            kind="silent",
            what=f"repository '{repository}' uses the same store and does not answer",
            next_step="wait until it does; if it is gone for good, take it out of '.ckptvcs/repositories' of the store, or of "
            "'retain.shared_with'",
        )
    if facts.unsaid:
        yield Stop(
            kind="unsaid",
            what="other repositories may use the cache, and nobody said which",
            next_step="name the others in 'retain.shared_with' of ckpt.yaml; '[]' if there is none",
        )
    if not facts.kept and facts.dropped:
        yield Stop(kind="empty", what="nothing at all would be kept", next_step="run 'ckpt policy plan'")
    if any(going.objects for going in facts.going) and yes_delete != facts.dropped:
        for refs in (one for one in facts.refs if one.are_few):
            what = f"there are {refs.count} branches and tags {refs.where}, and there were {refs.before} at the last collection"
            yield Stop(kind="refs", what=what, next_step=_agree(facts))
    yield from _about_the_policy(facts, accept_policy=accept_policy)
    for going in facts.going:
        yield from _about(going, facts, yes_delete)


def _agree(facts: Facts) -> str:
    return (
        f"look at 'ckpt policy plan'; if {facts.dropped} is the number of checkpoints that should lose all or a part of it: "
        f"ckpt gc --yes-delete {facts.dropped}"
    )


def _about_the_policy(facts: Facts, *, accept_policy: bool) -> Iterator[Stop]:
    if not facts.policy_committed:
        yield Stop(
            kind="policy",
            what="'retain' of ckpt.yaml is not the one that is committed",
            next_step="commit it, so that others can review it",
        )
    elif facts.policy_before not in (None, facts.policy) and not accept_policy:
        yield Stop(
            kind="policy",
            what="'retain' of ckpt.yaml has changed since it was last accepted",
            next_step="look at 'ckpt policy check' and 'ckpt policy plan'; if it is right: ckpt gc --accept-policy",
        )


def _about(going: Going, facts: Facts, yes_delete: int | None) -> Iterator[Stop]:
    if going.skew_s is not None and abs(going.skew_s) > SKEW_S:
        ahead = "ahead of" if going.skew_s > 0 else "behind"
        yield Stop(
            kind="clock",
            what=f"the clock of '{going.place}' is {abs(going.skew_s):.0f} s {ahead} ours",
            next_step="set the clock that is wrong",
        )
    if facts.dropped and going.nbytes > going.total * MOST and yes_delete != facts.dropped:
        yield Stop(
            kind="much",
            what=f"{going.nbytes / going.total:.0%} of the bytes in '{going.place}' would go",
            next_step=_agree(facts),
        )
