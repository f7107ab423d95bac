"""`policy apply`: what cron runs. Its exit status tells what happened, and whoever is to be told is told."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from ckptvcs.errors import LockHeld, NeedsPerson
from ckptvcs.porcelain import applying, gc
from ckptvcs.storage.files import Lock
from tests.unit.porcelain.test_retention import LAST_TWO, Training, training

__all__ = ["training"]


def with_a_bell(training: Training, tmp_path: Path) -> Path:
    """A policy with alerts, which go to a file."""
    heard, bell = tmp_path / "heard.json", tmp_path / "bell.py"
    bell.write_text(f"import sys; open({str(heard)!r}, 'w').write(sys.stdin.read())")
    alerts = f"alerts:\n  quota: {{places: {{hot: 1kB}}}}\n  command: [{sys.executable}, {bell}]\n"
    (training.world.root / "ckpt.yaml").write_text(f"version: 1\n{alerts}retain:\n{LAST_TWO}")
    training.world.git("commit", "-qam", "policy")
    training.world.git("config", "ckptvcs.alertcommand", "true")
    return heard


def test_it_collects_and_tells(training: Training, tmp_path: Path):
    training.save(*range(1, 6))
    heard = with_a_bell(training, tmp_path)

    done = applying.apply(training.open(), gc.Options(yes_delete=2))

    assert len(done.report.dropped) == 2
    assert [alert.kind for alert in done.alerts] == ["quota"]
    assert [alert["kind"] for alert in json.loads(heard.read_text())["alerts"]] == ["quota"]


def test_who_is_told_is_told_that_a_person_has_to_look(training: Training, tmp_path: Path):
    training.save(*range(1, 12))
    heard = with_a_bell(training, tmp_path)

    with pytest.raises(NeedsPerson):
        applying.apply(training.open(), gc.Options())

    first = json.loads(heard.read_text())["alerts"][0]
    assert (first["kind"], first["severity"]) == ("collection", "critical")
    assert "--yes-delete" in first["next"]


def test_nobody_is_told_of_what_would_be(training: Training, tmp_path: Path):
    training.save(*range(1, 12))
    heard = with_a_bell(training, tmp_path)

    done = applying.apply(training.open(), gc.Options(), dry_run=True)

    assert done.report.stops
    assert not heard.exists()


def test_exit_statuses_tell_what_happened(training: Training):
    training.save(*range(1, 12))
    training.policy(LAST_TWO)
    apply = ("policy", "apply", "--exit-code")

    assert training.world.ckpt(*apply, status=50).status == 50
    plan = training.world.root / "plan.json"
    training.world.ckpt("policy", "plan", "--output", plan)
    assert training.world.ckpt(*apply, plan, status=3).status == 3
    assert training.world.ckpt(*apply, status=0).status == 0
    assert training.world.ckpt(*apply, plan, status=11).status == 11
    with Lock(training.world.root / ".git/ckptvcs/gc.lock", timeout_s=0), pytest.raises(LockHeld):
        gc.collect(training.open(), gc.Options())
