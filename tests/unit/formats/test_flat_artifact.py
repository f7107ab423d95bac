"""A component that is taken out of an artifact is the one that went in: written again, it is the same file."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ckptvcs.errors import CkptvcsError
from ckptvcs.formats.flat_artifact import flat_component
from tests.support.states import training_state
from tests.unit.formats.makers import components_of, files_of, opened, write


def again(files: dict[str, bytes]) -> dict[str, bytes]:
    artifact = opened(files)
    return files_of([flat_component(artifact, name, lambda *_: None) for name in artifact.names])


@pytest.mark.parametrize("seed", range(3))
def test_the_files_of_a_training_state(seed: int):
    files = write(training_state(seed))

    assert again(files) == files


def test_tied_overlapping_and_viewed_tensors():
    whole = torch.arange(12, dtype=torch.float32)
    state = {
        "ema": {"w": whole},
        "model": {"tied": whole, "part": whole[2:8], "left": whole[:8].view(torch.int32), "n": torch.ones(2)},
        "other": {"a": (base := torch.arange(9.0))[:6], "b": base[3:]},
    }
    files = write(state)

    assert again(files) == files


def test_where_a_tensor_hangs_is_known():
    state = {"optimizer": {"state": {3: {"exp_avg": torch.ones(2)}}, "param_groups": [{"params": [3]}]}}

    (component,) = [flat_component(opened(write(state)), "optimizer", lambda *_: None)]

    assert component.paths == components_of(state)[0].paths


def test_what_is_not_needed_for_now_is_told_by_its_place():
    files = write({"model": {"a": torch.ones(4), "b": torch.ones(400)}})
    told: list[tuple[Any, ...]] = []

    component = flat_component(opened(files), "model", lambda *place: told.append(place))
    for leaf in component.leaves.values():
        leaf.release()

    assert all(
        files[path][start:stop] == torch.ones((stop - start) // 4).numpy().tobytes() for path, start, stop in told
    )
    assert sorted(stop - start for _, start, stop in told) == [16, 1600]


def test_a_malformed_node_is_an_error_of_ours():
    files = write({"model": {"a": torch.ones(4)}})
    tree = files["model/tree.json"]
    files["model/tree.json"] = tree.replace(b'"tree":{', b'"tree":{"$dict":[1],')
    assert files["model/tree.json"] != tree

    with pytest.raises(CkptvcsError, match="model"):
        flat_component(opened(files), "model", lambda *_: None)
