"""What is measured. Every experiment returns a table: who took part, how long it took, and what the budget says."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from blake3 import blake3
from safetensors.torch import load_file

import ckptvcs
from ckptvcs.porcelain import ledger
from ckptvcs.porcelain.repo import Repository
from tests.bench import retention, sharing, states
from tests.bench.ground import DvcRoute, forget, repository, shell
from tests.bench.history import long_history
from tests.bench.memory import peak_bytes, script
from tests.bench.timing import Candidate, race
from tests.support import lora, servers

CKPT = f"{sys.executable} -m ckptvcs"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table."""

    name: str
    seconds: float
    ratio: float
    budget: float | None = None

    @property
    def holds(self) -> bool:
        return self.budget is None or self.ratio <= self.budget


@dataclass(frozen=True, kw_only=True)
class Table:
    """The outcome of one experiment; ratios are against the candidate named `reference`."""

    title: str
    reference: str
    rows: list[Row]


def table(title: str, candidates: list[Candidate], reference: str, budgets: dict[str, float]) -> Table:
    base = next(c.median for c in candidates if c.name == reference)
    rows = [Row(name=c.name, seconds=c.median, ratio=c.median / base, budget=budgets.get(c.name)) for c in candidates]
    return Table(title=title, reference=reference, rows=rows)


# ------------------------------------------------------------------------------------------------------------ commit

DVC_ROUTE = "`torch.save` + `dvc add` + `git commit`"


def commit(folder: Path, nbytes: int) -> Table:
    """A state in memory that changed everywhere becomes a durable version."""
    state = states.training_state(nbytes)
    everything = states.tensors(state)
    return _commit(
        folder, nbytes, state, lambda: states.train(everything), f"commit, all changed, {_size(nbytes)}", budget=0.40
    )


def commit_frozen(folder: Path, nbytes: int) -> Table:
    """Nine tenths are frozen."""
    state = states.training_state(nbytes)
    everything = states.tensors(state)
    some = everything[::10]
    return _commit(folder, nbytes, state, lambda: states.train(some), f"commit, 90 % frozen, {_size(nbytes)}")


def commit_unchanged(folder: Path, nbytes: int) -> Table:
    """Nothing changed."""
    return _commit(
        folder, nbytes, states.training_state(nbytes), lambda: None, f"commit, nothing changed, {_size(nbytes)}"
    )


def commit_one_of_sixteen(folder: Path, nbytes: int) -> Table:
    """One of sixteen layers changed."""
    state = {"model": states.model_state(nbytes)}
    one = [tensor for name, tensor in state["model"].items() if name.startswith("layers.7.")]
    return _commit(
        folder,
        nbytes,
        state,
        lambda: states.train(one),
        f"commit, 1 of 16 shards changed, {_size(nbytes)}",
        budget=0.15,
    )


def _commit(
    folder: Path, nbytes: int, state: Any, change: Callable[[], None], title: str, budget: float | None = None
) -> Table:
    dvc, repo = DvcRoute.create(folder / "dvc"), repository(folder / "ckpt")
    plain = folder / "plain.pt"

    def synced() -> None:
        torch.save(state, plain)
        with plain.open("rb") as file:
            os.fsync(file.fileno())

    ours = Candidate("ckptvcs", lambda: repo.commit(state, branch="bench", step=0), before=change)
    candidates = [
        Candidate("`torch.save`", lambda: torch.save(state, plain), before=change, after=plain.unlink),
        Candidate("`torch.save` + fsync", synced, before=change, after=plain.unlink),
        Candidate(DVC_ROUTE, lambda: dvc.commit(state), before=change),
        ours,
    ]
    ours.before()
    ours.run()  # what is unchanged later is stored now
    dvc.commit(state)
    race(candidates, scratch=folder, nbytes=2 * nbytes)
    repo.close()
    return table(title, candidates, DVC_ROUTE, {"ckptvcs": budget} if budget else {})


def commit_cold(folder: Path, nbytes: int) -> Table:
    """The same from the command line, started cold; the repository is checked out and the artifact appears in it.

    The budget is that of a user: where files cannot be cloned, their workspace is hard-linked. Root gets copies, and writes
    half as much again as the DVC route does (docs/decisions/0007).
    """
    state = states.training_state(nbytes)
    everything = states.tensors(state)
    dvc = DvcRoute.create(folder / "dvc")
    repository(folder / "linked", link="hardlink").close()
    repository(folder / "copied", link="copy").close()
    source = folder / "x.pt"

    def ours(root: str) -> None:
        torch.save(state, source)
        shell(f"{CKPT} commit ../x.pt", folder / root)

    def change() -> None:
        states.train(everything)
        for root in (dvc.root, folder / "linked", folder / "copied"):  # the disk has no room for all of them
            forget(root)

    names = "`torch.save` + `ckpt commit x.pt`, workspace linked", "the same, workspace copied"
    candidates = [
        Candidate(DVC_ROUTE, lambda: dvc.commit(state), before=change),
        Candidate(names[0], lambda: ours("linked"), before=change),
        Candidate(names[1], lambda: ours("copied"), before=change),
    ]
    race(candidates, scratch=folder, nbytes=3 * nbytes)
    return table(f"commit from the command line, all changed, {_size(nbytes)}", candidates, DVC_ROUTE, {names[0]: 0.50})


# -------------------------------------------------------------------------------------------------------------- async


class Part:
    """A part of training, as `Checkpointer` takes it."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def state_dict(self) -> Any:
        return self.state

    def load_state_dict(self, state: Any) -> None:
        self.state = state


def asynchronous(folder: Path, nbytes: int) -> Table:
    """How long the training thread stands still for a save in the background."""
    state = states.training_state(nbytes)
    everything = states.tensors(state)
    repository(folder / "ckpt").close()
    with ckptvcs.Checkpointer(
        model=Part(state["model"]), optimizer=Part(state["optimizer"]), run="bench", repo=folder / "ckpt"
    ) as ck:
        ck.save(0)
        candidates = [
            Candidate("one copy of the state in memory", lambda: states.copy(state)),
            Candidate(
                "`Checkpointer.save`, until it returns",
                lambda: ck.save(1),
                before=lambda: (ck.wait_until_finished(), forget(folder / "ckpt"), states.train(everything)),
                after=ck.wait_until_finished,
            ),
        ]
        race(candidates, scratch=folder, nbytes=nbytes, rounds=20)
    return table(f"asynchronous save, {_size(nbytes)}", candidates, candidates[0].name, {candidates[1].name: 1.3})


def throughput(folder: Path, nbytes: int) -> Table:
    """A loop with a save every 10 s against the same without; its steps and the writing of saves share the cores."""
    training = states.Training(nbytes)
    root, steps = folder / "ckpt", training.steps_in(35)
    repository(root).close()
    open_ones: list[ckptvcs.Checkpointer] = []

    def begin() -> None:
        ck = ckptvcs.Checkpointer(
            run="bench",
            model=training.model,
            optimizer=training.optimizer,
            repo=root,
            policy={"every_n_seconds": 10},
        )
        ck.save(0)  # the first copy allocates its memory
        ck.wait_until_finished()
        open_ones.append(ck)

    def saving() -> None:
        for step in range(steps):
            training.step()
            open_ones[-1].step(step)

    def end() -> None:
        open_ones.pop().close()
        forget(root)

    names = f"{steps} steps", "the same with a save every 10 s"
    candidates = [
        Candidate(names[0], lambda: [training.step() for _ in range(steps)]),
        Candidate(names[1], saving, before=begin, after=end),
    ]
    race(candidates, scratch=folder, nbytes=nbytes, rounds=3)
    title = f"training with saves, {_size(nbytes)}, {os.cpu_count()} cores that all train"
    return table(title, candidates, names[0], {names[1]: 1 / 0.95})


# ----------------------------------------------------------------------------------------------------------- checkout


def checkout(folder: Path, nbytes: int) -> Table:
    """Back to another checkpoint; the cache is warm and its objects were verified before."""
    state = states.training_state(nbytes)
    dvc = DvcRoute.create(folder / "dvc")
    repos = {
        "copied": repository(folder / "copied", link="copy"),
        "linked": repository(folder / "linked", link="hardlink"),
    }
    for n in range(2):
        dvc.commit(state)
        for repo in repos.values():
            repo.commit(state, step=n)
        states.train(states.tensors(state))
    dvc_tips = [_git(dvc.root, "rev-parse", rev) for rev in ("HEAD~1", "HEAD")]
    artifact = folder / "copied/checkpoints/model"
    # Each goes to and fro between the two checkpoints, starting at the newer one.
    turns = {name: itertools.cycle(("main~1", "main")) for name in ("copied", "linked")}
    dvc_turns = itertools.cycle(dvc_tips)

    def cli(name: str) -> None:
        shell(f"{CKPT} checkout {next(turns[name])}", folder / name)

    def replace() -> None:
        shell(f"cp -r {artifact} new && mv cp old && mv new cp && rm -r old", folder)

    shutil.copytree(artifact, folder / "cp")
    candidates = [
        Candidate("`cp -r`, and `rm -r` of what was there", replace),
        Candidate(
            "`cp -r` alone", lambda: shell(f"cp -r {artifact} new", folder), after=lambda: shutil.rmtree(folder / "new")
        ),
        Candidate("`dvc checkout`", lambda: dvc.checkout(next(dvc_turns))),
        Candidate("`Repo.checkout`, copies", lambda: repos["copied"].checkout(next(turns["copied"]))),
        Candidate("`ckpt checkout`, copies", lambda: cli("copied")),
        Candidate("`Repo.checkout`, links", lambda: repos["linked"].checkout(next(turns["linked"]))),
        Candidate("`ckpt checkout`, links", lambda: cli("linked")),
    ]
    for candidate in candidates[2:]:
        candidate.run()  # every object is verified once
        candidate.run()
    race(candidates, scratch=folder, nbytes=nbytes)
    for repo in repos.values():
        repo.close()
    budgets = {"`Repo.checkout`, copies": 1.1, "`Repo.checkout`, links": 0.15}
    return table(f"checkout, {_size(nbytes)}", candidates, candidates[0].name, budgets)


def _git(root: Path, *args: str) -> str:
    return subprocess.run(["git", *args], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


# --------------------------------------------------------------------------------------------------------------- load


def load(folder: Path, nbytes: int) -> Table:
    """The tensors of the model in memory, every byte of them touched; verification apart."""
    repo = repository(folder / "ckpt")
    repo.commit({"model": states.model_state(nbytes)}, step=0)
    shards = sorted((folder / "ckpt/checkpoints/model/model").glob("*.safetensors"))

    def theirs() -> None:
        _touch({name: tensor for shard in shards for name, tensor in load_file(shard).items()})

    names = "`safetensors.torch.load_file` of every shard", "`ckptvcs.load`"
    candidates = [
        Candidate(names[0], theirs),
        Candidate(names[1], lambda: _touch(ckptvcs.load("HEAD", ["model"], repo=folder / "ckpt")["model"])),
    ]
    candidates[1].run()
    race(candidates, scratch=folder, nbytes=0)
    repo.close()
    return table(f"load, {_size(nbytes)}", candidates, names[0], {names[1]: 1.1})


def _touch(tensors: dict[str, torch.Tensor]) -> float:
    return sum(float(tensor.sum()) for tensor in tensors.values())


def verification(folder: Path, nbytes: int) -> Table:
    """Reading every byte again, which is done when an object is not known to be as it was when it was last verified."""
    repo = repository(folder / "ckpt")
    repo.commit({"model": states.model_state(nbytes)}, step=0)
    objects = sorted((folder / "ckpt/.dvc/cache/files/md5").glob("??/*"))

    def hashed() -> None:
        for path in objects:
            blake3(max_threads=blake3.AUTO).update_mmap(path).digest()

    def forgotten() -> None:
        for path in (folder / "ckpt/.git/ckptvcs").glob("index.sqlite3*"):
            path.unlink()

    names = "BLAKE3 of all objects, on all cores", "`ckptvcs.load`, nothing verified yet, tensors not touched"
    candidates = [
        Candidate(names[0], hashed),
        Candidate(names[1], lambda: ckptvcs.load("HEAD", ["model"], repo=folder / "ckpt")["model"], before=forgotten),
    ]
    race(candidates, scratch=folder, nbytes=0)
    repo.close()
    return table(f"verification, {_size(nbytes)}", candidates, names[0], {})


# --------------------------------------------------------------------------------------------------------- long history

_QUICK = 1.5
"""What the verbs may take that have 150 ms, in starts: one takes 0.10 s on the machine that they were measured on."""

LOOKING = {
    "`ckpt log`": "log",
    "`ckpt status`": "status",
    "`ckpt branch`": "branch",
    "`ckpt tag`": "tag",
    "`ckpt show main@step:5000`": "show main@step:5000",
    "`ckpt show main@best:loss`": "show main@best:loss",
    "`ckpt why main`": "why main",
}


def looking(folder: Path, count: int) -> Table:
    """Verbs that only look, in a repository with a long history; each is a process of its own, started cold."""
    root = folder / "long"
    long_history(root, count)
    (root / "ckpt.yaml").write_text(retention.POLICY)
    start_up = Candidate("start-up alone: `python -c 'import click, pygit2'`", lambda: shell(_START_UP, root))
    verbs = [Candidate(name, lambda args=args: shell(f"{CKPT} {args}", root)) for name, args in LOOKING.items()]
    for verb in verbs:
        verb.run()
    race([start_up, *verbs], scratch=folder, nbytes=0)
    budgets = {f"`ckpt {verb}`": _QUICK for verb in ("log", "status", "branch", "tag")}
    return table(f"looking, {count:,} checkpoints", [start_up, *verbs], start_up.name, budgets)


_START_UP = f"{sys.executable} -c 'import click, pygit2'"


def planning(folder: Path, count: int) -> tuple[Table, list[Peak]]:
    """What a policy would do in a very long history: 30 seconds are the budget, and 1 GiB."""
    root, plan = folder / "wide", ["policy", "plan", "-n", "1"]
    retention.wide_history(root, count)
    candidates = [
        Candidate("one second", lambda: time.sleep(1)),
        Candidate("`ckpt policy plan`", lambda: shell(f"{CKPT} {' '.join(plan)}", root)),
    ]
    race(candidates, scratch=folder, nbytes=0, rounds=3)
    empty = peak_bytes(script("import ckptvcs.cli.main, pygit2, numpy"), folder)
    peak = peak_bytes([sys.executable, "-m", "ckptvcs", *plan], root)
    times = table(
        f"a plan over {count:,} checkpoints of 60 objects", candidates, "one second", {candidates[1].name: 30.0}
    )
    return times, [Peak(name="`ckpt policy plan`", nbytes=peak, empty=empty)]


# ------------------------------------------------------------------------------------------------------------- sharing


def pushing(folder: Path) -> list[Table]:
    """Pushes with nothing new, and pushes of many small objects, to a folder and to S3."""
    with servers.s3() as s3:
        stores = {"a folder": (str(folder / "store"), {}), "S3 (moto)": (f"s3://bucket/{folder.name}", s3.options)}
        tables = []
        for name, (url, options) in stores.items():
            where = folder / name.split()[0]
            where.mkdir()
            idle = sharing.nothing_new(where, f"{url}/idle", options)
            tables.append(table(f"push with nothing new, {name}", idle, idle[0].name, {idle[1].name: 2.0}))
            small = sharing.small_objects(where, f"{url}/small", options)
            budget = 0.5 if name == "a folder" else 1.0
            tables.append(
                table(f"push of 2,000 objects of 50 KB, {name}", small, small[0].name, {small[1].name: budget})
            )
        return tables


def appending(folder: Path) -> Table:
    """Entries of the ledger: 500 in a second is the budget, each signed and durable before the next."""
    with repository(folder / "ledger"):
        pass
    repo = Repository.open(folder / "ledger")
    entries = [("save", {"run": "bench", "step": n, "seconds": 0.25}) for n in range(500)]
    candidates = [
        Candidate("one second", lambda: time.sleep(1)),
        Candidate("500 entries, one by one", lambda: [ledger.append_all(repo, [entry]) for entry in entries]),
        Candidate("500 entries at once", lambda: ledger.append_all(repo, entries)),
        Candidate("`ckpt audit verify` of them all", lambda: shell(f"{CKPT} audit verify", folder / "ledger")),
    ]
    race(candidates, scratch=folder, nbytes=0)
    return table("the ledger", candidates, "one second", {"500 entries, one by one": 1.0})


# --------------------------------------------------------------------------------------------------------------- size


@dataclass(frozen=True, kw_only=True)
class Share:
    """What a cache holds, of what as many `.pt` files take."""

    name: str
    share: float
    budget: float


def stored(folder: Path) -> list[Share]:
    """A LoRA run of MiniLM: the base is frozen, 8 checkpoints."""
    for name in ("loop", "files"):
        repository(folder / name).close()
    lora.through_checkpointer(folder / "loop")
    lora.from_bare_files(folder / "files", folder / "lora.pt")
    raw = lora.raw(folder)
    return [
        Share(name="through `Checkpointer`", share=lora.stored(folder / "loop") / raw, budget=0.17),
        Share(name="from bare `.pt` files", share=lora.stored(folder / "files") / raw, budget=0.29),
    ]


# ------------------------------------------------------------------------------------------------------------- memory


@dataclass(frozen=True, kw_only=True)
class Peak:
    """The memory of one process, in bytes."""

    name: str
    nbytes: int
    empty: int
    """Of an interpreter that only imports what this one needs."""

    @property
    def above(self) -> int:
        return self.nbytes - self.empty


def memory(folder: Path, nbytes: int) -> list[Peak]:
    """Peak memory of processes that handle a whole state."""
    root, ckpt, here = folder / "ckpt", [sys.executable, "-m", "ckptvcs"], Path.cwd()
    repository(root).close()
    peak_bytes(script(_STATE.format(nbytes=nbytes) + f"torch.save(state, {str(folder / 'x.pt')!r})"), here)
    one = f"import torch; torch.save({{'model': torch.rand({nbytes // 4})}}, {str(folder / 'one.pt')!r})"
    peak_bytes(script(one), here)
    plain = peak_bytes(script("import ckptvcs.cli.main, pygit2, numpy"), folder)
    torch_too = peak_bytes(script("import torch, ckptvcs.porcelain.api"), folder)

    def of(name: str, *args: str, empty: int = plain) -> Peak:
        return Peak(name=name, nbytes=peak_bytes([*ckpt, *args], root), empty=empty)

    alone = peak_bytes(script(_STATE.format(nbytes=nbytes)), here)
    with_commit = peak_bytes(script(_STATE.format(nbytes=nbytes) + _COMMIT.format(root=str(root))), here)
    return [
        of("`ckpt commit x.pt`", "commit", "../x.pt", "--step", "0"),
        of("`ckpt commit x.pt`, nothing changed", "commit", "../x.pt", "--step", "1"),
        of("`ckpt checkout main~1`", "checkout", "main~1"),
        of("`ckpt restore main --to DIR`", "restore", "main", "--to", "../to"),
        of("`ckpt diff main~1 main --values`", "diff", "main~1", "main", "--values"),
        of("`ckpt export main y.safetensors --format safetensors`", *_EXPORT),
        of("`ckpt commit one.pt`, a single tensor", "commit", "../one.pt", "--branch", "one", "--step", "2"),
        Peak(name="`Repo.commit` of a state in memory, above the state", nbytes=with_commit, empty=alone),
        *_merges(folder / "merge", nbytes, plain),
        Peak(name="`ckptvcs.load`, nothing touched", nbytes=peak_bytes(script(_LOAD), root), empty=torch_too),
    ]


def _merges(root: Path, nbytes: int, plain: int) -> list[Peak]:
    """Merges of three models of the given size each, tuned from one base."""
    with repository(root) as repo:
        for branch in ("base", "a", "b", "c"):
            repo.commit({"model": states.model_state(nbytes)}, branch=branch)
    merge = [sys.executable, "-m", "ckptvcs", "merge"]
    commands = {
        "`ckpt merge a b c`": ["a", "b", "c", "--branch", "mean"],
        "`ckpt merge a b --method slerp`": ["a", "b", "--method", "slerp", "--branch", "slerp"],
        "`ckpt merge a b c --method ties`": ["a", "b", "c", "--method", "ties", "--base", "base", "--branch", "ties"],
    }
    return [Peak(name=n, nbytes=peak_bytes([*merge, *args], root), empty=plain) for n, args in commands.items()]


_EXPORT = "export", "main", "../y.safetensors", "--format", "safetensors", "--component", "model"
_STATE = "import torch; from tests.bench import states; state = states.training_state({nbytes});"
_COMMIT = "import ckptvcs; ckptvcs.Repo({root!r}).commit(state, branch='memory', step=0)"
_LOAD = "import torch, ckptvcs; state = dict(ckptvcs.load('main'))"


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:.2g} GB"
