"""What else DVC tracks here, and what it would not see of ours."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.errors import BadConfig, Refused
from ckptvcs.paths import printable
from ckptvcs.storage.plain_yaml import plain_yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

_MAX_YAML: Final = 8 << 20


@dataclass(frozen=True, slots=True)
class Output:
    """An output that DVC tracks: its path relative to the DVC root, and its object name."""

    path: str
    name: str


def outputs(data: bytes, *, file: str, stages: bytes = b"") -> list[Output]:
    """The outputs that a foreign `.dvc` file or `dvc.lock` names; nothing for a file that we cannot read.

    It is somebody else's file, and only a note in our provenance: a broken one must not stop a commit.

    Args:
        data: its bytes.
        file: its path relative to the DVC root.
        stages: the bytes of the `dvc.yaml` beside a `dvc.lock`: that alone says in which folder a stage runs.
    """
    folder = os.path.dirname(file)
    try:
        document = _document(data)
        if file.endswith("dvc.lock"):
            folders = _folders_of_stages(stages)
            found = [
                (out, os.path.join(folder, folders.get(name.partition("@")[0], "")))
                for name, stage in (document.get("stages") or {}).items()
                for out in stage.get("outs", [])
            ]
        else:
            found = [(out, os.path.join(folder, document.get("wdir", ""))) for out in document.get("outs", [])]
        return [
            Output(os.path.normpath(os.path.join(base, out["path"])), str(out["md5"]))
            for out, base in found
            if "md5" in out
        ]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []


def _document(data: bytes) -> Any:
    if len(data) > _MAX_YAML:
        raise ValueError("it is too large")
    return plain_yaml(data)


def _folders_of_stages(data: bytes) -> dict[str, str]:
    """The `wdir` of each stage of a `dvc.yaml`; without those that are templates, whose values are elsewhere."""
    found = {}
    try:
        for name, stage in (_document(data).get("stages") or {}).items():
            folder = (stage.get("do") or stage).get("wdir")  # `do` is the body of a `foreach`
            if isinstance(folder, str) and "${" not in folder:
                found[name] = folder
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}
    return found


def ignored_paths(root: Path, paths: Iterable[str]) -> list[str]:
    """Those of our paths (relative to the DVC root) that a `.dvcignore` would hide from DVC.

    DVC silently leaves such a file out of a directory, so that its own view of a checkpoint would be incomplete. It goes
    from the root down and never into a folder that is hidden; what a `.dvcignore` further down says counts more.

    Raises:
        BadConfig: a `.dvcignore` holds a line that is no pattern.
    """
    paths = list(paths)
    folders = {folder for path in paths for folder, _ in _steps(path)}
    rules = {folder: found for folder in folders if (found := _rules(root / folder / ".dvcignore"))}
    if not rules:
        return []
    verdicts = {step: _is_hidden(step, rules) for path in paths for _, step in _steps(path)}
    return sorted({path for path in paths if any(verdicts[step] for _, step in _steps(path))})


def _steps(path: str) -> list[tuple[str, str]]:
    """The way from the root to a file: (folder, what is entered from there); folders with a slash behind them."""
    parts = path.split("/")
    last = len(parts) - 1
    return [("/".join(parts[:i]), "/".join(parts[: i + 1]) + ("/" if i < last else "")) for i in range(len(parts))]


def _is_hidden(step: str, rules: Mapping[str, Sequence[_Rule]]) -> bool:
    """What the last rule that fits a file or folder says about it; those of the nearest `.dvcignore` come last."""
    is_folder = step.endswith("/")
    for folder in sorted(rules, key=len, reverse=True):
        prefix = f"{folder}/" if folder else ""
        if not step.startswith(prefix) or step == prefix:
            continue
        for rule in reversed(rules[folder]):
            if (is_folder or not rule.only_folders) and rule.pattern.match_file(step[len(prefix) :]):
                return bool(rule.pattern.include)
    return False


@dataclass(frozen=True, slots=True)
class _Rule:
    """A line of a `.dvcignore`. To DVC a rule that ends in a slash says nothing about the files in such a folder."""

    pattern: Any
    only_folders: bool


def _rules(path: Path) -> list[_Rule]:
    lines = [line.strip() for line in _ignore_lines(path)]
    if not lines:
        return []
    from pathspec import GitIgnoreSpec

    # Not its `match_file`, which prefers rules for folders to later ones for files, as git does and DVC does not.
    try:
        patterns = GitIgnoreSpec.from_lines(lines).patterns
    except ValueError as err:  # DVC stops at such a line too
        raise BadConfig(f"cannot read '{path}'", why=printable(str(err)), next_step="mend the file by hand") from err
    found = zip(patterns, lines, strict=True)
    return [_Rule(pattern, line.endswith("/")) for pattern, line in found if pattern.include is not None]


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
