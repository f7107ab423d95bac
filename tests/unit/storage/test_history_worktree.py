"""Index and worktree follow our commits, and the user's work stays as it is: git itself is the oracle."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ckptvcs.errors import HostileInput, LockHeld, Refused, StorageError, Unsaved
from ckptvcs.storage.history import staging, worktree
from ckptvcs.storage.history.repository import CommitId, History

Change = Callable[[Path], object]


def text(path: str, content: str | bytes) -> Change:
    def change(ground: Path) -> None:
        (ground / path).parent.mkdir(parents=True, exist_ok=True)
        (ground / path).write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def run_git(*args: str) -> Change:
    return lambda ground: subprocess.run(["git", *args], cwd=ground, check=True, capture_output=True)


def both(*changes: Change) -> Change:
    return lambda ground: [change(ground) for change in changes]


def replaced(path: str, by: str) -> Change:
    def change(ground: Path) -> None:
        (ground / path).unlink()
        if by == "link":
            (ground / path).symlink_to("dir/b.txt")
        elif by == "folder":
            text(f"{path}/inside", "x")(ground)

    return change


# ------------------------------------------------------------------------------------------------ what is not committed

WORK: dict[str, Change] = {
    "nothing": lambda ground: None,
    "edited": text("a.txt", "mine\n"),
    "edited, without a last newline": text("a.txt", "mine"),
    "edited, not UTF-8": text("a.txt", b"\xff\xfe\n"),
    "edited, now binary": text("a.txt", bytes(range(256))),
    "emptied": text("a.txt", ""),
    "removed": lambda ground: (ground / "a.txt").unlink(),
    "removed and staged": run_git("rm", "-q", "a.txt"),
    "executable": lambda ground: (ground / "a.txt").chmod(0o755),
    "no longer executable": lambda ground: (ground / "run.sh").chmod(0o644),
    "staged": both(text("a.txt", "mine\n"), run_git("add", "a.txt")),
    "staged and edited again": both(text("a.txt", "one\n"), run_git("add", "a.txt"), text("a.txt", "two\n")),
    "deep": text("dir/deep/c.json", "[]\n"),
    "several": both(text("a.txt", "x\n"), text("dir/b.txt", "y\n"), lambda ground: (ground / "run.sh").unlink()),
    "new and staged": both(text("new.py", "x\n"), run_git("add", "new.py")),
    "new, to be added later": both(text("new.py", "x\n"), run_git("add", "-N", "new.py")),
    "new and staged, executable": both(
        text("new.sh", "new file mode 7\n"), lambda g: (g / "new.sh").chmod(0o755), run_git("add", "new.sh")
    ),
    "new and staged, a link": both(lambda g: (g / "new").symlink_to("a.txt"), run_git("add", "new")),
    "new and staged, empty": both(text("new.py", ""), run_git("add", "new.py")),
    "new and staged, binary": both(text("nëw", bytes(range(256))), run_git("add", "nëw")),
    "new and staged, in a folder": both(text("new/deep/x.py", "x"), run_git("add", "new")),
    "new and staged, then gone": both(
        text("new.py", "x\n"), run_git("add", "new.py"), lambda ground: (ground / "new.py").unlink()
    ),
    "renamed": run_git("mv", "a.txt", "z.txt"),
    "a link now": replaced("a.txt", "link"),
    "a link to elsewhere": both(replaced("link", "gone"), lambda g: (g / "link").symlink_to("run.sh")),
    "a folder now": replaced("a.txt", "folder"),
}
UNTRACKED: dict[str, Change] = {
    "untracked": text("new.py", "x\n"),
    "an untracked folder": both(text("new/a.py", "x\n"), text("new/deep/b.py", "x\n")),
    "ignored": both(text(".gitignore", "*.log\n"), run_git("add", ".gitignore"), text("x.log", "x\n")),
    "a name that is not ASCII": text("é ü.py", "x\n"),
    "a conflict": both(
        run_git("checkout", "-q", "-b", "side", "HEAD~1"),
        text("a.txt", "side\n"),
        run_git("commit", "-qam", "side"),
        lambda ground: subprocess.run(["git", "merge", "main"], cwd=ground, capture_output=True, check=False),
    ),
}


def status_of_git(ground: Path) -> tuple[list[str], list[str]]:
    """Changed and untracked paths, as `git status` tells them."""
    done = subprocess.run(
        ["git", "status", "--porcelain", "-z", "--no-renames"], cwd=ground, capture_output=True, check=True
    )
    lines = done.stdout.decode().split("\0")[:-1]
    changed = sorted(line[3:] for line in lines if not line.startswith("??"))
    return changed, sorted(line[3:] for line in lines if line.startswith("??"))


@pytest.mark.parametrize("name", [*WORK, *UNTRACKED])
def test_uncommitted_work_is_what_git_says_it_is(ground: Path, name: str):
    {**WORK, **UNTRACKED}[name](ground)

    found = worktree.changes(History.discover(ground), ours=lambda path: False)

    changed, untracked = status_of_git(ground)
    assert sorted(found.changed) == changed
    assert [path for path in sorted(found.untracked) if path.rstrip("/") not in changed] == untracked


def test_what_is_ours_does_not_count(ground: Path):
    both(text("dir/b.txt", "x"), text("dir/new", "x"), text("a.txt", "x"), text("other", "x"))(ground)

    found = worktree.changes(History.discover(ground), ours=lambda path: path.startswith("dir/"))

    assert (found.changed, found.untracked) == (("a.txt",), ("other",))


# What is in "a folder now" is untracked, and in no patch of git either.
@pytest.mark.parametrize("name", [name for name in WORK if name != "a folder now"])
def test_a_patch_makes_the_committed_files_what_they_were_in_the_worktree(
    ground: Path, tmp_path: Path, git, snapshot, name: str
):
    git("clone", "-q", str(ground), str(tmp_path / "clone"))
    WORK[name](ground)
    history = History.discover(ground)

    patch = worktree.patch(history, worktree.changes(history, ours=lambda path: False).changed)

    subprocess.run(["git", "apply", "--allow-empty", "-"], cwd=tmp_path / "clone", input=patch, check=True)
    files = [{p: w for p, w in snapshot(f).items() if ".git" not in p} for f in (ground, tmp_path / "clone")]
    assert files[0] == files[1]


def test_a_patch_is_of_the_asked_paths_alone(ground: Path):
    WORK["several"](ground)
    history = History.discover(ground)

    assert worktree.patch(history, []) == b""
    assert worktree.patch(history, ["dir/b.txt"]).count(b"diff --git") == 1


def test_before_the_first_commit_there_is_no_patch(ground: Path, ask):
    ask("checkout", "-q", "--orphan", "fresh")

    assert worktree.patch(History.discover(ground), ["a.txt"]) == b""


# ------------------------------------------------------------------------------------------------ following a commit

OURS = {"checkpoints/model.dvc": b"pointer\n", "checkpoints/model.json": b"manifest\n"}
IGNORE = "checkpoints/.gitignore"


def entry(content: str) -> str:
    return content if "/model" in content else f"{content}/model\n"


@pytest.fixture
def followed(ground: Path, ask) -> Callable[[], None]:
    """Commit our files with git's plumbing, as if from outside, and let index and worktree follow."""

    def follow() -> None:
        index = {"GIT_INDEX_FILE": str(ground / ".git/other-index")}
        for command in (["read-tree", "HEAD"], *(_add(ground, path, data) for path, data in OURS.items())):
            subprocess.run(["git", *command], cwd=ground, env={**os.environ, **index}, check=True)
        tree = subprocess.run(
            ["git", "write-tree"], cwd=ground, env={**os.environ, **index}, check=True, capture_output=True, text=True
        )
        ask("update-ref", "HEAD", ask("commit-tree", "-p", "HEAD", "-m", "ours", tree.stdout.strip()))
        worktree.follow(History.discover(ground), OURS, ignore_file=IGNORE, entry=entry)

    return follow


def _add(ground: Path, path: str, data: bytes) -> list[str]:
    done = subprocess.run(
        ["git", "hash-object", "-w", "--stdin"], cwd=ground, input=data, check=True, capture_output=True
    )
    return ["update-index", "--add", "--cacheinfo", f"100644,{done.stdout.decode().strip()},{path}"]


def users_state(ground: Path) -> list[bytes]:
    """Everything git knows of the user's work: index with its flags, differences, untracked files."""
    outside = ["--", ".", ":!checkpoints"]
    commands = (["status", "--porcelain=v2"], ["diff"], ["diff", "--cached"], ["ls-files", "-s", "-u", "-v"])
    return [
        subprocess.run(["git", *command, *outside], cwd=ground, check=True, capture_output=True).stdout
        for command in commands
    ]


@pytest.mark.parametrize("name", [*WORK, *UNTRACKED])
def test_the_users_work_stays_as_it_is(ground: Path, followed, name: str):
    {**WORK, **UNTRACKED}[name](ground)
    before = users_state(ground)

    followed()

    assert users_state(ground) == before


@pytest.mark.parametrize("flag", ["--assume-unchanged", "--skip-worktree"])
def test_the_flags_of_entries_stay(ground: Path, ask, followed, flag: str):
    ask("update-index", flag, "a.txt")
    before = users_state(ground)

    followed()

    assert users_state(ground) == before


def test_index_and_worktree_show_what_was_committed(ground: Path, ask, followed):
    followed()
    followed()

    assert {path: (ground / path).read_bytes() for path in OURS} == OURS
    assert ask("status", "--porcelain").splitlines() == [f"A  {IGNORE}"]
    assert (ground / IGNORE).read_text() == "/model\n"


def test_old_versions_of_ours_are_replaced(ground: Path, ask, followed):
    text("checkpoints/model.dvc", "old\n")(ground)
    text("checkpoints/model.json", "old\n")(ground)
    ask("add", "checkpoints/model.dvc")

    followed()

    assert {path: (ground / path).read_bytes() for path in OURS} == OURS
    assert ask("status", "--porcelain", "--", *OURS) == ""


def test_what_the_user_wrote_into_gitignore_stays_staged_and_unstaged(ground: Path, ask, followed):
    text(IGNORE, "/staged\n")(ground)
    ask("add", IGNORE)
    text(IGNORE, "/staged\n/edited\n")(ground)

    followed()

    assert ask("show", f":{IGNORE}") == "/staged\n/model"
    assert (ground / IGNORE).read_text() == "/staged\n/edited\n/model\n"


def test_bytes_in_gitignore_that_are_no_text_stay(ground: Path, followed):
    text(IGNORE, b"\xff\n")(ground)

    followed()

    assert (ground / IGNORE).read_bytes() == b"\xff\n/model\n"


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_link_or_file_in_the_place_of_our_folder_is_not_gone_through(
    ground: Path, followed, tmp_path: Path, kind: str
):
    (tmp_path / "elsewhere").mkdir()
    place = ground / "checkpoints"
    place.symlink_to(tmp_path / "elsewhere") if kind == "link" else place.write_text("precious")

    with pytest.raises(HostileInput):
        followed()

    assert os.listdir(tmp_path / "elsewhere") == []
    assert place.is_symlink() or place.read_text() == "precious"


def test_staging_alone_leaves_the_worktree(ground: Path, ask):
    text("checkpoints/model.dvc", "pointer\n")(ground)

    worktree.stage(History.discover(ground), {"checkpoints/model.dvc": b"pointer\n"})

    assert ask("status", "--porcelain") == "A  checkpoints/model.dvc"


def test_a_git_that_holds_the_index_for_a_moment_is_waited_for(ground: Path, ask):
    held = ground / ".git/index.lock"
    held.touch()
    timer = threading.Timer(0.2, held.unlink)
    timer.start()

    try:
        worktree.stage(History.discover(ground), {"new": b"x"})
    finally:
        timer.join()

    assert ask("show", ":new") == "x"


def test_a_git_that_holds_the_index_for_long_is_named(ground: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(staging, "_WAIT_S", 0.1)
    (ground / ".git/index.lock").touch()

    with pytest.raises(LockHeld):
        worktree.stage(History.discover(ground), {"new": b"x"})


# ----------------------------------------------------------------------------------------------------------- checkout


@pytest.fixture
def target(ground: Path, ask) -> CommitId:
    """A commit with changes of every kind, beside the one that is checked out."""
    ask("checkout", "-q", "-b", "target")
    both(
        text("dir/b.txt", "b2\n"),
        text("new.txt", "new\n"),
        text("made/deep/x", "x\n"),
        lambda g: (g / "dir/deep/c.json").unlink(),
        lambda g: (g / "a.txt").chmod(0o755),
        lambda g: (g / "link").unlink(),
        lambda g: (g / "link").symlink_to("run.sh"),
    )(ground)
    ask("add", "-A")
    ask("commit", "-qm", "target")
    ask("checkout", "-q", "main")
    return CommitId(ask("rev-parse", "target"))


@pytest.mark.parametrize("ours", ["", "dir/", "no such folder/"], ids=["all", "some", "none"])
def test_files_and_index_become_those_of_the_commit(
    ground: Path, ask, target: CommitId, tmp_path: Path, git, snapshot, ours: str
):
    worktree.update_files(History.discover(ground), target, ours=lambda path: path.startswith(ours))

    git("clone", "-q", "-b", "target", str(ground), str(tmp_path / "clone"))
    files = [{p: w for p, w in snapshot(f).items() if ".git" not in p} for f in (ground, tmp_path / "clone")]
    assert files[0] == files[1]
    assert ask("diff", "--cached", "target") == ask("diff", "target") == ""
    assert ask("symbolic-ref", "HEAD") == "refs/heads/main"


def everything(ground: Path, snapshot) -> tuple[object, ...]:
    files = {p: w for p, w in snapshot(ground).items() if not p.startswith(".git")}
    return files, users_state(ground)


IN_THE_WAY: dict[str, Change] = {
    "edited": text("dir/b.txt", "mine\n"),
    "staged": both(text("dir/b.txt", "mine\n"), run_git("add", "dir/b.txt")),
    "staged, then put back": both(text("dir/b.txt", "mine\n"), run_git("add", "dir/b.txt"), text("dir/b.txt", "b1\n")),
    "staged a mode, then put back": both(
        lambda ground: (ground / "dir/b.txt").chmod(0o755),
        run_git("add", "dir/b.txt"),
        lambda ground: (ground / "dir/b.txt").chmod(0o644),
    ),
    "staged as removed, and there again": both(run_git("rm", "-q", "--cached", "dir/b.txt")),
    "staged as new, and gone again": both(
        text("new.txt", "mine\n"), run_git("add", "new.txt"), lambda ground: (ground / "new.txt").unlink()
    ),
    "a conflict": UNTRACKED["a conflict"],
    "edited what is to go": text("dir/deep/c.json", "[1]\n"),
    "an untracked file": text("new.txt", "mine\n"),
    "an untracked file for a folder": text("made", "mine\n"),
    "an untracked folder for a file": text("new.txt/mine", "mine\n"),
    "an untracked link": lambda ground: (ground / "new.txt").symlink_to("a.txt"),
    "another link": both(replaced("link", "gone"), lambda ground: (ground / "link").symlink_to("dir")),
}


@pytest.mark.parametrize("name", IN_THE_WAY)
def test_work_in_the_way_is_refused_as_a_whole_as_git_does(
    ground: Path, target: CommitId, snapshot, tmp_path: Path, name: str
):
    IN_THE_WAY[name](ground)
    before = everything(ground, snapshot)
    git = subprocess.run(["git", "checkout", "-q", "target"], cwd=ground, capture_output=True, check=False)
    assert git.returncode != 0, "git lets it pass: then there is nothing to refuse"

    with pytest.raises(Unsaved) as caught:
        worktree.update_files(History.discover(ground), target, ours=lambda path: path.startswith("ours/"))

    assert caught.value.facts["paths"]
    assert everything(ground, snapshot) == before


BESIDE: dict[str, Change] = {
    "edited": text("run.sh", "mine\n"),
    "staged": both(text("run.sh", "mine\n"), run_git("add", "run.sh")),
    "staged and edited": both(text("run.sh", "1\n"), run_git("add", "run.sh"), text("run.sh", "2\n")),
    "removed": lambda ground: (ground / "run.sh").unlink(),
    "removed and staged": run_git("rm", "-q", "run.sh"),
    "new and staged": both(text("mine.txt", "mine\n"), run_git("add", "mine.txt")),
    "to be added later": both(text("mine.txt", "mine\n"), run_git("add", "-N", "mine.txt")),
    "staged what the commit holds": both(text("dir/b.txt", "b2\n"), run_git("add", "dir/b.txt")),
    "staged what is to go as removed": run_git("rm", "-q", "dir/deep/c.json"),
    "untracked": text("mine.txt", "mine\n"),
    "untracked beside what goes": text("dir/deep/mine.txt", "mine\n"),
    "untracked and the same already": text("new.txt", "new\n"),
}


@pytest.mark.parametrize("name", BESIDE)
def test_work_beside_the_way_ends_as_git_would_have_left_it(
    ground: Path, target: CommitId, snapshot, tmp_path: Path, name: str
):
    BESIDE[name](ground)
    theirs = tmp_path / "theirs"
    subprocess.run(["cp", "-a", str(ground), str(theirs)], check=True)
    git = subprocess.run(["git", "checkout", "-q", "--detach", "target"], cwd=theirs, check=False, capture_output=True)

    if git.returncode:
        with pytest.raises(Unsaved):
            worktree.update_files(History.discover(ground), target, ours=lambda path: path.startswith("ours/"))
        return
    history = History.discover(ground)
    worktree.update_files(history, target, ours=lambda path: path.startswith("ours/"))
    worktree.set_head(history, target, branch=None)

    assert everything(ground, snapshot) == everything(theirs, snapshot)


def test_work_that_is_what_the_commit_holds_is_no_obstacle(ground: Path, ask, target: CommitId):
    text("dir/b.txt", "b2\n")(ground)

    worktree.update_files(History.discover(ground), target, ours=lambda path: path.startswith("ours/"))

    assert ask("diff", "target") == ask("diff", "--cached", "target") == ""


def test_a_locked_index_leaves_every_file(ground: Path, target: CommitId, snapshot):
    before = everything(ground, snapshot)
    (ground / ".git/index.lock").touch()

    with pytest.raises((LockHeld, StorageError)):
        worktree.update_files(History.discover(ground), target, ours=lambda path: path.startswith("ours/"))

    (ground / ".git/index.lock").unlink()
    assert everything(ground, snapshot) == before


@pytest.mark.parametrize("name", ["index.lock", "HEAD.lock"])
def test_a_lock_that_git_holds_for_a_moment_is_waited_for_before_files_are_written(
    ground: Path, ask, target: CommitId, name: str
):
    held = ground / ".git" / name
    held.touch()
    timer = threading.Timer(0.2, held.unlink)
    timer.start()

    try:
        worktree.update_files(History.discover(ground), target, ours=lambda path: path.startswith("ours/"))
    finally:
        timer.join()

    assert ask("diff", "target") == ask("diff", "--cached", "target") == ""


def test_what_git_staged_while_it_held_the_index_stays(ground: Path, ask):
    held = ground / ".git/index.lock"
    history = History.discover(ground)
    history.repo.index.read()
    text("theirs", "x")(ground)

    def finish() -> None:  # as git does: the lock file is the new index, and becomes it
        subprocess.run(["git", "add", "theirs"], cwd=ground, env={**os.environ, **other}, check=True)
        (ground / ".git/other").rename(held)
        held.rename(ground / ".git/index")

    other = {"GIT_INDEX_FILE": str(ground / ".git/other")}
    (ground / ".git/other").write_bytes((ground / ".git/index").read_bytes())
    held.touch()
    timer = threading.Timer(0.2, finish)
    timer.start()
    try:
        worktree.stage(history, {"ours": b"x"})
    finally:
        timer.join()

    assert {"ours", "theirs"} <= set(ask("ls-files").splitlines())


@pytest.mark.parametrize(("branch", "expected"), [("target", "refs/heads/target"), (None, None)])
def test_head_names_a_branch_or_a_commit(ground: Path, ask, target: CommitId, branch: str | None, expected: str | None):
    history = History.discover(ground)

    worktree.set_head(history, target, branch=branch)

    assert ask("rev-parse", "HEAD") == target
    assert history.head_branch() == branch
    if expected:
        assert ask("symbolic-ref", "HEAD") == expected


def test_a_plain_repository_is_checked_out(ground: Path):
    history = History.discover(ground)

    worktree.refuse_unless_plain(history, history.head())


@pytest.mark.parametrize("path", [".gitattributes", "dir/.gitattributes"])
def test_filters_are_left_to_git(ground: Path, ask, path: str):
    text(path, "*.bin filter=lfs diff=lfs merge=lfs -text\n")(ground)
    ask("add", "-A")
    ask("commit", "-qm", "large files")
    history = History.discover(ground)

    with pytest.raises(Refused, match="filters"):
        worktree.refuse_unless_plain(history, history.head())
    worktree.refuse_unless_plain(history, CommitId(ask("rev-parse", "HEAD~1")))


def test_a_sparse_checkout_is_left_to_git(ground: Path, ask):
    ask("sparse-checkout", "set", "dir")
    history = History.discover(ground)

    with pytest.raises(Refused, match="sparse"):
        worktree.refuse_unless_plain(history, history.head())
