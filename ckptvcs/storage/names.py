"""What an object is called, and what is known of it. Imports nothing, so that looking at names is cheap."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NewType

if TYPE_CHECKING:
    from ckptvcs.digest import Digest

ObjectName = NewType("ObjectName", str)
"""32 hexadecimal digits (MD5), with `.dir` behind them for the list of files of a directory."""

DIR_SUFFIX: Final = ".dir"

_NAME: Final = re.compile(r"[0-9a-f]{32}(\.dir)?\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectRef:
    """An object: its name, its size in bytes and its digest."""

    name: ObjectName
    nbytes: int
    digest: Digest


def is_object_name(text: str) -> bool:
    """Whether `text` has the form of an object name."""
    return _NAME.match(text) is not None
