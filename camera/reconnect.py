"""Opens a lost camera again, for as long as it takes."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from framecast.backoff import REFUSED, Backoff
from framecast.camera.media import SILENT
from framecast.camera.source import Frame, Outages, Source, Times
from framecast.clock import SUSPENDED, SYSTEM, Clock
from framecast.errors import SourceError, SourceRefusedError, SourceUnavailableError

_log = logging.getLogger(__name__)


class Reconnecting(Source):
    """A camera that is opened again when it was lost. Each new connection begins a new epoch.

    The waits between attempts are those of :class:`framecast.backoff.Backoff`. There is no last attempt. A connection
    that the machine was suspended in counts as lost, and so does the frame that is read after it: it may be older than
    it seems.

    Args:
        name: its name in messages, without credentials.
        open: opens the camera: a fresh handle each time. Raises a SourceError if it cannot.
        first: the camera, opened already; or why it could not be opened yet.
        answers: whether its host answers at all. A camera that does not is not opened: opening it may take long.
        clock: measures the waits.
        seed: of the waits' random part (default: another one each time).
    """

    live = True

    def __init__(
        self,
        name: str,
        open: Callable[[], Source],
        first: Source | str,
        *,
        answers: Callable[[], bool] = lambda: True,
        clock: Clock = SYSTEM,
        seed: int | None = None,
    ) -> None:
        self.name = name
        self.fps: float | None = None
        self._open, self._answers = open, answers
        self._clock = clock
        self._backoff = Backoff(clock, seed)
        self._changed = clock.condition()
        self._closed = False
        self._faults: Counter[str] = Counter()  # of the connections that were lost
        self._index = 0
        self._epoch = 0
        self.attempts = 0
        self._inner: Source | None = None
        self._trouble: str | None = None
        self._out: tuple[Outages, float | None] = Outages(), None  # those that are over; since when it is out now
        self._begun = not isinstance(first, str)  # whether it has been open
        if isinstance(first, str):
            self._trouble, self._out = first, (Outages(), clock.now())
        else:
            self._take(first)

    @property
    def times(self) -> Times:
        """See :attr:`Source.times`."""
        return "arrival" if self._inner is None else self._inner.times

    @property
    def notes(self) -> Sequence[str]:  # type: ignore[override]
        """See :attr:`Source.notes`: those of the newest connection."""
        return () if self._inner is None else self._inner.notes

    @property
    def faults(self) -> Mapping[str, int]:  # type: ignore[override]
        """See :attr:`Source.faults`; ``reconnects`` counts the times that the camera came back."""
        return self._faults + Counter(self._inner.faults if self._inner is not None else {})

    @property
    def trouble(self) -> str | None:  # type: ignore[override]
        """See :attr:`Source.trouble`."""
        return self._trouble

    @property
    def outages(self) -> Outages:  # type: ignore[override]
        """See :attr:`Source.outages`."""
        over, since = self._out
        return over if since is None else over.plus(self._clock.now() - since)

    def read(self) -> Frame | None:
        """Wait for the next frame, through outages. Returns None after the source was closed."""
        while (source := self._inner or self._again()) is not None:
            try:
                frame = source.read()
            except SourceError as error:
                self._lose(source, str(error))
                continue
            if self._closed:
                break
            if (slept := self._clock.slept() - self._slept) > SUSPENDED:
                self._lose(source, f"lost {self.name}: the machine was suspended for {slept:.0f} s")
                continue
            if frame is None:
                self._lose(source, f"lost {self.name}: it ended")
                continue
            self._trouble, self._out = None, (self.outages, None)
            self._index += 1
            return Frame(frame.image, frame.time, self._index - 1, self._epoch + frame.epoch)
        return None

    def close(self) -> None:
        """See :meth:`Source.close`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            source = self._inner
        if source is not None:
            source.close()

    def _again(self) -> Source | None:
        """Try to open the camera until it is open; None if this source is closed."""
        refused = False
        while self._wait(max(self._backoff.pause(), REFUSED * refused)):
            self._backoff.attempt()
            self.attempts += 1
            if not self._answers():
                self._trouble = f"lost {self.name}: {SILENT}"
                _log.debug("attempt %d: no answer from the host", self._backoff.attempts)
                continue
            try:
                source = self._open()
            except SourceError as error:
                self._trouble, refused = str(error), isinstance(error, SourceRefusedError)
                _log.debug("attempt %d: %s", self._backoff.attempts, error)
                continue
            with self._changed:
                if not self._closed:
                    self._take(source)
                    self._faults["reconnects"] += self._begun  # not when it is there for the first time
                    self._epoch += self._begun
                    self._begun = True
                    return source
            source.close()
        return None

    def _take(self, source: Source) -> None:
        self._inner, self.fps = source, source.fps
        self._backoff.opened()
        self._slept = self._clock.slept()

    def _lose(self, source: Source, trouble: str) -> None:
        self._backoff.lost()
        _log.debug("%s", trouble)
        with self._changed:
            self._faults += Counter(source.faults)
            self._trouble, self._inner = trouble, None
            over, since = self._out
            self._out = over, self._clock.now() if since is None else since
        source.close()

    def _wait(self, seconds: float) -> bool:
        """Wait; False if this source is closed."""
        deadline = self._clock.now() + seconds
        with self._changed:
            while not self._closed and self._clock.now() < deadline:
                self._clock.wait(self._changed, deadline)
            return not self._closed


def reconnecting(
    name: str,
    open: Callable[[], Source],
    *,
    answers: Callable[[], bool] = lambda: True,
    clock: Clock = SYSTEM,
) -> Source:
    """Open a camera that is to be opened again whenever it is lost. One that does not answer yet is waited for.

    Args:
        name: see :class:`Reconnecting`.
        open: see :class:`Reconnecting`.
        answers: see :class:`Reconnecting`.
        clock: see :class:`Reconnecting`.

    Returns:
        The source. What turns out to be a clip is returned as it is.

    Raises:
        SourceError: it cannot be opened, and waiting will not help: the password is wrong, say.
    """
    first: Source | str
    try:
        first = open()
    except SourceUnavailableError as error:
        first = str(error)
    if not isinstance(first, str) and not first.live:
        return first
    return Reconnecting(name, open, first, answers=answers, clock=clock)
