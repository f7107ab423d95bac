"""Plans of retention that are saved, read by people, and carried out exactly as they are, or not at all."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec

from ckptvcs.domain.checkpoint import CheckpointId
from ckptvcs.errors import Conflict, FormatError, NewerVersion, NotFound, UsageError, from_os_error
from ckptvcs.porcelain import gc
from ckptvcs.porcelain.retention import Fingerprint, fingerprint
from ckptvcs.storage import files

if TYPE_CHECKING:
    from pathlib import Path

    from ckptvcs.porcelain.repo import Repository
    from ckptvcs.porcelain.retention import RetentionPlan

FORMAT: Final = "ckptvcs-plan/1"
_MAX_BYTES: Final = 256 << 20


class PlacePlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What goes from one place."""

    objects: int
    bytes: int


class SavedPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A plan as a file has it."""

    time: str
    """What was decided for, ISO 8601."""
    at: Fingerprint
    """What it was made from."""
    drop: dict[str, tuple[str, ...]]
    """The components of checkpoints that are dropped."""
    evict: tuple[str, ...]
    """Checkpoints whose local copies go."""
    places: dict[str, PlacePlan]
    format: str = FORMAT


def save(plan: RetentionPlan, path: Path) -> None:
    """Write a plan to a file.

    Raises:
        StorageError: it cannot be written.
    """
    verdict = plan.verdict
    time = datetime.fromtimestamp(verdict.now).astimezone().isoformat()
    saved = SavedPlan(
        time=time,
        at=plan.at,
        drop={str(identifier): components for identifier, components in verdict.dropped().items()},
        evict=tuple(verdict.evicted),
        places={one.place: PlacePlan(one.objects, one.nbytes) for one in plan.freed},
    )
    data = msgspec.json.format(msgspec.json.encode(saved, order="sorted"), indent=1)
    try:
        files.write_atomic(path, data + b"\n")
    except OSError as err:
        raise from_os_error(err, doing=f"write '{path}'") from err


def read(path: Path) -> SavedPlan:
    """Read a plan from a file.

    Raises:
        NotFound: there is no such file.
        FormatError: it is no plan, or of a later version.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError as err:
        raise NotFound(f"no plan '{path}'", next_step="make one with 'ckpt policy plan --output FILE'") from err
    except OSError as err:
        raise from_os_error(err, doing=f"read '{path}'") from err
    try:
        if len(data) > _MAX_BYTES:
            raise ValueError("it is too large")
        version = msgspec.json.decode(data, type=_Versioned).format
        if version != FORMAT and version.startswith("ckptvcs-plan/"):
            raise NewerVersion(
                f"cannot read plan '{path}'", why=f"its format is '{version[:40]}'", next_step="upgrade ckptvcs"
            )
        saved = msgspec.json.decode(data, type=SavedPlan)
        datetime.fromisoformat(saved.time)
        if saved.format != FORMAT:
            raise ValueError("it is no plan")
    except (ValueError, RecursionError) as err:
        raise FormatError(
            f"cannot read plan '{path}'", why=str(err)[:200], next_step="make one with 'ckpt policy plan --output FILE'"
        ) from err
    return saved


class _Versioned(msgspec.Struct):
    format: str = ""


def carry_out(repo: Repository, saved: SavedPlan, *, dry_run: bool = False) -> gc.Report:
    """Condemn exactly what a plan says; what was condemned before and has waited long enough is swept, as by `gc`.

    Raises:
        Conflict: refs, policy or ledger have moved since, here or at a git remote; nothing was done.
        As `gc.collect`.
    """
    now = fingerprint(repo)
    moved = [name for name in Fingerprint.__struct_fields__ if getattr(now, name) != getattr(saved.at, name)]
    if moved:
        raise _stale(
            f"{' and '.join(moved)} {'has' if moved in (['policy'], ['ledger']) else 'have'} changed since it was made"
        )
    time = datetime.fromisoformat(saved.time)
    if time.tzinfo is None or time > repo.now():
        raise UsageError("cannot carry out a plan for a time to come", next_step="make a new one")
    drop = {CheckpointId(identifier): tuple(components) for identifier, components in saved.drop.items()}
    return gc.collect(repo, gc.Options(now=time, planned=drop), dry_run=dry_run)


def _stale(why: str) -> Conflict:
    return Conflict(
        "the plan was not carried out", why=why, next_step="make a new one with 'ckpt policy plan', and look at it"
    )
