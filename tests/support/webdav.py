"""A WebDAV server on this machine."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.servers import free_port, running

WHY = "wsgidav or dvc-webdav is not installed"


@dataclass(frozen=True)
class WebDav:
    """A server that lets one user in; `folder` is what it serves."""

    port: int
    folder: Path

    @property
    def options(self) -> dict[str, str]:
        """As `dvc remote modify` takes them."""
        return {"user": "ckpt", "password": "secret"}

    def url(self, name: str) -> str:
        """The address of a folder, which is made: the server makes none above what it is asked for."""
        (self.folder / name).mkdir()
        return f"webdav://127.0.0.1:{self.port}/{name}"


def is_installed() -> bool:
    return all(importlib.util.find_spec(name) for name in ("wsgidav", "cheroot", "webdav4", "dvc_webdav"))


@contextlib.contextmanager
def webdav(folder: Path) -> Iterator[WebDav]:
    served, port = folder / "served", free_port()
    served.mkdir(parents=True)
    config = {
        "host": "127.0.0.1",
        "port": port,
        "provider_mapping": {"/": str(served)},
        "simple_dc": {"user_mapping": {"*": {"ckpt": {"password": "secret"}}}},
        "http_authenticator": {"accept_basic": True, "accept_digest": False, "default_to_digest": False},
        "dir_browser": {"enable": False},
        "logging": {"enable": False},
    }
    (folder / "config.json").write_text(json.dumps(config))
    with running([sys.executable, "-m", "wsgidav.server.server_cli", "--config", f"{folder}/config.json", "-q"], port):
        yield WebDav(port, served)
