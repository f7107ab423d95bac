"""The keys that write into the ledger: which there are, and who may: `ckpt.signers`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckptvcs.domain import vouching
from ckptvcs.domain.signers import Signer, is_name
from ckptvcs.domain.when import moment
from ckptvcs.errors import NotFound, UsageError
from ckptvcs.paths import printable
from ckptvcs.porcelain import ledger, signers
from ckptvcs.porcelain.following import locked
from ckptvcs.porcelain.writer import known_writer, writer_of
from ckptvcs.signatures import KIND, PublicKey, fingerprint, public_key

if TYPE_CHECKING:
    from ckptvcs.porcelain.repo import Repository


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key that has written, or may write."""

    key: PublicKey
    name: str | None
    """In ckpt.signers; None if it does not stand there."""
    valid: bool
    """Whether what it writes now counts elsewhere."""
    writers: tuple[str, ...]
    """Chains that it signed."""
    here: bool
    """Whether this clone signs with it."""

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.key)


def keys(repo: Repository) -> list[Key]:
    """The keys of all chains and of ckpt.signers.

    Raises:
        BadConfig: ckpt.signers cannot be read.
    """
    listed, own, now = signers.read(repo), known_writer(repo), ledger.iso(repo.now())
    written: dict[PublicKey, list[str]] = {one.key: [] for one in (listed.listed if listed is not None else ())}
    for writer, key in vouching.keys_of(ledger.chains_of(repo)).items():
        if key is not None:
            written.setdefault(key, []).append(writer)
    return [
        Key(
            key=key,
            name=listed.name_of(key) if listed is not None else None,
            valid=listed is None or listed.may_write(key, now),
            writers=tuple(writers),
            here=own is not None and own.key == key,
        )
        for key, writers in written.items()
    ]


def plan_allow(repo: Repository, which: str | None = None, *, name: str | None = None) -> Signer:
    """The line that lets a key write; change nothing.

    Args:
        repo: the repository.
        which: a writer, a fingerprint, or the key itself; None for the key of this clone, which is made if there is none.
        name: whose it is; None for the address that git knows, where it is the key of this clone.

    Raises:
        UsageError: there is no name, or it cannot stand in the file.
        NotFound: nothing here was signed with such a key.
    """
    name = name or (repo.identity.email if which is None else None)
    if name is None:
        raise UsageError(
            "cannot list a key without a name", why="it is not that of this clone", next_step="write --name ADDRESS"
        )
    if not is_name(name):
        raise UsageError(
            f"cannot list a key as '{printable(name)}'",
            why="a name has no blanks, quotes, commas or wildcards",
            next_step="write --name ADDRESS",
        )
    return Signer(name=name, key=_own_key(repo) if which is None else _key(repo, which))


def _own_key(repo: Repository) -> PublicKey:
    with locked(repo):
        return writer_of(repo)[1].public


def _key(repo: Repository, which: str) -> PublicKey:
    given = public_key(which.removeprefix(f"{KIND} ").split(" ")[0])
    found = [key.key for key in keys(repo) if which in (key.fingerprint, key.name, *key.writers)]
    if given is None and len(found) != 1:
        raise NotFound(
            f"no key '{printable(which)}'",
            why="no chain was signed with it" if not found else "several are meant",
            next_step="run 'ckpt audit keys', and name a writer, a fingerprint or the key itself",
        )
    return given or found[0]


def is_listed(repo: Repository, signer: Signer) -> bool:
    """Whether the file says so already: the same key, with the same name, valid now."""
    listed, now = signers.read(repo), ledger.iso(repo.now())
    return listed is not None and any(
        (one.name, one.key) == (signer.name, signer.key) and one.may_write(now) for one in listed.listed
    )


def shut_out(repo: Repository, signer: Signer) -> list[Key]:
    """Keys whose chains count until now, and would count no more if the file began with one signer."""
    return [] if signers.text_of(repo) is not None else [key for key in keys(repo) if key.key != signer.key]


def allow(repo: Repository, signer: Signer) -> None:
    """Add a key to ckpt.signers. The file goes into git by a commit of the user: who may write is reviewed like code.

    Raises:
        StorageError: the disk is full, read-only or failing.
    """
    text = signers.text_of(repo)
    signers.parsed(repo, text)
    signers.write(repo, signers.added(text, signer))


def revoke(repo: Repository, which: str, *, at: str | None = None, dry_run: bool = False) -> tuple[Key, str]:
    """Let a key be valid no longer than until a time.

    Args:
        repo: the repository.
        which: a name in the file, a writer, a fingerprint, or the key itself.
        at: as `moment` reads it, spans are past; None for now.
        dry_run: only look.

    Returns:
        The key, and the time, as in an entry.

    Raises:
        NotFound: it is not in the file.
    """
    text, until = signers.text_of(repo), ledger.iso(repo.now() if at is None else moment(at, repo.now(), ahead=False))
    key = next((k for k in keys(repo) if k.key == _key(repo, which)), None)
    if text is None or key is None or key.name is None:
        raise NotFound(f"'{printable(which)}' is not in ckpt.signers", next_step="run 'ckpt audit keys'")
    if not dry_run:
        signers.write(repo, signers.closed(text, {key.key}, until))
    return key, until
