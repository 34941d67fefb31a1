"""The places of the page's connections, tested with real sockets: nobody locks out those who may see it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from framecast.runtime.sinks import connections, web
from framecast.runtime.sinks.web import WebSink

# Beside this file; pytest's importlib mode puts no test folder on the path.
from .browser import endpoint, get, snapshot, watch  # noqa: TID252

TOKEN = "a-token-of-the-owner"
MANY = connections.MAX_STRANGERS + connections.MAX_KNOWN + 5


@pytest.fixture
def sink() -> Iterator[WebSink]:
    with contextlib.closing(WebSink("127.0.0.1:0", snapshot=snapshot, token=TOKEN)) as sink:
        yield sink


@pytest.fixture
def connect(sink: WebSink) -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def opened(sink: WebSink, stack: contextlib.ExitStack, data: bytes = b"", source: str = "127.0.0.1") -> socket.socket:
    client = stack.enter_context(socket.create_connection(endpoint(sink.url), 120, (source, 0)))
    client.sendall(data)
    return client


def request(sink: WebSink, token: str = TOKEN, path: str = "/stats.json") -> bytes:
    return f"GET {path}?token={token} HTTP/1.1\r\nHost: {urlsplit(sink.url).netloc}\r\n\r\n".encode()


def ended(client: socket.socket) -> bool:
    """Whether the server closes the connection; waits for it, and reads what it still says."""
    try:
        while client.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


def is_open(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False
    finally:
        client.settimeout(120)


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"\x16\x03\x01"])
def test_silent_connections_lock_nobody_out(sink: WebSink, connect: contextlib.ExitStack, data: bytes) -> None:
    clients = [opened(sink, connect, data) for _ in range(MANY)]
    assert get(sink.url)[0] == 200
    assert ended(clients[0])  # the oldest made room
    assert len(sink._connections._strangers) <= connections.MAX_STRANGERS


def test_silent_connections_of_one_machine_do_not_displace_another(
    sink: WebSink, connect: contextlib.ExitStack
) -> None:
    slow = opened(sink, connect, request(sink)[:-2], source="127.0.0.2")
    for _ in range(MANY):
        opened(sink, connect)
    assert get(sink.url)[0] == 200
    slow.sendall(b"\r\n")
    assert slow.recv(12) == b"HTTP/1.1 200"


def test_refused_connections_are_closed(sink: WebSink, connect: contextlib.ExitStack) -> None:
    client = opened(sink, connect, request(sink, "a-token-of-nobody"))
    assert client.recv(12) == b"HTTP/1.1 403"
    assert ended(client)
    client = opened(sink, connect, request(sink, path="/live"))  # whoever asks for it is no owner
    assert client.recv(12) == b"HTTP/1.1 200"
    assert ended(client)


def test_known_connections_stay_and_the_least_used_makes_room(sink: WebSink, connect: contextlib.ExitStack) -> None:
    clients = [opened(sink, connect) for _ in range(connections.MAX_KNOWN)]
    for client in clients:
        client.sendall(request(sink))
        assert client.recv(12) == b"HTTP/1.1 200"
    for _ in range(MANY):
        opened(sink, connect)
    assert all(map(is_open, clients))
    clients[0].sendall(request(sink))
    assert get(sink.url)[0] == 200
    assert ended(clients[1])
    assert is_open(clients[0])


def test_a_connection_without_a_request_is_dropped(
    sink: WebSink, connect: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEADER_TIMEOUT", 0.05)
    silent, slow = opened(sink, connect), opened(sink, connect, request(sink)[:-2])
    assert ended(silent)
    assert ended(slow)


def test_an_idle_connection_is_dropped_but_no_viewer(
    sink: WebSink, connect: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "IDLE_TIMEOUT", 0.05)
    monkeypatch.setattr(web, "HEARTBEAT", 0.05)
    idle = opened(sink, connect, request(sink))
    assert idle.recv(12) == b"HTTP/1.1 200"
    assert ended(idle)

    async def run() -> None:
        async with watch(sink.url) as viewer:
            for _ in range(3):  # three heartbeats, which are longer than the idle time
                await viewer.receive_bytes()

    asyncio.run(run())
