"""The parts of a training: objects with a state, under the names of components."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, Final, Literal

import torch

from ckptvcs.domain import provenance
from ckptvcs.errors import UsageError
from ckptvcs.formats.components import is_component_name
from ckptvcs.paths import printable
from ckptvcs.porcelain import incoming
from ckptvcs.train import capture, ranks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ckptvcs.porcelain.incoming import Incoming
    from ckptvcs.train.averages import WeightAverage

Every = Literal["step", "save"]

RNG: Final = "rng"
LOOP: Final = "loop"
"""The component of what the loop itself must remember."""

_OWN: Final = (RNG, LOOP, capture.AUX)
_OF_EACH_RANK: Final = ("dataloader", "extra")
"""Roles of parts that each rank may have a state of its own of; models and optimizers are the same on all."""

_OPTIONS: Final = (
    *("run", "repo", "branch", "track", "policy", "asynchronous", "params", "data", "aux", "preempted"),
    *("model", "optimizer", "scheduler"),
)
"""What `Checkpointer` takes beside parts that users name themselves."""

_BARE: Final = "$bare"
"""Marks the state of a part whose `state_dict` gives something else than a container."""


class Parts:
    """The parts of one training, the averages that are kept of them, and the files that belong to each checkpoint.

    Args:
        given: the parts by name; those that are None are left out.
        aux: auxiliary files.

    Raises:
        UsageError: there is no part, or one has no state or no possible name.
    """

    def __init__(self, given: Mapping[str, Any], aux: Sequence[str | Path] = ()) -> None:
        self.by_name: dict[str, Any] = {}
        self.roles: dict[str, str] = {}
        self._aux = capture.aux_paths(aux)
        capture.aux_names(self._aux)
        self._averages: list[tuple[WeightAverage, Every]] = []
        for name, part in given.items():
            if part is not None:
                self._add(name, part)
        if not self.by_name:
            raise UsageError("nothing to save", why="no part was given", next_step="pass model=, optimizer=...")

    def _add(self, name: str, part: Any) -> None:
        _check_part(name, part)
        if not is_component_name(name) or name.casefold() in map(str.casefold, self.by_name):
            raise UsageError(
                f"a part cannot be named '{printable(name)}'",
                why="the name of a part is that of a folder, and no two may differ in case alone",
                next_step="use letters, digits, '-', '_' and '.', a letter or digit first",
            )
        self.by_name[name] = part
        self.roles[name] = capture.role(name, part)

    @property
    def model(self) -> Any:
        """The part `model`.

        Raises:
            UsageError: there is none.
        """
        if "model" not in self.by_name:
            raise UsageError("no weights to average", why="no model was given", next_step="pass model=")
        return self.by_name["model"]

    def add_average(self, name: str, average: WeightAverage, every: Every) -> None:
        """Make an average a part, and have it updated at each step or at each save."""
        self._add(name, average)
        self.roles[name] = "ema"
        self._averages.append((average, every))

    def update_averages(self, now: Every) -> None:
        """Update those averages that are to be updated now."""
        for average, every in self._averages:
            if every == now:
                average.update()

    def with_roles(self, *roles: str) -> dict[str, Any]:
        """The parts that play one of these roles."""
        return {name: part for name, part in self.by_name.items() if self.roles[name] in roles}

    def states(self, some: Mapping[str, Any]) -> dict[str, Any]:
        """The states of some parts; of all of them, with those of the random generators of every rank."""
        states = {name: _state_of(part, self.roles[name]) for name, part in some.items()}
        if len(some) == len(self.by_name):
            states[RNG] = ranks.gathered(capture.rng_state())
        return states

    def incoming(self, states: Mapping[str, Any]) -> Incoming:
        """States on their way into a commit, with what is known of them."""
        some = {name: part for name, part in self.by_name.items() if name in states}
        return incoming.from_state(
            dict(sorted(states.items())),
            roles={name: self.roles[name] for name in some},
            known=capture.hints(some),
            files={**capture.model_files(some), **capture.aux_files(self._aux)},
        )

    def wanted(self, components: Sequence[str] | None) -> list[str]:
        """The components to put back: those that are named, else all parts, the generators and what the loop remembers.

        Raises:
            UsageError: a name is that of no part.
        """
        if components is None:
            return [*self.by_name, RNG, LOOP]
        components = [components] if isinstance(components, str) else components
        if not components:
            raise UsageError(
                "nothing to put back",
                why="'components' names no part",
                next_step="leave it out to put back all of them",
            )
        unknown = [name for name in components if name not in self.by_name]
        if unknown:
            raise UsageError(
                f"cannot put back '{printable(unknown[0])}'",
                why=f"no part has that name, only {', '.join(self.by_name)}",
                next_step="name parts that Checkpointer was given",
            )
        return list(components)

    def grade(self) -> str:
        """How well training can go on from the states of all parts."""
        return provenance.grade({*self.roles.values(), RNG})


def _check_part(name: str, part: Any) -> None:
    if name in _OWN:
        raise UsageError(
            f"a part cannot be named '{name}'", why=f"'{name}' is saved by itself", next_step="give it another name"
        )
    if not hasattr(part, "state_dict") or not hasattr(part, "load_state_dict"):
        instead = "pass an object that has both"
        if isinstance(part, torch.utils.data.DataLoader):
            instead = "use torchdata's StatefulDataLoader, which knows its place"
        elif similar := difflib.get_close_matches(name, _OPTIONS, n=1):
            instead = f"did you mean '{similar[0]}='?"
        raise UsageError(f"cannot save '{name}'", why="it has no state_dict and load_state_dict", next_step=instead)
    if capture.is_sharded(part):
        raise UsageError(
            f"cannot save '{name}'",
            why="its parameters are sharded over processes, and each has only its own",
            next_step="pass an object whose state_dict gives the whole: see get_model_state_dict of "
            "torch.distributed.checkpoint.state_dict with full_state_dict=True",
        )


def _state_of(part: Any, role: str) -> Any:
    """The state of a part, in a container: a part is a folder, which a bare number cannot be.

    What may differ between ranks, such as the place in the data, is that of all ranks.
    """
    state = part.state_dict()
    contained = state if isinstance(state, (dict, list, tuple)) else (_BARE, state)
    return ranks.gathered(contained) if role in _OF_EACH_RANK else contained


def own_state(state: Any, role: str) -> Any:
    """What this rank gets of a state that was saved.

    Raises:
        FormatError: it was saved by more or fewer processes than there are now.
    """
    mine = ranks.own(state) if role in (*_OF_EACH_RANK, RNG) else state
    return mine[1] if isinstance(mine, tuple) and len(mine) == 2 and mine[0] == _BARE else mine
