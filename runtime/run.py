"""Runs a source through a model into sinks, in one call. ``framecast run`` calls this after parsing its options."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

from framecast.camera import Source, open_source
from framecast.clock import SYSTEM, Clock
from framecast.errors import OptionError
from framecast.runtime.cpu import caution
from framecast.runtime.engines import open_engine
from framecast.runtime.lookahead import MAX_AHEAD, Lookahead
from framecast.runtime.pipeline import Pipeline, check_refresh
from framecast.runtime.predictor import Predictor
from framecast.runtime.report import Report
from framecast.runtime.shipped import DEFAULT_MODEL, find
from framecast.runtime.sinks.sink import Result, Sink

REFRESH = 0.25  # seconds between two calls of ``observe``, and between two checks of ``stop``

_log = logging.getLogger(__name__)


def run(
    source: str | os.PathLike[str] | Source,
    *,
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    engine: str = "auto",
    threads: int = 0,
    now: bool = False,
    ahead: float | None = None,
    horizon: int | None = None,
    camera_delay: float = 0.0,
    display_delay: float = 0.0,
    max_ahead: float = MAX_AHEAD,
    refresh: float | None = None,
    conceal: float | None = None,
    frames: int | None = None,
    realtime: bool = False,
    every_frame: bool = False,
    loop: bool = False,
    timeout: float = 15.0,
    stall: float = 2.5,
    reconnect: bool = True,
    record: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
    serve: str | None = None,
    show: bool = False,
    sinks: Iterable[Sink | Callable[[Result], object]] = (),
    observe: Callable[[Report], object] = lambda report: None,
    announce: Callable[[str], object] = _log.info,
    stop: threading.Event | None = None,
    clock: Clock = SYSTEM,
) -> Report:
    """Predict a camera, a stream or a file live, and score every prediction against the real frame.

    Args:
        source: as for :func:`framecast.open`, or an opened source, which is closed at the end.
        model: a shipped name, or the path of an artifact.
        engine: see ``framecast doctor``.
        threads: CPU threads of the step; 0 means one per core.
        now: show the frame of now: measure how late each frame is, and look that far ahead. A file then plays at its
            own frame rate, like a camera. Give at most one of ``now``, ``ahead`` and ``horizon``.
        ahead: a fixed lookahead in seconds.
        horizon: a fixed lookahead in camera frames (default: 1).
        camera_delay: for ``now``: seconds from the lens to the frame's arrival here. If it is given, a network camera's
            own capture times are not used.
        display_delay: for ``now``: seconds that the display takes.
        max_ahead: for ``now``: the longest lookahead in seconds.
        refresh: pictures per second for ``show`` and ``serve``: between two frames, later moments of the newest one
            are rendered (default: none).
        conceal: where a frame is late or lost, go on with predictions for up to so many seconds (default: do not).
            They are marked, and fade to the last real frame.
        frames: end after this many frames.
        realtime: play a file at its own frame rate; ``now``, ``serve`` and ``show`` always do. Frames that come while
            the model is busy are then dropped, as with a camera.
        every_frame: predict every frame of a file played in real time, even if the model falls behind.
        loop: restart a file at its end.
        timeout: seconds that a camera may take to answer.
        stall: seconds that it may take for each later frame.
        reconnect: open a camera again when it was lost, for as long as it takes. A camera that does not answer yet is
            waited for.
        record: videos (.mp4, .mkv, .avi) or strips of pictures (.png) to write.
        serve: HOST:PORT, HOST or PORT at which to show the run in a browser.
        show: show the run in a window; closing the window ends the run.
        sinks: further sinks: objects with ``show`` and ``close``, or any callable that takes a :class:`Result`. The
            loop's thread calls them, so they should return soon. They are closed at the end.
        observe: called with the report about four times a second, even if no frame comes, and once at the end.
        announce: called with each line that the user should read, such as the page's address.
        stop: set it from any thread or signal handler to end the run.
        clock: for stamps and waiting.

    Returns:
        The final report.

    Raises:
        SourceError: the source cannot be opened, or was lost.
        ArtifactError: there is no such model, or the file is not an artifact.
        EngineError: the engine is not available on this machine, or failed.
        SinkError: an output cannot be written or served.
        OptionError: an argument is out of range.
    """
    check_refresh(refresh)
    wish = Lookahead(horizon, ahead, now, camera_delay, display_delay, max_ahead)
    with ExitStack() as stack:
        if isinstance(source, Source):
            stack.callback(source.close)
        shown: list[Callable[[Result], object]] = []  # sinks without moments between frames; displays get those too
        for sink in sinks:
            if callable(sink):
                shown.append(sink)
            else:
                stack.callback(sink.close)
                shown.append(sink.show)
        places = [Path(record)] if isinstance(record, (str, os.PathLike)) else [Path(place) for place in record]
        for place in places:
            check_recording(place)
        if clock is not SYSTEM and (show or serve is not None):
            raise OptionError("a window and a page run in real time: leave out clock, or leave out show and serve")
        predictor = stack.enter_context(Predictor(open_engine(find(model), engine, threads=threads), owns_engine=True))
        if line := caution(predictor.manifest):
            announce(f"warning: {line}")
        if isinstance(source, Source):
            opened = source
        else:
            own_delay = camera_delay > 0  # it is counted from the arrival
            opened = open_source(
                source,
                loop=loop,
                timeout=timeout,
                stall=stall,
                sender_clock=not own_delay,
                reconnect=reconnect,
                clock=clock,
            )
            stack.callback(opened.close)
            if now and not camera_delay and str(source).lower().startswith(("rtsp:", "rtsps:")):
                announce(f"warning: {_NO_DELAY}")
        pipeline = Pipeline(
            opened,
            predictor,
            lookahead=wish,
            frames=frames,
            realtime=realtime or now or show or serve is not None,
            every=every_frame,
            refresh=refresh if show or serve is not None else None,
            conceal=conceal,
            clock=clock,
        )
        try:
            with ExitStack() as sinks_open:
                displays = _open_displays(sinks_open, pipeline, serve, show, announce)
                shown += _open_recorders(sinks_open, pipeline, places, clock)
                _drive(pipeline, displays, shown, observe, announce, stop or threading.Event(), clock)
        except Exception as error:
            pipeline.telemetry.end(f"error: {error}")
            raise
        finally:
            if pipeline.started:
                observe(pipeline.report())
        return pipeline.report()


_NO_DELAY = (
    "unless the camera tells when it captures (RTCP), its delay is taken as 0 ms, and the picture lags by it: "
    "measure it with 'framecast delay', and give it as --camera-delay"
)


def _drive(
    pipeline: Pipeline,
    displays: list[Callable[[Result], object]],
    sinks: list[Callable[[Result], object]],
    observe: Callable[[Report], object],
    announce: Callable[[str], object],
    stop: threading.Event,
    clock: Clock,
) -> None:
    observed = clock.now()
    news = _News(pipeline.source, announce, clock)
    for result in pipeline.results(REFRESH):
        if result is not None:
            for sink in displays if result.between else [*displays, *sinks]:
                sink(result)
        if clock.now() - observed >= REFRESH:
            observed = clock.now()
            observe(pipeline.report())
            news.tell()
        if stop.is_set():
            pipeline.stop()


class _News:
    """Tells what the user should know about a source, each once: its notes, and that it was lost and is back.

    Args:
        source: the source.
        announce: called with each line.
        clock: measures the outages.
    """

    def __init__(self, source: Source, announce: Callable[[str], object], clock: Clock) -> None:
        self._source, self._announce, self._clock = source, announce, clock
        self._told: set[str] = set()
        self._lost: float | None = None  # since when

    def tell(self) -> None:
        """Tell what is new."""
        for note in self._source.notes:
            if note not in self._told:
                self._told.add(note)
                self._announce(f"note: {note}")
        trouble = self._source.trouble
        if trouble is not None and self._lost is None:
            self._lost = self._clock.now()
            self._announce(f"{trouble}: trying again")
        elif trouble is None and self._lost is not None:
            self._announce(f"{self._source.name} is back after {self._clock.now() - self._lost:.1f} s")
            self._lost = None


def _open_displays(
    stack: ExitStack, pipeline: Pipeline, serve: str | None, show: bool, announce: Callable[[str], object]
) -> list[Callable[[Result], object]]:
    """Open window and page and return their ``show`` functions. The stack closes them."""
    opened: list[Callable[[Result], object]] = []
    if show:
        from framecast.runtime.sinks.window import WindowSink

        window = WindowSink(closed=pipeline.stop)
        stack.callback(window.close)
        opened.append(window.show)
    if serve is not None:  # before the recorders, so that it closes after them: viewers may be slow to leave
        from framecast.runtime.sinks.web import WebSink

        page = WebSink(serve, snapshot=lambda: dict(pipeline.report()))
        stack.callback(page.close)
        opened.append(page.show)
        announce(f"watch it at {page.url}")
    return opened


def _open_recorders(
    stack: ExitStack, pipeline: Pipeline, record: list[Path], clock: Clock
) -> list[Callable[[Result], object]]:
    """Open the recordings and return their ``show`` functions. The stack closes them."""
    if not record:
        return []
    from framecast.runtime.sinks.thread import SinkThread

    opened: list[Callable[[Result], object]] = []
    fps = pipeline.source.fps or 1 / pipeline.predictor.interval
    for path in record:
        recorder = SinkThread(_recorder(path, fps), clock)
        stack.callback(recorder.close)
        opened.append(recorder.show)
    return opened


def check_recording(path: Path) -> None:
    """Check the suffix and the path of a recording, before anything is opened.

    Raises:
        OptionError: the suffix is unknown.
        SinkError: the path cannot be written.
    """
    _recorder(path, fps=1)  # its constructor checks the path, and writes nothing


def _recorder(path: Path, fps: float) -> Sink:
    if path.suffix.lower() == ".png":
        from framecast.runtime.sinks.strip import StripSink

        return StripSink(path)
    from framecast.runtime.sinks.video import VideoSink

    return VideoSink(path, fps)
