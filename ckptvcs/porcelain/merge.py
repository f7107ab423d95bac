"""`merge`: several checkpoints become one, whose git parents they all are.

The weights are computed tensor by tensor, block by block, while they are hashed and written: no model is ever in memory
as a whole. The order of effects is that of `commit`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from ckptvcs.domain.checkpoint import check_track
from ckptvcs.domain.manifest import SourceEntry
from ckptvcs.domain.provenance import APPROXIMATE
from ckptvcs.errors import FormatError, NotFound, Refused, UsageError
from ckptvcs.formats import hints, matching, merging
from ckptvcs.formats.components import EXTRA
from ckptvcs.formats.merged import merged_leaf
from ckptvcs.formats.numbers import is_float, is_small
from ckptvcs.formats.tree.nodes import where
from ckptvcs.paths import printable
from ckptvcs.porcelain import commit
from ckptvcs.porcelain.checkpoints import checkpoint_at, line, require_checkpoint
from ckptvcs.porcelain.flat import Flat, open_flat
from ckptvcs.porcelain.incoming import Incoming
from ckptvcs.porcelain.target import find_target
from ckptvcs.progress import Progress, silent
from ckptvcs.storage.history.ancestry import common_ancestor
from ckptvcs.storage.history.repository import CommitId

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from ckptvcs.domain.checkpoint import Checkpoint
    from ckptvcs.domain.recipe import Recipe
    from ckptvcs.formats.flatten import FlatComponent
    from ckptvcs.formats.leaf import Leaf
    from ckptvcs.formats.matching import Key, Layout
    from ckptvcs.porcelain.describe import Options
    from ckptvcs.porcelain.repo import Repository

_ROLES: Final = ("model", "ema")
_SHOWN: Final = 50
"""Differences that are written out; the facts of the error have all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergePlan:
    """What a merge would do."""

    commit: commit.CommitPlan
    recipe: Recipe
    sources: tuple[Checkpoint, ...]
    base: Checkpoint | None
    """What task vectors are differences to; only for `ties`."""
    merged: tuple[str, ...]
    """Components that are merged."""
    taken: tuple[str, ...]
    """Components that are taken from the first checkpoint as they are."""
    left_out: tuple[str, ...]
    """Components of the first checkpoint that the outcome lacks."""


# -------------------------------------------------------------------------------------------------------------- plan


def plan(
    repo: Repository, revisions: Sequence[str], recipe: Recipe, options: Options, progress: Progress = silent
) -> MergePlan:
    """Look at everything, change nothing. The outcome is computed once here, to know its digests.

    Args:
        repo: the repository.
        revisions: the checkpoints; for `ema` from the oldest to the newest.
        recipe: how.
        options: what else the user said.
        progress: told about bytes that are read to verify them.

    Raises:
        UsageError: the request makes no sense.
        FormatError: the models do not match; every difference is named.
        Refused: the branch has a checkpoint that would be left behind.
        IntegrityError: an object is missing or damaged.
    """
    recipe = recipe.completed(len(revisions))
    track = check_track(options.track or repo.basics.track)
    sources = [require_checkpoint(repo, revision, track) for revision in revisions]
    _refuse_twice(sources, revisions)
    _refuse_left_behind(repo, options, sources, track)
    base = _base(repo, recipe, sources, revisions, track) if recipe.method == "ties" else None
    names = _chosen(sources[0], recipe.components)
    flats = [open_flat(repo, checkpoint, progress) for checkpoint in (*sources, *([base] if base else []))]
    layouts = [matching.Layout.of(flat.components, names) for flat in flats]
    if base:  # what it has besides is nobody's: a library may no longer save a buffer that it once did
        known = {path: key for path, key in layouts[-1].places.items() if path in layouts[0].places}
        layouts[-1] = replace(layouts[-1], places=known)
    _refuse_differences(layouts, [*revisions, *(["the base"] if base else [])], flats, names)
    taken = _taken(flats[0], names, recipe)
    leaves, notes = _merged(layouts, [s.id for s in sources], recipe)
    short = f"{recipe.method} of {', '.join(source.id[:10] for source in sources)}"
    what = replace(_incoming(repo, flats[0], (*names, *taken), leaves, short), notes=tuple(notes))
    record = {**recipe.plain(), "components": list(names), "of": [source.id for source in sources]}
    record |= {"base": base.id} if base else {}
    written = _recorded(options, recipe, sources, record)
    if written.message is None:
        written = replace(written, message=f"merge {', '.join(map(printable, revisions))} ({recipe.method})")
    everything = [c.name for c in sources[0].manifest.components]
    return MergePlan(
        commit=commit.plan(repo, what, written),
        recipe=recipe,
        sources=tuple(sources),
        base=base,
        merged=names,
        taken=taken,
        left_out=tuple(name for name in everything if name not in (*names, *taken) and name != EXTRA),
    )


def _refuse_twice(sources: Sequence[Checkpoint], revisions: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for checkpoint, revision in zip(sources, revisions, strict=True):
        if checkpoint.id in seen:
            raise UsageError(
                f"cannot merge '{printable(revision)}' with itself",
                why=f"'{printable(seen[checkpoint.id])}' is the same checkpoint {checkpoint.id[:10]}",
                next_step="name it once; --weights says how much it counts",
            )
        seen[checkpoint.id] = revision


def _refuse_left_behind(repo: Repository, options: Options, sources: Sequence[Checkpoint], track: str) -> None:
    """Refuse a branch whose newest checkpoint is none of the merged ones, and before none of them."""
    target = find_target(repo, options.branch, options.run)
    tip = repo.history.tip(target.ref)
    newest = next(line(repo, tip, track), None) if tip else None
    if newest is None or any(
        repo.history.is_ancestor(CommitId(newest.commit), CommitId(source.commit)) for source in sources
    ):
        return
    raise Refused(
        f"cannot merge onto branch '{printable(target.branch)}'",
        why=f"its newest checkpoint {newest.id[:10]} is not among what is merged, and would no longer be on its line",
        next_step="name that branch as the first revision, or a new branch with --branch",
    )


def _base(
    repo: Repository, recipe: Recipe, sources: Sequence[Checkpoint], revisions: Sequence[str], track: str
) -> Checkpoint:
    """The checkpoint that task vectors are differences to."""
    if recipe.base:
        base = require_checkpoint(repo, recipe.base, track)
    else:
        common = common_ancestor(repo.history, [CommitId(source.commit) for source in sources])
        found = checkpoint_at(repo, common, track) if common else None
        if found is None:
            raise NotFound(
                "no base to merge from",
                why=f"{', '.join(map(printable, revisions))} have no common ancestor that holds a checkpoint",
                next_step="name what they were tuned from with --base",
            )
        base = found
    for source, revision in zip(sources, revisions, strict=True):
        if source.id == base.id:
            raise UsageError(
                f"cannot merge '{printable(revision)}'",
                why=f"it is checkpoint {base.id[:10]}, which is the base: nothing was tuned in it",
                next_step="leave it out, or name another base with --base",
            )
    return base


def _chosen(first: Checkpoint, wanted: Sequence[str]) -> tuple[str, ...]:
    """The components that are merged."""
    entries = first.manifest.components
    able = {c.name: c for c in entries if c.role in _ROLES and c.encoding == "tree"}
    for name in wanted:
        if not any(name in (c.name, c.role) for c in able.values()):
            has = ", ".join(f"{c.name} ({c.role})" for c in entries)
            raise UsageError(
                f"cannot merge component '{printable(name)}'",
                why=f"checkpoint {first.id[:10]} has {has}; only a model and an average of weights can be merged",
                next_step=f"name {' or '.join(able) or 'a checkpoint that has one'}",
            )
    names = tuple(c.name for c in able.values() if not wanted or c.name in wanted or c.role in wanted)
    if not names:
        raise UsageError(
            f"nothing to merge in checkpoint {first.id[:10]}",
            why=f"it has {', '.join(f'{c.name} ({c.role})' for c in entries)}, and no model",
            next_step="name checkpoints that have one",
        )
    return names


def _refuse_differences(
    layouts: Sequence[Layout], names: Sequence[str], flats: Sequence[Flat], wanted: Sequence[str]
) -> None:
    found: list[str] = []
    first = printable(names[0])
    for layout, name, flat in zip(layouts[1:], map(printable, names[1:]), flats[1:], strict=True):
        missing = [component for component in wanted if component not in flat.components]
        found.extend(f"component '{component}' is only in {first}" for component in missing)
        there = [path for path in layouts[0].places if path[0] not in missing]
        one = replace(layouts[0], places={path: layouts[0].places[path] for path in there})
        found.extend(matching.differences(one, layout, (first, name)))
    found.extend(_overlapping(layouts[0]))
    if found:
        more = f"; and {len(found) - _SHOWN} more (--json has them all)" if len(found) > _SHOWN else ""
        raise FormatError(
            f"cannot merge {', '.join(map(printable, names))}",
            why=f"their models do not match: {'; '.join(found[:_SHOWN])}{more}",
            next_step="merge checkpoints of one model, or the components that match with --component",
            differences=found,
        )


def _overlapping(layout: Layout) -> list[str]:
    """Views of memory that is no tensor itself: there is no saying what its bytes are."""
    places = set(layout.places.values())
    return [
        f"{where(path)} overlaps in memory with another tensor, and neither holds the other"
        for key, path in layout.stored().items()
        if key not in places and (leaf := layout.tensor(key)) is not None and leaf.dtype == "U8"
    ]


def _taken(first: Flat, merged: Collection[str], recipe: Recipe) -> tuple[str, ...]:
    """The other components of the outcome."""
    others = [c.name for c in first.checkpoint.manifest.components if c.name not in merged]
    if recipe.rest == "first":
        return tuple(others)
    root = first.components.get(EXTRA)
    # A model that was committed as it is, without a dict around it, stays so.
    bare = root is not None and isinstance(root.node, dict) and root.node.get("$component") in merged
    return (EXTRA,) if bare else ()


# ------------------------------------------------------------------------------------------------------------ weights


def _method(recipe: Recipe, count: int) -> merging.Method:
    if recipe.method == "slerp":
        return merging.Slerp(float(recipe.t or 0))
    if recipe.method == "ties":
        return merging.Ties(float(recipe.density or 1), float(recipe.scale if recipe.scale is not None else 1))
    if recipe.method == "ema":
        return merging.Weighted(merging.ema_weights(count, float(recipe.decay or 0)))
    return merging.Weighted(tuple(float(w) for w in recipe.weights or (1.0,) * count))


def _in_order(method: merging.Method, ids: Sequence[str]) -> tuple[merging.Method, list[int]]:
    """The method and the order in which it takes the checkpoints: by id where the order says nothing.

    A sum of three numbers depends on their order in its last bit, so who names the same checkpoints (and weights) in
    another order would else get another checkpoint.
    """
    order = sorted(range(len(ids)), key=lambda i: ids[i])
    if isinstance(method, merging.Weighted):
        return merging.Weighted(tuple(method.weights[i] for i in order)), order
    return method, order if isinstance(method, merging.Ties) else list(range(len(ids)))


def _merged(layouts: Sequence[Layout], ids: Sequence[str], recipe: Recipe) -> tuple[dict[Key, Leaf], list[str]]:
    """The leaves that are computed, and what the user should know.

    Args:
        layouts: of the checkpoints, and behind them of the base where there is one.
        ids: of the checkpoints.
        recipe: how.
    """
    method, order = _in_order(_method(recipe, len(ids)), ids)
    order = [*range(len(ids), len(layouts)), *order]  # the base comes first
    leaves: dict[Key, Leaf] = {}
    kept: list[str] = []
    small: list[str] = []
    for key, path in layouts[0].stored().items():
        same = [_leaf(layout, matching.counterpart(layouts[0], layout, key, path)) for layout in layouts]
        equal = len({leaf.digest for leaf in same}) == 1
        if is_float(same[0].dtype) and same[0].kind in ("tensor", "ndarray"):
            small += [where(path)] if is_small(same[0].dtype) else []
            if not (equal and method.keeps_equal):
                leaves[key] = merged_leaf(same[0], [same[i] for i in order], method)
        elif not equal:
            kept.append(where(path))
    return leaves, [*_note_of_kept(kept), *_note_of_small(small)]


def _leaf(layout: Layout, key: Key) -> Leaf:
    return layout.components[key[0]].leaves[key[1]]


def _note_of_kept(paths: list[str]) -> list[str]:
    if not paths:
        return []
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return [f"{', '.join(paths[:3])}{more} differ and hold no floating point numbers: taken from the first checkpoint"]


def _note_of_small(paths: list[str]) -> list[str]:
    if not paths:
        return []
    return [f"{len(paths)} tensors have 8-bit floating point numbers: scales beside them are merged apart from them"]


# ------------------------------------------------------------------------------------------------------------ outcome


def _incoming(
    repo: Repository,
    first: Flat,
    names: Collection[str],
    leaves: Mapping[Key, Leaf],
    title: str,
) -> Incoming:
    manifest = first.checkpoint.manifest
    components = tuple(_with(c, leaves) for c in first.components.values() if c.name in names)
    return Incoming(
        components=components,
        pickled=first.pickles(repo, names),
        files=dict(first.files(repo, names)),
        # Format and metadata say under which names an export writes its files.
        source=SourceEntry(format=manifest.source.format, name=title, metadata=manifest.source.header),
        hints=hints.infer(components),
        computed=True,
    )


def _with(component: FlatComponent, leaves: Mapping[Key, Leaf]) -> FlatComponent:
    own = {name: leaves.get((component.name, name), leaf) for name, leaf in component.leaves.items()}
    return replace(component, leaves=own)


def _recorded(options: Options, recipe: Recipe, sources: Sequence[Checkpoint], record: Mapping[str, object]) -> Options:
    """The options of the commit: its parents, and the recipe among the hyperparameters."""
    first = sources[0]
    return replace(
        options,
        params={**options.params, "merge": dict(record)},
        step=first.manifest.step if options.step is None and recipe.rest == "first" else options.step,
        parents=tuple(source.id for source in sources),
        merged=tuple(source.commit for source in sources),
        start=first.commit,
        # The moments of the first do not belong to weights that it never had.
        grade_at_most=APPROXIMATE,
    )


# --------------------------------------------------------------------------------------------------------------- act


def execute(repo: Repository, plan: MergePlan, progress: Progress = silent) -> commit.Receipt:
    """Do what the plan says, once; see `commit.execute`."""
    return commit.execute(repo, plan.commit, progress)
