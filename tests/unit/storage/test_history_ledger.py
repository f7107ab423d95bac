"""Chains of entries in git: they grow by compare-and-swap, git reads them, and harm done to them is told."""

from __future__ import annotations

import subprocess
from datetime import datetime, timezone
from pathlib import Path

import pytest

from ckptvcs.errors import RefMoved, StorageError
from ckptvcs.signatures import KIND, is_right, new_key
from ckptvcs.storage.files import Lock
from ckptvcs.storage.history import ledger
from ckptvcs.storage.history.commits import move_ref
from ckptvcs.storage.history.repository import CommitId, History

WHEN = datetime(2026, 11, 21, 10, 0, 0, tzinfo=timezone.utc)
WRITER = "0123456789abcdef"
REF = f"refs/ckptvcs/ledger/{WRITER}"
KEY = new_key()


def grow(history: History, lock: Lock, *entries: bytes, writer: str = WRITER) -> CommitId:
    head = ledger.heads(history).get(writer)
    for data in entries:
        old, head = head, ledger.write(history, writer, data, after=head, when=WHEN, sign=KEY.sign)
        move_ref(history, ledger.LEDGER + writer, old=old, new=head, reason="ckpt note", lock=lock)
    assert head is not None
    return head


def read(history: History, head: str, **options) -> tuple[list[bytes], bool]:
    """What a chain holds, and whether it follows; each entry is signed, or none."""
    chain = ledger.read(history, CommitId(head), **{"limit": 100, **options})
    assert all(is_right(entry) for entry in chain.entries if entry.signature)
    return [entry.data for entry in chain.entries], chain.follows


def commit_of(ground: Path, ask, tree: str, *parents: str) -> str:
    """A commit made by git alone."""
    return ask("commit-tree", tree, "-m", "x", *(word for parent in parents for word in ("-p", parent)))


def tree_of(ground: Path, *lines: str) -> str:
    text = "".join(f"{line}\n" for line in lines)
    return subprocess.run(
        ["git", "mktree"], cwd=ground, input=text, text=True, check=True, capture_output=True
    ).stdout.strip()


def blob_of(ground: Path, data: bytes) -> str:
    done = subprocess.run(
        ["git", "hash-object", "-w", "--stdin"], cwd=ground, input=data, check=True, capture_output=True
    )
    return done.stdout.decode().strip()


def test_a_chain_is_read_as_it_was_written(history: History, lock: Lock):
    entries = [f"entry {n}\n".encode() for n in range(5)]

    head = grow(history, lock, *entries)

    assert ledger.heads(history) == {WRITER: head}
    assert read(history, head) == (entries, False)
    assert ledger.read_one(history, head, limit=100).data == entries[-1]


def test_git_reads_a_chain_as_signed_commits_without_files(history: History, lock: Lock, ask, tmp_path: Path):
    head = grow(history, lock, b"one\n", b"two\n")
    (tmp_path / "signers").write_text(f"me {KIND} {KEY.public}\n")

    assert ask("rev-parse", REF) == head
    assert ask("log", "--format=%B", REF) == "two\n\none"
    assert ask("rev-list", "--count", REF) == "2"
    assert ask("ls-tree", "-r", "--name-only", REF) == ""
    assert ask("log", "-1", "--date=raw", "--format=%an|%ae|%ad", REF) == (
        f"ckptvcs ledger|{WRITER}@ledger.invalid|1795255200 +0000"
    )
    for commit in (REF, f"{REF}~1"):
        ask("-c", f"gpg.ssh.allowedSignersFile={tmp_path}/signers", "verify-commit", commit)
    assert ask("fsck", "--strict", "--no-dangling") == ""


def test_the_rest_of_a_chain_is_read_from_where_it_is_known(history: History, lock: Lock):
    middle = grow(history, lock, b"1", b"2")
    head = grow(history, lock, b"3", b"4")

    assert read(history, head, after=middle) == ([b"3", b"4"], True)
    assert read(history, head, after=head) == ([], True)


def test_where_the_known_place_is_no_part_of_it_all_of_a_chain_is_read(history: History, lock: Lock):
    head = grow(history, lock, b"1", b"2")
    other = grow(history, lock, b"x", writer="another-0")

    assert read(history, head, after=other) == ([b"1", b"2"], False)


def test_a_chain_survives_a_collection_of_garbage(history: History, lock: Lock, ground: Path, ask):
    grow(history, lock, b"1", b"2", b"3")

    ask("gc", "-q", "--prune=now")

    again = History.discover(ground)
    assert read(again, ledger.heads(again)[WRITER])[0] == [b"1", b"2", b"3"]
    grow(again, lock, b"4")
    assert ask("rev-list", "--count", REF) == "4"


def test_who_is_late_looks_again(history: History, lock: Lock):
    first = grow(history, lock, b"1")
    grow(history, lock, b"2")

    for after in (None, first):
        with pytest.raises(RefMoved):
            new = ledger.write(history, WRITER, b"x", after=after, when=WHEN, sign=KEY.sign)
            move_ref(history, REF, old=after, new=new, reason="ckpt note", lock=lock)
    assert read(history, ledger.heads(history)[WRITER])[0] == [b"1", b"2"]


def test_chains_are_no_branches_tags_or_tips_of_remotes(history: History, lock: Lock):
    before = history.branches(), history.tags(), history.remote_tips()

    grow(history, lock, b"1")

    assert (history.branches(), history.tags(), history.remote_tips()) == before


def test_a_repository_without_a_ledger_has_no_chains(history: History):
    assert ledger.heads(history) == {}


@pytest.mark.parametrize("harm", ["giant", "no file", "a folder", "a link", "two parents"])
def test_what_is_no_entry_is_given_as_no_bytes(history: History, lock: Lock, ground: Path, ask, harm: str):
    head = grow(history, lock, b"1")
    blob = blob_of(ground, b"x" * (101 if harm == "giant" else 5))
    empty = tree_of(ground)
    line = {
        "giant": f"100644 blob {blob}\tentry.json",
        "no file": f"100644 blob {blob}\tother.json",
        "a folder": f"040000 tree {empty}\tentry.json",
        "a link": f"120000 blob {blob}\tentry.json",
        "two parents": f"100644 blob {blob}\tentry.json",
    }[harm]
    parents = (head, ask("rev-parse", "HEAD")) if harm == "two parents" else (head,)
    bad = commit_of(ground, ask, tree_of(ground, line), *parents)

    assert read(history, bad)[0] == [b"1", b""]


@pytest.mark.parametrize("limit", [100, 4000])
def test_a_message_that_is_too_large_is_not_unpacked(history: History, lock: Lock, limit: int):
    """What stands around a message is small, so that the commit tells how large its entry is at most."""
    head = grow(history, lock, b"x" * 9000)

    assert ledger.read_one(history, head, limit=limit).data == b""


def test_a_signature_is_of_all_that_a_commit_says(history: History, lock: Lock, ask):
    head = grow(history, lock, b"one\n")
    raw = ask("cat-file", "commit", head) + "\n"
    entry = ledger.read_one(history, head, limit=100)

    assert raw.encode() == entry.payload.replace(
        b"\n\none", b"\ngpgsig " + entry.signature.replace(b"\n", b"\n ") + b"\n\none"
    )


def test_other_files_beside_an_entry_are_left_alone(history: History, ground: Path, ask):
    blob = blob_of(ground, b"x")
    commit = commit_of(ground, ask, tree_of(ground, *(f"100644 blob {blob}\t{n}" for n in ("entry.json", "entry.sig"))))

    assert read(history, commit)[0] == [b"x"]


@pytest.mark.parametrize("kind", ["commit", "tree", "blob"])
def test_an_object_that_is_missing_is_an_error_of_storage(history: History, lock: Lock, ground: Path, ask, kind: str):
    old = commit_of(ground, ask, tree_of(ground, f"100644 blob {blob_of(ground, b'1')}\tentry.json"))
    ask("update-ref", REF, old)
    lost = ask("rev-parse", {"commit": REF, "tree": f"{REF}^{{tree}}", "blob": f"{REF}:entry.json"}[kind])
    head = grow(history, lock, b"2")
    (ground / ".git/objects" / lost[:2] / lost[2:]).unlink()

    with pytest.raises(StorageError, match="of the ledger"):
        read(History.discover(ground), head)


def test_a_ref_to_something_else_is_an_error_when_it_is_read(history: History, ground: Path, ask):
    ask("update-ref", REF, blob_of(ground, b"x"))

    with pytest.raises(StorageError):
        read(history, ledger.heads(history)[WRITER])


def test_a_symbolic_ref_is_no_chain(history: History, ask):
    ask("symbolic-ref", REF, "refs/heads/main")

    assert ledger.heads(history) == {}
