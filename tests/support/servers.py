"""Real servers on this machine, for as long as a test needs them: S3 over HTTP, an OpenSSH server."""

from __future__ import annotations

import contextlib
import getpass
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


def free_port() -> int:
    """A port below those that the kernel gives to outgoing connections, which could take it in between."""
    while True:
        port = random.SystemRandom().randrange(15000, 32000)
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def wait_for(port: int, process: subprocess.Popen[bytes], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise RuntimeError("the server does not answer")


@contextlib.contextmanager
def running(command: list[str], port: int, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)  # type: ignore[call-overload]
    try:
        wait_for(port, process)
        yield process
    finally:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class S3:
    """An S3 endpoint with an empty bucket `bucket`."""

    url: str

    @property
    def options(self) -> dict[str, str]:
        """As `dvc remote modify` takes them."""
        return {"endpointurl": self.url, "access_key_id": "testing", "secret_access_key": "testing"}

    def client(self):
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
            region_name="us-east-1",
        )


@contextlib.contextmanager
def s3() -> Iterator[S3]:
    port = free_port()
    with running([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port):
        server = S3(f"http://127.0.0.1:{port}")
        server.client().create_bucket(Bucket="bucket")
        yield server


@dataclass(frozen=True)
class Ssh:
    """An OpenSSH server that lets this user in with a key."""

    port: int
    key: Path
    folder: Path

    @property
    def options(self) -> dict[str, str]:
        """As `dvc remote modify` takes them."""
        return {"keyfile": str(self.key), "allow_agent": "false"}

    def url(self, path: Path) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{path}"

    @property
    def git(self) -> dict[str, str]:
        """The environment in which git gets in."""
        quiet = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o IdentitiesOnly=yes -o LogLevel=ERROR"
        return {"GIT_SSH_COMMAND": f"ssh -i {self.key} {quiet}"}


def has_sshd() -> bool:
    return shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin") is not None


@contextlib.contextmanager
def ssh(folder: Path) -> Iterator[Ssh]:
    folder.mkdir(parents=True)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    (folder / "authorized").write_bytes((folder / "user.pub").read_bytes())
    port = free_port()
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
        f"PidFile {folder}/pid\nUsePAM no\nStrictModes no\nPermitRootLogin yes\nPasswordAuthentication no\n"
        "MaxStartups 100\nMaxSessions 100\nSubsystem sftp internal-sftp\n"
    )
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    assert sshd is not None
    with running([sshd, "-D", "-f", str(folder / "config")], port):
        yield Ssh(port, folder / "user", folder)
