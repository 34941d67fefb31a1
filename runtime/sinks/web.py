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
import socket
import threading
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import cast
from urllib.parse import quote

from aiohttp import web

from framecast.errors import SinkError
from framecast.notice import Notice
from framecast.runtime.report import to_json
from framecast.runtime.sinks import page
from framecast.runtime.sinks.access import Access
from framecast.runtime.sinks.address import bracketed, listen, outward, parse
from framecast.runtime.sinks.connections import Connections
from framecast.runtime.sinks.feed import Feed, Viewer
from framecast.runtime.sinks.health import Pulse, exposition, readiness
from framecast.runtime.sinks.sink import Result, Sink

MAX_VIEWERS = 8
ALONE = "camera1"  # the name of the only camera
BACKLOG = 128  # connections that wait to be accepted; if there are more, they must ask again a second later
SEND_TIMEOUT = 3.0  # seconds to send one update, or for a viewer to answer a close
MIN_INTERVAL = 0.0125  # seconds between updates: a little less than one frame at 60 fps, so that jitter skips none
HEARTBEAT = 1.0  # seconds between updates without a new picture: the page then knows that the camera is out, not we
HEALTH = ("/live", "/ready")  # for machines that watch over this one: they say nothing secret, so they need no token
SEND_BUFFER = 128 * 1024  # bytes that the kernel may buffer for a viewer; buffered pictures are no longer live

_silent = logging.Logger("framecast.web", level=logging.CRITICAL + 1)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class WebSink(Sink):
    """Serves a read-only page that shows the run live. By default only this machine can reach it.

    Args:
        address: HOST:PORT, HOST or PORT; port 0 means any free port. On an address that other machines can reach,
            every request needs the token.
        snapshot: returns the figures of the run; called in the server's thread.
        cameras: for a run of several cameras, what returns the figures of each, by its name. The page then shows all.
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
        cameras: Mapping[str, Callable[[], Mapping[str, object]]] | None = None,
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

        self._feeds = {
            name: Feed(figures, self._check, self._notify) for name, figures in (cameras or {ALONE: snapshot}).items()
        }
        self._many = cameras is not None
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
        """Leave a result of the first camera for the viewers, and return at once.

        Raises:
            SinkError: the server has failed.
        """
        next(iter(self._feeds.values())).show(result)

    def feed(self, name: str) -> Feed:
        """What takes the results of a camera."""
        return self._feeds[name]

    def add(self, name: str, figures: Callable[[], Mapping[str, object]]) -> None:
        """Show one more camera. One of the same name goes on with the results of the new one."""
        if name not in self._feeds:  # replaced as a whole: the server's thread reads it
            self._feeds = self._feeds | {name: Feed(figures, self._check, self._notify)}

    def keep(self, names: Collection[str]) -> None:
        """Show only these cameras from now on."""
        self._feeds = {name: feed for name, feed in self._feeds.items() if name in names}

    def notice(self, *, told: bool) -> Notice:
        """The line that says where the page is.

        Args:
            told: whether to tell the token. A secret that somebody set is not for the journal; one that was made for
                this run must be told.
        """
        shown = self.url if told else f"{self.address} (add ?token= and your token)"
        return Notice("serving", f"watch it at {shown}", address=self.address, token=self.url != self.address)

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
        app.router.add_get("/tile.jpg", self._tile, allow_head=False)
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
            for feed in self._feeds.values():
                feed.release()
            server.close()
            if self._viewers:  # cleanup() drops what they still say, so it would wait in vain for their farewell
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._parted.wait(), SEND_TIMEOUT)
            await runner.cleanup()

    @property
    def _viewers(self) -> int:
        return sum(len(feed.viewers) for feed in self._feeds.values())

    async def _broadcast(self) -> None:
        """Send the newest results to every viewer until the run ends, and at least a heartbeat each second."""
        while not self._closing:
            try:
                await asyncio.wait_for(self._wake.wait(), HEARTBEAT)
            except asyncio.TimeoutError:
                for feed in self._feeds.values():
                    feed.heartbeat()
                continue
            self._wake.clear()
            if self._viewers and not self._closing:
                for feed in self._feeds.values():
                    feed.news()
                await asyncio.sleep(MIN_INTERVAL)
        self._ended = True
        for feed in self._feeds.values():
            feed.farewell()

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
        if name == "index.html" and self._many and request.query.get("camera") not in self._feeds:
            name = page.GRID
        return web.Response(text=self._files[name], content_type=page.TYPES[name])

    async def _stats(self, request: web.Request) -> web.Response:
        name = request.query.get("camera")
        figures = self._feed(request).figures() if name is not None or not self._many else self._snapshot()
        return web.json_response(text=to_json(figures))

    async def _tile(self, request: web.Request) -> web.Response:
        picture = self._feed(request).tile()
        if picture is None:
            return web.Response(status=204)
        return web.Response(body=picture, content_type="image/jpeg")

    async def _metrics(self, request: web.Request) -> web.Response:
        accept = request.headers.get("Accept", "")
        body, kind = exposition(self._health(), self._viewers, accept)
        return web.Response(body=body, headers={"Content-Type": kind})

    async def _live(self, request: web.Request) -> web.Response:
        return _brief({"live": True})

    async def _ready(self, request: web.Request) -> web.Response:
        answer = readiness(self._health())
        return _brief(answer, status=200 if answer["ready"] else 503)

    def _health(self) -> dict[str, tuple[Mapping[str, object], Pulse]]:
        return {name: (feed.figures(), feed.pulse) for name, feed in self._feeds.items()}

    def _feed(self, request: web.Request) -> Feed:
        """The camera that a request names; the only one if there is no other.

        Raises:
            HTTPNotFound: there is no such camera.
        """
        name = request.query.get("camera", "" if self._many else ALONE)
        if name not in self._feeds:
            raise web.HTTPNotFound(text="No such camera.")
        return self._feeds[name]

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        feed = self._feed(request)
        if self._viewers >= MAX_VIEWERS:
            raise web.HTTPServiceUnavailable(text=f"Too many viewers: the limit is {MAX_VIEWERS}.")
        show = page.wanted(request.query.get("show"))
        if show is None:
            raise web.HTTPBadRequest(text="Unknown or repeated pictures in ?show=.")
        response = web.WebSocketResponse(timeout=SEND_TIMEOUT, heartbeat=4 * SEND_TIMEOUT, compress=False)
        viewer = Viewer(show)
        feed.viewers.add(viewer)
        self._parted.clear()
        self._connections.hold(request.transport)
        try:
            await response.prepare(request)
            await self._watch(response, feed, viewer, request)
        finally:
            feed.viewers.discard(viewer)
            if not self._viewers:
                self._parted.set()
        return response

    async def _watch(self, response: web.WebSocketResponse, feed: Feed, viewer: Viewer, request: web.Request) -> None:
        """Send updates until the run ends, or the viewer leaves, hangs, or (against the protocol) sends anything."""
        self._wake.set()  # a new viewer sees something at once, even if the source is stalled
        tasks = [asyncio.create_task(self._send(response, feed, viewer)), asyncio.create_task(response.receive())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0].done() and await tasks[0]:
                tasks[1].cancel()
                await asyncio.wait(tasks)  # close() gets the viewer's answer only if no other task is receiving
                await response.close(message=b"the run has ended")
        finally:
            # First of all: a hanging viewer's unread data would keep the connection open, and wait_for() may swallow a
            # cancellation (before Python 3.12, gh-86296), so that only the next send ends the task.
            if request.transport:
                request.transport.abort()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, response: web.WebSocketResponse, feed: Feed, viewer: Viewer) -> bool:
        """Send updates to the viewer. Returns True after the run's last one, False if the viewer hangs or is gone."""
        try:
            while not (self._ended and viewer.news.empty()):
                update = await viewer.news.get()
                scores, viewer.scores = feed.scores.since(viewer.scores)
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


async def _harden(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(page.HEADERS)
