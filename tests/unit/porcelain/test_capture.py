"""The chain of custody is taken down as it is: git, blake3 and the system are the oracles."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import pytest
import torch
from blake3 import blake3

from ckptvcs import Repo
from ckptvcs.errors import UsageError
from ckptvcs.porcelain import capture
from ckptvcs.porcelain.repo import Repository
from ckptvcs.storage.dvc.outputs import Output
from tests.support.world import World

# --------------------------------------------------------------------------------------------------------------- code


def test_clean_code_is_its_commit(repository: Repository, world: World):
    found = capture.code(repository)

    assert found.code.commit == world.git("rev-parse", "HEAD")
    assert (found.code.changed, found.code.patch, found.code.untracked, found.patch) == ((), None, (), b"")


def test_changed_code_is_named_and_kept_as_a_patch(repo: Repo, world: World, state, artifact: Path):
    (world.root / "train.py").write_text("one\n")
    world.git("add", "train.py")
    world.git("commit", "-qm", "code")
    (world.root / "train.py").write_text("two\n")

    code = repo.commit(state(1)).manifest.provenance.code

    patch = (artifact / "code.patch").read_bytes()
    assert code.changed == ("train.py",)
    assert code.patch == blake3(patch).hexdigest()
    assert b"-one\n+two\n" in patch


def test_code_that_git_does_not_know_is_named(repository: Repository, world: World):
    for name in ("new.py", "notes.txt", "model.bin", "conf.yaml", "sub/inner.py"):
        (world.root / name).parent.mkdir(exist_ok=True)
        (world.root / name).write_text("x")

    assert capture.code(repository).code.untracked == ("conf.yaml", "new.py")


def test_of_very_many_unknown_files_the_first_are_named(repository: Repository, world: World):
    for n in range(60):
        (world.root / f"{n:02}.py").touch()

    assert capture.code(repository).code.untracked == tuple(f"{n:02}.py" for n in range(50))


def test_checkpoints_are_no_code(repo: Repo, repository: Repository, world: World, state):
    repo.commit(state(1))
    (world.root / "checkpoints/model.json").write_text("edited")
    (world.root / "checkpoints/notes.py").write_text("x")

    found = capture.code(repository).code

    assert (found.changed, found.untracked) == ((), ())


def test_the_commit_of_the_code_stays_while_checkpoints_are_committed(repo: Repo, world: World, state):
    code = world.git("rev-parse", "HEAD")

    commits = [repo.commit(state(n)).manifest.provenance.code.commit for n in range(3)]

    assert commits == [code] * 3


def test_new_code_between_checkpoints_is_a_new_commit(repo: Repo, world: World, state):
    repo.commit(state(1))
    (world.root / "train.py").write_text("x")
    world.git("add", "train.py")
    world.git("commit", "-qm", "code")

    assert repo.commit(state(2)).manifest.provenance.code.commit == world.git("rev-parse", "HEAD~1")


def test_before_the_first_commit_there_is_no_code(repository: Repository, world: World):
    world.git("checkout", "-q", "--orphan", "fresh")
    world.git("rm", "-rq", "--cached", ".")

    assert capture.code(repository).code.commit is None


def test_of_a_patch_that_is_too_large_only_the_digest_is_kept(repo: Repo, world: World, state, artifact: Path):
    (world.root / "data.txt").write_text("x\n")
    world.git("add", "data.txt")
    world.git("commit", "-qm", "data")
    (world.root / "data.txt").write_text("".join(f"{n}\n" for n in range(700_000)))

    code = repo.commit(state(1)).manifest.provenance.code

    patch = world.git("diff", "--binary", "--no-ext-diff", "--full-index").encode()
    assert code.changed == ("data.txt",)
    assert len(patch) > capture.MAX_PATCH
    assert code.patch is not None
    assert not (artifact / "code.patch").exists()


# --------------------------------------------------------------------------------------------------------------- data


def digest(data: bytes) -> str:
    return f"blake3:{blake3(data).hexdigest()}"


def entries(*outputs: Output, declared: tuple[str, ...] = (), **versions: str) -> dict[str, str]:
    return {entry.name: entry.version for entry in capture.data(outputs, declared, versions)}


def test_what_dvc_tracks_is_named_as_dvc_names_it(tmp_path: Path):
    (tmp_path / "data.csv").write_bytes(b"x")
    path = str(tmp_path / "data.csv")

    assert entries(Output(path, "0" * 32), declared=(path,)) == {path: f"md5:{'0' * 32}"}


def test_a_declared_file_is_named_by_its_digest(tmp_path: Path):
    (tmp_path / "data.csv").write_bytes(b"1,2\n" * 500_000)

    path = str(tmp_path / "data.csv")
    assert entries(declared=(path,)) == {path: digest(b"1,2\n" * 500_000)}


def test_a_declared_folder_is_named_by_all_it_holds(tmp_path: Path):
    contents = {"b": b"1", "a/c": b"2", "a.d": b""}
    for name, data in contents.items():
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(data)
    path = str(tmp_path / "data")

    first = entries(declared=(path,))[path]

    in_order = ["a/c", "a.d", "b"]  # as paths sort, part by part
    lines = [f"{name}\0{blake3(contents[name]).hexdigest()}\n" for name in in_order]
    assert first == digest("".join(lines).encode())
    (tmp_path / "data/b").rename(tmp_path / "data/e")
    assert entries(declared=(path,))[path] != first


def test_versions_are_taken_at_their_word():
    assert entries(imagenet="2012", mine="v3") == {"imagenet": "2012", "mine": "v3"}


def test_data_that_is_not_there_is_a_mistake_of_the_caller(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")

    for name in ("missing", "pipe", "loop"):
        with pytest.raises(UsageError, match=name):
            entries(declared=(str(tmp_path / name),))


def test_data_that_may_not_be_read_is_a_mistake_of_the_caller(tmp_path: Path, without_privilege: None):
    (tmp_path / "data").write_bytes(b"x")
    (tmp_path / "data").chmod(0)

    with pytest.raises(UsageError):
        entries(declared=(str(tmp_path / "data"),))


def test_outputs_of_the_commit_are_found_but_not_our_own(repo: Repo, repository: Repository, world: World, state):
    for name, path in (("data.csv.dvc", "data.csv"), ("sub/x.dvc", "x")):
        (world.root / name).parent.mkdir(exist_ok=True)
        (world.root / name).write_text(f"outs:\n- md5: {'0a' * 16}\n  path: {path}\n")
    world.git("add", "-A")
    world.git("commit", "-qm", "data")

    receipt = repo.commit(state(1))

    found = {(o.path, o.name) for o in capture.tracked_outputs(repository, repository.history.head())}
    assert found == {("data.csv", "0a" * 16), ("sub/x", "0a" * 16)}
    assert {d.name: d.version for d in receipt.manifest.provenance.data} == {
        "data.csv": f"md5:{'0a' * 16}",
        "sub/x": f"md5:{'0a' * 16}",
    }


def test_before_the_first_commit_nothing_is_tracked(repository: Repository):
    assert capture.tracked_outputs(repository, None) == []


# -------------------------------------------------------------------------------------------------------- environment


def test_the_environment_is_this_one():
    found = capture.environment()

    assert found.python == platform.python_version()
    assert platform.system() in found.platform
    assert found.cpus == os.cpu_count()
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    assert found.memory == int(memory.split()[1]) * 1024
    assert found.cuda == torch.version.cuda


def test_packages_have_the_versions_that_python_knows():
    found = capture.environment().packages

    for name in ("torch", "numpy", "dvc", "pytest", "msgspec", "typing-extensions"):
        assert found[name] == importlib.metadata.version(name)


def test_packages_are_found_by_the_names_of_their_folders(tmp_path: Path):
    for place, name in [("one", "My_Pkg-1.0.dist-info"), ("one", "old-2.egg-info"), ("two", "my_pkg-9.dist-info")]:
        (tmp_path / place / name).mkdir(parents=True)
    (tmp_path / "two/no_version.dist-info").mkdir()

    places = [str(tmp_path / place) for place in ("one", "missing", "two")]
    assert capture.packages(places) == {"my-pkg": "1.0", "old": "2"}
