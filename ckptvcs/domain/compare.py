"""The difference of two checkpoints, from their manifests and the tables of their tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ckptvcs.domain.manifest import Manifest

Kind = Literal["added", "removed", "changed"]


class TensorRow(Protocol):
    """What the difference of two tensors is told from."""

    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def digest(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing that differs; `before` or `after` is None where it was not there."""

    kind: Kind
    key: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentDifference:
    """What differs in one component."""

    kind: Kind
    name: str
    role: str
    files: tuple[Change, ...]
    """Sizes in bytes."""
    tensors: tuple[Change, ...] | None
    """`before` and `after` are `DTYPE [shape]`; None where they are not known of both."""
    same_bytes: int
    """Bytes in files that are the same object in both."""
    changed_bytes: int
    """Bytes in files of the later one that are not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """All that differs between two checkpoints."""

    step: tuple[int | None, int | None]
    components: tuple[ComponentDifference, ...]
    metrics: tuple[Change, ...]
    params: tuple[Change, ...]
    code: tuple[Change, ...]
    data: tuple[Change, ...]
    environment: tuple[Change, ...]


def compare(
    before: Manifest,
    after: Manifest,
    tensors: tuple[Mapping[str, Mapping[str, TensorRow]], Mapping[str, Mapping[str, TensorRow]]],
) -> Difference:
    """Compare two checkpoints.

    Args:
        before: the first manifest.
        after: the second manifest.
        tensors: for each of the two, component -> tensor name -> row, as far as it is known. Of a component that both
            have and only one is known of, no tensors are compared.
    """
    one, other = before.provenance, after.provenance
    return Difference(
        step=(before.step, after.step),
        components=_components(before, after, tensors),
        metrics=changes(before.metrics, after.metrics),
        params=changes(flat(before.params), flat(after.params)),
        code=changes(
            {"commit": one.code.commit, "patch": one.code.patch},
            {"commit": other.code.commit, "patch": other.code.patch},
        ),
        data=changes({d.name: d.version for d in one.data}, {d.name: d.version for d in other.data}),
        environment=changes(_environment(before), _environment(after)),
    )


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Change, ...]:
    """The entries that differ between two mappings, by key; None counts as not there."""
    found = []
    for key in sorted({*before, *after}):
        one, other = before.get(key), after.get(key)
        if one != other or type(one) is not type(other):
            kind: Kind = "added" if one is None else "removed" if other is None else "changed"
            found.append(Change(kind=kind, key=key, before=one, after=other))
    return tuple(found)


def flat(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dots between the keys."""
    out: dict[str, Any] = {}
    for key, value in params.items():
        if isinstance(value, dict) and value:
            out.update(flat(value, f"{prefix}{key}."))
        else:
            out[f"{prefix}{key}"] = value
    return out


def _components(
    before: Manifest,
    after: Manifest,
    tensors: tuple[Mapping[str, Mapping[str, TensorRow]], Mapping[str, Mapping[str, TensorRow]]],
) -> tuple[ComponentDifference, ...]:
    ones, others = ({c.name: c for c in manifest.components} for manifest in (before, after))
    found = []
    for name in [*ones, *(n for n in others if n not in ones)]:
        one, other = ones.get(name), others.get(name)
        files = [{f.path: f for f in c.files} if c else {} for c in (one, other)]
        known = {f.blake3 for f in files[0].values()}
        same = sum(f.size for f in files[1].values() if f.blake3 in known)
        difference = ComponentDifference(
            kind="added" if one is None else "removed" if other is None else "changed",
            name=name,
            role=(other or one).role,  # type: ignore[union-attr]
            files=_files(files[0], files[1]),
            tensors=_tensors(*(rows.get(name) if c else {} for rows, c in zip(tensors, (one, other), strict=True))),
            same_bytes=same,
            changed_bytes=sum(f.size for f in files[1].values()) - same,
        )
        if difference.files or difference.kind != "changed":
            found.append(difference)
    return tuple(found)


def _files(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Change, ...]:
    found = []
    for change in changes({p: f.blake3 for p, f in before.items()}, {p: f.blake3 for p, f in after.items()}):
        sizes = [files[change.key].size if change.key in files else None for files in (before, after)]
        found.append(Change(kind=change.kind, key=change.key, before=sizes[0], after=sizes[1]))
    return tuple(found)


def _tensors(
    before: Mapping[str, TensorRow] | None, after: Mapping[str, TensorRow] | None
) -> tuple[Change, ...] | None:
    if before is None or after is None:
        return None
    found = []
    for name in [*before, *(n for n in after if n not in before)]:
        one, other = before.get(name), after.get(name)
        if one is None or other is None:
            kind: Kind = "added" if one is None else "removed"
        elif (one.dtype, one.shape, one.digest) != (other.dtype, other.shape, other.digest):
            kind = "changed"
        else:
            continue
        found.append(Change(kind=kind, key=name, before=_text(one), after=_text(other)))
    return tuple(found)


def _text(row: TensorRow | None) -> str | None:
    return None if row is None else f"{row.dtype} {list(row.shape)}"


def _environment(manifest: Manifest) -> dict[str, Any]:
    environment = manifest.provenance.environment
    return {
        "python": environment.python or None,
        "platform": environment.platform or None,
        "cpu": environment.cpu or None,
        "cpus": environment.cpus or None,
        "cuda": environment.cuda,
        "gpus": ", ".join(environment.gpus) or None,
        **{f"package {name}": version for name, version in environment.packages.items()},
    }
