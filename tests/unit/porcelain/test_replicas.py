"""Several copies: every remote has every object before a ref moves, and the ledger says so of each."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ckptvcs.errors import NotFound, StorageError, UsageError
from ckptvcs.porcelain import push, remotes, replicas
from ckptvcs.porcelain.repo import Repository
from tests.support import oracle
from tests.support.world import World


@pytest.fixture
def shared(world: World, tmp_path: Path, state) -> World:
    world.git("init", "-q", "--bare", "-b", "main", tmp_path / "hub.git")
    world.git("remote", "add", "origin", tmp_path / "hub.git")
    for name in ("team", "mirror", "attic"):
        repo = Repository.open(world.root)
        remotes.add(repo, remotes.plan_add(repo, name, str(tmp_path / name)))
    config(world, "version: 1\nreplicas: 2\n")
    commit(world, state, 1)
    return world


def config(world: World, text: str) -> None:
    (world.root / "ckpt.yaml").write_text(text)
    world.git("add", "-A", ".dvc", "ckpt.yaml")
    world.git("commit", "-qm", "configuration")


def commit(world: World, state, seed: int) -> None:
    with world.repo() as repo:
        repo.commit(state(seed), step=seed)


def pushed(world: World, **options) -> push.PushPlan:
    repo = Repository.open(world.root)
    plan = push.plan_push(repo, **options)
    push.execute(repo, plan)
    return plan


def objects(folder: Path) -> set[str]:
    return {p.parent.name + p.name for p in (folder / "files/md5").glob("[0-9a-f][0-9a-f]/*")}


def told(world: World) -> list[str]:
    return [e["facts"]["remote"] for chain in oracle.ledger(world.root).values() for e in chain if e["op"] == "push"]


def test_the_default_comes_first_and_the_others_by_name(shared: World, tmp_path: Path):
    plan = pushed(shared)

    assert [copy.remote.name for copy in plan.copies] == ["team", "attic"]
    assert objects(tmp_path / "team") == objects(tmp_path / "attic") == {ref.name for ref in plan.needed}
    assert not objects(tmp_path / "mirror")
    assert told(shared) == ["team", "attic"]
    assert plan.nbytes == 2 * sum(ref.nbytes for ref in plan.needed)


def test_who_is_named_comes_first_and_the_number_is_reached(shared: World):
    assert [copy.remote.name for copy in pushed(shared, remote="mirror").copies] == ["mirror", "team"]


def test_nothing_new_is_nothing_to_do(shared: World):
    pushed(shared)

    assert pushed(shared).is_empty


def test_one_that_was_left_out_until_now_is_caught_up_with(shared: World, tmp_path: Path):
    pushed(shared, copies=1)
    assert told(shared) == ["team"]

    plan = pushed(shared)

    assert [len(copy.missing) for copy in plan.copies] == [0, len(plan.needed)]
    assert objects(tmp_path / "attic") == objects(tmp_path / "team")
    assert pushed(shared).is_empty
    assert len(pushed(shared, copies=3).copies) == 3
    assert objects(tmp_path / "mirror") == objects(tmp_path / "team")


def test_what_is_not_here_any_more_comes_from_the_other_remote(shared: World, tmp_path: Path):
    pushed(shared, copies=1)
    shutil.rmtree(shared.cache)

    pushed(shared)

    assert objects(tmp_path / "attic") == objects(tmp_path / "team")


@pytest.mark.parametrize(("copies", "why"), [(4, "there are 3 warm remotes: team, attic, mirror"), (0, "somewhere")])
def test_a_number_that_cannot_be_is_told(shared: World, copies: int, why: str):
    with pytest.raises(UsageError, match=f"cannot keep {copies} replicas") as caught:
        pushed(shared, copies=copies)

    assert why in caught.value.why


def test_where_one_does_not_answer_no_ref_moves_and_what_arrived_stays(shared: World, tmp_path: Path):
    shutil.rmtree(tmp_path / "attic", ignore_errors=True)
    (tmp_path / "attic").write_bytes(b"no folder")

    with pytest.raises(StorageError):
        pushed(shared)
    assert oracle.git(tmp_path / "hub.git", "for-each-ref") == ""
    assert told(shared) == []

    (tmp_path / "attic").unlink()
    pushed(shared)
    assert objects(tmp_path / "attic") == objects(tmp_path / "team")


def test_where_one_fails_in_the_middle_no_ref_moves_and_the_next_push_goes_on(
    shared: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from ckptvcs.storage.folder_remote import FolderRemote

    real = FolderRemote.upload

    def upload(self: FolderRemote, refs, *args):
        if self.name == "attic":
            raise StorageError("the network is gone")
        real(self, refs, *args)

    monkeypatch.setattr(FolderRemote, "upload", upload)
    with pytest.raises(StorageError):
        pushed(shared)
    monkeypatch.undo()

    assert oracle.git(tmp_path / "hub.git", "for-each-ref") == ""
    plan = pushed(shared)
    assert [len(copy.missing) for copy in plan.copies] == [0, len(plan.needed)]
    assert not [p for name in ("team", "attic") for p in (tmp_path / name / ".ckptvcs/intents").rglob("*.json")]


def test_a_cold_one_is_no_replica(shared: World, tmp_path: Path):
    config(shared, "version: 1\nreplicas: 2\nremotes:\n  attic:\n    tier: cold\n")

    assert [copy.remote.name for copy in pushed(shared).copies] == ["team", "mirror"]
    with pytest.raises(UsageError, match="cannot use remote 'attic' for that") as caught:
        pushed(shared, remote="attic")
    assert "it is cold" in caught.value.why
    with pytest.raises(UsageError, match="cannot keep 3"):
        replicas.chosen(Repository.open(shared.root), None, 3)


def test_the_command_names_each_remote(shared: World):
    shown = shared.ckpt("push", "-n").out
    done = shared.ckpt("push", "--json", "--replicas", "3").json

    assert "to 'team'; " in shown
    assert "to 'attic'" in shown
    assert [one["name"] for one in done["remotes"]] == ["team", "attic", "mirror"]
    assert done["objects"] == sum(one["objects"] for one in done["remotes"])
    assert done["bytes"] == sum(one["bytes"] for one in done["remotes"])


def test_a_store_that_was_emptied_or_is_not_mounted_is_refused_until_it_is_begun_anew(
    shared: World, state, tmp_path: Path
):
    """Else refs would move, and what was pushed before would be missed by who pulls."""
    pushed(shared)
    for harm in ("gone", "an empty mount point"):
        shutil.rmtree(tmp_path / "attic")
        if harm == "an empty mount point":
            (tmp_path / "attic").mkdir()
        commit(shared, state, 100 + len(harm))
        tip = shared.git("rev-parse", "origin/main")

        with pytest.raises(StorageError, match="the ledger tells of pushes to it, and it is empty"):
            pushed(shared)

        assert shared.git("ls-remote", "origin", "main").split()[0] == tip
        assert not objects(tmp_path / "attic")
        shared.ckpt("remote", "add", "attic", tmp_path / "attic")
        shared.ckpt("push", "--full")
        assert objects(tmp_path / "attic") == objects(tmp_path / "team")


@pytest.mark.parametrize("mount_point", [False, True])
def test_a_folder_that_is_not_mounted_is_told_where_there_is_nothing_to_push(
    shared: World, tmp_path: Path, *, mount_point: bool
):
    pushed(shared)
    assert shared.ckpt("push").out == "everything is up to date\n"
    (tmp_path / "attic").rename(tmp_path / "away")
    if mount_point:
        (tmp_path / "attic").mkdir()

    with pytest.raises(StorageError, match="it may not be mounted"):
        pushed(shared)
    told = shared.ckpt("doctor", status=1)

    assert "cannot use remote 'attic'" in told.out + told.err
    shutil.rmtree(tmp_path / "attic", ignore_errors=True)
    (tmp_path / "away").rename(tmp_path / "attic")
    assert shared.ckpt("push").out == "everything is up to date\n"
    shared.ckpt("doctor")


def test_a_remote_of_the_configuration_that_is_none_is_told(shared: World, state):
    commit(shared, state, 7)
    (shared.root / "ckpt.yaml").write_text("replicas: 2\nremote: teem\n")

    with pytest.raises(NotFound, match="teem"):
        pushed(shared)
