"""A true copy of a state, taken at one step, so that training can go on while the copy is hashed and written.

From the memory of a CUDA device it is copied on a stream of its own into pinned memory: the caller does not wait for that,
and the kernels that it launches afterwards do, so that none of them changes what is not copied yet. What lies on the CPU is
copied at once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

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
        self._streams = _Streams()

    def take(self, what: Incoming) -> Incoming:
        """Return the same state over memory of its own. When this returns, the original may change.

        A state that was read from files is copied too, with the files that are kept as they are: they may be changed or
        removed then.

        Raises:
            Conflict: a file was changed while it was read.
        """
        used: dict[tuple[str, str], torch.Tensor] = {}
        components = []
        for component in what.components:
            leaves = {}
            for name, leaf in component.leaves.items():
                buffer = used[component.name, name] = self._buffer(component.name, name, leaf)
                leaves[name] = self._copied(leaf, buffer)
            components.append(replace(component, leaves=leaves))
        self._buffers = used  # what is not needed any more goes
        self._streams.hold_back()
        files = {path: file if isinstance(file, bytes) else file.read_bytes() for path, file in what.files.items()}
        what.check_unchanged()
        return replace(what, components=tuple(components), files=files, watched={})

    def _buffer(self, component: str, name: str, leaf: Leaf) -> torch.Tensor:
        known, pinned = self._buffers.get((component, name)), leaf.on_device is not None
        if known is not None and known.numel() == leaf.nbytes and known.is_pinned() == pinned:
            return known
        return torch.empty(leaf.nbytes, dtype=torch.uint8, pin_memory=pinned)

    def _copied(self, leaf: Leaf, buffer: torch.Tensor) -> Leaf:
        if leaf.nbytes and leaf.on_device is not None:
            copied = self._streams.copy(leaf.on_device, buffer)
            return replace(leaf, read=_reader(buffer, copied), span=None, on_device=None)
        if leaf.nbytes:
            source = memoryview(leaf.read())
            if source.readonly:
                memoryview(buffer.numpy())[:] = source
            else:
                buffer.copy_(torch.frombuffer(source, dtype=torch.uint8))
        return replace(leaf, read=_reader(buffer), span=None)


class _Streams:
    """Copies from CUDA devices, each on a stream of its own."""

    def __init__(self) -> None:
        self._streams: dict[torch.device, Any] = {}
        self._running: set[torch.device] = set()

    def copy(self, source: torch.Tensor, buffer: torch.Tensor) -> Callable[[], None]:
        """Begin to copy the bytes of a contiguous tensor into pinned memory; returns what waits until that is done."""
        device = source.device
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)
        stream = self._streams[device]
        if device not in self._running:
            stream.wait_stream(torch.cuda.current_stream(device))  # what is being computed belongs to the state
            self._running.add(device)
        with torch.cuda.stream(stream):
            buffer.copy_(source.reshape(-1).view(torch.uint8), non_blocking=True)
            source.record_stream(stream)  # its memory must not be given to others before it is copied
            done = torch.cuda.Event()
            done.record(stream)
        wait: Callable[[], None] = done.synchronize
        return wait

    def hold_back(self) -> None:
        """Make what is computed from now on wait for the copies."""
        for device in self._running:
            torch.cuda.current_stream(device).wait_stream(self._streams[device])
        self._running.clear()


def _reader(buffer: torch.Tensor, wait: Callable[[], None] = lambda: None) -> Callable[[], memoryview]:
    def read() -> memoryview:
        wait()
        return memoryview(buffer.numpy())

    return read
