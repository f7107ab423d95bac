"""git over smart HTTP: the real `git http-backend` behind a server with basic authentication, on this machine."""

from __future__ import annotations

import base64
import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.proxy import body_of
from tests.support.servers import free_port

USER, PASSWORD = "ckpt", "sesame-9"


@dataclass
class GitHttp:
    """A server of the bare repositories in a folder; who pushes to one needs `http.receivepack` in it, or a user name."""

    port: int
    folder: Path
    asked: list[str] = field(default_factory=list)
    """Every request that was let in."""

    def url(self, repository: Path, *, user: str = USER, password: str = PASSWORD) -> str:
        return f"http://{user}:{password}@127.0.0.1:{self.port}/{repository.relative_to(self.folder)}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, git: GitHttp) -> None:
        super().__init__(("127.0.0.1", git.port), _Handler)
        self.git = git


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        self._serve(body_of(self))

    def _serve(self, body: bytes) -> None:
        wanted = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") != f"Basic {wanted}":
            self._answer(401, [("WWW-Authenticate", 'Basic realm="git"')], b"no entry\n")
            return
        self.server.git.asked.append(f"{self.command} {self.path}")
        done = subprocess.run(
            ["git", "http-backend"], input=body, env=self._variables(body), capture_output=True, check=False
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = [tuple(line.split(": ", 1)) for line in head.decode().splitlines() if ": " in line]
        status = next((int(value.split()[0]) for name, value in headers if name == "Status"), 200)
        self._answer(status, [h for h in headers if h[0] != "Status"], content)

    def _variables(self, body: bytes) -> dict[str, str]:
        url = urlsplit(self.path)
        given = {
            "REQUEST_METHOD": self.command,
            "PATH_INFO": url.path,
            "QUERY_STRING": url.query,
            "CONTENT_TYPE": self.headers.get("Content-Type"),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding"),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol"),
            "GIT_PROJECT_ROOT": str(self.server.git.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REMOTE_USER": USER,
            "REMOTE_ADDR": "127.0.0.1",
        }
        return {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]} | {k: v for k, v in given.items() if v}

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def git_http(folder: Path) -> Iterator[GitHttp]:
    found = GitHttp(free_port(), folder)
    with _Server(found) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        try:
            yield found
        finally:
            httpd.shutdown()
