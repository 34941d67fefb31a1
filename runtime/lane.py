"""One camera of a run: its source, predictor, pipeline and outputs. A run has one lane for each of its cameras."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType

from framecast.camera import Source, open_source
from framecast.clock import SYSTEM, Clock
from framecast.errors import OptionError, SinkError
from framecast.notice import Notice, to_log
from framecast.runtime.conceal import check_conceal
from framecast.runtime.engines import Engine
from framecast.runtime.lookahead import MAX_AHEAD, Lookahead
from framecast.runtime.news import News
from framecast.runtime.outputs import check_recordings, recorder, sender
from framecast.runtime.pipeline import Pipeline, check_frames, check_refresh
from framecast.runtime.predictor import Predictor
from framecast.runtime.report import Report
from framecast.runtime.sinks.out import check_out, is_live
from framecast.runtime.sinks.sink import Result, Sink
from framecast.runtime.sinks.thread import SinkThread
from framecast.runtime.watchdog import STEP_LIMIT

CLOSING = 5.0  # seconds that the outputs may take to close while a step hangs
REFRESH = 0.25  # seconds between two calls of ``observe``, and between two checks of ``stop``

Show = Callable[[Result], object]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Camera:
    """A camera of :func:`framecast.run_cameras`: what may differ from camera to camera.

    Attributes:
        source: as for :func:`framecast.run`.
        name: in the report, the metrics and on the page: letters, digits and ``. _ -``. By default ``camera1``, …
        now: as for :func:`framecast.run`, like all that follow.
        ahead: seconds.
        horizon: frames of this camera.
        camera_delay: seconds.
        conceal: seconds.
        record: files.
        out: addresses.
        sinks: this camera's thread calls them.
    """

    source: str | os.PathLike[str] | Source
    name: str = ""
    now: bool = False
    ahead: float | None = None
    horizon: int | None = None
    camera_delay: float = 0.0
    conceal: float | None = None
    record: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = ()
    out: str | Iterable[str] = ()
    sinks: Iterable[Sink | Show] = ()


@dataclass(frozen=True)
class Common:
    """What all cameras of a run have in common. See the arguments of :func:`framecast.run`.

    Attributes:
        displays: whether there is a page or a window.
    """

    displays: bool = False
    display_delay: float = 0.0
    max_ahead: float = MAX_AHEAD
    refresh: float | None = None
    frames: int | None = None
    realtime: bool = False
    every_frame: bool = False
    loop: bool = False
    timeout: float = 15.0
    stall: float = 2.5
    reconnect: bool = True
    segment: float | None = None
    keep: float | None = None
    step_limit: float = STEP_LIMIT
    clock: Clock = SYSTEM

    def check(self) -> None:
        """Check what can be checked before anything is opened.

        Raises:
            OptionError: an option is out of range.
        """
        if not self.step_limit > 0:
            raise OptionError(f"step_limit must be above 0 s, not {self.step_limit:g}")
        check_frames(self.frames)
        check_refresh(self.refresh)
        if self.clock is not SYSTEM and self.displays:
            raise OptionError("a window and a page run in real time: leave out clock, or leave out show and serve")


class Lane:
    """Runs one camera. Use it in a ``with``: call :meth:`check`, then :meth:`open`, then :meth:`run`.

    Args:
        camera: its source and options.
        common: the run's options.
        announce: called with each line that the user should read.

    Attributes:
        camera: see above.
        name: the camera's name; "" in a run of one.
        pipeline: once it is open.
    """

    def __init__(self, camera: Camera, common: Common, announce: Callable[[str], object]) -> None:
        self.camera, self.name = camera, camera.name
        self._common, self._announce = common, announce
        self._stack, self._outputs = ExitStack(), ExitStack()
        self._sinks: list[Show] = []  # without moments between frames; displays get those too
        self.pipeline: Pipeline

    def check(self) -> None:
        """Check the camera's options before anything is opened. From now on, :meth:`close` closes what was given.

        Raises:
            OptionError: an option is out of range.
            SinkError: an output cannot be written.
        """
        camera, common = self.camera, self._common
        if isinstance(camera.source, Source):
            close_after(self._stack, camera.source.close)
        for sink in camera.sinks:
            if callable(sink):
                self._sinks.append(sink)
            else:
                close_after(self._stack, sink.close)
                self._sinks.append(sink.show)
        check_conceal(camera.conceal)
        self._lookahead = Lookahead(
            camera.horizon, camera.ahead, camera.now, camera.camera_delay, common.display_delay, common.max_ahead
        )
        record, out = camera.record, camera.out
        self.places = [Path(record)] if isinstance(record, (str, os.PathLike)) else [Path(place) for place in record]
        check_recordings(self.places, common.segment, common.keep)
        self._targets = [out] if isinstance(out, str) else list(out)
        for target in self._targets:
            check_out(target)
        self._watched = camera.now or common.displays or any(map(is_live, self._targets))

    def open(self, engine: Engine) -> None:
        """Open the source.

        Args:
            engine: runs the steps; :meth:`close` closes it.

        Raises:
            SourceError: the source cannot be opened.
            EngineError: the model does not take pictures, or there is no memory for its states.
            OptionError: an option does not fit the source.
        """
        camera, common, source = self.camera, self._common, self.camera.source
        predictor = Predictor(self._stack.enter_context(engine))
        if isinstance(source, Source):
            opened = source
        else:
            opened = open_source(
                source,
                loop=common.loop,
                timeout=common.timeout,
                stall=common.stall,
                sender_clock=camera.camera_delay <= 0,  # the delay is counted from the arrival
                reconnect=common.reconnect,
                clock=common.clock,
            )
            close_after(self._stack, opened.close)
            if camera.now and not camera.camera_delay and str(source).lower().startswith(("rtsp:", "rtsps:")):
                self.announce(Notice("warning", f"warning: {_NO_DELAY}", logging.WARNING))
        self.pipeline = Pipeline(
            opened,
            predictor,
            lookahead=self._lookahead,
            frames=common.frames,
            realtime=common.realtime or self._watched,
            every=common.every_frame,
            refresh=common.refresh if common.displays else None,
            conceal=camera.conceal,
            clock=common.clock,
        )
        ours = engine.manifest.config
        self.log(Notice("started", f"started: {opened.name}", source=opened.name, model=ours, engine=engine.name))

    def run(
        self,
        displays: Callable[[ExitStack, Pipeline], list[Show]],
        *,
        observe: Callable[[Report], object] = lambda report: None,
        stop: threading.Event,
        check: Callable[[], object] = lambda: None,
    ) -> None:
        """Predict until the source ends, or until it is stopped.

        Args:
            displays: opens what also gets the moments between frames, and closes it by the stack.
            observe: called with the report, as for :func:`framecast.run`.
            stop: set it to end.
            check: called for each result; what it raises ends the run.

        Raises:
            SourceError: the source was lost.
            EngineError: the engine failed.
            SinkError: an output failed.
        """
        pipeline = self.pipeline
        try:
            with self._outputs:
                shown = displays(self._outputs, pipeline)
                self._open_outputs(lambda: stop.is_set() or pipeline.stopped)
                self._drive(shown, observe, stop, check)
        except Exception as error:
            pipeline.telemetry.end(f"error: {error}")
            if isinstance(error, SinkError):
                self.log(Notice("output_lost", str(error), logging.WARNING))
            raise
        finally:
            if pipeline.started:
                observe(pipeline.report())
            self._tell_end()

    def give_up(self, reason: str) -> None:
        """Close the outputs from another thread, because a step does not return."""
        self.pipeline.telemetry.end(f"error: {reason}")
        closing = threading.Thread(target=_close, args=(self._outputs,), daemon=True)
        closing.start()
        closing.join(CLOSING)

    def announce(self, line: str) -> None:
        """Say what the user should read, with the camera's name."""
        self._announce(self._named(line))

    def log(self, line: str) -> None:
        """Log a line with the camera's name."""
        to_log(self._named(line))

    def close(self) -> None:
        """Close source, engine and outputs. May be called twice."""
        self._stack.close()

    def __enter__(self) -> Lane:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _named(self, line: str) -> str:
        if not self.name:
            return line
        text = f"{self.name}: {line}"
        return (
            Notice(line.event, text, line.level, camera=self.name, **line.fields) if isinstance(line, Notice) else text
        )

    def _open_outputs(self, leaving: Callable[[], bool]) -> None:
        common, pipeline = self._common, self.pipeline
        source, clock = pipeline.source, common.clock
        fps = source.fps or 1 / pipeline.predictor.interval
        # Whoever watches live gets the newest picture; everybody else gets every one.
        late = source.live or common.realtime or self._watched
        again = common.reconnect and source.live
        opening: list[Callable[[], SinkThread]] = [
            *(partial(recorder, place, fps, common.segment, common.keep, clock, again=again) for place in self.places),
            *(
                partial(sender, target, fps, late, clock, again=common.reconnect, waits=source.live, leaving=leaving)
                for target in self._targets
            ),
        ]
        for opens in opening:
            thread = opens()
            close_after(self._outputs, thread.close)
            pipeline.outputs.append(thread.written)
            self._sinks.append(thread.show)

    def _drive(
        self,
        displays: list[Show],
        observe: Callable[[Report], object],
        stop: threading.Event,
        check: Callable[[], object],
    ) -> None:
        pipeline, clock = self.pipeline, self._common.clock
        observe(pipeline.report())  # the run has begun: from now on there is something to finish
        observed = clock.now() - REFRESH  # the first figures come at once
        news = News(pipeline.source, self.announce, clock, pipeline.outputs, pipeline.predictor.engine, log=self.log)
        for result in pipeline.results(REFRESH):
            check()
            if result is not None:
                news.see(result)
                for sink in displays if result.between else [*displays, *self._sinks]:
                    sink(result)
            if clock.now() - observed >= REFRESH:
                observed = clock.now()
                observe(pipeline.report())
                news.tell()
            if stop.is_set():
                pipeline.stop()

    def _tell_end(self) -> None:
        now = self.pipeline.telemetry.snapshot()
        counts = {"frames": now.frames, "dropped": now.dropped, "epochs": now.epochs, "resets": now.resets}
        seconds = round(now.seconds, 3)
        self.log(Notice("stopped", f"stopped: {now.ended}", reason=now.ended, **counts, seconds=seconds))


_NO_DELAY = (
    "unless the camera tells when it captures (RTCP), its delay is taken as 0 ms, and the picture lags by it: "
    "measure it with 'framecast delay', and give it as --camera-delay"
)


def _close(stack: ExitStack) -> None:
    try:
        stack.close()
    except Exception as error:  # noqa: BLE001 (the step that hangs is what ends the run)
        _log.warning("closing failed as well: %s", error)


def close_after(stack: ExitStack, close: Callable[[], object]) -> None:
    """Call ``close`` when the stack unwinds. If it fails after another failure, the first one is raised."""

    def leave(kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            close()
        except Exception as later:
            if error is None:
                raise
            _log.warning("closing failed as well: %s", later)

    stack.push(leave)
