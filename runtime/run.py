"""Runs a source through a model into sinks, in one call. ``framecast run`` calls this after parsing its options."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack, nullcontext
from functools import partial

from framecast.camera import Source
from framecast.clock import SYSTEM, Clock
from framecast.notice import Notice, to_log
from framecast.runtime.cpu import caution
from framecast.runtime.engines import open_engine
from framecast.runtime.lane import Camera, Common, Lane, Show, close_after
from framecast.runtime.lookahead import MAX_AHEAD
from framecast.runtime.pipeline import Pipeline
from framecast.runtime.report import Report
from framecast.runtime.shipped import DEFAULT_MODEL, find, read_by
from framecast.runtime.sinks.sink import Result, Sink
from framecast.runtime.watchdog import STEP_LIMIT, Watchdog

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
    camera = Camera(
        source,
        now=now,
        ahead=ahead,
        horizon=horizon,
        camera_delay=camera_delay,
        conceal=conceal,
        record=record,
        out=out,
        sinks=sinks,
    )
    common = Common(
        displays=show or serve is not None,
        display_delay=display_delay,
        max_ahead=max_ahead,
        refresh=refresh,
        frames=frames,
        realtime=realtime,
        every_frame=every_frame,
        loop=loop,
        timeout=timeout,
        stall=stall,
        reconnect=reconnect,
        segment=segment,
        keep=keep,
        step_limit=step_limit,
        clock=clock,
    )
    halt = stop or threading.Event()
    with Lane(camera, common, announce) as lane:
        lane.check()
        common.check()
        opened = open_engine(find(read_by(engine, model)), engine, threads=threads)
        if line := caution(opened.manifest):
            announce(Notice("warning", f"warning: {line}", logging.WARNING))
        lane.open(opened)

        def give_up(reason: str) -> None:
            lane.give_up(reason)
            observe(lane.pipeline.report())
            stuck(reason)

        displays = partial(_open_displays, serve=serve, token=token, hosts=hosts, show=show, announce=announce)
        watchdog = Watchdog(opened, give_up, stopping=halt.is_set, limit=step_limit)
        with watchdog if clock is SYSTEM else nullcontext():  # in virtual time a step takes no time
            lane.run(displays, observe=observe, stop=halt, check=watchdog.check)
        return lane.pipeline.report()


def _open_displays(
    stack: ExitStack,
    pipeline: Pipeline,
    serve: str | None,
    token: str | None,
    hosts: Iterable[str],
    show: bool,
    announce: Callable[[str], object],
) -> list[Show]:
    """Open window and page and return their ``show`` functions. The stack closes them."""
    opened: list[Show] = []
    if show:
        from framecast.runtime.sinks.window import WindowSink

        window = WindowSink(closed=pipeline.stop)
        close_after(stack, window.close)
        opened.append(window.show)
    if serve is not None:  # before the recorders, so that it closes after them: viewers may be slow to leave
        from framecast.runtime.sinks.web import WebSink

        page = WebSink(serve, snapshot=lambda: dict(pipeline.report()), token=token, hosts=hosts)
        close_after(stack, page.close)
        opened.append(page.show)
        announce(page.notice(told=token is None))
    return opened
