"""Runs a source through a model into sinks, in one call. ``framecast run`` calls this after parsing its options."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, nullcontext, suppress
from functools import partial
from pathlib import Path
from types import TracebackType

from framecast.camera import Source, open_source
from framecast.clock import SYSTEM, Clock
from framecast.errors import OptionError, SinkError, SinkUnavailableError
from framecast.notice import Notice, to_log
from framecast.runtime.conceal import check_conceal
from framecast.runtime.cpu import caution
from framecast.runtime.engines import open_engine
from framecast.runtime.lookahead import MAX_AHEAD, Lookahead
from framecast.runtime.news import News
from framecast.runtime.outputs import STRIP, recorder, sender
from framecast.runtime.pipeline import Pipeline, check_refresh
from framecast.runtime.predictor import Predictor
from framecast.runtime.report import Report
from framecast.runtime.shipped import DEFAULT_MODEL, find
from framecast.runtime.sinks.out import check_out, is_live
from framecast.runtime.sinks.recorded import check_recordable
from framecast.runtime.sinks.sink import Result, Sink
from framecast.runtime.sinks.thread import SinkThread
from framecast.runtime.sinks.video import check_segments, check_suffix
from framecast.runtime.watchdog import STEP_LIMIT, Watchdog

CLOSING = 5.0  # seconds that the outputs may take to close while a step hangs
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
    segment: float | None = None,
    keep: float | None = None,
    out: str | Iterable[str] = (),
    serve: str | None = None,
    token: str | None = None,
    hosts: Iterable[str] = (),
    show: bool = False,
    sinks: Iterable[Sink | Callable[[Result], object]] = (),
    observe: Callable[[Report], object] = lambda report: None,
    announce: Callable[[str], object] = to_log,
    stop: threading.Event | None = None,
    step_limit: float = STEP_LIMIT,
    stuck: Callable[[str], object] = _log.error,
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
        realtime: play a file at its own frame rate; ``now``, ``serve``, ``show``, and ``out`` except to ``-``, always
            do. Frames that come while the model is busy are then dropped, as with a camera.
        every_frame: predict every frame of a file played in real time, even if the model falls behind.
        loop: restart a file at its end.
        timeout: seconds that a camera may take to answer.
        stall: seconds that it may take for each later frame.
        reconnect: open a camera again when it was lost, for as long as it takes. A camera that does not answer yet is
            waited for. The same holds for a camera's recordings, as when the disk is full, and for receivers of
            ``out``: the predictions go on without them.
        record: videos (.mp4, .mkv, .webm, .avi) or strips of pictures (.png) to write. No file is replaced: if the
            file exists, the new one's name gets the time.
        segment: begin a new video file after so many seconds, each with the time in its name.
        keep: remove the oldest of these segments, those of earlier runs as well, if all take more bytes.
        out: where to send the predictions as a camera, without marks: ``rtsp://host:port/path``,
            ``udp://host:port``, ``v4l2:///dev/video10``, or ``-`` for Y4M on standard output, which from then on takes
            nothing else.
        serve: HOST:PORT, HOST or PORT at which to show the run in a browser.
        token: the page's secret, 16 to 256 characters; every request must carry it (default: none on 127.0.0.1, else a
            new one).
        hosts: names under which a proxy on this machine shows the page to others. The page then needs a token.
        show: show the run in a window; closing the window ends the run.
        sinks: further sinks: objects with ``show`` and ``close``, or any callable that takes a :class:`Result`. The
            loop's thread calls them, so they should return soon. They are closed at the end.
        observe: called with the report when the run begins, about four times a second even if no frame comes, and at
            the end.
        announce: called with each line that the user should read, such as the page's address (default: log it). It is
            a string that also has ``event``, ``level`` and ``fields``.
        stop: set it from any thread or signal handler to end the run.
        step_limit: seconds that a step may take. The first steps of an engine that compiles may take ten times as long.
        stuck: called with the reason, in another thread, if a step does not return and the engine cannot interrupt it.
            The outputs are closed by then. Only ending the process helps; if the step returns after all, the run ends
            with an EngineError.
        clock: for stamps and waiting.

    Returns:
        The final report.

    Raises:
        SourceError: the source cannot be opened, or was lost.
        ArtifactError: there is no such model, or the file is not an artifact.
        EngineError: the engine is not available on this machine, failed, or did not return in time.
        SinkError: an output cannot be written or served.
        OptionError: an argument is out of range.
    """
    check_refresh(refresh)
    check_conceal(conceal)
    if not step_limit > 0:
        raise OptionError(f"step_limit must be above 0 s, not {step_limit:g}")
    halt = stop or threading.Event()
    wish = Lookahead(horizon, ahead, now, camera_delay, display_delay, max_ahead)
    with ExitStack() as stack:
        if isinstance(source, Source):
            _close_after(stack, source.close)
        shown: list[Callable[[Result], object]] = []  # sinks without moments between frames; displays get those too
        for sink in sinks:
            if callable(sink):
                shown.append(sink)
            else:
                _close_after(stack, sink.close)
                shown.append(sink.show)
        places = [Path(record)] if isinstance(record, (str, os.PathLike)) else [Path(place) for place in record]
        check_recordings(places, segment, keep)
        targets = [out] if isinstance(out, str) else list(out)
        for target in targets:
            check_out(target)
        watched = now or show or serve is not None or any(map(is_live, targets))
        if clock is not SYSTEM and (show or serve is not None):
            raise OptionError("a window and a page run in real time: leave out clock, or leave out show and serve")
        predictor = stack.enter_context(Predictor(open_engine(find(model), engine, threads=threads), owns_engine=True))
        if line := caution(predictor.manifest):
            announce(Notice("warning", f"warning: {line}", logging.WARNING))
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
            _close_after(stack, opened.close)
            if now and not camera_delay and str(source).lower().startswith(("rtsp:", "rtsps:")):
                announce(Notice("warning", f"warning: {_NO_DELAY}", logging.WARNING))
        pipeline = Pipeline(
            opened,
            predictor,
            lookahead=wish,
            frames=frames,
            realtime=realtime or watched,
            every=every_frame,
            refresh=refresh if show or serve is not None else None,
            conceal=conceal,
            clock=clock,
        )
        line, ours = f"started: {opened.name}", predictor.engine
        to_log(Notice("started", line, source=opened.name, model=ours.manifest.config, engine=ours.name))
        try:
            with ExitStack() as sinks_open:
                displays = _open_displays(sinks_open, pipeline, serve, token, hosts, show, announce)
                fps = opened.fps or 1 / predictor.interval
                # Whoever watches live gets the newest picture; everybody else gets every one.
                late = opened.live or realtime or watched
                opening: list[Callable[[], SinkThread]] = [
                    *(
                        partial(recorder, place, fps, segment, keep, clock, again=reconnect and opened.live)
                        for place in places
                    ),
                    *(
                        partial(sender, target, fps, late, clock, again=reconnect, waits=opened.live)
                        for target in targets
                    ),
                ]
                for opens in opening:
                    thread = opens()
                    _close_after(sinks_open, thread.close)
                    pipeline.outputs.append(thread.written)
                    shown.append(thread.show)

                def give_up(reason: str) -> None:
                    pipeline.telemetry.end(f"error: {reason}")
                    closing = threading.Thread(target=_close, args=(sinks_open,), daemon=True)
                    closing.start()
                    closing.join(CLOSING)
                    observe(pipeline.report())
                    stuck(reason)

                watchdog = Watchdog(predictor.engine, give_up, stopping=halt.is_set, limit=step_limit)
                with watchdog if clock is SYSTEM else nullcontext():  # in virtual time a step takes no time
                    _drive(pipeline, displays, shown, observe, announce, halt, watchdog, clock)
        except Exception as error:
            pipeline.telemetry.end(f"error: {error}")
            if isinstance(error, SinkError):
                to_log(Notice("output_lost", str(error), logging.WARNING))
            raise
        finally:
            if pipeline.started:
                observe(pipeline.report())
            _tell_end(pipeline)
        return pipeline.report()


def _tell_end(pipeline: Pipeline) -> None:
    now = pipeline.telemetry.snapshot()
    counts = {"frames": now.frames, "dropped": now.dropped, "epochs": now.epochs, "resets": now.resets}
    to_log(Notice("stopped", f"stopped: {now.ended}", reason=now.ended, **counts, seconds=round(now.seconds, 3)))


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
    watchdog: Watchdog,
    clock: Clock,
) -> None:
    observe(pipeline.report())  # the run has begun: from now on there is something to finish
    observed = clock.now() - REFRESH  # the first figures come at once
    news = News(pipeline.source, announce, clock, pipeline.outputs)
    for result in pipeline.results(REFRESH):
        watchdog.check()
        if result is not None:
            news.see(result)
            for sink in displays if result.between else [*displays, *sinks]:
                sink(result)
        if clock.now() - observed >= REFRESH:
            observed = clock.now()
            observe(pipeline.report())
            news.tell()
        if stop.is_set():
            pipeline.stop()


def _open_displays(
    stack: ExitStack,
    pipeline: Pipeline,
    serve: str | None,
    token: str | None,
    hosts: Iterable[str],
    show: bool,
    announce: Callable[[str], object],
) -> list[Callable[[Result], object]]:
    """Open window and page and return their ``show`` functions. The stack closes them."""
    opened: list[Callable[[Result], object]] = []
    if show:
        from framecast.runtime.sinks.window import WindowSink

        window = WindowSink(closed=pipeline.stop)
        _close_after(stack, window.close)
        opened.append(window.show)
    if serve is not None:  # before the recorders, so that it closes after them: viewers may be slow to leave
        from framecast.runtime.sinks.web import WebSink

        page = WebSink(serve, snapshot=lambda: dict(pipeline.report()), token=token, hosts=hosts)
        _close_after(stack, page.close)
        opened.append(page.show)
        # A secret that somebody set is not for the journal; one that was made for this run must be told.
        shown = page.url if token is None else f"{page.address} (add ?token= and your token)"
        announce(Notice("serving", f"watch it at {shown}", address=page.address, token=page.url != page.address))
    return opened


def check_recordings(paths: Sequence[Path], segment: float | None = None, keep: float | None = None) -> None:
    """Reject recordings before anything is opened, unless all suffixes are known and all paths can be written.

    Args:
        paths: as for ``record`` of :func:`run`.
        segment: see there.
        keep: see there.

    Raises:
        OptionError: a suffix is unknown, or the segments' time or size is out of range.
        SinkError: a path cannot be written, or another run is recording under that name. A full disk is told later,
            because a camera can wait for room.
    """
    check_recording_options(paths, segment, keep)
    for path in paths:
        with suppress(SinkUnavailableError):  # a camera is predicted without a recording until there is room
            check_recordable(path)


def check_recording_options(paths: Sequence[Path], segment: float | None = None, keep: float | None = None) -> None:
    """The part of :func:`check_recordings` that looks at no file.

    Raises:
        OptionError: see there.
    """
    check_segments(segment, keep)
    videos = [path for path in paths if path.suffix.lower() != STRIP]
    if segment is not None and not videos:
        raise OptionError("segment is for videos: give record as well, such as run.mp4")
    for path in videos:
        check_suffix(path)


def _close(stack: ExitStack) -> None:
    try:
        stack.close()
    except Exception as error:  # noqa: BLE001 (the step that hangs is what ends the run)
        _log.warning("closing failed as well: %s", error)


def _close_after(stack: ExitStack, close: Callable[[], object]) -> None:
    """Call ``close`` when the stack unwinds. If it fails after another failure, the first one is raised."""

    def leave(kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            close()
        except Exception as later:
            if error is None:
                raise
            _log.warning("closing failed as well: %s", later)

    stack.push(leave)
