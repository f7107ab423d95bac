"""Chains of entries in git: they grow by compare-and-swap, git reads them, and harm done to them is told."""

from __future__ import annotations

import subprocess
from datetime import datetime, timezone
from pathlib import Path

import pytest

from ckptvcs.errors import RefMoved, StorageError
from ckptvcs.storage.files import Lock
from ckptvcs.storage.history import ledger
from ckptvcs.storage.history.repository import CommitId, History

WHEN = datetime(2026, 11, 21, 10, 0, 0, tzinfo=timezone.utc)
WRITER = "0123456789abcdef"
REF = f"refs/ckptvcs/ledger/{WRITER}"


def grow(history: History, lock: Lock, *entries: bytes, writer: str = WRITER) -> CommitId:
    head = ledger.heads(history).get(writer)
    for data in entries:
        head = ledger.append(history, writer, data, after=head, op="note", when=WHEN, lock=lock)
    assert head is not None
    return head


def read(history: History, head: str, **options) -> ledger.Chain:
    return ledger.read(history, CommitId(head), **{"limit": 100, **options})


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
    assert read(history, head) == ledger.Chain(entries=tuple(entries), follows=False)
    assert ledger.read_one(history, head, limit=100) == entries[-1]


def test_git_reads_a_chain_as_commits_with_one_file(history: History, lock: Lock, ask):
    head = grow(history, lock, b"one\n", b"two\n")

    assert ask("rev-parse", REF) == head
    assert ask("show", f"{REF}:entry.json") == "two"
    assert ask("show", f"{REF}~1:entry.json") == "one"
    assert ask("rev-list", "--count", REF) == "2"
    assert ask("ls-tree", "-r", "--name-only", REF) == "entry.json"
    assert ask("log", "-1", "--date=raw", "--format=%an|%ae|%ad|%s", REF) == (
        f"ckptvcs ledger|{WRITER}@ledger.invalid|1795255200 +0000|note"
    )
    assert ask("fsck", "--strict", "--no-dangling") == ""


def test_the_rest_of_a_chain_is_read_from_where_it_is_known(history: History, lock: Lock):
    middle = grow(history, lock, b"1", b"2")
    head = grow(history, lock, b"3", b"4")

    assert read(history, head, after=middle) == ledger.Chain(entries=(b"3", b"4"), follows=True)
    assert read(history, head, after=head) == ledger.Chain(entries=(), follows=True)


def test_where_the_known_place_is_no_part_of_it_all_of_a_chain_is_read(history: History, lock: Lock):
    head = grow(history, lock, b"1", b"2")
    other = grow(history, lock, b"x", writer="another-0")

    assert read(history, head, after=other) == ledger.Chain(entries=(b"1", b"2"), follows=False)


def test_a_chain_survives_a_collection_of_garbage(history: History, lock: Lock, ground: Path, ask):
    grow(history, lock, b"1", b"2", b"3")

    ask("gc", "-q", "--prune=now")

    again = History.discover(ground)
    assert read(again, ledger.heads(again)[WRITER]).entries == (b"1", b"2", b"3")
    grow(again, lock, b"4")
    assert ask("rev-list", "--count", REF) == "4"


def test_who_is_late_looks_again(history: History, lock: Lock):
    first = grow(history, lock, b"1")
    grow(history, lock, b"2")

    for after in (None, first):
        with pytest.raises(RefMoved):
            ledger.append(history, WRITER, b"x", after=after, op="note", when=WHEN, lock=lock)
    assert read(history, ledger.heads(history)[WRITER]).entries == (b"1", b"2")


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

    assert read(history, bad).entries == (b"1", b"")


def test_other_files_beside_an_entry_are_left_alone(history: History, ground: Path, ask):
    blob = blob_of(ground, b"x")
    commit = commit_of(ground, ask, tree_of(ground, *(f"100644 blob {blob}\t{n}" for n in ("entry.json", "entry.sig"))))

    assert read(history, commit).entries == (b"x",)


@pytest.mark.parametrize("kind", ["commit", "tree", "blob"])
def test_an_object_that_is_missing_is_an_error_of_storage(history: History, lock: Lock, ground: Path, ask, kind: str):
    grow(history, lock, b"1")
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
