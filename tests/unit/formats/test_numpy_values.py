"""NumPy's values keep their type, byte order and memory order; what has no exact representation is left alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ckptvcs.errors import UnsupportedValue
from ckptvcs.formats import numpy_values
from tests.support.same import assert_same
from tests.unit.formats.makers import read, write

ARRAYS = {
    "float": np.arange(6, dtype="<f4").reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6, dtype="<f8").reshape(2, 3)),
    "transposed": np.arange(6, dtype="<i2").reshape(2, 3).T,
    "steps": np.arange(20, dtype="<i4")[::3],
    "backwards": np.arange(5, dtype="<i8")[::-1],
    "broadcast": np.broadcast_to(np.float32(3), (2, 3)),
    "big-endian": np.arange(3, dtype=">f4"),
    "text": np.array(["a", "bcd"]),
    "bytes": np.array([b"a", b"bcd"]),
    "dates": np.array(["2020-01-01", "NaT"], dtype="<M8[25s]"),
    "durations": np.array([1, 2], dtype="<m8[ns]"),
    "complex": np.array([1 + 2j, float("nan")]),
    "bool": np.array([True, False]),
    "raw": np.array([b"abc", b"def"], dtype="V3"),
    "scalar": np.array(3.5),
    "empty": np.zeros((0, 3), dtype="<u2"),
    "empty text": np.array([], dtype="<U4"),
}

SCALARS = [
    np.float32("nan"),
    np.float64(-0.0),
    np.float16(1.5),
    np.int8(-1),
    np.uint64(2**64 - 1),
    np.bool_(True),
    np.complex64(1 - 2j),
    np.str_("é"),
    np.bytes_(b"ab"),
    np.void(b"abc"),
    np.datetime64("2020-01-01T00:00", "25s"),
    np.datetime64("NaT"),
    np.timedelta64(5, "D"),
]


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_comes_back_as_it_was(name: str):
    array = ARRAYS[name]

    back = read(write({"model": {"a": array}}))["model"]["a"]

    # One with gaps comes back without them.
    assert_same(array if array.flags.forc else np.ascontiguousarray(array), back)


@pytest.mark.parametrize("name", ARRAYS)
def test_the_bytes_of_a_leaf_are_in_logical_order(name: str):
    leaf = numpy_values.adapt(ARRAYS[name])

    assert bytes(leaf.read()) == ARRAYS[name].tobytes(order="C")
    assert leaf.shape == ARRAYS[name].shape
    assert leaf.nbytes == ARRAYS[name].nbytes


@pytest.mark.parametrize("scalar", SCALARS, ids=repr)
def test_a_scalar_comes_back_as_it_was(scalar: Any):
    assert_same({"x": scalar}, read(write({"x": scalar})))


@pytest.mark.parametrize("scalar", [np.str_(""), np.bytes_(b""), np.str_("a\0"), np.bytes_(b"a\0")], ids=repr)
def test_a_text_scalar_comes_back_as_it_was(scalar: Any):
    files = write({"x": scalar})

    assert_same({"x": scalar}, read(files))


@pytest.mark.parametrize("array", [np.ndarray((2, 3), "<U0"), np.ndarray((2,), "V0")], ids=["text", "raw"])
def test_an_array_of_empty_elements_comes_back(array: Any):
    assert_same({"x": array}, read(write({"x": array})))


def test_a_type_that_another_package_added_is_refused():
    rational = pytest.importorskip("numpy._core._rational_tests").rational

    with pytest.raises(UnsupportedValue, match=r"state\['model'\]\['x'\]"):
        write({"model": {"x": np.array([rational(1, 2)])}})  # its type string is that of raw bytes


@pytest.mark.parametrize("type_string", ["<f4", ">i8", "|b1", "<M8[ns]", "<U3", "|V7"])
def test_a_type_comes_back_as_it_was(type_string: str):
    back = read(write({"x": np.dtype(type_string)}))["x"]

    assert type(back) is type(np.dtype(type_string))
    assert back.str == type_string


def test_a_loaded_array_may_be_written_to():
    back = read(write({"model": {"a": ARRAYS["float"]}}))["model"]["a"]

    back[0, 0] = 7

    assert back[0, 0] == 7


def test_one_array_in_two_places_is_stored_once_and_comes_back_as_one():
    array = np.arange(1000)

    files = write({"model": {"a": array, "b": array}})
    back = read(files)["model"]

    assert sum(map(len, files.values())) < 2 * array.nbytes
    assert back["a"] is back["b"]


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (np.array([object()]), "numpy.ndarray"),
        (np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f4")]), "numpy.ndarray"),
        (np.array(["a"], dtype=np.dtypes.StringDType()), "numpy.ndarray"),
        (np.ma.array([1, 2], mask=[0, 1]), "numpy.ma.MaskedArray"),
        (np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f4")])[0], "numpy.void"),
        (np.rec.array([(1, 2)]), "numpy.rec.recarray"),
        (np.random.default_rng(0), "numpy.random._generator.Generator"),
    ],
    ids=["objects", "record", "strings", "masked", "record scalar", "recarray", "generator"],
)
def test_what_has_no_exact_representation_is_refused_with_its_path_and_class(value: Any, name: str):
    with pytest.raises(UnsupportedValue) as caught:
        write({"model": {"x": [value]}})

    assert caught.value.facts["values"] == [{"path": "state['model']['x'][0]", "class": name}]


def test_other_values_are_left_alone():
    value = object()

    assert numpy_values.adapt(value) is value
