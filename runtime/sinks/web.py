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
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import quote

from aiohttp import web

from framecast.errors import SinkError
from framecast.runtime.report import to_json
from framecast.runtime.sinks import page
from framecast.runtime.sinks.access import Access
from framecast.runtime.sinks.address import bracketed, listen, outward, parse
from framecast.runtime.sinks.connections import Connections
from framecast.runtime.sinks.health import Pulse, exposition
from framecast.runtime.sinks.page.pictures import Encoder, Newest
from framecast.runtime.sinks.page.scores import Scores
from framecast.runtime.sinks.sink import Result, Sink

MAX_VIEWERS = 8
BACKLOG = 128  # connections that wait to be accepted; if there are more, they must ask again a second later
SEND_TIMEOUT = 3.0  # seconds to send one update, or for a viewer to answer a close
MIN_INTERVAL = 0.0125  # seconds between updates: a little less than one frame at 60 fps, so that jitter skips none
STATS_INTERVAL = 0.25  # seconds between snapshots of the figures
HEARTBEAT = 1.0  # seconds between updates without a new picture: the page then knows that the camera is out, not we
HEALTH = ("/live", "/ready")  # for machines that watch over this one: they say nothing secret, so they need no token
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
        token: the value that a request must carry, as ``?token=…`` or ``Authorization: Bearer …`` (default: generated
            for an address that other machines can reach, otherwise none).
        hosts: names under which a proxy on this machine shows the page to others.
        title: of the page.

    Raises:
        OptionError: the address cannot be parsed or resolved, or the token or a name has a wrong form.
        SinkError: the address is not available, for example because another program uses it.
    """

    def __init__(
        self,
        address: str = "127.0.0.1:8000",
        *,
        snapshot: Callable[[], Mapping[str, object]],
        token: str | None = None,
        hosts: Iterable[str] = (),
        title: str = "framecast",
    ) -> None:
        host, port = parse(address)
        self._socket = listen(host, port)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)  # accepted sockets inherit it
        bound, port = self._socket.getsockname()[:2]
        try:
            self._access = Access(bound, host, port, token=token, hosts=hosts)
        except Exception:
            self._socket.close()
            raise
        self._snapshot = snapshot
        query = f"?token={quote(self._access.token, safe='')}" if self._access.token else ""
        shown = outward(self._socket.family) if ipaddress.ip_address(bound.partition("%")[0]).is_unspecified else host
        self._address, self._query = f"http://{bracketed(shown)}:{port}/", query
        self._files = page.files(title, query)

        self._pulse = Pulse()
        self._newest: Newest | None = None  # replaced as a whole, so it needs no lock
        self._scores = Scores()
        self._encoder = Encoder()
        self._viewers: set[_Viewer] = set()
        self._figures: Mapping[str, object] = {}
        self._figures_time = -math.inf
        self._closing = False
        self._ended = False
        self._failure: Exception | None = None
        self._wake, self._parted = asyncio.Event(), asyncio.Event()
        self._loop: asyncio.AbstractEventLoop
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), name="framecast-web", daemon=True)
        self._thread.start()
        started.wait()
        self._check()

    @property
    def url(self) -> str:
        """The address to open in a browser, including the token if there is one."""
        return self._address + self._query

    @property
    def address(self) -> str:
        """The same without the token."""
        return self._address

    def show(self, result: Result) -> None:
        """Leave the result for the viewers, and return at once.

        Raises:
            SinkError: the server has failed.
        """
        self._check()
        self._pulse.see(result)
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
        app.router.add_get("/metrics", self._metrics, allow_head=False)
        app.router.add_get("/stream", self._stream, allow_head=False)
        app.router.add_get("/live", self._live)
        app.router.add_get("/ready", self._ready)
        for name in page.TYPES:
            app.router.add_get(f"/{name}", self._file, allow_head=False)
        # No logs: a client's request, malformed or not, must not print in the run's terminal.
        runner = web.AppRunner(app, access_log=None, logger=_silent, shutdown_timeout=2 * SEND_TIMEOUT)
        await runner.setup()

        self._connections = Connections(cast("web.Server", runner.server))  # not None after setup()
        server = await self._loop.create_server(self._connections.accept, sock=self._socket, backlog=BACKLOG)
        started.set()
        try:
            await self._broadcast()
        finally:
            self._ended = True
            for viewer in self._viewers:  # after a failure, they still wait for news
                if viewer.news.empty():
                    viewer.news.put_nowait(page.Update({"age_s": self._pulse.age}))
            server.close()
            if self._viewers:  # cleanup() drops what they still say, so it would wait in vain for their farewell
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._parted.wait(), SEND_TIMEOUT)
            await runner.cleanup()

    async def _broadcast(self) -> None:
        """Send the newest result to every viewer until the run ends, and at least a heartbeat each second."""
        while not self._closing:
            try:
                await asyncio.wait_for(self._wake.wait(), HEARTBEAT)
            except asyncio.TimeoutError:
                self._publish([viewer for viewer in self._viewers if viewer.news.empty()], pictures=False)
                continue
            self._wake.clear()
            if self._viewers and not self._closing:
                self._publish([viewer for viewer in self._viewers if viewer.needs(self._newest)])
                await asyncio.sleep(MIN_INTERVAL)
        self._ended = True
        self._figures_time = -math.inf  # send the last figures with the last picture
        self._publish([*self._viewers])

    def _publish(self, viewers: list[_Viewer], *, pictures: bool = True) -> None:
        if not viewers:
            return
        newest, age = self._newest, self._pulse.age
        moment: dict[str, object] = {"age_s": None if age is None else round(age, 1)}
        encoded: dict[str, bytes] = {}
        if newest is not None and pictures:
            moment |= _moment(newest)
            encoded = self._encoder.encode(newest, frozenset().union(*(viewer.show for viewer in viewers)))
        update = page.Update(moment, encoded, self._current())
        for viewer in viewers:
            if viewer.news.full():
                viewer.news.get_nowait()  # the newest wins
            viewer.news.put_nowait(update)

    def _current(self) -> Mapping[str, object]:
        """The run's figures, at most ``STATS_INTERVAL`` old."""
        if time.monotonic() - self._figures_time >= STATS_INTERVAL:
            self._figures_time = time.monotonic()
            self._figures = self._snapshot()
        return self._figures

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in HEALTH:
            return await handler(request)
        refusal = self._access.refusal(request, from_page=request.path == "/stream")
        if refusal is not None:
            answer = web.HTTPForbidden(text=refusal)
            answer.force_close()
            raise answer
        self._connections.know(request.transport)
        return await handler(request)

    async def _file(self, request: web.Request) -> web.Response:
        name = request.path.removeprefix("/") or "index.html"
        return web.Response(text=self._files[name], content_type=page.TYPES[name])

    async def _stats(self, request: web.Request) -> web.Response:
        return web.json_response(text=to_json(self._current()))

    async def _metrics(self, request: web.Request) -> web.Response:
        accept = request.headers.get("Accept", "")
        body, kind = exposition(self._current(), self._pulse, len(self._viewers), accept)
        return web.Response(body=body, headers={"Content-Type": kind})

    async def _live(self, request: web.Request) -> web.Response:
        return _brief({"live": True})

    async def _ready(self, request: web.Request) -> web.Response:
        reason = self._pulse.failing(self._current())
        if reason is None:
            return _brief({"ready": True})
        return _brief({"ready": False, "reason": reason}, status=503)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        if len(self._viewers) >= MAX_VIEWERS:
            raise web.HTTPServiceUnavailable(text=f"Too many viewers: the limit is {MAX_VIEWERS}.")
        show = page.wanted(request.query.get("show"))
        if show is None:
            raise web.HTTPBadRequest(text="Unknown or repeated pictures in ?show=.")
        response = web.WebSocketResponse(timeout=SEND_TIMEOUT, heartbeat=4 * SEND_TIMEOUT, compress=False)
        viewer = _Viewer(show)
        self._viewers.add(viewer)
        self._parted.clear()
        self._connections.hold(request.transport)
        try:
            await response.prepare(request)
            await self._watch(response, viewer, request)
        finally:
            self._viewers.discard(viewer)
            if not self._viewers:
                self._parted.set()
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


def _brief(answer: Mapping[str, object], status: int = 200) -> web.Response:
    """A small JSON answer, after which the connection is closed: whoever asks has no place reserved."""
    response = web.json_response(text=to_json(answer), status=status)
    response.force_close()
    return response


def _moment(newest: Newest) -> dict[str, object]:
    """What a page needs besides the pictures: data of the newest frame, and the score of the newest scored frame."""
    frame, scored = newest.frame.frame, newest.scored
    ahead = round(1e3 * newest.shown.prediction.ahead, 1)
    score = {"psnr": scored.psnr, "psnr_copy": scored.psnr_copy} if scored else {"psnr": None, "psnr_copy": None}
    concealed = newest.shown.concealed
    return {"index": frame.index, "time": frame.time, "ahead_ms": ahead, "concealed": concealed, **score}


async def _harden(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(page.HEADERS)
