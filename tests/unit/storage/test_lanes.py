"""MD5 of many streams at once is MD5: hashlib is the oracle."""

from __future__ import annotations

import hashlib
import random
import struct
import threading

import pytest

from ckptvcs.storage import lanes

native = pytest.importorskip("ckptvcs.storage._md5lanes", reason="it was installed without a C compiler")
pytestmark = pytest.mark.skipif(native.width() == 0, reason="this processor has no wide registers")

LENGTHS = [*range(130), 191, 192, 193, 1023, 1024, 4095, 4096, 4097]


def digests(messages: list[bytes]) -> list[str]:
    """The digests of at most `width()` messages, all at once; each is read as soon as its stream ends."""
    hasher = lanes.Lanes()
    padded = [message + lanes.padding(len(message)) for message in messages]
    found = [""] * len(messages)
    for lane in range(len(messages)):
        hasher.reset(lane)
    while left := [len(data) // 64 for data in padded if data]:
        streams = [memoryview(data) if data else None for data in padded]
        hasher.update(streams + [None] * (hasher.width - len(streams)), min(left))
        padded = [data[min(left) * 64 :] for data in padded]
        for lane, data in enumerate(padded):
            if not data and not found[lane]:
                found[lane] = hasher.hexdigest(lane)
    return found


def expected(messages: list[bytes]) -> list[str]:
    return [hashlib.md5(message).hexdigest() for message in messages]


@pytest.mark.parametrize("length", LENGTHS)
def test_every_lane_gives_the_md5_of_its_stream(length: int):
    rng = random.Random(length)
    messages = [rng.randbytes(length) for _ in range(lanes.width())]

    assert digests(messages) == expected(messages)


@pytest.mark.parametrize("count", range(1, 17))
def test_streams_of_different_lengths_do_not_disturb_each_other(count: int):
    rng = random.Random(count)
    messages = [rng.randbytes(rng.choice([0, 1, 55, 56, 63, 64, 65, rng.randrange(20_000)])) for _ in range(count)]
    messages = messages[: lanes.width()]

    assert digests(messages) == expected(messages)


@pytest.mark.parametrize("width", [8, 16])
def test_both_widths_of_registers_hash_alike(width: int):
    if width > native.width():
        pytest.skip(f"this processor has {native.width()} lanes")
    messages = [random.Random(n).randbytes(64 * 7) + lanes.padding(64 * 7) for n in range(width)]
    state = bytearray(b"".join(struct.pack("=I", word) * width for word in struct.unpack("<4I", INITIAL)))

    native.update(state, tuple(messages), 8)

    words = struct.unpack(f"={4 * width}I", state)
    found = [struct.pack("<4I", *(words[k * width + lane] for k in range(4))).hex() for lane in range(width)]
    assert found == [hashlib.md5(random.Random(n).randbytes(64 * 7)).hexdigest() for n in range(width)]


INITIAL = bytes.fromhex("0123456789abcdeffedcba9876543210")  # RFC 1321, section 3.3


def test_a_stream_may_begin_at_any_address():
    data = random.Random(0).randbytes(70_000)
    messages = [data[shift : shift + 65_536] for shift in range(lanes.width())]
    hasher = lanes.Lanes()
    for lane in range(hasher.width):
        hasher.reset(lane)

    hasher.update([memoryview(data)[shift:] for shift in range(hasher.width)], 1024)
    hasher.update([memoryview(lanes.padding(65_536))] * hasher.width, 1)

    assert [hasher.hexdigest(lane) for lane in range(hasher.width)] == expected(messages)


def test_a_lane_can_be_used_again():
    hasher = lanes.Lanes()
    found = []

    for message in (b"first", b"second"):
        hasher.reset(3)
        block = message + lanes.padding(len(message))
        hasher.update([memoryview(block) if lane == 3 else None for lane in range(hasher.width)], 1)
        found.append(hasher.hexdigest(3))

    assert found == expected([b"first", b"second"])


@pytest.mark.parametrize("blocks", [0, 5])
def test_no_streams_or_no_blocks_change_nothing(blocks: int):
    state = bytearray(random.Random(1).randbytes(16 * native.width()))
    before = bytes(state)

    native.update(state, (b"x" * 64 * 5 if blocks == 0 else None,) * native.width(), blocks)

    assert state == before


def test_threads_hash_at_the_same_time():
    messages = [[random.Random(100 * t + n).randbytes(100_000) for n in range(lanes.width())] for t in range(4)]
    found: dict[int, list[str]] = {}
    threads = [threading.Thread(target=lambda t=t: found.update({t: digests(messages[t])})) for t in range(4)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == {t: expected(messages[t]) for t in range(4)}


WIDTH = native.width()
STATE = 16 * WIDTH


@pytest.mark.parametrize(
    ("state", "streams", "blocks", "error"),
    [
        (bytearray(STATE - 1), (None,) * WIDTH, 0, ValueError),
        (bytearray(STATE), (None,) * (WIDTH - 1), 0, ValueError),
        (bytearray(STATE), (None,) * (WIDTH + 1), 0, ValueError),
        (bytearray(STATE), (None,) * 1000, 0, ValueError),
        (bytearray(STATE), (), 0, ValueError),
        (bytearray(STATE), (None,) * WIDTH, -1, ValueError),
        (bytearray(STATE), (b"x" * 63,) * WIDTH, 1, ValueError),
        (bytearray(STATE), (b"x" * 64,) * WIDTH, 1 << 62, ValueError),
        (bytearray(STATE), (b"x" * 64,) * (WIDTH - 1) + (b"x",), 1, ValueError),
        (bytearray(STATE), ("text",) * WIDTH, 1, TypeError),
        (bytearray(STATE), [None] * WIDTH, 1, TypeError),
        (bytes(STATE), (None,) * WIDTH, 1, TypeError),
        (bytearray(STATE), (memoryview(b"x" * 256)[::2],) * WIDTH, 1, BufferError),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_byte_is_read(state, streams, blocks: int, error: type[Exception]):
    before = bytes(state)

    with pytest.raises(error):
        native.update(state, streams, blocks)

    assert bytes(state) == before
