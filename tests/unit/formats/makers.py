"""Files to read and to break: artifacts, `.pt` files down to the opcode, safetensors files down to the byte."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from ckptvcs.formats import artifact, flatten, hints, torch_state, tree_file
from ckptvcs.formats.components import take_apart
from ckptvcs.formats.foreign import detect
from ckptvcs.formats.foreign.source import Source
from ckptvcs.formats.reading import Artifact

MIB = 1 << 20

# ----------------------------------------------------------------------------------------------------------- artifacts


def components_of(
    state: Any, adapt: Any = torch_state.adapt, is_leaf: Any = torch_state.is_leaf
) -> list[flatten.FlatComponent]:
    return flatten.flatten(take_apart(state, is_leaf), adapt).components


def files_of(
    components: list[flatten.FlatComponent], parent: Mapping[str, bytes] | None = None, known: hints.Hints | None = None
) -> dict[str, bytes]:
    """The files of the artifact of a state that was taken apart; `parent` is an artifact of the same kind."""
    trees = {
        path.split("/")[0]: tree_file.from_bytes(data, file=path)
        for path, data in (parent or {}).items()
        if path.endswith(tree_file.NAME)
    }
    planned = artifact.plan_files(
        components, artifact.digests(components), parent=trees, hints=known or hints.infer(components)
    )
    return {file.path: b"".join(bytes(chunk) for chunk in file.chunks()) for file in planned}


def write(state: Any, parent: Mapping[str, bytes] | None = None, known: hints.Hints | None = None) -> dict[str, bytes]:
    """The files of the artifact of a state in memory."""
    return files_of(components_of(state), parent, known)


def opened(files: Mapping[str, bytes]) -> Artifact:
    return Artifact(sorted({path.split("/")[0] for path in files}), lambda path: bytearray(files[path]))


def read(files: Mapping[str, bytes], **how: Any) -> Any:
    """The state of an artifact, in torch."""
    return torch_state.load(opened(files), **how)


def tree(table: list[dict[str, Any]], node: Any, *, component: str = "model", role: str = "model") -> bytes:
    """A `tree.json` that nobody checked."""
    head = {"format": "ckptvcs-tree/1", "component": component, "role": role, "tensors": table, "tree": node}
    return json.dumps(head).encode()


# -------------------------------------------------------------------------------------------------------- foreign files


def placed(folder: Path, name: str, content: bytes | Any) -> Path:
    """A file of some bytes, or of a state that `torch.save` writes."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    return path


def components_in(path: Path) -> tuple[Source, list[flatten.FlatComponent]]:
    """What a commit of a file or folder would keep, with every tensor read once."""
    source = detect.open_source(path)
    components = components_of(source.state, source.adapt, source.is_leaf)
    artifact.digests(components)
    return source, components


def through(path: Path) -> Any:
    """A file or folder, read by our reader, written as an artifact, and read into torch."""
    source, components = components_in(path)
    assert source.state is not None
    return read(files_of(components))


def saved(state: Any) -> bytes:
    """The bytes of `torch.save`."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def records(data: bytes) -> dict[str, bytes]:
    """The records of a zip archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(items: Mapping[str, bytes] | Iterable[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive of these records; a name may stand there twice."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as archive:
        warnings.simplefilter("ignore")
        for name, content in items.items() if isinstance(items, Mapping) else items:
            archive.writestr(name, content)
    return buffer.getvalue()


def pt(pickle: bytes, **storages: bytes) -> bytes:
    """A `.pt` file of a pickle and its storages, which are named `s0`, `s1`..."""
    data = {f"x/data/{name.removeprefix('s')}": content for name, content in storages.items()}
    return zipped({"x/data.pkl": pickle, "x/byteorder": b"little", "x/version": b"3\n", **data})


def safetensors(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A safetensors file of any header, true or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def slot(dtype: Any = "F32", shape: Any = (1,), offsets: Any = (0, 4)) -> dict[str, Any]:
    """An entry of such a header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


# -------------------------------------------------------------------------------------------------------------- pickles


def class_named(name: str) -> bytes:
    """The opcode that pushes a class or function."""
    module, _, attribute = name.rpartition(".")
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def text(value: str) -> bytes:
    """The opcode that pushes a string."""
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def call(name: str, *args: bytes) -> bytes:
    """The opcodes that call a function with arguments."""
    return class_named(name) + b"(" + b"".join(args) + b"tR"


def state_with(value: bytes) -> bytes:
    """The pickle of `{"model": {"bad": value}}`."""
    return b"\x80\x02}" + text("model") + b"}" + text("bad") + value + b"ss."


def storage(
    *,
    kind: bytes = class_named("torch.FloatStorage"),
    key: bytes = text("0"),
    device: bytes = text("cpu"),
    elements: bytes = b"K\x01",
) -> bytes:
    """The opcodes that push a reference to a storage."""
    return b"(" + text("storage") + kind + key + device + elements + b"tQ"


def doubled(times: int) -> bytes:
    """The opcodes that push a tuple of itself twice, again and again: small in memory, endless when it is walked."""
    return b")" + b"2\x86" * times


# --------------------------------------------------------------------------------------------------------------- limits


def peak(act: Callable[[], Any]) -> int:
    """The most memory that Python allocated at once while something was done, in bytes; errors of ours are no matter."""
    from ckptvcs.errors import CkptvcsError

    tracemalloc.start()
    try:
        act()
    except CkptvcsError:
        pass
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return most
