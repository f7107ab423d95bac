"""Every way to change the ledger is found, by its chains, by who saw them, by who may write, or by heads kept elsewhere."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ckptvcs import Repo
from ckptvcs.domain import events
from ckptvcs.errors import FormatError, StorageError, UsageError
from ckptvcs.porcelain import account, audit, given, ledger
from ckptvcs.porcelain.commit import Receipt
from ckptvcs.porcelain.repo import Repository
from ckptvcs.signatures import read_key
from ckptvcs.storage.history import ledger as storage
from tests.support.places import Place
from tests.support.states import training_state
from tests.support.world import World, run
from tests.unit.porcelain.test_ledger import REFS, put

# ------------------------------------------------------------------------------------------------------------- tampering


class Clones:
    """Three clones of one history whose ledgers are one: `a`, `b`, `c` write in turn, and see each other."""

    def __init__(self, world: World, folder: Path) -> None:
        self.worlds = {name: World(Path(shutil.copytree(world.root, folder / name, symlinks=True))) for name in "abc"}
        for _ in range(7):
            for name, one in self.worlds.items():
                ledger.append(Repository.open(one.root), "save", at=name)
                for other in self.worlds.values():
                    other.git("fetch", "-q", one.root, f"+{self.ref(name)}:{self.ref(name)}")

    def ref(self, name: str) -> str:
        return REFS + json.loads((self.worlds[name].root / ".git/ckptvcs/writer.json").read_bytes())["id"]

    def sign(self, name: str, of: str, data: bytes, after: str | None) -> str:
        """An entry of any bytes behind any commit of the chain of `of`, signed by `name`; returns the commit."""
        repository = Repository.open(self.worlds["a"].root)
        key = read_key((self.worlds[name].root / ".git/ckptvcs/writer_ed25519").read_bytes(), where=name)
        writer, when = self.ref(of).removeprefix(REFS), datetime(2026, 11, 21, tzinfo=timezone.utc)
        return storage.write(repository.history, writer, data, after=after, when=when, sign=key.sign)  # type: ignore[arg-type]

    def entry(self, name: str, n: int) -> bytes:
        """Entry `n` of a chain, from 1."""
        commits = self.worlds["a"].git("rev-list", "--reverse", self.ref(name)).split()
        return (self.worlds["a"].git("log", "-1", "--format=%B", commits[n - 1]).rstrip("\n") + "\n").encode()

    def commit(self, name: str, n: int) -> str:
        return self.worlds["a"].git("rev-list", "--reverse", self.ref(name)).split()[n - 1]

    def point(self, name: str, commit: str) -> None:
        self.worlds["a"].git("update-ref", self.ref(name), commit)

    def rewrite(self, name: str, n: int, by: str, **changed: Any) -> None:
        """Write a chain anew from entry `n` on, with other facts in that one, all links right, signed by `by`."""
        after, prev, length = (
            self.commit(name, n - 1),
            events.link(self.entry(name, n - 1)),
            int(self.worlds["a"].git("rev-list", "--count", self.ref(name))),
        )
        for place in range(n, length + 1):
            event = events.from_bytes(self.entry(name, place), where="x")
            new = msgspec.structs.replace(event, prev=prev, facts={**event.facts, **(changed if place == n else {})})
            data = events.to_bytes(new)
            after, prev = self.sign(by, name, data, after), events.link(data)
        self.point(name, after)


@pytest.fixture
def clones(world: World, history, tmp_path: Path) -> Clones:
    return Clones(world, tmp_path)


def edit(clones: Clones) -> None:
    """A byte of an entry in the middle, by who has no key: the entries behind it stay."""
    data = clones.entry("b", 3).replace(b'"at":"b"', b'"at":"x"')
    raw = clones.worlds["a"].git("cat-file", "commit", clones.commit("b", 3)) + "\n"
    raw = raw.replace(clones.entry("b", 3).decode(), data.decode())
    at = _hash_commit(clones, raw)
    for n in range(4, 8):
        old = clones.worlds["a"].git("cat-file", "commit", clones.commit("b", n)) + "\n"
        lines = old.split("\n")
        lines[1] = f"parent {at}"
        at = _hash_commit(clones, "\n".join(lines))
    clones.point("b", at)


def _hash_commit(clones: Clones, raw: str) -> str:
    done = subprocess.run(
        ["git", "hash-object", "-t", "commit", "-w", "--stdin"],
        cwd=clones.worlds["a"].root, input=raw.encode(), capture_output=True, check=True,
    )  # fmt: skip
    return done.stdout.decode().strip()


def roll_back(clones: Clones, by: int) -> None:
    for name in "abc":
        clones.point(name, clones.commit(name, 7 - by))


def forge(clones: Clones) -> None:
    """`c` writes an entry at the end of the chain of `b`, with its own key."""
    last = clones.entry("b", 7)
    event = msgspec.structs.replace(events.from_bytes(last, where="x"), n=8, prev=events.link(last))
    clones.point("b", clones.sign("c", "b", events.to_bytes(event), clones.commit("b", 7)))


def reorder(clones: Clones) -> None:
    one, two = clones.entry("b", 3), clones.entry("b", 4)
    after = clones.commit("b", 2)
    for data in (two, one, *(clones.entry("b", n) for n in (5, 6, 7))):
        after = clones.sign("b", "b", data, after)
    clones.point("b", after)


def leave_out(clones: Clones) -> None:
    after = clones.commit("b", 2)
    for n in (4, 5, 6, 7):
        after = clones.sign("b", "b", clones.entry("b", n), after)
    clones.point("b", after)


TAMPERING: dict[str, Callable[[Clones], None]] = {
    "an edit": edit,
    "the last entry cut off": lambda c: c.point("b", c.commit("b", 6)),
    "five entries cut off": lambda c: c.point("b", c.commit("b", 2)),
    "a whole chain deleted": lambda c: c.worlds["a"].git("update-ref", "-d", c.ref("b")),  # type: ignore[dict-item]
    "an insider who writes his own chain anew": lambda c: c.rewrite("b", 3, "b", at="x"),
    "an entry forged on the chain of another": forge,
    "all chains rolled back by three": lambda c: roll_back(c, 3),
    "another order": reorder,
    "an entry left out": leave_out,
}


@pytest.mark.parametrize("how", TAMPERING)
def test_tampering_is_found(clones: Clones, how: str, tmp_path: Path):
    world = clones.worlds["a"]
    world.ckpt("audit", "verify")
    (tmp_path / "pins.json").write_text(world.ckpt("audit", "heads").out)

    TAMPERING[how](clones)

    pinned = world.ckpt("audit", "verify", "--pins", tmp_path / "pins.json", "--json", status=1).json
    assert pinned["flaws"]
    assert not pinned["sound"]
    if how not in ("the last entry cut off", "all chains rolled back by three"):
        found = world.ckpt("audit", "verify", status=1).out
        assert clones.ref("b").removeprefix(REFS) in found


def test_what_nobody_saw_is_found_by_heads_that_were_kept_and_only_by_them(clones: Clones, tmp_path: Path):
    """The last entry of the last writer has no witness; so has a rollback of everything to one moment of the past."""
    world = clones.worlds["a"]
    (tmp_path / "pins.json").write_text(world.ckpt("audit", "heads").out)

    clones.point("c", clones.commit("c", 6))

    world.ckpt("audit", "verify")
    found = world.ckpt("audit", "verify", "--pins", tmp_path / "pins.json", status=1).out
    assert "entries up to 7 are gone that who looked before saw" in found


def test_rolling_back_all_chains_by_some_is_found_by_who_was_seen_beyond(clones: Clones):
    """Not to one moment of the past: `b` and `c` lose more than `a`, which saw them."""
    for name, n in (("a", 6), ("b", 4), ("c", 4)):
        clones.point(name, clones.commit(name, n))

    flaws = audit.verify(Repository.open(clones.worlds["a"].root)).flaws

    assert {flaw.writer for flaw in flaws} == {clones.ref(name).removeprefix(REFS) for name in "bc"}


def test_a_stranger_is_found_where_it_is_listed_who_may_write(clones: Clones):
    world = clones.worlds["a"]
    for name in "abc":
        world.ckpt("audit", "allow", clones.ref(name).removeprefix(REFS), "--name", f"{name}@example.com")
    world.ckpt("audit", "verify")

    stranger = World(Path(shutil.copytree(world.root, world.root.with_name("stranger"), symlinks=True)))
    (stranger.root / ".git/ckptvcs/writer_ed25519").unlink()
    event = ledger.append(Repository.open(stranger.root), "save")
    world.git("fetch", "-q", stranger.root, f"{REFS}{event.writer}:{REFS}{event.writer}")

    found = world.ckpt("audit", "verify", status=1).out
    assert (
        found.splitlines()[0]
        == f"entry 1 of chain '{event.writer}': it is signed with a key that is not in ckpt.signers"
    )


def test_a_chain_that_nobody_signed_is_told_and_counts_only_where_nobody_is_listed(
    world: World, history: list[Receipt]
):
    note = {"checkpoint": history[0].id, "metrics": {"loss": 0.001}}
    event = events.Event(
        writer="0" * 16, n=1, prev="", time="2026-11-21T10:00:00.000000+00:00", op="note", actor="", facts=note, seen={}
    )  # fmt: skip
    put(world, f"{REFS}{'0' * 16}", events.to_bytes(event))
    repository = Repository.open(world.root)
    assert audit.verify(repository).unsigned == ("0" * 16,)
    assert account.late_metrics(repository) == {history[0].id: {"loss": 0.001}}

    world.ckpt("audit", "allow")

    assert account.late_metrics(repository) == {}
    (flaw,) = audit.verify(repository).flaws
    assert (flaw.writer, flaw.what) == ("0" * 16, "nobody signed it")


def test_a_golden_mark_that_was_moved_is_found_and_one_that_is_not_here_is_told(world: World, history):
    world.ckpt("tag", "--golden", "base", "main@step:1")
    world.ckpt("audit", "verify")

    world.git("tag", "-f", "-a", "-m", "forged", "golden/base", "main")
    assert "'golden/base' stands at " in world.ckpt("audit", "verify", status=1).out

    world.git("tag", "-d", "golden/base")
    assert "'golden/base' is not here" in world.ckpt("audit", "verify").err


# --------------------------------------------------------------------------------------------------------------- remotes


@pytest.fixture
def hub(world: World, history, tmp_path: Path) -> Path:
    where = tmp_path / "hub.git"
    world.git("init", "-q", "--bare", "-b", "main", where)
    world.git("remote", "add", "origin", where)
    world.ckpt("remote", "add", "share", tmp_path / "store")
    world.git("commit", "-qam", "a remote")
    world.ckpt("push")
    return where


@pytest.mark.parametrize("how", ["gone", "cut"])
def test_what_a_remote_has_less_of_than_it_had_is_found(world: World, hub: Path, tmp_path: Path, how: str):
    run(["git", "clone", "-q", str(hub), str(tmp_path / "other")], tmp_path)
    other = World(tmp_path / "other")
    other.git("config", "user.name", "Other")
    other.git("config", "user.email", "other@example.com")
    other.ckpt("note", "HEAD", "--metric", "acc=1")
    other.ckpt("note", "HEAD", "--metric", "acc=2")
    other.ckpt("push")
    world.ckpt("fetch")
    world.ckpt("audit", "verify", "--remote", "origin")
    ref = other.git("for-each-ref", "--format=%(refname)", REFS).split()
    writer = json.loads((other.root / ".git/ckptvcs/writer.json").read_bytes())["id"]
    assert f"{REFS}{writer}" in ref

    to = {"gone": ["-d", f"{REFS}{writer}"], "cut": [f"{REFS}{writer}", f"{REFS}{writer}~1"]}[how]
    run(["git", "update-ref", *to], hub)

    found = world.ckpt("audit", "verify", "--remote", "origin", status=1).out
    assert f"chain '{writer}': 'origin' has " in found
    world.ckpt("audit", "verify")


def test_a_fetch_takes_over_nothing_that_is_not_signed_with_the_key_of_its_chain(
    world: World, hub: Path, tmp_path: Path
):
    run(["git", "clone", "-q", "--mirror", str(hub), str(tmp_path / "mallory.git")], tmp_path)
    (ref,) = world.git("for-each-ref", "--format=%(refname)", REFS).split()
    before = world.git("rev-parse", ref)
    mallory = World(tmp_path / "mallory")
    run(["git", "clone", "-q", str(hub), str(mallory.root)], tmp_path)
    mallory.git("fetch", "-q", "origin", f"{ref}:{ref}")
    last = (mallory.git("log", "-1", "--format=%B", ref).rstrip("\n") + "\n").encode()
    event = msgspec.structs.replace(
        events.from_bytes(last, where="x"), n=events.from_bytes(last, where="x").n + 1, prev=events.link(last)
    )
    repository = Repository.open(mallory.root)
    ledger.append(repository, "save")
    key = read_key((mallory.root / ".git/ckptvcs/writer_ed25519").read_bytes(), where="x")
    when = datetime(2026, 11, 21, tzinfo=timezone.utc)
    forged = storage.write(
        repository.history,
        ref.removeprefix(REFS),
        events.to_bytes(event),
        after=before,
        when=when,
        sign=key.sign,  # type: ignore[arg-type]
    )
    mallory.git("push", "-q", "origin", f"{forged}:{ref}")

    third = World(tmp_path / "third")
    run(["git", "clone", "-q", str(hub), str(third.root)], tmp_path)
    done = third.ckpt("fetch")

    assert "is not taken over: entry" in done.err
    assert "it is not signed with the key of its chain" in done.err
    assert third.git("for-each-ref", REFS) == ""


# ------------------------------------------------------------------------------------------------------------------ log


def test_the_log_says_who_did_what_restores_included(world: World, history: list[Receipt], tmp_path: Path):
    world.ckpt("note", "main", "--metric", "acc=1")
    world.ckpt("restore", "main@step:1", "--component", "model", "--to", tmp_path / "out")
    world.ckpt("checkout", "main@step:2")
    world.ckpt("export", "main", tmp_path / "x.pt")
    world.ckpt("audit", "allow", "--name", "ada@example.com")

    done = world.ckpt("audit", "log", "--json").json

    told = [(d["op"], d["facts"].get("by"), d["facts"]["checkpoint"], d["facts"].get("components")) for d in done]
    assert told == [
        ("restore", "export", history[2].id, ["model", "optimizer", "extra"]),
        ("restore", "checkout", history[1].id, []),
        ("restore", "restore", history[0].id, ["model"]),
        ("note", None, history[2].id, None),
    ]
    assert {(d["who"], d["here"]) for d in done} == {("ada@example.com", True)}
    assert "ada@example.com (here)  restore  by checkout, checkpoint " in world.ckpt("audit", "log").out


def test_the_log_can_be_asked_for_a_time_an_actor_and_a_kind(world: World, history, monkeypatch: pytest.MonkeyPatch):
    repository, times = Repository.open(world.root), []
    start = datetime(2026, 11, 1, tzinfo=timezone.utc)
    for day, op in enumerate(("run.start", "save", "run.end", "note")):
        times.append(start + timedelta(days=day))
        monkeypatch.setattr(Repository, "now", staticmethod(lambda: times[-1]))
        monkeypatch.setenv("GIT_AUTHOR_EMAIL", f"{day % 2}@example.com")
        repository = Repository.open(world.root)
        ledger.append(repository, op)

    def ops(**options: Any) -> list[str]:
        return [deed.event.op for deed in audit.log(repository, **options)]

    assert ops() == ["note", "run.end", "save", "run.start"]
    assert ops(since="2026-11-03") == ["note", "run.end"]
    assert ops(since="36h") == ["note", "run.end"]
    assert ops(until="2026-11-02") == ["save", "run.start"]
    assert ops(ops=("run",)) == ["run.end", "run.start"]
    assert ops(ops=("save", "note")) == ["note", "save"]
    assert ops(actor="me") == ["note", "save"]
    assert ops(actor=audit.log(repository)[1].event.actor) == ["run.end", "run.start"]
    assert ops(actor=audit.log(repository)[0].event.writer) == ops()
    assert ops(actor="nobody") == []
    with pytest.raises(UsageError):
        ops(since="soon")


@pytest.mark.parametrize("setting", ["record", "require", "off"])
def test_what_is_told_of_restores_is_configured(world: World, history: list[Receipt], tmp_path: Path, setting: str):
    (world.root / "ckpt.yaml").write_text(f"audit: {{restores: {setting}, loads: true}}\n")

    world.ckpt("restore", "main", "--to", tmp_path / "out")
    with Repo(world.root) as repo:
        dict(repo.load("main", ["model"]))

    found = [deed.event.facts["by"] for deed in audit.log(Repository.open(world.root))]
    assert found == ([] if setting == "off" else ["load", "restore"])


@pytest.mark.parametrize("setting", ["record", "require"])
def test_who_may_not_write_can_restore_unless_it_is_required_to_be_told(
    world: World, history: list[Receipt], tmp_path: Path, setting: str, without_privilege: None
):
    (world.root / "ckpt.yaml").write_text(f"audit: {{restores: {setting}}}\n")
    repository = Repository.open(world.root)
    ledger.append(repository, "save")
    objects = world.root / ".git/objects"
    for folder in (objects, *objects.iterdir()):
        folder.chmod(0o555)
    try:
        if setting == "require":
            with pytest.raises(StorageError):
                given.tell(repository, [Repo(world.root).show("main")], by="restore")
        else:
            (said,) = given.tell(repository, [Repo(world.root).show("main")], by="restore")
            assert "the ledger does not know of this restore" in said
    finally:
        for folder in (objects, *objects.iterdir()):
            folder.chmod(0o755)


def test_who_has_no_name_is_somebody(world: World, history, tmp_path: Path):
    env = {"GIT_AUTHOR_NAME": "", "GIT_AUTHOR_EMAIL": "", "HOME": str(tmp_path), "GIT_CONFIG_GLOBAL": "/dev/null"}
    world.ckpt("restore", "main", "--to", tmp_path / "out", env=env)

    (found,) = world.ckpt("audit", "log", "--json").json
    assert found["actor"] == found["who"] == ""
    assert found["op"] == "restore"


def test_what_does_not_count_is_in_the_log_and_marked(clones: Clones):
    world = clones.worlds["a"]
    world.ckpt("audit", "allow", clones.ref("a").removeprefix(REFS), "--name", "a@example.com")

    done = world.ckpt("audit", "log", "--json").json

    assert {(d["writer"] == clones.ref("a").removeprefix(REFS), d["counts"]) for d in done} == {
        (True, True),
        (False, False),
    }
    assert len(done) == 21
    assert world.ckpt("audit", "log").out.count("(does not count)") == 14


# ------------------------------------------------------------------------------------------------------------------ pins


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", '{"format":"ckptvcs-pins/2","heads":{}}', '{"format":"ckptvcs-pins/1","heads":{"a":[0,"b"]}}'],
)
def test_a_file_that_holds_no_heads_is_refused(repository: Repository, history, tmp_path: Path, text: str):
    (tmp_path / "pins").write_text(text)

    with pytest.raises(FormatError, match="cannot read the heads"):
        audit.verify(repository, pins=tmp_path / "pins")
    with pytest.raises(FormatError, match="cannot read the heads"):
        audit.verify(repository, pins=tmp_path / "none")


def test_a_check_changes_nothing(world: World, clones: Clones, everything, hub: Path):
    before = everything(world)

    world.ckpt("audit", "verify", "--remote", "origin")
    world.ckpt("audit", "log")
    world.ckpt("audit", "keys")
    world.ckpt("audit", "heads")

    assert everything(world) == before


def test_an_audit_of_nothing_is_content(world: World, history):
    assert world.ckpt("audit", "log").out == ""
    assert world.ckpt("audit", "verify").out == "0 entries of 0 chains: all is as it was written\n"
    assert world.ckpt("audit", "heads", "--json").json == {"format": "ckptvcs-pins/1", "heads": {}}


def test_a_chain_of_this_clone_that_was_cut_here_is_found_and_not_pushed(tmp_path: Path):
    place = Place.create(tmp_path / "place")
    place.world.ckpt("remote", "add", "share", "../store")
    place.world.git("commit", "-qam", "a remote")
    with place.world.repo() as repo:
        repo.commit(training_state(1, width=16), step=1)
    for value in (1, 2):
        place.world.ckpt("note", "HEAD", "--metric", f"a={value}")
    place.world.ckpt("push")
    (ref,) = place.world.git("for-each-ref", "--format=%(refname)", "refs/ckptvcs/ledger").split()
    whole = place.world.git("rev-parse", ref)
    for forged in (True, False):
        place.world.git("update-ref", ref, f"{whole}~1")
        if forged:
            place.world.ckpt("note", "HEAD", "--metric", "a=3")

        told = place.world.ckpt("audit", "verify", "--remote", "origin", status=1)
        assert "has entries of it that are not here" in told.out + told.err
        refused = place.world.ckpt("push", status=None)
        assert refused.status != 0
        assert "it was cut or rewritten here" in refused.err
        cure = refused.err.partition("take back what is there: ")[2].partition(";")[0]
        place.world.git(*cure.split()[1:])

        assert place.world.git("rev-parse", ref) == whole
        place.world.ckpt("push")
        place.world.ckpt("audit", "verify", "--remote", "origin")


def test_what_is_no_entry_of_the_chain_is_not_pushed(tmp_path: Path):
    place = Place.create(tmp_path / "place")
    with place.world.repo() as repo:
        repo.commit(training_state(1, width=16), step=1)
    place.world.ckpt("remote", "add", "share", "../store")
    place.world.git("commit", "-qam", "a remote")
    place.world.ckpt("note", "HEAD", "--metric", "a=1")
    (ref,) = place.world.git("for-each-ref", "--format=%(refname)", "refs/ckptvcs/ledger").split()
    tree = place.world.git("rev-parse", f"{ref}^{{tree}}")
    place.world.git("update-ref", ref, place.world.git("commit-tree", "-p", ref, "-m", "no entry", tree))

    refused = place.world.ckpt("push", status=None)

    assert refused.status != 0
    assert "cannot add to chain" in refused.err
    assert place.world.git("ls-remote", "origin", ref) == ""
