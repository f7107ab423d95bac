"""Azurite, the server of Azure's blobs for tests, on this machine: `npm install azurite@3.35.0`."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.servers import free_port, running

WHY = "Azurite or dvc-azure is not installed: make test-long installs both where it can"

_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The account and the key that are built into Azurite and written in its documentation."""


@dataclass(frozen=True)
class Azurite:
    """A server with an empty container `container`."""

    port: int

    @property
    def connection_string(self) -> str:
        return (
            f"DefaultEndpointsProtocol=http;AccountName={_ACCOUNT};AccountKey={_KEY};"
            f"BlobEndpoint=http://127.0.0.1:{self.port}/{_ACCOUNT};"
        )

    @property
    def options(self) -> dict[str, str]:
        """As `dvc remote modify` takes them."""
        return {"connection_string": self.connection_string}


def program() -> str | None:
    """Beside the virtual environment, where make installs it, or wherever the system has it."""
    beside = Path(sys.prefix) / "node/node_modules/.bin"
    return shutil.which("azurite-blob", path=f"{beside}{os.pathsep}{os.environ['PATH']}")


def is_installed() -> bool:
    return program() is not None and importlib.util.find_spec("dvc_azure") is not None


@contextlib.contextmanager
def azurite(folder: Path) -> Iterator[Azurite]:
    from azure.storage.blob import BlobServiceClient

    port, found = free_port(), program()
    assert found is not None
    listen = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "-l", str(folder)]
    with running([found, *listen, "--silent", "--skipApiVersionCheck", "--disableTelemetry"], port):
        server = Azurite(port)
        with BlobServiceClient.from_connection_string(server.connection_string) as client:
            client.create_container("container")
        yield server
