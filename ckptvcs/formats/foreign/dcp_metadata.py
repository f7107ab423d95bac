"""The `.metadata` of a PyTorch distributed checkpoint: which tensors there are, of which pieces, and where the pieces lie.

It is a pickle of a few classes of torch. Here they become inert records; nothing of torch is imported, and no code runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.errors import FormatError, HostileInput
from ckptvcs.formats import dtypes
from ckptvcs.formats.foreign import pt_values
from ckptvcs.formats.foreign.unpickle import Buildable, Interpreter, exactly
from ckptvcs.formats.leaf import Inert, TorchAtom
from ckptvcs.formats.mapped import MappedFile
from ckptvcs.paths import is_segment, printable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Ints = tuple[int, ...]
Key = str | int

METADATA: Final = ".metadata"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a piece was written: a range of bytes of a file beside the metadata."""

    file: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A piece of a tensor: where it begins in it, and its shape."""

    offsets: Ints
    sizes: Ints
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """An entry of the state: a tensor in pieces, or a value that was pickled."""

    path: tuple[Key, ...]
    place: Place | None
    """Of a value."""
    dtype: str = ""
    shape: Ints = ()
    chunks: tuple[Chunk, ...] = ()


def read_metadata(folder: Path) -> list[Item]:
    """Every entry of the state, in the order of the metadata.

    Raises:
        FormatError: it is damaged, or of a kind that is not read here.
    """
    try:
        view = MappedFile(folder / METADATA).view
        vm = Interpreter(
            view,
            constructors={**pt_values.CONSTRUCTORS, **_RECORDS},
            hashing=pt_values.HASHING,
            constants=pt_values.CONSTANTS,
            persistent=_none,
        )
        return _items(vm.run())
    except HostileInput as err:
        raise bad(folder, err.why) from err
    except (TypeError, ValueError, KeyError, AttributeError) as err:
        raise bad(folder, f"its metadata is damaged ({printable(str(err))[:100]})") from err


def bad(folder: Path, why: str) -> FormatError:
    """An error that says why a folder cannot be read."""
    return HostileInput(
        f"cannot read '{folder}' as a distributed checkpoint",
        why=why,
        next_step="check that the folder was copied whole, with the files of all ranks; else convert it with "
        "'python -m torch.distributed.checkpoint.format_utils dcp_to_torch DIR FILE.pt'",
        path=str(folder),
    )


def _none(_: Any) -> Any:
    raise ValueError("a persistent id")


# -------------------------------------------------------------------------------------------------------------- records


@dataclass(slots=True, eq=False)
class _Fields(Inert):
    """An object of one of torch's classes, as the values of its attributes."""

    kind: str
    values: Any

    def named(self) -> str:
        return self.kind

    def get(self, name: str) -> Any:
        exactly(dict, self.values)
        return self.values.get(name)


class _Record(Buildable):
    def __init__(self, kind: str) -> None:
        self._made = _Fields(kind, {})

    def finished(self) -> Any:
        made = self._made
        if made.kind != "MetadataIndex":
            return made
        offset = made.get("offset")
        exactly(str, made.get("fqn"))
        return made.get("fqn"), (None if offset is None else _sizes(offset))  # a key of a dict

    def build(self, state: Any) -> None:
        self._made.values = state


def _record(kind: str) -> Callable[..., Any]:
    return lambda: _Record(kind)


_MODULE: Final = "torch.distributed.checkpoint"
_RECORDS: Final[dict[str, Callable[..., Any]]] = {
    **{
        f"{_MODULE}.metadata.{kind}": _record(kind)
        for kind in (
            *("Metadata", "TensorStorageMetadata", "BytesStorageMetadata", "TensorProperties", "ChunkStorageMetadata"),
            *("MetadataIndex", "StorageMeta"),
        )
    },
    f"{_MODULE}.filesystem._StorageInfo": _record("_StorageInfo"),
    f"{_MODULE}.metadata._MEM_FORMAT_ENCODING": lambda _: None,
}


# --------------------------------------------------------------------------------------------------------------- items


def _items(document: Any) -> list[Item]:
    if not isinstance(document, _Fields) or document.kind != "Metadata":
        raise ValueError("it is no metadata of a checkpoint")
    entries, places = document.get("state_dict_metadata"), document.get("storage_data")
    exactly(dict, entries, places)
    paths = document.get("planner_data")
    paths = paths if type(paths) is dict else {}
    found = {key: _place(info) for key, info in places.items()}
    return [_item(name, entry, paths.get(name, (name,)), found) for name, entry in entries.items()]


def _item(name: Any, entry: Any, path: Any, places: dict[Any, Place]) -> Item:
    exactly(str, name)
    exactly(tuple, path)
    if not path or not all(type(key) in (str, int) for key in path):
        raise ValueError(f"'{name}' hangs nowhere")
    kind = entry.kind if isinstance(entry, _Fields) else ""
    if kind == "BytesStorageMetadata":
        return Item(path=path, place=places[name, None])
    if kind != "TensorStorageMetadata":
        raise ValueError(f"'{name}' is neither a tensor nor a value")
    properties = entry.get("properties").values
    dtype = properties[0] if type(properties) is tuple else properties["dtype"]
    if not isinstance(dtype, TorchAtom) or dtype.type != "dtype":
        raise ValueError(f"'{name}' has no element type")
    chunks = [(_sizes(chunk.get("offsets")), _sizes(chunk.get("sizes"))) for chunk in entry.get("chunks")]
    return Item(
        path=path,
        place=None,
        dtype=dtypes.BY_TORCH_NAME[dtype.value],
        shape=_sizes(entry.get("size")),
        chunks=tuple(Chunk(offsets=at, sizes=sizes, place=places[name, at]) for at, sizes in dict.fromkeys(chunks)),
    )


def _sizes(value: Any) -> Ints:
    sizes = value.value if isinstance(value, TorchAtom) and value.type == "size" else value
    exactly(tuple, sizes)
    exactly(int, *sizes)
    if min(sizes, default=0) < 0:
        raise ValueError("a size that is negative")
    return tuple(sizes)


def _place(info: Any) -> Place:
    if not isinstance(info, _Fields) or info.kind != "_StorageInfo":
        raise ValueError("a piece that lies nowhere")
    file, offset, length = (info.get(name) for name in ("relative_path", "offset", "length"))
    exactly(str, file)
    exactly(int, offset, length)
    if info.get("transform_descriptors"):
        raise ValueError("its pieces are transformed, such as compressed")
    if not all(is_segment(part) for part in file.split("/")):
        raise ValueError(f"a piece lies at '{file[:60]}', which is no path in the folder")
    return Place(file=file, offset=offset, length=length)
