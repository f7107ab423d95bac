"""`hooks install` and `hooks uninstall`: the scripts of `ckptvcs/hooks`, in a repository that may have hooks of others.

A script of ours is a block between two lines. Where there is no hook, the whole script is put; in a shell script of somebody
else the block goes first, because many of them end in `exec`. What is no shell script is left, and told.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from ckptvcs.errors import UsageError, from_os_error
from ckptvcs.porcelain import config as configuration
from ckptvcs.porcelain.repo import Repository
from ckptvcs.storage import files
from ckptvcs.storage.history import program

if TYPE_CHECKING:
    from collections.abc import Mapping

CLIENT: Final = ("pre-commit", "pre-push", "post-checkout", "post-merge")
SERVER: Final = ("update",)

Deed = Literal["make", "add", "renew", "keep", "take out", "remove", "leave"]
"""A file of ours; our block in a file of others, or a newer one; nothing to do; the reverse of the first two; not ours to do."""

_BLOCK: Final = re.compile(r"^# >>> ckptvcs >>>.*?^# <<< ckptvcs <<<(?:\n|\Z)", re.MULTILINE | re.DOTALL)
_SHELL: Final = re.compile(
    r"#![ \t]*(\S*/)?(env[ \t]+(-\S+[ \t]+)*)?(\S*/)?(sh|ash|bash|dash|ksh|mksh|zsh)([ \t][^\n]*)?\n"
)
_MAX_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What happens to one hook."""

    name: str
    deed: Deed
    text: str = ""
    """What it says then."""
    mode: int | None = None
    """Its permissions, where they are those of somebody else's file."""
    why: str = ""
    """Why it is left."""
    next_step: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HooksPlan:
    """What installing or uninstalling would do."""

    folder: Path
    git_dir: Path
    changes: tuple[Change, ...]
    program: str | None
    """Where hooks find `ckpt` if PATH does not have it; None if git's configuration is right as it is."""
    forget: bool
    """Whether it is to be taken out of git's configuration."""
    notes: tuple[str, ...]

    @property
    def left(self) -> list[Change]:
        """The hooks that somebody has to look after."""
        return [change for change in self.changes if change.deed == "leave"]

    @property
    def done(self) -> list[Change]:
        """The hooks that change."""
        return [change for change in self.changes if change.deed not in ("leave", "keep")]


# -------------------------------------------------------------------------------------------------------------- plan


def plan_install(start: Path, *, server: bool = False) -> HooksPlan:
    """Look at everything, change nothing.

    Args:
        start: a folder in the repository.
        server: the hook of a repository that is pushed to, which needs nothing but git; else those of a clone.

    Raises:
        NoRepository: there is no repository; for the hooks of a clone, none of ckptvcs.
        UsageError: it is bare, and the hooks are those of a clone.
    """
    variables = configuration.surroundings().variables
    place = program.hook_folder(start, variables)
    if not server and place.worktree is None:
        raise UsageError(
            f"cannot install the hooks of a clone in '{start}'",
            why="the repository there is bare: nobody commits in it",
            next_step="ckpt hooks install --server, for the hook of a repository that is pushed to",
        )
    if not server:
        Repository.open(start)  # raises if it is none of ours: its hooks would find nothing to do
    found = _program()
    known = _configured(place, variables)
    notes = [f"git looks for hooks in '{place.path}' (core.hooksPath), and may do so for other repositories too"]
    return HooksPlan(
        folder=place.path,
        git_dir=place.git_dir,
        changes=tuple(_installed(place.path / name, name) for name in (SERVER if server else CLIENT)),
        program=found if not server and found != known else None,
        forget=False,
        notes=tuple(notes if place.shared else ()),
    )


def plan_uninstall(start: Path) -> HooksPlan:
    """Look which hooks are ours, or have something of ours in them; change nothing.

    Raises:
        NoRepository: there is no repository.
    """
    variables = configuration.surroundings().variables
    place = program.hook_folder(start, variables)
    changes = [_uninstalled(place.path / name, name) for name in (*CLIENT, *SERVER)]
    return HooksPlan(
        folder=place.path,
        git_dir=place.git_dir,
        changes=tuple(change for change in changes if change is not None),
        program=None,
        forget=_configured(place, variables) is not None,
        notes=(),
    )


def script(name: str) -> str:
    """The hook as it is where there is no other."""
    return resources.files("ckptvcs").joinpath("hooks", name).read_text(encoding="utf-8")


def _block(name: str) -> str:
    found = _BLOCK.search(script(name))
    assert found is not None  # a test holds that each has one
    return found[0]


def _installed(path: Path, name: str) -> Change:
    mode = _mode(path)
    if mode is None:
        return Change(name=name, deed="make", text=script(name))
    call = f"call 'ckpt hook {name} \"$@\"' in it, or move it away and run this again"
    if not stat.S_ISREG(mode):
        return Change(name=name, deed="leave", why="it is a link, or no file", next_step=call)
    text = _text(path)
    if text is not None and f"ckpt hook {name}" in _BLOCK.sub("", text):
        return Change(name=name, deed="keep")  # somebody did what we tell below
    if text is None or not _SHELL.match(text):
        return Change(name=name, deed="leave", why="it is no shell script", next_step=call)
    if not mode & stat.S_IXUSR:
        return Change(
            name=name,
            deed="leave",
            why="it may not be executed, so git does not run it",
            next_step=f"chmod +x '{path}' if that was not meant, or move it away; then run this again",
        )
    return _with_block(name, text, stat.S_IMODE(mode))


def _with_block(name: str, text: str, mode: int) -> Change:
    if _BLOCK.search(text):
        new = _BLOCK.sub(lambda _: _block(name), text, count=1)
        return Change(name=name, deed="keep" if new == text else "renew", text=new, mode=mode)
    first, _, rest = text.partition("\n")
    return Change(name=name, deed="add", text=f"{first}\n{_block(name)}{rest}", mode=mode)


def _uninstalled(path: Path, name: str) -> Change | None:
    mode = _mode(path)
    text = _text(path) if mode is not None and stat.S_ISREG(mode) else None
    if text is None or mode is None or not _BLOCK.search(text):
        return None
    rest = _BLOCK.sub("", text)
    if rest == _BLOCK.sub("", script(name)):
        return Change(name=name, deed="remove")
    return Change(name=name, deed="take out", text=rest, mode=stat.S_IMODE(mode))


def _mode(path: Path) -> int | None:
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return None
    except OSError as err:
        raise from_os_error(err, doing=f"look at '{path}'") from err


def _text(path: Path) -> str | None:
    """What a script says, in whatever encoding; None if it is none."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as err:
        raise from_os_error(err, doing=f"read '{path}'") from err
    return None if len(data) > _MAX_BYTES or b"\0" in data else data.decode("utf-8", "surrogateescape")


def _program() -> str | None:
    """The `ckpt` beside the Python that runs."""
    found = Path(sys.executable).with_name("ckpt")
    return str(found) if os.access(found, os.X_OK) else None


def _configured(place: program.HookFolder, variables: Mapping[str, str]) -> str | None:
    done = program.run(place.git_dir, variables, "config", "--get", program.PROGRAM)
    return done.stdout.decode("utf-8", "surrogateescape").removesuffix("\n") or None


# --------------------------------------------------------------------------------------------------------------- act


def execute(plan: HooksPlan) -> None:
    """Do what the plan says, once.

    Raises:
        StorageError: the folder cannot be written.
    """
    try:
        if plan.done:
            plan.folder.mkdir(parents=True, exist_ok=True)
        for change in plan.done:
            _execute(plan.folder / change.name, change)
    except OSError as err:
        raise from_os_error(err, doing=f"write to '{plan.folder}'") from err
    variables = configuration.surroundings().variables
    if plan.program is not None:
        program.output(plan.git_dir, variables, "config", program.PROGRAM, plan.program)
    if plan.forget:
        program.output(plan.git_dir, variables, "config", "--unset-all", program.PROGRAM)


def _execute(path: Path, change: Change) -> None:
    if change.deed == "remove":
        path.unlink()
        return
    data = change.text.encode("utf-8", "surrogateescape")
    if change.mode is None:
        files.write_atomic(path, data, mode=0o777)
    else:
        files.write_atomic(path, data, mode=change.mode, exactly=True)
