"""Who vouches for a chain of the ledger: one key signs all entries of a chain, and who may write is listed.

Entries from before there were signatures have none. A chain has signatures from its first entry on, or none at all: a
clone that got a key began a new chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckptvcs.domain.events import Event, Flaw, Head, sound
from ckptvcs.signatures import PublicKey, claimed_key, is_right

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ckptvcs.domain.signers import Signers
    from ckptvcs.signatures import Signed


@dataclass(frozen=True, slots=True, kw_only=True)
class Vouched:
    """What of a chain counts."""

    events: list[Event]
    key: PublicKey | None
    """Whose signatures it has; None if it has none, or no entry that counts."""
    flaw: Flaw | None
    """What is wrong with the first entry that does not count."""


def vouched(
    writer: str,
    chain: Sequence[Signed],
    *,
    after: Head | None = None,
    key: PublicKey | None = None,
    thorough: bool = False,
) -> Vouched:
    """The entries of a chain up to the first that is not what it should be.

    The last one is checked against the key; its links vouch for all before it. Only where it is not right, or it is asked
    for, all are checked.

    Args:
        writer: whose chain it is.
        chain: its entries, oldest first.
        after: the entry that they follow; None if they begin with the first.
        key: with `after`: the key of the chain.
        thorough: check the signature of each.
    """
    found, flaw = sound(writer, (signed.data for signed in chain), after=after)
    own = key if after else claimed_key(chain[0].signature) if chain else None
    unsigned = next(_wrong(chain[: len(found)], own, thorough=thorough), None)
    if unsigned is not None:
        n = (after.n if after else 0) + unsigned + 1
        found, flaw = found[:unsigned], Flaw(writer=writer, n=n, what=_what(own))
    return Vouched(events=found, key=own if found or after else None, flaw=flaw)


def _what(key: PublicKey | None) -> str:
    return "it is not signed with the key of its chain" if key else "its chain has no signatures, and it has one"


def _wrong(chain: Sequence[Signed], key: PublicKey | None, *, thorough: bool) -> Iterator[int]:
    """Places of entries that the key of the chain did not sign."""
    for place, signed in enumerate(chain):
        if claimed_key(signed.signature) != key or (key is None and signed.signature):
            yield place
            return
    if key is not None and chain and (thorough or not is_right(chain[-1])):
        yield from (place for place, signed in enumerate(chain) if not is_right(signed))


def unlisted(writer: str, events: Sequence[Event], key: PublicKey | None, signers: Signers) -> Flaw | None:
    """The first entry that a list of signers does not cover; None if the list is content with the chain."""
    for event in events:
        if not signers.may_write(key, event.time):
            what = "nobody signed it" if key is None else _refusal(key, signers)
            return Flaw(writer=writer, n=event.n, what=what, unlisted=True)
    return None


def _refusal(key: PublicKey, signers: Signers) -> str:
    name = signers.name_of(key)
    if name is None:
        return "it is signed with a key that is not in ckpt.signers"
    return f"the key of {name} in ckpt.signers is not valid at its time"


def keys_of(chains: Mapping[str, Sequence[Signed]]) -> dict[str, PublicKey | None]:
    """The key that each chain says it is signed with."""
    return {writer: claimed_key(chain[0].signature) if chain else None for writer, chain in chains.items()}
