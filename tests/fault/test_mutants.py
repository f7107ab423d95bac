"""A green sweep says little unless the harness can be seen to fail: each planted fault must be noticed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.fault.test_kill import points_of, prepared, sweep
from tests.support import strace
from tests.support.scenarios import SCENARIOS, Ground, Scenario

__all__ = ["prepared"]

COMMIT, _, CHECKOUT, *_ = SCENARIOS


def near(points: list[strace.Point], pattern: str, *, count: int, before: bool = False) -> list[strace.Point]:
    """The points around the first call that a pattern fits."""
    at = next(i for i, point in enumerate(points) if point.fits(pattern))
    return points[max(at - count, 0) : at] if before else points[at : at + count]


def is_noticed(scenario: Scenario, mutant: str, points: list[strace.Point], ground: Ground, tmp_path: Path) -> None:
    """Fail unless killing the mutant at one of the points breaks something that the harness looks at.

    The command that is run afterwards is the mutant too: some safeguards work only then.
    """
    for point in points:
        here = ground.copy(tmp_path / "here")
        done = strace.kill(scenario.command(mutant), here.world.root, point)
        try:
            scenario.examine(here, done=done.returncode == 0, repair=False)
            again = strace.subprocess.run(
                scenario.command(mutant), cwd=here.world.root, capture_output=True, text=True, check=False
            )
            assert again.returncode == 0, again.stderr
            scenario.check(here)
        except AssertionError:
            return
    raise AssertionError(f"mutant '{mutant}' lives: none of {len(points)} kills showed it")


def test_the_unchanged_program_passes_where_the_mutants_are_killed(prepared: Ground, tmp_path: Path):
    points = points_of(COMMIT, prepared, tmp_path)

    sweep(COMMIT, near(points, r"rename.*main\.lock", count=4), prepared, tmp_path)


def test_a_ref_that_moves_before_its_objects(prepared: Ground, tmp_path: Path):
    points = points_of(COMMIT, prepared, tmp_path, "ref_before_objects")

    is_noticed(COMMIT, "ref_before_objects", near(points, r"rename.*main\.lock", count=8), prepared, tmp_path)


def test_objects_that_are_written_in_place(prepared: Ground, tmp_path: Path):
    points = points_of(COMMIT, prepared, tmp_path, "objects_in_place")
    torn = [point for point in points if point.fits(r"^writev \d+<[^>]*/md5/[0-9a-f]{2}/")]

    is_noticed(COMMIT, "objects_in_place", torn[1:8], prepared, tmp_path)


def test_lock_files_that_are_left(prepared: Ground, tmp_path: Path):
    points = points_of(COMMIT, prepared, tmp_path, "no_lock_recovery")

    is_noticed(
        COMMIT, "no_lock_recovery", near(points, r"rename.*main\.lock", count=4, before=True), prepared, tmp_path
    )


def test_an_index_that_stays_behind(prepared: Ground, tmp_path: Path):
    ground = prepared.copy(tmp_path / "ground")
    points = points_of(COMMIT, ground, tmp_path, "no_follow_recovery")
    (point,) = near(points, r"rename.*index\.ckptvcs", count=1)
    here = ground.copy(tmp_path / "here")

    strace.kill(COMMIT.command("no_follow_recovery"), here.world.root, point)

    other = Scenario("tag", ("tag", "x"), lambda _: None)
    strace.subprocess.run(other.command("no_follow_recovery"), cwd=here.world.root, check=True, capture_output=True)
    assert "checkpoints/model.dvc" in here.world.git("status", "--porcelain"), "the harness does not see it"


def test_a_workspace_that_is_filled_in_place(prepared: Ground, tmp_path: Path):
    points = points_of(CHECKOUT, prepared, tmp_path, "workspace_in_place")
    inside = [point for point in points if point.fits(r"/checkpoints/model/")]
    here = prepared.copy(tmp_path / "here")

    strace.kill(CHECKOUT.command("workspace_in_place"), here.world.root, inside[len(inside) // 2])

    from tests.support import oracle

    with pytest.raises(AssertionError, match="mixture"):
        oracle.workspace_of(here.world.root, list(here.before.values()))


def test_a_source_that_is_moved(prepared: Ground, tmp_path: Path):
    ground = prepared.copy(tmp_path / "ground")
    calls = strace.trace(COMMIT.command("source_moved"), ground.copy(tmp_path / "traced").world.root, tmp_path / "log")
    points = [p for p in strace.points(calls, tmp_path) if "/repo/" not in p.detail or "b.pt" in p.detail]
    here = ground.copy(tmp_path / "here")

    strace.kill(COMMIT.command("source_moved"), here.world.root, strace.Point("rename", 1, ""))
    moved = strace.kill(COMMIT.command("source_moved"), here.world.root, next(p for p in points if p.call == "openat"))

    with pytest.raises((AssertionError, FileNotFoundError)):
        assert moved.returncode != 0
        COMMIT.examine(here, done=False, repair=False)


def test_errors_that_are_swallowed(prepared: Ground, tmp_path: Path):
    points = points_of(COMMIT, prepared, tmp_path, "errors_swallowed")
    writes = [p for p in points if p.fits(r"^write \d+<[^>]*/md5/\.ckptvcs-")]
    noticed = False
    for point in writes[:4]:
        here = prepared.copy(tmp_path / "here")
        done = strace.fail(COMMIT.command("errors_swallowed"), here.world.root, point, "ENOSPC", for_ever=False)
        try:
            COMMIT.examine(here, done=done.returncode == 0, repair=False)
        except AssertionError:
            noticed = True

    assert noticed, "a lost write went unnoticed"


def order_of_durability(calls: list[tuple[str, str, str]]) -> list[str]:
    """What a power cut would find out: names that are given before their bytes, or refs before names, are durable."""
    found, synced, linked, moved, named = [], set(), set(), False, 0
    for _, call, rest in calls:
        path = re.search(r"<([^>]*)>", rest)
        quoted = [str(Path(folder, name)) for folder, name in re.findall(r'(?:<([^>]*)>, )?"([^"]*)"', rest)]
        if call == "fsync" and path:
            synced.add(path[1])
            linked.discard(path[1])
        elif call in ("link", "linkat") and "/md5/" in rest and "= 0" in rest:
            if quoted[0] not in synced:
                found.append(f"{quoted[0]} has a name and is not durable")
            linked.add(str(Path(quoted[1]).parent))
            named += 1
        elif call in ("rename", "link") and "refs/heads/main.lock" in rest and "= 0" in rest:
            moved = True
            if linked:
                found.append(f"the branch moved, and names in {sorted(linked)[0]} are not durable")
            if quoted[0] not in synced:
                found.append("the branch moved, and its lock file is not durable")
    assert moved, "the branch never moved"
    assert named, "no object was given a name"
    return found


def test_what_is_named_is_durable_before(prepared: Ground, tmp_path: Path):
    here = prepared.copy(tmp_path / "here")

    calls = strace.trace(COMMIT.command(), here.world.root, tmp_path / "log")

    assert order_of_durability(calls) == []


def test_a_program_without_fsync(prepared: Ground, tmp_path: Path):
    here = prepared.copy(tmp_path / "here")

    calls = strace.trace(COMMIT.command("no_fsync"), here.world.root, tmp_path / "log")

    assert order_of_durability(calls) != []
