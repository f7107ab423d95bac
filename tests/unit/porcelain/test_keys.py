"""Keys: one for a clone or one that is given, listed in a file that git's own tools read, and ended there."""

from __future__ import annotations

import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from ckptvcs.errors import BadConfig, NotFound, UsageError
from ckptvcs.porcelain import account, audit, keys, ledger, note
from ckptvcs.porcelain.commit import Receipt
from ckptvcs.porcelain.repo import Repository
from ckptvcs.signatures import new_key
from tests.support.world import World
from tests.unit.porcelain.test_ledger import REFS


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A key as a user makes it."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    return tmp_path / "key"


def public(path: Path) -> str:
    return path.with_suffix(".pub").read_text().split()[1]


@pytest.mark.parametrize("how", ["variable", "git config"])
def test_a_key_that_is_given_signs_and_begins_a_chain(world: World, history, key: Path, monkeypatch, how: str):
    first = ledger.append(Repository.open(world.root), "save")
    if how == "variable":
        monkeypatch.setenv("CKPT_SIGNING_KEY", str(key))
    else:
        world.git("config", "ckptvcs.signingkey", key)

    second = ledger.append(Repository.open(world.root), "save")
    third = ledger.append(Repository.open(world.root), "save")

    assert first.writer != second.writer == third.writer
    assert second.actor == first.actor, "the same person in the same clone"
    found = {k.key: (k.writers, k.here) for k in keys.keys(Repository.open(world.root))}
    assert found[public(key)] == ((second.writer,), True)  # type: ignore[index]


@pytest.mark.parametrize("text", ["", "garbage"])
def test_a_given_key_that_is_none_is_refused(world: World, history, tmp_path: Path, monkeypatch, text: str):
    (tmp_path / "bad").write_text(text)
    monkeypatch.setenv("CKPT_SIGNING_KEY", str(tmp_path / "bad"))
    with pytest.raises(UsageError, match="cannot sign with"):
        ledger.append(Repository.open(world.root), "save")
    monkeypatch.setenv("CKPT_SIGNING_KEY", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="cannot sign with"):
        ledger.append(Repository.open(world.root), "save")


def test_a_key_of_the_clone_that_was_lost_begins_a_new_chain(world: World, history):
    first = ledger.append(Repository.open(world.root), "save")
    (world.root / ".git/ckptvcs/writer_ed25519").unlink()

    second = ledger.append(Repository.open(world.root), "save")

    assert first.writer != second.writer
    assert audit.verify(Repository.open(world.root)).flaws == ()


def test_git_verifies_chains_by_the_file(world: World, history, key: Path, monkeypatch: pytest.MonkeyPatch):
    world.ckpt("note", "main", "--metric", "a=1")
    monkeypatch.setenv("CKPT_SIGNING_KEY", str(key))
    world.ckpt("note", "main", "--metric", "a=2")
    monkeypatch.delenv("CKPT_SIGNING_KEY")
    refs = world.git("for-each-ref", "--format=%(refname)", REFS).split()

    world.ckpt("audit", "allow", public(key), "--name", "ci@example.com")

    verdicts = []
    for ref in refs:
        done = subprocess.run(
            ["git", "-c", "gpg.ssh.allowedSignersFile=ckpt.signers", "verify-commit", ref],
            cwd=world.root, capture_output=True, check=False,
        )  # fmt: skip
        verdicts.append(done.returncode == 0)
    assert sorted(verdicts) == [False, True]


def test_what_is_not_listed_does_not_count_elsewhere_and_counts_here(
    world: World, history: list[Receipt], tmp_path: Path
):
    clone = world.clone(tmp_path / "clone")
    clone.ckpt("init")
    clone.ckpt("note", "origin/main", "--metric", "acc=2")
    world.git("fetch", "-q", clone.root, f"{REFS}*:{REFS}*")
    done = world.ckpt("audit", "allow")
    writer = clone.git("for-each-ref", "--format=%(refname)", REFS).removeprefix(REFS)
    assert f"'ckpt audit allow {writer} --name NAME'" in done.err

    assert account.late_metrics(Repository.open(world.root)) == {}
    said = world.ckpt("log").err
    assert f"chain '{writer}' of the ledger counts only up to entry 0: it is signed with a key that is not in" in said
    (clone.root / "ckpt.signers").write_bytes((world.root / "ckpt.signers").read_bytes())
    assert account.late_metrics(Repository.open(clone.root)) == {history[2].id: {"acc": 2}}

    world.ckpt("audit", "allow", writer, "--name", "bob@example.com")
    assert account.late_metrics(Repository.open(world.root)) == {history[2].id: {"acc": 2}}
    assert world.ckpt("log").err == ""


def test_a_hold_of_somebody_who_is_not_listed_stands_and_a_release_does_not_count(
    world: World, history, tmp_path: Path
):
    clone = world.clone(tmp_path / "clone")
    clone.ckpt("init")
    world.ckpt("hold", "main", "--why", "mine")
    world.ckpt("audit", "allow")
    clone.git("fetch", "-q", world.root, f"{REFS}*:{REFS}*")
    clone.ckpt("hold", "origin/main", "--why", "theirs")
    clone.ckpt("release", "origin/main")
    clone.ckpt("hold", "origin/main", "--why", "again")
    world.git("fetch", "-q", clone.root, f"{REFS}*:{REFS}*")

    for _ in range(2):
        assert sorted(one["why"] for one in world.ckpt("hold", "--json").json) == ["again", "mine", "theirs"]


def test_a_key_is_ended_and_what_it_signed_before_counts(world: World, history: list[Receipt], monkeypatch):
    times = [datetime(2026, 11, 21, 10, tzinfo=timezone.utc)]
    monkeypatch.setattr(Repository, "now", staticmethod(lambda: times[0]))
    repository = Repository.open(world.root)
    keys.allow(repository, keys.plan_allow(repository, name="ada"))
    note.execute(repository, note.plan_note(repository, "main", {"acc": 1}))
    times[0] += timedelta(hours=1)

    found, until = keys.revoke(repository, "ada")
    times[0] += timedelta(hours=1)
    note.execute(repository, note.plan_note(repository, "main", {"acc": 2}))

    assert (found.name, until[:16]) == ("ada", "2026-11-21T11:00")
    assert [(k.name, k.valid) for k in keys.keys(repository)] == [("ada", False)]
    (repository.private / "writer.json").unlink()  # what a clone wrote itself counts there in any case
    assert account.late_metrics(repository) == {history[2].id: {"acc": 1}}
    (flaw,) = account.read(repository).flaws
    assert (flaw.n, flaw.what) == (2, "the key of ada in ckpt.signers is not valid at its time")
    text = (world.root / "ckpt.signers").read_text()
    keys.revoke(repository, "ada")
    assert (world.root / "ckpt.signers").read_text() == text, "an earlier end is not put off"


def test_other_lines_of_the_file_stay_as_they_are(world: World, history):
    other = f"# our people\n\nbob   ssh-ed25519 {new_key().public} Bob's laptop\ncarol ssh-rsa AAAAB3Nz\n"
    (world.root / "ckpt.signers").write_text(other)

    world.ckpt("audit", "allow", "--name", "ada")
    world.ckpt("audit", "revoke", "ada", "--at", "1h")

    text = (world.root / "ckpt.signers").read_text()
    assert text.startswith(other)
    assert 'ada namespaces="git",valid-before="' in text


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("allow", "--name", "two words"), 2),
        (("allow", "nobody", "--name", "x"), 12),
        (("allow", "AAAA"), 2),
        (("revoke", "nobody"), 12),
    ],
)
def test_what_makes_no_sense_is_refused(world: World, history, words: tuple[str, ...], status: int):
    world.ckpt("audit", *words, status=status)

    assert not (world.root / "ckpt.signers").exists()


def test_a_file_that_cannot_be_understood_is_an_error_that_names_its_line(world: World, history):
    world.ckpt("note", "main", "--metric", "a=1")
    (world.root / "ckpt.signers").write_text("# ours\nada\n")

    for words in (("log",), ("audit", "log"), ("audit", "allow")):
        assert "ckpt.signers', line 2" in world.ckpt(*words, status=2).err
    with pytest.raises(BadConfig):
        account.read(Repository.open(world.root))


def test_a_key_is_listed_once(world: World, history):
    world.ckpt("audit", "allow")
    text = (world.root / "ckpt.signers").read_text()

    done = world.ckpt("audit", "allow")

    assert "that key is in ckpt.signers, as test@example.com" in done.err
    assert (world.root / "ckpt.signers").read_text() == text


def test_a_dry_run_lists_nothing(world: World, history):
    said = world.ckpt("audit", "allow", "-n").out

    assert said.startswith("would add to ckpt.signers: test@example.com namespaces=")
    assert not (world.root / "ckpt.signers").exists()
    with pytest.raises(NotFound):
        keys.revoke(Repository.open(world.root), "test@example.com")
