"""Push, clone, pull over real servers: what arrives is what was sent, for ckpt and for plain git and DVC."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from _pytest.mark import ParameterSet

from ckptvcs.errors import IntegrityError
from ckptvcs.storage.remotes import PIECE
from tests.support import oracle, sharing
from tests.support.same import assert_same
from tests.support.sharing import Shared, Store, commit
from tests.support.world import World


def params(*, short: set[str]) -> list[ParameterSet]:
    return [pytest.param(kind, marks=() if kind in short else pytest.mark.long) for kind in sharing.STORES]


on_more_stores = pytest.mark.parametrize("shared", params(short={"folder", "s3", "ssh", "webdav"}), indirect=True)


@pytest.fixture(params=params(short={"folder", "s3", "ssh"}))
def shared(request: pytest.FixtureRequest, world: World, tmp_path: Path) -> Shared:
    hub = sharing.hub(request, "ssh" if request.param == "ssh" else "path", world, tmp_path)
    return sharing.share(world, hub, sharing.store(request, request.param, tmp_path))


@on_more_stores
def test_what_was_pushed_is_pulled_bit_for_bit_and_plain_dvc_reads_it(shared: Shared, tmp_path: Path):
    states = {seed: commit(shared.world, seed) for seed in (1, 2)}

    told = shared.world.ckpt("push", "--verify").out

    other = shared.clone(tmp_path / "other")
    other.ckpt("pull")
    with other.repo() as repo:
        assert_same(states[2], dict(repo.load("HEAD")))
    other.ckpt("pull", "main@step:1")
    with other.repo() as repo:
        assert_same(states[1], dict(repo.load("main@step:1")))
    assert oracle.check(other.root)
    assert "2 checkpoints to 'share'" in told
    plain = shared.clone(tmp_path / "plain")
    plain.dvc("pull")
    assert plain.dvc("status", "-c").out.strip() == "Cache and remote 'share' are in sync."
    assert plain.dvc("status").out.strip() == "Data and pipelines are up to date."


@on_more_stores
def test_what_plain_dvc_pushed_is_pulled(shared: Shared, tmp_path: Path):
    state = commit(shared.world, 3)
    shared.world.dvc("push")
    shared.world.git("push", "-q", "origin", "main")

    other = shared.clone(tmp_path / "other")
    other.ckpt("pull")

    with other.repo() as repo:
        assert_same(state, dict(repo.load("HEAD")))
    assert other.ckpt("status").out.count("up to date") == 1


@on_more_stores
def test_an_object_of_several_pieces_is_read_in_pieces(shared: Shared, tmp_path: Path):
    state = {"model": {"weight": torch.arange(5 << 20, dtype=torch.float32)}}
    with shared.world.repo() as repo:
        repo.commit(state, step=1)
    assert max(path.stat().st_size for path in shared.world.objects().values()) > 2 * PIECE

    shared.world.ckpt("push", "--verify")

    other = shared.clone(tmp_path / "other")
    other.ckpt("pull")
    with other.repo() as repo:
        assert_same(state, dict(repo.load("HEAD")))


def test_the_other_side_goes_on_and_both_see_one_ledger(shared: Shared, tmp_path: Path):
    commit(shared.world, 1)
    shared.world.ckpt("push")
    other = shared.clone(tmp_path / "other")
    other.ckpt("pull")

    state = commit(other, 2)
    other.ckpt("note", "main@step:1", "--metric", "acc=0.5")
    other.ckpt("push")
    shared.world.ckpt("note", "main@step:1", "--metric", "loss=0.1")
    shared.world.ckpt("push", status=None)  # the ledger alone goes; the branch has to be pulled first
    shared.world.ckpt("pull")

    with shared.world.repo() as repo:
        assert_same(state, dict(repo.load("HEAD")))
    late = shared.world.ckpt("show", "main@step:1", "--json").json["metrics"]
    assert (late["acc"], late["loss"]) == (0.5, 0.1)
    assert shared.world.git("status", "--porcelain") == ""


def test_a_part_is_pulled_alone(shared: Shared, tmp_path: Path):
    commit(shared.world, 1)
    shared.world.ckpt("push")
    other = shared.clone(tmp_path / "other")

    other.ckpt("pull", "main", "--component", "model")

    with other.repo() as repo:
        assert repo.load("main", ["model"])
        with pytest.raises(IntegrityError):
            dict(repo.load("main", ["optimizer"]))


def test_a_push_with_nothing_new_says_so_and_a_new_one_sends_what_is_new(shared: Shared):
    commit(shared.world, 1)
    shared.world.ckpt("push")

    assert shared.world.ckpt("push").out == "everything is up to date\n"
    planned = shared.world.ckpt("push", "--full", "--json", "-n").json
    assert (planned["objects"], len(planned["checkpoints"])) == (0, 1)


def test_golden_marks_go_along_and_do_not_move(shared: Shared, tmp_path: Path):
    commit(shared.world, 1)
    shared.world.ckpt("tag", "--golden", "base")
    shared.world.ckpt("push", "main", "golden/base")

    other = shared.clone(tmp_path / "other")
    other.git("tag", "-f", "-a", "-m", "forged", "golden/base", "HEAD~1")
    other.git("push", "-q", "-f", "origin", "golden/base")
    before = shared.world.git("rev-parse", "golden/base")
    other.git("commit", "-q", "--allow-empty", "-m", "more")
    other.git("push", "-q")
    told = shared.world.ckpt("fetch")

    assert "has moved what does not move" in told.err
    assert shared.world.git("rev-parse", "golden/base") == before
    assert shared.world.git("rev-parse", "origin/main") == other.git("rev-parse", "HEAD")
    verdict = shared.world.ckpt("audit", "verify", "--remote", "origin", status=1)
    assert "'golden/base' is another one at 'origin'" in verdict.out + verdict.err
    other.git("push", "-q", "origin", ":golden/base")
    verdict = shared.world.ckpt("audit", "verify", "--remote", "origin")
    assert "'golden/base' is not at 'origin'" in verdict.out + verdict.err


# ------------------------------------------------------------------------------------------------------------ damage


def flip(data: bytes) -> bytes:
    return bytes([data[0] ^ 1, *data[1:]])


HARM = {
    "flip": flip,
    "truncate": lambda data: data[:-1],
    "extend": lambda data: data + b"x",
    "empty": lambda _: b"",
    "other": lambda data: bytes(len(data)),
}


@pytest.fixture
def broken(world: World, tmp_path: Path) -> Shared:
    hub = sharing.hub_at(world, tmp_path)
    world.git("remote", "add", "origin", hub.url)
    world.ckpt("remote", "add", "share", tmp_path / "store", "--default")
    world.git("commit", "-qam", "a remote")
    commit(world, 1)
    world.ckpt("push")
    return Shared(world, hub, Store(str(tmp_path / "store")))


def largest(store: Path) -> Path:
    return max((p for p in store.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


@pytest.mark.parametrize("how", HARM)
def test_wrong_bytes_are_an_error_that_names_them_and_are_never_kept(broken: Shared, tmp_path: Path, how: str):
    victim = largest(tmp_path / "store")
    victim.chmod(0o644)
    victim.write_bytes(HARM[how](victim.read_bytes()))
    victim.chmod(0o444)
    other = broken.clone(tmp_path / "other")

    refused = other.ckpt("pull", status=20)

    name = victim.parent.name + victim.name
    assert name[:10] in refused.err
    assert "share" in refused.err
    assert name not in other.objects()
    assert other.git("status", "--porcelain") == ""
    assert not list(other.cache.glob(".ckptvcs-*"))


def test_an_object_that_is_gone_is_named(broken: Shared, tmp_path: Path):
    largest(tmp_path / "store").unlink()

    refused = broken.clone(tmp_path / "other").ckpt("pull", status=20)

    assert "is not in" in refused.err


@pytest.mark.parametrize("how", ["flip", "gone"])
def test_another_remote_is_tried(broken: Shared, tmp_path: Path, how: str):
    shutil.copytree(tmp_path / "store", tmp_path / "second")
    victim = largest(tmp_path / "store")
    victim.chmod(0o644)
    victim.unlink() if how == "gone" else victim.write_bytes(flip(victim.read_bytes()))
    broken.world.ckpt("remote", "add", "second", tmp_path / "second")
    broken.world.git("commit", "-qam", "another remote")
    broken.world.ckpt("push")
    other = broken.clone(tmp_path / "other")

    done = other.ckpt("pull")

    assert "remote 'share'" in done.err
    with other.repo() as repo, broken.world.repo() as first:
        assert_same(dict(first.load("HEAD")), dict(repo.load("HEAD")))


def test_a_damaged_object_of_the_remote_is_healed_by_a_push(broken: Shared, tmp_path: Path):
    victim = largest(tmp_path / "store")
    victim.chmod(0o644)
    victim.write_bytes(victim.read_bytes()[:-1])

    broken.world.ckpt("push", "--full", "--verify")

    broken.clone(tmp_path / "other").ckpt("pull")


def test_what_is_damaged_here_is_not_pushed(broken: Shared, tmp_path: Path):
    commit(broken.world, 2)
    name, path = max(broken.world.objects().items(), key=lambda item: item[1].stat().st_mtime_ns)
    path.chmod(0o644)
    path.write_bytes(flip(path.read_bytes()))

    refused = broken.world.ckpt("push", status=20)

    assert name[:10] in refused.err
    assert broken.world.git("rev-parse", "origin/main") != broken.world.git("rev-parse", "main")
