"""Looking at a repository that somebody else named, who may not mean well."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ckptvcs.errors import StorageError
from ckptvcs.storage.history import mirror
from tests.support.world import World, run


def test_every_ref_of_it_is_seen_and_what_it_lost_is_forgotten(world: World, tmp_path: Path):
    world.git("tag", "t")
    world.git("update-ref", "refs/exps/one", "HEAD")
    variables = mirror.guarded(os.environ)
    copy = mirror.update(tmp_path / "copies", str(world.root), variables)
    head = world.git("rev-parse", "HEAD")
    assert mirror.tips(copy) == {head}
    world.git("commit", "-q", "--allow-empty", "-m", "more")

    copy = mirror.update(tmp_path / "copies", str(world.root), variables)
    assert mirror.tips(copy) == {head, world.git("rev-parse", "HEAD")}
    world.git("reset", "-q", "--hard", "HEAD~1")

    assert mirror.tips(mirror.update(tmp_path / "copies", str(world.root), variables)) == {head}


@pytest.mark.parametrize("url", ["ext::touch {trap}"])
def test_no_address_runs_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str):
    trap = tmp_path / "sprung"
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "protocol.ext.allow")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "always")
    address = url.format(trap=trap)
    run(["git", "ls-remote", address], tmp_path, status=None, env=dict(os.environ))
    assert trap.exists(), "the trap works"
    trap.unlink()

    with pytest.raises(StorageError):
        mirror.update(tmp_path / "copies", address, mirror.guarded(os.environ))

    assert not trap.exists()
