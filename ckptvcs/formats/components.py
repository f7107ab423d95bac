"""Which parts of a state are components, and what role each plays."""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.formats.tree.encode import Ready
from ckptvcs.paths import is_segment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

EXTRA: Final = "extra"
"""The component that holds the root of the state and all that is no component of its own."""

_ROLES: Final = {
    "model": ("model", "state_dict", "model_state_dict", "module", "net", "network", "weights", "params", "generator"),
    "optimizer": ("optimizer", "optimizer_state_dict", "optimizer_states", "optimizers", "optim", "opt"),
    "scheduler": ("scheduler", "lr_scheduler", "lr_schedulers", "scheduler_state_dict", "schedulers"),
    "rng": ("rng", "rng_state", "rng_states", "random_state", "random_states"),
    "scaler": ("scaler", "grad_scaler", "scaler_state_dict"),
    "ema": ("ema", "ema_state_dict", "model_ema", "ema_model", "swa"),
    "loop": ("loop",),
    "dataloader": ("dataloader", "loader", "train_dataloader", "sampler", "data"),
}
_BY_NAME: Final = {name: role for role, names in _ROLES.items() for name in names}
_RANK: Final = re.compile(r"_(rank)?\d+\Z")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A component of a state that is still in memory."""

    name: str
    role: str
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A state, taken apart."""

    parts: tuple[Part, ...]
    has_root: bool
    """False where the state is just a dict of the parts in alphabetical order, which is how folders come back."""
    root: Any = None
    """The rest of the state, with a `$component` node wherever a part hung."""


def role_of(name: str) -> str:
    """The role that the field's usual names suggest; `extra` for any other (`rng_state_3` is `rng`)."""
    return _BY_NAME.get(_RANK.sub("", name.lower()), EXTRA)


def is_component_name(name: Any) -> bool:
    """Whether a top-level key of a state can be the name of a component, which is a folder."""
    return type(name) is str and name != EXTRA and _NAME.match(name) is not None and is_segment(name)


def take_apart(
    state: Any, is_leaf: Callable[[Any], bool], *, rooted: bool = False, roles: Mapping[str, str] | None = None
) -> Parts:
    """Divide a state into components.

    A top-level entry is a component of its own if it is a container that holds a tensor or plays a known role. A state
    that is itself a flat dict of tensors is one `model`.

    Args:
        state: the whole state.
        is_leaf: says whether a value is a tensor or an array.
        rooted: make a root in any case, for files that are to live in `extra`.
        roles: roles that are known, by name of the component; the others are told from the names.
    """
    if type(state) not in (dict, OrderedDict):
        return Parts(parts=(), has_root=True, root=state)
    # `dict.values(state)`, not `state.values()`: attributes of an `OrderedDict` may hide its methods.
    if state and all(map(is_leaf, dict.values(state))):
        return Parts(parts=(Part(name="model", role="model", value=state),), has_root=True, root=_hook("model"))
    roles = roles or {}
    names = _component_names(state, is_leaf, roles)
    parts = tuple(Part(name=name, role=roles.get(name) or role_of(name), value=state[name]) for name in names)
    if type(state) is dict and len(names) == len(state) and names == sorted(names) and not rooted:
        return Parts(parts=parts, has_root=False)
    return Parts(parts=parts, has_root=True, root=_with_hooks(state, names))


def _component_names(state: dict[Any, Any], is_leaf: Callable[[Any], bool], roles: Mapping[str, str]) -> list[str]:
    names: list[str] = []
    taken: set[str] = set()
    for key, value in dict.items(state):
        if not is_component_name(key) or key.casefold() in taken or not isinstance(value, (dict, list, tuple)):
            continue
        if key in roles or role_of(key) != EXTRA or _holds_leaf(value, is_leaf):
            names.append(key)
            taken.add(key.casefold())
    return names


def _with_hooks(state: dict[Any, Any], names: list[str]) -> dict[Any, Any]:
    root = type(state)((key, _hook(key) if key in names else value) for key, value in dict.items(state))
    if isinstance(state, OrderedDict):
        vars(root).update(vars(state))
    return root


def _hook(name: str) -> Ready:
    return Ready({"$component": name})


def _holds_leaf(value: Any, is_leaf: Callable[[Any], bool]) -> bool:
    """Whether there is a tensor anywhere in nested containers; each container is looked into once."""
    stack, seen = [value], set[int]()
    while stack:
        item = stack.pop()
        if is_leaf(item):
            return True
        if isinstance(item, (dict, list, tuple, set)) and id(item) not in seen:
            seen.add(id(item))
            stack.extend(dict.values(item) if isinstance(item, dict) else item)
    return False
