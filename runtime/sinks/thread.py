"""Runs a sink in a thread of its own, so that encoding and writing are off the path from camera to prediction."""

from __future__ import annotations

import queue
import threading

from framecast.runtime.sinks.sink import Result, Sink

# Events, each with a whole frame. When a sink falls this far behind, the run waits for it, and a camera's frames drop.
CAPACITY = 4


class SinkThread:
    """Hands results to a sink in order; what goes wrong there is raised at the next ``show`` or at ``close``."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._queue: queue.Queue[Result | None] = queue.Queue(CAPACITY)
        self._failure: Exception | None = None
        self._said = False
        self._thread = threading.Thread(target=self._run, name=f"framecast-{type(sink).__name__}", daemon=True)
        self._thread.start()

    def show(self, result: Result) -> None:
        """Hand over an result.

        Raises:
            SinkError: the sink failed.
        """
        self._raise()
        self._queue.put(result)

    def close(self) -> None:
        """Wait until everything handed over is done, and close the sink.

        Raises:
            SinkError: the sink failed, and no ``show`` has said so yet.
        """
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        self._raise()

    def _raise(self) -> None:
        """What went wrong is said once."""
        if self._failure is not None and not self._said:
            self._said = True
            raise self._failure

    def _run(self) -> None:
        try:
            while (result := self._queue.get()) is not None:
                if self._failure is None:
                    try:
                        self._sink.show(result)
                    except Exception as error:  # noqa: BLE001 (raised where it is fed)
                        self._failure = error
        finally:
            try:
                self._sink.close()
            except Exception as error:  # noqa: BLE001 (raised where it is fed)
                self._failure = self._failure or error
