"""An HTTP proxy on this machine that lets through, changes or refuses each request, as a store with other rules would."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.servers import free_port


@dataclass
class Request:
    """What a client asks. A rule may change `headers`."""

    method: str
    path: str
    headers: dict[str, str]


Rule = Callable[[Request], "tuple[int, str] | None"]
"""Returns None to let a request through, or the status and the code of S3 to refuse it with."""


@dataclass
class Proxy:
    port: int
    target: int
    rule: Rule
    seen: list[Request] = field(default_factory=list)
    """Every request, as the client sent it."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def body_of(handler: BaseHTTPRequestHandler) -> bytes:
    """The body of a request, sent as a whole or in chunks."""
    if handler.headers.get("Transfer-Encoding") != "chunked":
        return handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
    data = b""
    while size := int(handler.rfile.readline().split(b";")[0], 16):
        data += handler.rfile.read(size)
        handler.rfile.readline()
    handler.rfile.readline()
    return data


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, proxy: Proxy) -> None:
        super().__init__(("127.0.0.1", proxy.port), _Handler)
        self.proxy = proxy


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        body, proxy = body_of(self), self.server.proxy
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        proxy.seen.append(Request(self.command, self.path, dict(headers)))
        request = Request(self.command, self.path, headers)
        refused = proxy.rule(request)
        if refused is not None:
            status, code = refused
            xml = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>by the proxy</Message></Error>".encode()
            self._answer(status, [("Content-Type", "application/xml")], xml)
            return
        line = http.client.HTTPConnection("127.0.0.1", proxy.target, timeout=60)
        with contextlib.closing(line):
            line.request(request.method, request.path, body, request.headers)
            answer = line.getresponse()
            kept = [h for h in answer.getheaders() if h[0].lower() not in _HOP]
            self._answer(answer.status, kept, answer.read(), answer.getheader("Content-Length"))

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, length: str | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


_HOP = {"connection", "content-length", "expect", "keep-alive", "transfer-encoding"}


@contextlib.contextmanager
def proxy(target: int, rule: Rule) -> Iterator[Proxy]:
    """A proxy of the server at a port of this machine."""
    found = Proxy(free_port(), target, rule)
    with _Server(found) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        try:
            yield found
        finally:
            httpd.shutdown()
