"""Faults at chosen system calls of a real process, by strace: it dies there, or the call fails.

A point is (system call, n): the n-th such call of a thread. Only calls that change something are points.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

CALLS = (
    "write pwrite64 writev pwritev openat fsync fdatasync syncfs rename renameat renameat2 link linkat unlink unlinkat mkdir "
    "mkdirat rmdir chmod fchmod fchmodat ftruncate fallocate copy_file_range sendfile symlink symlinkat utimensat"
).split()

# Which calls can fail with which error: a disk that is full has no trouble with `unlink`.
FAILING = {
    "ENOSPC": "write pwrite64 openat link linkat mkdir mkdirat rename renameat renameat2 fallocate copy_file_range".split(),
    "EIO": "write pwrite64 fsync fdatasync syncfs link rename renameat renameat2 copy_file_range ftruncate".split(),
    "EROFS": "openat link mkdir mkdirat rename renameat renameat2 unlink unlinkat".split(),
    "EACCES": "openat link mkdir mkdirat rename renameat renameat2".split(),
}

_LINE = re.compile(r"(\d+)\s+(\w+)\((.*)")


@dataclass(frozen=True)
class Point:
    """One system call of a process."""

    call: str
    number: int
    detail: str

    def __str__(self) -> str:
        return f"{self.call}#{self.number} {self.detail[:90]}"

    def fits(self, pattern: str) -> bool:
        return re.search(pattern, f"{self.call} {self.detail}") is not None


def required() -> str:
    """The strace program; the test is skipped, and says why, where there is none that may trace."""
    found = shutil.which("strace")
    if found is None:
        pytest.skip("strace is not installed ('apt-get install strace')")
    if subprocess.run([found, "-qq", "-o", os.devnull, "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace may not trace here")
    return found


def python(script: str | list[str]) -> list[str]:
    """A Python process without surprises between two runs of it."""
    return [sys.executable, "-B", *([script] if isinstance(script, str) else script)]


ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": ""}


def trace(command: list[str], cwd: Path, log: Path) -> list[tuple[str, str, str]]:
    """Run a command and return its calls: (thread, call, arguments and result), in order."""
    _strace(
        ["-o", str(log), "-s", "4096", "-y", "-e", "trace=" + ",".join(f"?{c}" for c in CALLS)],
        command,
        cwd,
        check=True,
    )
    calls = []
    for line in log.read_text(errors="replace").splitlines():
        if match := _LINE.match(line):
            calls.append((match[1], match[2], match[3]))
    return calls


def points(calls: list[tuple[str, str, str]], within: Path) -> list[Point]:
    """The calls that change something below a folder.

    strace counts the calls of each thread, and a fault comes to whichever thread gets to its number first. A call of a
    worker whose number the main thread passes while Python starts can not be reached that way, and is no point.
    """
    main = calls[0][0]
    start_up: Counter[str] = Counter()
    working = False
    counts: Counter[tuple[str, str]] = Counter()
    found: dict[tuple[str, int], Point] = {}
    for thread, call, rest in calls:
        counts[thread, call] += 1
        number = counts[thread, call]
        changes = call != "openat" or re.search(r"O_(CREAT|WRONLY|RDWR|TRUNC)", rest)
        ours = bool(changes) and str(within) in rest
        working = working or ours
        if thread == main and not working:
            start_up[call] += 1
        if ours and (thread == main or number > start_up[call]):
            found.setdefault((call, number), Point(call, number, rest))
    return list(found.values())


def kill(command: list[str], cwd: Path, point: Point) -> subprocess.CompletedProcess[str]:
    """Run a command that dies just before a call."""
    return _strace(
        [
            "-o",
            os.devnull,
            "-e",
            f"trace={point.call}",
            "-e",
            f"inject={point.call}:signal=SIGKILL:when={point.number}",
        ],
        command,
        cwd,
    )


def fail(
    command: list[str], cwd: Path, point: Point, error: str, *, for_ever: bool
) -> subprocess.CompletedProcess[str]:
    """Run a command in which a call fails, once or from then on."""
    when = f"{point.number}+" if for_ever else point.number
    return _strace(
        ["-o", os.devnull, "-e", f"trace={point.call}", "-e", f"inject={point.call}:error={error}:when={when}"],
        command,
        cwd,
    )


def _strace(
    options: list[str], command: list[str], cwd: Path, *, check: bool = False
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [required(), "-f", "-qq", *options, *command],  # with --seccomp-bpf, strace 6.1 does not count the calls
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, **ENVIRONMENT},
        timeout=300,
        check=check,
    )


def sample(points: list[Point], count: int) -> list[Point]:
    """Some points, spread evenly over all of them; the first and the last are among them."""
    if len(points) <= count:
        return points
    step = (len(points) - 1) / (count - 1)
    return [points[round(i * step)] for i in range(count)]
