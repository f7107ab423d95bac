"""The chain of custody of a checkpoint as values: code, data, environment, seeds; and the grade that follows from it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every part of a manifest is: an immutable value that is read strictly."""


EXACT: Final = "exact"
APPROXIMATE: Final = "approximate"
WEIGHTS_ONLY: Final = "weights-only"


class Code(Entry, frozen=True):
    """The code that made a checkpoint: the commit that was checked out and what was changed since."""

    commit: str | None = None
    changed: tuple[str, ...] = ()
    """Tracked files with uncommitted changes."""
    patch: str | None = None
    """Digest of the difference to `commit`; the patch itself is the file `code.patch` of the artifact, unless it was too big."""
    untracked: tuple[str, ...] = ()
    """Files that git does not know: what they held is not recorded."""


class DataEntry(Entry, frozen=True):
    """A data set: an output that DVC tracks, a file that was declared, or a name with a version."""

    name: str
    version: str
    """`md5:...` as DVC tracks it, `blake3:...` of a declared file, or whatever the user calls a version."""


class Environment(Entry, frozen=True):
    """Where it ran."""

    python: str = ""
    platform: str = ""
    cpu: str = ""
    cpus: int = 0
    memory: int = 0
    """Bytes."""
    gpus: tuple[str, ...] = ()
    cuda: str | None = None
    packages: dict[str, str] = {}


class Provenance(Entry, frozen=True):
    """All of it."""

    code: Code = Code()
    data: tuple[DataEntry, ...] = ()
    environment: Environment = Environment()
    seeds: dict[str, int] = {}
    command: tuple[str, ...] = ()


def grade(roles: Collection[str], *, at_most: str | None = None) -> str:
    """How well training can go on from components of these roles.

    `exact`: weights, optimizer and random generators; `approximate`: no random generators; `weights-only`: no optimizer.

    Args:
        roles: what there is.
        at_most: a grade that it does not surpass; of a merge, whose optimizer never saw its weights, `approximate`.
    """
    if not {"model", "optimizer"} <= set(roles):
        return WEIGHTS_ONLY
    return lower_grade(EXACT if "rng" in roles else APPROXIMATE, at_most or EXACT)


def lower_grade(one: str, other: str) -> str:
    """The lower of two grades."""
    return min(one, other, key=(WEIGHTS_ONLY, APPROXIMATE, EXACT).index)


_SECRET: Final = re.compile(
    r"(?<![a-z])(token|secret|password|passwd|passphrase|api[-_.]?key|access[-_.]?key|credentials?|auth)(?![a-z])",
    re.IGNORECASE,
)
_CAMEL: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")
HIDDEN: Final = "***"


def without_secrets(command: Sequence[str]) -> tuple[str, ...]:
    """A command line with the values of options that look like secrets hidden: manifests are pushed to others."""
    shown: list[str] = []
    hide_next = False
    for word in command:
        option, separator, _ = word.partition("=")
        secret = bool(_SECRET.search(_CAMEL.sub("-", option))) and (option.startswith("-") or bool(separator))
        if hide_next and not word.startswith("-"):
            shown.append(HIDDEN)
        else:
            shown.append(f"{option}={HIDDEN}" if secret and separator else word)
        hide_next = secret and not separator
    return tuple(shown)
