"""`export`: a checkpoint as a file or folder that other programs read.

Written beside its place and renamed when it is whole; an existing destination is never overwritten.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal, cast

from ckptvcs.errors import FormatError, NotFound, WouldOverwrite, from_os_error
from ckptvcs.formats import dtypes, safetensors_file, tree_file
from ckptvcs.formats.artifact import INDEX, PICKLE
from ckptvcs.formats.components import EXTRA
from ckptvcs.formats.reading import Artifact, NeutralBuilder, build, named_leaves
from ckptvcs.formats.tree_file import Stored
from ckptvcs.porcelain import given
from ckptvcs.porcelain.checkpoints import require_checkpoint
from ckptvcs.porcelain.describe import ref_of
from ckptvcs.porcelain.load import State, load, open_component_file
from ckptvcs.storage import files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from ckptvcs.domain.checkpoint import Checkpoint
    from ckptvcs.domain.manifest import ComponentEntry
    from ckptvcs.porcelain.repo import Repository

Format = Literal["pt", "safetensors", "hf", "lightning"]
FORMATS: Final[tuple[Format, ...]] = ("pt", "safetensors", "hf", "lightning")

_MAX_SHARD: Final = 5 << 30
"""Where Hugging Face's libraries split weights too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportPlan:
    """What an export would write."""

    checkpoint: Checkpoint
    destination: Path
    format: Format
    components: tuple[str, ...]
    allow_pickle: bool


def plan_export(
    repo: Repository,
    revision: str,
    destination: Path,
    *,
    format: Format | None = None,  # noqa: A002 - the word that everybody types
    component: str | None = None,
    allow_pickle: bool = False,
    track: str | None = None,
) -> ExportPlan:
    """Look at everything, change nothing.

    Args:
        repo: the repository.
        revision: the checkpoint.
        destination: a file, or for `hf` a folder, that does not exist.
        format: None takes it from the name of the destination.
        component: for `safetensors`: which one, by name or role; None for the model.
        allow_pickle: let components be unpickled that only pickle could represent.
        track: the track; None for the configured one.

    Raises:
        WouldOverwrite: the destination exists.
        NotFound: no such checkpoint or component.
    """
    checkpoint = require_checkpoint(repo, revision, track or repo.basics.track)
    if os.path.lexists(destination):
        raise WouldOverwrite(
            f"cannot export to '{destination}'", why="it exists already", next_step="choose another name"
        )
    chosen = format or _format_of(destination)
    wanted = [c.name for c in checkpoint.manifest.components]
    if chosen == "safetensors":
        wanted = [_component(checkpoint, component or "model").name]
    return ExportPlan(
        checkpoint=checkpoint,
        destination=destination.absolute(),
        format=chosen,
        components=tuple(wanted),
        allow_pickle=allow_pickle,
    )


def _format_of(destination: Path) -> Format:
    suffixes: dict[str, Format] = {".safetensors": "safetensors", ".pt": "pt", ".pth": "pt", ".ckpt": "lightning"}
    return suffixes.get(destination.suffix, "hf")


def _component(checkpoint: Checkpoint, name: str) -> ComponentEntry:
    entry = checkpoint.manifest.component(name)
    if entry is None:
        raise NotFound(
            f"no component '{name}' in checkpoint {checkpoint.id[:10]}",
            why=f"it has {', '.join(f'{c.name} ({c.role})' for c in checkpoint.manifest.components)}",
            next_step="name one with --component",
        )
    return entry


def execute(repo: Repository, plan: ExportPlan) -> tuple[str, ...]:
    """Write the file or folder.

    Returns:
        What the user should know.

    Raises:
        FormatError: the format cannot hold what the checkpoint holds.
        StorageError: the disk is full or failing; nothing is left behind.
        IntegrityError: an object is missing or damaged.
    """
    write = {"pt": _write_pt, "lightning": _write_lightning, "safetensors": _write_safetensors, "hf": _write_hf}[
        plan.format
    ]
    began = time.monotonic()
    notes = given.tell(repo, [plan.checkpoint], by="export", components=plan.components)
    tmp = plan.destination.with_name(f"{files.PREFIX}{secrets.token_hex(6)}-{plan.destination.name}")
    try:
        write(repo, plan, tmp)
        if os.path.lexists(plan.destination):
            raise WouldOverwrite(
                f"cannot export to '{plan.destination}'", why="it appeared meanwhile", next_step="choose another name"
            )
        os.rename(tmp, plan.destination)
        files.fsync_dir(plan.destination.parent)
    except OSError as err:
        raise from_os_error(err, doing=f"write '{plan.destination}'") from err
    finally:
        if tmp.is_dir():
            shutil.rmtree(tmp, ignore_errors=True)
        else:
            tmp.unlink(missing_ok=True)
    return notes + given.took(repo, [plan.checkpoint], by="export", seconds=time.monotonic() - began)


# ----------------------------------------------------------------------------------------------------------- with torch


def _write_pt(repo: Repository, plan: ExportPlan, tmp: Path) -> None:
    state = _state(repo, plan)
    _durably(tmp, partial(_torch_save, state))


def _write_lightning(repo: Repository, plan: ExportPlan, tmp: Path) -> None:
    state = _state(repo, plan)
    if "pytorch-lightning_version" not in state:
        state = _as_lightning(plan.checkpoint, state)
    _durably(tmp, partial(_torch_save, state))


def _as_lightning(checkpoint: Checkpoint, state: Mapping[str, Any]) -> dict[str, Any]:
    """The parts that Lightning's Trainer looks for, from a state that another loop made."""
    manifest = checkpoint.manifest
    by_role = {c.role: state[c.name] for c in manifest.components if c.name in state}
    if "model" not in by_role:
        raise FormatError("cannot export as Lightning", why="the checkpoint has no model", next_step="use --format pt")
    return {
        "epoch": int(manifest.epoch or 0),
        "global_step": manifest.step or 0,
        "pytorch-lightning_version": "2.0.0",
        "state_dict": by_role["model"],
        "loops": {},
        "callbacks": {},
        "optimizer_states": [by_role["optimizer"]] if "optimizer" in by_role else [],
        "lr_schedulers": [by_role["scheduler"]] if "scheduler" in by_role else [],
    }


def _state(repo: Repository, plan: ExportPlan) -> Any:
    state = load(repo, plan.checkpoint.commit, allow_pickle=plan.allow_pickle, track=plan.checkpoint.manifest.track)
    return state.whole() if isinstance(state, State) else state


def _torch_save(state: Any, file: BinaryIO) -> None:
    from ckptvcs.formats import torch_state

    watched = _Watched(file)
    try:
        torch_state.write_pt(state, cast("BinaryIO", watched))
    except RuntimeError:
        if watched.error is not None:
            raise watched.error from None  # torch tells its own trouble with the file instead
        raise


class _Watched:
    """A file that remembers what went wrong with it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as err:
            self.error = err
            raise

    def flush(self) -> None:
        self._file.flush()


# -------------------------------------------------------------------------------------------------------- without torch


def _write_safetensors(repo: Repository, plan: ExportPlan, tmp: Path) -> None:
    tensors = _Tensors(repo, plan.checkpoint, plan.components[0])
    _durably(tmp, partial(tensors.write, tensors.all()))


def _write_hf(repo: Repository, plan: ExportPlan, tmp: Path) -> None:
    manifest = plan.checkpoint.manifest
    names = manifest.source.header if manifest.source.format == "hf" else {}
    tmp.mkdir()
    for component in manifest.components:
        _keep_files(repo, plan.checkpoint, component, tmp)
        was_safetensors = names.get(component.name, "").endswith(".safetensors")
        if (component.role == "model" or was_safetensors) and component.encoding == "tree":
            _write_weights(_Tensors(repo, plan.checkpoint, component.name), tmp, names.get(component.name, ""))
        elif component.name != EXTRA or not names:
            value = load(
                repo, plan.checkpoint.commit, [component.name], allow_pickle=plan.allow_pickle, track=manifest.track
            )
            default = "rng_state.pth" if component.role == "rng" else f"{component.name}.pt"
            _durably(tmp / names.get(component.name, default), partial(_torch_save, value[component.name]))
    files.fsync_dir(tmp)


def _keep_files(repo: Repository, checkpoint: Checkpoint, component: ComponentEntry, folder: Path) -> None:
    """Copy the files of a component that are no tensors, such as `config.json`."""
    shards = set()
    if component.encoding == "tree":
        artifact = Artifact([component.name], open_component_file(repo, checkpoint))
        shards = {e.shard for e in artifact.tree(component.name).table.values() if isinstance(e, Stored)}
    prefix = f"{component.name}/"
    kept = {f.path.removeprefix(prefix): f for f in component.files}
    ours = {*shards, tree_file.NAME, INDEX, PICKLE}
    repo.objects.check(ref_of(f) for f in kept.values())
    for name, entry in kept.items():
        if name not in ours:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(repo.objects.store.path(ref_of(entry).name), folder / name)


def _write_weights(tensors: _Tensors, folder: Path, original: str) -> None:
    stem = original.removesuffix(".safetensors") if original.endswith(".safetensors") else "model"
    shards = tensors.shards(_MAX_SHARD)
    if len(shards) == 1:
        _durably(folder / f"{stem}.safetensors", partial(tensors.write, shards[0]))
        return
    weight_map = {}
    for number, names in enumerate(shards, start=1):
        name = f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors"
        _durably(folder / name, partial(tensors.write, names))
        weight_map.update(dict.fromkeys(names, name))
    index = {"metadata": {"total_size": tensors.nbytes()}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


class _Tensors:
    """The tensors of one component by the names that other programs know them by, ready for safetensors files."""

    def __init__(self, repo: Repository, checkpoint: Checkpoint, component: str) -> None:
        names = [c.name for c in checkpoint.manifest.components if c.encoding == "tree"]
        artifact = Artifact(names, open_component_file(repo, checkpoint))
        source = checkpoint.manifest.source
        self._metadata = source.header if source.format == "safetensors" else {}
        self._leaves = dict(named_leaves(build(artifact, NeutralBuilder, [component])[component]))
        for name, leaf in self._leaves.items():
            if leaf.dtype not in dtypes.SAFETENSORS or "expand" in leaf.attrs:
                raise FormatError(
                    f"cannot export tensor '{name}' as safetensors",
                    why=f"safetensors has no element type '{leaf.dtype}' and no repeated elements",
                    next_step="use --format pt",
                )

    def all(self) -> list[str]:
        """Every name; a tensor with two names is written under both, as a file has no other way to say it."""
        return list(self._leaves)

    def unshared(self) -> list[str]:
        """One name for each tensor, as transformers writes them: it ties the others again itself."""
        return list({id(leaf): name for name, leaf in reversed(self._leaves.items())}.values())[::-1]

    def shards(self, limit: int) -> list[list[str]]:
        """The unshared names in groups of at most `limit` bytes."""
        groups: list[list[str]] = [[]]
        size = 0
        for name in self.unshared():
            nbytes = self._leaves[name].nbytes
            if groups[-1] and size + nbytes > limit:
                groups.append([])
                size = 0
            groups[-1].append(name)
            size += nbytes
        return groups

    def nbytes(self) -> int:
        return sum(self._leaves[name].nbytes for name in self.unshared())

    def write(self, names: list[str], file: BinaryIO) -> None:
        """Write a safetensors file of these tensors."""
        specs = {name: safetensors_file.Spec(self._leaves[name].dtype, self._leaves[name].shape) for name in names}
        file.write(safetensors_file.header(specs, self._metadata))
        for name in safetensors_file.write_order(specs):
            for piece in self._leaves[name].pieces():
                file.write(piece)


def _durably(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    with path.open("xb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
