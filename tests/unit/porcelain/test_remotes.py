"""Which remotes there are, and adding one."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckptvcs.errors import BadConfig, NotFound, StorageError, UsageError, WouldOverwrite
from ckptvcs.porcelain import remotes
from ckptvcs.porcelain.repo import Repository
from ckptvcs.storage.folder_remote import FolderRemote
from tests.support.world import World


@pytest.fixture
def repo(world: World) -> Repository:
    return Repository.open(world.root)


def add(repo: Repository, name: str, url: str, **options: bool) -> None:
    remotes.add(repo, remotes.plan_add(repo, name, url, **options))


def test_the_first_is_the_default_and_dvc_knows_it(world: World, repo: Repository, tmp_path: Path):
    add(repo, "one", str(tmp_path / "one"))
    add(repo, "two", str(tmp_path / "two"))
    assert [(r.name, r.default) for r in remotes.known(repo)] == [("one", True), ("two", False)]

    add(repo, "two", str(tmp_path / "two"), default=True)

    assert remotes.default_name(repo) == "two"
    assert world.dvc("remote", "list").out.split() == [
        "one",
        str(tmp_path / "one"),
        "two",
        str(tmp_path / "two"),
        "(default)",
    ]


def test_a_plan_changes_nothing(world: World, repo: Repository, tmp_path: Path):
    before = (world.root / ".dvc/config").read_bytes()

    assert remotes.plan_add(repo, "one", str(tmp_path / "one")).default

    assert (world.root / ".dvc/config").read_bytes() == before


def test_another_url_is_not_written_over(repo: Repository, tmp_path: Path):
    add(repo, "one", str(tmp_path / "one"))

    with pytest.raises(WouldOverwrite, match="there is a remote 'one' already"):
        remotes.plan_add(repo, "one", str(tmp_path / "other"))


def test_a_path_is_where_dvc_has_it(repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(repo.root)
    add(repo, "near", "../near")
    add(repo, "url", f"file://{tmp_path}/far")

    near, far = remotes.open_remote(repo, "near"), remotes.open_remote(repo, "url")

    assert isinstance(near, FolderRemote)
    assert isinstance(far, FolderRemote)
    assert near._store.root == (repo.root / "../near/files/md5").resolve()
    assert far._store.root == tmp_path / "far/files/md5"


def test_what_cannot_be_opened_is_told(world: World, repo: Repository):
    with pytest.raises(UsageError, match="no remote for checkpoints"):
        remotes.open_remote(repo)
    with pytest.raises(NotFound, match="no remote 'nope'"):
        remotes.open_remote(repo, "nope")
    world.dvc("remote", "add", "versions", "s3://bucket/x")
    world.dvc("remote", "modify", "versions", "version_aware", "true")
    world.dvc("remote", "add", "elsewhere", "gdrive://x/y")
    repo.forget_dvc_config()
    with pytest.raises(BadConfig, match="version_aware"):
        remotes.open_remote(repo, "versions")
    with pytest.raises(StorageError) as caught:
        remotes.open_remote(repo, "elsewhere")
    assert "pip install 'dvc[gdrive]'" in caught.value.next_step


@pytest.mark.parametrize(
    ("name", "url"), [("two words", "/x"), ("-n", "/x"), ("", "/x"), ("team", "s4://bucket"), ("team", "ext::sh")]
)
def test_what_dvc_could_not_read_again_is_not_written(world: World, repo: Repository, name: str, url: str):
    before = (world.root / ".dvc/config").read_bytes()
    if url == "ext::sh":  # a path like any other, for DVC and for us
        assert remotes.plan_add(repo, name, url).url.endswith("ext::sh")
        return

    with pytest.raises(UsageError):
        remotes.plan_add(repo, name, url)

    assert (world.root / ".dvc/config").read_bytes() == before
