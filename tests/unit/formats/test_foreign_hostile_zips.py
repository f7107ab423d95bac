"""A zip archive that lies: bombs, overlaps, escaping names, contradictions between its directory and its records."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ckptvcs.errors import FormatError
from ckptvcs.formats.foreign import detect
from tests.support.same import assert_same
from tests.unit.formats.makers import MIB, components_in, peak, placed, records, saved, through, zipped

STATE = {"model": {"w": torch.arange(8.0), "b": torch.arange(3, dtype=torch.int16)}, "step": 3}
HONEST = saved(STATE)
RECORDS = records(HONEST)
W, B = (next(n for n in RECORDS if n.endswith(f"data/{i}")) for i in (0, 1))
PICKLE = next(n for n in RECORDS if n.endswith("data.pkl"))


def refuse(data: bytes, folder: Path) -> FormatError:
    path = placed(folder, "x.pt", data)
    with pytest.raises(FormatError) as caught:
        components_in(path)
    assert peak(lambda: components_in(path)) < MIB
    return caught.value


def test_the_archive_itself_is_read(tmp_path: Path):
    assert_same(STATE, through(placed(tmp_path, "x.pt", zipped(RECORDS))))


# ------------------------------------------------------------------------------------------------------------- records


def changed(**records: bytes | None) -> bytes:
    parts = {**RECORDS, **records}
    return zipped({name: data for name, data in parts.items() if data is not None})


FORGED: dict[str, tuple[bytes, str]] = {
    "a bomb": (zipped({**RECORDS, "x/bomb": bytes(50 * MIB)}, zipfile.ZIP_DEFLATED), "compressed"),
    "a compressed pickle": (zipped({**RECORDS}, zipfile.ZIP_DEFLATED), "compressed"),
    "a storage that is too small": (changed(**{W: bytes(31)}), "claims 32 bytes"),
    "an empty storage": (changed(**{W: b""}), "claims 32 bytes"),
    "a missing storage": (changed(**{W: None}), "damaged"),
    "no pickle": (changed(**{PICKLE: None}), "not one that torch.save made"),
    "an empty pickle": (changed(**{PICKLE: b""}), "damaged"),
    "two pickles": (changed(**{"y/data.pkl": RECORDS[PICKLE]}), "not one that torch.save made"),
    "a pickle within": (
        changed(**{f"{PICKLE.rpartition('/')[0]}/sub/data.pkl": b"N."}),
        "not one that torch.save made",
    ),
    "another byte order": (changed(**{PICKLE.replace("data.pkl", "byteorder"): b"big"}), "big-endian"),
    "no byte order": (changed(**{PICKLE.replace("data.pkl", "byteorder"): b""}), "big-endian"),
    "a program": (changed(**{PICKLE.replace("data.pkl", "code/__torch__.py"): b"x"}), "TorchScript"),
    "constants": (changed(**{PICKLE.replace("data.pkl", "constants.pkl"): b"x"}), "TorchScript"),
    "no records": (zipped({}), "neither a torch checkpoint"),
    "a document": (zipped({"word/document.xml": b"<x/>"}), "not one that torch.save made"),
}


@pytest.mark.parametrize("name", FORGED)
def test_an_archive_that_torch_did_not_write_is_refused(name: str, tmp_path: Path):
    data, why = FORGED[name]

    assert why in refuse(data, tmp_path).why


@pytest.mark.parametrize("prefix", ["/etc/", "../../", "", "C:\\x/", "a/../b/", "x" * 1000 + "/"])
def test_names_in_an_archive_lead_nowhere(prefix: str, tmp_path: Path):
    renamed = {prefix + name.partition("/")[2]: data for name, data in RECORDS.items()}
    (tmp_path / "in").mkdir()

    back = through(placed(tmp_path / "in", "x.pt", zipped({**renamed, "../evil": b"x", "/tmp/evil": b"y"})))

    assert_same(STATE, back)
    assert [p.name for p in tmp_path.rglob("*")] == ["in", "x.pt"]


def test_a_storage_may_be_larger_than_its_tensors(tmp_path: Path):
    path = placed(tmp_path, "x.pt", changed(**{W: RECORDS[W] + b"rest"}))

    assert_same(STATE, through(path))


@pytest.mark.parametrize(
    "second",
    [
        (W, b"\xff" * 32),
        (PICKLE, RECORDS[PICKLE].replace(b"step", b"stop")),
        (PICKLE.upper(), RECORDS[PICKLE]),  # one name to torch, which does not regard case
    ],
    ids=["storage", "pickle", "in capitals"],
)
def test_a_record_that_stands_there_twice_is_refused(second: tuple[str, bytes], tmp_path: Path):
    refuse(zipped([*RECORDS.items(), second]), tmp_path)


# ------------------------------------------------------------------------------------------------------------ structure

CENTRAL, LOCAL, END = b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"


def patched(magic: bytes, offset: int, layout: str, *values: int, which: int = 0) -> bytes:
    """The honest file with some numbers of a structure overwritten."""
    data, place = bytearray(HONEST), -1
    for _ in range(which + 1):
        place = HONEST.index(magic, place + 1)
    struct.pack_into(layout, data, place + offset, *values)
    return bytes(data)


LIES = {
    "packed size": patched(CENTRAL, 20, "<I", 5),
    "unpacked size": patched(CENTRAL, 24, "<I", 1 << 20),
    "both sizes": patched(CENTRAL, 20, "<2I", 1 << 31, 1 << 31),
    "64-bit sizes without saying so": patched(CENTRAL, 20, "<2I", 0xFFFFFFFF, 0xFFFFFFFF),
    "method": patched(CENTRAL, 10, "<H", 8),
    "unknown method": patched(CENTRAL, 10, "<H", 99),
    "length of the name": patched(CENTRAL, 28, "<H", 60_000),
    "length of the extra field": patched(CENTRAL, 30, "<H", 60_000),
    "length of the comment": patched(CENTRAL, 32, "<H", 60_000),
    "place beyond the file": patched(CENTRAL, 42, "<I", 1 << 31),
    "place at the end": patched(CENTRAL, 42, "<I", len(HONEST) - 3),
    "place within another record": patched(CENTRAL, 42, "<I", 40, which=4),
    "place of another record": patched(CENTRAL, 42, "<I", 0, which=4),
    "length of the local name": patched(LOCAL, 26, "<H", 60_000),
    "length of the local extra field": patched(LOCAL, 28, "<H", 60_000),
    "magic of a record": patched(LOCAL, 0, "<I", 0, which=4),
    "number of records": patched(END, 8, "<2H", 1, 1),
    "size of the directory": patched(END, 12, "<I", 1 << 30),
    "place of the directory": patched(END, 16, "<I", 1 << 30),
    "negative place of the directory": patched(END, 16, "<I", 0xFFFFFFFE),
    "length of the last comment": patched(END, 20, "<H", 1),
    "magic of the end": patched(END, 0, "<I", 0),
}


@pytest.mark.parametrize("name", LIES)
def test_a_directory_that_lies_is_refused_or_makes_no_difference(name: str, tmp_path: Path):
    path = placed(tmp_path, "x.pt", LIES[name])

    try:
        found = through(path)
    except FormatError:
        return

    assert_same(STATE, found)


@pytest.mark.parametrize("size", [1 << 31, (1 << 64) - 1])
def test_64_bit_sizes_are_not_believed_either(size: int, tmp_path: Path):
    parts = zipped({"x/data.pkl": RECORDS[PICKLE]})
    start = parts.index(CENTRAL)
    entry = bytearray(parts[start : parts.index(END)])
    struct.pack_into("<2I", entry, 20, 0xFFFFFFFF, 0xFFFFFFFF)
    struct.pack_into("<H", entry, 30, 20)
    entry += struct.pack("<2H2Q", 1, 16, size, size)
    end = bytearray(parts[parts.index(END) :])
    struct.pack_into("<I", end, 12, len(entry))

    refuse(parts[:start] + bytes(entry) + bytes(end), tmp_path)


def overlapping() -> bytes:
    """A thousand storages in the bytes of one."""
    data = zipped({"x/data.pkl": b"N.", "x/data/0": bytes(1000)})
    start, end = data.index(CENTRAL, data.index(CENTRAL) + 1), data.index(END)
    entry = data[start:end]
    more = b"".join(entry.replace(b"x/data/0", b"x/data/%d" % (n % 9 + 1)) for n in range(9))
    last = bytearray(data[end:])
    struct.pack_into("<2H", last, 8, 11, 11)
    struct.pack_into("<I", last, 12, end - data.index(CENTRAL) + len(more))
    return data[:end] + more + bytes(last)


def test_storages_that_lie_in_the_same_bytes_are_refused(tmp_path: Path):
    assert "overlap" in refuse(overlapping(), tmp_path).why


# --------------------------------------------------------------------------------------------------------------- whole


@pytest.mark.parametrize("part", range(16))
def test_a_torn_file_is_refused(part: int, tmp_path: Path):
    error = refuse(HONEST[: len(HONEST) * part // 16], tmp_path)

    assert "x.pt'" in error.what
    assert error.why
    assert error.next_step


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[1:],
        lambda data: data[100:],
        lambda data: bytes(len(data)),
        lambda data: data[:4],
        lambda data: data[:4] + bytes(len(data) - 4),
        lambda data: data[len(data) // 2 :] + data[: len(data) // 2],
    ],
    ids=["first byte lost", "begin lost", "zeros", "magic alone", "magic and zeros", "halves turned"],
)
def test_a_file_that_lost_something_is_refused(spoil: Callable[[bytes], bytes], tmp_path: Path):
    refuse(spoil(HONEST), tmp_path)


def test_a_file_of_another_user_is_an_error_that_names_it(tmp_path: Path):
    with pytest.raises(FormatError, match="neither a file nor a folder"):
        detect.open_file(Path("/dev/null"))
