"""The ledger of a repository: nothing that was reported is lost, everything is told once, harm is told and does no harm."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import torch

from ckptvcs import Repo
from ckptvcs.domain import events
from ckptvcs.errors import BadEntry, LockHeld, StorageError, UsageError
from ckptvcs.porcelain import account, doctor, ledger
from ckptvcs.porcelain.commit import Receipt
from ckptvcs.porcelain.repo import Repository
from tests.support import oracle
from tests.support.world import World

REFS = "refs/ckptvcs/ledger/"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    """The time, to be set."""
    times = [datetime(2026, 11, 21, 10, 0, tzinfo=timezone(timedelta(hours=2)))]
    monkeypatch.setattr(Repository, "now", staticmethod(lambda: times[0]))
    return times


def chain(world: World) -> str:
    """The full name of the only chain."""
    return world.git("for-each-ref", "--format=%(refname)", REFS)


# --------------------------------------------------------------------------------------------------------------- append


def test_an_event_is_what_was_said_and_when(repository: Repository, history, clock: list[datetime]):
    first = ledger.append(repository, "run.start", run="a", step=None, numbers=(1, 2.5))
    second = ledger.append(repository, "run.end", how="closed")

    assert (first.op, first.n, first.prev, first.time) == ("run.start", 1, "", "2026-11-21T08:00:00.000000+00:00")
    assert first.facts == {"run": "a", "step": None, "numbers": [1, 2.5]}
    assert (second.n, second.prev) == (2, events.link(events.to_bytes(first)))
    assert list(ledger.events(repository)) == [first, second]


def test_events_can_be_asked_for_by_what_was_done(repository: Repository, history):
    for n, op in enumerate(("save", "note", "run.end", "save")):
        ledger.append(repository, op, number=n)

    assert [event.facts["number"] for event in ledger.events(repository, ops=("save", "run.end"))] == [0, 2, 3]
    assert list(ledger.events(repository, ops=())) == []


def test_a_repository_without_a_ledger_has_no_events(repository: Repository, world: World, history, everything):
    before = everything(world)

    assert list(ledger.events(repository)) == []
    assert account.late_metrics(repository) == {}
    assert ledger.examine(repository) == ()
    assert everything(world) == before


@pytest.mark.parametrize("op", ["", "Note", "a b", "x" * 99])
def test_what_is_no_word_is_no_event(repository: Repository, history, op: str):
    with pytest.raises(BadEntry):
        ledger.append(repository, op)
    assert list(ledger.events(repository)) == []


def test_an_entry_that_nobody_would_read_is_not_written(repository: Repository, history):
    with pytest.raises(UsageError, match="cannot write down a 'save'"):
        ledger.append(repository, "save", text="x" * 70_000)
    assert list(ledger.events(repository)) == []


def test_facts_of_any_kind_come_back_as_json_has_them(repository: Repository, history):
    ledger.append(repository, "save", nan=float("nan"), text="\udcff ü", deep={"a": [{"b": 2**70}]}, small=5e-324)

    (event,) = ledger.events(repository)
    assert event.facts == {"nan": "nan", "text": "\\udcff ü", "deep": {"a": [{"b": 2**70}]}, "small": 5e-324}


def test_who_holds_the_repository_is_waited_for(repository: Repository, world: World, history):
    with Repository.open(world.root).lock(), pytest.raises(LockHeld):
        ledger.append(repository, "save")


def test_a_full_disk_adds_nothing(repository: Repository, world: World, history, without_privilege: None):
    ledger.append(repository, "save", n=1)
    objects = world.root / ".git/objects"
    for folder in (objects, *objects.iterdir()):
        folder.chmod(0o555)

    with pytest.raises(StorageError):
        ledger.append(repository, "save", n=2)
    for folder in (objects, *objects.iterdir()):
        folder.chmod(0o755)
    assert [event.facts["n"] for event in ledger.events(repository)] == [1]
    assert ledger.append(repository, "save", n=3).n == 2


def test_what_a_killed_commit_left_is_finished_first(repo: Repo, repository: Repository, world: World, state):
    repo.commit(state(1))
    index = (world.root / ".git/index").read_bytes()
    repo.commit(state(2))
    (world.root / ".git/index").write_bytes(index)
    note = {"ref": "refs/heads/main", "commit": world.git("rev-parse", "HEAD"), "track": "model"}
    (world.root / ".git/ckptvcs/lock").write_text(json.dumps({"follow": note}))
    assert world.git("status", "--porcelain") != ""

    ledger.append(repository, "save")

    assert world.git("status", "--porcelain") == ""


# ---------------------------------------------------------------------------------------------------------- the writer


def test_a_clone_has_one_writer_and_keeps_it(world: World, history):
    writers = set()
    for _ in range(3):
        repository = Repository.open(world.root)
        writers.add(ledger.append(repository, "save").writer)

    assert len(writers) == 1
    assert re.fullmatch("[0-9a-f]{16}", writers.pop())
    assert (world.root / ".git/ckptvcs/writer.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("how", ["lost", "garbage", "copied"])
def test_a_clone_that_has_lost_its_writer_begins_a_chain_that_saw_the_old_one(
    world: World, history, how: str, tmp_path: Path
):
    first = ledger.append(Repository.open(world.root), "save", n=1)
    where, file = world.root, world.root / ".git/ckptvcs/writer.json"
    if how == "lost":
        file.unlink()
    elif how == "garbage":
        file.write_bytes(b"\xff{")
    else:
        where = Path(shutil.copytree(world.root, tmp_path / "copy", symlinks=True))
    repository = Repository.open(where)

    second = ledger.append(repository, "save", n=2)

    assert second.writer != first.writer
    assert second.n == 1
    assert second.seen == {first.writer: (1, events.link(events.to_bytes(first)))}
    assert [event.facts["n"] for event in ledger.events(repository)] == [1, 2]
    assert ledger.examine(repository) == ()


def test_neither_name_nor_address_nor_host_is_in_an_entry(world: World, history, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Zoë Private")
    monkeypatch.setenv("GIT_AUTHOR_EMAIL", "zoe@private.example")
    ledger.append(Repository.open(world.root), "save")
    ref = chain(world)

    data = re.sub("(?s)gpgsig .*END SSH SIGNATURE-----", "", world.git("cat-file", "commit", ref))

    assert '"op":"save"' in data
    assert not re.search("zo|private|example|test", data, re.IGNORECASE)


def test_people_are_told_apart_by_pseudonyms(world: World, history, monkeypatch: pytest.MonkeyPatch):
    actors = []
    for address in ("a@x.example", "b@x.example", "a@x.example"):
        monkeypatch.setenv("GIT_AUTHOR_EMAIL", address)
        actors.append(ledger.append(Repository.open(world.root), "save").actor)

    assert actors[0] == actors[2] != actors[1]


# ---------------------------------------------------------------------------------------------------------- concurrency

_NOTES = """
import sys
from ckptvcs import Repo
with Repo() as repo:
    for n in range(int(sys.argv[2])):
        repo.note("main", {f"p{sys.argv[1]}n{n}": n, "last": n})
"""


def test_eight_processes_that_note_at_once_lose_nothing(world: World, history: list[Receipt]):
    command = [sys.executable, "-c", _NOTES]

    running = [subprocess.Popen([*command, str(p), "20"], cwd=world.root) for p in range(8)]

    assert [process.wait() for process in running] == [0] * 8
    entries = oracle.ledger(world.root)
    assert [len(found) for found in entries.values()] == [160]
    with world.repo() as repo:
        metrics = repo.show("main").metrics
    assert {name: value for name, value in metrics.items() if name[0] == "p"} == {
        f"p{p}n{n}": n for p in range(8) for n in range(20)
    }
    assert metrics["last"] == 19


def test_an_append_that_a_git_program_overtakes_is_tried_again(
    repository: Repository, world: World, history, monkeypatch: pytest.MonkeyPatch
):
    from ckptvcs.storage.history import ledger as storage

    first = ledger.append(repository, "save", n=1)
    ledger.append(repository, "save", n=2)
    real, ref, tip = storage.write, chain(world), world.git("rev-parse", chain(world))
    world.git("update-ref", ref, f"{tip}~1")
    calls = []

    def write(*args, **options):
        calls.append(options)
        if len(calls) == 1:
            world.git("update-ref", ref, tip)
        return real(*args, **options)

    monkeypatch.setattr(storage, "write", write)
    event = ledger.append(repository, "save", n=3)

    assert (event.n, len(calls)) == (3, 2)
    assert [found.facts["n"] for found in ledger.events(repository)] == [1, 2, 3]
    assert first.n == 1


# ----------------------------------------------------------------------------------------------------- several clones


def exchanged(one: World, other: World) -> None:
    """Take the chains of another clone, as the exchange will."""
    one.git("fetch", "-q", str(other.root), f"+{REFS}*:{REFS}*")


def test_notes_of_several_clones_are_joined(world: World, history: list[Receipt], tmp_path: Path):
    clone = world.clone(tmp_path / "clone")
    clone.ckpt("init")
    world.ckpt("note", "main@step:1", "--metric", "acc=1")
    clone.ckpt("note", "origin/main", "--metric", "acc=2", "--metric", "loss=0.001")
    exchanged(world, clone)
    exchanged(clone, world)

    for at, revision in ((world, "main"), (clone, "origin/main")):
        assert at.ckpt("show", revision, "--json").json["metrics"] == {"acc": 2, "loss": 0.001}
        assert at.ckpt("show", f"{revision}@best:acc", "--json").json["id"] == history[2].id
    assert len(oracle.ledger(world.root)) == 2
    world.ckpt("note", "main@step:1", "--metric", "acc=3")
    seen = [entry["seen"] for entries in oracle.ledger(world.root).values() for entry in entries]
    assert sorted(map(len, seen)) == [0, 0, 1]
    assert world.ckpt("show", "main@best:acc", "--json").json["id"] == history[0].id


def test_the_newest_note_wins_whichever_clone_made_it(world: World, history, tmp_path: Path, clock: list[datetime]):
    copy = World(Path(shutil.copytree(world.root, tmp_path / "copy", symlinks=True)))
    for where, minutes, value in ((world, 5, "new"), (copy, 1, "old"), (copy, 3, "older")):
        clock[0] = datetime(2026, 11, 21, 10, minutes, tzinfo=timezone.utc)
        number = {"new": 1, "old": 2, "older": 3}[value]
        with where.repo() as repo:
            repo.note("main", {"acc": number})
    exchanged(world, copy)
    exchanged(copy, world)

    for where in (world, copy):
        with where.repo() as repo:
            assert repo.show("main").metrics["acc"] == 1


# -------------------------------------------------------------------------------------------------------- what is remembered


def test_a_long_chain_is_remembered_and_read_on_from_there(
    repository: Repository, world: World, history: list[Receipt], monkeypatch: pytest.MonkeyPatch
):
    from ckptvcs.storage.history import ledger as storage

    for n in range(70):
        ledger.append(repository, "note", checkpoint=history[n % 3].id, metrics={f"m{n % 7}": n})
    memory = world.root / ".git/ckptvcs/ledger.json"
    expected = account.late_metrics(repository)
    assert memory.is_file()
    read, real = [], storage._entry
    monkeypatch.setattr(storage, "_entry", lambda *args: read.append(args) or real(*args))

    assert account.late_metrics(repository) == expected
    assert read == []
    ledger.append(repository, "note", checkpoint=history[0].id, metrics={"m0": -1})
    read.clear()
    assert account.late_metrics(repository)[history[0].id]["m0"] == -1
    assert len(read) == 1

    memory.unlink()
    late = account.late_metrics(repository)
    assert late == {**expected, history[0].id: {**expected[history[0].id], "m0": -1}}


@pytest.mark.parametrize("harm", ["flipped", "cut", "empty", "of another version", "a folder"])
def test_a_memory_that_is_not_as_it_was_written_is_not_believed(
    repository: Repository, world: World, history: list[Receipt], harm: str
):
    for n in range(70):
        ledger.append(repository, "note", checkpoint=history[0].id, metrics={"acc": n})
    account.late_metrics(repository)
    memory = world.root / ".git/ckptvcs/ledger.json"
    data = memory.read_bytes()
    memory.unlink()
    if harm == "a folder":
        memory.mkdir()
    else:
        changed = {
            "flipped": data.replace(b'"value":69', b'"value":99'),
            "cut": data[:-10],
            "empty": b"",
            "of another version": (b"1" if data.startswith(b"0") else b"0") + data[1:],
        }
        assert changed[harm] != data
        memory.write_bytes(changed[harm])

    assert account.late_metrics(repository) == {history[0].id: {"acc": 69}}


def test_a_chain_that_was_put_back_is_read_anew(repository: Repository, world: World, history: list[Receipt]):
    for n in range(70):
        ledger.append(repository, "note", checkpoint=history[0].id, metrics={"acc": n})
    account.late_metrics(repository)

    world.git("update-ref", chain(world), f"{chain(world)}~10")

    assert account.late_metrics(repository) == {history[0].id: {"acc": 59}}


# --------------------------------------------------------------------------------------------------------------- harm


def put(world: World, ref: str, data: bytes, *parents: str, name: str = "entry.json") -> None:
    """Put an entry of any bytes at the end of a chain, by git alone."""

    def git(*args: str, data: bytes = b"") -> str:
        done = subprocess.run(["git", *args], cwd=world.root, input=data, check=True, capture_output=True)
        return done.stdout.decode().strip()

    blob = git("hash-object", "-w", "--stdin", data=data)
    tree = git("mktree", data=f"100644 blob {blob}\t{name}\n".encode())
    git("update-ref", ref, git("commit-tree", tree, "-m", "x", *(w for parent in parents for w in ("-p", parent))))


LOOKS = ["log", "log --all", "show", "show main@best", "branch", "tag", "status"]
GARBAGE = [
    b"",
    b"\xff\xfe garbage",
    b"{}",
    b"[" * 60_000,
    b"x" * (1 << 20),
    b'{"format":"ckptvcs-ledger/9"}\n',
    events.to_bytes(
        events.Event(
            writer="0" * 16,
            n=1,
            prev="",
            time="2026-11-21T10:00:00.000000+00:00",
            op="note",
            actor="",
            facts={"checkpoint": "0" * 64, "metrics": {"loss": 1}},
            seen={},
        )
    ),
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_behind_a_chain_takes_nothing_from_it(world: World, history: list[Receipt], garbage: bytes):
    with world.repo() as repo:
        repo.note("main@step:1", {"loss": 0.001})
        put(world, chain(world), garbage, chain(world))

        assert repo.show("main@best").id == history[0].id
    repository = Repository.open(world.root)
    assert account.late_metrics(repository) == {history[0].id: {"loss": 0.001}}
    assert [flaw.n for flaw in ledger.examine(repository)] == [2]
    with pytest.raises((BadEntry, events.NewerVersion)):
        ledger.append(repository, "note")


@pytest.mark.parametrize("look", LOOKS)
def test_looking_goes_on_and_says_what_it_left_out(world: World, history: list[Receipt], look: str):
    world.ckpt("note", "main@step:1", "--metric", "loss=0.001")
    put(world, f"{REFS}stranger0", b"garbage")
    put(world, chain(world).splitlines()[0], b"garbage", chain(world).splitlines()[0])

    done = world.ckpt(*look.split())

    said = [line for line in done.err.splitlines() if "counts only up to entry" in line]
    assert len(said) == (2 if look.startswith(("log", "show")) else 0)
    assert world.ckpt("show", "main@best", "--json").json["id"] == history[0].id


@pytest.mark.parametrize("name", ["UPPER-CASE", "a/b/c", "x", "short.", "with space", "é" * 8, "a" * 99])
def test_a_ref_that_is_no_writer_is_left_out(world: World, history: list[Receipt], name: str):
    data = GARBAGE[-1].replace(b"0" * 16, name.encode())
    put(world, f"{REFS}{name}".replace(" ", "_").rstrip("."), data)

    repository = Repository.open(world.root)
    assert account.late_metrics(repository) == {}
    assert len(account.read(repository).notes) == 1
    assert ledger.append(repository, "save").seen == {}


def test_a_chain_under_the_name_of_another_counts_for_nothing(world: World, history: list[Receipt]):
    world.ckpt("note", "main@step:1", "--metric", "loss=0.001")
    world.git("update-ref", f"{REFS}fedcba9876543210", chain(world))
    world.git("update-ref", "-d", chain(world).splitlines()[0])

    repository = Repository.open(world.root)
    found = account.read(repository)
    assert len(found.flaws) == 1
    assert len(found.late) == 0


def test_objects_of_a_chain_that_are_lost_are_told(world: World, history: list[Receipt]):
    world.ckpt("note", "main", "--metric", "loss=0.001")
    world.ckpt("note", "main", "--metric", "acc=1")
    lost = world.git("rev-parse", f"{chain(world)}~1")
    (world.root / ".git/objects" / lost[:2] / lost[2:]).unlink()

    done = world.ckpt("show", "main", "--json")

    assert done.json["metrics"] == {"loss": 1 / 3}
    assert "counts only up to entry" in done.err
    assert "of 'refs/ckptvcs/ledger/" in world.ckpt("doctor", status=1).out
    said = world.ckpt("note", "main", "--metric", "acc=1", status=20).err
    assert f"git object {lost} is missing" in said
    (world.root / re.findall("rm '(.*)'", said)[0]).unlink()
    world.ckpt("note", "main", "--metric", "acc=1")
    assert world.ckpt("show", "main", "--json").json["metrics"] == {"loss": 1 / 3, "acc": 1}


def test_doctor_tells_of_an_edit_that_a_plain_look_takes_as_it_is(world: World, history, tmp_path: Path):
    """An insider who writes his own chain anew is found by who saw the old one."""
    repository = Repository.open(world.root)
    first = ledger.append(repository, "note", checkpoint=history[0].id, metrics={"loss": 1})
    (world.root / ".git/ckptvcs/writer.json").unlink()
    ledger.append(repository, "save")
    assert doctor.examine(world.root) == []

    better = events.Event(**{**{f: getattr(first, f) for f in first.__struct_fields__}, "facts": {"checkpoint": "x"}})
    put(world, f"{REFS}{first.writer}", events.to_bytes(better))

    (finding,) = doctor.examine(world.root)
    assert finding.what.startswith(f"entry 1 of 'refs/ckptvcs/ledger/{first.writer}' is not as it was written")


# ----------------------------------------------------------------------------------- what else looks at refs and commits


def test_the_ledger_is_no_part_of_any_history(world: World, history: list[Receipt]):
    before = world.ckpt("log", "--all", "--json").json["checkpoints"], world.ckpt("branch", "--json").json
    with world.repo() as repo:
        ledger.append(Repository.open(world.root), "save")
        assert repo.show(history[0].id[:12]).id == history[0].id
        assert repo.show(history[0].id).id == history[0].id
    after = world.ckpt("log", "--all", "--json").json["checkpoints"], world.ckpt("branch", "--json").json
    assert after == before
    assert "holds no checkpoint" in world.ckpt("show", chain(world), status=12).err
    assert world.ckpt("doctor").out.strip() == "all is well"


def test_git_is_content_and_keeps_the_ledger(world: World, history: list[Receipt]):
    for n in range(3):
        world.ckpt("note", "main", "--metric", f"acc={n}")

    world.git("gc", "-q", "--prune=now")

    assert world.git("fsck", "--strict", "--no-dangling") == ""
    assert world.ckpt("show", "--json").json["metrics"]["acc"] == 2
    world.ckpt("note", "main", "--metric", "acc=3")
    assert [entry["n"] for entry in next(iter(oracle.ledger(world.root).values()))] == [1, 2, 3, 4]


def test_other_tracks_are_told_apart_by_the_checkpoint(repo: Repo, repository: Repository, history):
    teacher = repo.commit({"model": {"w": torch.zeros(1)}}, track="teacher")
    ledger.append(repository, "note", checkpoint=teacher.id, metrics={"acc": 1})

    assert repo.show("HEAD").metrics == {"loss": 1 / 3}
