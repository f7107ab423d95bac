"""`diff`: what changed between two checkpoints, down to the values of their tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ckptvcs.domain.compare import Difference, compare
from ckptvcs.errors import IntegrityError
from ckptvcs.formats import dtypes
from ckptvcs.formats.reading import Artifact
from ckptvcs.porcelain import account
from ckptvcs.porcelain.checkpoints import require_checkpoint
from ckptvcs.porcelain.gone import refuse_gone, what_went
from ckptvcs.porcelain.load import open_component_file
from ckptvcs.porcelain.show import tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ckptvcs.domain.checkpoint import Checkpoint
    from ckptvcs.domain.manifest import Manifest
    from ckptvcs.formats.tree_file import Stored
    from ckptvcs.porcelain.repo import Repository

_BLOCK: Final = 1 << 20
"""Elements compared at a time: a few blocks of this are all the memory that a comparison of values takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distance:
    """How far two tensors of one type and shape are apart; NaN in one of them makes all of it NaN."""

    component: str
    name: str
    largest: float
    """The largest absolute difference of two elements."""
    relative: float
    """Euclidean norm of the difference, divided by that of the first tensor."""
    equal: int
    """Elements whose values are equal."""
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Two checkpoints and their difference."""

    before: Checkpoint
    after: Checkpoint
    difference: Difference
    distances: tuple[Distance, ...]
    notes: tuple[str, ...]


def diff(
    repo: Repository,
    before: str,
    after: str,
    *,
    track: str | None = None,
    tensors: bool | None = None,
    values: bool = False,
) -> Compared:
    """Compare two checkpoints.

    Args:
        repo: the repository.
        before: the first revision.
        after: the second revision.
        track: the track; None for the configured one.
        tensors: compare tensor by tensor, where the tree files are in the hot tier; None for as far as that goes.
        values: also measure how far changed tensors are apart, which reads them.

    Raises:
        NotFound: there is no such checkpoint.
        IntegrityError: values were asked for, and an object is missing or damaged.
        MissingObject: tensors or values were asked for, and one checkpoint was dropped, of which nothing is there.
    """
    found = (require_checkpoint(repo, revision, track or repo.basics.track) for revision in (before, after))
    one, other = account.with_late(repo, *found)
    if tensors or values:
        refuse_gone(repo, one, other)
    notes: list[str] = []
    rows = tuple(
        _rows(repo, checkpoint, notes) if tensors is not False or values else {} for checkpoint in (one, other)
    )
    difference = compare(_counting(one), _counting(other), (rows[0], rows[1]))
    distances = tuple(_distances(repo, one, other, difference)) if values else ()
    return Compared(before=one, after=other, difference=difference, distances=distances, notes=tuple(notes))


def _counting(checkpoint: Checkpoint) -> Manifest:
    """The manifest with the metrics that count."""
    return msgspec.structs.replace(checkpoint.manifest, metrics=checkpoint.metrics)


def _rows(repo: Repository, checkpoint: Checkpoint, notes: list[str]) -> Mapping[str, Mapping[str, Stored]]:
    """The tensors of each component, as far as they are there."""
    gone = checkpoint.dropped.gone if checkpoint.dropped else ()
    notes.extend(f"{said}: no tensors are compared there" for said in what_went(checkpoint))
    left = [component for component in checkpoint.manifest.components if component.name not in gone]
    try:
        found = tables(repo, left)
    except IntegrityError as err:
        notes.append(f"tensors of {checkpoint.id[:10]} are not compared: {err}")
        return {}
    return {one.name: found[one.name].stored if one.name in found else {} for one in left}


# ------------------------------------------------------------------------------------------------------------- values


def _distances(repo: Repository, one: Checkpoint, other: Checkpoint, difference: Difference) -> Iterator[Distance]:
    artifacts = [_artifact(repo, checkpoint) for checkpoint in (one, other)]
    for component in difference.components:
        for change in component.tensors or ():
            if change.kind == "changed" and change.before == change.after:
                entry = artifacts[0].stored(component.name, change.key)
                if _is_comparable(entry.dtype):
                    data = [artifact.data(component.name, change.key) for artifact in artifacts]
                    yield _distance(component.name, change.key, entry.dtype, data[0], data[1])


def _artifact(repo: Repository, checkpoint: Checkpoint) -> Artifact:
    names = [c.name for c in checkpoint.manifest.components if c.encoding == "tree"]
    return Artifact(names, open_component_file(repo, checkpoint))


def _is_comparable(dtype: str) -> bool:
    return dtype == "BF16" or (dtypes.to_numpy(dtype) is not None and not dtype.startswith("np:"))


def _distance(component: str, name: str, dtype: str, one: memoryview, other: memoryview) -> Distance:
    import numpy as np

    largest, square, norm, equal = 0.0, 0.0, 0.0, 0
    step = _BLOCK * dtypes.itemsize(dtype)
    for start in range(0, len(one), step):
        a, b = (_numbers(dtype, data[start : start + step]) for data in (one, other))
        delta = np.abs(a - b)
        largest = max(largest, float(delta.max())) if not math.isnan(largest) else largest
        largest = math.nan if np.isnan(delta).any() else largest
        square += float(np.square(delta).sum())
        norm += float(np.square(np.abs(a)).sum())
        equal += int((a == b).sum())
    relative = math.sqrt(square / norm) if norm else (0.0 if square == 0 else math.inf)
    count = len(one) // dtypes.itemsize(dtype)
    return Distance(component=component, name=name, largest=largest, relative=relative, equal=equal, count=count)


def _numbers(dtype: str, data: memoryview) -> Any:
    """Elements as 64-bit floats (or complex): integers of 64 bits lose their last digits, which a distance may."""
    import numpy as np

    if dtype == "BF16":
        return (np.frombuffer(data, dtype="<u2").astype("<u4") << 16).view("<f4").astype(np.float64)
    array = np.frombuffer(data, dtype=dtypes.to_numpy(dtype))
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
