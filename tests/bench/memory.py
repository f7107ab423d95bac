"""How much memory a process needs at its peak."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.bench.ground import ENVIRONMENT

# A process starts with the peak of the one that made it, so a small one stands between.
_BETWEEN = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode)
"""


def peak_bytes(command: list[str], cwd: Path) -> int:
    """The most that was resident at once, as the kernel accounts it: maps of files included."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", _BETWEEN, *command],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr}")
    return int(done.stdout) * 1024


def script(code: str) -> list[str]:
    return [sys.executable, "-c", code]
