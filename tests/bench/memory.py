"""How much memory a process needs at its peak."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from tests.bench.ground import ENVIRONMENT


def peak_bytes(command: list[str], cwd: Path) -> int:
    """The most that was resident at once, as the kernel accounts it (maps of files included)."""
    process = subprocess.Popen(command, cwd=cwd, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said: list[bytes] = []
    reader = threading.Thread(target=lambda: said.append(process.stderr.read()))  # type: ignore[union-attr]
    reader.start()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    reader.join()
    if process.returncode:
        raise RuntimeError(f"{command}: {b''.join(said).decode()}")
    return usage.ru_maxrss * 1024


def script(code: str) -> list[str]:
    return [sys.executable, "-c", code]
