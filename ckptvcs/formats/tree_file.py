"""`tree.json`: the skeleton of one component and the table of its tensors. Written deterministically, read with limits."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.digest import Digest, is_digest
from ckptvcs.errors import FormatError, HostileInput, NewerVersion
from ckptvcs.formats import dtypes
from ckptvcs.paths import is_segment, printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ckptvcs.formats.tree.nodes import Node

NAME: Final = "tree.json"
FORMAT: Final = "ckptvcs-tree/1"
MAX_BYTES: Final = 256 << 20
"""About a million tensors. More would be parsed into gigabytes of Python objects on the word of a file."""

_KINDS: Final = ("tensor", "ndarray", "bytes", "bytearray")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A tensor whose bytes are in a shard of the same component."""

    dtype: str
    shape: tuple[int, ...]
    shard: str
    digest: Digest
    kind: str = "tensor"
    attrs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewed:
    """A tensor that looks at the memory of a stored one. `offset` in bytes, `strides` in elements."""

    dtype: str
    shape: tuple[int, ...]
    of: str
    component: str | None
    offset: int
    strides: tuple[int, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)


Table = dict[str, Stored | Viewed]


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeFile:
    """The content of one `tree.json`."""

    component: str
    role: str
    table: Table
    tree: Node

    @property
    def stored(self) -> dict[str, Stored]:
        """The part of the table that has bytes of its own."""
        return {name: entry for name, entry in self.table.items() if isinstance(entry, Stored)}


# --------------------------------------------------------------------------------------------------------- writing


def to_bytes(file: TreeFile) -> bytes:
    """The file as it is written: one tensor a line, so that people and `diff` can read it.

    Raises:
        FormatError: it would be larger than what is read.
    """
    head = {"format": FORMAT, "component": file.component, "role": file.role}
    tensors = ",\n".join(_dump(_entry(name, entry)) for name, entry in file.table.items())
    data = f'{_dump(head)[:-1]},\n"tensors":[\n{tensors}\n],\n"tree":{_dump(file.tree)}}}\n'.encode("ascii")
    if len(data) > MAX_BYTES:
        raise FormatError(
            f"cannot represent component '{file.component}'",
            why=f"its '{NAME}' would have {len(data)} bytes, at most {MAX_BYTES} are read",
            next_step="keep long lists and texts as tensors",
        )
    return data


def _dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _entry(name: str, entry: Stored | Viewed) -> dict[str, Any]:
    out: dict[str, Any] = {"name": name, "dtype": entry.dtype, "shape": list(entry.shape)}
    if isinstance(entry, Stored):
        out |= {"shard": entry.shard, "blake3": entry.digest}
        out |= {} if entry.kind == "tensor" else {"kind": entry.kind}
    else:
        view = {"of": entry.of, "offset": entry.offset, "strides": list(entry.strides)}
        out["view"] = view | ({} if entry.component is None else {"in": entry.component})
    return out | ({"attrs": dict(entry.attrs)} if entry.attrs else {})


# --------------------------------------------------------------------------------------------------------- reading


def from_bytes(data: bytes | memoryview, *, file: str) -> TreeFile:
    """Read a `tree.json` that nobody vouches for.

    Args:
        data: its bytes.
        file: its name, for the error.

    Raises:
        NewerVersion: a later version of ckptvcs wrote it.
        FormatError: it is damaged, or was made to harm.
    """
    if len(data) > MAX_BYTES:
        raise HostileInput(
            f"cannot read '{printable(file)}'", why=f"it has {len(data)} bytes, at most {MAX_BYTES} are read"
        )
    try:
        document = json.loads(bytes(data), object_pairs_hook=_no_duplicates)
        _check_version(document, file)
        table = dict(_read_entry(entry) for entry in document["tensors"])
        if len(table) != len(document["tensors"]):
            raise ValueError("a tensor stands there twice")
        component, role = document["component"], document["role"]
        if not (isinstance(component, str) and is_segment(component) and isinstance(role, str)):
            raise ValueError("its component has no usable name")
        return TreeFile(component=component, role=role, table=table, tree=document["tree"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as err:
        why = printable(f"{type(err).__name__}: {err}")[:200]
        raise FormatError(
            f"cannot read '{printable(file)}'", why=why, next_step="run 'ckpt doctor'", file=file
        ) from err


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a key stands there twice")
    return out


def _check_version(document: Any, file: str) -> None:
    version = document["format"]
    if version != FORMAT:
        raise NewerVersion(
            f"cannot read '{printable(file)}'",
            why=f"its format is '{printable(str(version))}', this version of ckptvcs reads '{FORMAT}'",
            next_step="upgrade ckptvcs: pip install -U ckptvcs",
        )


def _read_entry(entry: dict[str, Any]) -> tuple[str, Stored | Viewed]:
    name, dtype, shape, attrs = entry["name"], entry["dtype"], _ints(entry["shape"]), entry.get("attrs", {})
    dtypes.itemsize(dtype)
    if not isinstance(name, str) or not isinstance(attrs, dict):
        raise ValueError(f"entry {name!r}")
    if "view" in entry:
        view = entry["view"]
        (offset,), strides = _ints([view["offset"]]), _ints(view["strides"])
        component = view.get("in")
        if len(strides) != len(shape) or not isinstance(view["of"], str) or not isinstance(component, str | None):
            raise ValueError(f"view {name!r}")
        return name, Viewed(
            dtype=dtype, shape=shape, of=view["of"], component=component, offset=offset, strides=strides, attrs=attrs
        )
    shard, blake3, kind = entry["shard"], entry["blake3"], entry.get("kind", "tensor")
    if not is_segment(shard) or not is_digest(blake3) or kind not in _KINDS:
        raise ValueError(f"entry {name!r}")
    return name, Stored(dtype=dtype, shape=shape, shard=shard, digest=Digest(blake3), kind=kind, attrs=attrs)


def _ints(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or any(type(v) is not int or not 0 <= v < 1 << 62 for v in values):
        raise ValueError(f"{values!r} is no list of sizes")
    return tuple(values)
