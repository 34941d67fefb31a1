"""The server of the browser page, tested with plain requests. test_browser.py tests the page in Chromium."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
import socket
import threading
import time
from collections.abc import Awaitable, Iterator, Mapping
from urllib.parse import urlsplit

import aiohttp
import aiohttp.web
import numpy as np
import pytest

from framecast.camera import Frame
from framecast.errors import OptionError, SinkError
from framecast.runtime.predictor import Prediction
from framecast.runtime.sinks import web
from framecast.runtime.sinks.sink import Result
from framecast.runtime.sinks.web import WebSink
from framecast.testing import STAMPS

# Beside this file; pytest's importlib mode puts no test folder on the path.
from .browser import (  # noqa: TID252
    endpoint,
    event,
    get,
    refused,
    snapshot,
    watch,
)


@pytest.fixture
def sink() -> Iterator[WebSink]:
    with contextlib.closing(WebSink("127.0.0.1:0", snapshot=snapshot)) as sink:
        yield sink


# Access


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST"])
def test_loopback_names_are_answered(sink: WebSink, host: str) -> None:
    status, text, headers = get(sink.url, Host=f"{host}:{urlsplit(sink.url).port}")
    assert status == 200
    assert "<title>framecast</title>" in text
    assert "{{" not in text
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", ""])
def test_other_hosts_are_refused(sink: WebSink, host: str) -> None:
    for path in ("", "app.js", "stats.json", "stream", "missing"):
        status, _, headers = get(sink.url + path, Host=host.format(port=urlsplit(sink.url).port))
        assert status == 403
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_the_page_loads_nothing_from_elsewhere(sink: WebSink) -> None:
    page = get(sink.url)[1]
    names = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert {"app.js", "style.css"} <= set(names)
    for name in names:
        assert get(sink.url + name)[0] == 200
    assert "style=" not in page
    assert not re.search(r"<script(?![^>]*src=)", page)


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
def test_only_get(sink: WebSink, method: str) -> None:
    for path in ("", "app.js", "stats.json"):
        assert get(sink.url + path, method)[0] == 405
    origin = sink.url.removesuffix("/")
    assert get(sink.url + "stream", method, Origin=origin)[0] == 405


def test_only_this_page_may_open_the_stream(sink: WebSink) -> None:
    assert asyncio.run(refused(sink.url, "http://evil.example")) == 403
    assert asyncio.run(refused(sink.url, "null")) == 403
    assert get(sink.url + "stream")[0] == 403


def test_an_address_for_others_needs_a_token() -> None:
    with contextlib.closing(WebSink("0.0.0.0:0", snapshot=snapshot)) as sink:
        parts = urlsplit(sink.url)
        here = f"http://127.0.0.1:{parts.port}/"
        assert re.fullmatch(r"token=[\w-]{40,}", parts.query)
        for wrong in ("", "?token=", "?token=x", "?token=%ff", f"?token={parts.query[6:]}x"):
            assert get(here + wrong)[0] == 403
            assert get(here + "stats.json" + wrong)[0] == 403
            assert asyncio.run(refused(here + wrong)) == 403
        script = re.search(r'src="(app.js[^"]*)"', get(f"{here}?{parts.query}")[1])
        assert script is not None
        assert get(here + script[1])[0] == 200


TOKEN = "a+secret/of-16=="


@pytest.mark.parametrize("where", ["0", "0.0.0.0:0"])
def test_a_given_token_is_needed(where: str) -> None:
    with contextlib.closing(WebSink(where, snapshot=snapshot, token=TOKEN, title="<cup> & {{query}}")) as sink:
        assert sink.url.endswith("?token=a%2Bsecret%2Fof-16%3D%3D")
        here = f"http://127.0.0.1:{urlsplit(sink.url).port}/"
        page = get(f"{here}?{urlsplit(sink.url).query}")[1]
        assert "<h1>&lt;cup&gt; &amp; {{query}}</h1>" in page
        for path in ("", "stats.json", "metrics"):
            assert get(here + path)[0] == 403
            assert get(here + path, Authorization=f"bearer {TOKEN}")[0] == 200
            for wrong in (f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer", "Bearer \xff"):
                assert get(here + path, Authorization=wrong)[0] == 403


@pytest.mark.parametrize("token", ["", "short", "with spaces in the token", "ö" * 20, "x" * 257, "a-token-and\na-line"])
def test_a_bad_token_is_not_repeated(token: str) -> None:
    with pytest.raises(OptionError, match=r"^cannot use this token: .*openssl rand -hex 24$") as error:
        WebSink("0", snapshot=snapshot, token=token)
    assert not token or token not in str(error.value)


# Behind a proxy


@pytest.mark.parametrize("host", ["cam.example.org", "CAM.example.org:8443", "127.0.0.1:{port}"])
@pytest.mark.parametrize("origin", ["https://cam.example.org", "https://cam.example.org:8443"])
def test_a_named_host_is_answered_with_a_token(host: str, origin: str) -> None:
    with contextlib.closing(WebSink("0", snapshot=snapshot, hosts=["Cam.Example.org"])) as sink:
        host = host.format(port=urlsplit(sink.url).port)
        bare, _, query = sink.url.partition("?")
        assert len(query) > 40  # others can reach it now
        assert get(sink.url, Host=host)[0] == 200
        assert get(bare, Host=host)[0] == 403
        assert get(sink.url, Host="evil.example.org")[0] == 403

        async def run() -> None:
            async with watch(sink.url, origin, host=host):
                pass

        asyncio.run(run())
        assert asyncio.run(refused(sink.url, "https://evil.example.org")) == 403


@pytest.mark.parametrize("name", ["https://cam.example.org", "cam.example.org:443", "a b", "", "*"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match="give a name without scheme and port, such as"):
        WebSink("0", snapshot=snapshot, hosts=[name])


@pytest.mark.parametrize(
    "lines",
    [
        f"Host: {{host}}\r\nX: {'x' * 100_000}",
        "Host: {host}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
        "Host: {host}\r\nContent-Length: 5\r\nContent-Length: 6",
        "Host: {host}\r\nContent-Length: -1",
        "Host: {host}\r\nTransfer-Encoding: chunked, identity",
        "Host : {host}",
        "Host: {host}\nX: a\0b",
        "Host: {host}\r\nHost: evil.example",
        "Host: {host}\r\n" + "\r\n".join(f"X{number}: y" for number in range(5000)),
    ],
    ids=["large", "both lengths", "two lengths", "negative", "encodings", "space", "null", "two hosts", "many"],
)
def test_requests_that_two_servers_could_read_differently_are_refused(sink: WebSink, lines: str) -> None:
    """A proxy may take a part of such a request for another one."""
    host = urlsplit(sink.url).netloc
    hidden = f"0\r\n\r\nGET /stats.json HTTP/1.1\r\nHost: {host}\r\n\r\n"
    with socket.create_connection(endpoint(sink.url), 120) as client:
        client.sendall(f"GET / HTTP/1.1\r\n{lines.format(host=host)}\r\n\r\n{hidden}".encode())
        answer = b""
        with contextlib.suppress(ConnectionError):
            while part := client.recv(65536):
                answer += part
    assert answer.startswith(b"HTTP/1.0 400 Bad Request")
    assert b" 200 " not in answer


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []
    real = secrets.compare_digest

    def compare(given: bytes, wanted: bytes) -> bool:
        compared.append(given)
        return real(given, wanted)

    monkeypatch.setattr(secrets, "compare_digest", compare)
    with contextlib.closing(WebSink("0", snapshot=snapshot, token=TOKEN)) as sink:
        assert get(sink.address + "?token=wrong", Authorization="Bearer wrong-too")[0] == 403
    assert compared == [b"wrong-too", b"wrong"]


def test_stats_are_json(sink: WebSink) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    status, text, headers = get(sink.url + "stats.json")
    stats = json.loads(text, parse_constant=refuse)
    assert (status, headers["Content-Type"]) == (200, "application/json; charset=utf-8")
    assert stats["latency_ms"] == {"p50": 12.25, "p90": None, "p99": 18.5, "max": None, "n": 1200}
    assert stats["fps"] == 29.75


# Many, slow and talkative viewers


def test_the_number_of_viewers_is_limited(sink: WebSink) -> None:
    async def run() -> None:
        async with contextlib.AsyncExitStack() as stack:
            viewers = [await stack.enter_async_context(watch(sink.url)) for _ in range(web.MAX_VIEWERS)]
            assert await refused(sink.url) == 503
            await viewers[0].close()
            for _ in range(100):  # the server takes a moment to notice that a viewer left
                with contextlib.suppress(aiohttp.WSServerHandshakeError):
                    await stack.enter_async_context(watch(sink.url))
                    return
                await asyncio.sleep(0.02)
            raise AssertionError("the place of a viewer that left is not freed")

    asyncio.run(run())


def test_a_viewer_that_sends_messages_is_dropped(sink: WebSink) -> None:
    async def run() -> int | None:
        async with watch(sink.url) as viewer:
            await viewer.send_str("hello")
            async for _ in viewer:
                pass
            return viewer.close_code

    assert asyncio.run(run()) != 1000


def test_a_viewer_is_dropped_even_if_its_cancellation_is_lost(sink: WebSink, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Python 3.12, ``wait_for`` drops a cancellation that comes with the result (gh-86296)."""
    lost = threading.Event()

    async def forgetful(waited: Awaitable[object], timeout: float) -> object:
        try:
            return await wait_for(waited, timeout)
        except asyncio.CancelledError:
            lost.set()
            return None

    async def slow(response: aiohttp.web.WebSocketResponse, message: bytes) -> None:
        await send(response, message)
        await asyncio.sleep(0.2)

    async def run() -> int | None:
        async with watch(sink.url) as viewer:
            await viewer.receive()  # the server still sends
            await viewer.send_str("hello")
            async for _ in viewer:
                pass
            return viewer.close_code

    send, wait_for = aiohttp.web.WebSocketResponse.send_bytes, asyncio.wait_for
    monkeypatch.setattr(aiohttp.web.WebSocketResponse, "send_bytes", slow)
    monkeypatch.setattr(asyncio, "wait_for", forgetful)
    assert asyncio.run(wait_for(run(), 30)) != 1000
    assert lost.wait(5)


def test_a_viewer_that_hangs_blocks_nothing(sink: WebSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "SEND_TIMEOUT", 0.5)
    noise = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), np.uint8)  # noise has megabytes in any encoding
    big = Result(Frame(noise, 0.0, 0), noise, Prediction(noise, 0.1, 0.1), STAMPS)
    where = urlsplit(sink.url)
    ask = (
        f"GET /stream HTTP/1.1\r\nHost: {where.netloc}\r\nOrigin: http://{where.netloc}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    with socket.create_connection(endpoint(sink.url)) as hung:
        hung.sendall(ask.encode())
        assert hung.recv(12) == b"HTTP/1.1 101"  # the rest is never read

        # Block the server's thread: a show() that waits for it would never return.
        held, free = threading.Event(), threading.Event()

        def hold() -> None:
            held.set()
            free.wait()

        sink._loop.call_soon_threadsafe(hold)
        assert held.wait(120)
        for _ in range(100):
            sink.show(big)
        free.set()

        end = time.monotonic() + 120
        while sink._viewers:
            assert time.monotonic() < end, "the hanging viewer was not dropped"
            sink.show(big)
            time.sleep(0.05)
        assert get(sink.url)[0] == 200


# The end


def test_close_twice_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    sink = WebSink("0", snapshot=snapshot)
    (thread,) = set(threading.enumerate()) - before
    assert thread.daemon
    sink.show(event(0))
    sink.close()
    sink.close()
    sink.show(event(1))
    assert set(threading.enumerate()) == before
    with pytest.raises(aiohttp.ClientConnectionError):
        get(sink.url)


def test_close_with_a_viewer_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "SEND_TIMEOUT", 0.5)
    sink = WebSink("0", snapshot=snapshot)

    async def run() -> None:
        async with watch(sink.url):  # never reads, so it does not answer the closing handshake
            await asyncio.get_running_loop().run_in_executor(None, sink.close)

    asyncio.run(run())
    assert not sink._thread.is_alive()


def test_a_failure_is_raised_by_show() -> None:
    def broken() -> Mapping[str, object]:
        raise ZeroDivisionError("no frames")

    sink = WebSink("0", snapshot=broken)

    async def run() -> None:
        async with watch(sink.url) as viewer:
            async for _ in viewer:  # ends at once: the viewer does not wait for news that never comes
                pass

    asyncio.run(run())
    sink._thread.join(120)
    with pytest.raises(SinkError, match=r"^the browser page has failed: ZeroDivisionError\('no frames'\)"):
        sink.show(event(0))
    sink.close()
