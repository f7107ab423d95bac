"""Folders as Hugging Face's libraries write them: a model, or a whole checkpoint of their Trainer.

Weights become components (`model.safetensors`, sharded or not: `model`; `adapter_model.safetensors`: `adapter_model`), and
so does every torch file that can be read without running code (`optimizer.pt`, `scheduler.bin`, `rng_state.pth`...). All
other files are kept as they are and come back bit for bit: configuration and tokenizer beside the model, the rest
(`trainer_state.json`, `training_args.bin`...) in `extra`. Nothing is left out and nothing is unpickled.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.errors import FormatError, HostileInput
from ckptvcs.formats.components import EXTRA, is_component_name, role_of
from ckptvcs.formats.foreign.safetensors_source import read_index, read_tensors
from ckptvcs.formats.foreign.source import MAX_COUNT, Source
from ckptvcs.formats.foreign.zip_pt import looks_like_zip
from ckptvcs.formats.leaf import Inert, find_opaque
from ckptvcs.paths import check_path, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

WEIGHTS: Final = "model"
_TORCH_SUFFIXES: Final = (".pt", ".pth")
_INDEXES: Final = {"model.safetensors.index.json": ".safetensors", "pytorch_model.bin.index.json": ".bin"}
_OWN_NAMES: Final = frozenset(
    ["model.safetensors", "pytorch_model.bin", "adapter_model.safetensors", "adapter_model.bin", "trainer_state.json"]
) | frozenset(_INDEXES)
_OF_TRAINER: Final = ("trainer_state.json", "training_args.bin")


def is_hf(path: Path) -> bool:
    """Whether a folder looks like one of Hugging Face's."""
    names = {entry.name for entry in path.iterdir() if entry.is_file()}
    weights = any(name.endswith((".safetensors", *_TORCH_SUFFIXES)) for name in names)
    return weights or bool(names & {"config.json", "pytorch_model.bin", *_INDEXES})


def is_checkpoint(path: Path) -> bool:
    """Whether a folder is one of theirs by itself, and not a folder in which several checkpoints lie."""
    names = {entry.name for entry in path.iterdir() if entry.is_file()}
    return bool(names & _OWN_NAMES)


def open_hf(
    path: Path,
    open_file: Callable[[Path], Source],
    *,
    follow_links: bool,
    leave_out: Collection[Path] = (),
) -> Source:
    """Read such a folder.

    Args:
        path: the folder.
        open_file: reads a single file of any format.
        follow_links: also read links that lead out of the folder.
        leave_out: files and folders in it that are none of it, such as checkpoints of their own.

    Raises:
        HostileInput: a link leads out of it.
        FormatError: its weights are damaged or incomplete.
    """
    reading = _Reading(path, open_file)
    found = _list(path, follow_links=follow_links)
    others = [one.relative_to(path).as_posix() for one in leave_out]
    reading.take_weights(
        {name: file for name, file in found.items() if not any(f"{name}/".startswith(f"{one}/") for one in others)}
    )
    reading.take_torch_files()
    return reading.finish()


class _Reading:
    """What is read so far, and which files are left."""

    def __init__(self, path: Path, open_file: Callable[[Path], Source]) -> None:
        self._path = path
        self._open_file = open_file
        self._left: dict[str, Path] = {}
        self._state: dict[str, Any] = {}
        self._watched: list[Path] = []
        self._notes: list[str] = []
        self._names: dict[str, str] = {}

    def take_weights(self, files: dict[str, Path]) -> None:
        self._left = files
        for index, suffix in _INDEXES.items():
            if index in files and WEIGHTS not in self._state:
                self._take_indexed(index, suffix)
        for name in [n for n in files if n.endswith(".safetensors") and "/" not in n]:
            stem = name.removesuffix(".safetensors")
            if is_component_name(stem) and stem not in self._state:
                self._take(stem, name, read_tensors(files[name])[0])
        if WEIGHTS not in self._state and "pytorch_model.bin" in files:
            self._take_torch(WEIGHTS, "pytorch_model.bin")

    def _take_indexed(self, index: str, suffix: str) -> None:
        weight_map = read_index(self._left[index])
        tensors: dict[str, Any] = {}
        for file in sorted(set(weight_map.values())):
            if file not in self._left or not file.endswith(suffix):
                raise FormatError(
                    f"cannot read folder '{self._path}'",
                    why=f"'{index}' names '{printable(file)}', which is not there",
                    next_step="fetch the folder again, whole",
                )
            shard = self._left[file]
            held = read_tensors(shard)[0] if suffix == ".safetensors" else self._open_file(shard).state
            _join(tensors, held, shard)
            self._watched.append(shard)
            del self._left[file]
        if missing := sorted(name for name in weight_map if name not in tensors):
            raise FormatError(
                f"cannot read folder '{self._path}'",
                why=f"'{index}' names {len(missing)} tensors that no file holds, such as '{printable(missing[0])}'",
                next_step="fetch the folder again, whole",
            )
        del self._left[index]
        self._names[WEIGHTS] = index
        others = [name for name in tensors if name not in weight_map]
        self._state[WEIGHTS] = {name: tensors[name] for name in (*weight_map, *others)}

    def take_torch_files(self) -> None:
        """The other parts of a training state; one that cannot be read without running code stays a file."""
        for name in sorted(n for n in self._left if "/" not in n):
            stem = name.rpartition(".")[0]
            candidate = name.endswith(_TORCH_SUFFIXES) or (role_of(stem) != EXTRA and _is_torch(self._left[name]))
            if candidate and is_component_name(stem) and stem not in self._state:
                self._take_torch(stem, name)

    def _take_torch(self, component: str, name: str) -> None:
        try:
            state = self._open_file(self._left[name]).state
        except HostileInput:
            raise
        except FormatError as err:
            self._notes.append(f"'{name}' is kept as a file, not as a component: {err.why}")
            return
        if opaque := find_opaque(state):
            self._notes.append(f"'{name}' is kept as a file, not as a component: it holds a {opaque.named()}")
        else:
            self._take(component, name, state)

    def _take(self, component: str, name: str, state: Any) -> None:
        self._state[component] = state
        self._names[component] = name
        self._watched.append(self._left.pop(name))

    def finish(self) -> Source:
        if not self._state:
            raise FormatError(
                f"cannot read folder '{self._path}'",
                why="it has no weights that we can read",
                next_step="name the folder that holds 'model.safetensors'",
            )
        home = next((name for name in self._state if role_of(name) == "model"), next(iter(self._state)))
        files = {f"{EXTRA if name in _OF_TRAINER else home}/{name}": path for name, path in self._left.items()}
        return Source(
            format="hf",
            name=self._path.name,
            state=self._state,
            files=files,
            metadata=self._names,
            facts=_facts(self._path / "trainer_state.json"),
            notes=tuple(self._notes),
            watched=tuple(self._watched),
        )


def _join(tensors: dict[Any, Any], held: Any, shard: Path) -> None:
    """Add what one shard holds.

    Raises:
        FormatError: that is no dict, or holds what another shard holds too: transformers takes the last one, whatever the
            index says, and who follows the index another one.
    """
    kind = held.named() if isinstance(held, Inert) else type(held).__name__
    why = "" if isinstance(held, dict) else f"it holds a {kind}, not tensors by name"
    if not why and (twice := [name for name in dict.keys(held) if name in tensors]):
        why = f"'{printable(str(twice[0]))}' is in another shard too"
    if why:
        raise FormatError(f"cannot read shard '{shard}'", why=why, next_step="write the folder again")
    dict.update(tensors, dict.items(held))


def _is_torch(file: Path) -> bool:
    with file.open("rb") as opened:
        return looks_like_zip(opened.read(4))


def _list(path: Path, *, follow_links: bool) -> dict[str, Path]:
    """Every file of a folder by its path in it. Folders that are links are not entered."""
    found: dict[str, Path] = {}
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            file = path / folder / name
            relative = file.relative_to(path).as_posix()
            if name == ".gitattributes" or relative.startswith(".git/"):
                continue
            check_path(relative)
            if file.is_symlink() and not follow_links and not file.resolve().is_relative_to(path):
                raise HostileInput(
                    f"cannot read '{file}'",
                    why="it is a link that leads out of the folder",
                    next_step="pass --follow-links if you trust where it leads",
                )
            if file.is_file():
                found[relative] = file
    return found


def _facts(trainer_state: Path) -> dict[str, Any]:
    """Step, epoch and the last metrics from the Trainer's own account, as far as they can be true."""
    try:
        document = json.loads(trainer_state.read_bytes())
        step, epoch, history = document["global_step"], document.get("epoch"), document["log_history"]
        metrics = {k: v for entry in history if entry.get("step") == step for k, v in entry.items() if _is_metric(k, v)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    if not _is_count(step) or step != int(step):
        return {}
    best = document.get("best_model_checkpoint")
    said = {"epoch": epoch} if _is_count(epoch) else {}
    return {"step": int(step), "metrics": metrics, **said, **({"best": best} if type(best) is str else {})}


def _is_count(value: Any) -> bool:
    """Whether this is a number from 0 on, which NaN and infinity are not."""
    return type(value) in (int, float) and 0 <= value < MAX_COUNT


def _is_metric(name: str, value: Any) -> bool:
    return name not in ("step", "epoch") and (type(value) is float or (type(value) is int and abs(value) < MAX_COUNT))
