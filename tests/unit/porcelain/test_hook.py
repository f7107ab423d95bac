"""What the hooks look at, and how far."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from ckptvcs.errors import Refused, UsageError
from ckptvcs.porcelain import hook
from ckptvcs.porcelain.repo import Repository
from tests.support.world import World

MIB = 1 << 20
ZERO = "0" * 40


def torch_file(**options) -> bytes:
    out = io.BytesIO()
    torch.save({"w": torch.zeros(MIB // 2, dtype=torch.float32)}, out, **options)
    return out.getvalue()


def safetensors_file() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [MIB // 2], "data_offsets": [0, 2 * MIB]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(2 * MIB)


def zip_file(name: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("first", "x" * 100)
        archive.writestr(name, bytes(2 * MIB))
    return out.getvalue()


@pytest.fixture
def small(world: World) -> World:
    (world.root / "ckpt.yaml").write_text("version: 1\nhooks: {max_mib: 1}\n")
    return world


def found(world: World, *names: str, start: Path | None = None) -> dict[str, str]:
    with_repo = Repository.open(world.root)
    return {raw.path: raw.what for raw in hook.raw_checkpoints(with_repo, start or world.root, names)}


def stage(world: World, name: str, data: bytes) -> None:
    (world.root / name).parent.mkdir(parents=True, exist_ok=True)
    (world.root / name).write_bytes(data)
    world.git("add", "-f", "--", name)


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("a.pt", torch_file(), "a torch checkpoint"),
        ("a.bin", torch_file(), "a torch checkpoint"),
        ("a", torch_file(), "a torch checkpoint"),
        ("data.pkl-in-a.zip", zip_file("x/data.pkl"), "a torch checkpoint"),
        ("old.bin", torch_file(_use_new_zipfile_serialization=False), "a torch checkpoint of before version 1.6"),
        ("weights.dat", safetensors_file(), "a safetensors file"),
        ("x/ü ' b.safetensors", bytes(2 * MIB), "named as a checkpoint"),
        ("A.CKPT", bytes(2 * MIB), "named as a checkpoint"),
        ("a.pth", b"x" * (MIB + 1), "named as a checkpoint"),
    ],
)
def test_a_raw_checkpoint_is_known_by_its_bytes_or_its_name(name: str, data: bytes, what: str, small: World):
    stage(small, name, data)

    assert found(small) == {name: what}
    assert found(small, name) == {name: what}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.pt", b"x" * MIB),
        ("firmware.bin", bytes(2 * MIB)),
        ("archive.zip", zip_file("readme.txt")),
        ("table.json", b"{" + b" " * (2 * MIB) + b"}"),
        ("short", b"PK\x03\x04"),
        ("empty.pt", b""),
        ("zeros", bytes(2 * MIB)),
    ],
)
def test_what_is_small_or_something_else_passes(name: str, data: bytes, small: World):
    stage(small, name, data)

    assert found(small) == {}


def test_the_worktree_is_not_looked_at(small: World):
    stage(small, "a.pt", torch_file())
    (small.root / "a.pt").unlink()
    (small.root / "b.pt").write_bytes(torch_file())

    assert found(small) == found(small, "a.pt", "b.pt") == {"a.pt": "a torch checkpoint"}


def test_names_are_relative_to_where_they_were_given_and_are_no_patterns(small: World):
    for name in ("x/a.pt", "x/[a].pt", "a.pt"):
        stage(small, name, torch_file())

    assert found(small, "a.pt", start=small.root / "x") == {"x/a.pt": "a torch checkpoint"}
    assert set(found(small, "[a].pt", start=small.root / "x")) == {"x/[a].pt"}
    assert found(small, "*.pt", "nope.pt") == {}


def test_what_is_in_git_already_is_looked_at_only_if_it_is_named(small: World):
    stage(small, "a.pt", torch_file())
    small.git("commit", "-qm", "raw")

    assert found(small) == {}
    assert found(small, "a.pt") == {"a.pt": "a torch checkpoint"}
    (small.root / "a.pt").chmod(0o755)
    small.git("add", "a.pt")
    small.git("mv", "a.pt", "b.pt")
    assert found(small) == {}


def test_links_and_submodules_are_no_files(small: World):
    (small.root / "link.pt").symlink_to("x" * 100)
    small.git("add", "link.pt")
    small.git("update-index", "--add", "--cacheinfo", f"160000,{small.git('rev-parse', 'HEAD')},sub.pt")
    (small.root / "ckpt.yaml").write_text("version: 1\nhooks: {max_mib: 0}\n")

    assert found(small) == found(small, "link.pt", "sub.pt") == {}


def test_every_file_is_named_with_a_command_for_each(small: World):
    for name in ("a b.pt", "checkpoints/model/x.safetensors"):
        stage(small, name, torch_file())

    with pytest.raises(Refused) as caught:
        hook.refuse_raw(Repository.open(small.root), small.root)

    assert caught.value.facts["paths"] == ["a b.pt", "checkpoints/model/x.safetensors"]
    assert caught.value.next_step == (
        "git rm --cached 'a b.pt' && ckpt commit 'a b.pt' && git rm --cached checkpoints/model/x.safetensors"
    )


def test_no_more_than_the_beginning_of_a_file_is_read(small: World, tmp_path: Path):
    """git gets the time to write 64 KiB of it, and is ended then."""
    from ckptvcs.storage.history import program

    data = torch_file()
    stage(small, "a.pt", data)
    blob = small.git("rev-parse", ":a.pt")

    assert program.beginning(small.root, Repository.open(small.root).around.variables, blob, 100) == data[:100]
    assert program.beginning(small.root, Repository.open(small.root).around.variables, "0" * 40, 100) == b""


# ----------------------------------------------------------------------------------------------------------- pre-push


@pytest.fixture
def hub(world: World, tmp_path: Path) -> Path:
    world.git("init", "-q", "--bare", "-b", "main", tmp_path / "hub.git")
    world.git("remote", "add", "origin", tmp_path / "hub.git")
    world.ckpt("remote", "add", "share", tmp_path / "store")
    world.git("commit", "-qam", "a remote")
    return tmp_path / "hub.git"


def line(world: World, ref: str, old: str = ZERO) -> str:
    return f"{ref} {world.git('rev-parse', ref)} {ref} {old}\n"


def test_checkpoints_are_counted_with_what_they_lack(world: World, history, hub: Path, tmp_path: Path, repository):
    world.ckpt("push")
    with world.repo() as repo:
        repo.commit({"model": {"w": torch.ones(3)}}, step=4)
    one = next(path for path in (tmp_path / "store").rglob("*") if path.is_file())
    old = world.git("rev-parse", "main~2")
    one.write_bytes(b"cut short")

    with pytest.raises(Refused, match="has not all objects of") as caught:
        hook.refuse_incomplete(repository, "origin", str(hub), line(world, "refs/heads/main", old))

    assert "step 4" in caught.value.why
    assert caught.value.facts["refs"] == ["main"]
    assert caught.value.next_step == "ckpt push main"


def test_many_are_not_all_shown(world: World, hub: Path, repository):
    with world.repo() as repo:
        for step in range(5):
            repo.commit({"model": {"w": torch.full((2,), float(step))}}, step=step)
    world.git("remote", "rename", "origin", "upstream")

    with pytest.raises(Refused) as caught:
        hook.refuse_incomplete(repository, "upstream", str(hub), line(world, "refs/heads/main"))

    assert len(caught.value.facts["checkpoints"]) == 5
    assert caught.value.why.endswith("and of 2 more")
    assert caught.value.next_step == "ckpt push --to upstream main"


def test_what_is_deleted_or_holds_no_checkpoint_is_nobodys_business(world: World, history, repository, tmp_path: Path):
    """There is no remote at all here: whatever is looked at fails."""
    world.git("update-ref", "refs/ckptvcs/ledger/x", "main")
    world.git("tag", "blob", world.git("hash-object", "-w", "ckpt.yaml"))
    main = world.git("rev-parse", "main")
    lines = [
        f"(delete) {ZERO} refs/heads/main {main}\n",
        line(world, "refs/ckptvcs/ledger/x", main),
        line(world, "refs/tags/blob", main),
        line(world, "refs/heads/main", main),
    ]

    hook.refuse_incomplete(repository, "origin", "nowhere", "".join(lines))
    hook.refuse_incomplete(repository, "origin", "nowhere", "")
    with pytest.raises(UsageError, match="no remote for checkpoints"):
        hook.refuse_incomplete(repository, "origin", "nowhere", line(world, "refs/heads/main", ZERO[:-1] + "1"))


def test_other_lines_than_those_of_git_are_refused():
    with pytest.raises(UsageError, match="cannot read 'nonsense'"):
        hook.parse_pushed("nonsense\n")
