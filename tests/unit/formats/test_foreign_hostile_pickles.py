"""A pickle that was made to harm: nothing runs, nothing is imported, memory stays bounded, and the error says what and where."""

from __future__ import annotations

import contextlib
import itertools
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ckptvcs.errors import FormatError, UnsupportedValue
from ckptvcs.formats.foreign import detect
from tests.unit.formats.makers import (
    MIB,
    call,
    class_named,
    components_in,
    doubled,
    peak,
    placed,
    pt,
    saved,
    state_with,
    storage,
    text,
)

# ----------------------------------------------------------------------------------------------------------- real code

FUNCTIONS = [
    *("os.system", "posix.system", "nt.system", "os.remove", "os.execv", "shutil.rmtree", "pty.spawn", "subprocess.Popen"),
    *("subprocess.check_output", "builtins.eval", "builtins.exec", "builtins.compile", "builtins.getattr", "builtins.open"),
    *("builtins.__import__", "builtins.breakpoint", "builtins.type", "builtins.map", "__builtin__.eval", "io.open"),
    *("importlib.import_module", "runpy.run_path", "operator.attrgetter", "functools.partial", "codecs.open", "_io.FileIO"),
    *("pathlib.Path.touch", "types.FunctionType", "types.CodeType", "ctypes.CDLL", "webbrowser.open", "socket.socket"),
    *("pickle.loads", "_pickle.loads", "copyreg._reconstructor", "marshal.loads", "timeit.timeit", "code.interact"),
    *("torch.load", "torch.save", "torch.hub.load", "torch.ops.load_library", "torch.jit.load", "torch.classes.load_library"),
    *("torch.utils.cpp_extension.load_inline", "torch.serialization.load", "torch._utils._rebuild_wrapper_subclass"),
    *("torch.storage._load_from_bytes", "torch.distributed.rpc.rpc_sync", "torch.utils.data.DataLoader"),
    *("numpy.load", "numpy.save", "numpy.f2py.compile", "numpy.testing._private.utils.runstring", "numpy.core.numeric.fromfile"),
    *("ckptvcs.formats.torch_state.read_trusted", "tests.support.world.run", "", ".", "os.", ".system", "os.system.__call__"),
]  # fmt: skip

FORMS: dict[str, Callable[[str, bytes], bytes]] = {
    "REDUCE": lambda name, arg: class_named(name) + arg + b"\x85R",
    "NEWOBJ": lambda name, arg: class_named(name) + arg + b"\x85\x81",
    "NEWOBJ_EX": lambda name, arg: class_named(name) + arg + b"\x85}\x92",
    "keywords": lambda name, arg: class_named(name) + b")}" + text("x") + arg + b"s\x92",
    "OBJ": lambda name, arg: b"(" + class_named(name) + arg + b"o",
    "INST": lambda name, arg: b"(" + arg + b"i" + class_named(name)[1:],
    "STACK_GLOBAL": lambda name, arg: text(name.rpartition(".")[0]) + text(name.rpartition(".")[2]) + b"\x93" + arg + b"\x85R",
    "BUILD": lambda name, arg: class_named(name) + b")R}" + text("x") + arg + b"sb",
    "bare": lambda name, _: class_named(name),
    "twice": lambda name, arg: class_named(name) + arg + b"\x85R" + arg + b"\x85R",
    "list items": lambda name, arg: class_named(name) + b")R(" + arg + b"e",
    "dict items": lambda name, arg: class_named(name) + b")R(" + text("x") + arg + b"u",
}  # fmt: skip


def harm(marker: Path) -> bytes:
    return text(f"touch {marker}")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_named_and_not_called(name: str, tmp_path: Path):
    path = placed(tmp_path, "x.pt", pt(state_with(FORMS["REDUCE"](name, harm(tmp_path / "marker")))))

    with pytest.raises(UnsupportedValue) as caught:
        components_in(path)

    full = name if "." in name else f".{name}"
    assert caught.value.facts["values"] == [{"path": "state['model']['bad']", "class": full}]
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "torch.hub.load"])
def test_a_class_is_named_however_it_is_called(form: str, name: str, tmp_path: Path):
    path = placed(tmp_path, "x.pt", pt(state_with(FORMS[form](name, harm(tmp_path / "marker")))))

    with pytest.raises(UnsupportedValue) as caught:
        components_in(path)

    assert caught.value.facts["values"] == [{"path": "state['model']['bad']", "class": name}]
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("form", FORMS)
def test_no_module_is_imported(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "evil_module.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    path = placed(tmp_path, "x.pt", pt(state_with(FORMS[form]("evil_module.run", text("x")))))

    with pytest.raises(UnsupportedValue, match="evil_module"):
        components_in(path)

    assert "evil_module" not in sys.modules
    assert not (tmp_path / "marker").exists()


class Reduced:
    """Whatever `__reduce__` may return."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __reduce__(self) -> Any:
        return self.parts


def run(marker: str) -> None:
    Path(marker).touch()


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("shape", ["call", "state", "items", "pairs", "nested"])
def test_real_pickles_of_python_do_not_run_either(shape: str, protocol: int, tmp_path: Path):
    marker = str(tmp_path / "marker")
    bomb = {
        "call": Reduced(run, (marker,)),
        "state": Reduced(run, (marker,), {"x": 1}),
        "items": Reduced(run, (marker,), None, iter([1])),
        "pairs": Reduced(run, (marker,), None, None, iter([(1, 2)])),
        "nested": Reduced(Reduced, (Reduced(run, (marker,)),)),
    }[shape]
    path = placed(tmp_path, "x.pt", pt(pickle.dumps({"model": {"bad": bomb}}, protocol=protocol)))

    with pytest.raises(UnsupportedValue) as caught:
        components_in(path)

    assert caught.value.facts["values"][0]["path"] == "state['model']['bad']"
    assert __name__.rpartition(".")[2] in caught.value.facts["values"][0]["class"]
    assert not (tmp_path / "marker").exists()


def test_an_object_whose_state_is_set_by_a_function_is_refused(tmp_path: Path):
    value = Reduced(dict, (), {"x": 1}, None, None, run)
    path = placed(tmp_path, "x.pt", pt(pickle.dumps({"model": {"bad": value}})))

    with pytest.raises(FormatError):
        components_in(path)


HIDDEN = {
    "the whole state": lambda bad: b"\x80\x02" + bad + b".",
    "key": lambda bad: b"\x80\x02}" + bad + b"Ns.",
    "tuple": lambda bad: state_with(bad + b"\x85"),
    "set": lambda bad: state_with(b"\x8f(" + bad + b"\x90"),
    "frozenset": lambda bad: state_with(b"(" + bad + b"\x91"),
    "list": lambda bad: state_with(b"](" + bad + b"e"),
    "ordered dict": lambda bad: state_with(call("collections.OrderedDict") + text("x") + bad + b"s"),
    "attribute": lambda bad: state_with(call("collections.OrderedDict") + b"}" + text("x") + bad + b"sb"),
    "counter": lambda bad: state_with(call("collections.Counter", b"}" + text("x") + bad + b"s")),
    "namespace": lambda bad: state_with(call("argparse.Namespace") + b"}" + text("x") + bad + b"sb"),
    "factory": lambda bad: state_with(call("collections.defaultdict", bad)),
    "parameter": lambda bad: state_with(call("torch._utils._rebuild_parameter", bad, b"\x88", call("collections.OrderedDict"))),
    "storage": lambda bad: state_with(call("torch._utils._rebuild_tensor_v2", bad, b"K\x00", b")", b")", b"\x89", b"N")),
    "shape": lambda bad: state_with(
        call("torch._utils._rebuild_tensor_v2", storage(), b"K\x00", bad, b"K\x01\x85", b"\x89", b"N")
    ),
    "hooks": lambda bad: state_with(call("torch._utils._rebuild_tensor_v2", storage(), b"K\x00", b")", b")", b"\x89", bad)),
    "element type": lambda bad: state_with(
        call("torch._utils._rebuild_tensor_v3", storage(), b"K\x00", b")", b")", b"\x89", b"N", bad)
    ),
    "kind of storage": lambda bad: state_with(storage(kind=bad)),
    "device": lambda bad: state_with(storage(device=bad)),
    "number of elements": lambda bad: state_with(storage(elements=bad)),
    "persistent id": lambda bad: state_with(bad + b"Q"),
    "text of a persistent id": lambda bad: state_with(bad + b"0Pabc\n"),
    "numpy type": lambda bad: state_with(call("numpy.dtype", bad)),
    "numpy array": lambda bad: state_with(call("numpy.core.multiarray._reconstruct", bad, b"K\x00\x85", b"C\x01b")),
    "numpy scalar": lambda bad: state_with(call("numpy.core.multiarray.scalar", bad, b"C\x04abcd")),
    "path": lambda bad: state_with(call("pathlib.PosixPath", bad)),
    "size": lambda bad: state_with(call("torch.Size", bad)),
    "encoding": lambda bad: state_with(call("_codecs.encode", text("x"), bad)),
    "state of a class": lambda bad: state_with(class_named("collections.OrderedDict") + b"}" + text("x") + bad + b"sb"),
}  # fmt: skip


@pytest.mark.parametrize("place", HIDDEN)
def test_code_does_not_run_wherever_it_hides(place: str, tmp_path: Path):
    bad = FORMS["REDUCE"]("os.system", harm(tmp_path / "marker"))
    path = placed(tmp_path, "x.pt", pt(HIDDEN[place](bad), s0=bytes(4)))

    with pytest.raises(FormatError):
        components_in(path)

    assert not (tmp_path / "marker").exists()


def test_what_an_opaque_object_contains_is_not_looked_into(tmp_path: Path):
    inner = FORMS["REDUCE"]("builtins.eval", text("1"))
    path = placed(tmp_path, "x.pt", pt(state_with(class_named("os.system") + inner + b"\x85R")))

    with pytest.raises(UnsupportedValue) as caught:
        components_in(path)

    assert [fact["class"] for fact in caught.value.facts["values"]] == ["os.system"]


def test_names_do_not_drive_the_terminal(tmp_path: Path):
    path = placed(tmp_path, "x.pt", pt(state_with(text("\x1b[2J") + text("x\x1b") + b"\x93)R")))

    with pytest.raises(UnsupportedValue) as caught:
        components_in(path)

    assert caught.value.facts["values"][0]["path"] == "state['model']['bad']"


# ------------------------------------------------------------------------------------------------------------- damage

DAMAGED = {
    "nothing": b"",
    "only a stop": b".",
    "no stop": b"\x80\x02}",
    "no opcode": b"\x80\x02\xff.",
    "extension": b"\x82\x01.",
    "next buffer": b"\x97.",
    "no mark": b"t.",
    "empty stack": b"0.",
    "short tuple": b"N\x87.",
    "odd items": state_with(b"}(Nu"),
    "list as key": b"}]Ns.",
    "append to a dict": state_with(b"}Na"),
    "set item of a list": state_with(b"]NNs"),
    "add to a list": state_with(b"](N\x90"),
    "unknown memo": b"h\x07.",
    "arguments of a number": class_named("os.system") + b"K\x01R.",
    "class of numbers": b"K\x01K\x02\x93.",
    "persistent id": b"Pabc\n.",
    "storage of nothing": state_with(storage()),
    "negative elements": state_with(storage(elements=b"J\xff\xff\xff\xff")),
    "elements beyond": state_with(storage(elements=b"M\xff\xff")),
    "elements of text": state_with(storage(elements=text("1"))),
    "huge elements": state_with(storage(elements=b"\x8a\x10" + b"\xff" * 15 + b"\x7f")),
    "open string": b"Sabc\n.",
    "no number": b"Ixyz\n.",
    "long number": b"I" + b"9" * 5000 + b"\n.",
    "no float": b"Fxyz\n.",
    "no line": b"V" + b"x" * 100,
    "no text": b"X\x02\x00\x00\x00\xff\xfe.",
    **{f"huge {code!r}": code + b"\xff" * 8 + b"x" * 100 for code in (b"X", b"\x8d", b"B", b"\x8e", b"\x96", b"\x8b", b"T")},
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_pickle_is_refused_with_little_memory(name: str, tmp_path: Path):
    path = placed(tmp_path, "x.pt", pt(DAMAGED[name], **({} if name == "storage of nothing" else {"s0": bytes(4)})))

    with pytest.raises(FormatError) as caught:
        components_in(path)

    assert "damaged" in caught.value.why
    assert peak(lambda: components_in(path)) < MIB


def test_the_file_of_a_damaged_pickle_is_named(tmp_path: Path):
    path = placed(tmp_path, "x.pt", pt(b"\x80\x02}"))

    with pytest.raises(FormatError) as caught:
        components_in(path)

    assert "x.pt'" in caught.value.what
    assert caught.value.next_step


TENSOR = {
    "beyond its storage": (b"K\x00", b"K\x02\x85", b"K\x01\x85"),
    "at a negative place": (b"J\xff\xff\xff\xff", b"K\x01\x85", b"K\x01\x85"),
    "of a negative size": (b"K\x00", b"J\xff\xff\xff\xff\x85", b"K\x01\x85"),
    "of a negative stride": (b"K\x00", b"K\x02\x85", b"J\xff\xff\xff\xff\x85"),
    "of a fractional size": (b"K\x00", b"G?\xf0\x00\x00\x00\x00\x00\x00\x85", b"K\x01\x85"),
    "of a boolean size": (b"K\x00", b"\x88\x85", b"K\x01\x85"),
    "with a stride too few": (b"K\x00", b"K\x01K\x01\x86", b"K\x01\x85"),
    "of an endless size": (b"K\x00", b"\x8a\x10" + b"\xff" * 15 + b"\x7f\x85", b"K\x01\x85"),
    "at an endless place": (b"\x8a\x10" + b"\xff" * 15 + b"\x7f", b"K\x01\x85", b"K\x01\x85"),
    "of no size": (b"K\x00", b"N", b"K\x01\x85"),
}


@pytest.mark.parametrize("name", TENSOR)
def test_a_tensor_that_cannot_be_is_refused(name: str, tmp_path: Path):
    start, shape, strides = TENSOR[name]
    tensor = call("torch._utils._rebuild_tensor_v2", storage(), start, shape, strides, b"\x89", b"N")
    path = placed(tmp_path, "x.pt", pt(state_with(tensor), s0=bytes(4)))

    with pytest.raises(FormatError):
        components_in(path)


@pytest.mark.parametrize(
    "value",
    [
        call("builtins.float", text("((((")),
        call("builtins.float", text("-" * 100_000 + "1")),
        call("builtins.float", text("(" * 100_000)),
        call("builtins.bytearray", text("abc"), text("zlib")),
        storage(key=b")" + b"\x85" * 20_000),
    ],
    ids=["syntax", "long syntax", "deep syntax", "unknown encoding", "deep key"],
)
def test_an_error_of_python_is_an_error_of_ours(value: bytes, tmp_path: Path):
    path = placed(tmp_path, "x.pt", pt(state_with(value), s0=bytes(4)))

    with pytest.raises(FormatError):
        components_in(path)


@pytest.mark.parametrize("name", ["items", "values", "get"])
def test_attributes_do_not_hide_methods(name: str, tmp_path: Path):
    root = call("collections.OrderedDict") + b"}" + text(name) + b"K\x05sb" + text("step") + b"K\x01s"

    source, _ = components_in(placed(tmp_path, "x.pt", pt(b"\x80\x02" + root + b".")))

    assert source.state["step"] == 1


def test_what_a_default_dict_is_given_is_not_dropped(tmp_path: Path):
    value = call("collections.defaultdict", class_named("builtins.list"), b"}K\x01K\x02s")

    source, _ = components_in(placed(tmp_path, "x.pt", pt(state_with(value))))

    assert source.state["model"]["bad"] == {1: 2}


# ------------------------------------------------------------------------------------------------- memory and time

MEMOISED = b"0(" + b"h\x02h\x01\x85R" * 1000 + b"l"


BOMBS = {
    "text of a type": call("numpy.dtype", doubled(17)),
    "name of an encoding": call("_codecs.encode", text("x"), doubled(17)),
    "key of a storage": storage(key=doubled(17)),
    "device": storage(device=doubled(17)),
    "device of torch": call("torch.device", doubled(17), b"K\x01"),
    "elements": storage(elements=doubled(17)),
    "size of a bytearray": call("builtins.bytearray", b"\x8a\x04\x00\x00\x00\x10"),
    "text again and again": text("x" * 10_000) + b"q\x010" + class_named("_codecs.encode") + b"q\x02" + MEMOISED,
    "list again and again": b"(" + b"N" * 10_000 + b"lq\x010" + class_named("builtins.list") + b"q\x02" + MEMOISED,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_pickle_cannot_take_much_memory(name: str, tmp_path: Path):
    path = placed(tmp_path, "x.pt", pt(state_with(BOMBS[name]), s0=bytes(4)))

    assert path.stat().st_size < MIB / 32
    assert peak(lambda: detect.open_source(path)) < MIB / 2


ARRAY = call(
    "numpy._core.numeric._frombuffer",
    b"C\x04abcd",
    call("numpy.dtype", text("f4")) + b"(K\x03" + text("<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
    b"K\x01\x85",
    text("C"),
)
EMPTY = call("torch._utils._rebuild_tensor_v2", storage(), b"K\x00", b"K\x00\x85", b"K\x01\x85", b"\x89", b"N")
FULL = call("torch._utils._rebuild_tensor_v2", storage(), b"K\x00", b"K\x01\x85", b"K\x01\x85", b"\x89", b"N")
SEEDS = {
    "nothing": b")",
    "list": b"]\x85",
    "class": class_named("os.system") + b"\x85",
    "tensor": FULL + b"\x85",
    "empty tensor": EMPTY + b"\x85",
    "array": ARRAY + b"\x85",
    "long byte string": b"B\x88\x13\x00\x00" + b"x" * 5000 + b"\x85",
    "attribute": call("collections.OrderedDict") + b"}" + text("x") + doubled(30) + b"sb\x85",
}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_tuple_that_holds_itself_many_times_is_refused_at_once(seed: str, tmp_path: Path):
    path = placed(tmp_path, "x.pt", pt(state_with(SEEDS[seed] + b"2\x86" * 60), s0=bytes(4)))

    with pytest.raises(FormatError, match="over 5000000 values"):
        components_in(path)

    assert peak(lambda: components_in(path)) < MIB


def again(value: bytes, times: int) -> bytes:
    """A list that names one object many times, for two bytes each."""
    return value + b"q\x010(" + b"h\x01" * times + b"l"


RAW = call("numpy.dtype", text(f"V{MIB}")) + b"(K\x03" + text("|") + b"NNNK\x00K\x00K\x00tb"
REPEATED = {
    "text": again(text("x" * MIB), 1000),
    "short byte string": again(b"B\x00\x10\x00\x00" + b"x" * 4096, 70_000),
    "number": again(b"\x8b\x00\x00\x10\x00" + b"\x7f" * MIB, 1000),
    "size": again(call("torch.Size", b"(" + b"K\x01" * MIB + b"t"), 100),
    "scalar": again(call("numpy._core.multiarray.scalar", RAW, b"B\x00\x00\x10\x00" + b"x" * MIB), 1000),
    "key": text("x" * MIB) + b"q\x010](" + b"}h\x01Ns" * 1000 + b"e",
}  # fmt: skip


@pytest.mark.parametrize("name", REPEATED)
def test_a_value_that_hangs_everywhere_does_not_fill_the_memory(name: str, tmp_path: Path):
    path = placed(tmp_path, "x.pt", pt(state_with(REPEATED[name])))

    with pytest.raises(FormatError, match="bytes of text"):
        components_in(path)


def test_one_long_byte_string_in_many_places_is_stored_once(tmp_path: Path):
    path = placed(tmp_path, "x.pt", pt(state_with(again(b"B\x88\x13\x00\x00" + b"x" * 5000, 1000))))

    _, (model, *_) = components_in(path)

    assert [leaf.nbytes for leaf in model.leaves.values()] == [5000]


def test_many_plain_values_are_no_bomb(tmp_path: Path):
    path = placed(tmp_path, "x.pt", pt(state_with(again(b"K\x01K\x02\x86", 300_000))))

    source, _ = components_in(path)

    assert source.state["model"]["bad"] == [(1, 2)] * 300_000


@pytest.mark.parametrize("drop", [b"0", b"(1", b""], ids=["pop", "pop to the mark", "left on the stack"])
def test_a_call_for_its_effect_alone_is_refused(drop: bytes, tmp_path: Path):
    bad = class_named("operator.setitem") + b"(}K\x01K\x02tR"
    path = placed(tmp_path, "x.pt", pt(b"\x80\x02" + (b"(" + bad + b"1" if drop == b"(1" else bad + drop) + b"}."))

    with pytest.raises(UnsupportedValue, match=r"operator\.setitem"):
        components_in(path)


@pytest.mark.parametrize(
    "value",
    [
        call("collections.OrderedDict", b"](" + text("ab") + b"e"),
        call("collections.OrderedDict", text("ab")),
        call("builtins.set", text("ab")),
        call("builtins.bytes", b"](K\x01e"),
        call("builtins.bytes", b"K\x05"),
        call("_codecs.encode", text("\xff"), text("latin1"), text("ignore")),
        call("collections.Counter") + b"}" + text("x") + b"K\x01sb",
        call("torch.Size", text("ab")),
        call("builtins.complex", doubled(60)),
    ],
    ids=range(9),
)
def test_what_we_would_make_otherwise_than_python_is_refused(value: bytes, tmp_path: Path):
    with pytest.raises(FormatError, match="damaged"):
        components_in(placed(tmp_path, "x.pt", pt(state_with(value))))


def test_deep_nesting_is_refused(tmp_path: Path):
    for opening, closing in ((b"]" * 100_000, b"a" * 99_999), (b")" + b"\x85" * 100_000, b"")):
        path = placed(tmp_path, "x.pt", pt(state_with(opening + closing)))

        with pytest.raises(FormatError, match="100 levels"):
            components_in(path)


_READ = """
import resource, sys
from pathlib import Path
from ckptvcs.errors import CkptvcsError
from ckptvcs.formats.foreign import detect
resource.setrlimit(resource.RLIMIT_CPU, (2, 2))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
try:
    detect.open_source(Path(sys.argv[1]))
except CkptvcsError as err:
    print(type(err).__name__)
"""


@pytest.mark.parametrize(
    "state",
    [
        b"\x80\x02}" + doubled(64) + b"Ns.",
        b"\x80\x02\x8f(" + doubled(64) + b"\x90.",
        b"\x80\x02}" + b")" + b"\x85" * 400_000 + b"Ns.",
    ],
    ids=["key that is endless", "item that is endless", "key that is deep"],
)
def test_a_key_cannot_hang_or_crash_the_process(state: bytes, tmp_path: Path):
    path = placed(tmp_path, "x.pt", pt(state))

    done = subprocess.run([sys.executable, "-c", _READ, str(path)], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_a_tuple_of_itself_is_read_without_being_walked(tmp_path: Path):
    path = placed(tmp_path, "x.pt", pt(state_with(doubled(60))))

    assert peak(lambda: detect.open_source(path)) < MIB


def test_an_honest_file_of_many_tensors_takes_memory_for_what_it_names_alone(tmp_path: Path):
    path = placed(tmp_path, "x.pt", saved({"model": {f"w{i}": torch.zeros(10_000) for i in range(100)}}))

    assert path.stat().st_size > 4_000_000
    assert peak(lambda: components_in(path)) < 2 * MIB


@pytest.mark.parametrize("opcode", range(0, 256, 16))
def test_any_opcode_in_the_place_of_another_is_harmless(opcode: int, tmp_path: Path):
    honest = saved({"model": {"w": torch.ones(2)}, "step": 3})
    start = honest.index(b"\x80\x02") + 2

    for place, number in itertools.product(range(start, start + 60, 3), range(opcode, opcode + 16)):
        path = placed(tmp_path, "x.pt", honest[:place] + bytes([number]) + honest[place + 1 :])
        with contextlib.suppress(FormatError):
            components_in(path)
