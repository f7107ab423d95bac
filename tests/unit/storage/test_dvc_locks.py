"""We and the real `dvc` keep each other out."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ckptvcs.errors import BadConfig, Conflict, LockHeld
from ckptvcs.storage.dvc import locks
from ckptvcs.storage.dvc.config import DvcConfig, read_config

HOLD = """
import sys
from dvc.lock import make_lock
with make_lock(sys.argv[1] + "/.dvc/tmp/lock", tmp_dir=sys.argv[1] + "/.dvc/tmp"):
    print("ready", flush=True)
    input()
"""
WRITE = """
import sys
from dvc.fs import localfs
from dvc.rwlock import rwlock
with rwlock(sys.argv[1] + "/.dvc/tmp", localfs, "dvc repro", [sys.argv[1] + "/read"], sys.argv[2:], False):
    print("ready", flush=True)
    input()
"""


@pytest.fixture
def config(dvc_project: Path) -> DvcConfig:
    (dvc_project / ".dvc/tmp").mkdir(parents=True)
    (dvc_project / ".dvc/config").touch()
    return read_config(dvc_project, ())


def test_while_dvc_works_we_wait_and_say_who_it_is(dvc_project: Path, config: DvcConfig, python):
    holder = python(HOLD, dvc_project)

    with pytest.raises(LockHeld, match=f"process {holder.pid}"), locks.lock(dvc_project, config, timeout_s=0.1):
        pass

    holder.communicate("\n", timeout=30)
    with locks.lock(dvc_project, config, timeout_s=0):
        pass


def test_while_we_work_dvc_keeps_out(dvc_project: Path, config: DvcConfig, dvc):
    (dvc_project / "data").write_text("x")

    with locks.lock(dvc_project, config, timeout_s=0), pytest.raises(AssertionError, match="Unable to acquire lock"):
        dvc((dvc_project, "add data"))

    dvc((dvc_project, "add -q data"))
    assert (dvc_project / "data.dvc").exists()


def test_a_dvc_that_was_killed_keeps_nobody_out(dvc_project: Path, config: DvcConfig, python):
    holder = python(HOLD, dvc_project)

    holder.kill()
    holder.wait()

    with locks.lock(dvc_project, config, timeout_s=0):
        pass


def test_a_fresh_clone_has_no_folder_for_locks_yet(tmp_path: Path):
    (tmp_path / ".dvc").mkdir()

    with locks.lock(tmp_path, read_config(tmp_path, ()), timeout_s=0):
        assert (tmp_path / ".dvc/tmp/lock").read_text() == f" {os.getpid()}\n"


def test_locks_that_need_the_program_of_dvc_are_refused(tmp_path: Path):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    hardlink_lock = true\n")

    with pytest.raises(BadConfig, match="hardlink_lock"):
        locks.lock(tmp_path, read_config(tmp_path, ()), timeout_s=0)


# ---------------------------------------------------------------------------------------------------- running stages


@pytest.mark.parametrize("path", ["checkpoints/model", "checkpoints", "checkpoints/model/model/tree.json"])
def test_a_path_that_a_stage_is_writing_is_left_alone(dvc_project: Path, config: DvcConfig, python, path: str):
    writer = python(WRITE, dvc_project, dvc_project / path)

    with pytest.raises(Conflict, match=rf"'dvc repro' \(process {writer.pid}\) is writing '{path}'"):
        locks.refuse_while_writing(dvc_project, "checkpoints/model")

    writer.communicate("\n", timeout=30)
    locks.refuse_while_writing(dvc_project, "checkpoints/model")


def test_what_a_stage_writes_elsewhere_or_only_reads_does_not_matter(dvc_project: Path, config: DvcConfig, python):
    python(WRITE, dvc_project, dvc_project / "data", dvc_project / "checkpoints/model2")

    locks.refuse_while_writing(dvc_project, "checkpoints/model")
    locks.refuse_while_writing(dvc_project, "read")


def test_a_stage_that_was_killed_writes_nothing_any_more(dvc_project: Path, config: DvcConfig, python):
    writer = python(WRITE, dvc_project, dvc_project / "checkpoints/model")

    writer.kill()
    writer.wait()

    assert str(dvc_project) in (dvc_project / ".dvc/tmp/rwlock").read_text()
    locks.refuse_while_writing(dvc_project, "checkpoints/model")


NOBODY = (1 << 22) + 1
"""More than the largest number that Linux gives a process."""

HERE = "checkpoints/model"


@pytest.mark.parametrize(
    "left",
    [
        "",
        "{",
        "[]",
        "null",
        '{"read": {}}',
        '{"write": {}}',
        json.dumps({"write": {HERE: {"pid": NOBODY, "cmd": "dvc repro"}}}),
        json.dumps({"write": {HERE: {"pid": None}}}),
        json.dumps({"write": {HERE: {"pid": "text"}}}),
        json.dumps({"write": []}),
        json.dumps({"write": {HERE: [1]}}),
        json.dumps({"write": {HERE: {"pid": 10**30}}}),
        json.dumps({"write": {HERE: {"pid": 0}}}),
    ],
)
def test_what_nobody_alive_left_there_stops_nobody(tmp_path: Path, left: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    (tmp_path / ".dvc/tmp/rwlock").write_text(left)

    locks.refuse_while_writing(tmp_path, HERE)
