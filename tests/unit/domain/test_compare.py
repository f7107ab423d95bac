"""The difference of two checkpoints, told from their manifests and tensor tables alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import msgspec
import pytest

from ckptvcs.domain.compare import Change, changes, compare, flat
from ckptvcs.domain.provenance import Code, DataEntry, Environment, Provenance
from tests.unit.domain.manifests import component, file, manifest


@dataclass(frozen=True)
class Row:
    dtype: str = "F32"
    shape: tuple[int, ...] = (2, 3)
    digest: str = "a"


def change(kind: str, key: str, before: Any, after: Any) -> Change:
    return Change(kind=kind, key=key, before=before, after=after)  # type: ignore[arg-type]


NO_TENSORS: Any = ({}, {})


def test_a_checkpoint_does_not_differ_from_itself():
    found = compare(manifest(), manifest(), NO_TENSORS)

    assert found.step == (1200, 1200)
    parts = (found.components, found.metrics, found.params, found.code, found.data, found.environment)
    assert not any(parts)


def test_what_came_went_and_changed_is_told_apart():
    before = {"gone": 1, "same": 2, "moved": 3, "never": None}
    after = {"same": 2, "moved": 4, "new": 5}

    assert changes(before, after) == (
        change("removed", "gone", 1, None),
        change("changed", "moved", 3, 4),
        change("added", "new", None, 5),
    )


@pytest.mark.parametrize(("one", "other"), [(1, 1.0), (1, True), (0.0, False), ("1", 1)])
def test_equal_numbers_of_two_types_differ(one: Any, other: Any):
    assert changes({"x": one}, {"x": other}) == (change("changed", "x", one, other),)


def test_nested_parameters_are_named_with_dots():
    assert flat({"a": {"b": {"c": 1}, "d": []}, "e": {}, "f": None}) == {"a.b.c": 1, "a.d": [], "e": {}, "f": None}


def test_metrics_and_parameters_are_compared():
    one = manifest(metrics={"loss": 0.5}, params={"opt": {"lr": 1e-3}})
    other = manifest(metrics={"loss": 0.4}, params={"opt": {"lr": 1e-4}}, step=None)

    found = compare(one, other, NO_TENSORS)

    assert found.step == (1200, None)
    assert found.metrics == (change("changed", "loss", 0.5, 0.4),)
    assert found.params == (change("changed", "opt.lr", 1e-3, 1e-4),)


def test_bytes_that_are_the_same_object_are_counted_once_under_any_name():
    one = manifest(components=(component("model", file("model/a", size=100, digest="1"), file("model/b", digest="2")),))
    other = manifest(
        components=(component("model", file("model/c", size=100, digest="1"), file("model/b", digest="3")),)
    )

    (found,) = compare(one, other, NO_TENSORS).components

    assert (found.same_bytes, found.changed_bytes) == (100, 10)
    assert found.files == (
        change("removed", "model/a", 100, None),
        change("changed", "model/b", 10, 10),
        change("added", "model/c", None, 100),
    )


def test_components_come_and_go():
    one = manifest(components=(component("model"), component("optimizer", file("optimizer/x"))))
    other = manifest(components=(component("model"), component("ema", file("ema/x"), role="ema")))

    found = compare(one, other, NO_TENSORS).components

    assert [(c.kind, c.name, c.role) for c in found] == [("removed", "optimizer", "optimizer"), ("added", "ema", "ema")]
    assert [(c.same_bytes, c.changed_bytes) for c in found] == [(0, 0), (0, 10)]


def test_tensors_are_compared_by_type_shape_and_digest_in_the_order_of_the_model():
    one = manifest(components=(component("model", file("model/a", digest="1")),))
    other = manifest(components=(component("model", file("model/a", digest="2")),))
    row = Row()
    before = {"z": row, "same": row, "type": row, "shape": row, "bytes": row}
    after = {
        "same": replace(row),
        "type": Row(dtype="BF16"),
        "shape": Row(shape=(6,)),
        "bytes": Row(digest="b"),
        "new": row,
    }

    (found,) = compare(one, other, ({"model": before}, {"model": after})).components

    assert found.tensors == (
        change("removed", "z", "F32 [2, 3]", None),
        change("changed", "type", "F32 [2, 3]", "BF16 [2, 3]"),
        change("changed", "shape", "F32 [2, 3]", "F32 [6]"),
        change("changed", "bytes", "F32 [2, 3]", "F32 [2, 3]"),
        change("added", "new", None, "F32 [2, 3]"),
    )


def test_code_data_and_environment_are_compared():
    one = Provenance(
        code=Code(commit="a" * 40),
        data=(DataEntry(name="train", version="md5:1"),),
        environment=Environment(python="3.10", cpus=4, gpus=("A", "B"), packages={"torch": "2.9"}),
    )
    other = msgspec.structs.replace(
        one,
        code=Code(commit="a" * 40, patch="b" * 64),
        data=(DataEntry(name="test", version="v2"),),
        environment=Environment(python="3.10", cpus=4, gpus=("A",), packages={"torch": "2.10"}),
    )

    found = compare(manifest(provenance=one), manifest(provenance=other), NO_TENSORS)

    assert found.code == (change("added", "patch", None, "b" * 64),)
    assert found.data == (change("added", "test", None, "v2"), change("removed", "train", "md5:1", None))
    assert found.environment == (
        change("changed", "gpus", "A, B", "A"),
        change("changed", "package torch", "2.9", "2.10"),
    )
