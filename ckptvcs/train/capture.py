"""What a training process must remember beside its tensors: random generators, what is trained, what a model is."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from ckptvcs.errors import UsageError
from ckptvcs.formats.components import role_of
from ckptvcs.formats.hints import Hints

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

AUX: Final = "auxiliary"
"""The folder of auxiliary files in an artifact."""


def rng_state() -> dict[str, Any]:
    """The state of every random generator of this process: Python's, NumPy's if it is loaded, torch's on CPU and CUDA."""
    state: dict[str, Any] = {"python": random.getstate(), "torch": torch.get_rng_state()}
    if "numpy" in sys.modules:
        name, keys, *rest = sys.modules["numpy"].random.get_state()
        # As a tensor, so that an export of it is a file that `torch.load(weights_only=True)` reads.
        state["numpy"] = (name, torch.from_numpy(keys.astype("int64")), *rest)
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Put every generator back to where it was."""
    random.setstate(state["python"])
    torch.set_rng_state(state["torch"])
    if "numpy" in state:
        import numpy as np

        name, keys, *rest = state["numpy"]
        np.random.set_state((name, np.asarray(keys, dtype=np.uint32), *rest))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def seeds() -> dict[str, int]:
    """The seeds that are known."""
    return {"torch": torch.initial_seed()}


def role(name: str, part: Any) -> str:
    """The role of an object with a state: told from what it is, else from its name."""
    if isinstance(part, torch.nn.Module):
        return "ema" if role_of(name) == "ema" else "model"
    if isinstance(part, torch.optim.Optimizer):
        return "optimizer"
    if isinstance(part, torch.optim.lr_scheduler.LRScheduler):
        return "scheduler"
    if isinstance(part, (torch.amp.GradScaler,)):
        return "scaler"
    return role_of(name)


def hints(parts: Mapping[str, Any]) -> Hints:
    """Which parameters are trained, and which of them each optimizer number stands for."""
    modules = {name: part for name, part in parts.items() if isinstance(part, torch.nn.Module)}
    trainable = {(c, name): trained for c, module in modules.items() for name, trained in _trained(module)}
    names = {id(p): name for module in modules.values() for name, p in module.named_parameters()}
    owners = {}
    for component, part in parts.items():
        if isinstance(part, torch.optim.Optimizer):
            parameters = [p for group in part.param_groups for p in group["params"]]
            owners.update({((component, "state"), n): names[id(p)] for n, p in enumerate(parameters) if id(p) in names})
    return Hints(trainable=trainable, owners=owners)


def _trained(module: torch.nn.Module) -> Iterator[tuple[str, bool]]:
    """Names of parameters and buffers, and whether they change; a buffer changes with the parameters beside it."""
    for prefix, inner in module.named_modules():
        own = dict(inner.named_parameters(recurse=False))
        for name, parameter in own.items():
            yield f"{prefix}.{name}" if prefix else name, parameter.requires_grad
        for name, _ in inner.named_buffers(recurse=False):
            yield f"{prefix}.{name}" if prefix else name, any(p.requires_grad for p in own.values())


def aux_paths(given: str | Path | Sequence[str | Path]) -> list[Path]:
    """Auxiliary files as paths: one, or several."""
    return [Path(path) for path in ([given] if isinstance(given, (str, Path)) else given)]


def aux_names(paths: Sequence[Path]) -> list[str]:
    """Where auxiliary files lie in an artifact.

    Raises:
        UsageError: two of them have one name.
    """
    outside = [path.is_absolute() or ".." in path.parts for path in paths]
    names = [f"{AUX}/{path.name if out else path.as_posix()}" for path, out in zip(paths, outside, strict=True)]
    if len(set(map(str.casefold, names))) < len(names):
        raise UsageError(
            "cannot keep auxiliary files",
            why=f"two of them have one name: {', '.join(map(str, paths))}",
            next_step="rename one of them",
        )
    return names


def aux_files(paths: Sequence[Path]) -> dict[str, bytes]:
    """Files that belong to each checkpoint, by their path in the artifact: as they are now.

    Raises:
        UsageError: one cannot be read, or two have one name.
    """
    found = {}
    for name, path in zip(aux_names(paths), paths, strict=True):
        try:
            found[name] = path.read_bytes()
        except OSError as err:
            raise UsageError(
                f"cannot save '{path}'", why=str(err.strerror).lower(), next_step="check aux=[...]"
            ) from err
    return found


def is_sharded(part: Any) -> bool:
    """Whether a module has only a share of its parameters in this process, as FSDP leaves it."""
    if not isinstance(part, torch.nn.Module):
        return False
    kinds = {type(module).__name__ for module in part.modules()} | {type(p).__name__ for p in part.parameters()}
    return bool(kinds & {"DTensor", "FullyShardedDataParallel"})


def nbytes(state: Any) -> int:
    """Bytes of the tensors of a state."""
    if isinstance(state, torch.Tensor):
        return int(state.nbytes)
    if isinstance(state, dict):
        return sum(map(nbytes, dict.values(state)))
    return sum(map(nbytes, state)) if isinstance(state, (list, tuple)) else 0


def model_files(parts: Mapping[str, Any]) -> dict[str, bytes]:
    """Files that make the folder of a model one that transformers loads: its `config.json`, if it has one."""
    found = {}
    for name, part in parts.items():
        to_json = getattr(getattr(part, "config", None), "to_json_string", None)
        if isinstance(part, torch.nn.Module) and callable(to_json):
            found[f"{name}/config.json"] = str(to_json()).encode("utf-8")
    return found
