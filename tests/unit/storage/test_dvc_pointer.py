"""Pointers and directory objects have the bytes that DVC gives them: the real program is the oracle."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest
import yaml
from blake3 import blake3
from ruamel.yaml import YAML

from ckptvcs.digest import Digest
from ckptvcs.errors import BadManifest
from ckptvcs.storage.dvc.pointer import (
    Pointer,
    directory_bytes,
    pointer_bytes,
    read_pointer,
    reads_as_number,
    with_ignored,
)
from ckptvcs.storage.names import ObjectName

FILES = {
    "model/a.safetensors": b"tensors",
    "model/tree.json": b"{}",
    "empty": b"",
    "a b/c d": b"blanks",
    "quote'\".txt": b"quotes",
    "é/ü.txt": b"not ASCII",
    "語": b"nor this",
    "😀": b"nor, by far, this",
    "A": b"upper case",
    "a": b"lower case",
    "a.b": b"sorts between a and a/b",
    "z/z/z/z": b"deep",
}
MANIFEST = Digest(blake3(b"manifest").hexdigest())


def md5(data: bytes) -> ObjectName:
    return ObjectName(hashlib.md5(data).hexdigest())


def pointer(**facts) -> Pointer:
    given = {"directory": ObjectName("0" * 32 + ".dir"), "nbytes": 5, "nfiles": 2, "track": "model"}
    return Pointer(**{**given, "manifest": MANIFEST, **facts})


@pytest.fixture
def added(dvc_project: Path, dvc) -> Path:
    """A folder of files with trying names that DVC has added."""
    for name, data in FILES.items():
        (dvc_project / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        (dvc_project / "model" / name).write_bytes(data)
    dvc((dvc_project, "init -q"), (dvc_project, "add -q model"))
    return dvc_project


def test_a_directory_object_has_the_bytes_and_the_name_that_dvc_gives_it(added: Path):
    (theirs,) = (added / ".dvc/cache/files/md5").rglob("*.dir")

    ours = directory_bytes({name: md5(data) for name, data in FILES.items()})

    assert ours == theirs.read_bytes()
    assert md5(ours) + ".dir" == theirs.parent.name + theirs.name


def test_a_pointer_is_what_dvc_writes_with_the_name_of_the_manifest_in_it(added: Path):
    directory = ObjectName(md5(directory_bytes({name: md5(data) for name, data in FILES.items()})) + ".dir")
    size = sum(map(len, FILES.values()))

    ours = pointer_bytes(pointer(directory=directory, nbytes=size, nfiles=len(FILES)))

    meta = f"  meta:\n    ckptvcs:\n      v: 1\n      manifest: {MANIFEST}\n".encode()
    assert meta in ours
    assert ours.replace(meta, b"") == (added / "model.dvc").read_bytes()


def test_dvc_takes_a_pointer_of_ours_for_its_own(added: Path, dvc):
    directory = ObjectName(md5(directory_bytes({name: md5(data) for name, data in FILES.items()})) + ".dir")
    ours = pointer_bytes(pointer(directory=directory, nbytes=sum(map(len, FILES.values())), nfiles=len(FILES)))
    (added / "model.dvc").write_bytes(ours)

    (status, _) = dvc((added, "status"), (added, "add -q model"))

    assert "up to date" in status
    assert (added / "model.dvc").read_bytes() == ours


# ----------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("remote", [None, "store", "a.b_c-1"])
@pytest.mark.parametrize("nbytes", [0, 10**19 - 1])
def test_a_pointer_comes_back_as_it_was_written(remote: str | None, nbytes: int):
    written = pointer(remote=remote, nbytes=nbytes)

    assert read_pointer(pointer_bytes(written), where="model.dvc") == written


def test_a_pointer_is_yaml_that_says_the_same():
    document = yaml.safe_load(pointer_bytes(pointer(remote="store")))

    assert document["outs"] == [
        {
            "md5": "0" * 32 + ".dir",
            "size": 5,
            "nfiles": 2,
            "hash": "md5",
            "path": "model",
            "meta": {"ckptvcs": {"v": 1, "manifest": MANIFEST}},
            "remote": "store",
        }
    ]


GOOD = pointer_bytes(pointer())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        GOOD[:-1],
        GOOD + b"\n",
        GOOD + GOOD,
        GOOD.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + GOOD,
        GOOD.replace(b"md5: 0", b"md5: g"),
        GOOD.replace(b".dir", b""),
        GOOD.replace(b"path: model", b"path: ../model"),
        GOOD.replace(b"path: model", b"path: /model"),
        GOOD.replace(b"path: model", b"path: a/b"),
        GOOD.replace(b"path: model", b"path: "),
        GOOD.replace(b"size: 5", b"size: -5"),
        GOOD.replace(b"size: 5", b"size: " + b"9" * 20),
        GOOD.replace(b"v: 1", b"v: 2"),
        GOOD.replace(MANIFEST.encode(), MANIFEST.upper().encode()),
        GOOD.replace(b"  hash: md5\n", b""),
        GOOD + b"  remote: a b\n",
        GOOD + b"deps:\n- path: x\n",
        b"<<<<<<< HEAD\n" + GOOD,
        bytes(range(256)),
    ],
)
def test_what_ckptvcs_never_writes_is_not_read(data: bytes):
    with pytest.raises(BadManifest) as caught:
        read_pointer(data, where="checkpoints/model.dvc")

    assert "checkpoints/model.dvc" in caught.value.what


@pytest.mark.parametrize(("latin", "arabic"), [("size: 5", "size: ٥"), ("nfiles: 2", "nfiles: ٢")])
def test_digits_of_other_scripts_are_no_number(latin: str, arabic: str):
    with pytest.raises(BadManifest):
        read_pointer(GOOD.replace(latin.encode(), arabic.encode()), where="model.dvc")


@pytest.mark.parametrize(
    "digest",
    [
        "1" * 64,
        "0" * 64,
        "0" * 63 + "1",
        "1" * 31 + "e" + "1" * 32,
        "1e" + "5" * 62,
        "e" + "1" * 63,
        "1" * 63 + "e",
        "1" * 20 + "e" + "2" * 20 + "e" + "3" * 22,
        "1" * 63 + "f",
        "12e" + "0" * 61,
        MANIFEST,
    ],
)
def test_a_digest_that_yaml_would_read_as_a_number_is_known_as_such(digest: str):
    read = [YAML(typ="safe").load(digest), yaml.safe_load(digest)]

    assert reads_as_number(Digest(digest)) or read == [digest, digest]
    assert not reads_as_number(Digest(digest)) or not isinstance(read[0], str)


# -------------------------------------------------------------------------------------------------------- .gitignore


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "/model",
        "/model\n",
        "/other\n",
        "/other",
        "#/model\n",
        "/model2\n",
        "*.pt\r\n/a\r\n",
        "é\n",
        "/model\r\n",
    ],
)
def test_the_entry_makes_git_ignore_the_artifact_and_keeps_every_line(tmp_path: Path, text: str):
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    ignore = with_ignored(text, "model")

    (tmp_path / ".gitignore").write_bytes(ignore.encode())

    done = subprocess.run(["git", "check-ignore", "-q", "model/x"], cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert ignore.startswith(text)
    assert with_ignored(ignore, "model") == ignore
