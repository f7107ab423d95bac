"""Which tensors share a shard: by layer at first, then as the parent has it, split where only a part changed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ckptvcs.digest import Digest
from ckptvcs.formats.layout import (
    MAX_TARGET,
    MIB,
    MIN_TARGET,
    SHARDS_AIMED_AT,
    SPLIT_FROM,
    Inherited,
    Layout,
    Member,
    plan,
    target_size,
)


def member(
    name: str, size: int = MIB, *, digest: str = "old", layer: str = "", trainable: bool | None = None
) -> Member:
    return Member(name=name, nbytes=size, digest=Digest(digest), layer=layer or name, trainable=trainable)


def kept(members: Sequence[Member], layout: Layout) -> dict[str, Inherited]:
    """Where a parent with these members keeps them."""
    shard_of = {name: shard for shard, names in layout.items() for name in names}
    return {m.name: Inherited(shard_of[m.name], m.digest) for m in members}


# ----------------------------------------------------------------------------------------------------------- the first


def test_a_layer_is_a_shard():
    members = [member(f"l.{i}.{part}", MIB // 2, layer=f"l.{i}") for i in range(3) for part in ("w", "b")]

    layout = plan(members, {}, target=MIB)

    assert layout == {f"l.{i}.safetensors": [f"l.{i}.w", f"l.{i}.b"] for i in range(3)}


def test_small_layers_are_joined_until_they_are_half_the_target():
    members = [member(f"l.{i}", MIB // 8) for i in range(6)]

    layout = plan(members, {}, target=MIB)

    assert layout == {
        "l.0-to-l.3.safetensors": ["l.0", "l.1", "l.2", "l.3"],
        "l.4-to-l.5.safetensors": ["l.4", "l.5"],
    }


def test_a_small_layer_is_not_joined_to_one_that_would_be_too_large_with_it():
    members = [member("tiny", MIB // 8), member("large", MIB), member("end", MIB // 8)]

    assert list(plan(members, {}, target=MIB).values()) == [["tiny"], ["large"], ["end"]]


def test_a_large_layer_is_divided_between_tensors():
    members = [member(f"e.{i}", MIB, layer="e") for i in range(5)]

    layout = plan(members, {}, target=2 * MIB)

    assert layout == {
        "e-1.safetensors": ["e.0", "e.1"],
        "e-2.safetensors": ["e.2", "e.3"],
        "e-3.safetensors": ["e.4"],
    }


def test_twice_the_target_is_not_divided_yet():
    members = [member(f"e.{i}", MIB, layer="e") for i in range(4)]

    assert len(plan(members, {}, target=2 * MIB)) == 1


def test_one_tensor_is_never_cut():
    assert plan([member("big", 100 * MIB)], {}, target=MIB) == {"big-1.safetensors": ["big"]}


def test_what_is_trained_and_what_is_frozen_are_apart_at_once():
    members = [
        member("l.0.base", layer="l.0", trainable=False),
        member("l.0.lora", layer="l.0", trainable=True),
        member("l.1.base", layer="l.1", trainable=False),
    ]

    layout = plan(members, {}, target=MIB)

    assert layout == {
        "l.0.safetensors": ["l.0.base"],
        "l.1.safetensors": ["l.1.base"],
        "l.0.trainable.safetensors": ["l.0.lora"],
    }


def test_where_nothing_is_known_nothing_is_apart():
    members = [member("l.0.a", MIB // 4, layer="l.0"), member("l.0.b", MIB // 4, layer="l.0")]

    assert plan(members, {}, target=MIB) == {"l.0.safetensors": ["l.0.a", "l.0.b"]}


def test_every_tensor_is_in_one_shard():
    members = [member(f"l.{i % 7}.{i}", 1 << (i % 24), layer=f"l.{i % 7}", trainable=i % 3 == 0) for i in range(100)]

    layout = plan(members, {}, target=MIB)

    assert sorted(name for names in layout.values() for name in names) == sorted(m.name for m in members)


def test_the_same_members_have_the_same_layout():
    members = [member(f"l.{i}", i * 1000) for i in range(50)]

    assert plan(members, {}, target=MIB) == plan(list(members), {}, target=MIB)


# -------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("layers", "files"),
    [
        (["model"], ["model.2.safetensors"]),
        (["Block", "block"], ["Block.safetensors", "block.2.safetensors"]),
        (["../../etc"], ["etc.safetensors"]),
        (["a/b", "a_b"], ["a_b.safetensors", "a_b.2.safetensors"]),
        (["con", "é"], ["_con.safetensors", "_.safetensors"]),
        (["x" * 300], [f"{'x' * 100}.safetensors"]),
        (["tree.json"], ["tree.json.safetensors"]),
    ],
)
def test_a_shard_has_a_name_that_every_file_system_takes(layers: list[str], files: list[str]):
    members = [member(f"{layer}.w", layer=layer) for layer in layers]

    assert list(plan(members, {}, target=MIB)) == files


# -------------------------------------------------------------------------------------------------------- inheritance

FIRST = [member("a", layer="l"), member("b", layer="l"), member("c")]
LAYOUT = plan(FIRST, {}, target=2 * MIB)


def test_what_did_not_change_stays_where_it_is():
    assert plan(FIRST, kept(FIRST, LAYOUT), target=2 * MIB) == LAYOUT


def test_what_changed_altogether_stays_where_it_is():
    later = [member(m.name, layer=m.layer, digest="new") for m in FIRST]

    assert plan(later, kept(FIRST, LAYOUT), target=2 * MIB) == LAYOUT


def test_a_shard_of_which_a_part_changed_splits_in_two():
    later = [member("a", layer="l", digest="new"), *FIRST[1:]]

    layout = plan(later, kept(FIRST, LAYOUT), target=2 * MIB)

    assert LAYOUT == {"l.safetensors": ["a", "b"], "c.safetensors": ["c"]}
    assert layout == {"l.safetensors": ["a"], "l.part2.safetensors": ["b"], "c.safetensors": ["c"]}


@pytest.mark.parametrize(("same", "shards"), [(SPLIT_FROM - 1, 1), (SPLIT_FROM, 2)])
def test_a_shard_splits_only_where_enough_stays_the_same(same: int, shards: int):
    first = [member("a", layer="l"), member("b", same, layer="l")]
    parent = kept(first, plan(first, {}, target=2 * MIB))

    layout = plan([member("a", layer="l", digest="new"), first[1]], parent, target=2 * MIB)

    assert len(layout) == shards


def test_a_shard_splits_again_and_again():
    members, layout = (
        [member(n, layer="l") for n in "abcd"],
        plan([member(n, layer="l") for n in "abcd"], {}, target=4 * MIB),
    )
    for step, name in enumerate("abc"):
        later = [member(m.name, layer="l", digest=f"{step}" if m.name <= name else m.digest) for m in members]
        layout = plan(later, kept(members, layout), target=4 * MIB)
        members = later

    assert [sorted(names) for names in layout.values()] == [["a"], ["b"], ["c"], ["d"]]
    assert len({shard.casefold() for shard in layout}) == 4


def test_what_is_new_goes_to_shards_of_its_own():
    later = [*FIRST, member("head", layer="l")]

    layout = plan(later, kept(FIRST, LAYOUT), target=2 * MIB)

    assert layout == {**LAYOUT, "l.2.safetensors": ["head"]}


def test_what_is_gone_is_left_out_and_the_rest_stays():
    layout = plan(FIRST[1:], kept(FIRST, LAYOUT), target=2 * MIB)

    assert layout == {"l.safetensors": ["b"], "c.safetensors": ["c"]}


def test_a_new_shard_never_takes_the_name_of_an_inherited_one():
    first = [member("a", layer="l"), member("b", layer="l"), member("c", layer="l.part2")]
    parent = kept(first, plan(first, {}, target=2 * MIB))

    layout = plan([member("a", layer="l", digest="new"), *first[1:]], parent, target=2 * MIB)

    assert layout == {"l.safetensors": ["a"], "l.part2.2.safetensors": ["b"], "l.part2.safetensors": ["c"]}


@pytest.mark.parametrize(
    ("total", "target"),
    [
        (0, MIN_TARGET),
        (MIB, MIN_TARGET),
        (SHARDS_AIMED_AT * 10 * MIB, 10 * MIB),
        (1 << 50, MAX_TARGET),
    ],
)
def test_the_target_follows_the_size_within_bounds(total: int, target: int):
    assert target_size(total) == target
