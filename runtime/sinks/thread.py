"""Runs a sink in its own thread, so that encoding and writing do not delay the path from camera to prediction."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from framecast.clock import SYSTEM, Clock
from framecast.errors import SinkError
from framecast.runtime.mailbox import Mailbox
from framecast.runtime.sinks.sink import Output, Result, Sink

# Results, each with a full frame. If a sink falls this far behind, the run waits for it, and camera frames are dropped.
CAPACITY = 4
LEAVING = 1.0  # seconds that a sink may take for what it has been given, once the user ends the run
LOOK = 0.1  # seconds between two looks whether the user ends the run


class _StuckError(SinkError):
    """The sink did not come back."""


class SinkThread(Sink):
    """Hands results to a sink in order. The next ``show`` or ``close`` raises the sink's error, once.

    Args:
        sink: called in the thread; :meth:`close` closes it.
        newest: leave out results that come while it is busy, instead of waiting for it.
        patience: seconds that the sink may take for a result, and to close; then it counts as lost (default: for ever).
        leaving: whether the user ends the run. A sink that is busy for ``LEAVING`` after that is left to itself, which
            is no error.
        clock: for waiting.
    """

    def __init__(
        self,
        sink: Sink,
        clock: Clock = SYSTEM,
        *,
        newest: bool = False,
        patience: float | None = None,
        leaving: Callable[[], bool] | None = None,
    ) -> None:
        self._sink = sink
        self._mailbox: Mailbox[Result] = Mailbox(newest=newest, capacity=CAPACITY, clock=clock)
        self._failure: Exception | None = None
        self._raised = False
        self._clock = clock
        self._patience = patience
        self._leaving = leaving
        self._begun: float | None = None  # when the sink was given the result that it is busy with
        self._thread = threading.Thread(target=self._run, name=f"framecast-{type(sink).__name__}", daemon=True)
        self._thread.start()

    def show(self, result: Result) -> None:
        """Hand over a result.

        Raises:
            SinkError: the sink failed.
        """
        begun = self._begun
        if self._patience is not None and begun is not None and self._clock.now() - begun > self._patience:
            self._failure = self._failure or self._stuck()
        self._raise()
        if self._leaving is None:
            self._mailbox.put(result)
            return
        while not self._mailbox.put(result, self._clock.now() + LOOK):
            if self._leaving():
                return

    def written(self) -> Output | None:
        """See :meth:`Sink.written`."""
        return self._sink.written()

    def close(self) -> None:
        """Wait until the sink has taken every result, and close it.

        Raises:
            SinkError: the sink failed, and no ``show`` has raised that error yet.
        """
        self._mailbox.close()
        if self._leaving is not None:
            self._await(self._leaving)
            return
        deadline = None
        if self._patience is not None:
            deadline = self._clock.now() + (0 if isinstance(self._failure, _StuckError) else self._patience)
        self._clock.join(self._thread, deadline)
        if self._thread.is_alive():  # it hangs in a library; the process can end without it
            self._failure = self._failure or self._stuck()
        self._raise()

    def _await(self, leaving: Callable[[], bool]) -> None:
        """Wait until the sink has taken every result, but not if the user ends the run and it takes none."""
        until = math.inf
        while self._thread.is_alive() and (now := self._clock.now()) < until:
            if leaving():
                until = min(until, now + LEAVING)
            self._clock.join(self._thread, min(until, now + LOOK))
        self._raise()
        if self._thread.is_alive():  # it takes no more, should it come back
            self._failure, self._raised = _StuckError("the user has ended the run"), True

    def _stuck(self) -> SinkError:
        output = self._sink.written()
        name = type(self._sink).__name__ if output is None else output["to"]
        return _StuckError(f"lost {name}: no answer for {self._patience:g} s (check what receives it, and the network)")

    def _raise(self) -> None:
        """Raise the sink's error, but only once."""
        if self._failure is not None and not self._raised:
            self._raised = True
            raise self._failure

    def _run(self) -> None:
        try:
            while (result := self._mailbox.get()) is not None:
                if self._failure is None:
                    self._begun = self._clock.now()
                    try:
                        self._sink.show(result)
                    except Exception as error:  # noqa: BLE001 (raised by show or close)
                        self._failure = error
                    self._begun = None
        finally:
            try:
                self._sink.close()
            except Exception as error:  # noqa: BLE001 (raised by show or close)
                self._failure = self._failure or error
