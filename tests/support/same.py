"""The oracle for states: are two of them the same, bit for bit, with the same types and the same sharing?

It knows nothing of ckptvcs.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from typing import Any

import numpy as np
import torch


def differences(a: Any, b: Any, path: str = "state") -> list[str]:
    """Every place where two states differ; empty if they are the same."""
    return _Comparison().compare(a, b, path)


def assert_same(a: Any, b: Any) -> None:
    found = differences(a, b)
    assert not found, "\n".join(found[:20])


class _Comparison:
    def __init__(self) -> None:
        self._pairs: dict[int, int] = {}
        self._back: dict[int, int] = {}

    def compare(self, a: Any, b: Any, path: str) -> list[str]:
        if type(a) is not type(b):
            return [f"{path}: {type(a)} became {type(b)}"]
        if isinstance(a, torch.Tensor):
            return self._tensors(a, b, path)
        if isinstance(a, np.ndarray):
            return self._arrays(a, b, path)
        if isinstance(a, (dict, list, set, bytearray)):
            seen = self._pairs.get(id(a)), self._back.get(id(b))
            if seen != (None, None):
                return [] if seen == (id(b), id(a)) else [f"{path}: sharing differs"]
            self._pairs[id(a)], self._back[id(b)] = id(b), id(a)
        if isinstance(a, dict):
            return self._dicts(a, b, path)
        if isinstance(a, (list, tuple)):
            if len(a) != len(b):
                return [f"{path}: {len(a)} items became {len(b)}"]
            return [d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in self.compare(x, y, f"{path}[{i}]")]
        return [] if _bits(a) == _bits(b) else [f"{path}: {a!r} became {b!r}"]

    def _dicts(self, a: dict, b: dict, path: str) -> list[str]:
        if [(type(k), _bits(k)) for k in a] != [(type(k), _bits(k)) for k in b]:
            return [f"{path}: keys {list(a)} became {list(b)}"]
        found = [d for x, y in zip(a, b, strict=True) for d in self.compare(a[x], b[y], f"{path}[{x!r}]")]
        if isinstance(a, OrderedDict):
            found += self.compare(vars(a), vars(b), f"{path}.__dict__") if vars(a) or vars(b) else []
        factory = getattr(a, "default_factory", None)
        return found if factory is getattr(b, "default_factory", None) else [*found, f"{path}: factory differs"]

    def _tensors(self, a: torch.Tensor, b: torch.Tensor, path: str) -> list[str]:
        for name in ("dtype", "shape", "requires_grad"):
            if getattr(a, name) != getattr(b, name):
                return [f"{path}: {name} {getattr(a, name)} became {getattr(b, name)}"]
        if _tensor_bytes(a) != _tensor_bytes(b):
            return [f"{path}: values differ"]
        if a.numel() and _dense(a) and _steps(a) != _steps(b):
            return [f"{path}: stride {a.stride()} became {b.stride()}"]
        if not a.numel():
            return []
        x, y = (t.untyped_storage().data_ptr() for t in (a, b))
        if self._pairs.setdefault(x, y) != y:
            return [f"{path}: no longer shares its memory"]
        return []

    def _arrays(self, a: np.ndarray, b: np.ndarray, path: str) -> list[str]:
        same = a.dtype.str == b.dtype.str and a.shape == b.shape and a.tobytes() == b.tobytes()
        order = a.flags.f_contiguous == b.flags.f_contiguous
        return [] if same and order else [f"{path}: array {a.dtype}{a.shape} became {b.dtype}{b.shape}"]


def _tensor_bytes(t: torch.Tensor) -> bytes:
    flat = torch.empty(t.shape, dtype=t.dtype).copy_(t.detach()).reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def _steps(t: torch.Tensor) -> list[int]:
    """Strides; that of a dimension of one element means nothing."""
    return [stride for stride, size in zip(t.stride(), t.shape, strict=True) if size > 1]


def _dense(t: torch.Tensor) -> bool:
    step = 1
    for stride, size in sorted((st, sz) for st, sz in zip(t.stride(), t.shape, strict=True) if sz > 1):
        if stride != step:
            return False
        step *= size
    return True


def _bits(value: Any) -> Any:
    """A plain value such that equality means the same bits: NaN equals itself, 0.0 differs from -0.0, 1 from True."""
    if isinstance(value, (np.generic,)):
        return (value.dtype.str, value.tobytes())
    if isinstance(value, float):
        return struct.pack(">d", value)
    if isinstance(value, complex):
        return struct.pack(">dd", value.real, value.imag)
    if isinstance(value, tuple):
        return tuple((type(v), _bits(v)) for v in value)
    if hasattr(value, "__dict__") and type(value).__name__ in ("Namespace", "SimpleNamespace"):
        return sorted((k, repr(v)) for k, v in vars(value).items())
    return (type(value), value)
