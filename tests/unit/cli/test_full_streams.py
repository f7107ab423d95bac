"""The exit status tells the truth where stdout or stderr takes no words: `/dev/full` is a disk that is always full."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.world import World

BUFFERED = {**os.environ, "PYTHONUNBUFFERED": ""}


def ckpt(*args: str, cwd: Path, full: str) -> subprocess.CompletedProcess[str]:
    with open("/dev/full", "w") as nowhere:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | {full: nowhere}
        return subprocess.run(
            [sys.executable, "-m", "ckptvcs", *args], cwd=cwd, env=BUFFERED, text=True, check=False, **streams
        )


@pytest.mark.parametrize("args", [("log",), ("log", "--json"), ("no-such-verb",), ("show", "nothing")])
def test_an_error_that_cannot_be_told_has_its_status(args: tuple[str, ...], tmp_path: Path):
    root = World.create(tmp_path / "repo").root if args[0] == "show" else tmp_path
    told = subprocess.run(
        [sys.executable, "-m", "ckptvcs", *args], cwd=root, env=BUFFERED, capture_output=True, check=False
    )

    done = ckpt(*args, cwd=root, full="stderr")

    assert told.returncode not in (0, 120)
    assert done.returncode == told.returncode


@pytest.mark.parametrize("args", [("--help",), ("branch",), ("doctor", "--json")])
def test_an_answer_that_cannot_be_given_is_an_error(args: tuple[str, ...], tmp_path: Path):
    world = World.create(tmp_path / "repo")
    world.git("commit", "-q", "--allow-empty", "-m", "code")

    done = ckpt(*args, cwd=world.root, full="stdout")

    assert done.returncode == 30
    assert "no space left on device" in done.stderr.lower()


def test_an_answer_that_nobody_reads_on_is_no_error(tmp_path: Path):
    script = f"{sys.executable} -m ckptvcs --help | head -c 1 >/dev/null; echo ${{PIPESTATUS[0]}}"

    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=BUFFERED, capture_output=True, text=True, check=True
    )

    assert (done.stdout, done.stderr) == ("0\n", "")
