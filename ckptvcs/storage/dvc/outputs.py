"""What else DVC tracks here, and what it would not see of ours."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ckptvcs.errors import Refused
from ckptvcs.paths import printable
from ckptvcs.storage.plain_yaml import plain_yaml

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_MAX_YAML: Final = 8 << 20


@dataclass(frozen=True, slots=True)
class Output:
    """An output that DVC tracks: its path relative to the DVC root, and its object name."""

    path: str
    name: str


def outputs(data: bytes, *, file: str) -> list[Output]:
    """The outputs that a foreign `.dvc` file or `dvc.lock` names; nothing for a file that we cannot read.

    It is somebody else's file, and only a note in our provenance: a broken one must not stop a commit.
    """
    if len(data) > _MAX_YAML:
        return []
    folder = os.path.dirname(file)
    try:
        document = plain_yaml(data)
        if file.endswith("dvc.lock"):
            stages = (document.get("stages") or {}).values()
            found = [(out, folder) for stage in stages for out in stage.get("outs", [])]
        else:
            found = [(out, os.path.join(folder, document.get("wdir", ""))) for out in document.get("outs", [])]
        return [
            Output(os.path.normpath(os.path.join(base, out["path"])), str(out["md5"]))
            for out, base in found
            if "md5" in out
        ]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []


def ignored_paths(root: Path, paths: Iterable[str]) -> list[str]:
    """Those of our paths (relative to the DVC root) that a `.dvcignore` would hide from DVC.

    DVC silently leaves such a file out of a directory, so that its own view of a checkpoint would be incomplete.
    """
    paths = list(paths)
    folders = {"/".join(path.split("/")[:i]) for path in paths for i in range(path.count("/") + 1)}
    hidden: set[str] = set()
    for folder in folders:
        lines = _ignore_lines(root / folder / ".dvcignore")
        if not lines:
            continue
        from pathspec import GitIgnoreSpec

        spec = GitIgnoreSpec.from_lines(lines)
        prefix = f"{folder}/" if folder else ""
        hidden.update(p for p in paths if p.startswith(prefix) and spec.match_file(p[len(prefix) :]))
    return sorted(hidden)


def _ignore_lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def refuse_overlap(track_path: str, others: Iterable[Output]) -> None:
    """Refuse a track whose directory lies inside an output of DVC, or around one.

    Raises:
        Refused: the other output would count as modified for ever.
    """
    for other in others:
        inside = f"{track_path}/".startswith(f"{other.path}/") or f"{other.path}/".startswith(f"{track_path}/")
        if inside:
            raise Refused(
                f"cannot keep a track in '{printable(track_path)}'",
                why=f"DVC already tracks '{printable(other.path)}', and one output must not lie inside another",
                next_step="choose another 'directory' in ckpt.yaml, or 'dvc remove' that output",
            )
