"""The policies of `docs/howto/s3.md`, as they stand there, on a real Ceph with a user for each role."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import oracle, sharing
from tests.support.ceph import Ceph, User, policy_of
from tests.support.same import assert_same
from tests.support.sharing import Shared, Store, commit
from tests.support.world import World

pytestmark = pytest.mark.long

PAGE = Path(__file__).parents[2] / "docs/howto/s3.md"
ROLES = ("ckpt-reader", "ckpt-writer", "ckpt-pruner")


@dataclass
class Team:
    """A bucket with the policy of the page, and its users."""

    ceph: Ceph
    bucket: str
    users: dict[str, User]

    def policy(self, name: str) -> Any:
        """A policy of the page, for this bucket and for users that belong to no account, as they are on Ceph."""
        text = json.dumps(policy_of(PAGE, name))
        return json.loads(text.replace("::111122223333:", ":::").replace("ckpt-team", self.bucket))

    def apply(self, policy: Any) -> None:
        self.ceph.client().put_bucket_policy(Bucket=self.bucket, Policy=json.dumps(policy))

    def store(self, role: str) -> Store:
        return Store(f"s3://{self.bucket}/models", self.ceph.options_of(self.users[role]))

    def present(self) -> list[str]:
        listed = self.ceph.client().list_objects_v2(Bucket=self.bucket).get("Contents", [])
        return [entry["Key"] for entry in listed]

    def versions(self, key: str) -> list[str]:
        listed = self.ceph.client().list_object_versions(Bucket=self.bucket, Prefix=key).get("Versions", [])
        return [entry["VersionId"] for entry in listed]


@pytest.fixture(scope="module")
def users(ceph_server: Ceph) -> dict[str, User]:
    return {role: ceph_server.add_user(role) for role in ROLES}


@pytest.fixture
def team(ceph_server: Ceph, users: dict[str, User], tmp_path: Path) -> Team:
    found = Team(ceph_server, tmp_path.name.replace("_", "-")[:50].strip("-") + "-b", users)
    client = ceph_server.client()
    client.create_bucket(Bucket=found.bucket)
    client.put_bucket_versioning(Bucket=found.bucket, VersioningConfiguration={"Status": "Enabled"})
    found.apply(found.policy("bucket"))
    return found


@pytest.fixture
def shared(team: Team, world: World, tmp_path: Path) -> Shared:
    """What the writer pushed, of two checkpoints; the address is in git, and no secret."""
    hub = sharing.hub_at(world, tmp_path)
    found = Shared(world, hub, team.store("ckpt-writer"))
    world.git("remote", "add", "origin", hub.url)
    world.dvc("remote", "add", "-d", "team", found.store.url)
    world.dvc("remote", "modify", "team", "endpointurl", team.ceph.url)
    world.git("commit", "-qam", "a remote")
    enter(world, team.users["ckpt-writer"])
    return found


def enter(world: World, user: User) -> None:
    world.dvc("remote", "modify", "--local", "team", "access_key_id", user.access_key)
    world.dvc("remote", "modify", "--local", "team", "secret_access_key", user.secret_key)


def clone(shared: Shared, where: Path, user: User) -> World:
    other = shared.clone(where)
    enter(other, user)
    return other


def refused(act: Any) -> str:
    """What S3 said when it refused."""
    from botocore.exceptions import ClientError

    with pytest.raises(ClientError) as caught:
        act()
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    return str(caught.value.response["Error"]["Code"])


@pytest.mark.parametrize("lists", ["the bucket", "a prefix"])
def test_a_writer_adds_and_a_reader_reads_and_neither_deletes(team: Team, shared: Shared, tmp_path: Path, lists: str):
    if lists == "a prefix":
        policy = team.policy("bucket")
        policy["Statement"][0]["Condition"] = {"StringLike": {"s3:prefix": "models/*"}}
        team.apply(policy)
    states = {seed: commit(shared.world, seed) for seed in (1, 2)}

    shared.world.ckpt("push", "--verify")

    reader = clone(shared, tmp_path / "reader", team.users["ckpt-reader"])
    reader.ckpt("pull")
    with reader.repo() as repo:
        assert_same(states[2], dict(repo.load("HEAD")))
    assert oracle.check(reader.root, complete=False)
    objects = [key for key in team.present() if key.startswith("models/files/md5/")]
    for role in ("ckpt-writer", "ckpt-reader"):
        client = team.ceph.client(team.users[role])
        for key in objects[:3]:
            assert refused(lambda c=client, k=key: c.delete_object(Bucket=team.bucket, Key=k)) == "AccessDenied"
        refused(lambda c=client: c.put_object(Bucket=team.bucket, Key="elsewhere", Body=b""))
        refused(lambda c=client: c.put_bucket_policy(Bucket=team.bucket, Policy="{}"))
        refused(
            lambda c=client: c.put_bucket_versioning(
                Bucket=team.bucket, VersioningConfiguration={"Status": "Suspended"}
            )
        )
    assert [key for key in team.present() if key.startswith("models/files/md5/")] == objects


def test_plain_dvc_works_with_the_same_rights(team: Team, shared: Shared, tmp_path: Path):
    state = commit(shared.world, 1)

    shared.world.dvc("push")
    shared.world.git("push", "-q", "origin", "main")

    reader = clone(shared, tmp_path / "reader", team.users["ckpt-reader"])
    reader.dvc("pull")
    reader.ckpt("pull")
    with reader.repo() as repo:
        assert_same(state, dict(repo.load("HEAD")))


def test_a_large_object_is_added_in_parts(team: Team, shared: Shared, tmp_path: Path):
    """From 100 MiB on the library sends parts, which needs other calls, though no other rights."""
    import torch

    state = {"model": {"weight": torch.arange(27 << 20, dtype=torch.float32)}}
    with shared.world.repo() as repo:
        repo.commit(state, step=1)

    shared.world.ckpt("push")

    reader = clone(shared, tmp_path / "reader", team.users["ckpt-reader"])
    reader.ckpt("pull")
    with reader.repo() as repo:
        assert_same(state, dict(repo.load("HEAD")))


def test_a_reader_who_pushes_is_told_and_nothing_moves(team: Team, shared: Shared, tmp_path: Path):
    commit(shared.world, 1)
    shared.world.ckpt("push")
    reader = clone(shared, tmp_path / "reader", team.users["ckpt-reader"])
    reader.ckpt("pull")
    before, tip = team.present(), oracle.git(shared.hub.bare, "rev-parse", "main")
    commit(reader, 2)

    told = reader.ckpt("push", status=30).err

    assert "at remote 'team'" in told
    assert "these credentials may not do that (AccessDenied)" in told
    assert "ask who keeps the store" in told
    assert "dvc remote modify --local team" in told
    assert team.present() == before
    assert oracle.git(shared.hub.bare, "rev-parse", "main") == tip


def test_a_pruner_deletes_and_brings_back_and_ends_no_version(team: Team, shared: Shared):
    commit(shared.world, 1)
    shared.world.ckpt("push")
    key = next(key for key in team.present() if key.startswith("models/files/md5/"))
    pruner = team.ceph.client(team.users["ckpt-pruner"])

    pruner.put_object(Bucket=team.bucket, Key="models/.ckptvcs/gc/run.json", Body=b"{}")
    version = pruner.head_object(Bucket=team.bucket, Key=key)["VersionId"]
    refused(lambda: pruner.delete_object(Bucket=team.bucket, Key=key, VersionId=version))
    pruner.delete_object(Bucket=team.bucket, Key=key)

    assert key not in team.present()
    assert version in team.versions(key), "what is deleted is still there"
    pruner.put_object(Bucket=team.bucket, Key=key, Body=b"x")
    assert key in team.present()


def test_a_writer_announces_a_push_and_takes_that_back_alone(team: Team, shared: Shared):
    writer = team.ceph.client(team.users["ckpt-writer"])
    ours = "models/.ckptvcs/intents/w/1.json"

    writer.put_object(Bucket=team.bucket, Key=ours, Body=b"{}")
    writer.delete_object(Bucket=team.bucket, Key=ours)
    writer.put_object(Bucket=team.bucket, Key="models/.ckptvcs/store.json", Body=b"{}")

    refused(lambda: writer.delete_object(Bucket=team.bucket, Key="models/.ckptvcs/store.json"))
    refused(lambda: writer.put_object(Bucket=team.bucket, Key="models/.ckptvcs/gc/run.json", Body=b"{}"))


def test_what_a_writer_replaces_is_seen_and_can_be_taken_back(team: Team, shared: Shared, tmp_path: Path):
    """This server cannot ask for If-None-Match: a stolen key of a writer can replace an object, and gains nothing."""
    state = commit(shared.world, 1)
    shared.world.ckpt("push")
    writer, owner = team.ceph.client(team.users["ckpt-writer"]), team.ceph.client()
    key = max(owner.list_objects_v2(Bucket=team.bucket)["Contents"], key=lambda entry: entry["Size"])["Key"]
    right = writer.head_object(Bucket=team.bucket, Key=key)
    forged = writer.put_object(Bucket=team.bucket, Key=key, Body=bytes(right["ContentLength"]))

    reader = clone(shared, tmp_path / "reader", team.users["ckpt-reader"])
    told = reader.ckpt("pull", status=20).err
    refused(lambda: writer.delete_object(Bucket=team.bucket, Key=key, VersionId=right["VersionId"]))
    owner.delete_object(Bucket=team.bucket, Key=key, VersionId=forged["VersionId"])

    assert key.replace("models/files/md5/", "").replace("/", "")[:10] in told
    reader.ckpt("pull")
    with reader.repo() as repo:
        assert_same(state, dict(repo.load("HEAD")))


def test_this_server_holds_nobody_to_the_condition(team: Team, shared: Shared):
    """As the page says; when this fails, the server has learnt it, and the page can say so."""
    policy = team.policy("bucket")
    policy["Statement"].append(team.policy("only-new"))
    team.apply(policy)
    commit(shared.world, 1)

    shared.world.ckpt("push")

    team.ceph.client(team.users["ckpt-writer"]).put_object(Bucket=team.bucket, Key=team.present()[0], Body=b"replaced")


def test_the_lifecycle_is_taken(team: Team):
    rules = team.policy("lifecycle")

    team.ceph.client().put_bucket_lifecycle_configuration(Bucket=team.bucket, LifecycleConfiguration=rules)

    kept = team.ceph.client().get_bucket_lifecycle_configuration(Bucket=team.bucket)["Rules"]
    assert kept[0]["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] == 7


@pytest.mark.parametrize("versions", ["Enabled", "Suspended"])
def test_adding_a_remote_needs_no_right_to_delete(team: Team, shared: Shared, versions: str):
    team.ceph.client().put_bucket_versioning(Bucket=team.bucket, VersioningConfiguration={"Status": versions})

    told = shared.world.ckpt("remote", "add", "team", f"s3://{team.bucket}/models").out

    # This server forgets the condition where it keeps versions, and that is seen.
    assert "reads ranges, lists" in told
    assert ("makes a name only once" in told) is (versions == "Suspended")
    commit(shared.world, 1)
    shared.world.ckpt("push")


@pytest.mark.parametrize("how", ["a profile", "the environment"])
def test_credentials_come_from_where_the_page_says(team: Team, shared: Shared, tmp_path: Path, how: str):
    state = commit(shared.world, 1)
    shared.world.ckpt("push")
    user, reader = team.users["ckpt-reader"], shared.clone(tmp_path / "reader")
    env = {"AWS_ACCESS_KEY_ID": user.access_key, "AWS_SECRET_ACCESS_KEY": user.secret_key}
    if how == "a profile":
        file = Path(os.environ["HOME"]) / ".aws/credentials"
        file.parent.mkdir()
        file.write_text(
            f"[ckpt-reader]\naws_access_key_id = {user.access_key}\naws_secret_access_key = {user.secret_key}\n"
        )
        reader.dvc("remote", "modify", "--local", "team", "profile", "ckpt-reader")
        env = {}

    reader.ckpt("pull", env=env)

    with reader.repo() as repo:
        assert_same(state, dict(repo.load("HEAD")))


# ------------------------------------------------------------------------------------------------------ what is refused


WRONG = {
    "unknown key": (
        "access_key_id",
        "NOBODY",
        "it does not know this access key (InvalidAccessKeyId)",
        "access_key_id KEY",
    ),
    "wrong secret": (
        "secret_access_key",
        "wrong",
        "the secret key does not belong to the access key (SignatureDoesNotMatch)",
        "secret_access_key KEY",
    ),
    "no bucket": ("url", "s3://nobodys-bucket/models", "there is no such bucket (NoSuchBucket)", "url URL"),
    "nobody there": ("endpointurl", "http://127.0.0.1:9", "Could not connect to the endpoint URL", "endpointurl"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("verb", [["push"], ["pull"], ["remote", "add", "team"]], ids=lambda verb: verb[0])
def test_what_is_wrong_is_told_with_what_to_do(team: Team, shared: Shared, tmp_path: Path, wrong: str, verb: list[str]):
    option, value, why, next_step = WRONG[wrong]
    commit(shared.world, 1)
    world = shared.world
    if verb == ["pull"]:
        world.ckpt("push")
        world = clone(shared, tmp_path / "reader", team.users["ckpt-reader"])
    world.dvc("remote", "modify", "--local", "team", option, value)
    url = [value if option == "url" else shared.store.url] if verb[0] == "remote" else []
    if url and option == "url":
        world.dvc("remote", "modify", "team", "url", value)

    told = world.ckpt(*verb, *url, status=30).err

    assert why in told
    assert next_step in told
    assert "None" not in told
    if verb == ["push"]:
        assert oracle.git(shared.hub.bare, "for-each-ref") == ""


# ---------------------------------------------------------------------------------------------------------------- golden


@pytest.fixture
def vault(ceph_server: Ceph, tmp_path: Path) -> Iterator[str]:
    name = "vault-" + tmp_path.name.replace("_", "-")[-20:].strip("-")
    client = ceph_server.client()
    client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
    client.put_object_lock_configuration(
        Bucket=name, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
    )
    return name


def test_a_golden_checkpoint_in_a_vault_outlives_its_owner(team: Team, shared: Shared, vault: str, tmp_path: Path):
    state = commit(shared.world, 1)
    shared.world.ckpt("tag", "--golden", "base")
    shared.world.ckpt("push", "main", "golden/base")
    shared.world.dvc("remote", "add", "vault", f"s3://{vault}/models")
    for option, value in team.ceph.options.items():
        shared.world.dvc("remote", "modify", "vault", option, value)
    shared.world.git("commit", "-qam", "a vault")

    shared.world.ckpt("push", "golden/base", "--full", "--remote", "vault")

    owner = team.ceph.client()
    kept = owner.list_object_versions(Bucket=vault, Prefix="models/files/md5/")["Versions"]
    assert len(kept) == len(shared.world.objects())
    for entry in kept:
        refused(lambda e=entry: owner.delete_object(Bucket=vault, Key=e["Key"], VersionId=e["VersionId"]))
    for key in team.present():
        owner.delete_object(Bucket=team.bucket, Key=key)
    shared.world.git("push", "-q", "origin", "main")
    other = shared.clone(tmp_path / "other")
    enter(other, team.users["ckpt-reader"])
    other.ckpt("pull", "golden/base")
    with other.repo() as repo:
        assert_same(state, dict(repo.load("golden/base")))
