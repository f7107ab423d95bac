"""The parts of a training: objects with a state, under the names of components."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ckptvcs.domain import provenance
from ckptvcs.errors import UsageError
from ckptvcs.formats.components import is_component_name
from ckptvcs.paths import printable
from ckptvcs.train import capture, ranks

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

RNG: Final = "rng"
LOOP: Final = "loop"
"""The component of what the loop itself must remember."""

_OWN: Final = (RNG, LOOP, capture.AUX)
_BARE: Final = "$bare"
"""Marks the state of a part whose `state_dict` gives something else than a container."""


def checked(parts: Mapping[str, Any]) -> dict[str, Any]:
    """The parts that were given.

    Raises:
        UsageError: there is none, or one has no state or no possible name.
    """
    given = {name: part for name, part in parts.items() if part is not None}
    if not given:
        raise UsageError("nothing to save", why="no part was given", next_step="pass model=, optimizer=...")
    folded = [name.casefold() for name in given]
    for name, part in given.items():
        if name in _OWN:
            raise UsageError(
                f"a part cannot be named '{name}'",
                why=f"'{name}' is saved by itself",
                next_step="give the part another name",
            )
        if not hasattr(part, "state_dict") or not hasattr(part, "load_state_dict"):
            raise UsageError(
                f"cannot save '{name}'", why="it has no state_dict and load_state_dict", next_step=_instead_of(part)
            )
        if not is_component_name(name) or folded.count(name.casefold()) > 1:
            raise UsageError(
                f"a part cannot be named '{printable(name)}'",
                why="the name of a part is that of a folder, and no two may differ in case alone",
                next_step="use letters, digits, '-', '_' and '.', a letter or digit first",
            )
    return given


def _instead_of(part: Any) -> str:
    if type(part).__name__ == "DataLoader":
        return "use torchdata's StatefulDataLoader, which knows its place"
    return "pass an object that has both"


def check_names(names: Sequence[str], parts: Mapping[str, Any]) -> None:
    """Raise `UsageError` unless each of `names` is one of the parts."""
    unknown = [name for name in names if name not in parts]
    if unknown:
        raise UsageError(
            f"cannot put back '{printable(unknown[0])}'",
            why=f"no part has that name, only {', '.join(parts)}",
            next_step="name parts that Checkpointer was given",
        )


def roles(parts: Mapping[str, Any]) -> dict[str, str]:
    """The role of each part."""
    return {name: capture.role(name, part) for name, part in parts.items()}


def check_grade(roles: Mapping[str, str], demanded: str | None, *, implied: Collection[str] = (RNG,)) -> None:
    """Refuse parts from which training could not go on as well as a policy demands.

    Args:
        roles: the role of each part.
        demanded: the grade.
        implied: roles of what is saved beside them.

    Raises:
        UsageError: it could not.
    """
    grade = provenance.grade({*roles.values(), *implied})
    if demanded is not None and provenance.at_most(demanded, grade) != demanded:
        raise UsageError(
            f"these parts are resumable {grade}, and the policy demands {demanded}",
            why=f"they play the roles {', '.join(sorted(set(roles.values())))}",
            next_step="pass the optimizer too, or change 'save.grade' in ckpt.yaml",
        )


def state_of(part: Any, role: str) -> Any:
    """The state of a part, in a container: a part is a folder, which a bare number cannot be.

    Of a data loader each rank has its own place: all of them are in it.
    """
    state = part.state_dict()
    contained = state if isinstance(state, (dict, list, tuple)) else (_BARE, state)
    return ranks.gathered(contained) if role == "dataloader" else contained


def own_state(state: Any, role: str) -> Any:
    """What `state_of` was given by this rank's part; None if there was no such rank."""
    mine = ranks.own(state) if role in ("dataloader", RNG) else state
    return mine[1] if isinstance(mine, tuple) and len(mine) == 2 and mine[0] == _BARE else mine
