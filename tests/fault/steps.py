"""`ckpt`, which stops or dies before its n-th step: a call that changes a file, or a program that it starts.

usage: steps.py SIGNAL N ARGS...

With N = 0 it runs to its end and says on its last line of stderr how many steps there were.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

CHANGES = {"os.remove", "os.rename", "os.link", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate", "subprocess.Popen"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def watch(signum: int, at: int) -> list[str]:
    """Let the process get a signal before a step; returns the steps, to which each is added."""
    steps: list[str] = []

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in CHANGES or (event == "open" and isinstance(args[2], int) and args[2] & WRITES):
            steps.append(event)
            if len(steps) == at:
                os.kill(os.getpid(), signum)

    sys.addaudithook(hook)
    return steps


def main() -> None:
    signum, at, arguments = signal.Signals[sys.argv[1]], int(sys.argv[2]), sys.argv[3:]
    from ckptvcs.cli.main import main as ckpt

    steps = watch(signum, at)
    try:
        ckpt(arguments)
    finally:
        if not at:
            print(len(steps), file=sys.stderr)


if __name__ == "__main__":
    main()
