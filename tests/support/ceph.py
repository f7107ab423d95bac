"""Ceph's RADOS gateway on this machine, one node with its data in memory: an S3 server that holds its users to policies.

Debian has it: `apt-get install --no-install-recommends radosgw ceph-mon ceph-osd`. It is ready after about ten seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.servers import free_port

PROGRAMS = ("ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
WHY = "Ceph is not installed: apt-get install radosgw ceph-mon ceph-osd"

_CONF = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]
mon initial members = a
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
auth allow insecure global id reclaim = false
keyring = {folder}/keyring
osd objectstore = memstore
memstore device bytes = 2147483648
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
mon data avail crit = 1
mon data avail warn = 2
mon data = {folder}/mon
osd data = {folder}/osd
rgw data = {folder}/rgw
run dir = {folder}/run
pid file = {folder}/run/$name.pid
admin socket = {folder}/run/$name.asok
log file = {folder}/log/$name.log
crash dir = {folder}/log
ms bind ipv6 = false
public addr = 127.0.0.1
cluster addr = 127.0.0.1
public network = 127.0.0.0/8
rgw crypt require ssl = false
rgw enable ops log = false
rgw gc max objs = 8
rgw override bucket index max shards = 1
"""


@dataclass(frozen=True)
class User:
    """Somebody with a key."""

    name: str
    access_key: str
    secret_key: str


@dataclass(frozen=True)
class Ceph:
    """An S3 endpoint with a user `owner`, who has an empty bucket `bucket`."""

    url: str
    folder: Path
    owner: User

    @property
    def options(self) -> dict[str, str]:
        """Those of the owner, as `dvc remote modify` takes them."""
        return self.options_of(self.owner)

    def options_of(self, user: User) -> dict[str, str]:
        return {"endpointurl": self.url, "access_key_id": user.access_key, "secret_access_key": user.secret_key}

    def client(self, user: User | None = None) -> Any:
        import boto3
        from botocore.config import Config

        user = user or self.owner
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=user.access_key,
            aws_secret_access_key=user.secret_key,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
        )

    def add_user(self, name: str) -> User:
        user = User(name, secrets.token_hex(8), secrets.token_hex(16))
        keys = ("--access-key", user.access_key, "--secret-key", user.secret_key)
        _run(self.folder, "radosgw-admin", "user", "create", "--uid", name, "--display-name", name, *keys)
        return user


def is_installed() -> bool:
    return all(shutil.which(program) for program in PROGRAMS)


def _run(folder: Path, program: str, *args: str) -> str:
    command = [program, "-c", f"{folder}/ceph.conf", *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


@contextlib.contextmanager
def ceph(folder: Path) -> Iterator[Ceph]:
    """Start one below a folder that does not exist."""
    for name in ("mon", "osd", "run", "log", "rgw"):
        (folder / name).mkdir(parents=True)
    port = free_port()
    try:
        _start_cluster(folder)
        server = Ceph(f"http://127.0.0.1:{port}", folder, User("owner", "ownerkey", "ownersecret"))
        keys = ("--access-key", server.owner.access_key, "--secret-key", server.owner.secret_key)
        _run(folder, "radosgw-admin", "user", "create", "--uid", "owner", "--display-name", "owner", *keys)
        keyring, frontend = f"--keyring={folder}/keyring", f"--rgw_frontends=beast endpoint=127.0.0.1:{port}"
        _run(folder, "radosgw", "-n", "client.rgw", keyring, frontend)
        _wait(server)
        yield server
    finally:
        for name in ("client.rgw", "osd.0", "mon.a"):  # an OSD whose monitor is gone does not end
            _stop(folder / "run" / f"{name}.pid")


def _start_cluster(folder: Path) -> None:
    v1, v2, fsid = free_port(), free_port(), str(uuid.uuid4())
    (folder / "ceph.conf").write_text(_CONF.format(fsid=fsid, v1=v1, v2=v2, folder=folder))
    rights = {
        "mon.": {"mon": "allow *"},
        "client.admin": {"mon": "allow *", "osd": "allow *", "mgr": "allow *"},
        "osd.0": {"mon": "allow profile osd", "osd": "allow *"},
        "client.rgw": {"mon": "allow rw", "osd": "allow rwx"},
    }
    keyring, monmap = f"{folder}/keyring", f"{folder}/monmap"
    for name, caps in rights.items():
        given = [part for cap, right in caps.items() for part in ("--cap", cap, right)]
        create = () if Path(keyring).exists() else ("--create-keyring",)
        _run(folder, "ceph-authtool", *create, keyring, "--gen-key", "-n", name, *given)
    _run(
        folder,
        "monmaptool",
        "--create",
        "--addv",
        "a",
        f"[v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]",
        "--fsid",
        fsid,
        monmap,
    )
    _run(folder, "ceph-mon", "-i", "a", "--mkfs", "--monmap", monmap, "--keyring", keyring)
    _run(folder, "ceph-mon", "-i", "a")
    osd = str(uuid.uuid4())
    _run(folder, "ceph", "osd", "new", osd)
    with contextlib.suppress(RuntimeError):  # it says that some of the keys are there, and takes the others
        _run(folder, "ceph", "auth", "import", "-i", keyring)
    _run(folder, "ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
    _run(folder, "ceph-osd", "-i", "0")


def _wait(server: Ceph) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            server.client().create_bucket(Bucket="bucket")
        except Exception:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
        else:
            return


def _stop(pid_file: Path) -> None:
    """Ask a daemon to end, by the number that it wrote down, and end it if it does not."""
    with contextlib.suppress(OSError, ValueError):
        pid = int(pid_file.read_text())
        os.kill(pid, signal.SIGTERM)
        for _ in range(50):
            os.kill(pid, 0)
            time.sleep(0.1)
        os.kill(pid, signal.SIGKILL)


def policy_of(page: Path, name: str) -> dict[str, Any]:
    """A policy as it stands in a page: the block of JSON below `<!-- policy: NAME -->`."""
    text = page.read_text(encoding="utf-8")
    _, found, rest = text.partition(f"<!-- policy: {name} -->\n```json\n")
    assert found, f"{page} has no policy '{name}'"
    policy: dict[str, Any] = json.loads(rest.partition("\n```")[0])
    return policy
