"""One of many at one hub and one store, while a clock runs fast: who pushes, or who collects garbage beside them.

usage: gc_crowd.py push|collect FOLDER WHO SECONDS MAX_PUSH_S

What is pushed is put together from a few parts, so that what was dropped a moment ago is needed again. A push may take
`MAX_PUSH_S`, and what is condemned waits a little longer than that. Who pushes says which commits he was told are there; who
collects says how many objects he swept.
"""

from __future__ import annotations

import random
import sys
import time

import numpy

from ckptvcs import Repo
from ckptvcs.domain import remote_files
from ckptvcs.errors import Conflict, NeedsPerson
from ckptvcs.porcelain import gc, leases, push, replicas
from ckptvcs.porcelain.repo import Repository
from ckptvcs.storage.history.repository import HEADS

PARTS = 5


def in_a_hurry(max_push_s: float) -> None:
    remote_files.MAX_PUSH_S = max_push_s
    remote_files.GRACE_S = 1.2 * max_push_s + 1
    gc._Run.grace_s = lambda self, place: remote_files.GRACE_S  # type: ignore[method-assign]
    leases.MARGIN_S = 0.2 * max_push_s
    replicas.PATIENCE_S = 4 * max_push_s
    replicas._PAUSE_S = 0.2


def pushes(repo: Repo, who: int, n: int, chosen: random.Random) -> None:
    branch, model, optim = f"own-{who}", chosen.randrange(PARTS), chosen.randrange(PARTS)
    state = {"model": {"w": numpy.arange(64) + 1000 * model}, "optim": {"m": numpy.arange(64) - 1000 * optim - 1}}
    repo.commit(state, branch=branch, step=n, workspace=False)
    try:
        push.execute(repo._repo, push.plan_push(repo._repo, [branch]))
    except Conflict:
        time.sleep(0.5)  # condemned: the next one is made of other parts, and takes this one along
    else:
        print(repo._repo.history.tip(HEADS + branch), flush=True)


def collects(folder: str) -> None:
    try:
        report = gc.collect(Repository.open(folder), gc.Options(places=("bucket",)))
    except NeedsPerson as err:
        agreed = next((int(word) for word in err.next_step.split() if word.isdigit()), None)
        report = gc.collect(Repository.open(folder), gc.Options(places=("bucket",), yes_delete=agreed))
    print(report.swept[0].objects, flush=True)


def main() -> None:
    role, folder, who, seconds, max_push_s = sys.argv[1:]
    in_a_hurry(float(max_push_s))
    end, n, chosen = time.monotonic() + float(seconds), 0, random.Random(int(who))
    with Repo(folder) as repo:
        while time.monotonic() < end:
            n += 1
            if role == "push":
                pushes(repo, int(who), n, chosen)
            else:
                try:
                    collects(folder)
                except NeedsPerson:  # more was dropped while it was asked
                    continue
                time.sleep(0.3)


if __name__ == "__main__":
    main()
