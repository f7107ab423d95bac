"""A system call that fails, once or for ever: the command says so and leaves everything as it was, or gets through."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.fault.test_kill import points_of, prepared
from tests.support import oracle, strace
from tests.support.scenarios import SCENARIOS, Ground, Scenario

__all__ = ["prepared"]

IN_SHORT = 3
# 70 is a bug of ours: no fault of the machine may look like one.
HONEST = {0, 10, 11, 12, 20, 30, 50}


def sweep(scenario: Scenario, points: list[strace.Point], error: str, ground: Ground, tmp_path: Path) -> None:
    for point in points:
        # No disk fails every `open` for ever: Python itself would not find its modules.
        for for_ever in (False, True) if point.call != "openat" else (False,):
            here = ground.copy(tmp_path / "here")
            done = strace.fail(scenario.command(), here.world.root, point, error, for_ever=for_ever)
            try:
                assert done.returncode in HONEST, f"exit {done.returncode}: {done.stderr}"
                deaf = point.call == "write"  # stderr may be what fails: the exit status has to say it all
                assert deaf or (done.returncode == 0) != ("error:" in done.stderr), (
                    f"exit {done.returncode}, said: {done.stderr}"
                )
                if done.returncode and not deaf:
                    assert re.search(r"error: .+\n  why:  .+", done.stderr), f"no cause is given: {done.stderr}"
                scenario.examine(here, done=done.returncode == 0 and "could not be updated" not in done.stderr)
            except AssertionError as err:
                when = "for ever from" if for_ever else "once at"
                raise AssertionError(f"{scenario.name} with {error} {when} {point}: {err}") from err


def chosen(points: list[strace.Point], error: str) -> list[strace.Point]:
    return [point for point in points if point.call in strace.FAILING[error]]


@pytest.mark.parametrize("error", strace.FAILING)
@pytest.mark.parametrize("scenario", [SCENARIOS[0], SCENARIOS[2]], ids=lambda s: s.name)
def test_a_failing_call_leaves_nothing_half_done(scenario: Scenario, error: str, prepared: Ground, tmp_path: Path):
    points = chosen(points_of(scenario, prepared, tmp_path), error)
    assert len(points) > 10

    sweep(scenario, strace.sample(points, IN_SHORT), error, prepared, tmp_path)


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("error", strace.FAILING)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name)
def test_any_failing_call_leaves_nothing_half_done(scenario: Scenario, error: str, prepared: Ground, tmp_path: Path):
    sweep(scenario, chosen(points_of(scenario, prepared, tmp_path), error), error, prepared, tmp_path)


def mount(where: Path, options: str) -> None:
    where.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(where)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a file system of our own cannot be mounted here: {done.stderr.strip()}")


@pytest.mark.parametrize(
    "options",
    [pytest.param("size=1m", id="bytes"), pytest.param("nr_inodes=1200", id="inodes", marks=pytest.mark.long)],
)
def test_a_disk_that_is_really_full(prepared: Ground, tmp_path: Path, options: str):
    mount(tmp_path / "small", options)
    try:
        here = prepared.copy(tmp_path / "small" / "ground")
        first = subprocess.run(
            ["dd", "if=/dev/zero", f"of={tmp_path}/small/filler", "bs=64k"], capture_output=True, check=False
        )
        for n in range(1200 if "inodes" in options else 0):
            try:
                (tmp_path / f"small/inode-{n}").touch()
            except OSError:
                break

        done = strace.subprocess.run(
            SCENARIOS[0].command(), cwd=here.world.root, capture_output=True, text=True, check=False
        )

        assert first.returncode or "inodes" in options
        assert done.returncode == 30, done.stderr
        assert "free some space" in done.stderr
        for filler in (tmp_path / "small").glob("*"):
            if filler.is_file():
                filler.unlink()
        SCENARIOS[0].examine(here, done=False)
    finally:
        subprocess.run(["umount", str(tmp_path / "small")], check=True)


def test_a_repository_that_may_only_be_read(prepared: Ground, tmp_path: Path):
    mount(tmp_path / "fixed", "size=32m")
    try:
        here = prepared.copy(tmp_path / "fixed" / "ground")
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "fixed")], check=True)

        looked = [here.world.ckpt(verb) for verb in ("log", "show", "status", "branch", "tag")]
        refused = here.world.ckpt("commit", "../b.pt", status=30)

        assert all(result.out for result in looked[:4])
        assert "read-only" in refused.err
        with here.world.repo() as repo:
            assert repo.load("HEAD")["step"] == 1
        oracle.check(here.world.root)
    finally:
        subprocess.run(["umount", str(tmp_path / "fixed")], check=True)
