"""What a store can do is recorded there once, and known to every clone."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from ckptvcs.errors import NotFound, StorageError
from ckptvcs.porcelain import remotes, stores
from ckptvcs.porcelain.repo import Repository
from ckptvcs.storage.folder_remote import FolderRemote
from tests.support.world import World


@pytest.fixture
def repo(world: World) -> Repository:
    return Repository.open(world.root)


def add(repo: Repository, name: str, url: Path) -> stores.Tried:
    return stores.try_out(repo, remotes.add(repo, remotes.plan_add(repo, name, str(url))))


def record(folder: Path) -> dict:
    return json.loads((folder / ".ckptvcs/store.json").read_bytes())


def test_what_was_seen_is_recorded_and_shown_without_trying(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    add(repo, "team", tmp_path / "store")
    written = record(tmp_path / "store")
    monkeypatch.delattr(FolderRemote, "probe")

    shown = stores.show(repo, "team")

    assert shown.record is not None
    assert written == {
        "format": "ckptvcs-store/1",
        "id": shown.record.id,
        "ranges": True,
        "listing": True,
        "exclusive": True,
        "clock": True,
    }
    assert (shown.known.default, shown.known.tier, shown.pushes, shown.notes) == (True, "warm", (), ())


def test_the_id_is_made_once(repo: Repository, tmp_path: Path):
    first = add(repo, "team", tmp_path / "store").record.id
    second = add(repo, "other", tmp_path / "store").record.id

    assert first == second
    assert record(tmp_path / "store")["id"] == first


def test_of_many_who_come_at_once_all_have_one_id(world: World, tmp_path: Path):
    add(Repository.open(world.root), "team", tmp_path / "store")
    (tmp_path / "store/.ckptvcs/store.json").unlink()
    ids: list[str] = []

    def one() -> None:
        here = Repository.open(world.root)
        ids.append(stores.try_out(here, remotes.open_remote(here, "team")).record.id)

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(ids) == 6
    assert set(ids) == {record(tmp_path / "store")["id"]}


def test_trying_anew_corrects_what_is_recorded_and_keeps_the_id(repo: Repository, tmp_path: Path):
    add(repo, "team", tmp_path / "store")
    before = record(tmp_path / "store")
    (tmp_path / "store/.ckptvcs/store.json").write_text(json.dumps({**before, "ranges": False}))

    assert stores.show(repo, "team").record.ranges is False  # type: ignore[union-attr]
    assert stores.show(repo, "team", probe=True).record.ranges is True  # type: ignore[union-attr]
    assert record(tmp_path / "store") == before


@pytest.mark.parametrize("data", [b"garbage", b"[" * 10_000, b"{}"])
def test_a_record_that_nobody_can_read_is_told_and_made_anew(repo: Repository, tmp_path: Path, data: bytes):
    add(repo, "team", tmp_path / "store")
    (tmp_path / "store/.ckptvcs/store.json").write_bytes(data)

    shown = stores.show(repo, "team")
    stores.show(repo, "team", probe=True)

    assert shown.record is None
    assert "cannot read 'store.json'" in shown.notes[0]
    assert record(tmp_path / "store")["format"] == "ckptvcs-store/1"


def test_a_record_of_a_later_version_stays(repo: Repository, tmp_path: Path):
    add(repo, "team", tmp_path / "store")
    (tmp_path / "store/.ckptvcs/store.json").write_bytes(b'{"format":"ckptvcs-store/2"}')

    tried = stores.try_out(repo, remotes.open_remote(repo, "team"))

    assert tried.record.ranges
    assert "ckptvcs-store/2" in tried.notes[0]
    assert (tmp_path / "store/.ckptvcs/store.json").read_bytes() == b'{"format":"ckptvcs-store/2"}'


def test_who_may_only_read_takes_what_others_recorded(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first = add(repo, "team", tmp_path / "store")

    def probe(self: FolderRemote, now: float) -> None:
        raise StorageError("cannot write at remote 'team'")

    monkeypatch.setattr(FolderRemote, "probe", probe)

    tried = stores.try_out(repo, remotes.open_remote(repo, "team"))

    assert tried.record == first.record
    assert "may only be read" in tried.notes[0]
    (tmp_path / "store/.ckptvcs/store.json").unlink()
    with pytest.raises(StorageError):
        stores.try_out(repo, remotes.open_remote(repo, "team"))


def test_a_remote_that_nobody_knows_is_told(repo: Repository):
    with pytest.raises(NotFound, match="no remote 'nope'"):
        stores.show(repo, "nope")


# --------------------------------------------------------------------------------------------------------------- tiers


def test_a_cold_one_is_known_as_such_and_never_the_default(world: World, tmp_path: Path):
    (world.root / "ckpt.yaml").write_text("version: 1  # ours\n")

    added = world.ckpt("remote", "add", "archive", tmp_path / "cold", "--tier", "cold").out
    world.ckpt("remote", "add", "team", tmp_path / "warm")

    assert "added remote 'archive' (cold): " in added
    assert (world.root / "ckpt.yaml").read_text() == "version: 1  # ours\nremotes:\n  archive:\n    tier: cold\n"
    listed = world.ckpt("remote", "list", "--json").json
    assert [(one["name"], one["tier"], one["default"]) for one in listed] == [
        ("archive", "cold", False),
        ("team", "warm", True),
    ]
    assert world.ckpt("remote", "list").out.splitlines()[0].endswith("  (cold)")
    assert world.ckpt("remote", "show", "archive", "--json").json["tier"] == "cold"
    assert "warm, default" in world.ckpt("remote", "show", "team").out


def test_a_cold_one_cannot_be_the_default(world: World, tmp_path: Path):
    refused = world.ckpt("remote", "add", "archive", tmp_path / "cold", "--tier", "cold", "--default", status=2)
    assert "cannot be cold and the default" in refused.err
    world.ckpt("remote", "add", "team", tmp_path / "warm")

    assert "cannot be cold" in world.ckpt("remote", "add", "team", tmp_path / "warm", "--tier", "cold", status=2).err
    assert not (tmp_path / "cold").exists()


def test_a_cold_one_is_neither_pushed_to_nor_pulled_from(world: World, tmp_path: Path, state):
    world.git("init", "-q", "--bare", tmp_path / "hub.git")
    world.git("remote", "add", "origin", tmp_path / "hub.git")
    world.ckpt("remote", "add", "archive", tmp_path / "cold", "--tier", "cold")
    with world.repo() as repo:
        repo.commit(state(1))

    for args in (["push"], ["push", "--remote", "archive"], ["pull", "--remote", "archive", "HEAD"]):
        if args[0] == "pull":
            next(iter(world.objects().values())).unlink()
        refused = world.ckpt(*args, status=2)
        assert "warm" in refused.err
    assert not list((tmp_path / "cold").rglob("*.dir"))


def test_it_can_be_made_warm_again(world: World, tmp_path: Path):
    before = (world.root / "ckpt.yaml").read_text()
    world.ckpt("remote", "add", "archive", tmp_path / "cold", "--tier", "cold")
    world.ckpt("remote", "add", "archive", tmp_path / "cold")
    assert world.ckpt("remote", "list", "--json").json[0]["tier"] == "cold"

    world.ckpt("remote", "add", "archive", tmp_path / "cold", "--tier", "warm")

    assert (world.root / "ckpt.yaml").read_text() == before
    assert world.ckpt("remote", "list", "--json").json[0]["default"]


def test_a_plan_changes_nothing(world: World, tmp_path: Path):
    world.ckpt("remote", "add", "archive", tmp_path / "cold", "--tier", "cold", "-n")

    assert world.git("status", "--porcelain") == ""
    assert not (tmp_path / "cold").exists()
