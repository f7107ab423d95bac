"""The file `ckpt.signers` of a repository: reading it, and what `ckpt audit allow` and `revoke` write into it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckptvcs.domain import signers as rules
from ckptvcs.errors import BadConfig

if TYPE_CHECKING:
    from pathlib import Path

    from ckptvcs.domain.signers import Signer, Signers
    from ckptvcs.porcelain.repo import Repository


def path_of(repo: Repository) -> Path:
    """Where the list is: beside ckpt.yaml, in git, so that a change of it is seen and reviewed."""
    return repo.root / rules.FILE


def text_of(repo: Repository) -> str | None:
    """The list as it is; None if there is none: then every key may write.

    Raises:
        BadConfig: it cannot be read.
    """
    path = path_of(repo)
    try:
        with path.open("rb") as file:
            data = file.read(rules.MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as err:
        raise BadConfig(f"cannot read '{path}'", why=str(err.strerror).lower()) from err
    if len(data) > rules.MAX_BYTES:
        raise BadConfig(f"cannot read '{path}'", why=f"it has more than the {rules.MAX_BYTES} bytes that are read")
    return data.decode("utf-8", "replace")


def parsed(repo: Repository, text: str | None) -> Signers | None:
    """What a list says.

    Raises:
        BadConfig: a line cannot be understood; the error names it.
    """
    if text is None:
        return None
    try:
        return rules.parse(text)
    except rules.BadSigners as err:
        raise BadConfig(
            f"cannot use '{path_of(repo)}', line {err.line}",
            why=str(err),
            next_step="mend the line: NAME ssh-ed25519 KEY, as in OpenSSH's 'allowed_signers'",
            line=err.line,
        ) from err


def read(repo: Repository) -> Signers | None:
    """Who may write into the ledger; None if everybody may."""
    return parsed(repo, text_of(repo))


def write(repo: Repository, lines: list[str]) -> None:
    """Replace the list.

    Raises:
        StorageError: the disk is full, read-only or failing; the old one is there.
    """
    from ckptvcs.storage import files

    files.write_atomic(path_of(repo), "".join(f"{line}\n" for line in lines).encode())


def added(text: str | None, signer: Signer) -> list[str]:
    """The lines of a list with one more signer."""
    return [*(text or "").splitlines(), rules.line_of(signer)]


def closed(text: str, keys: set[str], until: str) -> list[str]:
    """The lines of a list in which some keys are valid no longer than until a time; lines of others stay as they are."""
    lines = []
    for line in text.splitlines():
        found = rules.parse(line).listed
        old = found[0] if found else None
        if old is None or old.key not in keys or (old.before and old.before <= until):
            lines.append(line)
        else:
            lines.append(rules.line_of(rules.Signer(name=old.name, key=old.key, after=old.after, before=until)))
    return lines
