"""`.pt`, `.pth` and `.ckpt` files in torch's zip format, without torch: no import, no code run, no copy of the data.

Layout: an uncompressed zip with `PREFIX/data.pkl` (a pickle whose tensors are persistent ids), `PREFIX/data/KEY` (one
storage each) and `PREFIX/byteorder`. Storages are read through one memory map of the file.
"""

from __future__ import annotations

import struct
import zipfile
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.errors import FormatError, HostileInput
from ckptvcs.formats import dtypes
from ckptvcs.formats.foreign import pt_values
from ckptvcs.formats.foreign.pt_values import StorageRef, StorageType
from ckptvcs.formats.foreign.unpickle import Interpreter
from ckptvcs.formats.leaf import Opaque, find_opaque
from ckptvcs.formats.mapped import MappedFile, Part
from ckptvcs.paths import printable

if TYPE_CHECKING:
    from pathlib import Path

    from ckptvcs.formats.strided import Storage

_LOCAL_HEADER: Final = struct.Struct("<4s5H3I2H")


class PtFile:
    """An open `.pt` file. The state it gives looks into the file for as long as it is used.

    Args:
        path: the file.
        part: the range of it that is such a file by itself, where it holds others too.

    Raises:
        FormatError: this is no state that torch saved.
        HostileInput: it claims what no honest file claims.
    """

    def __init__(self, path: Path, part: Part | None = None) -> None:
        self._path = path
        self._file = part or Part.whole(MappedFile(path))
        self._view = self._file.view
        self._records = self._list()
        self._prefix = self._find_prefix()
        self._storages: dict[str, Storage] = {}

    def state(self) -> Any:
        """The state in neutral form: plain containers, leaves, stand-ins, and `Opaque` for what is not allowed."""
        vm = Interpreter(
            self._record("data.pkl"),
            constructors=pt_values.CONSTRUCTORS,
            hashing=pt_values.HASHING,
            constants=pt_values.CONSTANTS,
            persistent=self._resolve,
        )
        try:
            state = vm.run()
        except HostileInput as err:
            raise self._bad(err.why) from err
        if vm.unknown and not find_opaque(state):
            # It is not in the state, so it was called for what it does to a value: only running it would show that.
            return Opaque(f"value changed by {vm.unknown}")
        return state

    # ---- the zip

    def _list(self) -> dict[str, tuple[int, int]]:
        """Start and size of each record. Nothing is decompressed: torch does not compress, so a compressed record is a trap."""
        try:
            with zipfile.ZipFile(self._file.opened()) as archive:
                infos = archive.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as err:
            raise self._bad(f"the zip archive is damaged ({printable(str(err))[:100]})") from err
        records: dict[str, tuple[int, int]] = {}
        names = Counter(info.filename.lower() for info in infos)  # torch looks for names without regard to case
        for info in infos:
            if names[info.filename.lower()] > 1:
                raise self._bad(f"record '{printable(info.filename)}' stands there twice")
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                raise self._bad(f"record '{printable(info.filename)}' is compressed, which torch never does")
            records[info.filename] = (self._data_start(info), info.file_size)
        self._refuse_overlap(records)
        return records

    def _data_start(self, info: zipfile.ZipInfo) -> int:
        header = self._view[info.header_offset : info.header_offset + _LOCAL_HEADER.size]
        if len(header) != _LOCAL_HEADER.size:
            raise self._bad("a record lies outside of the file")
        magic, *_, name_size, extra_size = _LOCAL_HEADER.unpack(header)
        start = int(info.header_offset + _LOCAL_HEADER.size + name_size + extra_size)
        if magic != b"PK\x03\x04" or start + info.file_size > len(self._view):
            raise self._bad(f"record '{printable(info.filename)}' lies outside of the file")
        return start

    def _refuse_overlap(self, records: dict[str, tuple[int, int]]) -> None:
        """A file of a megabyte could else claim terabytes of tensors, all of them in the same bytes."""
        end = 0
        for start, size in sorted(records.values()):
            if start < end:
                raise self._bad("two records overlap")
            end = start + size

    def _find_prefix(self) -> str:
        found = [name for name in self._records if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(found) != 1:
            raise self._bad("it is a zip archive, but not one that torch.save made")
        prefix = found[0].removesuffix("data.pkl")
        if any(name.startswith((f"{prefix}code/", f"{prefix}constants.pkl")) for name in self._records):
            raise self._bad("it is a TorchScript program, not a state")
        if f"{prefix}byteorder" in self._records:
            start, size = self._records[f"{prefix}byteorder"]
            if bytes(self._view[start : start + size]) != b"little":
                raise self._bad("it was written on a big-endian machine")
        return prefix

    def _record(self, name: str) -> memoryview:
        start, size = self._records[self._prefix + name]
        return self._view[start : start + size]

    # ---- storages

    def _resolve(self, reference: Any) -> StorageRef | Opaque:
        kind, storage_type, key, device, elements = reference[:5] if type(reference) is tuple else ()
        if type(kind) is not str or kind != "storage":
            raise ValueError("a persistent id that is no storage")
        if type(storage_type) is Opaque:
            return storage_type  # such as that of a quantised tensor
        if not isinstance(storage_type, StorageType) or type(key) not in (str, int):
            raise ValueError("a storage without a type or a name")
        if type(device) is not str or type(elements) is not int:
            raise ValueError("a storage without a device or a size")
        storage = self._storage(str(key))
        wanted = elements * _itemsize(storage_type)
        if not 0 <= wanted <= storage.nbytes:
            raise ValueError(f"storage {key} claims {wanted} bytes, the file has {storage.nbytes}")
        return StorageRef(storage_type, storage, device)

    def _storage(self, key: str) -> Storage:
        if key not in self._storages:
            start, size = self._records[f"{self._prefix}data/{key}"]
            self._storages[key] = self._file.storage(("pt", *self._file.identity, key), start, size)
        return self._storages[key]

    def _bad(self, why: str) -> FormatError:
        return HostileInput(
            f"cannot read '{self._path}' as a torch checkpoint",
            why=why,
            next_step="check that the file was copied whole; save it again with torch.save if not",
            path=str(self._path),
        )


def _itemsize(storage_type: StorageType) -> int:
    return 1 if storage_type.dtype is None else dtypes.itemsize(storage_type.dtype)


def looks_like_zip(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a zip archive."""
    return head.startswith(b"PK\x03\x04")
