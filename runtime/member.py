"""One camera among others: a lane with a report before it is open, and with the error that has ended it."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

from framecast.camera import Frame, Source
from framecast.errors import FramecastError, one_line
from framecast.notice import Notice
from framecast.redact import redact, redact_message
from framecast.runtime.engines import Engine
from framecast.runtime.lane import Camera, Common, Lane
from framecast.runtime.lookahead import Lookahead
from framecast.runtime.report import Report, report
from framecast.runtime.telemetry import Telemetry


class _Unopened(Source):
    """Stands for a source that is not open yet, or could not be opened, in its camera's report."""

    live, fps = False, None

    def __init__(self, name: str) -> None:
        self.name = name

    def read(self) -> Frame | None:
        return None

    def close(self) -> None:
        pass


class Member(Lane):
    """A lane among others, in a thread of its own.

    Attributes:
        engine: its own, or its seat at the shared one.
        unseated: why it has no engine of its own; then ``engine`` only stands for it in the report.
        failure: the error that ended it.
        reason: the same in one line; "" if none did.
        done: whether it has ended, or was given up.
        given_up: why a step of its own engine was given up; its thread may never return.
        halt: set to end it.
        thread: it runs here, once it is started.
    """

    engine: Engine

    def __init__(self, camera: Camera, common: Common, announce: Callable[[str], object]) -> None:
        super().__init__(camera, common, announce)
        self.unseated: FramecastError | None = None
        self.failure: Exception | None = None
        self.reason = ""
        self.done = False
        self.given_up = ""
        self.halt = threading.Event()
        self.thread: threading.Thread | None = None
        self._telemetry = Telemetry()  # until there is a pipeline
        source = camera.source
        self._unopened = _Unopened(source.name if isinstance(source, Source) else redact(os.fspath(source)))

    @property
    def source_name(self) -> str:
        """The source's name, without credentials."""
        return self._unopened.name

    def report(self) -> Report:
        """The camera's figures so far, also before it is open."""
        if hasattr(self, "pipeline"):
            return self.pipeline.report()
        return report(self._telemetry.snapshot(), self._unopened, {}, self.engine, Lookahead())

    def fail(self, error: Exception) -> None:
        """Note what has ended this camera, and say so, once."""
        if self.failure is None:
            kind = type(error).__name__
            text = one_line(redact_message(str(error)))
            self.reason = str(error) if isinstance(error, FramecastError) else f"unexpected {kind}: {text}"
            self.failure = error
            (self.pipeline.telemetry if hasattr(self, "pipeline") else self._telemetry).end(f"error: {self.reason}")
            self.announce(Notice("camera_failed", self.reason, logging.ERROR, error=kind))

    def __exit__(self, *failed: object) -> None:
        if not self.given_up:  # its step would keep the engine's lock
            self.close()
