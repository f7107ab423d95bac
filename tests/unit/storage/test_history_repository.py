"""Reading a git repository: git itself is the oracle."""

from __future__ import annotations

import os
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from ckptvcs.errors import AmbiguousRevision, NoRepository, StorageError, UsageError
from ckptvcs.storage.history import settings
from ckptvcs.storage.history.repository import CommitId, History, Identity

# ------------------------------------------------------------------------------------------------------- finding it


@pytest.mark.parametrize("start", [".", "dir", "dir/deep"])
def test_a_repository_is_found_from_any_folder_in_it(ground: Path, start: str):
    history = History.discover(ground / start)

    assert (history.root, history.git_dir, history.common_dir) == (ground, ground / ".git", ground / ".git")


def test_a_linked_worktree_shares_what_is_private(ground: Path, ask, tmp_path: Path):
    ask("worktree", "add", "-q", "-b", "other", str(tmp_path / "linked"))

    linked = History.discover(tmp_path / "linked/dir")

    assert linked.root == tmp_path / "linked"
    assert linked.common_dir == ground / ".git"
    assert linked.private == History.discover(ground).private
    assert linked.head_branch() == "other"


def test_a_submodule_is_a_repository_of_its_own(ground: Path, git, tmp_path: Path):
    git("init", "-q", "outer")
    git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(ground), "inner", cwd=tmp_path / "outer")

    inner = History.discover(tmp_path / "outer/inner/dir")

    assert inner.root == tmp_path / "outer/inner"
    assert inner.head() == History.discover(ground).head()


def bare(git, folder: Path) -> None:
    git("init", "-q", "--bare", str(folder))


def sha256(git, folder: Path) -> None:
    git("init", "-q", "--object-format=sha256", str(folder))


def reftable(git, folder: Path) -> None:
    git("init", "-q", str(folder))
    git("config", "core.repositoryFormatVersion", "1", cwd=folder)
    git("config", "extensions.refStorage", "reftable", cwd=folder)


def partial_clone(git, folder: Path) -> None:
    git("init", "-q", str(folder))
    git("config", "core.repositoryFormatVersion", "1", cwd=folder)
    git("config", "extensions.partialClone", "origin", cwd=folder)


def from_the_future(git, folder: Path) -> None:
    git("init", "-q", str(folder))
    git("config", "core.repositoryFormatVersion", "99", cwd=folder)


def broken_config(git, folder: Path) -> None:
    git("init", "-q", str(folder))
    (folder / ".git/config").write_text("[core\n")


@pytest.mark.parametrize("make", [bare, sha256, reftable, partial_clone, from_the_future, broken_config])
def test_a_repository_that_cannot_be_used_is_refused_with_the_cause(git, tmp_path: Path, make):
    (tmp_path / "odd").mkdir()
    make(git, tmp_path / "odd")

    with pytest.raises(NoRepository) as caught:
        History.discover(tmp_path / "odd")

    assert caught.value.why
    assert str(tmp_path / "odd") in caught.value.what


@pytest.mark.parametrize("start", [".", "missing", "missing/deeper"])
def test_where_there_is_none_it_says_how_to_make_one(tmp_path: Path, start: str):
    with pytest.raises(NoRepository, match="no git repository") as caught:
        History.discover(tmp_path / start)

    assert "ckpt init" in caught.value.next_step


def test_a_new_repository_has_the_branch_main_and_is_found_again(tmp_path: Path, git):
    (tmp_path / "new").mkdir()

    for _ in range(2):
        history = History.create(tmp_path / "new")

    assert history.head_branch() == "main"
    assert git("symbolic-ref", "HEAD", cwd=tmp_path / "new") == "refs/heads/main\n"


# --------------------------------------------------------------------------------------------------------- identity


def test_the_identity_of_a_repository_is_what_git_would_use(history: History, ask):
    assert settings.identity(history) == ("Test", "test@example.com")

    ask("config", "user.name", "Somebody Else")

    assert settings.identity(History.discover(history.root)) == ("Somebody Else", "test@example.com")


def test_who_is_nobody_to_git_is_nobody_to_us(ground: Path):
    (Path(os.environ["HOME"]) / ".gitconfig").unlink()

    assert settings.identity(History.discover(ground)) == (None, None)
    assert settings.identity_of_user() == (None, None)


def test_the_identity_of_a_user_needs_no_repository():
    assert settings.identity_of_user() == ("Test", "test@example.com")


# ------------------------------------------------------------------------------------------------------------- names


def test_head_and_its_branch(history: History, ask):
    assert history.head() == ask("rev-parse", "HEAD")
    assert history.head_branch() == "main"


def test_a_detached_head_has_no_branch(history: History, ask):
    ask("checkout", "-q", "HEAD~1")

    assert history.head() == ask("rev-parse", "main~1")
    assert history.head_branch() is None


def test_a_branch_without_commits_has_a_name_and_no_head(history: History, ask):
    ask("checkout", "-q", "--orphan", "fresh")

    assert history.head() is None
    assert history.head_branch() == "fresh"


@pytest.fixture
def named(ask) -> None:
    """Names of every kind: branches, tags of commits, of trees and of blobs, others."""
    for name in ("exp/a", "exp/b", "v1.0"):
        ask("branch", name, "HEAD~1")
    ask("tag", "light")
    ask("tag", "-a", "-m", "words\n\nand more", "golden/heavy", "HEAD~1")
    ask("tag", "-a", "-m", "nested", "twice", "golden/heavy")
    ask("tag", "blob", "HEAD:a.txt")
    ask("tag", "tree", "HEAD^{tree}")
    ask("update-ref", "refs/remotes/origin/main", "HEAD~1")
    ask("update-ref", "refs/ckptvcs/ledger/me", "HEAD")
    ask("update-ref", "refs/pull/1/head", "HEAD")
    ask("update-ref", "refs/notes/blob", "HEAD:a.txt")


@pytest.mark.parametrize("packed", [True, False])
def test_every_branch_and_tag_of_a_commit_is_listed(named: None, history: History, ask, *, packed: bool):
    if packed:
        ask("pack-refs", "--all")

    first, second = ask("rev-parse", "HEAD~1"), ask("rev-parse", "HEAD")
    assert history.branches() == {"exp/a": first, "exp/b": first, "main": second, "v1.0": first}
    assert [(tag.name, tag.commit) for tag in history.tags()] == [
        ("golden/heavy", first),
        ("light", second),
        ("twice", first),
    ]
    assert history.remote_tips() == {"refs/remotes/origin/main": first, "refs/pull/1/head": second}


def test_a_tag_says_its_message_if_it_has_one(named: None, history: History):
    messages = {tag.name: tag.message for tag in history.tags()}

    assert messages == {"light": None, "golden/heavy": "words\n\nand more\n", "twice": "nested\n"}
    assert history.tag("missing") is None
    assert history.tag("golden/heavy") in history.tags()


@pytest.mark.parametrize("ref", ["refs/heads/missing", "refs/heads/", "no such name", "refs/heads/a..b", "", "\0"])
def test_a_ref_that_is_not_there_has_no_tip(history: History, ref: str):
    assert history.tip(ref) is None


@pytest.mark.parametrize(
    "revision",
    [
        "HEAD",
        "HEAD~1",
        "HEAD^",
        "main",
        "exp/a",
        "light",
        "golden/heavy",
        "twice",
        "refs/tags/light",
        "origin/main",
        "main@{0}",
        "HEAD^{commit}",
        "HEAD^0",
        ":/second",
        "@",
        "@~1",
    ],
)
def test_a_revision_means_what_it_means_to_git(named: None, history: History, ask, revision: str):
    assert history.resolve(revision) == ask("rev-list", "-1", revision)


@pytest.mark.parametrize("length", [4, 7, 12, 40])
def test_an_abbreviated_id_is_the_commit(history: History, ask, length: int):
    assert history.resolve(ask("rev-parse", "HEAD")[:length]) == ask("rev-parse", "HEAD")


@pytest.mark.parametrize(
    "revision",
    [
        "missing",
        "HEAD~5",
        "blob",
        "HEAD:a.txt",
        "HEAD^{tree}",
        "0" * 40,
        "--all",
        "-1",
        "a..b",
        "é",
        "HEAD^^^^",
        "[",
        "x" * 300,
    ],
)
def test_what_is_no_commit_to_git_is_none_to_us(named: None, history: History, ask, revision: str):
    with pytest.raises(subprocess.CalledProcessError):
        ask("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")

    assert history.resolve(revision) is None


@pytest.mark.parametrize("revision", ["a\nb", "\x1b[31m", "x" * 600, "\0"])
def test_what_nobody_would_type_is_refused(history: History, revision: str):
    with pytest.raises(UsageError):
        history.resolve(revision)


def test_an_id_that_two_objects_begin_with_is_ambiguous(history: History, ask, ground: Path):
    prefix = ask("rev-parse", "HEAD")[:4]
    twin = commit_with_prefix(ground, prefix, ask)
    assert twin.startswith(prefix)

    with pytest.raises(AmbiguousRevision):
        history.resolve(prefix)

    assert history.resolve(twin[:12]) == twin


def commit_with_prefix(ground: Path, prefix: str, ask) -> str:
    """A commit whose id begins so: tried out in Python, written by git."""
    import hashlib

    head = f"tree {ask('rev-parse', 'HEAD^{tree}')}\nauthor T <t@e> 1 +0000\ncommitter T <t@e> 1 +0000\n\n"
    for n in range(1_000_000):
        body = f"{head}{n}\n".encode()
        if hashlib.sha1(b"commit %d\0" % len(body) + body).hexdigest().startswith(prefix):
            done = subprocess.run(
                ["git", "hash-object", "-t", "commit", "-w", "--stdin"],
                cwd=ground,
                input=body,
                capture_output=True,
                check=True,
            )
            return done.stdout.decode().strip()
    raise AssertionError("a million tries for sixteen bits")


@pytest.mark.parametrize(
    "name",
    "main exp/a a.b a-b é a#b a@b a..b a~b a^b a:b a?b a* [a a\\b .a a. a/.b a.lock a/b.lock / a/ /a a//b a@{b".split(),
)
def test_a_branch_may_have_the_names_that_git_allows(history: History, git, name: str):
    done = subprocess.run(["git", "check-ref-format", f"refs/heads/{name}"], check=False)

    assert history.is_branch_name(name) == (done.returncode == 0)


@pytest.mark.parametrize("name", ["", "-x", "--force", "a b", "a\nb", "a\x7f", "\x1b[31m"])
def test_a_name_that_would_be_an_option_or_drive_a_terminal_is_none(history: History, name: str):
    assert not history.is_branch_name(name)


def test_a_branch_is_checked_out_here_or_elsewhere(history: History, ask, tmp_path: Path):
    for name in ("other", "free"):
        ask("branch", name)
    ask("worktree", "add", "-q", str(tmp_path / "linked"), "other")

    assert [history.is_checked_out(name) for name in ("main", "other", "free", "missing")] == [True, True, False, False]


# ------------------------------------------------------------------------------------------------- commits and files


@pytest.fixture
def merged(ask, ground: Path) -> None:
    """A history with a fork and a merge."""
    ask("checkout", "-q", "-b", "side", "HEAD~1")
    for n in range(3):
        (ground / "side.txt").write_text(str(n))
        ask("add", "side.txt")
        ask("commit", "-qm", f"side {n}")
    ask("checkout", "-q", "main")
    ask("merge", "-q", "--no-ff", "-m", "merge", "side")


def test_a_commit_is_told_as_git_tells_it(history: History, ask, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2024-02-29T12:34:56-05:30")
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Zoë")
    ask("commit", "-q", "--allow-empty", "-m", "subject\n\nbody")

    commit = history.commit(CommitId(ask("rev-parse", "HEAD")))

    assert commit.parents == (ask("rev-parse", "HEAD~1"),)
    assert (commit.message, commit.author) == ("subject\n\nbody\n", Identity(name="Zoë", email="test@example.com"))
    assert commit.time.isoformat() == ask("log", "-1", "--format=%cI") == "2024-02-29T12:34:56-05:30"
    assert commit.time.utcoffset() == -timedelta(hours=5, minutes=30)


def test_a_walk_visits_every_commit_once_and_children_first(merged: None, history: History, ask):
    visited = [commit.id for commit in history.walk([history.head()])]

    assert sorted(visited) == sorted(ask("rev-list", "HEAD").split())
    parents = {line.split()[0]: line.split()[1:] for line in ask("rev-list", "--parents", "HEAD").splitlines()}
    assert all(visited.index(commit) < visited.index(p) for commit in visited for p in parents[commit])


def test_a_walk_begins_at_several_commits(merged: None, history: History, ask):
    tips = [CommitId(ask("rev-parse", name)) for name in ("side", "main~1")]

    assert {c.id for c in history.walk(tips)} == set(ask("rev-list", "side", "main~1").split())
    assert list(history.walk([])) == []


def test_newest_first_is_the_order_of_git_log(history: History, ask, monkeypatch: pytest.MonkeyPatch):
    for n, branch in enumerate(["side", "main", "side", "side", "main"]):
        monkeypatch.setenv("GIT_COMMITTER_DATE", f"2040-01-01T00:00:{n:02}Z")
        ask("checkout", "-q", *(["-b", "side"] if n == 0 else [branch]))
        ask("commit", "-q", "--allow-empty", "-m", str(n))
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2040-01-01T00:01:00Z")
    ask("merge", "-q", "--no-ff", "-m", "merge", "side")

    for tips in (["main"], ["side"], ["main~1", "side"], []):
        visited = [c.id for c in history.newest_first([CommitId(ask("rev-parse", tip)) for tip in tips])]
        assert visited == (ask("log", "--format=%H", *tips).split() if tips else [])


@pytest.mark.parametrize("how", ["walk", "newest_first", "first_parents"])
def test_a_damaged_commit_on_the_way_is_an_error_of_storage(history: History, ask, ground: Path, flip, how: str):
    head, older = history.head(), ask("rev-parse", "HEAD~1")
    flip(ground / ".git/objects" / older[:2] / older[2:])
    fresh = History.discover(ground)

    with pytest.raises(StorageError):
        list(getattr(fresh, how)(head if how == "first_parents" else [head]))


def test_first_parents_are_those_of_git(merged: None, history: History, ask):
    expected = ask("rev-list", "--first-parent", "HEAD").split()

    assert [c.id for c in history.first_parents(history.head())] == expected


def test_ancestors_are_those_of_git(merged: None, history: History, ask):
    commits = [CommitId(commit) for commit in ask("rev-list", "--all").split()]

    for one in commits:
        ancestors = set(ask("rev-list", one).split())
        assert {other for other in commits if history.is_ancestor(other, one)} == ancestors


def test_files_of_a_commit_are_found_by_path(history: History, ask):
    head = history.head()

    for path in ("a.txt", "dir/b.txt", "dir/deep/c.json", "run.sh"):
        blob = history.blob_id(head, path)
        assert blob == ask("rev-parse", f"HEAD:{path}")
        assert history.blob(blob, limit=100).decode().rstrip("\n") == ask("show", f"HEAD:{path}")


@pytest.mark.parametrize("path", ["missing", "dir", "dir/deep", "dir/missing", "a.txt/x", "DIR/b.txt"])
def test_what_is_no_file_has_no_blob(history: History, path: str):
    assert history.blob_id(history.head(), path) is None
    assert history.is_folder(history.head(), path) == (path in ("dir", "dir/deep"))


def test_files_are_listed_by_the_ends_of_their_names(history: History, ask):
    found = dict(history.files(history.head(), (".txt", ".json")))

    assert found == {path: ask("rev-parse", f"HEAD:{path}") for path in ("a.txt", "dir/b.txt", "dir/deep/c.json")}


@pytest.mark.parametrize(("limit", "fits"), [(3, True), (2, False), (0, False)])
def test_a_file_beyond_the_limit_is_not_read(history: History, limit: int, *, fits: bool):
    blob = history.blob_id(history.head(), "a.txt")

    if fits:
        assert history.blob(blob, limit=limit) == b"a2\n"
    else:
        with pytest.raises(StorageError, match="at most"):
            history.blob(blob, limit=limit)


def edit(path: str, text: str):
    def change(ground: Path) -> None:
        (ground / path).parent.mkdir(parents=True, exist_ok=True)
        (ground / path).write_text(text)

    return change


def folder_becomes_file(ground: Path) -> None:
    (ground / "dir/deep/c.json").unlink()
    (ground / "dir/deep").rmdir()
    (ground / "dir/deep").write_text("a file now")


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda ground: None, True),
        (edit("dir/deep/c.json", "[]"), True),
        (edit("dir/deep/more/d", "x"), True),
        (folder_becomes_file, True),
        (lambda ground: (ground / "dir/deep/c.json").unlink(), True),
        (edit("a.txt", "x"), False),
        (edit("dir/b.txt", "x"), False),
        (edit("dir/deeper/x", "x"), False),
        (edit("new", "x"), False),
        (lambda ground: (ground / "dir/b.txt").unlink(), False),
    ],
)
def test_two_commits_are_compared_outside_of_a_folder(history: History, ask, ground: Path, change, *, same: bool):
    before = history.head()
    change(ground)
    ask("add", "-A")
    ask("commit", "-q", "--allow-empty", "-m", "x")

    for pair in ((before, history.head()), (history.head(), before)):
        assert history.same_outside(*pair, "dir/deep") is same


def test_a_program_that_may_be_run_now_is_another_one(history: History, ask, ground: Path):
    before = history.head()
    (ground / "a.txt").chmod(0o755)
    ask("commit", "-qam", "executable")

    assert not history.same_outside(before, history.head(), "dir/deep")


def test_a_shallow_clone_is_known_as_such(history: History, ground: Path, git, tmp_path: Path):
    git("clone", "-q", "--depth", "1", f"file://{ground}", str(tmp_path / "shallow"))
    shallow = History.discover(tmp_path / "shallow")

    assert (history.is_shallow(), shallow.is_shallow()) == (False, True)
    assert [c.id for c in shallow.walk([shallow.head()])] == [history.head()]
    assert [c.id for c in shallow.first_parents(shallow.head())] == [history.head()]


@pytest.mark.parametrize(
    ("harm", "what"),
    [
        ("damaged", "HEAD"),
        ("damaged", "HEAD^{tree}"),
        ("damaged", "HEAD:dir"),
        ("damaged", "HEAD:dir/b.txt"),
        ("missing", "HEAD"),
        ("missing", "HEAD^{tree}"),
        ("missing", "HEAD:dir"),
        ("missing", "HEAD:dir/b.txt"),
    ],
)
def test_a_git_object_that_is_not_whole_is_an_error_of_storage(
    history: History, ask, ground: Path, flip, harm: str, what: str
):
    head, blob, name = history.head(), history.blob_id(history.head(), "dir/b.txt"), ask("rev-parse", what)
    path = ground / ".git/objects" / name[:2] / name[2:]
    flip(path) if harm == "damaged" else path.unlink()
    fresh = History.discover(ground)

    with pytest.raises(StorageError, match="cannot") as caught:
        fresh.commit(head)
        fresh.blob_id(head, "dir/b.txt")
        fresh.blob(blob, limit=100)

    assert "git fsck" in caught.value.next_step


@pytest.mark.parametrize("revision", ["HEAD", "main", "refs/heads/main", "HEAD~1", "HEAD^", "main^0~1", "HEAD~5"])
@pytest.mark.parametrize("harm", ["damaged", "missing"])
def test_a_revision_whose_commit_is_not_whole_is_not_called_unknown(ground: Path, ask, flip, revision: str, harm: str):
    # `~5` leads past the beginning, but what is missing on the way there is the first thing to say.
    name = ask("rev-parse", "HEAD~1" if revision not in ("HEAD", "main", "refs/heads/main") else "HEAD")
    path = ground / ".git/objects" / name[:2] / name[2:]
    flip(path) if harm == "damaged" else path.unlink()

    with pytest.raises(StorageError, match="cannot"):
        History.discover(ground).resolve(revision)


@pytest.mark.parametrize("revision", ["HEAD~9", "HEAD^2", "HEAD^1^2", "main~999999999", "nope~1", "HEAD@{9}", "@{u}"])
def test_a_revision_beyond_the_history_is_unknown(history: History, revision: str):
    assert history.resolve(revision) is None


def test_a_branch_whose_commit_is_missing_is_no_branch_less(ground: Path):
    (ground / ".git/refs/heads/broken").write_text(f"{'1' * 40}\n")

    with pytest.raises(StorageError, match="refs/heads/broken"):
        History.discover(ground).branches()


def test_a_name_for_a_branch_that_is_gone_is_left_out(history: History, ask):
    ask("symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/gone")

    assert history.remote_tips() == {}
