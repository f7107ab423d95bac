"""One of many who work on one repository, or on one hub, at once.

usage: crowd.py MODE FOLDER BRANCH WHO COUNT

Waits until there is a file `go` beside the folder. MODE `ours` commits to one branch as users do. `naive` looks where the
branch is and then moves it, without lock and compare-and-swap: a writer that a test must be seen to catch. `share` commits to
a branch of its own and to one that others commit to as well, and pushes both, from a clone of its own.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import numpy

from ckptvcs import Repo
from ckptvcs.errors import Conflict
from ckptvcs.porcelain import fetch, push
from ckptvcs.storage import files
from ckptvcs.storage.history import commits
from ckptvcs.storage.history.repository import HEADS


def without_a_lock() -> None:
    """Take out the compare-and-swap, and the lock around it."""

    def move_ref(history, ref, *, old, new, reason, lock):
        if history.tip(ref) != old:
            raise commits._moved(ref)
        time.sleep(0.03)
        history.repo.references.create(ref, new, force=True)

    commits.move_ref = move_ref
    files.Lock._acquire = lambda self: None


def push_of(repo: Repo, *branches: str) -> None:
    push.execute(repo._repo, push.plan_push(repo._repo, branches))


def share(repo: Repo, branch: str, who: int, n: int) -> None:
    """One round: push a checkpoint on the own branch with a note, and another one on the branch that all push to."""
    own = f"own-{who}"
    step = 1000 * who + n
    repo.commit({"model": {"w": numpy.arange(64) + step}}, branch=own, step=step)
    repo.note(own, {"late": float(step)})
    push_of(repo, own)
    print(repo._repo.history.tip(HEADS + own), flush=True)
    repo.commit({"model": {"w": numpy.arange(64) - step}}, branch=branch, step=step)
    while True:
        try:
            push_of(repo, branch)
        except Conflict:
            print("conflict", flush=True)
            fetch.fetch(repo._repo)
            rebase(repo, branch)
        else:
            print(repo._repo.history.tip(HEADS + branch), flush=True)
            return


def rebase(repo: Repo, branch: str) -> None:
    """Put what is new on the branch on top of what the others have, as the how-to says: one side of `checkpoints`, whole."""
    if git(repo, "rebase", "-q", f"origin/{branch}", branch):
        git(repo, "checkout", "--theirs", "--", "checkpoints")
        git(repo, "add", "checkpoints")
        assert git(repo, "-c", "core.editor=true", "rebase", "--continue") == 0


def git(repo: Repo, *args: str) -> int:
    return subprocess.run(["git", *args], cwd=repo.root, check=False, capture_output=True).returncode


def main() -> None:
    mode, folder, branch, who, count = sys.argv[1:]
    if mode == "naive":
        without_a_lock()
    go = Path(folder).parent / "go"
    with Repo(folder) as repo:
        print("ready", flush=True)
        while not go.exists():
            time.sleep(0.005)
        for n in range(int(count)):
            if mode == "share":
                share(repo, branch, int(who), n)
                continue
            with contextlib.suppress(*([Exception] if mode == "naive" else [])):  # what it breaks may break it
                state = {"model": {"w": numpy.arange(16) + 1000 * int(who) + n}}
                done = repo.commit(state, branch=branch, step=1000 * int(who) + n, message=f"{who}:{n}")
                print(done.commit, flush=True)


if __name__ == "__main__":
    main()
