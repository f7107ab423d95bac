"""What the patterns of an import mean: which files and folders are checkpoints. Looking only; no file is read but its head.

A file that is a part of a checkpoint folder (`checkpoint-500/optimizer.pt`) stands for the folder. Hidden files and folders
are left alone unless they are named, and links to folders are not followed on the way.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import translate
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ckptvcs.domain.import_names import SUFFIXES, says_when, stem_of
from ckptvcs.errors import UsageError
from ckptvcs.formats.components import EXTRA, role_of
from ckptvcs.formats.foreign import detect, heads
from ckptvcs.paths import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_MAGIC: Final = re.compile(r"[*?[]")
_ABOVE: Final = 3
"""How far above a file the folder may be that it is a part of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A file or folder that looks like a checkpoint."""

    path: Path
    """As it was found, which may be a link."""
    files: tuple[Path, ...]
    """What belongs to it: the file itself, or all files of the folder."""
    left_out: tuple[Path, ...]
    """What lies in the folder and is a checkpoint of its own."""
    nbytes: int

    @property
    def is_folder(self) -> bool:
        return self.files != (self.path,)

    @property
    def home(self) -> Path:
        """The folder whose run it is of: that in which it lies, or itself if it holds the checkpoints of its run."""
        return self.path if self.left_out else self.path.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """Everything that the patterns mean."""

    found: tuple[Found, ...]
    others: tuple[Path, ...]
    """Files that fit a pattern and are no checkpoints."""
    notes: tuple[str, ...]


def gather(patterns: Sequence[str], *, root: Path, directory: str) -> Gathered:
    """Find what patterns mean.

    Args:
        patterns: paths, or patterns with `*`, `?`, `[...]` and `**`. A folder means all checkpoints in it.
        root: of the repository; it is no checkpoint, whatever lies in it.
        directory: that of its artifacts, relative to the root: they are commits already.

    Raises:
        UsageError: a path does not exist, or nothing was found at all.
    """
    look = _Look(root, directory)
    for pattern in patterns:
        look.take(pattern)
    if not look.found:
        hint = f"; {len(look.others)} files fit, and none of them is a checkpoint" if look.others else ""
        raise UsageError(
            "nothing to import",
            why=f"no checkpoint fits {', '.join(repr(printable(p)) for p in patterns)}{hint}",
            next_step="name files or folders, or a pattern in quotes such as 'runs/**/*.pt'",
        )
    return Gathered(
        found=tuple(look.found[path] for path in sorted(look.found)),
        others=tuple(sorted(look.others)),
        notes=tuple(look.notes),
    )


class _Look:
    """What was found so far."""

    def __init__(self, root: Path, directory: str) -> None:
        self._root = root.resolve()
        self._besides = self._root / directory
        self._formats: dict[Path, str | None] = {}
        self.found: dict[Path, Found] = {}
        self.others: set[Path] = set()
        self.notes: list[str] = []

    def take(self, pattern: str) -> None:
        literal = os.path.lexists(pattern)
        if not literal and not _MAGIC.search(pattern):
            raise UsageError(
                f"cannot read '{printable(pattern)}'",
                why="there is no such file or folder",
                next_step="check the path",
            )
        hits = [Path(pattern)] if literal else list(_expanded(pattern))
        if not hits:
            self.notes.append(f"nothing fits '{pattern}'")
        for hit in sorted(set(hits)):
            path = Path(os.path.normpath(hit.absolute()))
            if path.is_dir():
                self._folder(path)
            else:
                self._file(path)

    def _folder(self, path: Path) -> None:
        if self._format(path.parent) == "artifact":
            self._add_folder(path.parent)
            return
        for folder, folders, files in os.walk(path):
            here = Path(folder)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            kind = self._format(here)
            if kind is not None:
                self._add_folder(here)
            for name in sorted(files):
                if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                    if _leads_out(here / name, path):
                        self.notes.append(
                            f"'{printable(str(here / name))}' is a link that leads out: name it to import it"
                        )
                    else:
                        self._file(here / name)
            if kind in ("artifact", "dcp"):
                folders[:] = []

    def _file(self, path: Path) -> None:
        whole = self._whole(path)
        if whole is not None:
            self._add_folder(whole)
        elif _is_checkpoint(path):
            self.found[path] = Found(path=path, files=(path,), left_out=(), nbytes=_nbytes([path]))
        else:
            self.others.add(path)

    def _whole(self, path: Path) -> Path | None:
        """The checkpoint folder that a file is a part of."""
        for above, folder in enumerate(list(path.parents)[:_ABOVE]):
            kind = self._format(folder)
            if kind == "hf" and above and not says_when(folder.name):
                continue  # a model beside a folder does not make what is in that folder a part of it
            if kind is not None:
                return None if kind == "hf" and _stands_alone(path) else folder
        return None

    def _add_folder(self, path: Path) -> None:
        if path in self.found or path.parent.resolve() == self._besides:
            return
        left_out: list[Path] = []
        files = tuple(self._members(path, left_out, inside=self._format(path) == "hf"))
        self.found[path] = Found(path=path, files=files, left_out=tuple(left_out), nbytes=_nbytes(files))

    def _members(self, path: Path, left_out: list[Path], *, inside: bool) -> Iterator[Path]:
        """The files of a checkpoint folder; what in it is a checkpoint of its own does not depend on any pattern."""
        for folder, folders, names in os.walk(path):
            here = Path(folder)
            own = [here / name for name in sorted(folders) if inside and self._format(here / name)]
            own += [here / name for name in sorted(names) if inside and _stands_alone(here / name)]
            left_out += own
            folders[:] = sorted(name for name in folders if here / name not in own and name != ".git")
            yield from (file for name in sorted(names) if (file := here / name) not in own and file.is_file())

    def _format(self, path: Path) -> str | None:
        if path not in self._formats:
            try:
                self._formats[path] = self._look_at(path)
            except OSError:
                self._formats[path] = None  # what cannot be listed holds nothing for us
        return self._formats[path]

    def _look_at(self, path: Path) -> str | None:
        if self._root.is_relative_to(path.resolve()):
            return None
        kind = detect.folder_format(path)
        return "hf" if kind is None and says_when(path.name) and _holds_parts(path) else kind


def _holds_parts(path: Path) -> bool:
    """Whether the checkpoints that lie in a folder are called by their roles: `model.pt`, `optimizer.pt`."""
    names = [entry.name for entry in path.iterdir() if entry.name.lower().endswith(SUFFIXES)]
    return bool(names) and all(role_of(stem_of(name)) != EXTRA for name in names)


def _stands_alone(path: Path) -> bool:
    """Whether a file in a checkpoint folder is one of a series by its name (`step_100.pt`), and no part of the folder."""
    return path.name.lower().endswith(SUFFIXES) and says_when(path.name) and role_of(stem_of(path.name)) == EXTRA


def _leads_out(path: Path, folder: Path) -> bool:
    """Whether a file that is only met on the way is a link to somewhere else."""
    return path.is_symlink() and path.exists() and not path.resolve().is_relative_to(folder.resolve())


def _is_checkpoint(path: Path) -> bool:
    try:
        if not path.is_file():  # a pipe would keep us waiting; reading it will say what it is
            return path.name.lower().endswith(SUFFIXES)
        with path.open("rb") as file:
            head = file.read(heads.ENOUGH)
        return heads.raw_checkpoint(path.name, head, path.stat().st_size) is not None
    except OSError:
        return path.name.lower().endswith(SUFFIXES)  # then reading it will say what is wrong with it


def _nbytes(files: Iterable[Path]) -> int:
    """Bytes of files; of those that cannot be looked at none, and reading them will say why."""
    total = 0
    for file in files:
        with suppress(OSError):
            total += file.stat().st_size
    return total


def _expanded(pattern: str) -> Iterator[Path]:
    """Every path that a pattern fits. A `**` stands for any folders on the way, links and hidden ones left out."""
    parts = Path(pattern).parts
    first = next(n for n, part in enumerate(parts) if _MAGIC.search(part))
    yield from _below(Path(*parts[:first]), parts[first:])


def _below(folder: Path, parts: Sequence[str]) -> Iterator[Path]:
    part, *rest = parts
    if part == "**":
        yield from _below(folder, rest or ["*"])
        for entry in _entries(folder):
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                yield from _below(folder / entry.name, parts)
        return
    if not _MAGIC.search(part):
        if os.path.lexists(folder / part):
            yield from _below(folder / part, rest) if rest else [folder / part]
        return
    fits = re.compile(translate(part)).match
    for entry in _entries(folder):
        if fits(entry.name) and (part.startswith(".") or not entry.name.startswith(".")):
            if rest and entry.is_dir():
                yield from _below(folder / entry.name, rest)
            elif not rest:
                yield folder / entry.name


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        return sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return []  # what cannot be listed, or is no folder, holds nothing that fits
