"""Whatever a state holds comes back bit for bit, through memory and through `.pt` files alike."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from ckptvcs.formats import artifact, flatten, hints, numpy_values, torch_state, tree_file
from ckptvcs.formats.components import take_apart
from ckptvcs.formats.foreign.source import is_neutral_leaf
from ckptvcs.formats.foreign.zip_pt import PtFile
from ckptvcs.formats.reading import Artifact
from tests.support.same import assert_same
from tests.support.states import states, values


def write(state: Any, adapt: Any = torch_state.adapt, is_leaf: Any = torch_state.is_leaf) -> dict[str, bytes]:
    """The files of the artifact of a state."""
    components = flatten.flatten(take_apart(state, is_leaf), adapt).components
    files = artifact.plan_files(components, artifact.digests(components), parent={}, hints=hints.infer(components))
    written = {file.path: b"".join(bytes(chunk) for chunk in file.chunks()) for file in files}
    assert all(len(written[file.path]) == file.nbytes for file in files)
    return written


def read(files: dict[str, bytes]) -> Any:
    names = sorted({path.split("/")[0] for path in files})
    return torch_state.load(Artifact(names, lambda path: bytearray(files[path])))


@given(states)
def test_a_state_comes_back_as_it_was(state: dict[str, Any]):
    assert_same(state, read(write(state)))


@given(values)
def test_a_state_need_not_be_a_dict(value: Any):
    assert_same(value, read(write(value)))


@given(states)
def test_the_same_state_has_the_same_bytes(state: dict[str, Any]):
    assert write(state) == write(state)


@given(states)
def test_a_pt_file_gives_the_state_that_was_saved(state: dict[str, Any]):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.pt"
        torch.save(state, path)

        files = write(PtFile(path).state(), numpy_values.adapt, is_neutral_leaf)

        # Not what torch reads: NumPy swaps the bytes of big-endian arrays when it unpickles them.
        assert_same(state, read(files))


@given(st.data())
def test_tied_tensors_stay_tied(data: st.DataObject):
    memory = torch.arange(64, dtype=torch.float32)
    views = []
    for _ in range(data.draw(st.integers(1, 6))):
        start = data.draw(st.integers(0, 40))
        views.append(memory[start : start + data.draw(st.integers(0, 24))])
    state = {"model": {f"w{i}": view for i, view in enumerate(views)}, "ema": {"w": views[0], "all": memory}}

    back = read(write(state))

    assert_same(state, back)
    back["ema"]["all"][...] = 7.0
    assert all((view == 7.0).all() for view in back["model"].values()), "a view has memory of its own"


def test_a_container_that_holds_itself_comes_back_so():
    loop: list[Any] = [1]
    loop.append(loop)

    (back,) = (read(write({"model": {"w": torch.ones(1)}, "loop": loop}))["loop"],)

    assert back[0] == 1
    assert back[1] is back


@given(states)
def test_a_tree_file_is_read_as_it_was_written(state: dict[str, Any]):
    for path, data in write(state).items():
        if path.endswith(tree_file.NAME):
            assert tree_file.to_bytes(tree_file.from_bytes(data, file=path)) == data
