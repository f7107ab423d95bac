"""Stores that do not let us in, or are not there: which of it, and what to do, within seconds."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.support import proxy, servers, sharing, webdav
from tests.support.sharing import Store, commit
from tests.support.world import World


@pytest.fixture
def unshared(world: World, tmp_path: Path) -> World:
    world.git("remote", "add", "origin", sharing.hub_at(world, tmp_path).url)
    commit(world, 1)
    return world


def told(world: World, store: Store) -> str:
    """What a push says to whom the store does not let in."""
    sharing.add_store(world, store)
    began = time.monotonic()
    refused = world.ckpt("push", status=30)
    assert time.monotonic() - began < 30
    assert world.git("ls-remote", "origin") == ""
    assert "Traceback" not in refused.err
    return refused.err


S3 = {
    "InvalidAccessKeyId": (403, "it does not know this access key", "access_key_id"),
    "SignatureDoesNotMatch": (403, "the secret key does not belong to the access key", "secret_access_key"),
    "AccessDenied": (403, "these credentials may not do that", "ask who keeps the store"),
    "ExpiredToken": (400, "the credentials are no longer valid", "get new ones"),
    "NoSuchBucket": (404, "there is no such bucket", "dvc remote modify share url URL"),
    "RequestTimeTooSkewed": (403, "the clock of this machine is too far off", "set the clock"),
}


@pytest.mark.parametrize("code", S3)
def test_each_refusal_of_s3_has_its_advice(s3_server: servers.S3, unshared: World, tmp_path: Path, code: str):
    status, why, next_step = S3[code]
    with proxy.proxy(int(s3_server.url.rpartition(":")[2]), lambda _: (status, code)) as server:
        options = {**s3_server.options, "endpointurl": server.url}
        said = told(unshared, Store(f"s3://bucket/{tmp_path.name}", options))

    assert why in said
    assert code in said
    assert next_step in said


def test_no_credentials_for_s3(s3_server: servers.S3, unshared: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    said = told(unshared, Store(f"s3://bucket/{tmp_path.name}", {"endpointurl": s3_server.url}))

    assert "there are no credentials for it" in said


def test_a_key_that_ssh_does_not_take(ssh_server: servers.Ssh, unshared: World, tmp_path: Path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "stranger"], check=True)

    said = told(
        unshared, Store(ssh_server.url(tmp_path), {**ssh_server.options, "keyfile": str(tmp_path / "stranger")})
    )

    assert "it does not let us in with these credentials" in said
    assert "dvc remote modify --local share" in said


def test_a_server_that_speaks_something_else_than_ssh(s3_server: servers.S3, unshared: World, tmp_path: Path):
    port = s3_server.url.rpartition(":")[2]

    said = told(unshared, Store(f"ssh://nobody@127.0.0.1:{port}{tmp_path}", {"allow_agent": "false", "timeout": "10"}))

    assert "cannot open remote 'share'" in said


def test_ssh_that_is_down(ssh_server: servers.Ssh, unshared: World, tmp_path: Path):
    url = ssh_server.url(tmp_path).replace(f":{ssh_server.port}", ":9")

    assert "check the address" in told(unshared, Store(url, ssh_server.options))


def test_a_wrong_password_for_webdav(webdav_server: webdav.WebDav, unshared: World, tmp_path: Path):
    store = Store(webdav_server.url(tmp_path.name), {"user": "ckpt", "password": "wrong-word"})

    said = told(unshared, store)

    assert "it does not let us in with these credentials" in said
    assert "wrong-word" not in said


def test_a_folder_that_webdav_does_not_have(webdav_server: webdav.WebDav, unshared: World, tmp_path: Path):
    url = webdav_server.url(tmp_path.name)

    said = told(unshared, Store(f"{url}-nowhere", webdav_server.options))

    assert "the folder of its address is not there" in said
    assert "make that folder on the server" in said


def test_webdav_that_is_down(webdav_server: webdav.WebDav, unshared: World, tmp_path: Path):
    url = webdav_server.url(tmp_path.name).replace(f":{webdav_server.port}", ":9")

    assert "check the address" in told(unshared, Store(url, webdav_server.options))
