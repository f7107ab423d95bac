"""Any set of tensors becomes shards that the official library reads, laid out so that nothing is lost or written in vain."""

from __future__ import annotations

import tempfile
from pathlib import Path

import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from ckptvcs.digest import Digest
from ckptvcs.formats import dtypes
from ckptvcs.formats.layout import SPLIT_FROM, Inherited, Layout, Member, plan
from ckptvcs.formats.safetensors_file import header, read_header, stored_spec, write_order
from tests.support.states import DTYPES, shapes, tensor_of
from tests.unit.formats.makers import write

_names = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8).filter(
    lambda n: n != "__metadata__"
)
_tensors = st.builds(tensor_of, st.sampled_from(DTYPES), shapes, st.integers(0, 2**16))


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def loaded(data: bytes) -> dict[str, torch.Tensor]:
    """The oracle: the official library, by way of a file, which is how it knows every type."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        path.write_bytes(data)
        return safetensors.torch.load_file(path)


@given(st.dictionaries(_names, _tensors, max_size=6))
def test_the_official_library_reads_any_shard(tensors: dict[str, torch.Tensor]):
    names = {n: dtypes.BY_TORCH_NAME[str(t.dtype).removeprefix("torch.")] for n, t in tensors.items()}
    specs = {n: stored_spec(names[n], tuple(t.shape)) for n, t in tensors.items()}

    data = header(specs) + b"".join(raw(tensors[n]) for n in write_order(specs))
    back = loaded(data)

    assert {n: raw(t) for n, t in back.items()} == {n: raw(t) for n, t in tensors.items()}
    same = {n: t for n, t in tensors.items() if names[n] in dtypes.SAFETENSORS}
    assert {n: (back[n].dtype, back[n].shape) for n in same} == {n: (t.dtype, t.shape) for n, t in same.items()}


@given(st.dictionaries(_names, _tensors.filter(lambda t: t.dtype != torch.complex128), max_size=6))
def test_we_read_any_shard_of_the_official_library(tensors: dict[str, torch.Tensor]):
    data = safetensors.torch.save(tensors)

    slots = read_header(data, file="x")

    assert {n: data[slot.start : slot.stop] for n, slot in slots.items()} == {n: raw(t) for n, t in tensors.items()}
    assert {n: slot.spec.shape for n, slot in slots.items()} == {n: tuple(t.shape) for n, t in tensors.items()}


@given(st.dictionaries(_names, _tensors, min_size=1, max_size=8))
def test_the_shards_of_a_model_hold_every_tensor_once(tensors: dict[str, torch.Tensor]):
    files = write({"model": tensors, "step": 1})

    found = [
        (n, raw(t)) for path, data in files.items() if path.endswith(".safetensors") for n, t in loaded(data).items()
    ]

    assert sorted(found) == sorted((n, raw(t)) for n, t in tensors.items())


# ------------------------------------------------------------------------------------------------------------- layouts

_members = st.lists(
    st.tuples(
        st.sampled_from(["a", "A", "l.0", "l.1", "l.10", "head", "../x", "é"]),
        st.integers(0, 4 << 20),
        st.sampled_from([None, True, False]),
        st.sampled_from("xyz"),
    ),
    max_size=12,
)


def members(drawn: list[tuple[str, int, bool | None, str]]) -> list[Member]:
    return [
        Member(name=f"{layer}.{i}", nbytes=size, digest=Digest(digest), layer=layer, trainable=trainable)
        for i, (layer, size, trainable, digest) in enumerate(drawn)
    ]


def shards_of(layout: Layout) -> dict[str, str]:
    return {name: shard for shard, names in layout.items() for name in names}


def inherited(layout: Layout, known: list[Member]) -> dict[str, Inherited]:
    where = shards_of(layout)
    return {m.name: Inherited(where[m.name], m.digest) for m in known}


@given(_members, _members, st.integers(1 << 20, 8 << 20))
def test_a_layout_places_every_tensor_once_in_a_shard_of_a_name_of_its_own(one: list, other: list, target: int):
    first, second = members(one), members(other)
    layout = plan(first, {}, target=target)

    later = plan(second, inherited(layout, first), target=target)

    for made, of in ((layout, first), (later, second)):
        assert sorted(n for names in made.values() for n in names) == sorted(m.name for m in of)
        assert len({shard.casefold() for shard in made}) == len(made)
        assert all(names for names in made.values())


@given(_members, _members, st.integers(1 << 20, 8 << 20))
def test_a_shard_is_written_again_only_for_what_changed_or_is_small(one: list, other: list, target: int):
    first, second = members(one), members(other)
    parent = inherited(plan(first, {}, target=target), first)

    layout = plan(second, parent, target=target)

    digest = {m.name: m.digest for m in second}
    size = {m.name: m.nbytes for m in second}
    for names in layout.values():
        same = [n for n in names if n in parent and parent[n].digest == digest[n]]
        if len(same) < len(names):
            assert sum(size[n] for n in same) < SPLIT_FROM


@given(_members, st.integers(1 << 20, 8 << 20))
def test_an_unchanged_state_keeps_its_layout_for_ever(drawn: list, target: int):
    known = members(drawn)
    layout = plan(known, {}, target=target)

    assert {k: sorted(v) for k, v in plan(known, inherited(layout, known), target=target).items()} == {
        k: sorted(v) for k, v in layout.items()
    }
