"""A claim belongs to one process, as often as it likes, and dies with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ckptvcs.storage import claims

ROOT = Path(__file__).parents[3]


def holder(path: Path) -> subprocess.Popen[str]:
    code = (
        "import sys; from pathlib import Path; from ckptvcs.storage import claims\n"
        f"print(claims.claim(Path({str(path)!r}), wait_s=0), flush=True); sys.stdin.read()"
    )
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    )


def test_another_process_is_named_and_gives_up_when_it_dies(tmp_path: Path):
    other = holder(tmp_path / "x")
    assert other.stdout is not None
    assert other.stdout.readline() == "None\n"

    assert claims.claim(tmp_path / "x", wait_s=0) == other.pid
    other.kill()
    other.communicate()
    assert claims.claim(tmp_path / "x", wait_s=5) is None
    claims.release(tmp_path / "x")


def test_it_is_given_up_as_often_as_it_was_made(tmp_path: Path):
    for _ in range(2):
        assert claims.claim(tmp_path / "x", wait_s=0) is None
    claims.release(tmp_path / "x")
    second = holder(tmp_path / "x")
    assert second.communicate()[0] == f"{os.getpid()}\n"

    claims.release(tmp_path / "x")
    claims.release(tmp_path / "x")
    third = holder(tmp_path / "x")
    assert third.communicate()[0] == "None\n"


def test_where_nobody_may_write_nothing_is_claimed(tmp_path: Path, without_privilege: None):
    tmp_path.chmod(0o555)
    try:
        assert claims.claim(tmp_path / "x", wait_s=0) is None
        claims.release(tmp_path / "x")
    finally:
        tmp_path.chmod(0o755)


def test_what_is_no_folder_is_an_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        claims.claim(tmp_path / "none" / "x", wait_s=0)
