"""The only door to torch below `train`: tensors to leaves and back, `.pt` files that our own reader does not know.

Importing this module imports torch, which takes a second or more; import it where a tensor is really needed.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO

import torch

from ckptvcs.errors import FormatError, HostileInput, UnsupportedValue
from ckptvcs.formats import dtypes, numpy_values
from ckptvcs.formats.leaf import Leaf, Opaque, TorchAtom
from ckptvcs.formats.reading import Artifact, Assembler, LeafBuilder, build
from ckptvcs.formats.strided import Storage, extent, is_dense, leaf_of_view, negated
from ckptvcs.formats.tree.encode import class_name
from ckptvcs.paths import printable

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from ckptvcs.formats.tree_file import Stored, Viewed

_TORCH = {name: getattr(torch, torch_name) for name, torch_name in dtypes.TORCH.items() if hasattr(torch, torch_name)}
_NAMES = {dtype: name for name, dtype in _TORCH.items()}


# ---------------------------------------------------------------------------------------------------- torch -> leaf


def is_leaf(value: Any) -> bool:
    """Whether a value is a tensor, an array or a leaf already."""
    return isinstance(value, (torch.Tensor, Leaf)) or numpy_values.is_array(value)


def adapt(value: Any) -> Any:
    """Make a value of torch or NumPy into what the tree encoder knows; anything else comes back as it is."""
    if isinstance(value, torch.Tensor):
        return _leaf(value)
    if type(value) is torch.Size:
        return TorchAtom("size", tuple(value))
    for cls, kind in ((torch.dtype, "dtype"), (torch.layout, "layout"), (torch.memory_format, "memory_format")):
        if isinstance(value, cls):
            return TorchAtom(kind, str(value).removeprefix("torch."))  # type: ignore[arg-type]
    if isinstance(value, torch.device):
        return TorchAtom("device", str(value))
    return numpy_values.adapt(value)


def _leaf(tensor: torch.Tensor) -> Any:
    """The leaf of a tensor, or the tensor itself where it has no exact representation (sparse, quantised, a subclass)."""
    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout is torch.strided
    if not plain or tensor.dtype not in _NAMES or tensor.is_quantized or tensor.is_meta or tensor.is_nested:
        return tensor
    attrs: dict[str, Any] = {"requires_grad": True} if tensor.requires_grad else {}
    if isinstance(tensor, torch.nn.Parameter):
        attrs = {"parameter": True, "requires_grad": tensor.requires_grad}
    if tensor.device.type != "cpu":
        attrs["device"] = str(tensor.device)
    # `torch.save` keeps attributes, as objects of any class; what `torch.compile` notes down, it notes down again.
    if attributes := [name for name in vars(tensor) if not name.startswith("_dynamo_")]:
        return Opaque(f"{class_name(tensor)} with attributes ({', '.join(attributes)})"[:200])
    data = tensor.detach()
    dtype, neg = _NAMES[data.dtype], data.is_neg()
    storage: Storage | None = _storage(data)
    if data.is_conj() or neg:  # torch does it when a number is read; in memory there are the others
        storage = negated(_storage(data), dtype, imaginary=neg != data.is_conj(), real=neg)
    if storage is None:
        return Opaque(f"{class_name(tensor)} that is negated when it is read")
    start = data.storage_offset() * data.element_size()
    try:
        leaf = leaf_of_view(dtype, tuple(data.shape), data.stride(), start=start, storage=storage, attrs=attrs)
    except UnsupportedValue:
        return Opaque(f"{class_name(tensor)} whose elements overlap")
    by_itself = data.is_cuda and data.is_contiguous() and not (data.is_conj() or neg)
    return replace(leaf, on_device=data) if by_itself else leaf


def _storage(data: torch.Tensor) -> Storage:
    untyped = data.untyped_storage()
    whole = torch.empty(0, dtype=torch.uint8, device=data.device).set_(untyped)

    def read(start: int, stop: int) -> memoryview:
        # From an accelerator only the bytes that are asked for come over; on the CPU this is a view, not a copy.
        return memoryview(whole[start:stop].cpu().numpy())

    return Storage(("torch", str(data.device), untyped.data_ptr() or id(whole)), untyped.nbytes(), read)


# ---------------------------------------------------------------------------------------------------- leaf -> torch


class TensorBuilder(LeafBuilder):
    """Makes tensors over the bytes of an artifact: without a copy where the bytes are writable, with one where not.

    Args:
        copy: give every tensor memory of its own, apart from the file.
        device: where the tensors go; None leaves them on the CPU.
    """

    def __init__(self, assembler: Assembler, component: str, *, copy: bool, device: Any) -> None:
        super().__init__(assembler, component)
        self._copy = copy
        self._device = device

    def atom(self, atom: TorchAtom) -> Any:
        return real_atom(atom)

    def make_stored(self, owner: str, name: str, entry: Stored, data: memoryview) -> Any:  # noqa: ARG002
        if entry.kind == "ndarray":
            return numpy_values.array_of(entry.dtype, entry.shape, bytearray(data), entry.attrs)
        tensor = self._placed(tensor_of(entry.dtype, entry.shape, data))
        return _dress(tensor, entry.attrs)

    def make_view(self, entry: Viewed, owner: str) -> Any:
        self._assembler.artifact.stored(owner, entry.of, "tensor")  # views of views could go round in circles
        stored = self._assembler.builder(owner).tensor(entry.of, None).detach()
        dtype, itemsize = _dtype(entry.dtype), dtypes.itemsize(entry.dtype)
        start = stored.storage_offset() * stored.element_size() + entry.offset
        storage = stored.untyped_storage()
        if start % itemsize:
            raise FormatError(f"cannot read tensor '{entry.of}'", why="a view of it begins within an element")
        if start + extent(entry.shape, entry.strides) * itemsize > storage.nbytes():  # `set_` would make it larger
            raise HostileInput(f"cannot read tensor '{entry.of}'", why="a view of it reaches beyond it")
        view = torch.empty(0, dtype=dtype, device=stored.device)
        try:
            view = view.set_(storage, start // itemsize, entry.shape, entry.strides)
        except RuntimeError as err:
            raise HostileInput(
                f"cannot read tensor '{entry.of}'", why=f"no view of it has shape {entry.shape}"
            ) from err
        return _dress(view, entry.attrs)

    def _placed(self, tensor: torch.Tensor) -> torch.Tensor:
        if self._device is not None and torch.device(self._device).type != "cpu":
            return tensor.to(self._device)
        return tensor.clone() if self._copy else tensor


def tensor_of(dtype: str, shape: tuple[int, ...], data: Any) -> torch.Tensor:
    """A tensor over contiguous bytes, sharing memory with them."""
    real = _dtype(dtype)
    if not memoryview(data).nbytes:
        return torch.empty(shape, dtype=real)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # read-only buffers: the caller copies those
        flat = torch.frombuffer(data, dtype=torch.uint8 if real is torch.complex32 else real)
    return flat.view(real).reshape(shape)


def real_atom(atom: TorchAtom) -> Any:
    """The torch value that a stand-in stands for.

    Raises:
        FormatError: this version of torch has no such value.
    """
    if atom.type == "size":
        return torch.Size(atom.value)
    if atom.type == "device":
        return _device(atom.value)
    value = getattr(torch, str(atom.value), None)
    expected = {"dtype": torch.dtype, "layout": torch.layout, "memory_format": torch.memory_format}.get(atom.type)
    if expected is None or not isinstance(value, expected):
        raise FormatError(
            f"cannot read torch.{printable(str(atom.value)[:40])}",
            why=f"torch {torch.__version__} has no such {atom.type}",
        )
    return value


def _device(name: Any) -> torch.device:
    try:
        return torch.device(str(name))
    except RuntimeError as err:
        raise FormatError(
            f"cannot read torch.device '{printable(str(name)[:40])}'",
            why=f"torch {torch.__version__} has no such device",
        ) from err


def _dtype(name: str) -> torch.dtype:
    dtype = _TORCH.get(name)
    if dtype is None:
        raise FormatError(f"cannot read element type '{name}'", why=f"torch {torch.__version__} has no such type")
    return dtype


def _dress(tensor: torch.Tensor, attrs: Any) -> torch.Tensor:
    """Give a tensor back what its bytes do not say: memory order, repetition, that it is a parameter.

    Raises:
        HostileInput: that is not possible for this tensor.
    """
    try:
        return _dressed(tensor, attrs)
    except (RuntimeError, TypeError, ValueError) as err:
        raise HostileInput("cannot read a tensor", why=f"its attributes do not fit it: {err}") from err


def _dressed(tensor: torch.Tensor, attrs: Any) -> torch.Tensor:
    if "stride" in attrs:
        if not is_dense(tuple(tensor.shape), tuple(attrs["stride"])):  # else it may claim any amount of memory
            raise ValueError(f"strides {attrs['stride']} leave gaps")
        permuted = torch.empty_strided(tensor.shape, attrs["stride"], dtype=tensor.dtype, device=tensor.device)
        tensor = permuted.copy_(tensor)
    if "expand" in attrs:
        tensor = tensor.expand(attrs["expand"])
    if attrs.get("parameter"):
        return torch.nn.Parameter(tensor, requires_grad=bool(attrs.get("requires_grad")))
    return tensor.requires_grad_() if attrs.get("requires_grad") else tensor


def load(artifact: Artifact, wanted: Collection[str] | None = None, *, copy: bool = False, device: Any = None) -> Any:
    """Read an artifact into torch; see `reading.build` and `TensorBuilder`."""
    return build(artifact, lambda a, name: TensorBuilder(a, name, copy=copy, device=device), wanted)


# -------------------------------------------------------------------------------------------------------- .pt files


def write_pt(state: Any, file: BinaryIO) -> None:
    """Write a state as `torch.save` does."""
    torch.save(state, file)


def read_legacy(path: Path) -> Any:
    """Read a `.pt` file from before torch 1.6 (tar or bare pickles), through torch's restricted loader alone.

    Raises:
        FormatError: it is damaged, or holds classes that the restricted loader does not allow.
    """
    try:
        with path.open("rb") as file:  # a name that ends in '.safetensors' would be read as what it says
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as err:  # torch raises whatever its readers come across; none of it is ours to tell apart
        raise FormatError(
            f"cannot read '{path}'",
            why=f"torch's restricted loader says: {str(err).splitlines()[0][:200] if str(err) else type(err).__name__}",
            next_step="load it where you trust it and save it again with a current torch",
        ) from err


def read_trusted(path: Path) -> Any:
    """Unpickle a `.pt` file without restriction: this runs whatever code the file contains. Only on explicit request."""
    try:
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=False)
    except Exception as err:  # a pickle may raise anything at all
        raise FormatError(f"cannot read '{path}'", why=f"unpickling it failed: {type(err).__name__}: {err}") from err
