"""Whether a state fits a part of a training, and everything that does not: before anything is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def differences(name: str, part: Any, state: Any) -> list[str]:
    """What of a state does not fit a part, a line each; empty for parts that nobody but they themselves can judge.

    Args:
        name: of the part, for the lines.
        part: a module, an optimizer or anything else with `load_state_dict`.
        state: what it would be given.
    """
    if isinstance(part, torch.nn.Module):
        return [f"{name}: {line}" for line in _of_module(part.state_dict(), state)]
    if isinstance(part, torch.optim.Optimizer):
        return [f"{name}: {line}" for line in _of_optimizer(part, state)]
    return []


def fitting(part: torch.nn.Module, state: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a state that fit a module."""
    own = part.state_dict()
    return {key: value for key, value in state.items() if key in own and not _unlike(own[key], value)}


def prefix(part: torch.nn.Module, state: Any) -> str | None:
    """What stands before all names of a state that would fit a module without it, such as `module.` of a wrapper."""
    own = list(part.state_dict())
    names = [name for name in state if isinstance(name, str)] if isinstance(state, dict) else []
    found = next((name.removesuffix(own[0]) for name in names if name.endswith(f".{own[0]}")), None)
    return found if found and set(own) <= {name.removeprefix(found) for name in names} else None


def _of_module(own: Mapping[str, Any], state: Any) -> Iterator[str]:
    if not isinstance(state, dict):
        yield f"a module needs a dict of tensors, the checkpoint holds {type(state).__name__}"
        return
    for key in own:
        if key not in state:
            yield f"'{key}' is missing in the checkpoint"
        elif unlike := _unlike(own[key], state[key]):
            yield f"'{key}' {unlike}"
    for key in state:
        if key not in own:
            yield f"'{key}' is in the checkpoint only"


def _unlike(own: Any, saved: Any) -> str:
    """How two values differ in kind; empty if one can take the place of the other."""
    if not isinstance(own, torch.Tensor) or not isinstance(saved, torch.Tensor):
        return (
            "" if isinstance(own, torch.Tensor) is isinstance(saved, torch.Tensor) else "is a tensor on one side only"
        )
    if torch.nn.parameter.is_lazy(own):  # takes whatever shape comes first
        return ""
    if own.shape != saved.shape and own.numel():  # an empty buffer is made as large as what is loaded, as observers do
        return f"has shape {tuple(saved.shape)} in the checkpoint, {tuple(own.shape)} here"
    return "" if own.dtype == saved.dtype else f"is {saved.dtype} in the checkpoint, {own.dtype} here"


def _of_optimizer(part: torch.optim.Optimizer, state: Any) -> Iterator[str]:
    saved = state.get("param_groups") if isinstance(state, dict) else None
    if not isinstance(saved, list) or not all(isinstance(group, dict) and "params" in group for group in saved):
        yield "the checkpoint holds no state of an optimizer"
        return
    if len(saved) != len(part.param_groups):
        yield f"has {len(saved)} parameter groups in the checkpoint, {len(part.param_groups)} here"
        return
    for number, (theirs, ours) in enumerate(zip(saved, part.param_groups, strict=True)):
        yield from (f"group {number} {line}" for line in _of_group(ours, theirs, state.get("state", {})))


def _of_group(ours: Mapping[str, Any], theirs: Mapping[str, Any], moments: Mapping[Any, Any]) -> Iterator[str]:
    # One missing option is one that a version of torch has and another has not; on both sides, it is another optimizer.
    here, there = (sorted(a.keys() - b.keys()) for a, b in ((ours, theirs), (theirs, ours)))
    if here and there:
        yield f"is of another optimizer: it has no {', '.join(here)}, but {', '.join(there)}"
    if len(ours["params"]) != len(theirs["params"]):
        yield f"has {len(theirs['params'])} parameters in the checkpoint, {len(ours['params'])} here"
        return
    for number, parameter in zip(theirs["params"], ours["params"], strict=True):
        for key, moment in (moments.get(number) or {}).items():
            lazy = torch.nn.parameter.is_lazy(parameter)
            if (
                key in _LIKE_THE_PARAMETER
                and isinstance(moment, torch.Tensor)
                and not lazy
                and moment.shape != parameter.shape
            ):
                yield (
                    f"'{key}' of parameter {number} has shape {tuple(moment.shape)} in the checkpoint, "
                    f"the parameter {tuple(parameter.shape)} here"
                )


_LIKE_THE_PARAMETER = {
    "exp_avg",
    "exp_avg_sq",
    "max_exp_avg_sq",
    "exp_inf",
    "momentum_buffer",
    "square_avg",
    "acc_delta",
}
"""Moments of torch's optimizers that have the shape of their parameter; others may keep factors of it."""
