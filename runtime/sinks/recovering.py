"""An output that was lost is tried again while the run goes on: a receiver that ended, a disk that was full."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress

from framecast.backoff import Backoff
from framecast.clock import SYSTEM, Clock
from framecast.errors import SinkError, SinkUnavailableError
from framecast.runtime.sinks.sink import Output, Result, Sink

_log = logging.getLogger(__name__)


class Recovering(Sink):
    """A sink that is opened again when it was lost. Results that come meanwhile are left out and counted.

    An output that never worked, and cannot, ends the run: its error is raised. One that is lost at the end of the run
    raises its error when it is closed.

    Args:
        asked: its path or address as it was given, without credentials.
        open: opens the sink: a fresh one each time.
        waits: whether to wait for one that does not take pictures yet, but may later; otherwise that ends the run, too.
        ready: whether to open it again, given the seconds that its last failure took.
        clock: measures the waits, which are those of :class:`framecast.backoff.Backoff`.
        seed: of the waits' random part (default: another one each time).

    Raises:
        SinkError: it cannot be opened, and waiting will not help.
    """

    def __init__(
        self,
        asked: str,
        open: Callable[[], Sink],
        *,
        waits: bool = True,
        ready: Callable[[float], bool] = lambda took: True,
        clock: Clock = SYSTEM,
        seed: int | None = None,
    ) -> None:
        self._open, self._waits, self._ready = open, waits, ready
        self._clock = clock
        self._backoff = Backoff(clock, seed)
        self._lock = threading.Lock()  # of the next three, for written()
        self._sink: Sink | None = None
        self._past = Output(asked=asked, to=asked, codec=None, files=0, removed=0, lost=0, missed=0, trouble=None)
        self._error: SinkError | None = None  # why it is out
        self._works = False  # it has taken a result
        self._next = 0.0  # the moment of the next attempt
        self._took = 0.0  # seconds of the last failure
        try:
            self._sink = open()
        except SinkUnavailableError as error:
            if not waits:
                raise
            self._lose(error, self._clock.now())

    def written(self) -> Output:
        """See :meth:`Sink.written`. All connections or files count."""
        with self._lock:
            return self._sum()

    def show(self, result: Result) -> None:
        """See :meth:`Sink.show`."""
        sink = self._sink or self._again()
        if sink is not None:
            begun = self._clock.now()
            try:
                sink.show(result)
            except SinkError as error:
                if not (self._works or (self._waits and isinstance(error, SinkUnavailableError))):
                    raise
                self._lose(error, begun)
            else:
                self._works = True
                if self._error is not None:
                    _log.info("%s is back after %.1f s", self._past["asked"], self._backoff.outage)
                    self._error = None
                return
        with self._lock:
            self._past["missed"] += 1

    def close(self) -> None:
        """See :meth:`Sink.close`.

        Raises:
            SinkError: its end cannot be written, or it is out.
        """
        if self._sink is not None:
            self._sink.close()
        if self._error is not None:
            raise self._error

    def _again(self) -> Sink | None:
        """Open it if it is time to; None if it is not, or cannot be opened."""
        if self._clock.now() < self._next:
            return None
        self._backoff.attempt()
        begun = self._clock.now()
        try:
            opened = self._open() if self._ready(self._took) else None
        except SinkError as error:
            self._lose(error, begun)
            return None
        if opened is None:
            self._next = self._clock.now() + self._backoff.pause()
            return None
        self._backoff.opened()
        with self._lock:
            self._sink = opened
        return opened

    def _lose(self, error: SinkError, begun: float) -> None:
        _log.info("attempt %d: %s", self._backoff.attempts, error)
        sink = self._sink
        if sink is not None:
            with suppress(SinkError):  # the first error counts
                sink.close()
            self._backoff.lost()
        with self._lock:
            self._past = self._sum()
            self._past["lost"] += self._error is None
            self._sink, self._error = None, error
        self._took = self._clock.now() - begun
        self._next = self._clock.now() + self._backoff.pause()

    def _sum(self) -> Output:
        past, newest = self._past.copy(), None if self._sink is None else self._sink.written()
        past["trouble"] = None if self._error is None else str(self._error)
        if newest is not None and newest["files"]:
            past["to"], past["codec"] = newest["to"], newest["codec"]
            past["files"] += newest["files"]
            past["removed"] += newest["removed"]
        return past
