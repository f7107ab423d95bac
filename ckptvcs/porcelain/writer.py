"""Who writes the chain of this clone: its id, the key that it signs with, and how people are called there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from ckptvcs.digest import digest
from ckptvcs.domain import events as entries
from ckptvcs.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from ckptvcs.porcelain.repo import Repository
    from ckptvcs.signatures import SigningKey

KEY_VARIABLE: Final = "CKPT_SIGNING_KEY"
KEY_OPTION: Final = "ckptvcs.signingkey"
"""Of git's configuration. Both name a private key that is used instead of one of this clone's own."""


class Writer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who writes the chain of this clone. A copy of the folder is another clone, and has another writer."""

    id: str
    salt: str
    folder: int
    """Inode of the private folder that it was made in."""
    key: str = ""
    """The public key that signs the chain; a chain has one."""

    def pseudonym(self, email: str) -> str:
        """What a person is called in entries. Who does not have the salt cannot try names until one fits."""
        return digest(f"{self.salt}\0{email}".encode("utf-8", "surrogateescape"))[:16]


def writer_file(repo: Repository) -> Path:
    """Where it is kept."""
    return repo.private / "writer.json"


def key_file(repo: Repository) -> Path:
    """The private key of this clone, unless another one is configured."""
    return repo.private / "writer_ed25519"


def known_writer(repo: Repository) -> Writer | None:
    """The writer of this clone; None if it has none yet, or has lost it."""
    try:
        known = msgspec.json.decode(writer_file(repo).read_bytes(), type=Writer)
        folder = repo.private.stat().st_ino
    except (OSError, ValueError):
        return None
    return known if known.folder == folder and entries.is_writer(known.id) else None


def writer_of(repo: Repository) -> tuple[Writer, SigningKey]:
    """The writer of this clone and its key, made where there is none; with another key than before, another writer.

    Our lock is held, so that processes that come at once agree on one.

    Raises:
        UsageError: the configured key cannot be used.
        StorageError: the disk is full, read-only or failing.
    """
    import secrets

    from ckptvcs.storage import files

    key = _configured_key(repo) or _own_key(repo)
    known = known_writer(repo)
    if known is not None and known.key == key.public:
        return known, key
    new = Writer(
        id=secrets.token_hex(8),
        salt=known.salt if known is not None else secrets.token_hex(16),
        folder=repo.private.stat().st_ino,
        key=key.public,
    )
    files.write_atomic(writer_file(repo), msgspec.json.encode(new) + b"\n", mode=0o600)
    return new, key


def _configured_key(repo: Repository) -> SigningKey | None:
    from pathlib import Path

    from ckptvcs.signatures import read_key
    from ckptvcs.storage.history import settings

    named = repo.around.variables.get(KEY_VARIABLE) or settings.value(repo.history, KEY_OPTION)
    if not named:
        return None
    try:
        data = Path(named).expanduser().read_bytes()
    except OSError as err:
        raise UsageError(
            f"cannot sign with '{named}'",
            why=str(err.strerror).lower(),
            next_step=f"let {KEY_VARIABLE} or 'git config {KEY_OPTION}' name a private key, or none",
        ) from err
    return read_key(data, where=named)


def _own_key(repo: Repository) -> SigningKey:
    from ckptvcs.signatures import new_key, read_key
    from ckptvcs.storage import files

    path = key_file(repo)
    try:
        return read_key(path.read_bytes(), where=str(path))
    except (FileNotFoundError, UsageError):
        # A key that cannot be read any more signs nothing: a new one begins a new chain, and the old one stays.
        key = new_key()
        files.write_atomic(path, key.to_bytes(), mode=0o600)
        return key
