"""What the tests of storage share: real folders, real processes, real damage."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pygit2
import pytest
from pygit2.enums import ConfigLevel

from ckptvcs.storage.files import Lock
from ckptvcs.storage.history.repository import History

Snapshot = dict[str, tuple[int, bytes]]


@pytest.fixture(autouse=True)
def _libgit2_sees_this_home(_isolated: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """libgit2 looks for HOME once, when it is loaded; here it shall see the home of the test."""
    for level in (ConfigLevel.GLOBAL, ConfigLevel.XDG, ConfigLevel.SYSTEM):
        monkeypatch.setitem(_SearchPath(), level, os.environ["HOME"] if level is ConfigLevel.GLOBAL else "")


class _SearchPath(dict):
    """`pygit2.settings.search_path` as a dict, so that monkeypatch can put it back."""

    def __getitem__(self, level: ConfigLevel) -> str:
        return pygit2.settings.search_path[level]

    def get(self, level: ConfigLevel, default: object = None) -> str:
        return self[level]

    def __setitem__(self, level: ConfigLevel, value: str) -> None:
        pygit2.settings.search_path[level] = value


@pytest.fixture
def flip() -> Callable[[Path], None]:
    """Flip one bit in the middle of a file; its mode stays."""

    def damage(path: Path) -> None:
        mode, data = path.stat().st_mode & 0o7777, bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0x10
        path.chmod(0o600)
        path.write_bytes(data)
        path.chmod(mode)

    return damage


@pytest.fixture
def snapshot() -> Callable[[Path], Snapshot]:
    """Everything below a folder: path -> (mode, bytes or target of a link)."""

    def look(folder: Path) -> Snapshot:
        found = {}
        for path in sorted(folder.rglob("*")):
            data = os.readlink(path).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
            found[path.relative_to(folder).as_posix()] = (path.lstat().st_mode, data)
        return found

    return look


@pytest.fixture
def python() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start Python code in another process and wait until it prints `ready`; it is killed when the test ends."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *args: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code, *map(str, args)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


_DVC = """
import json, os, sys, tempfile
from dvc.cli import main

def captured(args):
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        saved = os.dup(1), os.dup(2)
        os.dup2(out.fileno(), 1), os.dup2(err.fileno(), 2)
        status = main(args)
        sys.stdout.flush(), sys.stderr.flush()
        os.dup2(saved[0], 1), os.dup2(saved[1], 2)
        out.seek(0), err.seek(0)
        return [status, out.read(), err.read()]

told = []
for folder, args in json.load(sys.stdin):
    os.chdir(folder)
    told.append(captured(args))
print(json.dumps(told))
"""


@pytest.fixture(scope="session")
def dvc(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[str]]:
    """Run commands of the real `dvc`, all in one process because that takes a second to start; tells what each printed."""
    home = tmp_path_factory.mktemp("home")
    settings = {"HOME": str(home), "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(home / "site")}

    def execute(*commands: tuple[Path, str]) -> list[str]:
        batch = json.dumps([(str(folder), shlex.split(command)) for folder, command in commands])
        environment = {**{k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "XDG_"))}, **settings}
        done = subprocess.run(
            [sys.executable, "-c", _DVC], input=batch, env=environment, capture_output=True, text=True, check=True
        )
        told = json.loads(done.stdout.splitlines()[-1])
        for command, (status, _, err) in zip(commands, told, strict=True):
            assert status == 0, f"dvc {command[1]} ended with {status}: {err}"
        return [out for _, out, _ in told]

    return execute


@pytest.fixture
def dvc_project(tmp_path: Path) -> Path:
    """A git repository for DVC to be initialised in."""
    folder = tmp_path / "project"
    folder.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


@pytest.fixture
def without_privilege() -> Iterator[None]:
    """Modes of files count, even where the tests run as root: this thread, and those that it starts, lose that right."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    before = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, before) == 0
    after = (ctypes.c_uint32 * 6)(*before)
    after[0] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(header, after) == 0
    yield
    assert libc.capset(header, before) == 0


@pytest.fixture
def small_files() -> Iterator[int]:
    """No file may become larger than this many bytes: what a full disk looks like to a writer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    yield 1 << 16
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# ------------------------------------------------------------------------------------------------------ git repositories


@pytest.fixture(scope="session")
def _pattern(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `ground` is a copy of."""
    folder = tmp_path_factory.mktemp("pattern") / "ground"
    for name, text in {
        "a.txt": "a1\n",
        "dir/b.txt": "b1\n",
        "dir/deep/c.json": "{}\n",
        "run.sh": "#!/bin/sh\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("a.txt")
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run(["git", *who, *command], cwd=folder, check=True)
    (folder / "a.txt").write_text("a2\n")
    subprocess.run(["git", *who, "commit", "-qam", "second\n\nwith a body"], cwd=folder, check=True)
    return folder


@pytest.fixture
def ground(tmp_path: Path, _pattern: Path) -> Path:
    """A git repository with two commits: files at the top and in folders, a program, a link."""
    return Path(shutil.copytree(_pattern, tmp_path / "ground", symlinks=True))


@pytest.fixture
def history(ground: Path) -> History:
    return History.discover(ground)


@pytest.fixture
def ask(git, ground: Path) -> Callable[..., str]:
    """What git says of the repository, without the newline behind it."""
    return lambda *args: git(*args, cwd=ground).rstrip("\n")


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[Lock]:
    """A lock of ours, held."""
    with Lock(tmp_path / "lock", timeout_s=0) as held:
        yield held
