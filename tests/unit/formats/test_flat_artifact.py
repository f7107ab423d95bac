"""A component that is taken out of an artifact is the one that went in: written again, it is the same file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ckptvcs.errors import CkptvcsError
from ckptvcs.formats.flat_artifact import flat_component
from ckptvcs.formats.leaf import PIECE
from ckptvcs.formats.mapped import MappedFile
from ckptvcs.formats.reading import Artifact
from tests.support.states import training_state
from tests.unit.formats.makers import components_of, files_of, opened, write


def again(files: dict[str, bytes]) -> dict[str, bytes]:
    artifact = opened(files)
    return files_of([flat_component(artifact, name) for name in artifact.names])


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

    (component,) = [flat_component(opened(write(state)), "optimizer")]

    assert component.paths == components_of(state)[0].paths


def test_pages_of_a_large_tensor_go_back_while_it_is_read(tmp_path: Path):
    whole = torch.arange(5 * PIECE // 4, dtype=torch.float32)
    files = write({"model": {"b": whole}})
    told: list[tuple[int, int]] = []

    class Told(MappedFile):
        def forget(self, start: int, stop: int) -> None:
            told.append((start, stop))
            super().forget(start, stop)

    def open_file(path: str) -> MappedFile:
        file = tmp_path / path.replace("/", "-")
        file.write_bytes(files[path])
        return Told(file)

    leaf = flat_component(Artifact(["model"], open_file), "model").leaves["b"]
    pieces = [bytes(piece) for piece in leaf.pieces()]

    assert b"".join(pieces) == whole.numpy().tobytes()
    assert {len(piece) for piece in pieces} == {PIECE}
    shard = next(data for path, data in files.items() if path.endswith(".safetensors"))
    assert b"".join(shard[start:stop] for start, stop in told[:-1]) == whole.numpy().tobytes()
    assert told[-1] == (told[0][0], told[-2][1])


def test_a_malformed_node_is_an_error_of_ours():
    files = write({"model": {"a": torch.ones(4)}})
    tree = files["model/tree.json"]
    files["model/tree.json"] = tree.replace(b'"tree":{', b'"tree":{"$dict":[1],')
    assert files["model/tree.json"] != tree

    with pytest.raises(CkptvcsError, match="model"):
        flat_component(opened(files), "model")
