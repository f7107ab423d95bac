"""Writing to a git repository: git reads it back, moves refs at the same time, and finds nothing wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from ckptvcs.errors import CkptvcsError, LockHeld, RefMoved, StorageError, WouldOverwrite
from ckptvcs.storage.files import Lock
from ckptvcs.storage.history import commits
from ckptvcs.storage.history.repository import CommitId, History, Identity

ME = Identity(name="Zoë Q. User", email="zoe@example.com")
WHEN = datetime(2024, 2, 29, 23, 59, 58, tzinfo=timezone(timedelta(hours=5, minutes=45)))
MAIN = "refs/heads/main"


def write(
    history: History, changes: dict[str, bytes] | None = None, *, base: CommitId | None = None, **facts
) -> CommitId:
    base = base or history.head()
    given = {"parents": (base,) if base else (), "message": "m\n", "identity": ME, "when": WHEN}
    return commits.write_commit(history, base=base, changes=changes or {}, **{**given, **facts})


# ------------------------------------------------------------------------------------------------------------ commits


def test_a_commit_has_the_tree_of_its_base_and_the_changes(history: History, ask):
    before = set(ask("ls-tree", "-r", "HEAD").splitlines())

    commit = write(history, {"new": b"1", "dir/b.txt": b"2", "dir/deep/er/x": b"3", "other/y": b"4"})

    after = set(ask("ls-tree", "-r", commit).splitlines())
    assert {line.split("\t")[1] for line in after - before} == {"new", "dir/b.txt", "dir/deep/er/x", "other/y"}
    assert {line.split("\t")[1] for line in before - after} == {"dir/b.txt"}
    assert ask("show", f"{commit}:dir/deep/er/x") == "3"
    assert ask("fsck", "--strict", "--no-dangling") == ""


def test_a_commit_says_who_and_when_and_why(history: History, ask):
    commit = write(history, message="subject\n\nbödy\n", parents=(history.head(), CommitId(ask("rev-parse", "HEAD~1"))))

    told = ask("log", "-1", "--format=%an|%ae|%aI|%cn|%ce|%cI|%P|%B", commit)
    who = "Zoë Q. User|zoe@example.com|2024-02-29T23:59:58+05:45"
    assert told == f"{who}|{who}|{ask('rev-parse', 'HEAD')} {ask('rev-parse', 'HEAD~1')}|subject\n\nbödy"


@pytest.mark.parametrize("hours", [-12, -3.5, 0, 14])
def test_the_offset_of_the_place_is_kept(history: History, ask, hours: float):
    commit = write(history, when=WHEN.astimezone(timezone(timedelta(hours=hours))))

    told = datetime.fromisoformat(ask("log", "-1", "--format=%cI", commit))
    assert (told, told.utcoffset()) == (WHEN, timedelta(hours=hours))


def test_a_first_commit_has_no_parent_and_no_other_files(tmp_path: Path, git):
    (tmp_path / "new").mkdir()
    history = History.create(tmp_path / "new")

    commit = write(history, {"a/b": b"x"})

    assert git("ls-tree", "-r", "--name-only", commit, cwd=tmp_path / "new") == "a/b\n"
    assert git("log", "-1", "--format=%P", commit, cwd=tmp_path / "new") == "\n"


def test_nothing_but_objects_is_written(history: History, ground: Path, snapshot):
    before = snapshot(ground)

    write(history, {"new": b"x"})

    changed = {path for path, what in snapshot(ground).items() if before.get(path) != what}
    assert changed
    assert all(path.startswith(".git/objects/") for path in changed)


def test_objects_that_cannot_be_written_are_an_error_of_storage(
    history: History, ground: Path, without_privilege: None
):
    for folder in (*(ground / ".git/objects").iterdir(), ground / ".git/objects"):
        folder.chmod(0o555)

    with pytest.raises(StorageError, match="cannot write a commit"):
        write(history, {"new": b"x"})


# --------------------------------------------------------------------------------------------------------------- refs


def move(history: History, lock: Lock, ref: str, old: str | None, new: str | None, reason: str = "why") -> None:
    commits.move_ref(history, ref, old=old, new=new, reason=reason, lock=lock)


@pytest.mark.parametrize("packed", [True, False])
def test_a_ref_moves_from_where_it_was_seen(history: History, lock: Lock, ask, *, packed: bool):
    if packed:
        ask("pack-refs", "--all")
    commit = write(history)

    move(history, lock, MAIN, history.head(), commit, "ckpt commit")

    assert ask("rev-parse", "main") == commit
    assert "ckpt commit" in ask("reflog", "-1", "main")


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("new", ["moved", None])
def test_a_ref_that_moved_meanwhile_stays(history: History, lock: Lock, ask, new: str | None, *, packed: bool):
    if packed:
        ask("pack-refs", "--all")
    seen, commit = CommitId(ask("rev-parse", "HEAD~1")), write(history)

    with pytest.raises(RefMoved) as caught:
        move(history, lock, MAIN, seen, commit if new else None)

    assert caught.value.facts["ref"] == MAIN
    assert ask("rev-parse", "main") == ask("rev-parse", "HEAD") != commit


def test_a_ref_that_must_not_exist_yet_is_made_once(history: History, lock: Lock, ask):
    move(history, lock, "refs/heads/new", None, history.head())

    with pytest.raises(RefMoved):
        move(history, lock, "refs/heads/new", None, CommitId(ask("rev-parse", "HEAD~1")))

    assert ask("rev-parse", "new") == history.head()


def test_a_ref_that_is_gone_did_move(history: History, lock: Lock, ask):
    with pytest.raises(RefMoved):
        move(history, lock, "refs/heads/never", history.head(), write(history))

    assert "never" not in ask("branch")


@pytest.mark.parametrize("packed", [True, False])
def test_a_removed_ref_is_gone_for_git(history: History, lock: Lock, ask, *, packed: bool):
    ask("branch", "exp/a")
    if packed:
        ask("pack-refs", "--all")

    commits.delete_ref(history, "refs/heads/exp/a", old=history.head(), lock=lock)

    assert ask("for-each-ref", "refs/heads/exp") == ""


def test_a_removed_branch_leaves_nothing_in_the_way_of_another_name(history: History, lock: Lock, ask):
    ask("branch", "exp/a")

    commits.delete_ref(history, "refs/heads/exp/a", old=history.head(), lock=lock)

    ask("branch", "exp")
    assert ask("rev-parse", "exp") == history.head()


EXTEND = """
import sys, pathlib
from datetime import datetime, timezone
from ckptvcs.errors import CkptvcsError
from ckptvcs.storage.files import Lock
from ckptvcs.storage.history import commits
from ckptvcs.storage.history.repository import History, Identity
history, locks, name = History.discover(pathlib.Path(sys.argv[1])), pathlib.Path(sys.argv[2]), sys.argv[3]

def extend(n):
    tip = history.tip("refs/heads/main")
    commit = commits.write_commit(history, base=tip, parents=(tip,), changes={f"{name}-{n}": b""}, message="m",
                                  identity=Identity(name="n", email="e"), when=datetime.now(timezone.utc))
    with Lock(locks / name, timeout_s=0) as lock:
        commits.move_ref(history, "refs/heads/main", old=tip, new=commit, reason="r", lock=lock)

print("ready", flush=True)
input()
for n in range(40):
    while True:
        try:
            extend(n)
            break
        except CkptvcsError:
            continue
"""


def test_processes_that_extend_one_branch_without_a_common_lock_lose_nothing(ground: Path, ask, python, tmp_path: Path):
    writers = [python(EXTEND, ground, tmp_path, f"writer{n}") for n in range(4)]

    for writer in writers:
        writer.stdin.write("\n")
        writer.stdin.flush()
    assert [writer.wait(120) for writer in writers] == [0] * 4

    assert len(ask("rev-list", "main").split()) == 2 + 160
    names = set(ask("ls-tree", "--name-only", "main").split())
    assert {f"writer{w}-{n}" for w in range(4) for n in range(40)} <= names


def test_a_lock_of_git_on_a_ref_is_waited_for(history: History, lock: Lock, ground: Path, ask):
    held, commit = ground / ".git/refs/heads/main.lock", write(history)
    held.touch()
    threading.Timer(0.2, held.unlink).start()

    move(history, lock, MAIN, history.head(), commit)

    assert ask("rev-parse", "main") == commit


def test_a_lock_of_git_that_appears_in_the_last_moment_is_waited_for(history: History, lock: Lock, ground: Path, ask):
    # libgit2 looks whether a lock is there, then makes its own. A link to nowhere is not there, and yet in the way.
    held, commit = ground / ".git/refs/heads/main.lock", write(history)
    held.symlink_to("nowhere")
    timer = threading.Timer(0.2, held.unlink)
    timer.start()

    try:
        move(history, lock, MAIN, history.head(), commit)
    finally:
        timer.join()

    assert ask("rev-parse", "main") == commit


def test_a_lock_of_git_that_stays_is_reported_and_left_there(
    history: History, lock: Lock, ground: Path, ask, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(commits, "_REF_LOCK_WAIT_S", 0.1)
    (ground / ".git/refs/heads/main.lock").touch()
    before, commit = ask("rev-parse", "main"), write(history)

    with pytest.raises(LockHeld, match=r"main\.lock"):
        move(history, lock, MAIN, before, commit)

    assert ask("rev-parse", "main") == before
    assert (ground / ".git/refs/heads/main.lock").exists()


@pytest.mark.parametrize(("there", "wanted"), [("exp", "exp/a"), ("exp/a", "exp")])
@pytest.mark.parametrize("packed", [True, False])
def test_a_branch_cannot_be_a_folder_of_branches_too(
    history: History, lock: Lock, ask, there: str, wanted: str, *, packed: bool
):
    ask("branch", there)
    if packed:
        ask("pack-refs", "--all")

    with pytest.raises(CkptvcsError):
        commits.create_branch(history, wanted, history.head(), lock=lock)

    assert ask("for-each-ref", "--format=%(refname:short)", "refs/heads/exp") == there


# -------------------------------------------------------------------------------------------------- branches and tags


def test_a_branch_is_made_once(history: History, lock: Lock, ask):
    commits.create_branch(history, "exp/a", history.head(), lock=lock)

    with pytest.raises(WouldOverwrite, match="branch 'exp/a' exists already"):
        commits.create_branch(history, "exp/a", CommitId(ask("rev-parse", "HEAD~1")), lock=lock)

    assert ask("rev-parse", "exp/a") == history.head()


def test_a_lightweight_tag_names_the_commit_itself(history: History, lock: Lock, ask):
    commits.create_tag(history, "light", history.head(), lock=lock)

    assert ask("rev-parse", "refs/tags/light") == history.head()


@pytest.mark.parametrize("message", ["one line", "subject\n\nbödy\n\n\n", ""])
@pytest.mark.parametrize("hours", [-9.5, 0, 5.75])
def test_an_annotated_tag_is_one_that_git_could_have_made(
    history: History, lock: Lock, ask, ground: Path, message: str, hours: float
):
    when = WHEN.astimezone(timezone(timedelta(hours=hours)))
    annotation = commits.Annotation(message=message, identity=ME, when=when)

    commits.create_tag(history, "golden/base", history.head(), annotation=annotation, lock=lock)

    ours = ask("rev-parse", "refs/tags/golden/base")
    made = subprocess.run(
        ["git", "tag", "-a", "--cleanup=verbatim", "-F", "-", "theirs"],
        cwd=ground,
        input=f"{message.rstrip()}\n".encode(),
        env={**os.environ, "GIT_COMMITTER_NAME": ME.name, "GIT_COMMITTER_EMAIL": ME.email}
        | {"GIT_COMMITTER_DATE": when.isoformat()},
        check=False,
    )
    if message:  # git itself makes no tag without one
        assert made.returncode == 0
        theirs = ask("cat-file", "tag", "theirs").replace("tag theirs\n", "tag golden/base\n")
        assert ask("cat-file", "tag", ours) == theirs
    assert ask("fsck", "--strict", "--no-dangling") == ""


def test_a_tag_is_made_once(history: History, lock: Lock, ask):
    commits.create_tag(history, "v1", CommitId(ask("rev-parse", "HEAD~1")), lock=lock)

    with pytest.raises(WouldOverwrite, match="tag 'v1' exists already"):
        commits.create_tag(history, "v1", history.head(), lock=lock)

    assert ask("rev-parse", "v1") == ask("rev-parse", "HEAD~1")


def test_an_annotated_tag_is_removed_by_the_commit_that_it_leads_to(history: History, lock: Lock, ask):
    annotation = commits.Annotation(message="m", identity=ME, when=WHEN)
    commits.create_tag(history, "milestone/a", history.head(), annotation=annotation, lock=lock)

    with pytest.raises(RefMoved):
        commits.delete_ref(history, "refs/tags/milestone/a", old=CommitId(ask("rev-parse", "HEAD~1")), lock=lock)
    assert ask("tag") == "milestone/a"
    commits.delete_ref(history, "refs/tags/milestone/a", old=history.head(), lock=lock)

    assert ask("tag") == ""


# ------------------------------------------------------------------------------------------------ after a sudden death

DIE = """
import os, signal, sys, pathlib, time
from ckptvcs.storage.history import commits
from ckptvcs.storage.history.repository import History
history = History.discover(pathlib.Path(sys.argv[1]))
with commits.repository_lock(history, now=time.time(), timeout_s=0) as (lock, _):
    with commits.announced(history, lock, "refs/heads/main"):
        for name in sys.argv[2:]:
            (history.git_dir / name).touch()
        print("ready", flush=True)
        input()
"""
LOCKS = ["refs/heads/main.lock", "index.lock", "HEAD.lock", "packed-refs.lock"]


def test_the_locks_that_a_killed_process_left_in_git_are_removed(history: History, ground: Path, ask, python):
    died = python(DIE, ground, *LOCKS)
    died.kill()
    died.wait()
    with pytest.raises(subprocess.CalledProcessError):
        ask("commit", "-q", "--allow-empty", "-m", "git cannot work now")

    with commits.repository_lock(history, now=time.time(), timeout_s=0):
        pass

    assert [name for name in LOCKS if (ground / ".git" / name).exists()] == []
    ask("commit", "-q", "--allow-empty", "-m", "git works again")


def test_the_locks_of_others_are_left_alone(history: History, ground: Path, python):
    old, later, unannounced = (ground / ".git" / name for name in ("index.lock", "HEAD.lock", "refs/heads/exp.lock"))
    died = python(DIE, ground)
    died.kill()
    died.wait()
    for path, age in ((old, -100.0), (later, 100.0), (unannounced, 0.0)):
        path.touch()
        os.utime(path, (time.time() + age,) * 2)

    with commits.repository_lock(history, now=time.time(), timeout_s=0):
        pass

    assert [path.exists() for path in (old, later, unannounced)] == [True, True, True]


def test_the_note_of_a_killed_process_is_handed_on_once(history: History, ground: Path, python):
    died = python(DIE, ground)
    died.kill()
    died.wait()

    with commits.repository_lock(history, now=time.time(), timeout_s=0) as (_, note):
        assert sorted(note["locks"]) == sorted(LOCKS)
    with commits.repository_lock(history, now=time.time(), timeout_s=0) as (_, note):
        assert note == {}


def test_a_note_survives_a_cleaner_that_fails(history: History, ground: Path, python):
    died = python(DIE, ground)
    died.kill()
    died.wait()

    with pytest.raises(ZeroDivisionError), commits.repository_lock(history, now=time.time(), timeout_s=0):
        raise ZeroDivisionError

    with commits.repository_lock(history, now=time.time(), timeout_s=0) as (_, note):
        assert note["locks"]


def test_a_lock_file_that_is_the_ref_itself_is_in_nobodys_way(history: History, ground: Path, ask):
    heads = ground / ".git/refs/heads"
    head = CommitId(ask("rev-parse", "HEAD").strip())
    ask("branch", "exp")
    (heads / "exp.lock").hardlink_to(heads / "exp")

    with commits.repository_lock(history, now=time.time(), timeout_s=0) as (lock, _):
        commits.delete_ref(history, "refs/heads/exp", old=head, lock=lock)

    assert not list(heads.glob("exp*"))


def test_a_hostile_note_removes_nothing_but_locks_of_git(history: History, ground: Path, tmp_path: Path):
    outside, inside = tmp_path / "precious.lock", ground / ".git/config"
    outside.touch()
    inside.touch()
    (ground / ".git/ckptvcs").mkdir()
    names = [str(outside), os.path.relpath(outside, ground / ".git"), "config", "./config", "refs/../config"]
    (ground / ".git/ckptvcs/lock").write_text(json.dumps({"locks": names}))

    with commits.repository_lock(history, now=time.time(), timeout_s=0):
        pass

    assert outside.exists()
    assert inside.exists()


def test_the_note_in_a_copy_of_a_repository_cleans_up_there(history: History, ground: Path, python, tmp_path: Path):
    died = python(DIE, ground, *LOCKS)
    died.kill()
    died.wait()
    shutil.copytree(ground, tmp_path / "copy")

    with commits.repository_lock(History.discover(tmp_path / "copy"), now=time.time(), timeout_s=0):
        pass

    assert [name for name in LOCKS if (tmp_path / "copy/.git" / name).exists()] == []
    assert all((ground / ".git" / name).exists() for name in LOCKS), "it is somebody else's"


@pytest.mark.parametrize(
    "left",
    [
        '{"locks": 7}',
        '{"locks": [7, null, "/nowhere"]}',
        "[]",
        "{",
    ],
)
def test_a_note_of_another_form_is_no_obstacle(history: History, ground: Path, left: str):
    (ground / ".git/ckptvcs").mkdir()
    (ground / ".git/ckptvcs/lock").write_text(left)

    with commits.repository_lock(history, now=time.time(), timeout_s=0):
        pass


def test_a_repository_that_a_living_process_holds_is_waited_for(history: History, ground: Path, python):
    python(DIE, ground)

    with pytest.raises(LockHeld), commits.repository_lock(history, now=time.time(), timeout_s=0.1):
        pass


def test_a_repository_that_cannot_be_written_says_so(history: History, ground: Path, without_privilege: None):
    (ground / ".git").chmod(0o555)
    lock = commits.repository_lock(history, now=time.time(), timeout_s=0)

    with pytest.raises(StorageError, match=re.escape(str(ground))), lock:
        pass
