"""``framecast run``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from framecast.cli.shared import (
    MODEL_HELP,
    artifact,
    check_clips,
    check_numbers,
    check_outputs,
    exported,
    on_signals,
    say,
)

if TYPE_CHECKING:
    from framecast.runtime import Pipeline
    from framecast.runtime.sinks.sink import Event, Sink

DEFAULT_ADDRESS = "127.0.0.1:8000"
REFRESH = 0.25  # seconds between updates of the status line


def run(
    source: Annotated[
        str,
        typer.Argument(
            help="A video file, a folder or glob of images, a webcam's number, v4l2:///dev/video0, csi://0, rtsp://…, "
            "synthetic:// or demo."
        ),
    ],
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = "edge",
    engine: Annotated[str, typer.Option(help="What runs the step (framecast doctor).")] = "auto",
    horizon: Annotated[int, typer.Option(help="Predict so many frames ahead.")] = 1,
    serve: Annotated[
        str | None, typer.Option(metavar="[HOST:PORT]", help=f"Show the run in a browser ({DEFAULT_ADDRESS}).")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Show the run in a window; q, Esc or ✕ ends it.")] = False,
    record: Annotated[
        list[Path] | None,
        typer.Option(help="Record a video (.mp4, .mkv, .avi) or a strip of pictures (.png); repeatable."),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
    max_frames: Annotated[int | None, typer.Option(help="End after so many frames.")] = None,
    realtime: Annotated[
        bool, typer.Option("--realtime", help="Play a file at its own pace (always so with --serve and --show).")
    ] = False,
    loop: Annotated[bool, typer.Option("--loop", help="Start a file over at its end, until Ctrl-C.")] = False,
    threads: Annotated[int, typer.Option(help="CPU threads of the step; 0: one a core.")] = 0,
) -> None:
    """Predict a camera, a stream or a file, live, and score every prediction against the frame that came."""
    from framecast import terminal
    from framecast.camera import open_source
    from framecast.runtime import Pipeline, load
    from framecast.runtime.cpu import caution
    from framecast.runtime.engines import choose
    from framecast.runtime.report import to_json
    from framecast.runtime.sinks.files import check_writable, write

    check_numbers(horizon=horizon, max_frames=max_frames)  # the pipeline would, once the camera has been opened
    outputs = [*(record or []), *([report] if report else [])]
    check_outputs(source, outputs)
    choose(engine, threads)
    for place in record or []:
        _recorder(place, fps=1)  # it says whether it can write there, and writes nothing yet
    if report is not None:
        check_writable(report)
    if exported(model):
        check_clips(source)
    paced = realtime or show or serve is not None
    with ExitStack() as stack:
        with artifact(model, engine) as path:
            predictor = stack.enter_context(load(path, engine=engine, threads=threads))
        if line := caution(predictor.manifest):
            say(f"framecast: {line}")
        opened = stack.enter_context(open_source(source, loop=loop))
        pipeline = Pipeline(opened, predictor, horizon=horizon, max_frames=max_frames, realtime=paced)
        stack.enter_context(on_signals(pipeline.stop))
        try:
            _drive(pipeline, record or [], serve, window=show)
        except Exception as error:
            pipeline.ended = f"error: {error}"
            raise
        finally:
            if pipeline.started:
                if report is not None:
                    write(report, f"{to_json(pipeline.report(), indent=2)}\n".encode())
                terminal.summary(pipeline.report(), outputs)


def _drive(pipeline: Pipeline, record: list[Path], serve: str | None, *, window: bool) -> None:
    """Run the pipeline into its sinks, with a status line where there is a terminal."""
    from framecast import terminal
    from framecast.runtime.sinks.thread import SinkThread

    fps = pipeline.source.fps or 1 / pipeline.predictor.interval
    with ExitStack() as stack:
        show: list[Callable[[Event], None]] = []
        if window:
            from framecast.runtime.sinks.window import WindowSink

            desktop = WindowSink(closed=pipeline.stop)
            stack.callback(desktop.close)
            show.append(desktop.show)
        if serve is not None:  # before the recorders, so that it is closed after them: viewers may be slow to leave
            from framecast.runtime.sinks.web import WebSink

            page = WebSink(serve, snapshot=lambda: dict(pipeline.report()))
            stack.callback(page.close)
            show.append(page.show)
            print(f"watch it at {page.url}", file=sys.stderr, flush=True)
        for path in record:
            recorder = SinkThread(_recorder(path, fps))
            stack.callback(recorder.close)
            show.append(recorder.show)
        status = stack.enter_context(terminal.status_line())
        shown = 0.0
        for event in pipeline:
            for call in show:
                call(event)
            if time.monotonic() - shown > REFRESH:
                shown = time.monotonic()
                status(pipeline.report())


def _recorder(path: Path, fps: float) -> Sink:
    if path.suffix.lower() == ".png":
        from framecast.runtime.sinks.strip import StripSink

        return StripSink(path)
    from framecast.runtime.sinks.video import VideoSink

    return VideoSink(path, fps)
