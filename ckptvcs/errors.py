"""What can go wrong, by cause: one tree, each branch with its exit status.

CkptvcsError              1   base; raised itself never
|- CheckFailed            1   a check found something
|- UsageError             2   the request makes no sense          AmbiguousRevision, BadConfig
|- NoRepository          10   there is no repository here
|- Conflict              11   someone was faster or holds it      LockHeld, RefMoved
|- NotFound              12   no such run or checkpoint
|- IntegrityError        20   bytes are not what their name says  MissingObject, WrongDigest, BadManifest, BadEntry
|- StorageError          30   a tier is full or does not answer   TierFull, TierReadOnly
|- FormatError           40   we cannot read or represent this    UnsupportedValue, NewerVersion, HostileInput
|- Refused               50   possible, but it would lose         WouldOverwrite, Protected, Unsaved, NeedsPerson
`- Bug                   70   an invariant of ours broke

An error carries its facts as attributes, so that a caller need not parse its text. Messages are in git's manner:
lower case, no full stop, the subject in single quotes, what failed first.
"""

from __future__ import annotations

import errno
import re
from typing import Any, ClassVar


class CkptvcsError(Exception):
    """Base of every error that ckptvcs raises on purpose.

    Args:
        what: what failed, with its subject in single quotes.
        why: the cause, as far as it is known.
        next_step: a command or an act the reader can do now.
        facts: values for programs; they become `error.facts` and the `facts` of `--json`.
    """

    exit_status: ClassVar[int] = 1

    def __init__(self, what: str, *, why: str = "", next_step: str = "", **facts: Any) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.next_step = next_step
        self.facts = facts
        if next_step and hasattr(self, "add_note"):  # from Python 3.11; a traceback tells it
            self.add_note(f"next: {next_step}")

    @property
    def kind(self) -> str:
        """The class name in kebab case, which is the `error` of `--json`: `MissingObject` is `missing-object`."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", type(self).__name__).lower()

    def __str__(self) -> str:
        """All that a log line needs, on one line."""
        return f"{self.what}: {self.why}" if self.why else self.what


class CheckFailed(CkptvcsError):
    """A check found something; the findings were already reported."""


class UsageError(CkptvcsError):
    """The request makes no sense as it stands."""

    exit_status = 2


class AmbiguousRevision(UsageError):
    """A revision means more than one checkpoint."""


class BadConfig(UsageError):
    """`ckpt.yaml` or `.dvc/config` says something that we cannot follow."""


class NoRepository(CkptvcsError):
    """There is no repository here, or it lacks a part that we need."""

    exit_status = 10


class Conflict(CkptvcsError):
    """Someone was faster or holds what we need; looking again may help."""

    exit_status = 11


class LockHeld(Conflict):
    """Another process holds a lock and did not let go in time."""


class RefMoved(Conflict):
    """A ref is no longer where it was when we looked."""


class NotFound(CkptvcsError):
    """No such run, checkpoint, branch, tag or track."""

    exit_status = 12


class IntegrityError(CkptvcsError):
    """Bytes are not what their name says."""

    exit_status = 20


class MissingObject(IntegrityError):
    """An object that a manifest names is not where it should be."""


class WrongDigest(IntegrityError):
    """Bytes hash to something else than their name or their manifest says."""


class BadManifest(IntegrityError):
    """A manifest or pointer is damaged, or not in canonical form."""


class BadEntry(IntegrityError):
    """An entry of the ledger is damaged, not in canonical form, or not where it belongs in its chain."""


class StorageError(CkptvcsError):
    """A tier is full, read-only or does not answer; later may help."""

    exit_status = 30


class TierFull(StorageError):
    """There is no room for the bytes (or the inodes) of an object."""


class TierReadOnly(StorageError):
    """We may not write there."""


class FormatError(CkptvcsError):
    """We cannot read or represent this input."""

    exit_status = 40


class UnsupportedValue(FormatError):
    """A state holds a value that has no exact representation; the facts name its path and class."""


class NewerVersion(FormatError):
    """A file was written by a later version of ckptvcs."""


class HostileInput(FormatError):
    """An input claims what no honest file would: a path that escapes, a size that lies, an endless nesting."""


class Refused(CkptvcsError):
    """Possible, but it would lose something."""

    exit_status = 50


class WouldOverwrite(Refused):
    """The destination exists already."""


class Unsaved(Refused):
    """The workspace holds bytes that exist nowhere else."""


class Protected(Refused):
    """A golden mark is immutable."""


class NeedsPerson(Refused):
    """Something is out of the ordinary, and a person has to look at it before bytes go."""


class Bug(CkptvcsError):
    """An invariant of ours broke; please report it with the number that the message cites."""

    exit_status = 70


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}


def from_os_error(err: OSError, *, doing: str) -> StorageError:
    """Name the branch of the tree that an `OSError` belongs to.

    Args:
        err: the error as the system gave it.
        doing: what was tried, in the infinitive: "write object 3f9a1c77".
    """
    path = err.filename if isinstance(err.filename, str) else ""
    why = f"{(err.strerror or str(err)).lower()}{f' ({path})' if path else ''}"
    if err.errno in _FULL:
        return TierFull(
            f"cannot {doing}", why=why, next_step="free some space there and run the command again", path=path
        )
    if err.errno in _READ_ONLY:
        return TierReadOnly(
            f"cannot {doing}", why=why, next_step="make it writable and run the command again", path=path
        )
    return StorageError(f"cannot {doing}", why=why, next_step="check the disk, then run the command again", path=path)
