"""A true copy of a state, taken at one step, so that training can go on while the copy is hashed and written."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from ckptvcs.formats.leaf import Leaf
    from ckptvcs.porcelain.incoming import Incoming


class Snapshots:
    """Takes copies into memory that is used again: the first copy allocates it, the others only fill it.

    Only one copy is alive at a time: `take` may be called again when nobody reads the last one any more.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, str], torch.Tensor] = {}

    def take(self, what: Incoming) -> Incoming:
        """Return the same state over memory of its own. When this returns, the original may change."""
        used: dict[tuple[str, str], torch.Tensor] = {}
        components = []
        for component in what.components:
            leaves = {}
            for name, leaf in component.leaves.items():
                buffer = used[component.name, name] = self._buffer(component.name, name, leaf.nbytes)
                leaves[name] = _copied(leaf, buffer)
            components.append(replace(component, leaves=leaves))
        self._buffers = used  # what is not needed any more goes
        return replace(what, components=tuple(components))

    def _buffer(self, component: str, name: str, nbytes: int) -> torch.Tensor:
        known = self._buffers.get((component, name))
        if known is not None and known.numel() == nbytes:
            return known
        return torch.empty(nbytes, dtype=torch.uint8)


def _copied(leaf: Leaf, buffer: torch.Tensor) -> Leaf:
    if leaf.nbytes:
        source = memoryview(leaf.read())
        if source.readonly:
            memoryview(buffer.numpy())[:] = source
        else:
            buffer.copy_(torch.frombuffer(source, dtype=torch.uint8))
    return replace(leaf, read=_reader(buffer), span=None)


def _reader(buffer: torch.Tensor) -> Callable[[], memoryview]:
    return lambda: memoryview(buffer.numpy())
