"""`alerts`: facts are found in manifests, places and the ledger, and handed to people, Prometheus and a program."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from ckptvcs import Repo
from ckptvcs.domain.checkpoint import CheckpointId
from ckptvcs.porcelain import alerts, exchange, ledger
from ckptvcs.porcelain.commit import Receipt
from ckptvcs.porcelain.inventory import Inventory, Part, Slim
from ckptvcs.porcelain.repo import Repository
from ckptvcs.storage.history.repository import CommitId
from tests.support.world import World


def write(world: World, text: str) -> Repository:
    """Put a section into ckpt.yaml and open the repository."""
    (world.root / "ckpt.yaml").write_text(f"version: 1\nalerts:\n{text}\n")
    return Repository.open(world.root, lock_wait_s=0.1)


def kinds(found: alerts.Found) -> list[str]:
    return [one.kind for one in found.alerts]


def later(**span: float) -> datetime:
    return datetime.now(timezone.utc) + timedelta(**span)


def test_without_a_section_nothing_is_told_and_numbers_are_known(repository: Repository, world: World, history):
    found = alerts.look(repository)

    (hot,) = found.facts.places
    assert found.alerts == ()
    assert not alerts.limits(repository)
    assert (hot.place, hot.objects) == ("hot", len(world.objects()))
    assert hot.nbytes == sum(path.stat().st_size for path in world.objects().values())
    assert found.checkpoints == 3
    assert set(found.newest) == {("main", "model")}


def test_what_checkpoints_share_counts_once_and_what_is_old_is_no_growth(world: World, history: list[Receipt]):
    repository = write(world, "  growth: {max_bytes: 1B, period: 1d}")
    once = {file.md5: file.size for receipt in history for file in receipt.manifest.all_files()}

    found = alerts.look(repository)

    lists = sum(path.stat().st_size for name, path in world.objects().items() if name.endswith(".dir"))
    assert found.facts.added == {86400.0: sum(once.values()) + lists}
    assert kinds(found) == ["growth"]
    assert kinds(alerts.look(repository, at=later(days=2))) == []


def test_what_an_older_checkpoint_has_already_is_not_new():
    def slim(name: str, time: float, objects: dict[bytes, int]) -> Slim:
        part = Part(b"".join(objects), tuple(objects.values()))
        empty = Part(b"", ())
        about = (CheckpointId(name), CommitId(name), "model", "r", time, 1, {}, "exact", "", (), {"model": "model"})
        return Slim(*about, {"model": part}, empty, name.encode() * 16, 7)

    shared, old, new = b"s" * 16, b"o" * 16, b"n" * 16
    slims = [slim("b", 20.0, {shared: 1, new: 2}), slim("a", 10.0, {shared: 1, old: 4}), slim("c", 30.0, {new: 2})]
    inventory = Inventory(checkpoints={one.id: one for one in slims})

    made = alerts._made(inventory, since=15.0)

    assert made == {new: (20.0, 2), b"b" * 16: (20.0, 7), b"c" * 16: (30.0, 7)}


def test_a_full_place_and_a_place_that_is_not_there(world: World, history):
    repository = write(world, "  quota: {places: {hot: 1B, nowhere: 1TB}}")

    found = alerts.look(repository)

    assert [(one.kind, one.severity, one.facts["place"]) for one in found.alerts] == [("quota", "critical", "hot")]
    assert "no place 'nowhere'" in found.notes[-1]


def test_a_run_that_saves_nothing_is_told_until_it_ends(world: World, history: list[Receipt]):
    repository = write(world, "  save_within: 2h")
    facts = {"run": history[0].manifest.run.name, "run_id": "1", "branch": "main"}
    ledger.append(repository, "run.start", **facts, parents=[])

    assert kinds(alerts.look(repository)) == []
    assert kinds(alerts.look(repository, at=later(hours=3))) == ["save"]

    ledger.append(repository, "run.end", **facts)
    assert kinds(alerts.look(repository, at=later(hours=3))) == []


def test_restores_and_exports_tell_how_long_they_took_only_where_it_matters(world: World, history, tmp_path: Path):
    silent, wanted = Repository.open(world.root), None
    exchange.execute(silent, exchange.plan_export(silent, "HEAD", tmp_path / "a.pt"))
    assert [event.op for event in ledger.events(silent)] == ["restore"]

    wanted = write(world, "  restore_within: 10min")
    exchange.execute(wanted, exchange.plan_export(wanted, "HEAD", tmp_path / "b.pt"))
    world.ckpt("restore", "HEAD~1")

    entries = [event for event in ledger.events(wanted) if event.op == "restore.end"]
    assert [entry.facts["by"] for entry in entries] == ["export", "restore"]
    assert all(0 < entry.facts["seconds"] < 600 and entry.facts["bytes"] > 0 for entry in entries)
    assert kinds(alerts.look(wanted)) == []
    ledger.append(wanted, "restore.end", checkpoint=history[0].id, by="checkout", seconds=601.0, bytes=1)
    assert kinds(alerts.look(wanted)) == ["restore"]


def test_what_is_in_no_remote_is_told_and_not_once_it_is_there(world: World, history):
    world.ckpt("remote", "add", "store", "../store", "--default")
    world.git("init", "-q", "--bare", "../hub.git")
    world.git("remote", "add", "origin", "../hub.git")
    write(world, "  push_within: 1h")

    assert kinds(alerts.look(Repository.open(world.root), at=later(minutes=30))) == []
    (told,) = alerts.look(Repository.open(world.root), at=later(hours=2)).alerts
    assert (told.kind, told.facts["count"]) == ("push", 3)

    world.ckpt("push")
    found = alerts.look(Repository.open(world.root), at=later(hours=2))
    assert kinds(found) == []
    assert [place.place for place in found.facts.places] == ["hot", "store"]
    assert len({place.nbytes for place in found.facts.places}) == 1


def test_a_golden_mark_wants_a_proof(world: World, repo: Repo, history):
    repo.tag("base", golden=True)
    checkpoint = history[-1].id
    repository = write(world, "  proof_within: 30d")

    assert kinds(alerts.look(repository, at=later(days=29))) == []
    assert kinds(alerts.look(repository, at=later(days=31))) == ["proof"]

    ledger.append(repository, "proof", checkpoint=checkpoint, ok=False)
    (failed,) = alerts.look(repository).alerts
    assert failed.severity == "critical"

    ledger.append(repository, "proof", checkpoint=checkpoint, ok=True)
    assert kinds(alerts.look(repository, at=later(days=29))) == []


def test_a_remote_that_does_not_answer_is_an_alert_and_no_error(world: World, history):
    world.ckpt("remote", "add", "store", "../store", "--default")
    (world.root / ".dvc/config").write_text(
        "[core]\n remote = store\n['remote \"store\"']\n url = http://127.0.0.1:9/x\n"
    )
    repository = write(world, "  push_within: 1min")

    (told,) = alerts.look(repository, at=later(hours=1)).alerts

    assert (told.kind, told.severity, told.facts) == ("place", "critical", {"place": "store"})
    assert alerts.look(repository, offline=True, at=later(hours=1)).alerts == ()


# ---------------------------------------------------------------------------------------------------------------- send


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program that keeps what it gets."""
    path = tmp_path / "hook.py"
    path.write_text(f"import sys; open({str(tmp_path / 'got')!r}, 'wb').write(sys.stdin.buffer.read())\n")
    return path


def test_a_program_gets_the_alerts_where_the_machine_lets_it_run(world: World, history, program: Path, tmp_path: Path):
    command = json.dumps([sys.executable, str(program)])
    repository = write(world, f"  growth: {{max_bytes: 1B}}\n  command: {command}")
    found = alerts.look(repository)

    (note,) = alerts.send(repository, found)
    assert "git config ckptvcs.alertcommand true" in note
    assert not (tmp_path / "got").exists()

    world.git("config", "ckptvcs.alertcommand", "true")
    assert alerts.send(Repository.open(world.root), found) == ()
    got = json.loads((tmp_path / "got").read_bytes())
    assert (got["format"], got["repository"]) == ("ckptvcs-alerts/1", "repo")
    assert [one["kind"] for one in got["alerts"]] == ["growth"]


def test_a_program_is_not_run_when_there_is_nothing_to_tell(world: World, history, program: Path, tmp_path: Path):
    world.git("config", "ckptvcs.alertcommand", "true")
    command = json.dumps([sys.executable, str(program)])
    repository = write(world, f"  growth: {{max_bytes: 1TB}}\n  command: {command}")

    assert alerts.send(repository, alerts.look(repository)) == ()
    assert not (tmp_path / "got").exists()


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (["/no/such/program"], "cannot be run: no such file"),
        (["sh", "-c", "cat > /dev/null; echo 'no \x1b[31mroute' >&2; exit 7"], "ended with 7: no "),
        (["sh", "-c", "sleep 60 & sleep 60"], "longer than 0.5 s"),
        (["sh", "-c", "exec <&-; exit 0"], None),
    ],
)
def test_what_goes_wrong_with_a_program_is_told(
    world: World, history, monkeypatch: pytest.MonkeyPatch, command: list[str], why: str | None
):
    monkeypatch.setenv("CKPT_ALERT_COMMAND", "1")
    section = f"  growth: {{max_bytes: 1B}}\n  timeout_s: 0.5\n  command: {json.dumps(command)}"
    repository = write(world, section)

    notes = alerts.send(repository, alerts.look(repository))

    assert [why in note and "\x1b" not in note for note in notes] == ([True] if why else [])


# ---------------------------------------------------------------------------------------------------------- prometheus


def test_prometheus_reads_every_number(world: World, history, tmp_path: Path):
    parser = pytest.importorskip("prometheus_client.parser", reason="prometheus_client is in the extra 'dev'")
    repository = write(world, "  growth: {max_bytes: 1B, period: 1d}\n  quota: {places: {hot: 1GB}}")
    ledger.append(repository, "run.start", run='say "hi"\\', run_id="1", branch="b", parents=[])
    file = tmp_path / "ckpt.prom"

    alerts.write_prometheus(alerts.look(repository), file)

    families = {f.name: f for f in parser.text_string_to_metric_families(file.read_text())}
    values = {name: {tuple(s.labels.values())[1:]: s.value for s in f.samples} for name, f in families.items()}
    assert all(f.type == "gauge" and f.documentation for f in families.values())
    assert all(s.labels["repository"] == "repo" for f in families.values() for s in f.samples)
    assert values["ckptvcs_alerts"]["growth", "warning"] == 1
    assert sum(values["ckptvcs_alerts"].values()) == 1
    assert values["ckptvcs_checkpoints"] == {(): 3}
    assert values["ckptvcs_quota_bytes"] == {("hot",): 10**9}
    assert values["ckptvcs_place_up"] == {("hot",): 1}
    assert values["ckptvcs_bytes"]["hot",] == sum(path.stat().st_size for path in world.objects().values())
    assert set(values["ckptvcs_newest_age_seconds"]) == {("main", "model")}
    assert set(values["ckptvcs_at_risk_seconds"]) == {('say "hi"\\',)}
    assert list(tmp_path.glob(".ckptvcs*")) == []


# ------------------------------------------------------------------------------------------------------------- command


def test_the_status_says_whether_there_are_alerts(world: World, history):
    assert "has no limits" in world.ckpt("alerts").out
    write(world, "  growth: {max_bytes: 1B}")

    said = world.ckpt("alerts", status=1)

    assert said.out.startswith("warning: checkpoints added")
    assert "  next: save less often" in said.out
    assert world.ckpt("alerts", "--no-exit-code").out == said.out
    assert [one["kind"] for one in world.ckpt("alerts", "--json", status=1).json["alerts"]] == ["growth"]
    assert world.ckpt("alerts", "--prometheus", status=1).out.startswith("# HELP ckptvcs_alerts")
    assert "--output needs --prometheus" in world.ckpt("alerts", "--output", "x", status=2).err


def test_to_look_changes_nothing(world: World, history, everything):
    write(world, "  growth: {max_bytes: 1B}\n  push_within: 1min\n  proof_within: 1d")
    before = everything(world)

    world.ckpt("alerts", status=1)

    assert everything(world) == before
