"""Whatever is wrong with a request: one error that says what, why and what next, the right exit status, nothing changed."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.support.states import training_state
from tests.support.world import Done, World


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("good") / "good.pt"
    torch.save(training_state(1, width=8), path)
    return path.read_bytes()


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file of a repository, apart from what is private to ckptvcs and can be lost."""
    return {
        path.relative_to(folder).as_posix(): (path.lstat().st_mode, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".git/ckptvcs" not in path.as_posix() and ".dvc/tmp" not in path.as_posix()
    }


def refused(world: World, *args: str, status: int, says: str, env: dict[str, str] | None = None) -> Done:
    """Run a command that must fail, in words and as JSON, without a trace."""
    before = snapshot(world.root)

    done = world.ckpt(*args, status=status, env=env)
    as_json = world.ckpt(*args, "--json", status=status, env=env)

    assert len(re.findall(r"^error: ", done.err, re.MULTILINE)) == 1, done.err
    assert re.search(says, done.err), f"it does not say {says!r}: {done.err}"
    assert "Traceback" not in done.err
    assert done.out == ""
    assert json.loads(as_json.out or as_json.err)["error"], as_json
    assert snapshot(world.root) == before, "something was written"
    assert world.temporaries() == []
    return done


class Marker:
    """Unpickled by a reader that is not careful, it leaves a file."""

    def __reduce__(self):
        return os.system, ("touch marker-of-a-hostile-pickle",)


def torn_header(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 1 << 40) + b"{}")


def zip_without_pickle(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("something", "else")


def cyclic_link(path: Path) -> None:
    path.symlink_to(path.name)


def half_a_directory(path: Path) -> None:
    path.mkdir()
    index = {
        "metadata": {},
        "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"},
    }
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    (path / "config.json").write_text("{}")
    save_file({"a": torch.ones(2)}, path / "model-00001-of-00002.safetensors")


def cut_short(path: Path) -> None:
    save_file({"a": torch.ones(100)}, path)
    os.truncate(path, 300)


DEEP = {"a": [{"b": (1, Fraction(1, 2))}]}

FILES: list[tuple[str, str, Callable[[Path, bytes], object], int, str]] = [
    ("empty", "x.pt", lambda p, _: p.write_bytes(b""), 40, "empty"),
    ("truncated", "x.pt", lambda p, good: p.write_bytes(good[: len(good) // 2]), 40, "x.pt"),
    ("one byte short", "x.pt", lambda p, good: p.write_bytes(good[:-1]), 40, "x.pt"),
    ("text", "x.pt", lambda p, _: p.write_text("hello, this is no checkpoint"), 40, "x.pt"),
    ("a zip of something else", "x.pt", lambda p, _: zip_without_pickle(p), 40, "x.pt"),
    ("hostile pickle", "x.pt", lambda p, _: torch.save({"model": Marker()}, p), 40, "system"),
    ("unsupported deep inside", "x.pt", lambda p, _: torch.save(DEEP, p), 40, r"\['a'\]\[0\]\['b'\]\[1\]"),
    ("empty safetensors", "x.safetensors", lambda p, _: p.write_bytes(b""), 40, "empty"),
    ("safetensors with an endless header", "x.safetensors", lambda p, _: torn_header(p), 40, "x.safetensors"),
    ("a truncated safetensors", "x.safetensors", lambda p, _: cut_short(p), 40, "x.safetensors"),
    ("unknown kind", "x.onnx", lambda p, _: p.write_bytes(b"\x08\x07onnx"), 40, "x.onnx"),
    ("missing", "x.pt", lambda _, __: None, 2, "no such file|does not exist|there is no"),
    ("cyclic link", "x.pt", lambda p, _: cyclic_link(p), 2, "x.pt"),
    ("an empty folder", "x", lambda p, _: p.mkdir(), 40, "x"),
    ("a folder that lacks a shard", "x", lambda p, _: half_a_directory(p), 40, "model-00002-of-00002"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "make", "status", "says"), [row[1:] for row in FILES], ids=[row[0] for row in FILES])
def test_a_bad_source_is_refused(world: World, tmp_path: Path, good: bytes, name: str, make, status: int, says: str):
    make(tmp_path / name, good)

    refused(world, "commit", str(tmp_path / name), status=status, says=says)

    assert not list(tmp_path.rglob("marker-of-a-hostile-pickle"))


@pytest.mark.parametrize(
    ("name", "extension"), [("weights.pt", "pt"), ("weights.bin", "pt"), ("weights.pt", "safetensors")]
)
def test_a_wrong_extension_does_not_matter(world: World, tmp_path: Path, good: bytes, name: str, extension: str):
    if extension == "pt":
        (tmp_path / name).write_bytes(good)
    else:
        save_file({"w": torch.ones(3)}, tmp_path / name)

    shown = world.ckpt("commit", tmp_path / name, "--json").json

    assert shown["branch"] == "main"


@pytest.fixture
def committed(world: World, tmp_path: Path, good: bytes) -> World:
    (tmp_path / "good.pt").write_bytes(good)
    world.ckpt("commit", "../good.pt", "--step", "1")
    return world


@pytest.mark.parametrize(
    ("args", "status", "says"),
    [
        ("commit ../good.pt --metric loss=nan", 2, "loss"),
        ("commit ../good.pt --metric loss=low", 2, "loss"),
        ("commit ../good.pt --metric loss", 2, "loss"),
        ("commit ../good.pt --step minus-one", 2, "step"),
        ("commit ../good.pt --branch a..b", 2, "a..b"),
        ("commit ../good.pt --track ../x", 2, "x"),
        ("commit ../good.pt --data nowhere", 2, "nowhere"),
        ("show nowhere", 12, "nowhere"),
        ("show main@step:99", 12, "99"),
        ("show main@best:accuracy", 12, "accuracy"),
        ("show nowhere@latest", 12, "nowhere"),
        ("log nowhere", 12, "nowhere"),
        ("checkout nowhere", 12, "nowhere"),
        ("restore main --component lora", 12, "lora"),
        ("diff main nowhere", 12, "nowhere"),
        ("tag --golden x nowhere", 12, "nowhere"),
        ("export main ../good.pt", 50, "good.pt"),
        ("branch main", 50, "main"),
    ],
)
def test_a_bad_request_is_refused(committed: World, args: str, status: int, says: str):
    done = committed.ckpt(*args.split(), status=status)

    assert len(re.findall(r"^(error|Error): ", done.err, re.MULTILINE)) == 1, done.err
    assert re.search(says, done.err), done.err
    assert "Traceback" not in done.err


def test_an_ambiguous_revision_names_what_it_may_mean(committed: World, tmp_path: Path):
    with committed.repo() as repo:
        ids = [repo.commit({"model": {"w": torch.full((2,), float(n))}}, step=n).id for n in range(20)]
    first = next(i[0] for i in ids if sum(other[0] == i[0] for other in ids) > 1)

    done = committed.ckpt("show", first, status=None)

    assert done.status in (2, 12)
    if done.status == 2:
        assert "ambiguous" in done.err or "more than one" in done.err


def test_no_git_identity(committed: World, tmp_path: Path):
    empty = tmp_path / "nobody"
    empty.mkdir()

    refused(
        committed, "commit", "../good.pt", "--step", "2", status=2, says="user.name",
        env={"HOME": str(empty), "XDG_CONFIG_HOME": str(empty)},
    )  # fmt: skip


def test_a_detached_head_needs_a_branch(committed: World):
    committed.git("checkout", "-q", "--detach")

    refused(committed, "commit", "../good.pt", status=2, says="detached")

    committed.ckpt("commit", "../good.pt", "--branch", "exp")


def test_a_dirty_tree_is_left_as_it_is(committed: World):
    for name in ("staged", "unstaged"):
        (committed.root / name).write_text("1")
    committed.git("add", "staged", "unstaged")
    committed.git("commit", "-qm", "code")
    for name in ("staged", "unstaged", "untracked"):
        (committed.root / name).write_text("mine")
    committed.git("add", "staged")
    before = committed.git("status", "--porcelain")

    committed.ckpt("commit", "../good.pt", "--step", "5")

    assert committed.git("status", "--porcelain") == before
    assert committed.git("show", "HEAD:staged") == "1"
    assert [(committed.root / name).read_text() for name in ("staged", "unstaged", "untracked")] == ["mine"] * 3


def test_a_missing_object_is_named_and_head_stays(committed: World):
    committed.ckpt("commit", "../good.pt", "--step", "2", "--param", "x=1")
    shutil.rmtree(committed.root / "checkpoints/model")  # else its files would be all that is left of the object
    name = next(n for n in committed.objects() if not n.endswith(".dir"))
    committed.objects()[name].unlink()
    head = committed.git("rev-parse", "HEAD")

    done = committed.ckpt("checkout", "main~1", status=20)

    assert name[:10] in done.err
    assert "dvc fetch" in done.err
    assert committed.git("rev-parse", "HEAD") == head


def test_a_read_only_repository(committed: World, tmp_path: Path):
    if os.geteuid() == 0:
        pytest.skip("root writes everywhere; tests/fault has a file system that is mounted read-only")
    os.chmod(committed.cache, 0o555)

    refused(committed, "commit", "../good.pt", "--step", "3", status=30, says="permission")


@pytest.mark.long  # it waits as long as a user would
def test_another_process_holds_the_lock(committed: World):
    path = committed.root / ".git/ckptvcs/lock"
    with path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        began = time.monotonic()
        done = committed.ckpt("commit", "../good.pt", "--step", "3", status=11)

    assert "another process" in done.err
    assert time.monotonic() - began < 60
    assert committed.ckpt("log", "--json").json["checkpoints"][0]["step"] == 1
    committed.ckpt("commit", "../good.pt", "--step", "3")


def test_a_manifest_of_a_newer_version(committed: World):
    path = committed.root / "checkpoints/model.json"
    path.write_text(path.read_text().replace("ckptvcs/1", "ckptvcs/9"))
    committed.git("commit", "-qam", "from the future")

    done = committed.ckpt("show", "HEAD", status=40)

    assert "ckptvcs/9" in done.err
    assert "upgrade" in done.err


def test_no_repository(tmp_path: Path):
    done = World(tmp_path).ckpt("log", status=10)

    assert "ckpt init" in done.err


def test_eight_processes_that_commit_at_once_lose_nothing(committed: World, tmp_path: Path):
    script = (
        "import sys, torch, ckptvcs\n"
        "n = int(sys.argv[1])\n"
        "with ckptvcs.Repo('.') as repo:\n"
        "    for k in range(3):\n"
        "        repo.commit({'model': {'w': torch.full((64,), float(n * 10 + k))}}, step=n * 10 + k, branch='crowd')\n"
    )
    crowd = [subprocess.Popen([sys.executable, "-c", script, str(n)], cwd=committed.root) for n in range(8)]

    assert [process.wait(timeout=120) for process in crowd] == [0] * 8
    steps = [entry["step"] for entry in committed.ckpt("log", "crowd", "-n", "all", "--json").json["checkpoints"]]
    assert sorted(steps) == sorted([1, *(n * 10 + k for n in range(8) for k in range(3))])
    assert committed.git("fsck", "--strict") == ""
