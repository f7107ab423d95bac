"""A running average of the weights of a model, for the training loop: kept beside the model, saved and restored with it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final, Literal

import torch

from ckptvcs.errors import FormatError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Start = Literal["plain", "warmup", "unbiased"]
Buffers = Literal["average", "copy"]
_FACTS: Final = "$average"
"""The key of the state that is no tensor of the model; no parameter can have such a name."""


class WeightAverage:
    """Keeps an average of the weights that a model had at the last calls of `update`.

    One of two is given: `decay` for an exponential moving average, or `last` for the equal mean of the last so many
    (Kaddour, "Stop wasting my time! Saving days of ImageNet and BERT training with latest weight averaging", 2022), or
    of `"all"` (Izmailov et al., "Averaging weights leads to wider optima and better generalization", UAI 2018).

    The average is on the device of the model. Weights of 16 bits and fewer are averaged in float32, where what is added
    does not vanish. Tied weights are one tensor here too. What is no floating point number is that of the last update.

    Args:
        model: the model, now and at each `update`.
        decay: the share of the average that stays at each update, from 0 to below 1.
        last: over how many updates the mean goes; that many copies of the weights are kept, one for `"all"`.
        start: of `decay`: `plain` begins with the weights as they are now; `warmup` lets at most (1 + n) / (10 + n) stay
            at update n, as TensorFlow's `ExponentialMovingAverage` does; `unbiased` forgets what was before the first
            update and divides by the weight that was given so far, as Adam does (Kingma and Ba, 2015, section 3).
        buffers: `average` for those of floating point numbers (the statistics of a batch norm), or `copy` the last ones.

    Raises:
        UsageError: not exactly one of `decay` and `last` is given, or it is out of range.

    Example:
        >>> average = WeightAverage(model, decay=0.999)
        >>> with Checkpointer(model=model, ema=average, run="r") as ck:
        ...     for step in range(total):
        ...         train_step()
        ...         average.update()
        ...     with average.applied_to(model):
        ...         evaluate(model)
    """

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        decay: float | None = None,
        last: int | Literal["all"] | None = None,
        start: Start = "plain",
        buffers: Buffers = "average",
    ) -> None:
        _check(decay, last, start, buffers)
        self._model, self._decay, self._last = model, decay, last
        self._start, self._buffers = start, buffers
        self._updates = 0
        self._applied = 0
        with torch.no_grad():
            self._mean = {name: _shadow(tensor) for name, tensor in self._distinct().items()}
        self._recent: list[dict[str, torch.Tensor]] = []
        self._newest = -1

    @property
    def updates(self) -> int:
        """How often `update` was called."""
        return self._updates

    @property
    def mode(self) -> str:
        """`exponential`, `last` or `all`."""
        return "exponential" if self._decay is not None else "all" if self._last == "all" else "last"

    # ---- averaging

    def update(self) -> None:
        """Let the weights of the model as they are now go into the average.

        Raises:
            UsageError: the model has the averaged weights at the moment: they would go into themselves.
        """
        if self._applied:
            raise UsageError(
                "cannot update the average",
                why="the model has the averaged weights at the moment",
                next_step="call 'update' after the block of 'applied_to'",
            )
        self._updates += 1
        live = self._distinct()
        with torch.no_grad():
            if isinstance(self._last, int):
                self._remember(live, self._last)
            else:
                self._blend(live, self._stays())

    def _blend(self, live: Mapping[str, torch.Tensor], stays: float) -> None:
        for name, tensor in live.items():
            shadow = self._mean[name] = self._mean[name].to(tensor.device)  # the model may have moved
            if self._is_averaged(tensor):
                shadow.lerp_(tensor.detach().to(shadow.dtype), 1 - stays)
            else:
                shadow.copy_(tensor)

    def _stays(self) -> float:
        """The share of the average that stays at this update."""
        n = self._updates
        if self._decay is None:
            return 1 - 1 / n
        if self._start == "warmup":
            return min(self._decay, (1 + n) / (10 + n))
        if self._start == "unbiased":
            return self._decay * (1 - self._decay ** (n - 1)) / (1 - self._decay**n)
        return self._decay

    def _remember(self, live: Mapping[str, torch.Tensor], last: int) -> None:
        """Put the weights into the slot of the oldest ones: the others stay what they are, and cost nothing to save again."""
        if len(self._recent) < last:
            self._newest = len(self._recent)
            self._recent.append({name: tensor.detach().clone() for name, tensor in live.items()})
            return
        self._newest = (self._newest + 1) % last
        for name, tensor in live.items():
            self._recent[self._newest][name].copy_(tensor)

    def _is_averaged(self, tensor: torch.Tensor) -> bool:
        if not (tensor.is_floating_point() or tensor.is_complex()):
            return False
        return self._buffers == "average" or isinstance(tensor, torch.nn.Parameter)

    def average(self) -> dict[str, torch.Tensor]:
        """The averaged weights by name, as `state_dict` of the model names them; tied names have one tensor.

        The tensors are our own: the next `update` changes them.
        """
        if self._recent:
            with torch.no_grad():
                self._mean_of_recent()
        return {name: self._mean[first] for name, first in self._names().items()}

    def _mean_of_recent(self) -> None:
        live = self._distinct()
        for name, shadow in self._mean.items():
            if self._is_averaged(live[name]):
                total = torch.zeros_like(shadow, dtype=_widest(shadow))
                for slot in self._recent:
                    total += slot[name]
                shadow.copy_(total / len(self._recent))
            else:
                shadow.copy_(self._recent[self._newest][name])

    # ---- using

    def copy_to(self, model: torch.nn.Module) -> None:
        """Write the averaged weights into a model of the same shape, each rounded to the type that it has there.

        Raises:
            FormatError: the model has other weights; every difference is named.
        """
        average, live = self.average(), _tensors(model)
        _refuse_differences(average, live, "copy the average into the model")
        with torch.no_grad():
            for name, tensor in live.items():
                tensor.detach().copy_(average[name])

    @contextlib.contextmanager
    def applied_to(self, model: torch.nn.Module) -> Iterator[torch.nn.Module]:
        """Give a model the averaged weights for the length of a block, and then its own back, bit for bit.

        What the block changes in the weights is lost.
        """
        with torch.no_grad():
            own = {name: tensor.detach().clone() for name, tensor in _distinct(_tensors(model)).items()}
        self.copy_to(model)
        self._applied += 1
        try:
            yield model
        finally:
            self._applied -= 1
            with torch.no_grad():
                for name, tensor in _tensors(model).items():
                    if name in own:
                        tensor.detach().copy_(own[name])

    # ---- saving

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights by the names that the model has for them, and under `$average` what goes on from here."""
        facts: dict[str, Any] = {"mode": self.mode, "updates": self._updates}
        if self._recent:
            facts |= {"newest": self._newest, "recent": self._recent}
        return {**self.average(), _FACTS: facts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave.

        Raises:
            FormatError: it is of another kind of average, or of other weights; every difference is named.
        """
        facts = state.get(_FACTS, {})
        if facts.get("mode") != self.mode:
            raise FormatError(
                "cannot load the average of weights",
                why=f"it is of kind '{facts.get('mode')}', this one is '{self.mode}'",
                next_step="make it with the same 'decay' or 'last'",
            )
        saved = {name: tensor for name, tensor in state.items() if name != _FACTS}
        _refuse_differences(saved, self.average(), "load the average of weights")
        self._updates = int(facts["updates"])
        with torch.no_grad():
            for name, shadow in self._mean.items():
                shadow.copy_(saved[name])
            if isinstance(self._last, int):
                self._load_recent(facts.get("recent", []), int(facts.get("newest", -1)), self._last)

    def _load_recent(self, recent: Sequence[Mapping[str, torch.Tensor]], newest: int, last: int) -> None:
        if len(recent) != last:  # there are not so many yet, or `last` is another one than it was: the newest stay
            recent = [*recent[newest + 1 :], *recent[: newest + 1]][-last:]
            newest = len(recent) - 1
        live = self._distinct()
        self._newest = newest
        self._recent = [{name: slot[name].to(t.device, copy=True) for name, t in live.items()} for slot in recent]

    # ---- the model

    def _distinct(self) -> dict[str, torch.Tensor]:
        return _distinct(_tensors(self._model))

    def _names(self) -> dict[str, str]:
        """Each name of a tensor of the model, and the first name of the same tensor."""
        first: dict[int, str] = {}
        return {name: first.setdefault(id(tensor), name) for name, tensor in _tensors(self._model).items()}


def _check(decay: float | None, last: int | str | None, start: str, buffers: str) -> None:
    problem = ""
    if (decay is None) == (last is None):
        problem = "it needs either 'decay' or 'last'"
    elif decay is not None and not 0 <= decay < 1:
        problem = f"decay is {decay}, and goes from 0 to below 1"
    elif last is not None and last != "all" and (type(last) is not int or last < 1):
        problem = f"last is {last!r}, and is a whole number above 0, or 'all'"
    elif start not in ("plain", "warmup", "unbiased") or buffers not in ("average", "copy"):
        problem = f"there is no start {start!r}, or no way with buffers {buffers!r}"
    if problem:
        raise UsageError("cannot make an average of weights", why=problem, next_step="give decay=0.999, or last=5")


def _tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of a model themselves, by every name they have: what its `state_dict` saves."""
    state = model.state_dict(keep_vars=True)
    return {name: tensor for name, tensor in state.items() if isinstance(tensor, torch.Tensor)}


def _distinct(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Each tensor once, under the first of its names."""
    first = {id(tensor): name for name, tensor in reversed(list(tensors.items()))}
    return {name: tensor for name, tensor in tensors.items() if first[id(tensor)] == name}


def _shadow(tensor: torch.Tensor) -> torch.Tensor:
    narrow = tensor.is_floating_point() and tensor.element_size() < 4
    return tensor.detach().to(torch.float32 if narrow else tensor.dtype, copy=True)


def _widest(tensor: torch.Tensor) -> torch.dtype:
    """A type to take sums in: Apple's devices have no float64."""
    return tensor.dtype if tensor.device.type == "mps" else torch.promote_types(tensor.dtype, torch.float64)


def _refuse_differences(given: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], doing: str) -> None:
    found = [f"'{name}' is missing" for name in wanted if name not in given]
    found += [f"'{name}' is too much" for name in given if name not in wanted]
    found += [
        f"'{name}' has shape {list(given[name].shape)}, not {list(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in given and given[name].shape != tensor.shape
    ]
    if found:
        raise FormatError(
            f"cannot {doing}",
            why="; ".join(found),
            next_step="use it with the model that it was made for",
            differences=found,
        )
