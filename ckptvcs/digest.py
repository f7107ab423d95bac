"""BLAKE3: the hash that trust rests on. MD5, which only names objects because DVC does, stays in `storage`.

Digests are 64 lower-case hexadecimal digits. They are a type of their own, so that an object name, a git id and a
digest cannot be mixed up.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NewType

from blake3 import blake3

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Buffer

Digest = NewType("Digest", str)

# Below this many bytes the hand-over to the thread pool of blake3 costs more than it saves.
_PARALLEL_FROM = 1 << 20
_HEX = re.compile(r"[0-9a-f]{64}\Z")


def digest(data: Buffer) -> Digest:
    """Hash bytes that lie in memory, on all cores when there are enough of them. The GIL is released."""
    size = memoryview(data).nbytes
    threads = blake3.AUTO if size >= _PARALLEL_FROM else 1
    return Digest(blake3(data, max_threads=threads).hexdigest())


def digest_of_parts(parts: Iterable[Buffer], *, parallel: bool = False) -> Digest:
    """Hash the concatenation of `parts` without joining them; on all cores if they are large."""
    hasher = blake3(max_threads=blake3.AUTO if parallel else 1)
    for part in parts:
        hasher.update(part)
    return Digest(hasher.hexdigest())


def hasher() -> blake3:
    """A streaming hasher with `update(bytes)` and `hexdigest()`, on the calling thread alone."""
    return blake3(max_threads=1)


def is_digest(text: str) -> bool:
    """Whether `text` has the form of a digest."""
    return _HEX.match(text) is not None


def short(name: str) -> str:
    """The first ten characters: what people read and type."""
    return name[:10]
