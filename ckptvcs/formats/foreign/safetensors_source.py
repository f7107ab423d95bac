"""Safetensors files as sources: one file, or several that an index joins."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ckptvcs.errors import FormatError
from ckptvcs.formats import safetensors_file
from ckptvcs.formats.foreign.source import Source
from ckptvcs.formats.mapped import MappedFile
from ckptvcs.formats.strided import contiguous_strides, leaf_of_view
from ckptvcs.paths import is_segment, printable

if TYPE_CHECKING:
    from pathlib import Path

    from ckptvcs.formats.leaf import Leaf

_MAX_INDEX = 256 << 20


def open_safetensors(path: Path) -> Source:
    """Read one file: its tensors are the state, its metadata is kept."""
    leaves, metadata = read_tensors(path)
    return Source(format="safetensors", name=path.name, state=leaves, metadata=metadata, watched=(path,))


def read_tensors(path: Path) -> tuple[dict[str, Leaf], dict[str, str]]:
    """The tensors of a file, which go on looking into it, and its own metadata."""
    if path.stat().st_size == 0:
        raise FormatError(f"cannot read '{path}'", why="it is empty", next_step="write it again")
    mapped = MappedFile(path)
    slots = safetensors_file.read_header(mapped.view, file=path.name)
    leaves = {}
    for name, slot in slots.items():
        storage = mapped.storage((str(path), slot.start, slot.stop), slot.start, slot.stop - slot.start)
        strides = contiguous_strides(slot.spec.shape)
        leaves[name] = leaf_of_view(slot.spec.dtype, slot.spec.shape, strides, start=0, storage=storage, attrs={})
    return leaves, safetensors_file.read_metadata(mapped.view, file=path.name)


def read_index(path: Path) -> dict[str, str]:
    """The weight map of an index file: tensor -> file beside it.

    Raises:
        FormatError: it is damaged, or names files elsewhere.
    """
    try:
        if path.stat().st_size > _MAX_INDEX:
            raise ValueError("it is too large")
        weight_map = json.loads(path.read_bytes())["weight_map"]
        if not isinstance(weight_map, dict) or not all(
            isinstance(f, str) and is_segment(f) for f in weight_map.values()
        ):
            raise ValueError("its weight map is malformed")
    except (ValueError, KeyError, TypeError, RecursionError) as err:
        why = printable(str(err))[:120]
        raise FormatError(f"cannot read index '{path}'", why=why, next_step="write the folder again") from err
    return weight_map
