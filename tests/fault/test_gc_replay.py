"""The shortest ways in which worse protocols lose something, taken by real pushes and real collections: these lose nothing.

Each trace is found by the search of the model, and is played step by step: by clones that push, by collectors, and by a clock
of the store that a test moves. What the real ones do not let happen, such as a push that goes on in spite of marks, does not.
That the play would see a loss is shown with the same step taken out of the code.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest
import yaml

from ckptvcs.errors import Conflict
from ckptvcs.porcelain import asking, gc, leases, marks, push, replicas
from ckptvcs.porcelain.repo import Repository
from tests.support import oracle, protocol, stepping
from tests.support.places import Place, point_to
from tests.support.protocol import MUTANTS, Rules, Step
from tests.support.stepping import COLLECT, PUSH, Actor
from tests.support.world import World

TICK_S = 12.5 * 3600
"""Longer than a push may take; two of them are longer than the grace of a remote."""
POLICY = "retain:\n  keep: [{keep_last: 1}]\n  grace: 24h\n  trash: %s\n"


def state(seed: int, size: int = 40) -> dict[str, Any]:
    return {"model": {"w": numpy.arange(size) + 1000 * seed}}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Checkpoints that the policy drops on a branch that all know; their objects are gone from the store."""
    found = Place.create(tmp_path_factory.mktemp("replay") / "base")
    world = found.world
    point_to(world, "../../store", {})
    with (world.root / "ckpt.yaml").open("a") as file:
        file.write(POLICY % "0d")
    world.git("add", "ckpt.yaml")
    world.git("commit", "-qm", "a policy")
    with world.repo() as repo:
        repo.commit(state(99, size=20_000), step=0)
        repo.branch("seen")
        for seed in (0, 1, 50):
            repo.commit(state(seed), branch="seen", step=1 + seed)
        push.execute(repo._repo, push.plan_push(repo._repo, ["main", "seen"]))
    kept = named(found.hub, ["main", "seen"])
    for path in objects(found.folder / "store").values():
        if path.parent.name + path.name not in kept:
            path.unlink()
    shutil.rmtree(found.folder / "store/.ckptvcs/repositories")  # it is where the hub of a copy is not
    for name in ("p0", "p1", "gc0", "gc1"):
        point_to(found.make_clone(name), "../../store", {})
    return found


def named(hub: Path, revisions: Sequence[str]) -> dict[str, str | None]:
    """What the checkpoints at some commits need, by git, YAML and JSON alone: names, and digests of bytes."""
    found: dict[str, str | None] = {}
    for revision in revisions:
        manifest = json.loads(oracle.git(hub, "show", f"{revision}:checkpoints/model.json"))
        pointer = yaml.safe_load(oracle.git(hub, "show", f"{revision}:checkpoints/model.dvc"))
        found |= {file["md5"]: file["md5"] for file in oracle.files(manifest)}
        found[pointer["outs"][0]["md5"]] = None
    return found


def objects(store: Path) -> dict[str, Path]:
    return {p.parent.name + p.name: p for p in (store / "files/md5").glob("[0-9a-f][0-9a-f]/*")}


class Play:
    """Clones at one hub and one store, and a trace that says who does what."""

    def __init__(self, place: Place, *, trash: str) -> None:
        self.place = place
        self.actors: dict[str, Actor] = {}
        self.pushed = self.dropped = self.condemned = 0
        if trash != "0d":
            place.world.git("switch", "-q", "main")
            path = place.world.root / "ckpt.yaml"
            path.write_text(path.read_text().replace("trash: 0d", f"trash: {trash}"))
            place.world.git("commit", "-qam", "another policy")
            place.world.git("push", "-q", "origin", "main")
            for name in ("gc0", "gc1"):
                World(place.folder / name).git("pull", "-q")

    @property
    def store(self) -> Path:
        return self.place.folder / "store"

    def play(self, trace: Sequence[Step]) -> None:
        for who, act, number in trace:
            if who == "clock":
                self.tick()
            elif who == "hub":
                self.drop()
            elif act == "die":
                self.actors[who].die()
            elif act == "lease":
                self.finish(who)
                self.actors[who] = self.push(who, number)
                self.actors[who].until("lease")
            elif act == "begin anew":
                self.actors[who].until("in time")
                self.actors[who].until("lease")
            elif act in ("leases", "refs") and (who not in self.actors or self.actors[who].ended):
                self.actors[who] = self.collect(who)
                self.actors[who].until(act)
            elif who in self.actors:
                self.actors[who].until(act)

    def finish(self, who: str) -> None:
        if who in self.actors:
            self.actors[who].finish()

    def tick(self) -> None:
        for path in self.store.rglob("*"):
            if path.is_file():
                os.utime(path, (path.stat().st_mtime - TICK_S,) * 2)

    def drop(self) -> None:
        """Something newer comes to every branch: of what was pushed, the policy keeps nothing."""
        world = self.place.world
        world.git("fetch", "-q")
        branches = self.branches()
        with world.repo() as repo:
            for branch in branches:
                self.dropped += 1
                world.git("branch", "-q", "-f", branch, f"origin/{branch}")
                repo.commit(state(100 + self.dropped), branch=branch, step=100 + self.dropped)
            push.execute(repo._repo, push.plan_push(repo._repo, branches))

    def branches(self) -> list[str]:
        refs = oracle.git(self.place.hub, "for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads").split()
        return [ref for ref in refs if ref.startswith("p")]

    def push(self, who: str, number: int) -> Actor:
        """Commit what makes that object, on a branch of its own, and push it."""
        self.pushed += 1
        branch = f"{who}-{self.pushed}"
        world = World(self.place.folder / who)
        with world.repo() as repo:
            repo.commit(state(number), branch=branch, step=1 + number, workspace=False)
        return Actor(lambda: self.push_again(who, branch), PUSH)

    def push_again(self, who: str, *branches: str) -> None:
        repo = Repository.open(self.place.folder / who)
        push.execute(repo, push.plan_push(repo, branches))

    def collect(self, who: str) -> Actor:
        return Actor(lambda: self.run_gc(who), COLLECT)

    def run_gc(self, who: str) -> gc.Report:
        repo = Repository.open(self.place.folder / who)
        report = gc.collect(repo, gc.Options(places=("bucket",)))
        self.condemned += len(report.condemned)
        return report

    def settle(self) -> None:
        """Everybody does what is left to do, as users do: collections end, and pushes are run again until they pass."""
        for actor in self.actors.values():
            actor.finish()
        for who in ("p0", "p1"):
            mine = oracle.git(self.place.folder / who, "for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads")
            branches = [branch for branch in mine.split() if branch.startswith(who)]
            for branch in branches:
                self.push_until_it_passes(who, branch)

    def push_until_it_passes(self, who: str, branch: str) -> None:
        for _ in range(4):
            try:
                return self.push_again(who, branch)
            except Conflict:  # it is condemned: that collection has to end first
                self.tick()
                self.tick()
                for collector in ("gc0", "gc1"):
                    self.run_gc(collector)
        raise AssertionError("a push never passes")

    def missing(self) -> set[str]:
        """Objects of checkpoints that the policy keeps, and that the store has not, or not whole."""
        there = objects(self.store)
        wanted = named(self.place.hub, ["main", "seen", *self.branches()])
        return {n for n, md5 in wanted.items() if n not in there or (md5 and self.md5(there[n]) != md5)}

    @staticmethod
    def md5(path: Path) -> str:
        return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def stage(base: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Play]:
    def begin(*, trash: str = "0d") -> Play:
        monkeypatch.setattr(replicas, "PATIENCE_S", 0.0)
        stepping.install(monkeypatch)
        return Play(base.copy(tmp_path / "here"), trash=trash)

    return begin


def trace_of(rules: Rules, collectors: int = 1) -> tuple[Step, ...]:
    return protocol.search(rules, pushes=2 if collectors == 1 else 1, collectors=collectors).trace


@pytest.mark.parametrize("name", MUTANTS)
def test_what_loses_in_a_worse_protocol_loses_nothing_here(stage: Callable[..., Play], name: str):
    mutant = MUTANTS[name]
    trace = trace_of(mutant.rules, mutant.collectors)
    play = stage()

    play.play(trace)
    assert play.condemned > 0 or not mutant.rules.reads_leases, "nothing was condemned: the play says nothing"
    play.settle()

    assert play.branches(), "nothing was pushed at all"
    assert play.missing() == set()


def test_who_dies_late_before_settling_is_healed_from_the_trash_by_the_next_collection(stage: Callable[..., Play]):
    """Nobody pushes again: that clone is gone for good."""
    trace = trace_of(Rules(dies_before_settling=True))
    play = stage(trash="1d")

    play.play(trace)
    play.finish("gc0")
    lost = play.missing()
    report = play.run_gc("gc0")

    assert lost, "it was not late"
    assert set(report.swept[0].healed) == lost
    assert play.missing() == set()


# ------------------------------------------------------------------------------------------- the play would see a loss


def ignore_marks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(leases.Lease, "obey", lambda self: None)


def read_no_refs(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(asking, "ask", lambda *_, **__: asking.Answers())


def read_no_leases_and_wait_for_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(marks, "leased", lambda _: set())
    patch.setattr(gc._Run, "grace_s", lambda self, place: 0.0)


def settle_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(replicas, "settle", lambda *_: None)


def wait_for_no_collector(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(replicas, "_wait_for_collectors", lambda _: None)


@pytest.mark.parametrize(
    ("name", "worsen"),
    [
        ("pushes ignore marks", ignore_marks),
        ("refs are not read again", read_no_refs),
        ("neither leases nor grace", read_no_leases_and_wait_for_nothing),
        ("stalls without settling", settle_nothing),
        ("settles beside collectors", wait_for_no_collector),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_with_that_step_taken_out_of_the_code_something_is_lost(
    stage: Callable[..., Play], monkeypatch: pytest.MonkeyPatch, name: str, worsen: Callable[[pytest.MonkeyPatch], None]
):
    worsen(monkeypatch)
    play = stage()

    play.play(trace_of(MUTANTS[name].rules))
    for actor in play.actors.values():
        actor.finish()

    assert play.missing()
