"""Whatever goes wrong is told in one manner, with an exit status that says its kind."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ckptvcs import errors
from tests.support.world import Done, World
from tests.unit.cli.conftest import Ckpt

STATUS = {
    errors.CheckFailed: 1,
    errors.UsageError: 2,
    errors.NoRepository: 10,
    errors.Conflict: 11,
    errors.NotFound: 12,
    errors.IntegrityError: 20,
    errors.StorageError: 30,
    errors.FormatError: 40,
    errors.Refused: 50,
    errors.Bug: 70,
}
CLASSES = [
    c
    for c in vars(errors).values()
    if isinstance(c, type) and issubclass(c, errors.CkptvcsError) and c is not errors.CkptvcsError
]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_every_error_has_the_status_of_its_branch(cls: type[errors.CkptvcsError]):
    branch = next(base for base in cls.__mro__ if base in STATUS)

    assert cls.exit_status == STATUS[branch]
    assert cls("x").kind == re.sub(r"(.)([A-Z])", r"\1-\2", cls.__name__).lower()


@pytest.mark.parametrize(
    ("number", "cls"),
    [
        (errno.ENOSPC, errors.TierFull),
        (errno.EDQUOT, errors.TierFull),
        (errno.EFBIG, errors.TierFull),
        (errno.EROFS, errors.TierReadOnly),
        (errno.EACCES, errors.TierReadOnly),
        (errno.EIO, errors.StorageError),
        (errno.ENOENT, errors.StorageError),
    ],
)
def test_an_error_of_the_system_is_put_where_it_belongs(number: int, cls: type):
    found = errors.from_os_error(OSError(number, "It Failed", "/cache/x"), doing="write object 3f9a")

    assert type(found) is cls
    assert (found.what, found.why) == ("cannot write object 3f9a", "it failed (/cache/x)")
    assert found.next_step
    assert found.facts == {"path": "/cache/x"}


# ------------------------------------------------------------------------------------------------------------ as typed

FAILING: dict[str, tuple[list[str], int]] = {
    "no repository": (["-C", "/", "log"], 10),
    "no folder": (["-C", "/nowhere", "status"], 10),
    "no revision": (["show", "nope"], 12),
    "no step": (["show", "main@step:99"], 12),
    "no branch": (["show", "nope@latest"], 12),
    "no metric": (["show", "main@best:other_loss"], 12),
    "metric of no mode": (["show", "main@best:nope"], 2),
    "no track": (["show", "--track", "teacher"], 12),
    "no component": (["restore", "HEAD", "--component", "nope", "--to", "new"], 12),
    "no such tag": (["tag", "-d", "nope"], 12),
    "empty revision": (["show", ""], 2),
    "malformed step": (["show", "main@step:x"], 2),
    "nothing after latest": (["show", "main@latest:1"], 2),
    "missing file": (["commit", "missing.pt"], 2),
    "metric that is none": (["commit", "../3.pt", "--metric", "loss=low"], 2),
    "bad branch": (["branch", "a..b"], 2),
    "bad tag": (["tag", "a b"], 2),
    "junk": (["commit", "junk.pt"], 40),
    "empty file": (["commit", "empty.pt"], 40),
    "torn file": (["commit", "torn.pt"], 40),
    "object": (["commit", "object.pt"], 40),
    "empty folder": (["commit", "folder"], 40),
    "branch exists": (["branch", "exp-a"], 50),
    "tag exists": (["tag", "--golden", "base"], 50),
    "golden mark": (["tag", "-d", "golden/base"], 50),
    "current branch": (["branch", "-d", "main"], 50),
    "destination exists": (["export", "HEAD", "junk.pt"], 50),
    "folder exists": (["restore", "HEAD", "--to", "full"], 50),
}


@pytest.fixture(scope="module")
def broken(ground: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The repository, with some files in it that are no checkpoints."""
    folder = tmp_path_factory.mktemp("errors")
    world = World(Path(shutil.copytree(ground.root, folder / "repo", symlinks=True)))
    whole = (ground.root.parent / "3.pt").read_bytes()
    (folder / "3.pt").write_bytes(whole)
    (world.root / "junk.pt").write_bytes(b"junk")
    (world.root / "empty.pt").write_bytes(b"")
    (world.root / "torn.pt").write_bytes(whole[:1000])
    (world.root / "folder").mkdir()
    (world.root / "full" / "of").mkdir(parents=True)
    torch.save({"model": {"x": re.compile("x")}}, world.root / "object.pt")
    return world


def failed(ckpt: Ckpt, words: list[str], broken: World, monkeypatch: pytest.MonkeyPatch) -> Done:
    monkeypatch.chdir(broken.root)
    return ckpt(*words)


@pytest.mark.parametrize("name", FAILING)
def test_an_error_says_what_failed_why_and_what_to_do(
    name: str, ckpt: Ckpt, broken: World, monkeypatch: pytest.MonkeyPatch
):
    words, status = FAILING[name]

    done = failed(ckpt, words, broken, monkeypatch)

    assert done.status == status
    assert done.out == ""
    lines = done.err.splitlines()
    assert re.fullmatch(r"error: ('|[a-z]).*[^.\s]", lines[0])
    assert len(lines) <= 3
    assert re.fullmatch(r"  next: ('|[a-zA-Z]).*[^.\s]", lines[-1])
    assert all(re.fullmatch(r"  why:  \S.*[^.\s]", line) for line in lines[1:-1])
    assert "Traceback" not in done.err


@pytest.mark.parametrize("name", FAILING)
def test_an_error_in_json_says_the_same(name: str, ckpt: Ckpt, broken: World, monkeypatch: pytest.MonkeyPatch):
    words, status = FAILING[name]
    said = failed(ckpt, words, broken, monkeypatch).err

    done = failed(ckpt, [*words, "--json"], broken, monkeypatch)

    document = json.loads(done.err)
    assert done.out == ""
    assert done.status == document["exit"] == status
    assert set(document) == {"error", "exit", "facts", "next", "what", "why"}
    for key in ("what", "why", "next"):
        assert document[key] in said
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", document["error"])


def test_a_value_that_cannot_be_kept_is_named_for_programs_too(
    ckpt: Ckpt, broken: World, monkeypatch: pytest.MonkeyPatch
):
    done = failed(ckpt, ["commit", "object.pt", "--json"], broken, monkeypatch)

    document = json.loads(done.err)
    assert document["error"] == "unsupported-value"
    assert document["facts"]["values"] == [{"path": "state['model']['x']", "class": "re._compile"}]


@pytest.mark.parametrize(
    "words",
    [["nope"], ["show", "--bogus"], ["diff"], ["commit"], ["completion", "tcsh"], ["branch", "-d"], ["log", "-n", "x"]],
    ids=" ".join,
)
def test_what_is_typed_wrong_is_a_mistake_of_usage(words: list[str], ckpt: Ckpt, ground: World):
    done = ckpt(*words, at=ground)

    assert done.status == 2
    assert done.out == ""
    assert "--help" in done.err


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_what_is_typed_wrong_is_told_in_the_same_manner(form: list[str], ckpt: Ckpt, ground: World):
    done = ckpt("show", "--bogus", *form, at=ground)

    if form:
        assert json.loads(done.err)["exit"] == 2
    else:
        assert re.search(r"^error: [a-z'].*[^.]$", done.err, re.MULTILINE)


def test_without_a_verb_the_help_is_shown(ckpt: Ckpt):
    done = ckpt()

    assert done.status == 2
    assert "Usage: ckpt" in done.err


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_a_missing_object_is_a_matter_of_integrity(form: list[str], ckpt: Ckpt, world: World, tmp_path: Path):
    name = next(f["md5"] for c in ckpt("show", "--json", at=world).json["manifest"]["components"] for f in c["files"])
    world.objects()[name].unlink()

    done = ckpt("restore", "HEAD", "--to", tmp_path / "new", *form, at=world)

    assert done.status == 20
    assert name[:8] in done.err or "object" in done.err
    assert not (tmp_path / "new").exists()


def test_a_check_that_finds_something_ends_with_one(ckpt: Ckpt, world: World):
    (world.root / "ckpt.yaml").write_text("nope: 1\n")

    done = ckpt("doctor", at=world)

    assert done.status == 1
    assert "ckpt.yaml" in done.out
    assert ckpt("doctor", "--json", at=world).json["findings"]


@pytest.mark.parametrize(
    ("words", "value"), [(["log"], "nope: 1\n"), (["status"], "version: 2\n"), (["show"], "a: [\n")], ids=str
)
def test_a_mistake_in_the_configuration_names_file_and_line(words: list[str], value: str, ckpt: Ckpt, world: World):
    (world.root / "ckpt.yaml").write_text(value)

    done = ckpt(*words, at=world)

    assert done.status == 2
    assert re.search(r"ckpt\.yaml', line [12]\n", done.err)


def test_a_reader_that_has_read_enough_is_no_error(ground: World):
    command = f"{sys.executable} -m ckptvcs log --json | head -c 1"

    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=ground.root, capture_output=True, text=True, check=False
    )

    assert (done.stdout, done.stderr) == ("{", "")


def test_a_bug_of_ours_is_called_one_and_asks_for_a_report(ckpt: Ckpt, ground: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ckptvcs.porcelain.status.status", lambda repo: 1 / 0)  # there is no bug that we know and keep

    done = ckpt("status", at=ground)

    assert done.status == 70
    assert "ZeroDivisionError" in done.err
    assert "CKPT_DEBUG=1" in done.err


def test_an_interruption_ends_with_130(ground: World, tmp_path: Path):
    os.mkfifo(tmp_path / "params")
    words = ["commit", "../3.pt", "--params-file", str(tmp_path / "params")]
    process = subprocess.Popen(
        [sys.executable, "-m", "ckptvcs", *words],
        cwd=ground.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background has them ignore SIGINT, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )

    with (tmp_path / "params").open("w"):  # returns when the command reads, which then waits for us
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert (out, err.strip()) == ("", "interrupted")
