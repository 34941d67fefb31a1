"""A browser page that shows the late picture, the prediction, and the score.

The pipeline, the server and the viewers never wait for one another. The pipeline's thread leaves its newest result here
and continues. The server's thread encodes that result for all viewers. A slow viewer misses frames, and a viewer that
hangs is dropped.

The package ``page`` holds the page's files and the format of its updates.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import math
import secrets
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from aiohttp import web

from framecast.errors import SinkError
from framecast.runtime.report import to_json
from framecast.runtime.sinks import page
from framecast.runtime.sinks.address import bracketed, listen, outward, parse
from framecast.runtime.sinks.page.pictures import Encoder, Newest
from framecast.runtime.sinks.page.scores import Scores
from framecast.runtime.sinks.sink import Result, Sink

MAX_VIEWERS = 8
MAX_CONNECTIONS = 64  # in total: pages, statistics, viewers, and idle connections
BACKLOG = 32  # connections accepted at a time; MAX_CONNECTIONS may be exceeded by this many
SEND_TIMEOUT = 3.0  # seconds to send one update, or for a viewer to answer a close
MIN_INTERVAL = 0.0125  # seconds between updates: a little less than one frame at 60 fps, so that jitter skips none
STATS_INTERVAL = 0.25  # seconds between snapshots of the figures
SEND_BUFFER = 128 * 1024  # bytes that the kernel may buffer for a viewer; buffered pictures are no longer live

_silent = logging.Logger("framecast.web", level=logging.CRITICAL + 1)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(eq=False)
class _Viewer:
    """One open page.

    Attributes:
        show: the pictures that it wants.
        news: the next update for it.
        scores: the number of scores that it has received.
        stats: the last figures that it received.
    """

    show: frozenset[str]
    news: asyncio.Queue[page.Update] = field(default_factory=lambda: asyncio.Queue(maxsize=1))
    scores: int = 0
    stats: Mapping[str, object] | None = None

    def needs(self, newest: Newest | None) -> bool:
        """Whether ``newest`` holds something new for it. A later moment of a frame changes only the "now" picture."""
        return newest is None or not newest.shown.between or "now" in self.show or self.stats is None


class WebSink(Sink):
    """Serves a read-only page that shows the run live. By default only this machine can reach it.

    Args:
        address: HOST:PORT, HOST or PORT; port 0 means any free port. On an address that other machines can reach,
            every request needs the token.
        snapshot: returns the figures for the page; called in the server's thread.
        token: the value that a request must carry as ``?token=…`` (default: generated for an address that other
            machines can reach, otherwise none).
        title: of the page.

    Raises:
        OptionError: the address cannot be parsed or resolved.
        SinkError: the address is not available, for example because another program uses it.
    """

    def __init__(
        self,
        address: str = "127.0.0.1:8000",
        *,
        snapshot: Callable[[], Mapping[str, object]],
        token: str | None = None,
        title: str = "framecast",
    ) -> None:
        host, port = parse(address)
        self._socket = listen(host, port)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)  # accepted sockets inherit it
        bound, port = self._socket.getsockname()[:2]
        interface = ipaddress.ip_address(bound.partition("%")[0])
        local = interface.is_loopback
        self._token = token or (None if local else secrets.token_urlsafe())
        self._snapshot = snapshot

        # Against DNS rebinding: a foreign page must not get in through a name that resolves to this machine. So on
        # loopback we answer only to loopback's own names. Elsewhere the token keeps strangers out.
        names = {"localhost", "127.0.0.1", "[::1]", bracketed(bound), bracketed(host).lower()}
        self._hosts = {f"{name}:{port}" for name in names} | (names if port == 80 else set()) if local else None
        query = f"?token={quote(self._token, safe='')}" if self._token else ""
        shown = outward(self._socket.family) if interface.is_unspecified else host
        self._url = f"http://{bracketed(shown)}:{port}/{query}"
        self._files = page.files(title, query)

        self._newest: Newest | None = None  # replaced as a whole, so it needs no lock
        self._scores = Scores()
        self._encoder = Encoder()
        self._viewers: set[_Viewer] = set()
        self._figures: Mapping[str, object] = {}
        self._figures_time = -math.inf
        self._closing = False
        self._ended = False
        self._failure: Exception | None = None
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), name="framecast-web", daemon=True)
        self._thread.start()
        started.wait()
        self._check()

    @property
    def url(self) -> str:
        """The address to open in a browser, including the token if there is one."""
        return self._url

    def show(self, result: Result) -> None:
        """Leave the result for the viewers, and return at once.

        Raises:
            SinkError: the server has failed.
        """
        self._check()
        self._scores.add(result)
        self._newest = Newest.after(self._newest, result)
        self._notify()

    def close(self) -> None:
        """Tell the viewers that the run has ended, and stop serving. May be called twice."""
        self._closing = True
        self._notify()
        self._thread.join()

    def _check(self) -> None:
        if self._failure:
            raise SinkError(f"the browser page has failed: {self._failure!r}: run without --serve") from self._failure

    def _notify(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            self._loop.call_soon_threadsafe(self._wake.set)

    # All methods below run in the server's thread.

    def _run(self, started: threading.Event) -> None:
        try:
            asyncio.run(self._serve(started))
        except Exception as error:  # noqa: BLE001 (raised by show)
            self._failure = error
        finally:
            self._socket.close()
            started.set()

    async def _serve(self, started: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        app = web.Application(middlewares=[self._guard])
        app.on_response_prepare.append(_harden)
        app.router.add_get("/", self._file, allow_head=False)
        app.router.add_get("/stats.json", self._stats, allow_head=False)
        app.router.add_get("/stream", self._stream, allow_head=False)
        for name in page.TYPES:
            app.router.add_get(f"/{name}", self._file, allow_head=False)
        # No logs: a client's request, malformed or not, must not print in the run's terminal.
        runner = web.AppRunner(app, access_log=None, logger=_silent, shutdown_timeout=2 * SEND_TIMEOUT)
        await runner.setup()

        def accept() -> asyncio.BaseProtocol:
            served = runner.server
            return served() if served and len(served.connections) < MAX_CONNECTIONS else _Refusal()

        server = await self._loop.create_server(accept, sock=self._socket, backlog=BACKLOG)
        started.set()
        try:
            await self._broadcast()
        finally:
            self._ended = True
            server.close()
            await runner.cleanup()

    async def _broadcast(self) -> None:
        """Send the newest result to every viewer until the run ends."""
        while not self._closing:
            await self._wake.wait()
            self._wake.clear()
            if self._viewers and not self._closing:
                self._publish()
                await asyncio.sleep(MIN_INTERVAL)
        self._ended = True
        self._figures_time = -math.inf  # send the last figures with the last picture
        self._publish()

    def _publish(self) -> None:
        newest = self._newest
        viewers = [viewer for viewer in self._viewers if viewer.needs(newest)]
        if not viewers:
            return
        if time.monotonic() - self._figures_time >= STATS_INTERVAL:
            self._figures_time = time.monotonic()
            self._figures = self._snapshot()
        moment, pictures = {}, {}
        if newest is not None:
            wanted = frozenset().union(*(viewer.show for viewer in viewers))
            moment = _moment(newest)
            pictures = self._encoder.encode(newest, wanted)
        update = page.Update(moment, pictures, self._figures)
        for viewer in viewers:
            if viewer.news.full():
                viewer.news.get_nowait()  # the newest wins
            viewer.news.put_nowait(update)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        host = request.headers.get("Host", "").lower()
        if self._hosts is not None and host not in self._hosts:
            raise web.HTTPForbidden(text="This page is only for browsers on this machine.")
        if self._token and not secrets.compare_digest(request.query.get("token", "").encode(), self._token.encode()):
            raise web.HTTPForbidden(text="The token is missing or wrong: open the address that framecast printed.")
        origin = request.headers.get("Origin", "").lower()
        if request.path == "/stream" and origin not in (f"http://{host}", f"https://{host}"):
            raise web.HTTPForbidden(text="Only this server's own page may open the stream.")
        return await handler(request)

    async def _file(self, request: web.Request) -> web.Response:
        name = request.path.removeprefix("/") or "index.html"
        return web.Response(text=self._files[name], content_type=page.TYPES[name])

    async def _stats(self, request: web.Request) -> web.Response:
        return web.json_response(text=to_json(self._snapshot()))

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        if len(self._viewers) >= MAX_VIEWERS:
            raise web.HTTPServiceUnavailable(text=f"Too many viewers: the limit is {MAX_VIEWERS}.")
        show = page.wanted(request.query.get("show"))
        if show is None:
            raise web.HTTPBadRequest(text="Unknown or repeated pictures in ?show=.")
        response = web.WebSocketResponse(timeout=SEND_TIMEOUT, heartbeat=4 * SEND_TIMEOUT, compress=False)
        viewer = _Viewer(show)
        self._viewers.add(viewer)
        try:
            await response.prepare(request)
            await self._watch(response, viewer, request)
        finally:
            self._viewers.discard(viewer)
        return response

    async def _watch(self, response: web.WebSocketResponse, viewer: _Viewer, request: web.Request) -> None:
        """Send updates until the run ends, or the viewer leaves, hangs, or (against the protocol) sends anything."""
        self._wake.set()  # a new viewer sees something at once, even if the source is stalled
        tasks = [asyncio.create_task(self._send(response, viewer)), asyncio.create_task(response.receive())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0].done() and await tasks[0]:
                tasks[1].cancel()
                await asyncio.wait(tasks)  # close() gets the viewer's answer only if no other task is receiving
                await response.close(message=b"the run has ended")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if request.transport:
                request.transport.abort()  # a hanging viewer's unread data would keep the connection open

    async def _send(self, response: web.WebSocketResponse, viewer: _Viewer) -> bool:
        """Send updates to the viewer. Returns True after the run's last one, False if the viewer hangs or is gone."""
        try:
            while not (self._ended and viewer.news.empty()):
                update = await viewer.news.get()
                scores, viewer.scores = self._scores.since(viewer.scores)
                message = update.message(viewer.show, scores, stats=update.stats is not viewer.stats)
                viewer.stats = update.stats
                await asyncio.wait_for(response.send_bytes(message), SEND_TIMEOUT)
        except (ConnectionError, asyncio.TimeoutError):
            return False
        return True


class _Refusal(asyncio.Protocol):
    """Closes a connection at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _moment(newest: Newest) -> dict[str, object]:
    """What a page needs besides the pictures: data of the newest frame, and the score of the newest scored frame."""
    frame, scored = newest.frame.frame, newest.scored
    ahead = round(1e3 * newest.shown.prediction.ahead, 1)
    score = {"psnr": scored.psnr, "psnr_copy": scored.psnr_copy} if scored else {"psnr": None, "psnr_copy": None}
    concealed = newest.shown.concealed
    return {"index": frame.index, "time": frame.time, "ahead_ms": ahead, "concealed": concealed, **score}


async def _harden(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(page.HEADERS)
