"""A TCP line to a server on this machine that fails as it is told, and counts what passes."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

REQUEST = re.compile(rb"^(GET|PUT|POST|HEAD|DELETE) (\S+) HTTP/1\.1\r\n", re.MULTILINE)
RANGE = re.compile(rb"\r\nrange: *bytes=(\d+)-", re.IGNORECASE)
_GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Fault:
    """How a line fails.

    `cut`: ends after `at` bytes of the body; `reset`: the same, with an RST; `stall`: nothing passes any more after `at`
    bytes, and the connection stays; `refuse`: it is reset at once; three digits: the answer of an HTTP server.
    """

    kind: str
    at: int = 0
    up: bool = False
    """Of what the client sends, else of what the server answers."""
    said: bytes = b""
    """The body of an answer."""


@dataclass
class Seen:
    """One request: its method, its path, the byte that it begins at, and how many bytes of body went up and down."""

    method: str
    path: str
    start: int
    up: int = 0
    down: int = 0
    failed: bool = False


@dataclass
class BadLine:
    """A line to a port.

    Args:
        port: of the server.
        plan: asked for each HTTP request (or, without HTTP, for each connection, with None) how it shall fail.
        http: whether HTTP is spoken, so that requests can be told apart.
    """

    port_of_server: int
    plan: Callable[[Seen | None], Fault | None] = lambda _: None
    http: bool = True
    requests: list[Seen] = field(default_factory=list)
    failed: int = 0
    up: int = 0
    down: int = 0

    def __enter__(self) -> BadLine:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._handle, args=(client,), daemon=True).start()

    def _handle(self, client: socket.socket) -> None:
        server = None
        try:
            with contextlib.suppress(OSError, _Over):
                fault = None if self.http else self._ask(None)
                if fault is not None and fault.kind == "refuse":
                    _abort(client)
                    return
                server = socket.create_connection(("127.0.0.1", self.port_of_server))
                self._open |= {client, server}
                _Connection(self, client, server, fault).run()
        finally:
            for one in filter(None, (client, server)):
                with contextlib.suppress(OSError):
                    one.close()
                self._open.discard(one)

    def _ask(self, seen: Seen | None) -> Fault | None:
        with self._lock:
            if seen is not None:
                self.requests.append(seen)
            fault = self.plan(seen)
            if fault is not None:
                self.failed += 1
                if seen is not None:
                    seen.failed = True
            return fault


class _Over(Exception):
    """This connection has failed as it should."""


def _abort(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    client.close()


class _Connection:
    """Bytes in both directions, one thread; with HTTP the plan is asked where a request begins."""

    def __init__(self, line: BadLine, client: socket.socket, server: socket.socket, fault: Fault | None) -> None:
        self._line, self._client, self._server, self._fault = line, client, server, fault
        self._seen: Seen | None = None
        self._passed = {True: 0, False: 0}
        self._went_on = False

    def run(self) -> None:
        while True:
            ready, _, _ = select.select([self._client, self._server], [], [])
            for source in ready:
                up = source is self._client
                data = source.recv(1 << 16)
                if not data:
                    return
                self._pass(data, up=up)

    def _pass(self, data: bytes, *, up: bool) -> None:
        sink = self._server if up else self._client
        if up and self._line.http and (match := REQUEST.match(data)):
            start = RANGE.search(data)
            self._seen = Seen(match[1].decode(), match[2].decode(), int(start[1]) if start else 0)
            self._passed = {True: 0, False: 0}
            self._went_on = False
            self._fault = self._line._ask(self._seen)
            self._answer_at_once()
            head, end, body = data.partition(b"\r\n\r\n")
            sink.sendall(head + end)
            data = body
        elif not up and data.startswith(_GO_ON):
            # moto says it twice, and aiohttp takes the second one for the answer that it waits for.
            said = data.count(_GO_ON)
            data = data[len(_GO_ON) * said :]
            if not self._went_on:
                sink.sendall(_GO_ON)
            self._went_on = True
        elif not up and self._line.http and self._passed[False] == 0 and data.startswith(b"HTTP/1.1 "):
            head, end, body = data.partition(b"\r\n\r\n")
            sink.sendall(head + end)
            data = body
        self._count(data, up=up)
        self._fail_or_send(data, sink, up=up)

    def _count(self, data: bytes, *, up: bool) -> None:
        if up:
            self._line.up += len(data)
        else:
            self._line.down += len(data)
        if self._seen is not None:
            self._seen.up += len(data) if up else 0
            self._seen.down += 0 if up else len(data)

    def _fail_or_send(self, data: bytes, sink: socket.socket, *, up: bool) -> None:
        fault = self._fault
        if fault is None or fault.up is not up or self._passed[up] + len(data) <= fault.at:
            sink.sendall(data)
            self._passed[up] += len(data)
            return
        sink.sendall(data[: fault.at - self._passed[up]])
        if fault.kind == "stall":
            while True:  # until the test is over, or the client gives up: its end of the line is read no more
                time.sleep(0.2)
                self._client.send(b"", socket.MSG_DONTWAIT)
                if _is_gone(self._client):
                    raise _Over
        if fault.kind == "reset":
            _abort(self._client)
        raise _Over

    def _answer_at_once(self) -> None:
        fault = self._fault
        if fault is None:
            return
        if fault.kind == "refuse":
            _abort(self._client)
            raise _Over
        if fault.kind.isdigit():
            head = f"HTTP/1.1 {fault.kind} No\r\nContent-Type: application/xml\r\nContent-Length: {len(fault.said)}\r\n"
            self._client.sendall(head.encode() + b"Connection: close\r\n\r\n" + fault.said)
            self._client.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):  # what it still sends is taken, else the answer is lost in a reset
                self._client.settimeout(2)
                while self._client.recv(1 << 16):
                    pass
            raise _Over


def _is_gone(client: socket.socket) -> bool:
    """Whether the other end has closed; what it sent and nobody reads does not count."""
    poll = select.poll()
    poll.register(client, select.POLLRDHUP)
    return any(what & (select.POLLRDHUP | select.POLLHUP | select.POLLERR) for _, what in poll.poll(0))


def xml(code: str) -> bytes:
    """How S3 words an error."""
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{code} said the test</Message></Error>'.encode()
