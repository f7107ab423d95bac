"""Folders that `torch.distributed.checkpoint` wrote, without torch: one state, whose tensors may lie in pieces of many ranks.

The state is what `dcp_to_torch_save` makes of the folder: nested as it was, with text where dicts had numbers for keys, which
is how DCP keeps them. A tensor in pieces is put together while it is read.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.formats import dtypes
from ckptvcs.formats.foreign.dcp_metadata import METADATA, Chunk, Item, Place, bad, read_metadata
from ckptvcs.formats.foreign.source import Source, facts_of
from ckptvcs.formats.foreign.zip_pt import PtFile
from ckptvcs.formats.leaf import Leaf
from ckptvcs.formats.mapped import MappedFile
from ckptvcs.formats.tree.nodes import MAX_DEPTH

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from typing_extensions import Buffer

_MAX_PAIRS: Final = 1 << 22
"""Pairs of pieces of one tensor that are compared: those of two thousand."""


def is_dcp(path: Path) -> bool:
    """Whether a folder looks like a distributed checkpoint."""
    return (path / METADATA).is_file()


def open_dcp(path: Path) -> Source:
    """Read such a folder.

    Raises:
        FormatError: a file is missing or damaged, or it is of a kind that is not read here.
    """
    reading = _Reading(path)
    state = _nested(path, [(item.path, reading.value(item)) for item in read_metadata(path)])
    watched = (path / METADATA, *reading.files())
    return Source(format="dcp", name=path.name, state=state, facts=facts_of(state), watched=watched)


class _Reading:
    """The files of a folder, each opened once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, MappedFile] = {}

    def files(self) -> list[Path]:
        return [self._folder / name for name in self._open]

    def value(self, item: Item) -> Any:
        if item.place is not None:
            return self._read(item.place)
        if any(len(part) != len(item.shape) for chunk in item.chunks for part in (chunk.offsets, chunk.sizes)):
            raise bad(self._folder, f"a piece of {_shown(item)} has other dimensions than the tensor")
        if not _fills(item.shape, item.chunks):
            raise bad(self._folder, f"the pieces of {_shown(item)} do not make the whole of it")
        pieces = [(chunk, self._tensor(item, chunk)) for chunk in sorted(item.chunks, key=lambda c: c.offsets)]
        if len(pieces) == 1:
            return pieces[0][1]
        return _joined(item, pieces)

    def _tensor(self, item: Item, chunk: Chunk) -> Leaf:
        leaf = self._read(chunk.place)
        if (
            not isinstance(leaf, Leaf)
            or leaf.dtype != item.dtype
            or "expand" in leaf.attrs
            or leaf.shape != chunk.sizes
        ):
            raise bad(self._folder, f"a piece of {_shown(item)} is not what the metadata says")
        return Leaf(
            dtype=leaf.dtype,
            shape=leaf.shape,
            read=leaf.read,
            release=leaf.release,
            forget=leaf.forget,
            span=leaf.span,
        )

    def _read(self, place: Place) -> Any:
        if place.file not in self._open:
            file = self._folder / place.file
            if not file.is_file() or not file.resolve().is_relative_to(self._folder.resolve()):
                raise bad(self._folder, f"'{place.file}' is missing, or a link that leads out of it")
            if not file.stat().st_size:
                raise bad(self._folder, f"'{place.file}' is empty")
            self._open[place.file] = MappedFile(file)
        mapped = self._open[place.file]
        if min(place.offset, place.length) < 0 or place.offset + place.length > len(mapped.view):
            raise bad(self._folder, f"'{place.file}' ends before what the metadata says is in it")
        if bytes(mapped.view[place.offset : place.offset + 4]) != b"PK\x03\x04":
            raise bad(self._folder, f"'{place.file}' is not in the format of torch.save")
        return PtFile(self._folder / place.file, mapped.part(place.offset, place.length)).state()


def _shown(item: Item) -> str:
    return "'" + ".".join(map(str, item.path)) + "'"


# -------------------------------------------------------------------------------------------------------------- pieces


def _fills(shape: tuple[int, ...], chunks: tuple[Chunk, ...]) -> bool:
    """Whether pieces make a tensor, each element of it once."""
    if any(at + size > whole for c in chunks for at, size, whole in zip(c.offsets, c.sizes, shape, strict=True)):
        return False
    filled = [chunk for chunk in chunks if math.prod(chunk.sizes)]
    if not chunks or sum(math.prod(chunk.sizes) for chunk in filled) != math.prod(shape):
        return False
    if _in_rows(shape, filled):
        ends = sorted((chunk.offsets[0], chunk.offsets[0] + chunk.sizes[0]) for chunk in filled if shape)
        return all(one[1] <= other[0] for one, other in pairwise(ends))
    if len(filled) ** 2 > _MAX_PAIRS:
        return False
    return not any(_meet(one, other) for n, one in enumerate(filled) for other in filled[:n])


def _in_rows(shape: tuple[int, ...], chunks: list[Chunk]) -> bool:
    """Whether each piece is a run of whole rows, so that their bytes lie one behind the other."""
    return all(chunk.sizes[1:] == shape[1:] for chunk in chunks)


def _meet(one: Chunk, other: Chunk) -> bool:
    spans = zip(one.offsets, one.sizes, other.offsets, other.sizes, strict=True)
    return all(a < b + m and b < a + n for a, n, b, m in spans)


def _joined(item: Item, pieces: list[tuple[Chunk, Leaf]]) -> Leaf:
    pieces = [(chunk, leaf) for chunk, leaf in pieces if leaf.nbytes]

    def stream() -> Iterator[Buffer]:
        for _, leaf in pieces:
            yield leaf.read()
            leaf.release()

    def read() -> Buffer:
        return _assembled(item, pieces)

    def release() -> None:
        for _, leaf in pieces:
            leaf.release()

    rows = _in_rows(item.shape, [chunk for chunk, _ in pieces])
    return Leaf(dtype=item.dtype, shape=item.shape, read=read, release=release, stream=stream if rows else None)


def _assembled(item: Item, pieces: list[tuple[Chunk, Leaf]]) -> Buffer:
    import numpy as np

    element = np.dtype((np.void, dtypes.itemsize(item.dtype)))
    whole: Any = np.empty(item.shape, element)
    for chunk, leaf in pieces:
        place = tuple(slice(at, at + size) for at, size in zip(chunk.offsets, chunk.sizes, strict=True))
        whole[place] = np.frombuffer(memoryview(leaf.read()), element).reshape(chunk.sizes)
        leaf.release()
    return memoryview(whole.view(np.uint8)).cast("B") if whole.size else b""


# ------------------------------------------------------------------------------------------------------------- nesting


def _nested(folder: Path, entries: list[tuple[tuple[str | int, ...], Any]]) -> Any:
    """The state, from what hangs at each path: numbers are places in lists, text is a key of a dict."""
    root: dict[Any, Any] = {}
    inner = {id(root)}
    keep = [root]
    for path, value in entries:
        if len(path) > MAX_DEPTH:
            raise bad(folder, f"it is nested deeper than {MAX_DEPTH} levels")
        here = root
        for key in path[:-1]:
            found = here.get(key)
            if found is None:
                found = here[key] = {}
                inner.add(id(found))
                keep.append(found)
            if id(found) not in inner:
                raise bad(folder, f"'{key}' is a value, and holds others")
            here = found
        if path[-1] in here:
            raise bad(folder, f"'{path[-1]}' stands there twice")
        here[path[-1]] = value
    try:
        return _with_lists(root, inner)
    except ValueError as err:
        raise bad(folder, str(err)) from err


def _with_lists(node: dict[Any, Any], inner: set[int]) -> Any:
    values = {key: _with_lists(value, inner) if id(value) in inner else value for key, value in node.items()}
    numbers = [key for key in values if type(key) is int]
    if not numbers:
        return values
    if sorted(numbers) != list(range(len(values))):
        raise ValueError("a list in it has gaps")
    return [values[n] for n in range(len(values))]
