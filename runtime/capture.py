"""Capture: a thread that reads a source and leaves its frames in a mailbox."""

from __future__ import annotations

import threading

from framecast.camera import DEFAULT_FPS, Frame, Source
from framecast.clock import SYSTEM, Clock
from framecast.runtime.mailbox import Mailbox

CATCH_UP = 1.0  # seconds: after a longer pause, a paced file does not race to catch up
JOIN = 10.0  # seconds that a read may take to return after the source was closed


class Capture:
    """Reads one source in its own thread.

    Args:
        source: :meth:`close` closes it.
        paced: play a file at its own frame rate instead of as fast as possible.
        clock: for waiting and for the stamps.

    Attributes:
        mailbox: frames, each with the time (seconds) when the thread had it, before it waited for room.
        failure: the source's exception, if any; final when the mailbox has ended and nobody has called :meth:`stop`.
        started: whether the thread was started.
    """

    def __init__(self, source: Source, *, paced: bool = False, clock: Clock = SYSTEM) -> None:
        self.mailbox: Mailbox[tuple[Frame, float]] = Mailbox(newest=source.live, clock=clock)
        self.failure: Exception | None = None
        self._source = source
        self._paced = paced
        self._clock = clock
        self._changed = clock.condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._read, name="framecast-capture", daemon=True)

    @property
    def started(self) -> bool:
        """Whether the thread has been started."""
        return self._thread.ident is not None

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """End soon, and put no more frames in the mailbox. Safe in a signal handler."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self.mailbox.close()

    def close(self) -> None:
        """Stop, close the source, and wait for the thread. The wait is limited, because a driver may hang in a read."""
        self.stop()
        self._source.close()
        if self.started:
            self._clock.join(self._thread, self._clock.now() + JOIN)

    def _read(self) -> None:
        try:
            due = self._clock.now()
            while (frame := self._source.read()) is not None:
                if self._paced:
                    due = max(due, self._clock.now() - CATCH_UP)
                    if not self._wait_until(due):
                        break
                    due += 1 / (self._source.fps or DEFAULT_FPS)
                if not self.mailbox.put((frame, self._clock.now())):
                    break
        except Exception as error:  # noqa: BLE001 (raised by the loop that takes the frames)
            self.failure = error
        finally:
            self.mailbox.close()

    def _wait_until(self, moment: float) -> bool:
        """Wait until ``moment``; False if stopped before."""
        with self._changed:
            while not self._stopped and self._clock.now() < moment:
                self._clock.wait(self._changed, moment)
            return not self._stopped
