"""States to test with: hypothesis strategies for any of them, and a few of fixed content."""

from __future__ import annotations

import collections
import math
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu,
    torch.complex64,
    torch.complex128,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.bool,
]

shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)


def tensor_of(dtype: torch.dtype, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """A tensor of random bits: NaNs, infinities and denormals included."""
    count = math.prod(shape)
    itemsize = torch.empty(0, dtype=dtype).element_size()
    raw = np.random.default_rng(seed).integers(0, 256, count * itemsize, dtype=np.uint8)
    if dtype is torch.bool:
        raw &= 1
    return torch.from_numpy(raw).view(dtype).reshape(shape) if count else torch.empty(shape, dtype=dtype)


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    tensor = tensor_of(draw(st.sampled_from(DTYPES)), draw(shapes), draw(st.integers(0, 2**32 - 1)))
    how = draw(st.sampled_from(["plain", "permuted", "sliced", "expanded", "parameter"]))
    if how == "permuted" and tensor.dim() > 1:
        return tensor.permute(*reversed(range(tensor.dim())))
    if how == "sliced" and tensor.dim() and tensor.shape[-1] > 1:
        return tensor[..., ::2]
    if how == "expanded":
        return tensor.unsqueeze(0).expand(3, *tensor.shape)
    if how == "parameter" and (tensor.is_floating_point() or tensor.is_complex()):
        return torch.nn.Parameter(tensor.clone(), requires_grad=draw(st.booleans()))
    return tensor


_arrays = st.builds(
    lambda dtype, shape, seed, fortran: _array(dtype, shape, seed, fortran=fortran),
    st.sampled_from(["<f4", "<f8", ">f4", "<i8", "|u1", "|b1", "<c16", "<M8[ns]", "<U3", "|S4"]),
    shapes,
    st.integers(0, 2**16),
    st.booleans(),
)


def _array(dtype: str, shape: tuple[int, ...], seed: int, *, fortran: bool) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if "U" in dtype or "S" in dtype:
        made = np.array([str(n) for n in rng.integers(0, 999, math.prod(shape))], dtype=dtype).reshape(shape)
    else:
        made = rng.integers(0, 2, shape).astype(dtype)
    return np.asfortranarray(made) if fortran else made


_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(2**200), max_value=2**200),
    st.floats(allow_nan=True, allow_infinity=True),
    st.complex_numbers(allow_nan=True),
    st.text(max_size=8),
    st.binary(max_size=16),
    st.binary(min_size=4097, max_size=4200),
    st.builds(np.float32, st.floats(width=32)),
    st.builds(np.int64, st.integers(-(2**63), 2**63 - 1)),
    st.builds(np.bool_, st.booleans()),
    st.builds(torch.Size, st.lists(st.integers(0, 9), max_size=3)),
    st.sampled_from([torch.float16, torch.int64, torch.device("cpu"), torch.device("cuda:1"), torch.strided]),
    st.builds(bytearray, st.binary(max_size=8)),
)
_keys = st.one_of(
    st.text(max_size=6), st.integers(), st.booleans(), st.none(), st.tuples(st.integers(), st.text(max_size=2))
)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(_keys, inner, max_size=4),
        st.dictionaries(st.text(max_size=6), inner, max_size=4),
        st.dictionaries(st.text(max_size=4), inner, max_size=3).map(collections.OrderedDict),
        st.dictionaries(st.integers(), inner, max_size=2).map(lambda d: collections.defaultdict(list, d)),
        st.sets(st.integers(), max_size=4),
        st.frozensets(st.text(max_size=3), max_size=4),
    )


values = st.recursive(st.one_of(_scalars, tensors(), _arrays), _containers, max_leaves=12)
"""Any value that a state may hold."""

states = st.dictionaries(
    st.one_of(st.sampled_from(["model", "optimizer", "rng", "step", "epoch", "extra"]), st.text(max_size=6)),
    values,
    max_size=5,
)
"""Any state whose root is a dict."""


def training_state(seed: int = 0, *, width: int = 8, layers: int = 3) -> dict[str, Any]:
    """A small state as a training loop has it: model, AdamW with moments, scheduler, generators."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(*(torch.nn.Linear(width, width) for _ in range(layers)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    model(torch.randn(4, width)).square().mean().backward()
    optimizer.step()
    scheduler.step()
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "rng": {"torch": torch.get_rng_state()},
        "step": seed,
    }
