"""The pages of the formats say what is on disk: every example in them is built and compared byte for byte.

Digests are recomputed by hashlib and blake3, shards are read by the safetensors library, git ids are made by hand: what a page
says must not be true only because our own code says it too.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import sqlite3
import stat
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml
from blake3 import blake3

from ckptvcs import errors
from ckptvcs.domain import events, fates, remote_files, running, schema, signers
from ckptvcs.domain import manifest as manifests
from ckptvcs.domain.provenance import Code, DataEntry, Environment, Provenance
from ckptvcs.formats import components, safetensors_file, tree_file
from ckptvcs.formats.reading import Artifact, NeutralBuilder, build
from ckptvcs.porcelain import describe, leases, plans, retention
from ckptvcs.signatures import read_key
from ckptvcs.storage import sidefiles
from ckptvcs.storage.dvc import pointer
from ckptvcs.storage.files import Lock
from ckptvcs.storage.history import commits, ledger
from ckptvcs.storage.history.repository import History, Identity
from ckptvcs.storage.names import ObjectName
from tests.support.same import assert_same
from tests.support.world import World

PAGES = Path(__file__).parents[2] / "docs" / "reference" / "format"
SHARDS = ["model/embed.safetensors", "rng/torch-to-numpy.safetensors", "extra/phase.safetensors"]
TREES = ["model/tree.json", "optimizer/tree.json", "ema/tree.json", "rng/tree.json", "extra/tree.json"]
INDEX = "model/model.safetensors.index.json"
EXAMPLES = {
    "artifact-1": ["state", "files", *SHARDS, INDEX],
    "tree-1": TREES,
    "manifest-1": ["manifest", "id"],
    "pointer-1": ["model.dvc", "directory", ".gitignore", "commit", "tag"],
    "cache": ["schema", "layout"],
    "ledger-1": ["first", "other", "second", "key", "commit", "signers"],
    "plan-1": ["retain", "plan"],
    "remote-1": ["layout", "lease", "marks", "repository", "store"],
}


def examples(page: str) -> dict[str, str]:
    """The marked blocks of a page, by name, without the newline before the closing fence."""
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    return dict(re.findall(r"<!-- example: (\S+) -->\n```\w*\n(.*?)\n```", text, re.DOTALL))


def hex_dump(text: str) -> bytes:
    """The bytes that a dump as by `xxd` shows."""
    out = b""
    for line in text.splitlines():
        offset, _, rest = line.partition(": ")
        assert int(offset, 16) == len(out)
        out += bytes.fromhex(rest[:39])
        shown = "".join(chr(b) if 32 <= b < 127 else "." for b in out[int(offset, 16) :])
        assert rest[41:].rstrip() == shown.rstrip()
    return out


def example_state() -> Any:
    namespace: dict[str, Any] = {}
    exec(examples("artifact-1")["state"], namespace)
    return namespace["state"]


@pytest.fixture
def committed(world: World) -> World:
    """A repository that holds the state of the pages."""
    with world.repo() as repo:
        repo.commit(example_state())
    return world


def files_of(world: World) -> dict[str, bytes]:
    folder = world.root / "checkpoints/model"
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def files(committed: World) -> dict[str, bytes]:
    return files_of(committed)


def test_every_example_of_every_page_is_tested():
    assert {page.stem for page in PAGES.glob("*.md")} == set(EXAMPLES)
    for page, names in EXAMPLES.items():
        assert list(examples(page)) == names


# ------------------------------------------------------------------------------------------------------------- artifact


def test_the_artifact_has_the_files_of_the_page(files: dict[str, bytes]):
    rows = [f"{len(d):>4}  {hashlib.md5(d).hexdigest()}  {blake3(d).hexdigest()}  {path}" for path, d in files.items()]

    assert "\n".join(rows) == examples("artifact-1")["files"]


@pytest.mark.parametrize("path", SHARDS)
def test_a_shard_has_the_bytes_of_the_page(files: dict[str, bytes], path: str):
    assert files[path] == hex_dump(examples("artifact-1")[path])


def shard_by_hand(tensors: list[tuple[str, str, list[int], bytes]]) -> bytes:
    """A shard as the page describes it; the tensors in order."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, dtype, shape, data in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(data)]}  # type: ignore[dict-item]
        end += len(data)
    text = json.dumps(header).replace(" ", "").encode()
    text = text.ljust(-(-(8 + len(text)) // 64) * 64 - 8)
    return len(text).to_bytes(8, "little") + text + b"".join(data for *_, data in tensors)


def test_shards_can_be_made_by_hand(files: dict[str, bytes]):
    weight = bytes.fromhex("000000000000803f00000040000040c0")
    step = torch.tensor(3.0).numpy().tobytes()

    assert files["model/embed.safetensors"] == shard_by_hand([("embed.weight", "F32", [2, 2], weight)])
    assert files["optimizer/embed.safetensors"] == shard_by_hand(
        [("state.0.exp_avg", "F32", [2, 2], bytes(16)), ("state.0.step", "F32", [], step)]
    )


def test_safetensors_reads_the_shards(files: dict[str, bytes]):
    state = example_state()

    model = {**safetensors.torch.load(files["model/embed.safetensors"])}
    model |= safetensors.torch.load(files["model/head.safetensors"])
    rng = safetensors.torch.load(files["rng/torch-to-numpy.safetensors"])

    assert_same(model["embed.weight"], state["model"]["embed.weight"])
    assert_same(model["head.bias"], state["model"]["head.bias"])
    assert rng["numpy"].numpy().tolist() == state["rng"]["numpy"].tolist()
    assert set(json.loads(examples("artifact-1")[INDEX])["weight_map"]) == set(model)


def test_tensors_are_aligned_and_widest_first(world: World):
    torch.manual_seed(0)
    kinds = [torch.uint8, torch.float64, torch.float16, torch.complex64, torch.float32, torch.complex128]
    state = {"model": {f"w{i}": torch.ones(3, dtype=kind) for i, kind in enumerate(kinds * 2)}}
    with world.repo() as repo:
        repo.commit(state)

    for path, data in files_of(world).items():
        if path.endswith(".safetensors"):
            start = 8 + int.from_bytes(data[:8], "little")
            header = json.loads(data[8:start])
            assert start % 64 == 0
            assert header.pop("__metadata__") == {"format": "pt"}
            begins = [entry["data_offsets"][0] for entry in header.values()]
            assert begins == sorted(begins)
            tree = json.loads(files_of(world)["model/tree.json"])
            table = {row["name"]: row["dtype"] for row in tree["tensors"]}
            sizes = {"U8": 1, "F16": 2, "F32": 4, "F64": 8, "C64": 8, "C128": 16}
            assert all(entry["data_offsets"][0] % sizes[table[name]] == 0 for name, entry in header.items())


def test_the_roles_are_those_of_the_page():
    text = (PAGES / "artifact-1.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (`.*`) \|$", text.partition("| role | names |")[2], re.MULTILINE)

    assert {role: tuple(re.findall(r"`(\w+)`", names)) for role, names in rows} == components._ROLES


def test_the_index_has_the_bytes_of_the_page(files: dict[str, bytes]):
    assert files[INDEX].decode() == examples("artifact-1")[INDEX] + "\n"
    assert json.loads(files[INDEX])["metadata"]["total_size"] == 20


def bad_shards() -> dict[str, bytes]:
    good = hex_dump(examples("artifact-1")[SHARDS[0]])
    head = good[8:128].rstrip()

    def with_header(text: bytes) -> bytes:
        return len(text).to_bytes(8, "little") + text + good[128:]

    return {
        "short": good[:7],
        "a header longer than the file": (1 << 20).to_bytes(8, "little") + good[8:],
        "no JSON": with_header(b"{"),
        "no object": with_header(b"[]"),
        "a key twice": with_header(head[:-1] + b',"embed.weight":{}}'),
        "an unknown type": with_header(head.replace(b"F32", b"F33")),
        "a negative number": with_header(head.replace(b"[2,2]", b"[-2,-2]")),
        "a shape that does not fit": with_header(head.replace(b"[2,2]", b"[2,3]")),
        "a gap": with_header(head.replace(b"[0,16]", b"[4,20]")) + bytes(4),
        "bytes behind the end": good + b"\0",
        "bytes that are missing": good[:-1],
    }


@pytest.mark.parametrize("why", bad_shards())
def test_a_reader_refuses_a_shard(why: str):
    with pytest.raises(errors.HostileInput):
        safetensors_file.read_header(bad_shards()[why], file="x")


UNSAFE = ["", "a//b", "../a", "a/..", "/a", "a/./b", "a\\b", "a:b", "a\x07b", "a ", " a", "a.", "e\u0301", "\ud800"]
UNSAFE += [
    ".git",
    ".GIT/a",
    "a/.dvcignore",
    ".\u200bgit",
    "git~1",
    "con",
    "NUL.txt",
    "com1",
    "x" * 256,
    "/".join("abc" * 400),
]


@pytest.mark.parametrize("path", UNSAFE)
def test_a_reader_refuses_a_path(path: str):
    from ckptvcs.paths import check_path

    with pytest.raises(errors.HostileInput):
        check_path(path)


@pytest.mark.parametrize("pair", [("a", "a"), ("a", "A"), ("a", "a/b"), ("A/x", "a")])
def test_a_reader_refuses_two_paths_that_meet(pair: tuple[str, str]):
    from ckptvcs.paths import check_paths

    with pytest.raises(errors.HostileInput):
        check_paths(pair)


# ----------------------------------------------------------------------------------------------------------------- tree


@pytest.mark.parametrize("path", TREES)
def test_a_tree_file_has_the_bytes_of_the_page(files: dict[str, bytes], path: str):
    assert files[path].decode("ascii") == examples("tree-1")[path] + "\n"


def test_the_digests_of_the_tables_are_those_of_the_bytes(files: dict[str, bytes]):
    checked = 0
    for path in TREES:
        component = path.partition("/")[0]
        for row in json.loads(examples("tree-1")[path])["tensors"]:
            if "shard" in row:
                data = files[f"{component}/{row['shard']}"]
                start = 8 + int.from_bytes(data[:8], "little")
                first, last = json.loads(data[8:start])[row["name"]]["data_offsets"]
                assert blake3(data[start + first : start + last]).hexdigest() == row["blake3"]
                checked += 1
    assert checked == 7


def test_the_example_comes_back_as_it_was(committed: World):
    with committed.repo() as repo:
        assert_same(example_state(), dict(repo.load("HEAD")))


def bad_trees() -> dict[str, tuple[bytes, type[errors.CkptvcsError]]]:
    good = examples("tree-1")["model/tree.json"].encode()
    view = examples("tree-1")["ema/tree.json"].encode()

    def changed(old: bytes, new: bytes, data: bytes = good) -> bytes:
        assert old in data
        return data.replace(old, new, 1)

    return {
        "no JSON": (good[:-1], errors.FormatError),
        "a key twice": (changed(b'"role"', b'"component"'), errors.FormatError),
        "another format": (changed(b"ckptvcs-tree/1", b"ckptvcs-tree/2"), errors.NewerVersion),
        "a missing field": (changed(b'"role":"model",', b'"rule":"model",'), errors.FormatError),
        "a component elsewhere": (changed(b'"component":"model"', b'"component":"a/b"'), errors.FormatError),
        "a shard elsewhere": (changed(b'"shard":"embed', b'"shard":"../embed'), errors.FormatError),
        "an unknown type": (changed(b"BF16", b"BF17"), errors.FormatError),
        "an unknown kind": (changed(b'"dtype":"BF16"', b'"kind":"x","dtype":"BF16"'), errors.FormatError),
        "no digest": (changed(b'"blake3":"8', b'"blake3":"g'), errors.FormatError),
        "a number out of range": (changed(b"[2,2]", b"[2,-2]"), errors.FormatError),
        "a name twice": (changed(b'"name":"head.bias"', b'"name":"embed.weight"'), errors.FormatError),
        "strides that do not fit": (changed(b'"strides":[1]', b'"strides":[1,1]', view), errors.FormatError),
        "an unknown node": (changed(b"$odict", b"$other"), errors.FormatError),
        "a malformed node": (changed(b'"$odict":[[', b'"$odict":["x",['), errors.FormatError),
        "a container that was not met": (changed(b'{"version":1}', b'{"$same":9}'), errors.FormatError),
        "a tensor that is not listed": (changed(b'{"$tensor":"head.bias"}', b'{"$tensor":"x"}'), errors.FormatError),
        "too deep": (changed(b'{"version":1}', b"[" * 200 + b"]" * 200), errors.HostileInput),
        "another shape than the shard": (changed(b'"shape":[2,2]', b'"shape":[4]'), errors.FormatError),
        "a view beyond its tensor": (changed(b'"shape":[2]', b'"shape":[3]', view), errors.HostileInput),
    }


@pytest.mark.parametrize("why", bad_trees())
def test_a_reader_refuses_a_tree_file(files: dict[str, bytes], why: str):
    data, error = bad_trees()[why]
    files["ema/tree.json" if b'"view"' in data else "model/tree.json"] = data

    with pytest.raises(error):
        build(Artifact(["ema", "model"], files.__getitem__), NeutralBuilder)


def test_a_tree_file_that_is_too_large_is_refused():
    with pytest.raises(errors.HostileInput):
        tree_file.from_bytes(bytes((256 << 20) + 1), file="x")


# ------------------------------------------------------------------------------------------------------------- manifest


def example_manifest(files: dict[str, bytes]) -> manifests.Manifest:
    """The manifest of the page: files as they are, everything that varies from machine to machine fixed."""
    roles = {name: name for name in ("ema", "model", "optimizer", "rng", "extra")}
    entries = {
        path: manifests.FileEntry(
            path=path, size=len(data), md5=hashlib.md5(data).hexdigest(), blake3=blake3(data).hexdigest()
        )
        for path, data in files.items()
    }
    return manifests.Manifest(
        track="model",
        created="2026-01-02T03:04:05.000006+00:00",
        run=manifests.RunEntry(id="0123456789abcdef", name="demo"),
        reason="manual",
        grade="exact",
        components=tuple(
            manifests.ComponentEntry(
                name=name,
                role=roles[name],
                encoding="tree",
                files=tuple(e for path, e in entries.items() if path.startswith(f"{name}/")),
            )
            for name in ("model", "optimizer", "rng", "ema", "extra")
        ),
        files=(),
        source=manifests.SourceEntry(format="memory", name="", metadata={}),
        provenance=Provenance(
            code=Code(commit="7d6d8705c0af0d00acb8f1d53966f7f7a68fbdd9"),
            data=(DataEntry(name="corpus", version="2026-01"),),
            environment=Environment(
                python="3.11.7",
                platform="Linux 6.1.0 x86_64",
                cpu="example",
                cpus=8,
                memory=32 << 30,
                packages={"numpy": "2.0.0", "torch": "2.10.0"},
            ),
            seeds={"torch": 0},
            command=("train.py", "--lr", "0.001", "--hub-token", "***"),
        ),
        parents=(),
        step=3,
        epoch=0.5,
        metrics={"val_loss": 0.25, "grad_norm": "inf"},
        params={"lr": 0.001, "model": {"layers": 1}},
    )


def manifest_bytes() -> bytes:
    return (examples("manifest-1")["manifest"] + "\n").encode()


def test_the_manifest_has_the_bytes_of_the_page(files: dict[str, bytes]):
    assert manifests.to_bytes(example_manifest(files)) == manifest_bytes()
    assert manifests.from_bytes(manifest_bytes(), where="the page") == example_manifest(files)


def test_the_manifest_is_canonical_and_its_digest_is_the_id():
    document = json.loads(manifest_bytes())
    text = json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    assert text.encode() == manifest_bytes()
    assert blake3(manifest_bytes()).hexdigest() == examples("manifest-1")["id"]


def shape(value: Any) -> Any:
    """The keys of a document, at every depth."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    return [shape(value[0])] if isinstance(value, list) and value else None


def test_a_real_commit_has_the_fields_of_the_page(committed: World):
    real = json.loads(committed.git("show", "HEAD:checkpoints/model.json"))
    page = json.loads(manifest_bytes())

    assert real["components"] == page["components"]
    assert list(real) == list(page)
    assert shape(real["provenance"]["code"]) == shape(page["provenance"]["code"])
    assert list(real["provenance"]["environment"]) == list(page["provenance"]["environment"])
    assert (real["grade"], real["source"], real["format"]) == ("exact", page["source"], page["format"])


def bad_manifests() -> dict[str, tuple[bytes, type[errors.CkptvcsError]]]:
    good = manifest_bytes()

    def changed(old: bytes, new: bytes) -> tuple[bytes, type[errors.CkptvcsError]]:
        assert old in good
        return good.replace(old, new, 1), errors.BadManifest

    return {
        "a later version": (changed(b"ckptvcs/1", b"ckptvcs/2")[0], errors.NewerVersion),
        "another format": changed(b"ckptvcs/1", b"other/1"),
        "a missing field": changed(b' "reason": "manual",\n', b""),
        "an unknown field": changed(b' "reason"', b' "reasons": 1,\n "reason"'),
        "an unknown field inside": changed(b'   "cpu"', b'   "cpa": 1,\n   "cpu"'),
        "another type": changed(b'"step": 3', b'"step": "3"'),
        "not a number": changed(b'"val_loss": 0.25', b'"val_loss": NaN'),
        "another indentation": changed(b'\n "step"', b'\n  "step"'),
        "keys in another order": changed(b' "step": 3,\n "track": "model"', b' "track": "model",\n "step": 3'),
        "a key twice": changed(b' "step": 3', b' "step": 3,\n "step": 3'),
        "an odd number": changed(b"0.25", b"0.250"),
        "no newline": (good[:-1], errors.BadManifest),
        "text behind it": (good + b"\n", errors.BadManifest),
        "too large": (good + b" " * (8 << 20), errors.BadManifest),
        "a track that is none": changed(b'"track": "model"', b'"track": "yes"'),
        "a path that escapes": changed(b'"path": "model/embed', b'"path": "model/../embed'),
        "two files of one path": changed(b'"model/head.safetensors"', b'"model/Embed.safetensors"'),
        "no object name": changed(b'"md5": "', b'"md5": "g'),
        "a negative size": changed(b'"size": 144', b'"size": -144'),
        "a component twice": changed(b'"name": "rng"', b'"name": "model"'),
        "a file outside of its component": changed(b'"name": "rng"', b'"name": "rngs"'),
        "a parent that is no id": changed(b'"parents": []', b'"parents": [\n  "x"\n ]'),
    }


@pytest.mark.parametrize("why", bad_manifests())
def test_a_reader_refuses_a_manifest(why: str):
    data, error = bad_manifests()[why]

    with pytest.raises(error):
        manifests.from_bytes(data, where="the page")


# -------------------------------------------------------------------------------------------------------------- pointer


def pointer_text() -> str:
    return examples("pointer-1")["model.dvc"] + "\n"


def directory_text() -> bytes:
    return examples("pointer-1")["directory"].encode()


def test_the_pointer_has_the_bytes_of_the_page(files: dict[str, bytes]):
    directory = ObjectName(hashlib.md5(directory_text()).hexdigest() + ".dir")
    description = describe.Description.of(example_manifest(files))

    assert describe.pointer_of(description, directory, "store").decode() == pointer_text()


def test_the_pointer_says_what_the_other_pages_say():
    (out,) = yaml.safe_load(pointer_text())["outs"]
    sizes = [int(line.split()[0]) for line in examples("artifact-1")["files"].splitlines()]

    assert out["md5"] == hashlib.md5(directory_text()).hexdigest() + ".dir"
    assert (out["size"], out["nfiles"]) == (sum(sizes), len(sizes))
    assert out["meta"]["ckptvcs"] == {"v": 1, "manifest": examples("manifest-1")["id"]}


def test_the_directory_object_has_the_bytes_of_the_page(committed: World):
    rows = [line.split() for line in examples("artifact-1")["files"].splitlines()]
    entries = [{"md5": md5, "relpath": path} for _, md5, _, path in rows]

    assert directory_text() == json.dumps(entries).encode()
    name = hashlib.md5(directory_text()).hexdigest() + ".dir"
    assert committed.objects()[name].read_bytes() == directory_text()


def test_a_commit_writes_three_paths_and_nothing_else(committed: World):
    assert committed.git("show", "--format=", "--name-only", "HEAD").split() == [
        "checkpoints/.gitignore",
        "checkpoints/model.dvc",
        "checkpoints/model.json",
    ]
    assert (committed.root / "checkpoints/.gitignore").read_text() == examples("pointer-1")[".gitignore"] + "\n"
    identifier = blake3((committed.root / "checkpoints/model.json").read_bytes()).hexdigest()
    assert committed.git("log", "-1", "--format=%(trailers:key=Checkpoint,valueonly)").strip() == identifier
    assert f"manifest: {identifier}\n" in (committed.root / "checkpoints/model.dvc").read_text()


def git_id(kind: str, data: bytes) -> str:
    return hashlib.sha1(b"%s %d\0" % (kind.encode(), len(data)) + data).hexdigest()


def test_the_commit_and_the_mark_are_those_of_the_page(files: dict[str, bytes], tmp_path: Path, git):
    description = describe.Description.of(example_manifest(files))
    ours = {".gitignore": b"/model\n", "model.dvc": pointer_text().encode(), "model.json": description.data}
    history = History.create(tmp_path / "plain")
    who = Identity(name="Ada Example", email="ada@example.com")
    when = datetime(2026, 1, 2, 4, 4, 5, tzinfo=timezone(timedelta(hours=1)))

    commit = commits.write_commit(
        history,
        base=None,
        parents=(),
        changes={f"checkpoints/{name}": data for name, data in ours.items()},
        message=describe.commit_message(None, description),
        identity=who,
        when=when,
    )
    annotation = commits.Annotation(message=f"golden: checkpoint {description.id}", identity=who, when=when)
    with commits.repository_lock(history, now=0.0, timeout_s=1) as (lock, _):
        commits.create_tag(history, "golden/base", commit, annotation=annotation, lock=lock)

    page = (PAGES / "pointer-1.md").read_text()
    entries = [b"100644 %s\0%s" % (n.encode(), bytes.fromhex(git_id("blob", d))) for n, d in sorted(ours.items())]
    inner = git_id("tree", b"".join(entries))
    outer = git_id("tree", b"40000 checkpoints\0" + bytes.fromhex(inner))
    text, mark = (examples("pointer-1")[name] + "\n" for name in ("commit", "tag"))
    assert text.startswith(f"tree {outer}\n")
    assert git("cat-file", "commit", commit, cwd=tmp_path / "plain") == text
    assert git("cat-file", "tag", "golden/base", cwd=tmp_path / "plain") == mark
    assert f"Its id is `{git_id('commit', text.encode())}`" in page
    assert f"Its id is `{git_id('tag', mark.encode())}`" in page


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("v: 1", "v: 2"),
        ("outs:\n", "outs: \n"),
        (".dir\n", "\n"),
        ("hash: md5", "hash: sha256"),
        ("path: model", "path: ../model"),
        ("remote: store", "remote: a b"),
        ("  remote: store\n", "  desc: x\n"),
        ("\n", "\r\n"),
    ],
)
def test_a_reader_refuses_a_pointer(old: str, new: str):
    assert old in pointer_text()

    with pytest.raises(errors.BadManifest):
        pointer.read_pointer(pointer_text().replace(old, new).encode(), where="the page")


def test_a_pointer_to_another_manifest_is_refused(committed: World):
    manifest = committed.root / "checkpoints/model.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"manual"', b'"edited"'))
    committed.git("commit", "-qam", "edited by hand")

    assert "do not belong together" in committed.ckpt("restore", "HEAD", status=20).err
    assert "do not belong together" in committed.ckpt("doctor", status=1).out


# --------------------------------------------------------------------------------------------------------------- ledger


def entry_text(name: str) -> bytes:
    return examples("ledger-1")[name].encode() + b"\n"


def entry_by_hand(name: str, **changed: Any) -> bytes:
    """An entry of the page, with other values, in the form that the page describes."""
    document = {**json.loads(entry_text(name)), **changed}
    return (json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n").encode()


def test_the_entries_are_linked_as_the_page_says():
    first, other, second = (json.loads(entry_text(name)) for name in ("first", "other", "second"))
    hashes = {name: hashlib.sha256(entry_text(name)).hexdigest() for name in ("first", "other")}

    assert (first["prev"], second["prev"], other["prev"]) == ("", hashes["first"], "")
    assert second["seen"] == {other["writer"]: [1, hashes["other"]]}
    assert first["facts"]["checkpoint"] == examples("manifest-1")["id"]
    page = (PAGES / "ledger-1.md").read_text(encoding="utf-8")
    assert all(f"`{value}`" in page for value in hashes.values())


@pytest.mark.parametrize("name", ["first", "other", "second"])
def test_an_entry_has_the_bytes_of_the_page(name: str):
    event = events.from_bytes(entry_text(name), where=name)

    assert events.to_bytes(event) == entry_text(name) == entry_by_hand(name)


def test_the_chains_of_the_page_add_up_to_what_it_says():
    chains = {
        "7f3c9a1e5b2d4860": [entry_text("first"), entry_text("second")],
        "c05e19d7a3864f2b": [entry_text("other")],
    }

    assert events.check(chains) == ()
    late = events.joined(events.noted(events.sound(writer, chain)[0]) for writer, chain in chains.items())
    assert {name: said.value for name, said in late[examples("manifest-1")["id"]].items()} == {  # type: ignore[index]
        "bleu": 27.4,
        "val_loss": 0.29,
    }


def test_the_commit_of_an_entry_is_that_of_the_page(tmp_path: Path, git):
    history, head = History.create(tmp_path / "plain"), None
    key = read_key(examples("ledger-1")["key"].encode() + b"\n", where="the page")
    with Lock(tmp_path / "lock", timeout_s=1) as lock:
        for name in ("first", "second"):
            when = datetime.fromisoformat(json.loads(entry_text(name))["time"])
            old, head = (
                head,
                ledger.write(history, "7f3c9a1e5b2d4860", entry_text(name), after=head, when=when, sign=key.sign),
            )
            ref = "refs/ckptvcs/ledger/7f3c9a1e5b2d4860"
            commits.move_ref(history, ref, old=old, new=head, reason="x", lock=lock)

    text = examples("ledger-1")["commit"] + "\n"
    assert git("cat-file", "commit", ref, cwd=tmp_path / "plain") == text
    assert text.startswith(f"tree {git_id('tree', b'')}\nparent ")
    assert text.endswith("\n\n" + entry_text("second").decode())
    page = (PAGES / "ledger-1.md").read_text(encoding="utf-8")
    assert f"Its id is `{git_id('commit', text.encode())}`" in page
    assert git("rev-parse", ref, cwd=tmp_path / "plain").strip() == git_id("commit", text.encode())


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"format": "ckptvcs-ledger/2"}, errors.NewerVersion),
        ({"format": "ckptvcs/1"}, errors.BadEntry),
        ({"more": 1}, errors.BadEntry),
        ({"n": 1}, errors.BadEntry),
        ({"n": 2**53}, errors.BadEntry),
        ({"prev": ""}, errors.BadEntry),
        ({"op": "note!"}, errors.BadEntry),
        ({"writer": "7F3C9A1E5B2D4860"}, errors.BadEntry),
        ({"time": "2026-01-02T07:30:00Z"}, errors.BadEntry),
        ({"seen": {"c05e19d7a3864f2b": [1, "abc"]}}, errors.BadEntry),
        ({"actor": "a" * 65}, errors.BadEntry),
        ({"facts": []}, errors.BadEntry),
        ({"facts": {"x": "y" * 65_536}}, errors.BadEntry),
    ],
    ids=str,
)
def test_a_reader_refuses_an_entry(changed: dict[str, Any], error: type[Exception]):
    with pytest.raises(error):
        events.from_bytes(entry_by_hand("second", **changed), where="the page")


def test_git_verifies_the_commit_of_the_page_by_the_signers_of_the_page(tmp_path: Path, git):
    (tmp_path / "ckpt.signers").write_text(examples("ledger-1")["signers"] + "\n")
    (tmp_path / "commit").write_text(examples("ledger-1")["commit"] + "\n")
    git("init", "-q", "plain", cwd=tmp_path)
    where = tmp_path / "plain"
    commit = git("hash-object", "-w", "-t", "commit", "--literally", tmp_path / "commit", cwd=where).strip()

    git("-c", f"gpg.ssh.allowedSignersFile={tmp_path}/ckpt.signers", "verify-commit", commit, cwd=where)

    (signer,) = signers.parse(examples("ledger-1")["signers"]).listed
    assert signers.line_of(signer) == examples("ledger-1")["signers"]
    assert signer.may_write(json.loads(entry_text("second"))["time"])


def test_the_writer_is_what_the_page_says(committed: World):
    committed.ckpt("note", "HEAD", "--metric", "acc=1")
    path = committed.root / ".git/ckptvcs/writer.json"
    document = json.loads(path.read_bytes())
    (ref,) = committed.git("for-each-ref", "--format=%(refname)", "refs/ckptvcs").split()
    entry = json.loads(committed.git("log", "-1", "--format=%B", ref))

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (set(document), document["folder"]) == ({"id", "salt", "folder", "key"}, path.parent.stat().st_ino)
    secret = path.with_name("writer_ed25519")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    public = subprocess.run(["ssh-keygen", "-y", "-f", secret], check=True, capture_output=True, text=True).stdout
    assert public.split()[:2] == ["ssh-ed25519", document["key"]]
    assert ref == f"refs/ckptvcs/ledger/{document['id']}"
    assert entry["actor"] == blake3(f"{document['salt']}\0test@example.com".encode()).hexdigest()[:16]


# --------------------------------------------------------------------------------------------------------------- remote


def test_a_remote_has_the_files_of_the_page(committed: World, tmp_path: Path):
    committed.git("init", "-q", "--bare", "-b", "main", tmp_path / "hub.git")
    committed.git("remote", "add", "origin", tmp_path / "hub.git")
    committed.ckpt("remote", "add", "team", tmp_path / "store")
    committed.ckpt("push")
    files = [p for p in sorted((tmp_path / "store").rglob("*")) if p.is_file()]

    name = blake3(os.fsencode(tmp_path / "hub.git")).hexdigest()[:16]
    found = "\n".join(p.relative_to(tmp_path / "store").as_posix() for p in files)
    assert found == examples("remote-1")["layout"].replace("/ID.json", f"/{name}.json")
    url = (tmp_path / "hub.git").as_posix()
    assert json.loads((tmp_path / f"store/.ckptvcs/repositories/{name}.json").read_bytes())["url"] == url


SIDE_FILES = {
    "lease": remote_files.Lease,
    "marks": remote_files.Marks,
    "repository": remote_files.Neighbour,
    "store": remote_files.StoreRecord,
}


def files_of_collector(home: Path) -> dict[str, list[str]]:
    """The files in `.ckptvcs/gc` and the objects in the trash, with names of runs as RUN."""
    found: dict[str, list[str]] = {}
    for path in sorted(p for p in (home / ".ckptvcs").rglob("*") if p.is_file()):
        where = re.sub(r"\d{8}-[0-9a-f]{8}-[0-9a-f]{8}", "RUN", path.relative_to(home).as_posix())
        where = re.sub(r"/[0-9a-f]{2}/[0-9a-f]{30}(\.dir)?$", "/xx/yyy...", where)
        found.setdefault(where, []).append(path.parent.name + path.name)
    return found


def test_a_collector_leaves_the_files_of_the_page(committed: World, tmp_path: Path):
    page = (PAGES / "remote-1.md").read_text(encoding="utf-8")
    committed.git("init", "-q", "--bare", "-b", "main", tmp_path / "hub.git")
    committed.git("remote", "add", "origin", tmp_path / "hub.git")
    committed.ckpt("remote", "add", "team", tmp_path / "store")
    with committed.repo() as repo:
        repo.commit({"model": {"w": torch.ones(3)}}, step=9)
        repo.commit({"model": {"w": torch.ones(4)}}, step=10)
    committed.ckpt("push")
    (committed.root / "ckpt.yaml").write_text("retain:\n  keep: [{keep_last: 1}]\n  grace: 1d\n")
    committed.git("commit", "-qam", "A policy")
    lost = json.loads(committed.ckpt("policy", "plan", "--json").out)["freed"]

    committed.ckpt("gc", "--yes-delete", "1")
    marked = {place: files_of_collector(home) for place, home in places_of(committed, tmp_path).items()}
    for path in tmp_path.joinpath("store").rglob("*"):
        two_days_ago = path.stat().st_mtime - 2 * 86400
        os.utime(path, (two_days_ago, two_days_ago))
    committed.ckpt("gc", "--place", "team")
    swept = files_of_collector(tmp_path / "store")

    assert all(".ckptvcs/gc/marks/RUN.json" in found for found in marked.values())
    assert len(swept[".ckptvcs/trash/RUN/xx/yyy..."]) == next(f["objects"] for f in lost if f["place"] == "team") > 0
    for where in {*swept, *marked["team"], ".ckptvcs/gc/collector.json"}:
        assert f"`{re.sub('[0-9a-f]{16}', 'ID', where)}`" in page, where
    listed = json.loads(next((tmp_path / "store/.ckptvcs/gc/trash").iterdir()).read_bytes())
    assert listed["format"] == "ckptvcs-marks/1"
    assert listed["objects"] == sorted(swept[".ckptvcs/trash/RUN/xx/yyy..."])


def places_of(world: World, tmp_path: Path) -> dict[str, Path]:
    return {"hot": world.root / ".dvc/cache", "team": tmp_path / "store"}


def test_entries_of_collections_add_up_as_the_page_says():
    """By the rule of the page alone: of each component the newest entry counts."""
    page = (PAGES / "ledger-1.md").read_text(encoding="utf-8")
    a, b = "aa" * 32, "bb" * 32

    def entry(n: int, op: str, writer: str = "c05e19d7a3864f2b", hour: int = 1, **facts: Any) -> events.Event:
        document = json.loads(entry_text("first")) | {
            "n": n,
            "op": op,
            "writer": writer,
            "time": f"2026-01-02T{hour:02}:00:00.000000+00:00",
            "prev": "" if n == 1 else "0" * 64,
            "facts": {"run": "r", "components": ["model", "rng"], "checkpoints": [a, b], "why": "w", **facts},
        }
        text = json.dumps(document, sort_keys=True, separators=(",", ":")) + "\n"
        return events.from_bytes(text.encode(), where="the page")

    one = [entry(1, "condemn"), entry(2, "sweep", hour=2, components=["rng"], checkpoints=[a])]
    other = [entry(1, "rescue", "7f3c9a1e5b2d4860", hour=3, checkpoints=[b]), entry(2, "sweep", gone=False, hour=4)]
    said = [fates.said_of_fates(chain) for chain in (one, other)]
    found = fates.dropped(fates.together(said))

    assert fates.dropped(fates.together(reversed(said))) == found
    assert {i: (set(d.components), set(d.gone)) for i, d in found.items()} == {a: ({"model", "rng"}, {"rng"})}
    assert all(f"| `{op}` |" in page for op in (fates.COLLECT, fates.CONDEMN, fates.SWEEP, fates.RESCUE))
    assert f"{running.LONGEST.days} days at most" in page


# ----------------------------------------------------------------------------------------------------------------- plan


def of_json(document: Any) -> str:
    return blake3(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def test_the_plan_has_the_digests_of_the_page():
    at = json.loads(examples("plan-1")["plan"])["at"]
    retain = schema.parse(yaml.safe_load(examples("plan-1")["retain"])).retain
    page = (PAGES / "pointer-1.md").read_text(encoding="utf-8")
    commit = next(iter(re.findall(r"Its id is `([0-9a-f]{40})`", page)))

    assert retain is not None
    assert at["policy"] == of_json(dataclasses.asdict(retain)) == retention.policy_digest(retain)
    assert (at["refs"], at["ledger"]) == (of_json({"refs/heads/demo": commit}), of_json({}))


def test_a_plan_is_written_as_the_page_says(committed: World, tmp_path: Path):
    with committed.repo() as repo:
        repo.commit({"model": {"w": torch.ones(3)}}, step=9)
    (committed.root / "ckpt.yaml").write_text(
        examples("plan-1")["retain"].replace("30d", "1min").replace("last: 1", "last: 2")
    )
    committed.git("commit", "-qam", "A policy")
    committed.git("tag", "x")
    committed.ckpt("note", "HEAD", "--metric", "acc=1")
    committed.ckpt("policy", "plan", "--output", tmp_path / "plan.json")

    text = (tmp_path / "plan.json").read_text()
    document = json.loads(text)
    refs = dict(
        line.split()[::-1] for line in committed.git("for-each-ref", "--format=%(objectname) %(refname)").splitlines()
    )
    chains = {ref.rpartition("/")[2]: oid for ref, oid in refs.items() if ref.startswith("refs/ckptvcs/ledger/")}
    assert text == json.dumps(document, sort_keys=True, indent=1) + "\n"
    assert set(document) == set(json.loads(examples("plan-1")["plan"]))
    assert document["at"]["refs"] == of_json({r: o for r, o in refs.items() if not r.startswith("refs/ckptvcs/")})
    assert document["at"]["ledger"] == of_json(chains)


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("plan/1", "plan/2", errors.NewerVersion),
        ("ckptvcs-plan/1", "ckptvcs-marks/1", errors.FormatError),
        ('"evict": []', '"evict": [], "more": 1', errors.FormatError),
        ('"evict": [],', "", errors.FormatError),
        ('"evict": []', '"evict": {}', errors.FormatError),
        ("2026-01-03T", "soon", errors.FormatError),
    ],
)
def test_a_reader_refuses_a_plan(tmp_path: Path, old: str, new: str, error: type[Exception]):
    (tmp_path / "good").write_text(examples("plan-1")["plan"])
    assert old in examples("plan-1")["plan"]
    (tmp_path / "bad").write_text(examples("plan-1")["plan"].replace(old, new))

    assert plans.read(tmp_path / "good").evict == ()
    with pytest.raises(error):
        plans.read(tmp_path / "bad")


@pytest.mark.parametrize("name", SIDE_FILES)
def test_a_side_file_has_the_bytes_of_the_page(name: str):
    text = examples("remote-1")[name] + "\n"
    document = json.loads(text)

    file = remote_files.from_bytes(text.encode(), SIDE_FILES[name], where="the page")

    assert text == json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
    assert remote_files.to_bytes(file) == text.encode()
    assert {field: getattr(file, field) for field in document if field != "objects"} == {
        field: tuple(value) if isinstance(value, list) else value
        for field, value in document.items()
        if field != "objects"
    }


def test_the_limits_are_those_of_the_page():
    page = (PAGES / "remote-1.md").read_text(encoding="utf-8")

    assert f"({remote_files.MAX_BYTES:,} bytes)" in page
    assert f"sorted | {remote_files.MAX_OBJECTS:,} |" in page
    assert f"MAXPUSH, which is {remote_files.MAX_PUSH_S / 3600:.0f} hours" in page
    assert f"GRACE, which is {remote_files.GRACE_S / 3600:.0f} hours" in page
    assert f"with {leases.MARGIN_S / 60:.0f} minutes to spare" in page
    assert f"more\nthan {sidefiles.MAX_ENTRIES:,} entries" in page


# ---------------------------------------------------------------------------------------------------------------- cache


def test_the_cache_has_the_objects_of_the_page(committed: World):
    cache = committed.root / ".dvc/cache"
    rows = []
    for path in sorted(p for p in cache.rglob("*") if p.is_file()):
        info = path.stat()
        rows.append(f"{stat.S_IMODE(info.st_mode):04o} {info.st_size:>5}  {path.relative_to(cache).as_posix()}")
        assert hashlib.md5(path.read_bytes()).hexdigest() == (path.parent.name + path.name).removesuffix(".dir")

    assert "\n".join(rows) == examples("cache")["layout"]


def rows_of(world: World, sql: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(world.root / ".git/ckptvcs/index.sqlite3")
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def test_the_index_is_what_the_page_says(committed: World, files: dict[str, bytes]):
    schema = [sql for (sql,) in rows_of(committed, "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name")]
    objects = rows_of(committed, "SELECT * FROM objects")
    seen = rows_of(committed, "SELECT * FROM seen")

    assert "\n".join(schema) == examples("cache")["schema"]
    for *columns, seal in [*objects, *seen]:
        assert blake3("\0".join(map(str, columns)).encode()).hexdigest()[:16] == seal
    for path, mark, name, digest, _ in seen:
        info, data = os.lstat(path), Path(path).read_bytes()
        assert mark == f"{info.st_dev}.{info.st_ino}.{info.st_size}.{info.st_mtime_ns}.{info.st_ctime_ns}"
        assert (hashlib.md5(data).hexdigest(), blake3(data).hexdigest()) == (name.removesuffix(".dir"), digest)
    data = files["rng/torch-to-numpy.safetensors"]
    start = 8 + int.from_bytes(data[:8], "little")
    tensors = [data[start : start + 8], data[start + 8 :]]
    key = blake3(data[:start] + b"".join(blake3(t).hexdigest().encode() for t in tensors)).hexdigest()
    row = (key, hashlib.md5(data).hexdigest(), len(data), blake3(data).hexdigest())
    assert row in [columns[:4] for columns in objects]


@pytest.mark.parametrize("how", ["deleted", "garbage", "of another program"])
def test_the_private_folder_can_be_lost(committed: World, how: str):
    private = committed.root / ".git/ckptvcs"
    assert {p.name for p in private.iterdir()} == {"index.sqlite3", "lock", "config.json"}
    for path in private.iterdir():
        path.unlink()
        if how == "garbage":
            path.write_bytes(b"\xff garbage" * 100)
    if how == "of another program":
        connection = sqlite3.connect(private / "index.sqlite3")
        connection.execute("CREATE TABLE seen (something TEXT)")
        connection.close()

    assert committed.ckpt("status", "--json").json["tracks"]["model"]["workspace"] == "clean"
    with committed.repo() as repo:
        assert_same(example_state(), dict(repo.load("HEAD")))
        repo.commit(example_state(), step=4)
        assert [checkpoint.manifest.step for checkpoint in repo.log()] == [4, 3]


def test_locks_are_as_the_page_says(committed: World):
    assert (committed.root / ".git/ckptvcs/lock").read_bytes().strip() == b""
    assert (committed.root / ".dvc/tmp/lock").read_text() == f" {os.getpid()}\n"


def flip(path: Path) -> bytes:
    """Turn one bit of an object over, and keep its mode and times, as a failing disk would."""
    data = bytearray(path.read_bytes())
    info = path.stat()
    data[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(stat.S_IMODE(info.st_mode))
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    return bytes(data)


def test_a_flipped_bit_is_found_and_left_as_it_is(committed: World, files: dict[str, bytes]):
    name = hashlib.md5(files["model/embed.safetensors"]).hexdigest()
    damaged = flip(committed.objects()[name])

    with committed.repo() as repo, pytest.raises(errors.WrongDigest):
        dict(repo.load("HEAD"))
    assert committed.ckpt("restore", "HEAD", "--to", "elsewhere", status=20).err.startswith("error: object")

    assert committed.objects()[name].read_bytes() == damaged
    assert not (committed.root / "elsewhere").exists()


def test_a_damaged_object_is_put_aside_when_it_is_stored_again(committed: World, files: dict[str, bytes]):
    name = hashlib.md5(files["model/embed.safetensors"]).hexdigest()
    damaged = flip(committed.objects()[name])

    with committed.repo() as repo:
        repo.commit(example_state(), step=4)
        assert_same(example_state(), dict(repo.load("HEAD")))

    aside = committed.cache / f".ckptvcs-damaged-{name}-{blake3(damaged).hexdigest()[:8]}"
    assert aside.read_bytes() == damaged
    assert committed.objects()[name].read_bytes() == files["model/embed.safetensors"]
    assert "put aside in the cache" in committed.ckpt("doctor", status=1).out
    assert "up to date" in committed.dvc("status").out
