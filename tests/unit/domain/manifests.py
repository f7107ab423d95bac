"""Manifests to test with."""

from __future__ import annotations

import json
from typing import Any

from ckptvcs.domain.manifest import ComponentEntry, FileEntry, Manifest, RunEntry, SourceEntry
from ckptvcs.domain.provenance import Code, DataEntry, Environment, Provenance


def file(path: str, *, size: int = 10, digest: str = "a") -> FileEntry:
    """A file whose name and digest are made of one letter."""
    return FileEntry(path=path, size=size, md5=digest * 32, blake3=digest * 64)


def component(name: str, *files: FileEntry, role: str | None = None) -> ComponentEntry:
    return ComponentEntry(name=name, role=role or name, encoding="tree", files=files)


def manifest(**changes: Any) -> Manifest:
    """A manifest that says something everywhere."""
    fields: dict[str, Any] = {
        "track": "model",
        "created": "2026-01-01T00:00:00.000000+00:00",
        "run": RunEntry(id="0123456789abcdef", name="bert-lr3e-4"),
        "reason": "manual",
        "grade": "exact",
        "components": (
            component("model", file("model/tree.json"), file("model/encoder.safetensors", size=200, digest="b")),
            component("optimizer", file("optimizer/tree.json", digest="c")),
        ),
        "files": (file("code.patch", size=3, digest="d"),),
        "source": SourceEntry(format="pt", name="last.pt", metadata={"format": "pt"}),
        "provenance": Provenance(
            code=Code(commit="e" * 40, changed=("train.py",), patch="f" * 64),
            data=(DataEntry(name="train", version="md5:1"),),
            environment=Environment(python="3.11.7", cpus=2, memory=1 << 34, packages={"torch": "2.10"}),
            seeds={"python": 7},
            command=("python", "train.py"),
        ),
        "parents": ("9" * 64,),
        "step": 1200,
        "epoch": 1.5,
        "metrics": {"val_loss": 0.31},
        "params": {"lr": 3e-4, "layers": [1, 2], "nested": {"a": None}},
    }
    return Manifest(**{**fields, **changes})


def canonical(document: Any) -> bytes:
    """The canonical bytes of a document, by `json` alone."""
    return (json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()
