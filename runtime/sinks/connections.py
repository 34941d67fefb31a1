"""The page's open connections: their number is bounded, and strangers cannot take the places of those with a token."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import cast

MAX_STRANGERS = 32  # connections without an accepted request yet
MAX_KNOWN = 32  # connections with one: pages, statistics, viewers
HEADER_TIMEOUT = 5.0  # seconds from a connection to its first accepted request
IDLE_TIMEOUT = 150.0  # seconds after the last one; longer than a proxy reuses a connection (nginx 60 s, Caddy 120 s)


class Connections:
    """Counts connections, and drops those in excess or idle.

    A new connection is a stranger. Its first accepted request makes it known. Strangers and known ones have places of
    their own, so silent or refused connections cannot lock out anyone who has the token. If the strangers' places are
    full, the newest gets the place of the oldest, of the machine that has most. If those of the known are full, that
    of the one whose last request is the oldest.

    Args:
        make: makes the HTTP protocol of a connection.
    """

    def __init__(self, make: Callable[[], asyncio.Protocol]) -> None:
        self._make = make
        self._strangers: dict[asyncio.BaseTransport, _Connection] = {}  # oldest first
        self._known: dict[asyncio.BaseTransport, _Connection] = {}  # by the last request, oldest first

    def accept(self) -> asyncio.Protocol:
        """The protocol of a new connection."""
        return _Connection(self._make(), self._enter, self._leave)

    def know(self, transport: asyncio.BaseTransport | None) -> None:
        """Note an accepted request: the connection is known, and its idle time begins anew."""
        connection = self._find(transport)
        if connection is None:
            return
        self._leave(connection)
        if len(self._known) >= MAX_KNOWN:
            self._drop(next(one for one in self._known.values() if not one.held))  # viewers are fewer than MAX_KNOWN
        self._known[connection.transport] = connection
        connection.drop_after(IDLE_TIMEOUT, self._drop)

    def hold(self, transport: asyncio.BaseTransport | None) -> None:
        """Let a connection stay until its request is done, however long that takes: a viewer's stream."""
        if connection := self._find(transport):
            connection.hold()

    def _find(self, transport: asyncio.BaseTransport | None) -> _Connection | None:
        if transport is None:  # already closed
            return None
        return self._known.get(transport) or self._strangers.get(transport)

    def _enter(self, connection: _Connection) -> None:
        if len(self._strangers) >= MAX_STRANGERS:
            peers = Counter(one.peer for one in self._strangers.values())
            most = max(peers.values())
            self._drop(next(one for one in self._strangers.values() if peers[one.peer] == most))
        self._strangers[connection.transport] = connection
        connection.drop_after(HEADER_TIMEOUT, self._drop)

    def _leave(self, connection: _Connection) -> None:
        self._strangers.pop(connection.transport, None)
        self._known.pop(connection.transport, None)

    def _drop(self, connection: _Connection) -> None:
        self._leave(connection)
        connection.transport.abort()


class _Connection(asyncio.Protocol):
    """Passes everything on to the HTTP protocol, and reports the beginning and the end."""

    def __init__(
        self,
        inner: asyncio.Protocol,
        enter: Callable[[_Connection], None],
        leave: Callable[[_Connection], None],
    ) -> None:
        self._inner, self._enter, self._leave = inner, enter, leave
        self._timer: asyncio.TimerHandle | None = None
        self.transport: asyncio.Transport
        self.peer = ""
        self.held = False

    def drop_after(self, seconds: float, drop: Callable[[_Connection], None]) -> None:
        self._stop()
        self._timer = asyncio.get_running_loop().call_later(seconds, drop, self)

    def hold(self) -> None:
        self.held = True
        self._stop()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.peer = (transport.get_extra_info("peername") or ("",))[0]
        self._enter(self)
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        self._leave(self)
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()
