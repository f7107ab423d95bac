"""Who may write into the ledger: the file `ckpt.signers`, in the format of OpenSSH's `allowed_signers`.

git itself takes it: `git -c gpg.ssh.allowedSignersFile=ckpt.signers verify-commit refs/ckptvcs/ledger/WRITER`. See
https://man.openbsd.org/ssh-keygen#ALLOWED_SIGNERS. Keys of other kinds may stand there, for commits; they sign no ledger.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ckptvcs.paths import printable
from ckptvcs.signatures import KIND, PublicKey, public_key

if TYPE_CHECKING:
    from collections.abc import Iterable

FILE: Final = "ckpt.signers"
MAX_BYTES: Final = 1 << 20
_TIME: Final = re.compile(r"(\d{8})(?:(\d{4})(\d\d)?)?Z\Z")
_NAME: Final = re.compile(r"[^\s\"'\\#,*?!]{1,200}\Z")
_OPTION: Final = r'(?:cert-authority|[a-z-]+="[^"]*")'
_LINE: Final = re.compile(
    rf"(?P<names>\S+)\s+(?:(?P<options>{_OPTION}(?:,{_OPTION})*)\s+)?(?P<kind>[A-Za-z0-9@.-]+)\s+(?P<key>\S+)(?:\s.*)?\Z"
)


class BadSigners(ValueError):
    """A line of the file that cannot be understood; `line` counts from 1."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line = line


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """A key that may write, and whose it is."""

    name: str
    """The principal: an address, or any other word."""
    key: PublicKey
    after: str = ""
    """From when on its entries count: UTC, ISO 8601 as in an entry; empty for always."""
    before: str = ""
    """Until when, that second included, as OpenSSH has it."""

    def may_write(self, time: str) -> bool:
        """Whether an entry of that time counts."""
        return self.after <= time and (not self.before or time[:19] <= self.before[:19])


class Signers:
    """The keys that may write.

    Args:
        listed: the lines of the file.
    """

    def __init__(self, listed: Iterable[Signer]) -> None:
        self.listed = tuple(listed)

    def name_of(self, key: PublicKey | None) -> str | None:
        """Whose key it is; None if it is not listed."""
        return next((signer.name for signer in self.listed if signer.key == key), None)

    def may_write(self, key: PublicKey | None, time: str) -> bool:
        """Whether an entry that was signed with a key, and says that time of itself, counts."""
        return any(signer.key == key and signer.may_write(time) for signer in self.listed)


def is_name(text: str) -> bool:
    """Whether a text can stand as a name in the file: no blanks, quotes or wildcards."""
    return _NAME.match(text) is not None


def parse(text: str) -> Signers:
    """Read the file.

    Raises:
        BadSigners: a line is no signer. Nothing of the file counts then: half a list would shut people out silently.
    """
    lines = enumerate(text.split("\n"), start=1)
    found = [_signer(n, line.strip()) for n, line in lines if line.strip() and not line.lstrip().startswith("#")]
    return Signers(signer for signer in found if signer is not None)


def _signer(n: int, line: str) -> Signer | None:
    """The signer of a line; None for a key that signs no ledger: of another kind, or for something else."""
    found = _LINE.match(line)
    if found is None or not all(map(is_name, found["names"].split(","))):
        raise BadSigners(n, "it is not 'NAME ssh-ed25519 KEY', with options between name and kind")
    options = dict(re.findall(r'([a-z-]+)="([^"]*)"', found["options"] or ""))
    spaces = options.get("namespaces", "git").split(",")
    if found["kind"] != KIND or "git" not in spaces or "cert-authority" in (found["options"] or ""):
        return None
    key = public_key(found["key"])
    if key is None:
        raise BadSigners(n, f"'{printable(found['key'])[:40]}' is no Ed25519 key")
    after, before = (_time(n, options.get(f"valid-{which}", "")) for which in ("after", "before"))
    return Signer(name=found["names"], key=key, after=after, before=before)


def _time(n: int, text: str) -> str:
    """`YYYYMMDD[HHMM[SS]]Z` as an entry has it."""
    if not text:
        return ""
    found = _TIME.match(text)
    if found is None:
        raise BadSigners(
            n, f"'{printable(text)[:40]}' is no time of the form YYYYMMDD[HHMM[SS]]Z; the Z, for UTC, is needed"
        )
    day, minute, second = found[1], found[2] or "0000", found[3] or "00"
    return f"{day[:4]}-{day[4:6]}-{day[6:]}T{minute[:2]}:{minute[2:]}:{second}.000000+00:00"


def line_of(signer: Signer) -> str:
    """The line of a signer; `parse` reads it."""
    options = ['namespaces="git"']
    options += [
        f'valid-{which}="{_plain(time)}"'
        for which, time in (("after", signer.after), ("before", signer.before))
        if time
    ]
    return f"{signer.name} {','.join(options)} {KIND} {signer.key}"


def _plain(time: str) -> str:
    return re.sub("[^0-9]", "", time[:19]) + "Z"
