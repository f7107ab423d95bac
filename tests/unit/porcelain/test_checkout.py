"""`checkout` and `restore`: an artifact appears, whole and verified, and nothing is lost for it."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from blake3 import blake3

from ckptvcs import Repo
from ckptvcs.errors import (
    AmbiguousRevision,
    BadManifest,
    CkptvcsError,
    HostileInput,
    LockHeld,
    MissingObject,
    NewerVersion,
    NotFound,
    Refused,
    StorageError,
    Unsaved,
    UsageError,
    WouldOverwrite,
    WrongDigest,
)
from ckptvcs.porcelain import checkout
from ckptvcs.porcelain.commit import Receipt
from ckptvcs.porcelain.repo import Repository
from tests.support import oracle
from tests.support.world import World


def holds(world: World, receipt: Receipt, folder: Path | None = None) -> bool:
    """Whether a folder holds exactly the artifact of a checkpoint."""
    folder = folder or world.root / "checkpoints/model"
    there = {
        p.relative_to(folder).as_posix(): blake3(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()
    }
    return there == {file.path: file.blake3 for file in receipt.manifest.all_files()}


# ----------------------------------------------------------------------------------------------------------- checkout


def test_head_and_the_artifact_move_to_the_revision(repo: Repo, world: World, history: list[Receipt]):
    repo.checkout("HEAD~2")

    assert world.git("rev-parse", "HEAD") == history[0].commit
    assert world.git("rev-parse", "--abbrev-ref", "HEAD") == "HEAD"
    assert world.git("status", "--porcelain") == ""
    assert holds(world, history[0])


@pytest.mark.parametrize(
    ("revision", "step"),
    [
        ("main~1", 2),
        ("main@step:1", 1),
        ("main@latest", 3),
        ("main@best", 3),
        ("main@best:loss", 3),
        ("@step:2", 2),
        ("@best", 3),
        ("v1", 1),
        ("golden/base", 2),
    ],
)
def test_every_kind_of_revision_can_be_gone_to(repo: Repo, world: World, history: list[Receipt], revision, step):
    repo.tag("v1", "HEAD~2")
    repo.tag("base", "HEAD~1", golden=True)

    repo.checkout(revision)

    assert world.git("rev-parse", "HEAD") == history[step - 1].commit
    assert holds(world, history[step - 1])


@pytest.mark.parametrize("length", [6, 12, 64])
def test_the_beginning_of_an_id_of_a_checkpoint_is_enough(repo: Repo, world, history: list[Receipt], length: int):
    repo.checkout(history[0].id[:length])

    assert world.git("rev-parse", "HEAD") == history[0].commit


def test_the_name_of_a_branch_attaches_head_to_it(repo: Repo, world: World, history: list[Receipt], state):
    elsewhere = repo.commit(state(9), branch="exp")

    repo.checkout("exp")

    assert world.git("symbolic-ref", "HEAD") == "refs/heads/exp"
    assert holds(world, elsewhere)
    repo.checkout("main")
    assert holds(world, history[-1])


def test_a_new_branch_begins_at_the_revision(repo: Repo, world: World, history: list[Receipt]):
    repo.checkout("HEAD~1", new_branch="fork")

    assert world.git("symbolic-ref", "HEAD") == "refs/heads/fork"
    assert world.git("rev-parse", "fork") == history[1].commit
    assert holds(world, history[1])


def test_a_commit_without_a_checkpoint_has_no_artifact(repo: Repo, world: World, history, artifact: Path):
    repo.checkout("HEAD~3")

    assert not artifact.exists()
    assert world.git("status", "--porcelain") == ""
    repo.checkout("main")
    assert holds(world, history[-1])


def test_each_track_comes_and_goes_with_its_commit(repo: Repo, world: World, state):
    teacher = repo.commit(state(1), track="teacher")
    student = repo.commit(state(2), track="student")

    repo.checkout("HEAD~1")
    assert sorted(p.name for p in (world.root / "checkpoints").iterdir() if p.is_dir()) == ["teacher"]
    repo.checkout("main")

    assert holds(world, teacher, world.root / "checkpoints/teacher")
    assert holds(world, student, world.root / "checkpoints/student")


def test_going_where_we_are_changes_nothing(repo: Repo, world: World, history, everything):
    repo.checkout("main")
    before = {p: w for p, w in everything(world).items() if not p.startswith(".git/")}

    repo.checkout("main")

    assert {p: w for p, w in everything(world).items() if not p.startswith(".git/")} == before


def test_a_plan_changes_nothing(repository: Repository, world: World, history: list[Receipt], everything):
    before = everything(world)

    planned = checkout.plan_checkout(repository, "HEAD~1", new_branch="fork")

    assert everything(world) == before
    assert (planned.commit, planned.branch) == (history[1].commit, "fork")
    assert planned.nbytes == history[1].manifest.nbytes


def test_progress_is_told_about_every_byte_twice(repository: Repository, history: list[Receipt]):
    told: list[int] = []

    checkout.execute(repository, checkout.plan_checkout(repository, "HEAD~1"), told.append)

    assert sum(told) == 2 * history[1].manifest.nbytes


# -------------------------------------------------------------------------------------------------------- the user's work


def test_the_work_of_the_user_stays_as_it_is(repo: Repo, world: World, user_work, state):
    repo.commit(state(1))
    repo.commit(state(2))
    before = user_work()

    repo.checkout("HEAD~1")
    repo.checkout("main")

    assert user_work() == before


@pytest.mark.parametrize("how", ["edited", "staged", "untracked"])
def test_work_in_the_way_is_refused_and_nothing_moves(repo: Repo, world: World, history, state, everything, how: str):
    world.git("checkout", "-q", "-b", "other")
    (world.root / "train.py").write_text("theirs\n")
    world.git("add", "train.py")
    world.git("commit", "-qm", "code")
    world.git("checkout", "-q", "main" if how == "untracked" else "other")
    (world.root / "train.py").write_text("mine\n")
    if how == "staged":
        world.git("add", "train.py")
    before = everything(world)

    with pytest.raises(Unsaved, match=r"train\.py"):
        repo.checkout("other" if how == "untracked" else "main")

    after = everything(world)
    assert {p for p in before | after if before.get(p) != after.get(p) and not p.startswith(".dvc/tmp")} == set()


@pytest.mark.parametrize("harm", ["changed", "added", "linked"])
@pytest.mark.parametrize("act", [lambda r: r.checkout("HEAD~1"), lambda r: r.restore("HEAD~1")])
def test_files_of_an_artifact_that_are_saved_nowhere_are_not_lost(
    repo: Repo, world: World, history, artifact: Path, harm: str, act: Callable
):
    if harm == "changed":
        (artifact / "model/tree.json").unlink()
        (artifact / "model/tree.json").write_text("mine")
    elif harm == "added":
        (artifact / "notes").mkdir()
        (artifact / "notes/mine.txt").write_text("mine")
    else:
        (artifact / "link").symlink_to("/etc/passwd")
    before = world.git("rev-parse", "HEAD"), oracle.git(world.root, "status", "--porcelain")

    with pytest.raises(Unsaved, match="saved nowhere") as caught:
        act(repo)

    assert len(caught.value.facts["paths"]) == 1
    assert (world.git("rev-parse", "HEAD"), oracle.git(world.root, "status", "--porcelain")) == before
    assert os.path.lexists(artifact / caught.value.facts["paths"][0])


def test_files_that_are_only_missing_are_brought_back(repo: Repo, world: World, history, artifact: Path):
    shutil.rmtree(artifact / "model")

    repo.restore("HEAD")

    assert holds(world, history[-1])


@pytest.mark.parametrize("act", [lambda r: r.checkout("HEAD~1"), lambda r: r.restore("HEAD")])
def test_a_file_in_the_place_of_the_artifact_is_not_lost(repo: Repo, world, history, artifact: Path, act: Callable):
    shutil.rmtree(artifact)
    artifact.write_text("precious")

    with pytest.raises(Refused):
        act(repo)

    assert artifact.read_text() == "precious"


def test_a_file_whose_name_is_no_text_is_not_lost(repo: Repo, history, artifact: Path):
    path = Path(os.fsdecode(os.fsencode(artifact) + b"/\xff"))
    path.write_text("mine")

    with pytest.raises(Unsaved):
        repo.checkout("HEAD~1")

    assert path.read_text() == "mine"


def test_what_is_staged_and_shown_nowhere_else_is_not_lost(repo: Repo, world: World, state):
    (world.root / "train.py").write_text("one\n")
    world.git("add", "train.py")
    world.git("commit", "-qm", "one")
    world.git("checkout", "-q", "-b", "other")
    (world.root / "train.py").write_text("two\n")
    world.git("commit", "-qam", "two")
    (world.root / "train.py").write_text("staged\n")
    world.git("add", "train.py")
    (world.root / "train.py").write_text("two\n")
    before = world.git("diff", "--cached")

    with pytest.raises(Unsaved):
        repo.checkout("main")

    assert world.git("diff", "--cached") == before


# --------------------------------------------------------------------------------------------------------- bad revisions


def unmoved(repo: Repo, world: World, error: type[Exception] | tuple[type[Exception], ...], revision: str, **options):
    """Check something out that cannot be, and make sure that nothing moved."""
    before = world.git("for-each-ref"), world.git("rev-parse", "HEAD"), world.git("status", "--porcelain")
    with pytest.raises(error) as caught:
        repo.checkout(revision, **options)
    assert (world.git("for-each-ref"), world.git("rev-parse", "HEAD"), world.git("status", "--porcelain")) == before
    return caught.value


@pytest.mark.parametrize(
    "revision",
    [
        *[
            "missing",
            "HEAD~9",
            "0" * 40,
            "f" * 64,
            "main:ckpt.yaml",
            "",
            "--force",
            "a\nb",
            "\x1b[31m",
            "x" * 600,
            "\0",
        ],
        *["main@step:99", "main@step:", "main@step:-1", "missing@step:1", "missing@latest", "main@latest:x"],
        *["main@best:acc", "main@best:"],
    ],
)
def test_a_revision_that_there_is_not_moves_nothing(repo: Repo, world: World, history, revision: str):
    err = unmoved(repo, world, (NotFound, UsageError), revision)

    assert err.next_step or err.why
    assert all(c.isprintable() for c in str(err))


def test_a_revision_of_two_meanings_moves_nothing(repo: Repo, world: World, history: list[Receipt]):
    prefix = history[0].id[:4]
    twin = commit_with_prefix(world, prefix)

    err = unmoved(repo, world, AmbiguousRevision, prefix)

    assert err.facts["candidates"] == sorted([f"checkpoint {history[0].id[:12]}", f"commit {twin[:12]}"])
    repo.checkout(history[0].id[:12])


def commit_with_prefix(world: World, prefix: str) -> str:
    """A commit whose id begins so: tried out in Python, written by git."""
    import hashlib
    import subprocess

    head = f"tree {world.git('rev-parse', 'HEAD^{tree}')}\nauthor T <t@e> 1 +0000\ncommitter T <t@e> 1 +0000\n\n"
    for n in range(2_000_000):
        body = f"{head}{n}\n".encode()
        if hashlib.sha1(b"commit %d\0" % len(body) + body).hexdigest().startswith(prefix):
            write = ["git", "hash-object", "-t", "commit", "-w", "--stdin"]
            done = subprocess.run(write, cwd=world.root, input=body, capture_output=True, check=True)
            return done.stdout.decode().strip()
    raise AssertionError("two million tries for sixteen bits")


def test_a_branch_that_exists_is_not_made_again(repo: Repo, world: World, history):
    unmoved(repo, world, WouldOverwrite, "HEAD~1", new_branch="main")


@pytest.mark.parametrize("name", ["a..b", "main@latest", "-x", "HEAD", "main/x"])
def test_a_branch_that_cannot_be_made_moves_nothing(repo: Repo, world: World, history, name: str):
    unmoved(repo, world, CkptvcsError, "HEAD~1", new_branch=name)


def test_a_branch_of_another_worktree_stays_there(repo: Repo, world: World, history, tmp_path: Path):
    world.git("worktree", "add", "-q", "-b", "other", str(tmp_path / "linked"))

    unmoved(repo, world, Refused, "other")


def test_a_repository_with_filters_is_left_to_git(repo: Repo, world: World, history):
    (world.root / ".gitattributes").write_text("*.bin filter=lfs\n")
    world.git("add", ".gitattributes")
    world.git("commit", "-qm", "large files")

    assert "git checkout" in unmoved(repo, world, Refused, "HEAD").next_step


# ----------------------------------------------------------------------------------------------------------- bad objects


@pytest.mark.parametrize("part", ["model/tree.json", "step/tree.json", "any shard"])
@pytest.mark.parametrize(("harm", "error"), [("damaged", WrongDigest), ("missing", MissingObject)])
def test_an_object_that_is_not_whole_moves_nothing(
    repo: Repo, world: World, history, objects_of, flip, part: str, harm: str, error: type[Exception]
):
    old, new = objects_of(history[0]), objects_of(history[-1])
    own = {path: place for path, place in old.items() if place not in new.values()}
    chosen = own.get(part) or next(iter(own.values()))

    flip(chosen) if harm == "damaged" else chosen.unlink()

    unmoved(repo, world, error, "HEAD~2")
    assert holds(world, history[-1])


def edit_manifest(world: World, change: Callable[[dict], object], *, consistent: bool = True) -> str:
    """Commit another manifest, as a later version or somebody evil would; tells the commit."""
    path, pointer = world.root / "checkpoints/model.json", world.root / "checkpoints/model.dvc"
    document = json.loads(path.read_text())
    before = blake3(path.read_bytes()).hexdigest()
    change(document)
    path.write_text(json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False) + "\n")
    if consistent:
        pointer.write_text(pointer.read_text().replace(before, blake3(path.read_bytes()).hexdigest()))
    world.git("commit", "-qam", "edited")
    return world.git("rev-parse", "HEAD")


def test_a_manifest_of_a_later_version_is_not_guessed_at(repo: Repo, world: World, history):
    commit = edit_manifest(world, lambda m: m.update(format="ckptvcs/2", news={"a": 1}))
    world.git("checkout", "-q", "HEAD~1")

    err = unmoved(repo, world, NewerVersion, commit)

    assert "upgrade" in err.next_step


def climbing(path: str) -> Callable[[dict], object]:
    return lambda m: m["files"].append({"path": path, "size": 1, "md5": "0" * 32, "blake3": "0" * 64})


@pytest.mark.parametrize(
    "path", ["../evil", "/evil", "a/../../evil", ".git/config", "a//b", "con", "a\\b", "a\nb", "."]
)
def test_a_manifest_that_names_a_path_outside_writes_nothing(
    repo: Repo, world: World, history, snapshot, tmp_path: Path, path: str
):
    commit = edit_manifest(world, climbing(path))
    world.git("checkout", "-q", "HEAD~1")
    before = {p for p in snapshot(tmp_path) if "/.git/" not in p and "/.dvc/" not in p}

    unmoved(repo, world, BadManifest, commit)

    assert {p for p in snapshot(tmp_path) if "/.git/" not in p and "/.dvc/" not in p} == before


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(step="7"),
        lambda m: m.update(colour="red"),
        lambda m: m.pop("components"),
        lambda m: m.update(track="../x"),
        lambda m: m["components"].append(m["components"][0]),
        lambda m: m["files"].append({**m["components"][0]["files"][0], "path": "model"}),
        lambda m: m["components"][0]["files"][0].update(size=-1),
        lambda m: m["components"][0]["files"][0].update(md5="../../../../etc/passwd"),
    ],
)
def test_a_manifest_that_was_edited_is_refused(repo: Repo, world: World, history, change):
    commit = edit_manifest(world, change)
    world.git("checkout", "-q", "HEAD~1")

    unmoved(repo, world, BadManifest, commit)


def test_a_manifest_that_its_pointer_does_not_name_is_refused(repo: Repo, world: World, history):
    commit = edit_manifest(world, lambda m: m.update(step=99), consistent=False)
    world.git("checkout", "-q", "HEAD~1")

    assert "do not belong together" in unmoved(repo, world, BadManifest, commit).what


def test_a_pointer_that_is_missing_is_refused(repo: Repo, world: World, history):
    world.git("rm", "-q", "checkpoints/model.dvc")
    world.git("commit", "-qm", "lost")

    with pytest.raises((BadManifest, NotFound)):
        repo.restore("HEAD")


# ----------------------------------------------------------------------------------------------------- locks and disks

HOLD = (
    "import fcntl, sys\nf = open(sys.argv[1], 'a')\nfcntl.flock(f, fcntl.LOCK_EX)\nprint('ready', flush=True)\ninput()"
)


@pytest.mark.parametrize("name", [".git/ckptvcs/lock", ".dvc/tmp/lock"])
def test_a_lock_that_another_process_holds_is_reported(
    repository: Repository, world: World, history, python, name: str
):
    python(HOLD, world.root / name)
    before = world.git("rev-parse", "HEAD")

    with pytest.raises(LockHeld):
        checkout.execute(repository, checkout.plan_checkout(repository, "HEAD~1"))

    assert world.git("rev-parse", "HEAD") == before
    assert holds(world, history[-1])


def test_an_index_that_git_holds_moves_nothing(repo: Repo, world: World, history):
    (world.root / ".git/index.lock").touch()

    with pytest.raises(CkptvcsError):
        repo.checkout("HEAD~1")

    (world.root / ".git/index.lock").unlink()
    assert world.git("status", "--porcelain") == ""


def test_a_head_that_git_holds_moves_nothing(repo: Repo, world: World, history):
    (world.root / ".git/HEAD.lock").touch()

    with pytest.raises(CkptvcsError):
        repo.checkout("HEAD~1")

    assert world.git("status", "--porcelain") == ""


@pytest.mark.parametrize("name", ["index.lock", "HEAD.lock"])
def test_after_a_lock_of_git_the_same_command_puts_everything_right(repo: Repo, world: World, history, name: str):
    (world.root / ".git" / name).touch()
    with pytest.raises(CkptvcsError):
        repo.checkout("HEAD~1")
    (world.root / ".git" / name).unlink()

    repo.checkout("main~1")

    assert world.git("status", "--porcelain") == ""
    assert holds(world, history[1])


def test_a_full_disk_leaves_the_old_artifact(repo: Repo, world: World, state, request: pytest.FixtureRequest):
    repo.commit({"model": {"w": torch.zeros(1 << 18)}})
    last = repo.commit(state(2))
    request.getfixturevalue("small_files")

    with pytest.raises(StorageError):
        repo.restore("HEAD~1")

    assert holds(world, last)
    assert world.temporaries() == []


def test_a_workspace_that_cannot_be_written_is_left_as_it_is(repo: Repo, world: World, history, without_privilege):
    (world.root / "checkpoints").chmod(0o555)

    with pytest.raises(StorageError):
        repo.restore("HEAD~1")

    (world.root / "checkpoints").chmod(0o755)
    assert holds(world, history[-1])


def test_a_link_in_the_place_of_our_folder_is_not_gone_through(repo: Repo, world: World, history, tmp_path: Path):
    (world.root / "checkpoints").rename(tmp_path / "elsewhere")
    (world.root / "checkpoints").symlink_to(tmp_path / "elsewhere")
    before = sorted(p for p in (tmp_path / "elsewhere").rglob("*"))

    with pytest.raises(HostileInput):
        repo.restore("HEAD~1")

    assert sorted(p for p in (tmp_path / "elsewhere").rglob("*")) == before


# --------------------------------------------------------------------------------------------------------------- links


@pytest.mark.parametrize("link", ["auto", "reflink", "hardlink", "copy"])
def test_every_kind_of_link_gives_the_same_artifact(world: World, history: list[Receipt], link: str):
    (world.root / "ckpt.yaml").write_text(f"checkout: {{link: {link}}}\n")

    with world.repo() as repo:
        repo.restore("HEAD~1")
        assert holds(world, history[1])
        repo.restore("HEAD~2")

    assert holds(world, history[0])


def test_a_hard_link_is_made_where_it_is_asked_for(world: World, history: list[Receipt], objects_of, artifact: Path):
    (world.root / "ckpt.yaml").write_text("checkout: {link: hardlink}\n")

    shutil.rmtree(artifact)

    with world.repo() as repo:
        repo.restore("HEAD~1")

    for path, place in objects_of(history[1]).items():
        assert (artifact / path).samefile(place)
        assert stat.S_IMODE((artifact / path).stat().st_mode) == 0o444


# ------------------------------------------------------------------------------------------------------------- restore


def test_restore_leaves_head(repo: Repo, world: World, history: list[Receipt]):
    repo.restore("HEAD~2")

    assert world.git("rev-parse", "HEAD") == history[-1].commit
    assert world.git("status", "--porcelain") == ""
    assert holds(world, history[0])


def test_one_component_can_be_restored_alone(repo: Repo, world: World, history: list[Receipt], artifact: Path):
    repo.restore("HEAD~2", components=["model"])

    wanted = {f.path: f.blake3 for f in history[-1].manifest.all_files() if not f.path.startswith("model/")}
    wanted |= {f.path: f.blake3 for f in history[0].manifest.all_files() if f.path.startswith("model/")}
    there = {p.relative_to(artifact).as_posix(): blake3(p.read_bytes()).hexdigest() for p in artifact.rglob("*.*")}
    assert there == wanted


@pytest.mark.parametrize("components", [[], ["model"], ["model", "optimizer"]])
def test_a_checkpoint_can_be_restored_to_a_folder(
    repo: Repo, world: World, history: list[Receipt], tmp_path: Path, components: list[str]
):
    repo.restore("HEAD~2", components=components, to=tmp_path / "out")

    files = [f for f in history[0].manifest.all_files() if not components or f.path.split("/")[0] in components]
    there = {p.relative_to(tmp_path / "out").as_posix(): p for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert {path: blake3(p.read_bytes()).hexdigest() for path, p in there.items()} == {f.path: f.blake3 for f in files}
    assert holds(world, history[-1])


def test_an_empty_folder_is_a_place_to_restore_to(repo: Repo, world, history: list[Receipt], tmp_path: Path):
    (tmp_path / "out").mkdir()

    repo.restore("HEAD", to=tmp_path / "out")

    assert holds(world, history[-1], tmp_path / "out")


@pytest.mark.parametrize("kind", ["full", "file", "link"])
def test_what_is_there_is_not_overwritten(repo: Repo, history, tmp_path: Path, snapshot, kind: str):
    place = tmp_path / "out"
    if kind == "full":
        place.mkdir()
        (place / "x").write_text("mine")
    elif kind == "file":
        place.write_text("mine")
    else:
        (tmp_path / "empty").mkdir()
        place.symlink_to(tmp_path / "empty")
    before = snapshot(tmp_path)["out"]

    with pytest.raises(WouldOverwrite):
        repo.restore("HEAD", to=place)

    assert snapshot(tmp_path)["out"] == before


def test_a_folder_in_a_folder_that_is_not_there_is_refused(repo: Repo, history, tmp_path: Path):
    with pytest.raises(UsageError, match="there is no folder"):
        repo.restore("HEAD", to=tmp_path / "a/b")


def test_a_component_that_there_is_not_is_named_with_those_that_there_are(repo: Repo, history):
    with pytest.raises(NotFound, match="'ema'") as caught:
        repo.restore("HEAD", components=["ema"])

    assert "model, optimizer" in caught.value.why


def test_a_plan_to_restore_changes_nothing(repository: Repository, world: World, history, everything, tmp_path):
    before = everything(world)

    checkout.plan_restore(repository, "HEAD~1")
    checkout.plan_restore(repository, "HEAD~1", components=["model"], to=tmp_path / "out")

    assert everything(world) == before
    assert not (tmp_path / "out").exists()
